//! The node that a network's validator duties stay on.
//!
//! An aggregate is known only to the node that was told of the subnet before, so duties do not go home to the primary with the other
//! requests: they move only when their node is no longer usable.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::pool::{Pool, snapshot::Snapshot};

/// No node.
const NONE: usize = usize::MAX;

/// The node that duties stay on, once there is one.
pub(super) struct Sticky(AtomicUsize);

impl Default for Sticky {
    fn default() -> Self {
        Self(AtomicUsize::new(NONE))
    }
}

impl Sticky {
    /// The node for duties: the one of before for as long as it is usable, else the `best`.
    pub(super) fn node(&self, pool: &Pool, best: impl FnOnce() -> Option<usize>) -> Option<usize> {
        let kept = self.0.load(Relaxed);
        if is_usable(&pool.snapshot(), kept) {
            return Some(kept);
        }
        let best = best()?;
        // One that only serves for want of a better has no claim to stay.
        if is_usable(&pool.snapshot(), best) {
            self.0.store(best, Relaxed);
        }
        Some(best)
    }

    /// Takes over the choice of another pool, by the node's name.
    pub(super) fn inherit(&self, pool: &Pool, earlier: &Self, of: &Pool) {
        let kept = of.nodes.get(earlier.0.load(Relaxed));
        let place = kept.and_then(|kept| pool.nodes.iter().position(|node| node.name == kept.name));
        self.0.store(place.unwrap_or(NONE), Relaxed);
    }
}

/// Whether the node is one that requests should go to.
pub(super) fn is_usable(snapshot: &Snapshot, node: usize) -> bool {
    snapshot.nodes.get(node).is_some_and(|facts| facts.verdict.is_usable() && !facts.cordoned)
}
