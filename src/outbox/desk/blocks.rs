//! The canonical chain changes: transactions come into blocks, and out of them.

use std::collections::VecDeque;

use super::{
    Desk, MOST_AT_ONCE, Source,
    effect::Turn,
    entry::{Entry, Key},
    input::{Blocks, Final, InBlock, NewBlock},
};
use crate::outbox::{life::Event, record::BlockId};

/// The newest blocks whose names are remembered.
const WINDOW: usize = 256;

/// The canonical chain, as far as a desk remembers it.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// The newest blocks, without a gap.
    window: VecDeque<BlockId>,
    finalized: Option<u64>,
    /// Nodes have told a final block: the chain has finality, so depth alone ends no life.
    has_finality: bool,
    /// A final block that nodes told before the chain here had the block.
    awaited: Option<BlockId>,
    /// The newest block that the records reflect.
    checkpoint: Option<BlockId>,
}

impl Chain {
    pub(super) fn new(checkpoint: Option<BlockId>) -> Self {
        Self { checkpoint, ..Self::default() }
    }

    /// The height of the newest block; `None` until a block was told.
    pub(super) fn tip(&self) -> Option<u64> {
        self.window.back().map(|block| block.number)
    }

    /// Whether this block is canonical, and its removal would be told.
    pub(super) fn has(&self, block: &BlockId) -> bool {
        self.at(block.number).is_some_and(|ours| ours == block)
    }

    /// Whether this block may be canonical: it is, or is too old to be known here. One that is
    /// newer than all will be told in its time.
    pub(super) fn may_have(&self, block: &BlockId) -> bool {
        match self.window.front() {
            Some(first) if block.number >= first.number => self.has(block),
            Some(_) => true,
            None => false,
        }
    }

    /// Takes in which block is final. A block counts if the block is canonical here, or too old to
    /// be known. A block that is newer than all is awaited, and no other is meanwhile. Reason:
    /// where blocks are final at once, nodes always tell of a block that is not here yet. An
    /// awaited block that went untold counts for nothing: the chain may have gone another way.
    fn learn_final(&mut self, told: Option<Final>) {
        let tip = self.tip();
        let is_ahead = |block: &BlockId| tip.is_none_or(|tip| block.number > tip);
        if let Some(block) = self.awaited.take_if(|block| !is_ahead(block)).filter(|block| self.has(block)) {
            self.finalized = self.finalized.max(Some(block.number));
        }
        match told {
            Some(Final::Told(block)) => {
                self.has_finality = true;
                if is_ahead(&block) {
                    self.awaited.get_or_insert(block);
                } else if self.may_have(&block) {
                    self.finalized = self.finalized.max(Some(block.number));
                }
            }
            Some(Final::Deep(height)) if !self.has_finality => self.finalized = self.finalized.max(Some(height)),
            Some(Final::Deep(_)) | None => {}
        }
    }

    /// The height up to which all is final. Above the newest block nothing is known.
    pub(super) fn finalized(&self) -> Option<u64> {
        Some(self.finalized?.min(self.tip()?))
    }

    fn at(&self, number: u64) -> Option<&BlockId> {
        let first = self.window.front()?.number;
        self.window.get(usize::try_from(number.checked_sub(first)?).ok()?)
    }

    fn remove(&mut self, block: &BlockId) {
        while self.window.back().is_some_and(|newest| newest.number >= block.number) {
            self.window.pop_back();
        }
    }

    fn add(&mut self, block: BlockId) {
        if self.tip().is_some_and(|tip| tip + 1 != block.number) {
            self.window.clear();
        }
        self.window.push_back(block);
        if self.window.len() > WINDOW {
            self.window.pop_front();
        }
    }
}

impl Desk {
    /// The newest block that the records reflect.
    pub fn checkpoint(&self) -> Option<BlockId> {
        self.chain.checkpoint
    }

    pub(super) fn blocks(&mut self, turn: &mut Turn, blocks: Blocks) {
        let Blocks { removed, added, skipped, is_unread, claimed, finalized, recalled } = blocks;
        let mut guests = Vec::new();
        for record in recalled {
            let key = Key::from(&record.id);
            let is_leaving = self.leaving.contains(&key);
            if record.id.network == self.terms.network && self.record(&record.id).is_none() && !is_leaving {
                guests.push(key);
                self.book.add(Entry::stored(record), true);
            }
        }
        for block in removed {
            self.remove_block(turn, block);
        }
        if skipped {
            self.chain.window.clear();
            self.look_at_all();
        }
        for block in &added {
            self.add_block(turn, block);
        }
        for key in guests {
            // Of most, the blocks tell what the store knows.
            if self.book.get(&key).is_some_and(|entry| entry.record.state.is_over()) {
                self.book.take(&key);
            }
        }
        // First comes the block that was awaited.
        self.chain.learn_final(None);
        self.chain.learn_final(finalized);
        self.advance(turn);
        for key in claimed.iter().flat_map(|hash| self.book.of_hash(hash)).collect::<Vec<_>>() {
            self.want_look_soon(&key);
        }
        self.ask_again(is_unread);
        if !added.is_empty() {
            self.looks.refill(self.now);
        }
        let newest = added.last().map(|block| block.id);
        if let Some(block) = newest.filter(|block| self.chain.checkpoint != Some(*block)) {
            self.chain.checkpoint = Some(block);
            turn.step.checkpoint(self.terms.network.clone(), block);
        }
    }

