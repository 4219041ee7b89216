//! The heads that nodes named, and pairs of nodes that contradict or confirm each other by them.
//!
//! A node that claims heights which the chain has not reached cannot know the hashes of the blocks
//! to come. So the node either names existing blocks at too great a height, or invents hashes.
//! Existing blocks at another height prove that one of two nodes lies, since a block has one
//! height. Different hashes at one height do not prove a lie of either: two honest nodes may follow
//! two branches, and other nodes decide which of the two is confirmed. A node that was
//! only the first to have a block is confirmed when the others get there.

use std::collections::VecDeque;

use crate::domain::{block::BlockRef, node_id::NodeId};

/// Heads that are remembered of each node.
const KEPT_HEADS: usize = 64;
/// Two nodes contradict each other when their hashes differ at each of the latest heights that both
/// reported, this many. A fork of fewer blocks is everyday.
const CONTRADICTING_HEIGHTS: usize = 3;

/// The heads that each node named, in order: height and hash.
#[derive(Debug)]
pub(super) struct NamedHeads(Vec<VecDeque<(u64, String)>>);

impl NamedHeads {
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![VecDeque::new(); nodes])
    }

    /// These claims with other indexes: `from` gives the old index of each node, if it has one.
    pub(super) fn moved(&self, from: &[Option<NodeId>]) -> Self {
        Self(from.iter().map(|old| old.map_or_else(VecDeque::new, |old| self.0[old].clone())).collect())
    }

    /// `node` named `block` as its head.
    pub(super) fn told(&mut self, node: NodeId, block: &BlockRef) {
        let said = &mut self.0[node];
        if said.back().is_some_and(|(number, hash)| *number == block.number && *hash == block.hash) {
            return;
        }
        if said.len() == KEPT_HEADS {
            said.pop_front();
        }
        said.push_back((block.number, block.hash.clone()));
    }

    /// Whether `one` names blocks of `other` at greater heights than `other` does.
    pub(super) fn raises(&self, one: NodeId, other: NodeId) -> bool {
        let mut raised: [&str; CONTRADICTING_HEIGHTS] = [""; CONTRADICTING_HEIGHTS];
        let mut count = 0;
        for (number, hash) in self.0[one].iter().rev() {
            let Some((height, _)) = self.0[other].iter().rev().find(|(_, said)| hash.eq_ignore_ascii_case(said)) else {
                continue;
            };
            if height == number {
                return false;
            }
            if height < number && !raised[..count].contains(&hash.as_str()) {
                raised[count] = hash;
                count += 1;
            }
            if count == CONTRADICTING_HEIGHTS {
                return true;
            }
        }
        false
    }

    /// Whether the two nodes named one block at the latest height that both named, and that is not
    /// below `from`.
    pub(super) fn agree(&self, one: NodeId, other: NodeId, from: u64) -> bool {
        let mut ours = self.0[one].iter().rev();
        let latest = ours.find_map(|(number, hash)| {
            let (_, said) = self.0[other].iter().rev().find(|(height, _)| height == number)?;
            Some(*number >= from && hash.eq_ignore_ascii_case(said))
        });
        latest == Some(true)
    }

    /// Whether the two nodes name different blocks at the same heights, at least
    /// `CONTRADICTING_HEIGHTS` times in a row. Returns the lowest of the latest such heights.
    pub(super) fn contradict(&self, one: NodeId, other: NodeId) -> Option<u64> {
        let mut differ: [u64; CONTRADICTING_HEIGHTS] = [0; CONTRADICTING_HEIGHTS];
        let mut count = 0;
        for (number, hash) in self.0[one].iter().rev() {
            let Some((_, said)) = self.0[other].iter().rev().find(|(height, _)| height == number) else { continue };
            if hash.eq_ignore_ascii_case(said) {
                return None;
            }
            // A block that was taken back at the same height counts once.
            if !differ[..count].contains(number) {
                differ[count] = *number;
                count += 1;
            }
            if count == CONTRADICTING_HEIGHTS {
                return differ.into_iter().min();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u64, branch: &str) -> BlockRef {
        BlockRef { number, hash: format!("0x{branch}{number}"), parent: String::new(), timestamp: 0 }
    }

    #[test]
    fn nodes_contradict_when_their_last_common_heights_differ() {
        for (ours, theirs, contradict) in [
            // The heads differ only in height.
            (vec![(1, "a"), (2, "a"), (3, "a"), (4, "a"), (5, "a")], vec![(1, "a"), (2, "a"), (3, "a")], None),
            (vec![(6, "b"), (7, "b"), (8, "b")], vec![(1, "a"), (2, "a"), (3, "a")], None),
            // The heights that one named came, and were others.
            (vec![(6, "b"), (7, "b"), (8, "b")], vec![(5, "a"), (6, "a"), (7, "a")], None),
            (vec![(6, "b"), (7, "b"), (8, "b")], vec![(6, "a"), (7, "a"), (8, "a"), (9, "a")], Some(6)),
            (
                vec![(2, "b"), (4, "b"), (6, "b"), (8, "b")],
                vec![(1, "a"), (2, "a"), (3, "a"), (6, "a"), (8, "a")],
                Some(2),
            ),
            // A fork that is healed, though hashes are written otherwise.
            (vec![(6, "b"), (7, "b"), (8, "b"), (9, "A")], vec![(6, "a"), (7, "a"), (8, "a"), (9, "a")], None),
            (vec![(6, "b"), (7, "b"), (8, "b"), (6, "a")], vec![(6, "a"), (7, "a"), (8, "a")], None),
            // Many branches of one height.
            (vec![(6, "b"), (6, "c"), (6, "d"), (7, "b")], vec![(6, "a"), (7, "a"), (8, "a")], None),
        ] {
            let mut claims = NamedHeads::new(2);
            ours.iter().for_each(|(number, branch)| claims.told(NodeId(0), &block(*number, branch)));
            theirs.iter().for_each(|(number, branch)| claims.told(NodeId(1), &block(*number, branch)));
            assert_eq!(claims.contradict(NodeId(0), NodeId(1)), contradict, "{ours:?} {theirs:?}");
            assert_eq!(claims.contradict(NodeId(1), NodeId(0)), contradict, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn a_node_that_names_known_blocks_too_high_lies() {
        // Height, and the block's name: its true height.
        for (ours, theirs, raises) in [
            (vec![(6, "3"), (7, "4"), (8, "5")], vec![(3, "3"), (4, "4"), (5, "5")], true),
            (vec![(6, "3"), (7, "4")], vec![(3, "3"), (4, "4"), (5, "5")], false),
            (vec![(6, "3"), (7, "4"), (7, "4"), (8, "4")], vec![(3, "3"), (4, "4"), (5, "5")], false),
            // The node is early, on the same branch or on another.
            (vec![(3, "3"), (4, "4"), (5, "5"), (6, "6")], vec![(3, "3"), (4, "4"), (5, "5")], false),
            (vec![(3, "a"), (4, "b"), (5, "c"), (6, "d")], vec![(3, "3"), (4, "4"), (5, "5")], false),
            // The node is on the right branch again, though early.
            (
                vec![(6, "3"), (7, "4"), (8, "5"), (6, "6"), (7, "7")],
                vec![(3, "3"), (4, "4"), (5, "5"), (6, "6")],
                false,
            ),
        ] {
            let block = |number: u64, name: &str| BlockRef { hash: format!("0x{name}"), ..block(number, "") };
            let mut claims = NamedHeads::new(2);
            ours.iter().for_each(|(number, name)| claims.told(NodeId(0), &block(*number, name)));
            theirs.iter().for_each(|(number, name)| claims.told(NodeId(1), &block(*number, name)));
            assert_eq!(claims.raises(NodeId(0), NodeId(1)), raises, "{ours:?} {theirs:?}");
            assert!(!claims.raises(NodeId(1), NodeId(0)), "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn nodes_agree_that_named_one_block_at_their_latest_height() {
        for (ours, theirs, agree) in [
            (vec![(1, "a"), (2, "a"), (3, "a")], vec![(1, "a"), (2, "A")], true),
            (vec![(1, "a"), (2, "b"), (3, "b")], vec![(1, "a"), (2, "a")], false),
            (vec![(1, "a")], vec![(2, "a")], false),
            (vec![], vec![(2, "a")], false),
        ] {
            let mut claims = NamedHeads::new(2);
            ours.iter().for_each(|(number, branch)| claims.told(NodeId(0), &block(*number, branch)));
            theirs.iter().for_each(|(number, branch)| claims.told(NodeId(1), &block(*number, branch)));
            assert_eq!(
                (claims.agree(NodeId(0), NodeId(1), 2), claims.agree(NodeId(1), NodeId(0), 2)),
                (agree, agree),
                "{ours:?} {theirs:?}"
            );
            assert!(!claims.agree(NodeId(0), NodeId(1), 3), "{ours:?} {theirs:?}");
        }
    }
}
