//! Writing the operator's wishes.

use tokio::sync::oneshot;
use tracing::info;

use super::{Driver, Feed};
use crate::{
    cluster::lease::WriteError,
    domain::fleet::{Key, NodeRef, StoreRevision, Wish},
};

impl Driver {
    /// Writes a wish over the one that is known, and sends the outcome.
    pub(super) fn wish(
        &mut self,
        node: NodeRef,
        cordoned: bool,
        answer: oneshot::Sender<Result<StoreRevision, String>>,
    ) {
        let expected = self.wishes.borrow().get(&node).map(|wished| wished.revision).filter(|at| at.0 > 0);
        let write = self.write(&Key::Wish(node.clone()), expected, &Wish::new(cordoned), None);
        self.ask(async move {
            let outcome = write.await.map_err(|error| match error {
                WriteError::Conflict => "another wish for the node came first: look, and try again".to_owned(),
                WriteError::Ambiguous => "no answer came in time, and the wish may count all the same".to_owned(),
                WriteError::Unavailable => "the cluster's store is not reached".to_owned(),
            });
            if let Ok(revision) = &outcome {
                info!(%node, cordoned, %revision, "the operator has a wish for all replicas");
            }
            // The operator may have left.
            let _ = answer.send(outcome);
            Feed::Nothing
        });
    }

    /// After the loss of the bucket, the leader writes the wishes that it knows into the new one.
    pub(super) fn restore(&mut self) {
        if self.restores || !self.is_synced || self.lead.may_begin(self.now()).is_none() {
            return;
        }
        let unstored = self.wishes.borrow().unstored().map(|(node, wish)| (node.clone(), wish.clone()));
        let Some((node, wish)) = unstored else { return };
        self.restores = true;
        let write = self.write(&Key::Wish(node), None, &wish, None);
        self.ask(async move {
            // The watch tells the outcome; a wish that came first is as good.
            let _ = write.await;
            Feed::Restored
        });
    }
}
