//! The forms in which a node can be asked for a block's logs, and which of them each node knows.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A form of request for the logs of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `eth_getLogs` by the block's hash.
    Hash,
    /// The same for the wanted logs only, because nodes refuse to give too many logs at once.
    HashUnion,
    /// `eth_getLogs` for the range of the block's height alone.
    Height,
    HeightUnion,
    /// `eth_getBlockReceipts`.
    Receipts,
}

const ALL: [Form; 5] = [Form::Hash, Form::HashUnion, Form::Height, Form::HeightUnion, Form::Receipts];
/// A node lacks requests by hash when it refused them so often in a row, and gave the logs in
/// another form each time.
const TIMES: u8 = 3;
/// How long the node is then not asked by hash.
const FORGET: Duration = Duration::from_secs(600);

/// For each node, by name, whether requests by hash are worth a try. Clones share one memory.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Forms(Arc<Mutex<Known>>);

/// How often in a row each node has refused requests by hash, and when it last did.
type Known = BTreeMap<Arc<str>, (u8, Instant)>;

impl Forms {
    /// The forms to ask a node in, one after the other. Each round begins with another form, so
    /// that a form whose answers get lost does not come first every time.
    pub(super) fn of(&self, node: &Arc<str>, round: u32) -> impl Iterator<Item = Form> + use<> {
        let known = self.lock().get(node).copied();
        let lacks_hash = known.is_some_and(|(times, last)| times >= TIMES && last.elapsed() < FORGET);
        let forms = ALL.into_iter().filter(move |form| !(lacks_hash && matches!(form, Form::Hash | Form::HashUnion)));
        let forms: Vec<Form> = forms.collect();
        let first = (round as usize - 1) % forms.len();
        (0..forms.len()).map(move |place| forms[(first + place) % forms.len()])
    }

    /// Notes that a node gave a block's logs in `form`, and whether it had `refused` the request by
    /// hash before.
    pub(super) fn answered(&self, node: &Arc<str>, form: Form, refused: bool) {
        let mut known = self.lock();
        match form {
            Form::Hash | Form::HashUnion => _ = known.remove(node),
            Form::Height | Form::HeightUnion | Form::Receipts if refused => {
                let (times, last) = known.entry(node.clone()).or_insert((0, Instant::now()));
                (*times, *last) = (times.saturating_add(1), Instant::now());
            }
            Form::Height | Form::HeightUnion | Form::Receipts => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // The map is whole at every moment, so a panic elsewhere cannot have spoilt it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_that_refuses_by_hash_is_not_asked_so_for_a_while() {
        let (forms, node): (_, Arc<str>) = (Forms::default(), "one".into());
        let first = |round| forms.of(&node, round).next();
        for _ in 0..TIMES {
            assert_eq!(first(1), Some(Form::Hash));
            forms.answered(&node, Form::Height, true);
        }
        assert_eq!((first(1), forms.of(&node, 1).count()), (Some(Form::Height), 3));
        assert_eq!(forms.of(&"other".into(), 1).next(), Some(Form::Hash));
        tokio::time::advance(FORGET).await;
        assert_eq!(first(1), Some(Form::Hash));
        forms.answered(&node, Form::Hash, false);
        forms.answered(&node, Form::Height, true);
        assert_eq!(first(1), Some(Form::Hash), "not in a row");
        assert_eq!((first(2), first(6)), (Some(Form::HashUnion), Some(Form::Hash)));
    }
}
