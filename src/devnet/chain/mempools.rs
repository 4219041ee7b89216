//! The mempools of the nodes: transactions that are submitted, wait at some nodes, and are
//! forgotten.

use std::sync::Arc;

use alloy_primitives::{Address, B256};
use tokio::sync::broadcast;

use super::{
    super::{author::Unlocked, block::Block, mempool::Holders, transaction::Transaction},
    Chain, ChainError, MEMPOOL_LIMIT, State,
};

impl Chain {
    /// Takes a signed transaction, any bytes, and answers its hash.
    ///
    /// # Errors
    /// When the transaction is known already or the mempool is full.
    pub fn submit(&self, raw: Vec<u8>) -> Result<B256, ChainError> {
        let mut state = self.state();
        let holders = state.all_nodes();
        self.submit_to(&mut state, raw, None, holders)
    }

    /// The same at the node of this place, from where these nodes get the transaction.
    pub(in crate::devnet) fn submit_at(
        &self,
        place: usize,
        raw: Vec<u8>,
        holders: impl FnOnce(Holders) -> Holders,
    ) -> Result<B256, ChainError> {
        let mut state = self.state();
        let holders = holders(state.all_nodes().except(state.forgetful));
        self.submit_to(&mut state, raw, Some(place), holders)
    }

    fn submit_to(
        &self,
        state: &mut State,
        raw: Vec<u8>,
        place: Option<usize>,
        holders: Holders,
    ) -> Result<B256, ChainError> {
        let transaction = Arc::new(self.author.raw(raw));
        let hash = transaction.hash;
        // A block that a reorganisation took out does not count.
        let is_mined = |(block, _): &(Arc<Block>, usize)| {
            self.snapshot().block(block.number).is_some_and(|canonical| canonical.hash == block.hash)
        };
        let is_mined = state.by_transaction.get(&hash).is_some_and(|places| places.iter().any(is_mined));
        if is_mined || state.mempool.has(hash, place) {
            return Err(ChainError::AlreadyKnown);
        }
        let is_kept = place.is_none_or(|place| holders != holders.without(place));
        let is_there = is_kept && place.is_some_and(|place| state.mempool.spread(hash, place));
        if !is_there && holders != Holders::NONE && !state.mempool.has(hash, None) {
            self.enqueue(state, transaction, holders)?;
        }
        Ok(hash)
    }

    /// The execution nodes are so many.
    pub(in crate::devnet) fn set_nodes(&self, nodes: usize) {
        self.state().nodes = nodes;
    }

    /// The node of this place forgets all transactions that wait.
    pub(in crate::devnet) fn forget_mempool(&self, place: usize) {
        self.state().mempool.forget(place);
    }

    /// Whether the node of this place keeps no transaction that comes from now on.
    pub(in crate::devnet) fn set_forgetful(&self, place: usize, is_forgetful: bool) {
        let mut state = self.state();
        let others = state.forgetful.without(place);
        state.forgetful = if is_forgetful { others.and(place) } else { others };
    }

    /// Makes a transaction from an unlocked account: a new one with every call.
    ///
    /// # Errors
    /// When the mempool is full.
    pub fn send_unlocked(&self, from: Address, to: Address, value: u64, input: Vec<u8>) -> Result<B256, ChainError> {
        let mut state = self.state();
        // None is ever lost, so the sender has no others.
        let nonce = state.unlocked.iter().filter(|(sender, _)| *sender == from).count() as u64;
        let call = Unlocked { from, to, value, input };
        let transaction = Arc::new(self.author.unlocked(state.unlocked.len() as u64, nonce, call));
        let hash = transaction.hash;
        let holders = state.all_nodes();
        self.enqueue(&mut state, transaction, holders)?;
        state.unlocked.push((from, hash));
        Ok(hash)
    }

    /// Every transaction that `eth_sendTransaction` made, in order: a double send shows as two.
    #[must_use]
    pub fn unlocked_transactions(&self) -> Vec<B256> {
        self.state().unlocked.iter().map(|(_, hash)| *hash).collect()
    }

    /// Hashes of the transactions that wait for a block, in order.
    #[must_use]
    pub fn mempool(&self) -> Vec<B256> {
        self.state().mempool.all(None).map(|transaction| transaction.hash).collect()
    }

    pub(in crate::devnet) fn mempool_of(&self, place: usize) -> Vec<B256> {
        self.state().mempool.all(Some(place)).map(|transaction| transaction.hash).collect()
    }

    /// The transaction, if that waits at the node of this place.
    pub(in crate::devnet) fn waiting(&self, hash: B256, place: usize) -> Option<Arc<Transaction>> {
        self.state().mempool.waiting(hash, place)
    }

    pub(in crate::devnet) fn waiting_from(&self, account: Address, place: usize) -> u64 {
        self.state().mempool.all(Some(place)).filter(|transaction| transaction.from == account).count() as u64
    }

    /// Announces each transaction that enters the mempool.
    pub(in crate::devnet) fn pending(&self) -> broadcast::Receiver<B256> {
        self.pending.subscribe()
    }

    fn enqueue(&self, state: &mut State, transaction: Arc<Transaction>, holders: Holders) -> Result<(), ChainError> {
        if state.mempool.len() >= MEMPOOL_LIMIT {
            return Err(ChainError::MempoolFull);
        }
        let hash = transaction.hash;
        state.mempool.add(transaction, holders);
        // Without a listener the send fails, which is no error.
        let _ = self.pending.send(hash);
        Ok(())
    }
}
