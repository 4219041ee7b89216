//! Asking the nodes whether they know a transaction, and what follows from their answer.
//!
//! A block lets [`PER_BLOCK`] questions begin, and no more than that in [`REFILL`]: with 100,000
//! transactions pending, a node is asked for 256 of them at each block, in turn. Transactions of
//! which something new is known go first, and every fourth place is for the others.

use std::collections::VecDeque;

use super::{
    Desk, OVERDUE_GRACE, Source,
    effect::{Effect, Turn},
    entry::{Entry, Key, Look},
    input::Found,
};
use crate::outbox::{
    life::Event,
    record::{BlockId, Millis, Record, State},
};

/// The most transactions that nodes are asked for at once.
const MAX_LOOKS: usize = 64;

/// The most transactions that nodes are asked for between two blocks.
const PER_BLOCK: usize = 256;
/// Blocks that follow each other faster, in milliseconds, share one such number.
const REFILL: u64 = 1000;
/// Of so many places in a row, the last is for transactions of which nothing new is known.
const TURNS: usize = 4;

/// The transactions that the nodes are to be asked for.
#[derive(Debug, Default)]
pub(super) struct LookQueue {
    /// Of these something new is known: a node's claim, a used nonce, a block that may be gone.
    soon: VecDeque<Key>,
    /// These are asked for in turn.
    usual: VecDeque<Key>,
    /// Questions that may begin before the next block.
    left: usize,
    refilled: Option<Millis>,
    turn: usize,
}

impl LookQueue {
    /// Lets more questions begin, since a block has come.
    pub(super) fn refill(&mut self, now: Millis) {
        if self.refilled.is_none_or(|at| now.since(at) >= REFILL) {
            (self.left, self.refilled) = (PER_BLOCK, Some(now));
        }
    }

    /// The next transaction and its mark, if a question may begin. The caller passes over a
    /// transaction without the mark: the nodes are asked for that one already.
    fn next(&mut self) -> Option<(Key, Look)> {
        if self.left == 0 {
            return None;
        }
        self.turn = (self.turn + 1) % TURNS;
        let is_usual = (self.turn == 0 || self.soon.is_empty()) && !self.usual.is_empty();
        let (queue, look) = if is_usual { (&mut self.usual, Look::Wanted) } else { (&mut self.soon, Look::WantedSoon) };
        queue.pop_front().map(|key| (key, look))
    }
}

/// What came of a question.
#[derive(Debug)]
pub(super) struct LookAnswer {
    pub(super) found: Found,
    pub(super) final_nonces: Option<u64>,
    /// The height up to which the chain was final when the nodes were asked.
    pub(super) finalized: Option<u64>,
}

impl Desk {
    /// Wants the nodes asked for all that is not known for sure: at the start, and where blocks
    /// went untold.
    pub(super) fn look_at_all(&mut self) {
        let now = self.now;
        let keys: Vec<Key> = self.book.iter().map(Entry::key).collect();
        for key in keys {
            let is_overdue = |entry: &Entry| entry.record.state.is_pending() && entry.record.deadline <= now;
            if self.terms.in_flight > 0 && self.book.get(&key).is_some_and(is_overdue) {
                self.ask_before_the_end(&key);
                continue;
            }
            let is_new = self.book.change(&key, |entry| {
                entry.flight.is_watched = false;
                if entry.flight.look == Look::UnderWay {
                    entry.flight.look = Look::Outdated;
                }
                let was_never_taken = matches!(entry.record.state, State::Accepted | State::Reorged { .. });
                if was_never_taken && !entry.flight.is_taken {
                    entry.send_later(now);
                }
                was_never_taken
            });
            if is_new == Some(false) {
                self.want_look(&key);
            }
        }
    }

    /// Wants the nodes asked for transactions that were given up.
    pub(super) fn recall(&mut self, records: Vec<Record>) {
        for record in records.into_iter().filter(|record| record.state.is_given_up()) {
            let key = Key::from(&record.id);
            let is_ours = record.id.network == self.terms.network && !self.leaving.contains(&key);
            if is_ours && self.book.get(&key).is_none() {
                self.book.add(Entry::stored(record), true);
                self.want_look(&key);
            }
        }
    }

