//! Learns from the answers to a call which blocks nodes have: see [`crate::pool::block_range`].

use super::{answer::Answer, null_answer::is_nothing, run::CallRun};
use crate::domain::{
    answer::Lacked,
    asked_blocks::{AskedBlocks, Named},
    method::Tells,
    node_id::NodeId,
};

/// A node that is well has the data of so many blocks below its head, and may still be about to
/// import them.
pub(super) const RECENT: u64 = 64;

impl CallRun<'_> {
    /// The height of a node before it is asked; not looked at where the call needs no block.
    pub(super) fn height_before(&self, node: NodeId) -> u64 {
        self.blocks.map_or(0, |_| self.calls.pool.height(node))
    }

    /// Whether the node may be well and lack the blocks of the call: old blocks, blocks above the
    /// node's head, or a block that a hash names.
    pub(super) fn may_lack_blocks(&self, node: NodeId) -> bool {
        let Some(blocks) = &self.blocks else { return false };
        let height = self.calls.pool.height(node);
        let is_old = |oldest: u64| oldest.saturating_add(RECENT) <= height;
        blocks.is_by_hash() || blocks.oldest().is_some_and(is_old) || blocks.newest().is_some_and(|it| it > height)
    }

    /// The node lacks the blocks by its own word. That is to be learnt if another node has them: a
    /// client can have a node say anything of blocks that are nowhere.
    pub(super) fn lacks_blocks(&mut self, node: NodeId, lacked: Lacked) {
        let Some(blocks) = self.blocks else { return };
        let height = self.calls.pool.height(node);
        // Words about pruning are about the oldest block. All others may be about a block that is
        // not there yet.
        let is_of_the_oldest = match lacked {
            Lacked::Data => blocks.oldest().is_some_and(|oldest| oldest <= height),
            _ => blocks.newest().is_some_and(|newest| newest.saturating_add(RECENT) <= height),
        };
        if is_of_the_oldest {
            self.without_blocks.push(node);
        }
    }

    /// `node` gave this answer, and so has the blocks. Notes that, and the nodes that lack the
    /// blocks.
    pub(super) fn learn_ranges(&mut self, node: NodeId, answer: &Answer) {
        let Some(blocks) = self.blocks.filter(|_| !is_nothing(answer)) else { return };
        let pool = &self.calls.pool;
        if let Some(height) = blocks.single() {
            pool.nodes[node].block_range.answered(blocks.data, height, pool.height(node));
        }
        let Some(oldest) = blocks.oldest() else { return };
        for other in self.without_blocks.drain(..).filter(|other| *other != node) {
            pool.lacks_data(other, blocks.data, oldest);
        }
    }

    /// Whether the call shows a block that no client was shown. The nodes are then taken in their
    /// usual order: a client that polls for the next block must not have all calls follow the node
    /// that is ahead.
    fn shows_a_new_block(&self, blocks: &AskedBlocks) -> bool {
        let is_new = |newest: u64| newest > self.calls.pool.served();
        self.method.tells != Tells::Nothing && blocks.newest().is_some_and(is_new)
    }

    /// The blocks by which the next node is chosen. The second opinion on a transaction or block
    /// that only its hash names is asked of a node that has all blocks.
    pub(super) fn blocks_to_ask_for(&self) -> Option<AskedBlocks> {
        let blocks = self.blocks.filter(|blocks| !self.shows_a_new_block(blocks))?;
        let has_word = self.null.is_some() || self.lacking.is_some();
        if !has_word || !blocks.is_by_hash() {
            return Some(blocks);
        }
        Some(AskedBlocks { named: Named::Range { oldest: Some(0), newest: self.calls.pool.snapshot().head }, ..blocks })
    }

    /// Whether `node` lacks the blocks, and a usable node that was not asked has the blocks.
    /// `height` is the height of `node` before the call.
    pub(super) fn is_elsewhere(&self, node: NodeId, height: u64) -> bool {
        let Some(blocks) = self.blocks.filter(|blocks| !self.shows_a_new_block(blocks)) else { return false };
        let pool = &self.calls.pool;
        let has = |node: NodeId, height: u64| {
            blocks.newest().is_none_or(|newest| newest <= height)
                && !blocks.oldest().is_some_and(|oldest| pool.lacks(node, blocks.data, oldest))
        };
        let may_be_asked =
            |other: &NodeId| *other != node && !self.tries.tried.contains(other) && pool.is_usable(*other);
        !has(node, height)
            && NodeId::all(pool.nodes.len()).filter(may_be_asked).any(|other| has(other, pool.height(other)))
    }
}
