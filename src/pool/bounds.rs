//! The slot up to which each node has pruned its data, as its answers have shown. Rule: the bound
//! only decides the order of asking: a node that is thought to lack data is asked last, and its
//! answer then corrects the bound. A bound holds for half an hour, and is forgotten when the node
//! starts anew. Reason: nodes fetch data that they lack, and operators give them other data.
//! Example: a node answers 404 for the blobs of slot 100 that another node has; for slots up to 100
//! the node is asked last.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::{Duration, Instant};

use crate::domain::subject::Kept;

/// How long a bound holds after it was learnt.
const LASTS: Duration = Duration::from_secs(30 * 60);

/// The bounds of one node.
#[derive(Debug)]
pub struct Bounds {
    epoch: Instant,
    kinds: [Bound; Kept::COUNT],
}

#[derive(Debug, Default)]
struct Bound {
    /// The highest slot of which the node is known to have nothing, and one; 0 while none is known.
    slot: AtomicU64,
    /// Seconds since `epoch` when the node last lacked something.
    learnt: AtomicU64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { epoch: Instant::now(), kinds: std::array::from_fn(|_| Bound::default()) }
    }
}

impl Bounds {
    /// Whether the node is thought to have nothing of this slot.
    pub fn is_beyond(&self, kept: Kept, slot: u64) -> bool {
        let bound = &self.kinds[kept as usize];
        slot < bound.slot.load(Relaxed) && self.seconds() < bound.learnt.load(Relaxed) + LASTS.as_secs()
    }

    /// Notes that the node lacked data that another node had.
    pub fn lacks(&self, kept: Kept, slot: u64) {
        let bound = &self.kinds[kept as usize];
        let next = slot.saturating_add(1);
        if self.seconds() < bound.learnt.load(Relaxed) + LASTS.as_secs() {
            bound.slot.fetch_max(next, Relaxed);
        } else {
            // Earlier bounds do not hold any more, but for this one.
            bound.slot.store(next, Relaxed);
        }
        bound.learnt.store(self.seconds(), Relaxed);
    }

    /// Notes that the node had the data.
    pub fn has(&self, kept: Kept, slot: u64) {
        self.kinds[kept as usize].slot.fetch_min(slot, Relaxed);
    }

    /// The node begins anew.
    pub fn forget(&self) {
        self.kinds.iter().for_each(|bound| bound.slot.store(0, Relaxed));
    }

    fn seconds(&self) -> u64 {
        self.epoch.elapsed().as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_moves_the_bound_up_and_an_answer_moves_it_down() {
        let bounds = Bounds::default();
        assert!(!bounds.is_beyond(Kept::Blobs, 0));
        bounds.lacks(Kept::Blobs, 100);
        bounds.lacks(Kept::Blobs, 50);
        assert!(bounds.is_beyond(Kept::Blobs, 100) && bounds.is_beyond(Kept::Blobs, 0));
        assert!(!bounds.is_beyond(Kept::Blobs, 101) && !bounds.is_beyond(Kept::States, 50));
        bounds.has(Kept::Blobs, 200);
        assert!(bounds.is_beyond(Kept::Blobs, 100));
        bounds.has(Kept::Blobs, 80);
        assert!(bounds.is_beyond(Kept::Blobs, 79) && !bounds.is_beyond(Kept::Blobs, 80));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bound_is_tested_again_and_forgotten_with_a_new_node() {
        let bounds = Bounds::default();
        bounds.lacks(Kept::States, 100);
        tokio::time::advance(LASTS - Duration::from_secs(1)).await;
        assert!(bounds.is_beyond(Kept::States, 100));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!bounds.is_beyond(Kept::States, 0), "it may have it by now");
        // The node has fetched some of the data.
        bounds.lacks(Kept::States, 40);
        assert!(bounds.is_beyond(Kept::States, 40) && !bounds.is_beyond(Kept::States, 41));
        bounds.forget();
        assert!(!bounds.is_beyond(Kept::States, 0));
    }
}