    /// Wants the nodes asked for a transaction, in its turn.
    pub(super) fn want_look(&mut self, key: &Key) {
        if self.raise_look(key, Look::Wanted) {
            self.looks.usual.push_back(key.clone());
        }
    }

    /// Wants the nodes asked for a transaction of which something new is known.
    pub(super) fn want_look_soon(&mut self, key: &Key) {
        if self.raise_look(key, Look::WantedSoon) {
            self.looks.soon.push_back(key.clone());
        }
    }

    /// Notes that the nodes are to be asked. Whether they were not, or not so soon.
    fn raise_look(&mut self, key: &Key, to: Look) -> bool {
        let is_raised = self.book.change(key, |entry| {
            let is_less = entry.flight.look == Look::No || (entry.flight.look, to) == (Look::Wanted, Look::WantedSoon);
            let is_raised = is_less && entry.may_be_asked();
            if is_raised {
                entry.flight.look = to;
            }
            is_raised
        });
        is_raised == Some(true)
    }

    /// Begins to ask, once it is known where the chain is.
    pub(super) fn start_looks(&mut self, turn: &mut Turn) {
        let may_ask = (self.chain.tip().is_some() || self.has_overdue) && !self.is_draining;
        while self.looking.len() < MAX_LOOKS && may_ask {
            let Some((key, mark)) = self.looks.next() else { return };
            let number = self.number();
            let look = self.book.change(&key, |entry| {
                if entry.flight.look != mark {
                    return None;
                }
                if !entry.may_be_asked() {
                    entry.flight.look = Look::No;
                    return None;
                }
                entry.flight.look = Look::UnderWay;
                let (id, hash) = (entry.record.id.clone(), entry.asked());
                let with_nonce = entry.flight.is_nonce_used && entry.record.state.is_pending();
                Some(Effect::Look { id, look: number, hash, with_nonce })
            });
            if let Some(look) = look.flatten() {
                self.looks.left -= 1;
                self.looking.insert(number, self.chain.finalized());
                turn.effects.push(look);
            }
        }
    }

    /// The nodes were asked for a transaction.
    pub(super) fn looked(&mut self, turn: &mut Turn, key: &Key, answer: LookAnswer) {
        let LookAnswer { found, final_nonces, finalized } = answer;
        let (round, soon) = (self.next_round(&key.tenant), self.chain.tip().unwrap_or(0).saturating_add(1));
        let is_unsure = matches!(found, Found::Unsure | Found::Missing { .. });
        let before = self.book.change(key, |entry| {
            entry.flight.round = if is_unsure { soon } else { round };
            std::mem::take(&mut entry.flight.look)
        });
        if before == Some(Look::Outdated) {
            self.want_look_soon(key);
            return;
        }
        let Some(entry) = self.book.get(key) else { return };
        if entry.record.state.is_pending() {
            self.looked_for_pending(turn, key, found, final_nonces);
        } else if entry.record.state.is_in_block() && !entry.flight.is_watched {
            self.looked_for_block(turn, key, found, finalized);
        } else if entry.record.state.is_given_up() {
            self.looked_for_given_up(turn, key, found);
        }
    }

    /// A block makes one mined that was given up. Otherwise the desk need not hold the record.
    fn looked_for_given_up(&mut self, turn: &mut Turn, key: &Key, found: Found) {
        match found {
            Found::InBlock { node, block } if self.chain.may_have(&block) => {
                let is_watched = self.chain.has(&block);
                self.book.change(key, |entry| entry.flight.is_watched = is_watched);
                // A block can have what was given up.
                _ = self.happen(turn, key, &Event::Included { block }, Source { node: Some(&node), reason: None });
            }
            _ => {
                let Some(entry) = self.book.get(key) else { return };
                turn.effects.push(Effect::Settled { id: self.id_of(key), seq: entry.record.seq });
            }
        }
    }

