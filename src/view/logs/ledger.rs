//! What of the chain's logs was told, and what is still to be: pure.

use std::{collections::VecDeque, sync::Arc};

use crate::domain::hash::Hash;

/// The blocks of the window: those that were told, each with its logs, and behind them those that are still to be. What it gives out
/// adds up, whatever the order in which logs are found, to the logs of the canonical blocks.
#[derive(Debug)]
pub(super) struct Ledger<L> {
    /// Oldest first.
    told: VecDeque<Entry<Arc<[L]>>>,
    /// Oldest first. `None`: not found yet.
    pending: VecDeque<Entry<Option<Arc<[L]>>>>,
    /// Blocks whose logs are remembered.
    window: usize,
}

#[derive(Debug)]
struct Entry<T> {
    block: Block,
    logs: T,
}

/// A block that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) hash: Hash,
    pub(super) number: u64,
    /// The number of the change with which it came. Whoever hears of that hears of its logs, and hears of it if they go.
    pub(super) change: u64,
}

/// Something to tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Telling<L> {
    pub(super) block: Block,
    /// In the order of the block.
    pub(super) logs: Arc<[L]>,
    /// They are not canonical any more.
    pub(super) removed: bool,
}

impl<L> Ledger<L> {
    pub(super) fn new(window: usize) -> Self {
        Self { told: VecDeque::new(), pending: VecDeque::new(), window }
    }

    /// `block` is canonical no longer; those above it have gone before. What was told of it is to be taken back, what was not never will be
    /// told.
    pub(super) fn remove(&mut self, block: Hash) -> Option<Telling<L>> {
        if self.pending.pop_back_if(|entry| entry.block.hash == block).is_some() {
            return None;
        }
        let Entry { block, logs } = self.told.pop_back_if(|entry| entry.block.hash == block)?;
        Some(Telling { block, logs, removed: true })
    }

    /// `block` is canonical now, above all others. `logs` are known from the beginning if nobody wants any.
    pub(super) fn add(&mut self, block: Block, logs: Option<Arc<[L]>>) {
        self.pending.push_back(Entry { block, logs });
    }

    /// The logs of a block were found. It may have gone meanwhile.
    pub(super) fn found(&mut self, block: Hash, logs: Arc<[L]>) {
        if let Some(entry) = self.pending.iter_mut().find(|entry| entry.block.hash == block) {
            entry.logs.get_or_insert(logs);
        }
    }

    /// The next block to be told; to be asked until there is none.
    pub(super) fn next(&mut self) -> Option<Telling<L>> {
        let Entry { block, logs } = self.pending.pop_front_if(|entry| entry.logs.is_some())?;
        let logs = logs?;
        self.told.push_back(Entry { block, logs: logs.clone() });
        if self.told.len() > self.window {
            self.told.pop_front();
        }
        Some(Telling { block, logs, removed: false })
    }

    /// Blocks whose logs are to be found, oldest first.
    pub(super) fn wanted(&self) -> impl Iterator<Item = Block> {
        self.pending.iter().filter(|entry| entry.logs.is_none()).map(|entry| entry.block)
    }

    /// Whether more blocks wait than are remembered.
    pub(super) fn is_overfull(&self) -> bool {
        self.pending.len() > self.window
    }

    /// Forgets everything, as when nobody is left to be told.
    pub(super) fn clear(&mut self) {
        self.told.clear();
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests;
