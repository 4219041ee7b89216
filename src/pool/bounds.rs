//! Up to which slot each node has pruned what it keeps, as its answers have shown. It only decides who is asked first: a node that is
//! thought to lack something is asked last, and what it has then corrects what was thought.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::domain::subject::Kept;

/// The bounds of one node: of each kind the highest slot of which it is known to have nothing, and one; 0 while none is known.
#[derive(Debug, Default)]
pub struct Bounds([AtomicU64; Kept::COUNT]);

impl Bounds {
    /// Whether the node is thought to have nothing of this slot.
    pub fn is_beyond(&self, kept: Kept, slot: u64) -> bool {
        slot < self.0[kept as usize].load(Relaxed)
    }

    /// The node lacked what another had.
    pub fn lacks(&self, kept: Kept, slot: u64) {
        self.0[kept as usize].fetch_max(slot.saturating_add(1), Relaxed);
    }

    /// The node had it.
    pub fn has(&self, kept: Kept, slot: u64) {
        if self.is_beyond(kept, slot) {
            self.0[kept as usize].fetch_min(slot, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_lacked_moves_its_bound_up_and_what_it_had_moves_the_bound_down() {
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
}
