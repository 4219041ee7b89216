//! A bound on the blocks of one slot that a stream may report.
//!
//! Rule: a stream that reports more than [`MOST`] different blocks of one slot is not believed any
//! more. Reason: a proposer that signs two blocks is slashed, so more than a few are a node's lie,
//! and each of them would reach all clients. Example: a node reports 6,000 heads of the present
//! slot. At the ninth another node's stream takes over.

use std::collections::BTreeMap;

use alloy_primitives::B256;

/// The most blocks of one slot.
const MOST: usize = 8;
/// The latest slots whose blocks are counted.
const SLOTS: usize = 64;

/// The blocks that a stream has reported, by slot.
#[derive(Debug, Default)]
pub(super) struct Crowd(BTreeMap<u64, Vec<B256>>);

impl Crowd {
    /// Counts a report of this block; `false` where its slot has too many.
    pub(super) fn admits(&mut self, slot: u64, root: B256) -> bool {
        let roots = self.0.entry(slot).or_default();
        if roots.contains(&root) {
            return true;
        }
        if roots.len() >= MOST {
            return false;
        }
        roots.push(root);
        if self.0.len() > SLOTS {
            self.0.pop_first();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_few_blocks() {
        let mut crowd = Crowd::default();
        let root = |number: u8| B256::repeat_byte(number);
        for number in 0..20 {
            assert_eq!(crowd.admits(7, root(number)), number < 8, "{number}");
        }
        assert!(crowd.admits(7, root(3)) && crowd.admits(8, root(99)));
        for slot in 0..1000 {
            assert!(crowd.admits(slot + 100, root(1)));
        }
        assert_eq!(crowd.0.len(), SLOTS);
    }
}
