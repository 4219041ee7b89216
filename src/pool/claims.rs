//! Which nodes contradict one another: they name different blocks at the same heights, again and again.
//!
//! A node that claims heights which the chain does not have yet cannot know the hashes of the blocks to come. So once others get there,
//! its blocks are found not to be theirs, while those of a node that was only the first to have them are. That tells a liar from
//! the early one of two honest nodes, which heights alone never do.

use std::collections::VecDeque;

use crate::domain::block::BlockRef;

/// Heads that are remembered of each node.
const KEPT: usize = 64;
/// So many of the latest heights that both have named must differ, and all of them. A fork of fewer blocks is everyday.
const ENOUGH: usize = 3;

/// The heads that each node named, in the order in which it did: height and hash.
#[derive(Debug)]
pub(super) struct Claims(Vec<VecDeque<(u64, String)>>);

impl Claims {
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![VecDeque::new(); nodes])
    }

    /// These of other indexes: for each node the one that it was before, if any.
    pub(super) fn moved(&self, from: &[Option<usize>]) -> Self {
        Self(from.iter().map(|old| old.map_or_else(VecDeque::new, |old| self.0[old].clone())).collect())
    }

    /// `node` named `block` as its head.
    pub(super) fn told(&mut self, node: usize, block: &BlockRef) {
        let said = &mut self.0[node];
        if said.back().is_some_and(|(number, hash)| *number == block.number && *hash == block.hash) {
            return;
        }
        if said.len() == KEPT {
            said.pop_front();
        }
        said.push_back((block.number, block.hash.clone()));
    }

    /// Whether the two nodes contradict one another.
    pub(super) fn contradict(&self, one: usize, other: usize) -> bool {
        let mut differ: [u64; ENOUGH] = [0; ENOUGH];
        let mut count = 0;
        for (number, hash) in self.0[one].iter().rev() {
            let Some((_, said)) = self.0[other].iter().rev().find(|(height, _)| height == number) else { continue };
            if hash.eq_ignore_ascii_case(said) {
                return false;
            }
            // What it took back of the same height counts once.
            if !differ[..count].contains(number) {
                differ[count] = *number;
                count += 1;
            }
            if count == ENOUGH {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u64, branch: &str) -> BlockRef {
        BlockRef { number, hash: format!("0x{branch}{number}"), parent: String::new(), timestamp: 0 }
    }

    #[test]
    fn nodes_contradict_one_another_when_the_last_heights_that_both_named_all_differ() {
        for (ours, theirs, contradict) in [
            // One is only later than the other.
            (vec![(1, "a"), (2, "a"), (3, "a"), (4, "a"), (5, "a")], vec![(1, "a"), (2, "a"), (3, "a")], false),
            (vec![(6, "b"), (7, "b"), (8, "b")], vec![(1, "a"), (2, "a"), (3, "a")], false),
            // The heights that one named came, and were others.
            (vec![(6, "b"), (7, "b"), (8, "b")], vec![(5, "a"), (6, "a"), (7, "a")], false),
            (vec![(6, "b"), (7, "b"), (8, "b")], vec![(6, "a"), (7, "a"), (8, "a"), (9, "a")], true),
            (
                vec![(2, "b"), (4, "b"), (6, "b"), (8, "b")],
                vec![(1, "a"), (2, "a"), (3, "a"), (6, "a"), (8, "a")],
                true,
            ),
            // A fork that is healed, though hashes are written otherwise.
            (vec![(6, "b"), (7, "b"), (8, "b"), (9, "A")], vec![(6, "a"), (7, "a"), (8, "a"), (9, "a")], false),
            (vec![(6, "b"), (7, "b"), (8, "b"), (6, "a")], vec![(6, "a"), (7, "a"), (8, "a")], false),
            // Many branches of one height.
            (vec![(6, "b"), (6, "c"), (6, "d"), (7, "b")], vec![(6, "a"), (7, "a"), (8, "a")], false),
        ] {
            let mut claims = Claims::new(2);
            ours.iter().for_each(|(number, branch)| claims.told(0, &block(*number, branch)));
            theirs.iter().for_each(|(number, branch)| claims.told(1, &block(*number, branch)));
            assert_eq!(claims.contradict(0, 1), contradict, "{ours:?} {theirs:?}");
            assert_eq!(claims.contradict(1, 0), contradict, "{ours:?} {theirs:?}");
        }
    }
}
