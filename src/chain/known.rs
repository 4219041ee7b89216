//! Headers that are known beside those of the window: told by nodes unasked, or fetched.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use alloy_primitives::B256;

use super::block::Block;
use crate::domain::node_id::NodeId;

/// Headers kept of those that one node pushed.
const PUSHED: usize = 64;

/// Headers by hash, of any branch; both kinds are bounded, and the oldest headers go first.
#[derive(Debug)]
pub(super) struct Known {
    /// A header that a node pushed counts while that node's reports count: the node might give a
    /// block another parent than other nodes do.
    pushed: BTreeMap<NodeId, VecDeque<Arc<Block>>>,
    /// The headers that came from the node whose reports counted.
    fetched: BTreeMap<B256, Arc<Block>>,
    /// The keys of `fetched`, oldest first.
    order: VecDeque<B256>,
    most: usize,
}

impl Known {
    /// Keeps `most` of those that were fetched.
    pub(super) fn new(most: usize) -> Self {
        Self { pushed: BTreeMap::new(), fetched: BTreeMap::new(), order: VecDeque::new(), most }
    }

    /// Keeps a header that `node` sent unasked.
    pub(super) fn push(&mut self, node: NodeId, block: Arc<Block>) {
        let pushed = self.pushed.entry(node).or_default();
        pushed.push_back(block);
        if pushed.len() > PUSHED {
            pushed.pop_front();
        }
    }

    pub(super) fn insert(&mut self, block: Arc<Block>) {
        let hash = block.hash;
        if self.fetched.insert(hash, block).is_none() {
            self.order.push_back(hash);
        }
        while self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.fetched.remove(&oldest);
        }
    }

    /// The block of that hash and height, while the reports of `node` count.
    pub(super) fn find(&self, node: NodeId, hash: B256, number: u64) -> Option<&Arc<Block>> {
        let fetched = self.fetched.get(&hash);
        let pushed = || self.pushed.get(&node)?.iter().rev().find(|block| block.hash == hash);
        fetched.or_else(pushed).filter(|block| block.number == number)
    }

    /// The pool's nodes are others now.
    pub(super) fn forget_nodes(&mut self) {
        self.pushed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::block::Head, *};

    fn block(name: u8, number: u64) -> Arc<Block> {
        let head = Head { number, hash: B256::repeat_byte(name), parent: B256::default(), timestamp: 0 };
        Arc::new(head.into())
    }

    #[test]
    fn a_push_counts_for_its_node_a_fetched_block_for_all() {
        let mut known = Known::new(2);
        known.push(NodeId(1), block(7, 3));
        assert!(known.find(NodeId(1), B256::repeat_byte(7), 3).is_some());
        assert!(known.find(NodeId(0), B256::repeat_byte(7), 3).is_none(), "another node did not say so");
        assert!(known.find(NodeId(1), B256::repeat_byte(7), 4).is_none(), "of another height");
        known.forget_nodes();
        assert!(known.find(NodeId(1), B256::repeat_byte(7), 3).is_none());
        known.insert(block(7, 3));
        assert!(known.find(NodeId(0), B256::repeat_byte(7), 3).is_some());
    }

    #[test]
    fn both_kinds_are_bounded() {
        let mut known = Known::new(2);
        for name in [1, 2, 2, 3] {
            known.insert(block(name, 1));
        }
        let found: Vec<u8> =
            (1..=3).filter(|&name| known.find(NodeId(0), B256::repeat_byte(name), 1).is_some()).collect();
        assert_eq!(found, [2, 3]);
        for name in 0..=PUSHED as u8 {
            known.push(NodeId(0), block(name + 100, 1));
        }
        assert_eq!(known.pushed[&NodeId(0)].len(), PUSHED);
        assert!(known.find(NodeId(0), B256::repeat_byte(100), 1).is_none());
    }
}
