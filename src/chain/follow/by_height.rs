//! Blocks that were asked for by their heights: all lie above the tip, and are reported as far as
//! each is the parent of the next.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use super::super::block::Block;

/// The blocks of the active node at the heights between the tip and a head.
#[derive(Debug, Default)]
pub(super) struct ByHeight {
    rungs: BTreeMap<u64, Arc<Block>>,
    /// Whether a height was asked for in vain. Then the path is found by hashes, until there is
    /// another tip.
    is_broken: bool,
}

impl ByHeight {
    pub(super) fn insert(&mut self, block: Arc<Block>) {
        self.rungs.insert(block.number, block);
    }

    /// The node has no block at a height.
    pub(super) fn breaks(&mut self) {
        self.is_broken = true;
    }

    /// There is another tip, or another node.
    pub(super) fn may_climb(&mut self) {
        self.is_broken = false;
    }

    /// Those of `heights` that are to be asked for, lowest first.
    pub(super) fn rungs(&self, heights: Range<u64>) -> impl Iterator<Item = u64> + use<> {
        let heights = if self.is_broken || heights.is_empty() { 0..0 } else { heights };
        let known: Vec<u64> = self.rungs.range(heights.clone()).map(|(height, _)| *height).collect();
        heights.filter(move |height| known.binary_search(height).is_err())
    }

    /// Takes the blocks that join `tip`, no higher than `most`, and forgets the blocks at and below
    /// the tip.
    pub(super) fn climb(&mut self, tip: &Block, most: u64) -> Vec<Arc<Block>> {
        self.rungs = self.rungs.split_off(&(tip.number + 1));
        let (mut hash, mut number) = (tip.hash, tip.number);
        let mut joined = Vec::new();
        while number < most
            && let Some(block) = self.rungs.get(&(number + 1)).filter(|block| block.parent == hash).cloned()
        {
            self.rungs.remove(&block.number);
            (hash, number) = (block.hash, block.number);
            joined.push(block);
        }
        joined
    }
}
