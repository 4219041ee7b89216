//! Data of old blocks that a node has dropped, and the words of its program for that.

use super::{
    super::{
        block::Block,
        fault::{History, Program},
        rpc::RpcError,
    },
    Context,
};

/// EIP-4444's code for history that is not kept.
const PRUNED: i64 = 4444;

impl Context<'_> {
    /// Whether the node has dropped this data of the block.
    pub(super) fn lacks(&self, history: History, block: &Block) -> bool {
        self.lacking(history, block).is_some()
    }

    /// The program of the node, if the node has dropped this data of the block.
    fn lacking(&self, history: History, block: &Block) -> Option<Program> {
        let (blocks, program) = self.faults.depth(history)?;
        (block.number + blocks <= self.view.head().number).then_some(program)
    }

    /// Fails where the node has dropped the state of the block.
    pub(super) fn has_state(&self, block: &Block) -> Result<(), RpcError> {
        let Some(program) = self.lacking(History::State, block) else { return Ok(()) };
        let (number, hash) = (block.number, block.hash);
        Err(match program {
            Program::Geth => {
                RpcError::new(-32000, format!("missing trie node {hash:x} (path ) state {hash} is not available"))
            }
            Program::Erigon => RpcError::new(-32000, self.pruning(number)),
            Program::Nethermind => RpcError::new(-32002, format!("No state available for block {hash} ({number})")),
            Program::Besu => RpcError::new(-32000, "World state unavailable"),
            Program::Reth => RpcError::new(-32603, format!("state at block #{number} is pruned")),
        })
    }

    /// Whether the node has the block. Erigon says `null` for one that was dropped, and others
    /// fail.
    pub(super) fn has_block(&self, block: &Block) -> Result<bool, RpcError> {
        match self.lacking(History::Blocks, block) {
            None => Ok(true),
            Some(Program::Erigon) => Ok(false),
            Some(_) => Err(RpcError::new(PRUNED, "pruned history unavailable")),
        }
    }

    /// Fails where the node has dropped the receipts of the block.
    pub(super) fn has_receipts(&self, block: &Block) -> Result<(), RpcError> {
        match self.lacking(History::Receipts, block) {
            None => Ok(()),
            Some(Program::Erigon) => Err(RpcError::new(-32000, self.pruning(block.number))),
            Some(_) => Err(RpcError::new(PRUNED, "pruned history unavailable")),
        }
    }

    fn pruning(&self, number: u64) -> String {
        format!("old data not available due to pruning: requested block {number}")
    }
}