    fn remove_block(&mut self, turn: &mut Turn, block: BlockId) {
        self.chain.remove(&block);
        for key in self.book.of_height(block.number) {
            self.lose_block(turn, &key, block);
        }
    }

    fn add_block(&mut self, turn: &mut Turn, block: &NewBlock) {
        self.chain.add(block.id);
        for transaction in &block.transactions {
            for key in self.book.of_hash(&transaction.hash) {
                self.include(turn, &key, block.id);
            }
            let slot = (transaction.sender, transaction.nonce);
            let others: Vec<Key> = self.book.of_slot(slot).to_vec();
            for key in others.into_iter().filter(|key| key.hash != transaction.hash) {
                self.displace(turn, &key, transaction, block.id);
            }
            // Also behind a nonce that was used past the proxy.
            self.send_next_nonce(slot);
        }
    }

    fn include(&mut self, turn: &mut Turn, key: &Key, block: BlockId) {
        self.leave_unwatched(turn, key, block);
        if let Err(illegal) = self.happen(turn, key, &Event::Included { block }, Source::default()) {
            tracing::error!(hash = %key.hash, "a block has what cannot be there: {illegal}");
            return;
        }
        self.book.change(key, |entry| entry.flight.is_watched = true);
    }

    fn displace(&mut self, turn: &mut Turn, key: &Key, other: &InBlock, block: BlockId) {
        self.leave_unwatched(turn, key, block);
        let event = Event::Displaced { by: other.hash, block };
        if let Err(illegal) = self.happen(turn, key, &event, Source::default()) {
            tracing::error!(hash = %key.hash, "a block has what cannot be there: {illegal}");
            return;
        }
        self.book.change(key, |entry| entry.flight.is_watched = true);
    }

    /// Where a change of the chain went untold, a record may still be in a block that is gone: the
    /// block that has the nonce now shows that.
    fn leave_unwatched(&mut self, turn: &mut Turn, key: &Key, block: BlockId) {
        let Some(entry) = self.book.get(key) else { return };
        let old = entry.record.state.block().filter(|old| entry.record.state.is_in_block() && *old != block);
        if let Some(old) = old.filter(|_| !entry.flight.is_watched) {
            self.lose_block(turn, key, old);
        }
    }

    /// Confirms what is deep enough, and ends what is final.
    pub(super) fn advance(&mut self, turn: &mut Turn) {
        self.has_more = false;
        let Some(tip) = self.chain.tip() else { return };
        let finalized = self.chain.finalized();
        let deep = |confirmations| (tip + 1).checked_sub(confirmations);
        let least = deep(self.terms.least_confirmations());
        let mut left = MOST_AT_ONCE;
        for (is_mined, until) in [(true, least.max(finalized)), (false, finalized)] {
            let Some(until) = until else { continue };
            let index = if is_mined { &self.book.mined } else { &self.book.deep };
            let is_deep = |key: &&Key| {
                let of_tenant = deep(self.terms.confirmations_of(&key.tenant));
                let block = self.book.get(key).and_then(|entry| entry.record.state.block());
                block.is_some_and(|block| Some(block.number) <= of_tenant.max(finalized))
            };
            let found: Vec<Key> = index.until(until).filter(|key| !is_mined || is_deep(key)).cloned().collect();
            for key in found {
                if left == 0 {
                    self.has_more = true;
                    return;
                }
                let is_watched = self.book.get(&key).is_some_and(|entry| entry.flight.is_watched);
                if is_watched {
                    self.advance_one(turn, &key, finalized);
                    left -= 1;
                } else {
                    // Whether its block is canonical is not known here.
                    self.want_look_soon(&key);
                }
            }
        }
    }

    /// Confirms a transaction whose block is canonical, or ends its life, if it is deep enough.
    pub(super) fn advance_one(&mut self, turn: &mut Turn, key: &Key, finalized: Option<u64>) {
        let Some(tip) = self.chain.tip() else { return };
        let event = Event::Advanced { tip, finalized, confirmations: self.terms.confirmations_of(&key.tenant) };
        // That the chain goes on is never illegal.
        _ = self.happen(turn, key, &event, Source::default());
    }

    /// Has the nodes asked for what is pending and was not asked for some blocks long; for all that
    /// is pending behind a block whose transactions are not known.
    fn ask_again(&mut self, is_unread: bool) {
        let Some(tip) = self.chain.tip() else { return };
        let until = if is_unread { u64::MAX } else { tip };
        let keys: Vec<Key> = self.book.rounds.until(until).cloned().collect();
        for key in keys {
            self.want_look(&key);
        }
    }
}