    fn looked_for_pending(&mut self, turn: &mut Turn, key: &Key, found: Found, final_nonces: Option<u64>) {
        let Some(entry) = self.book.get(key) else { return };
        let (nonce, is_overdue) = (entry.record.nonce, entry.flight.overdue.is_some());
        if entry.flight.is_nonce_used && entry.flight.is_use_agreed && entry.flight.is_new && found == Found::Unknown {
            // While no client has its hash, the client hears what nodes alone would have said.
            let reason = format!("nonce too low: nonce {nonce} of this sender is used");
            _ = self.happen(turn, key, &Event::RefusedByAll { reason }, Source::default());
            return;
        }
        let is_used = found == Found::Unknown && final_nonces.is_some_and(|used| used > nonce);
        // A single node's claim, or its `null`, says too little: a block may have it.
        if is_overdue && !is_used && matches!(found, Found::Unknown | Found::Waiting { .. }) {
            return self.expire(turn, key);
        }
        match found {
            Found::InBlock { node, block } => {
                if !self.chain.may_have(&block) {
                    // The block will be told in its time.
                    let until = self.now.after(OVERDUE_GRACE);
                    self.book.change(key, |entry| {
                        entry.flight.overdue.iter_mut().for_each(|overdue| overdue.end = until);
                    });
                } else {
                    let is_watched = self.chain.has(&block);
                    self.book.change(key, |entry| entry.flight.is_watched = is_watched);
                    // A block can have what is pending.
                    _ = self.happen(turn, key, &Event::Included { block }, Source { node: Some(&node), reason: None });
                }
            }
            Found::Waiting { node, missing } => {
                let now = self.now;
                let gap = self.book.change(key, |entry| {
                    let flight = &mut entry.flight;
                    let was_taken = std::mem::replace(&mut flight.is_taken, true);
                    flight.is_nonce_used = false;
                    flight.owing.extend(missing);
                    if flight.owing.is_empty() {
                        (flight.in_vain, flight.retry) = (0, None);
                    } else {
                        entry.send_later(now);
                    }
                    (!was_taken).then_some((entry.record.sender, entry.record.nonce))
                });
                gap.flatten().into_iter().for_each(|slot| self.send_next_nonce(slot));
                _ = self.happen(turn, key, &Event::Sighted, Source { node: Some(&node), reason: None });
            }
            Found::Unknown | Found::Disputed => {
                let now = self.now;
                if is_used {
                    let reason = format!("nonce too low: another transaction of nonce {nonce} is final");
                    _ = self.happen(turn, key, &Event::RefusedByAll { reason }, Source::default());
                    return;
                }
                self.book.change(key, |entry| {
                    if entry.flight.is_taken {
                        entry.forgotten();
                    }
                    entry.send_later(now);
                });
            }
            // To stop sending takes more voices than to send again.
            Found::Missing { at } => {
                let now = self.now;
                self.book.change(key, |entry| {
                    if entry.was_forgotten_by(&at) {
                        entry.forgotten();
                    } else {
                        entry.flight.owing.extend(at);
                    }
                    entry.send_later(now);
                });
            }
            Found::Unsure => {}
        }
    }

    /// Says whether the block of a transaction is still canonical, where the desk did not see all
    /// changes of the chain.
    fn looked_for_block(&mut self, turn: &mut Turn, key: &Key, found: Found, finalized: Option<u64>) {
        let Some(entry) = self.book.get(key) else { return };
        let Some(ours) = entry.record.state.block() else { return };
        let by = entry.asked();
        match found {
            Found::InBlock { block, .. } if block == ours => {
                let is_watched = self.chain.has(&block);
                self.book.change(key, |entry| entry.flight.is_watched = is_watched);
                self.advance_one(turn, key, finalized);
            }
            Found::InBlock { node, block } if self.chain.may_have(&block) => {
                let is_replaced = by != key.hash;
                self.lose_block(turn, key, ours);
                let event = if is_replaced { Event::Displaced { by, block } } else { Event::Included { block } };
                let is_watched = self.chain.has(&block);
                self.book.change(key, |entry| entry.flight.is_watched = is_watched);
                _ = self.happen(turn, key, &event, Source { node: Some(&node), reason: None });
            }
            Found::Waiting { .. } | Found::Unknown => self.lose_block(turn, key, ours),
            Found::InBlock { .. } | Found::Disputed | Found::Missing { .. } | Found::Unsure => {}
        }
    }

    /// The block of a transaction is canonical no more.
    pub(super) fn lose_block(&mut self, turn: &mut Turn, key: &Key, block: BlockId) {
        let lost = self.happen(turn, key, &Event::Removed { block }, Source::default());
        if let Err(illegal) = lost {
            tracing::error!(hash = %key.hash, "a final block is gone: {illegal}");
        }
    }
}
