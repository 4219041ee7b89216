//! Which of the chain's logs were sent, and which are still to be: pure.

use std::{collections::VecDeque, sync::Arc};

use alloy_primitives::{B256, Bloom};

/// The blocks of the window: those whose logs were sent, and above them those whose logs are still
/// to be. In whatever order logs are found, the tellings add up to the logs of the canonical
/// blocks.
///
/// Rule: every subscriber gets logs in the order of the blocks. Reason: clients rely on the order,
/// and `removed` logs must follow their originals. A block whose logs are not found yet therefore
/// holds back only subscribers that its logs may concern. Example: block 7 is not found and block 8
/// is. Block 8's logs go at once to subscribers that block 7 certainly does not concern, and to the
/// others when block 7 has been found.
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
    /// `None`: the logs were sent to no subscriber. Else they were sent to all, except those that
    /// one of these blocks, not found at that time, may concern.
    but_for: Option<Blocks>,
}

type Blocks = Arc<[Arc<Block>]>;

/// A block that became canonical.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::view) struct Block {
    pub(in crate::view) hash: B256,
    pub(in crate::view) number: u64,
    /// The number of the change that added the block. Subscribers to that change get the block's
    /// logs, and are told if the logs are removed.
    pub(in crate::view) change: u64,
    /// Decides which subscribers the logs may concern; `None`: they may concern all.
    pub(in crate::view) bloom: Option<Bloom>,
}

/// Logs to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Telling<L> {
    pub(super) block: Arc<Block>,
    /// In the order of the block.
    pub(super) logs: Arc<[L]>,
    /// Whether the logs are not canonical any more.
    pub(super) removed: bool,
    pub(super) to: To,
}

/// Selects the receivers among the subscribers to a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct To {
    /// Subscribers whom one of these blocks may concern are left out: the logs are sent to them
    /// later, or, where logs are taken back, were never sent to them.
    waits: Blocks,
    /// `None`: all others. `Some(blocks)`: only subscribers whom one of these blocks may concern,
    /// because the rest got the logs before.
    but_for: Option<Blocks>,
}

impl To {
    /// Whether a subscriber is selected; `may_concern` says whether a block may concern the
    /// subscriber.
    pub(super) fn includes(&self, may_concern: impl Fn(&Block) -> bool) -> bool {
        let any = |blocks: &Blocks| blocks.iter().any(|block| may_concern(block));
        !any(&self.waits) && self.but_for.as_ref().is_none_or(any)
    }
}

impl<L> Ledger<L> {
    pub(super) fn new(window: usize) -> Self {
        Self { told: VecDeque::new(), pending: VecDeque::new(), window }
    }

    /// Removes `block`, which is canonical no longer, after those above. Returns the logs that were
    /// sent and so must be taken back; logs that were not sent never will be.
    pub(super) fn remove(&mut self, block: B256) -> Option<Telling<L>> {
        let (block, logs, waits) = if let Some(entry) = self.pending.pop_back_if(|entry| entry.block.hash == block) {
            (entry.block, entry.logs?, entry.but_for?)
        } else {
            let entry = self.told.pop_back_if(|entry| entry.block.hash == block)?;
            (entry.block, entry.logs, Arc::default())
        };
        Some(Telling { block, logs, removed: true, to: To { waits, but_for: None } })
    }

    /// Adds `block`, which is canonical now, above all others. `logs` are given at once if no
    /// subscriber wants any.
    pub(super) fn add(&mut self, block: Arc<Block>, logs: Option<Arc<[L]>>) {
        self.pending.push_back(Entry { block, logs, but_for: None });
    }

    /// Takes the logs of a block, unless the block is gone meanwhile.
    pub(super) fn found(&mut self, block: B256, logs: Arc<[L]>) {
        if let Some(entry) = self.pending.iter_mut().find(|entry| entry.block.hash == block) {
            entry.logs.get_or_insert(logs);
        }
    }

    /// The next logs to send; to be called until there are none.
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
            // Below a block, no block is added, and a block that was found stays found. So the set
            // of missing blocks only shrinks, and sets of equal size are equal.
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

    /// Forgets everything, as when no subscriber is left.
    pub(super) fn clear(&mut self) {
        self.told.clear();
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests;
