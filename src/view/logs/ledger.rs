//! What of the chain's logs was told, and what is still to be: pure.

use std::{collections::VecDeque, sync::Arc};

use crate::domain::{bloom::Bloom, hash::Hash};

/// The blocks of the window: those that were told, each with its logs, and behind them those that
/// are still to be. What it gives out adds up, whatever the order in which logs are found, to the
/// logs of the canonical blocks.
///
/// Everybody hears in the order of the blocks. A block whose logs are not found yet holds back only
/// those whom they may concern.
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
    block: Arc<Block>,
    logs: T,
    /// `None`: nobody was told. Else everybody was, but for those whom one of these blocks, not
    /// found then, may concern.
    but_for: Option<Blocks>,
}

type Blocks = Arc<[Arc<Block>]>;

/// A block that came.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::view) struct Block {
    pub(in crate::view) hash: Hash,
    pub(in crate::view) number: u64,
    /// The number of the change with which it came. Whoever hears of that hears of its logs, and
    /// hears of it if they go.
    pub(in crate::view) change: u64,
    /// What tells whom its logs may concern; `None` if nothing does.
    pub(in crate::view) bloom: Option<Bloom>,
}

/// Something to tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Telling<L> {
    pub(super) block: Arc<Block>,
    /// In the order of the block.
    pub(super) logs: Arc<[L]>,
    /// They are not canonical any more.
    pub(super) removed: bool,
    pub(super) to: To,
}

/// Who of those that hear of a change is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct To {
    /// Those whom one of these blocks may concern have to wait for it first.
    waits: Blocks,
    /// All others were told already, but for those whom one of these may concern.
    but_for: Option<Blocks>,
}

impl To {
    /// Whether they are, whom a block may concern as `may_concern` says.
    pub(super) fn includes(&self, may_concern: impl Fn(&Block) -> bool) -> bool {
        let any = |blocks: &Blocks| blocks.iter().any(|block| may_concern(block));
        !any(&self.waits) && self.but_for.as_ref().is_none_or(any)
    }
}

impl<L> Ledger<L> {
    pub(super) fn new(window: usize) -> Self {
        Self { told: VecDeque::new(), pending: VecDeque::new(), window }
    }

    /// `block` is canonical no longer; those above it have gone before. What was told of it is to
    /// be taken back, what was not never will be told.
    pub(super) fn remove(&mut self, block: Hash) -> Option<Telling<L>> {
        let (block, logs, waits) = if let Some(entry) = self.pending.pop_back_if(|entry| entry.block.hash == block) {
            (entry.block, entry.logs?, entry.but_for?)
        } else {
            let entry = self.told.pop_back_if(|entry| entry.block.hash == block)?;
            (entry.block, entry.logs, Arc::default())
        };
        Some(Telling { block, logs, removed: true, to: To { waits, but_for: None } })
    }

    /// `block` is canonical now, above all others. `logs` are known from the beginning if nobody
    /// wants any.
    pub(super) fn add(&mut self, block: Arc<Block>, logs: Option<Arc<[L]>>) {
        self.pending.push_back(Entry { block, logs, but_for: None });
    }

    /// The logs of a block were found. It may have gone meanwhile.
    pub(super) fn found(&mut self, block: Hash, logs: Arc<[L]>) {
        if let Some(entry) = self.pending.iter_mut().find(|entry| entry.block.hash == block) {
            entry.logs.get_or_insert(logs);
        }
    }

    /// The next thing to be told; to be asked until there is none.
    pub(super) fn next(&mut self) -> Option<Telling<L>> {
        if let Some(Entry { block, logs, but_for }) = self.pending.pop_front_if(|entry| entry.logs.is_some()) {
            let logs = logs?;
            self.told.push_back(Entry { block: block.clone(), logs: logs.clone(), but_for: None });
            if self.told.len() > self.window {
                self.told.pop_front();
            }
            return Some(Telling { block, logs, removed: false, to: To { waits: Arc::default(), but_for } });
        }
        let mut missing = Vec::new();
        for Entry { block, logs, but_for, .. } in &mut self.pending {
            let Some(logs) = logs else {
                missing.push(block.clone());
                continue;
            };
            // Of the blocks below this one, none comes, and those that are found are missing no
            // longer: as many are the same.
            if but_for.as_ref().is_none_or(|blocks| blocks.len() > missing.len()) {
                let waits: Blocks = missing.into();
                let but_for = but_for.replace(waits.clone());
                let (block, logs) = (block.clone(), logs.clone());
                return Some(Telling { block, logs, removed: false, to: To { waits, but_for } });
            }
        }
        None
    }

    /// Blocks whose logs are to be found, oldest first.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Arc<Block>> {
        self.pending.iter().filter(|entry| entry.logs.is_none()).map(|entry| &entry.block)
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
