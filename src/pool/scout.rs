//! Calls at nodes that rest: which call may go, and which waiting calls are woken when that
//! changes.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    Pool,
    resting::{Kind, NodeClaim},
    state::Input,
};
use crate::domain::{method::MethodId, node_id::NodeId};

/// A scout's place at a node that rested. Dropping the place wakes calls that wait for one.
pub struct Scout<'a> {
    pool: &'a Pool,
    node: NodeId,
    claim: NodeClaim,
}

impl Drop for Scout<'_> {
    fn drop(&mut self) {
        self.pool.scout_returned(self.node, self.claim);
    }
}

/// [`Scout`], for a task that may outlive its call.
pub struct OwnedScout {
    pool: Arc<Pool>,
    node: NodeId,
    claim: NodeClaim,
}

impl Drop for OwnedScout {
    fn drop(&mut self) {
        self.pool.scout_returned(self.node, self.claim);
    }
}

impl Pool {
    /// Whether anything rests at any node.
    pub fn is_any_resting(&self) -> bool {
        self.nodes.iter().any(|node| node.resting.is_any())
    }

    /// Whether any node lacks methods, by its settings or by its word.
    pub fn is_any_method_missing(&self) -> bool {
        self.nodes.iter().any(|node| node.method_rules.is_any() || node.missing_methods.is_any())
    }

    /// Whether the settings rule out every node for calls of this method.
    pub fn no_node_is_for(&self, id: MethodId, name: &str) -> bool {
        self.nodes.iter().all(|node| node.method_rules.rules_out(id, name))
    }

    /// Takes a scout's place at a node, if there is one.
    pub fn scout(&self, node: NodeId, kind: Kind, again: bool) -> Option<Scout<'_>> {
        let claim = self.nodes[node].resting.claim(kind, again, Instant::now())?;
        Some(Scout { pool: self, node, claim })
    }

    /// [`Pool::scout`], for a task that may outlive its call.
    pub fn owned_scout(self: &Arc<Self>, node: NodeId, kind: Kind) -> Option<OwnedScout> {
        let claim = self.nodes[node].resting.claim(kind, false, Instant::now())?;
        Some(OwnedScout { pool: self.clone(), node, claim })
    }

    fn scout_returned(&self, node: NodeId, claim: NodeClaim) {
        self.nodes[node].resting.release(claim);
        self.stirred.notify_waiters();
    }

    /// A node refused a call of this kind for quota, and may have said how long to wait.
    pub fn call_refused(&self, node: NodeId, kind: Kind, wait: Option<Duration>) {
        self.nodes[node].resting.refused(kind, wait, Instant::now());
        self.rest_changed(node);
        // Other calls of the kind go elsewhere.
        NodeId::all(self.nodes.len()).filter(|other| *other != node).for_each(|other| self.needs(other));
    }

    /// Waits until a rest may have ended, or `until`. A change before the first poll is missed, so
    /// a rest's end is also looked for once a second.
    pub async fn stirs(&self, until: Instant) {
        const OFTEN: Duration = Duration::from_secs(1);
        // Both arms are cancel-safe.
        tokio::select! {
            () = self.stirred.notified() => {}
            () = sleep_until(until.min(Instant::now() + OFTEN)) => {}
        }
    }

    pub(super) fn rest_changed(&self, node: NodeId) {
        self.stirred.notify_waiters();
        // A full inbox is soon worked off, and the state task checks the rests at each input.
        let _ = self.inbox.try_send(Input::Rests(node));
    }
}
