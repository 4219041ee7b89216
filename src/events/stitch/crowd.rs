//! A bound on the blocks of one slot that a stream may report.
//!
//! Rule: a stream that reports more than [`MAX_BLOCKS`] different blocks of one slot is not
//! believed any more. Reason: a proposer that signs two blocks is slashed, so more than a few are a
//! node's lie, and each of them would reach all clients. Example: a node reports 6,000 heads of the
//! present slot. At the ninth another node's stream takes over.
//!
//! Rule: the blocks that lie [`SLOTS`] slots or more below the chain's tip count together, as those
//! of one slot; [`SLOTS`] slots later they count anew. Reason: a stream tells of new blocks, and
//! old slots are too many to be counted one by one.

use std::collections::BTreeMap;

use alloy_primitives::B256;

/// The most blocks of one slot.
const MAX_BLOCKS: usize = 8;
/// The latest slots whose blocks are counted slot by slot.
const SLOTS: u64 = 64;

/// The blocks that a stream has reported.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    by_slot: BTreeMap<u64, Vec<B256>>,
    /// Those of older slots, and the chain's tip at the first of them.
    old: (Vec<B256>, u64),
}

impl Crowd {
    /// Counts a report of this block, where the last head that was told lies at `tip`; `false`
    /// where its slot has too many.
    pub(super) fn admits(&mut self, slot: u64, root: B256, tip: u64) -> bool {
        let highest = self.by_slot.keys().next_back().copied().unwrap_or(0).max(tip);
        let roots = if slot.saturating_add(SLOTS) > highest {
            self.by_slot.entry(slot).or_default()
        } else {
            if highest >= self.old.1.saturating_add(SLOTS) {
                self.old = (Vec::new(), highest);
            }
            &mut self.old.0
        };
        if roots.contains(&root) {
            return true;
        }
        if roots.len() >= MAX_BLOCKS {
            return false;
        }
        roots.push(root);
        let lowest = highest.max(slot).saturating_sub(SLOTS - 1);
        self.by_slot.retain(|slot, _| *slot >= lowest);
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
            assert_eq!(crowd.admits(7, root(number), 0), number < 8, "{number}");
        }
        assert!(crowd.admits(7, root(3), 0) && crowd.admits(8, root(99), 0));
        for slot in 0..1000 {
            assert!(crowd.admits(slot + 100, root(1), 0));
        }
        assert_eq!(crowd.by_slot.len() as u64, SLOTS);
    }

    #[test]
    fn blocks_of_old_slots_are_few_in_all() {
        let mut crowd = Crowd::default();
        let root = |slot: u64| B256::left_padding_from(&slot.to_be_bytes());
        let admitted =
            |crowd: &mut Crowd, tip: u64| (1..4000).filter(|slot| crowd.admits(*slot, root(*slot), tip)).count();
        assert_eq!(admitted(&mut crowd, 5000), 8);
        assert!(crowd.admits(5001, root(5001), 5000) && crowd.admits(4990, root(4990), 5000));
        // The same again are no new ones.
        assert_eq!(admitted(&mut crowd, 5000), 8);
        assert!(!crowd.admits(4000, root(4000), 5063));
        assert!(crowd.admits(4000, root(4000), 5064), "they count anew");
    }
}
