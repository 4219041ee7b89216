//! Reorganisations that a transaction does not survive.

use alloy_primitives::B256;

use super::{super::block::Block, Chain, ChainError, Reorg};

impl Chain {
    /// Takes a transaction out of the chain, and out of all mempools: its block and all later ones
    /// are replaced, with one more behind. Only a client that sends the transaction brings it back.
    /// The other submitted transactions of these blocks are mined again.
    ///
    /// # Errors
    /// When no block of the canonical chain has the transaction.
    pub fn reorg_out(&self, hash: B256) -> Result<Reorg, ChainError> {
        let mut state = self.state();
        let mut blocks = self.snapshot().blocks.clone();
        let has = |block: &Block| block.transactions.iter().any(|mined| mined.transaction.hash == hash);
        // The first block is kept: each other needs a parent.
        let keep = blocks.iter().skip(1).position(|block| has(block)).ok_or(ChainError::NotInChain)? + 1;
        let length = blocks.len() - keep + 1;
        let removed = state.cut(&mut blocks, keep);
        state.mempool.lose(hash);
        for _ in 0..length {
            state.extend(&self.author, &mut blocks, self.clock.unix());
        }
        let added = blocks[keep..].to_vec();
        self.publish(&mut state, blocks);
        Ok(Reorg { removed, added })
    }
}
