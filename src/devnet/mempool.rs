//! The transactions that wait for a block, and the nodes that have each.

use std::sync::Arc;

use alloy_primitives::B256;

use super::transaction::Transaction;

/// A set of execution nodes, by their places; of more than 64 nodes some share a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holders(u64);

impl Holders {
    /// No node.
    pub(super) const NONE: Self = Self(0);

    /// The first so many nodes.
    pub(super) fn all(count: usize) -> Self {
        Self(
            u64::try_from(count)
                .ok()
                .and_then(|count| 1_u64.checked_shl(u32::try_from(count).ok()?))
                .map_or(u64::MAX, |next| next - 1),
        )
    }

    /// This node alone.
    pub(super) fn only(node: usize) -> Self {
        Self(1 << (node % 64))
    }

    pub(super) fn without(self, node: usize) -> Self {
        Self(self.0 & !Self::only(node).0)
    }

    pub(super) fn and(self, node: usize) -> Self {
        Self(self.0 | Self::only(node).0)
    }

    /// Those that are not among `others`.
    pub(super) fn except(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    fn has(self, node: usize) -> bool {
        self.0 & Self::only(node).0 != 0
    }
}

struct Waiting {
    transaction: Arc<Transaction>,
    holders: Holders,
}

/// The mempools of all nodes, in the order of arrival.
#[derive(Default)]
pub(super) struct Mempool(Vec<Waiting>);

impl Mempool {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds a transaction that these nodes have.
    pub(super) fn add(&mut self, transaction: Arc<Transaction>, holders: Holders) {
        self.0.push(Waiting { transaction, holders });
    }

    /// Whether a node has the transaction; `None`: any node.
    pub(super) fn has(&self, hash: B256, node: Option<usize>) -> bool {
        self.find(hash).is_some_and(|waiting| node.is_none_or(|node| waiting.holders.has(node)))
    }

    /// The node has the transaction too. `false` if no node has that.
    pub(super) fn spread(&mut self, hash: B256, node: usize) -> bool {
        let waiting = self.0.iter_mut().find(|waiting| waiting.transaction.hash == hash);
        waiting.is_some_and(|waiting| {
            waiting.holders.0 |= Holders::only(node).0;
            true
        })
    }

    /// The node forgets all transactions. Those that no node has are gone.
    pub(super) fn forget(&mut self, node: usize) {
        for waiting in &mut self.0 {
            waiting.holders = waiting.holders.without(node);
        }
        self.0.retain(|waiting| waiting.holders != Holders::NONE);
    }

    /// All nodes forget a transaction.
    pub(super) fn lose(&mut self, hash: B256) {
        self.0.retain(|waiting| waiting.transaction.hash != hash);
    }

    /// Takes all transactions, for a block.
    pub(super) fn take(&mut self) -> Vec<Arc<Transaction>> {
        std::mem::take(&mut self.0).into_iter().map(|waiting| waiting.transaction).collect()
    }

    /// Puts transactions of blocks that were taken out before all others; these nodes have them.
    pub(super) fn put_back(&mut self, transactions: impl Iterator<Item = Arc<Transaction>>, holders: Holders) {
        let earlier = transactions.map(|transaction| Waiting { transaction, holders });
        self.0.splice(0..0, earlier.collect::<Vec<_>>());
    }

    pub(super) fn waiting(&self, hash: B256, node: usize) -> Option<Arc<Transaction>> {
        self.find(hash).filter(|waiting| waiting.holders.has(node)).map(|waiting| waiting.transaction.clone())
    }

    /// The transactions that wait, in order: of one node, or of any.
    pub(super) fn all(&self, node: Option<usize>) -> impl Iterator<Item = &Arc<Transaction>> {
        let is_held = move |waiting: &&Waiting| node.is_none_or(|node| waiting.holders.has(node));
        self.0.iter().filter(is_held).map(|waiting| &waiting.transaction)
    }

    fn find(&self, hash: B256) -> Option<&Waiting> {
        self.0.iter().find(|waiting| waiting.transaction.hash == hash)
    }
}
