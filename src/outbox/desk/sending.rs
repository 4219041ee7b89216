//! Sending, and what nodes say of it.

use std::sync::Arc;

use super::{
    Desk, Source,
    effect::{Done, Effect, To, Turn},
    entry::{Entry, Key, UnderWay},
    input::Word,
};
use crate::outbox::{
    life::Event,
    record::{State, reason},
};

/// The first pause before a transaction is sent again of which no node said a word, in
/// milliseconds. Each such sending doubles it.
const FIRST_PAUSE: u64 = 2_000;

/// The longest such pause, in milliseconds.
const LONGEST_PAUSE: u64 = 60_000;

impl Entry {
    /// What a new state means for the sending.
    pub(super) fn arrived(&mut self) {
        match &self.record.state {
            State::Accepted | State::Reorged { .. } => {
                self.flight.is_taken = false;
                self.flight.is_nonce_used = false;
                self.flight.is_watched = false;
                if let Some(under_way) = &mut self.flight.under_way {
                    under_way.is_outlived = true;
                }
                self.want(To::All);
            }
            State::Sent | State::Seen => {}
            _ => {
                self.flight.want = None;
                self.flight.retry = None;
            }
        }
    }
}

impl Desk {
    /// The height at which nodes are asked for a transaction of which they said something now.
    pub(super) fn next_round(&self) -> u64 {
        self.chain.tip().unwrap_or(0).saturating_add(self.terms.resend_blocks.max(1))
    }

    /// Begins the sendings that may begin: each tenant's in turn.
    pub(super) fn send_ready(&mut self, turn: &mut Turn) {
        let mut tenants = self.book.ready_tenants();
        while !tenants.is_empty() {
            tenants.retain(|tenant| match self.book.next_ready(tenant, self.terms.in_flight) {
                Some(key) => {
                    self.send(turn, &key);
                    true
                }
                None => false,
            });
        }
    }

    fn send(&mut self, turn: &mut Turn, key: &Key) {
        let number = self.number();
        let sent = self.book.change(key, |entry| {
            let to = entry.flight.want.take().unwrap_or(To::All);
            entry.flight.under_way = Some(UnderWay::new(to.clone(), number));
            entry.flight.words = None;
            let record = &entry.record;
            Effect::Send {
                id: record.id.clone(),
                send: number,
                to,
                raw: entry.raw.take(),
                request_id: record.request_id.clone(),
                traceparent: record.traceparent.clone(),
            }
        });
        turn.effects.extend(sent);
    }

    /// Takes a node's word about a transaction that was sent.
    pub(super) fn heard(&mut self, turn: &mut Turn, key: &Key, send: u64, node: &Arc<str>, word: Word) {
        let is_taken = word == Word::Taken;
        let of_this = self.book.change(key, |entry| {
            let flight = &mut entry.flight;
            if is_taken {
                (flight.is_taken, flight.is_nonce_used, flight.in_vain, flight.retry) = (true, false, 0, None);
            }
            let Some(under_way) = flight.under_way.as_mut().filter(|under_way| under_way.number == send) else {
                return false;
            };
            match word {
                Word::Taken => under_way.taken = true,
                Word::RefusedForGood(words) => {
                    under_way.refused += 1;
                    under_way.node.get_or_insert_with(|| node.clone());
                    flight.words.get_or_insert(words);
                }
                Word::RefusedNow(_) => under_way.others += 1,
                Word::NonceUsed(_) => {
                    under_way.others += 1;
                    flight.is_nonce_used |= !flight.is_taken;
                }
                Word::Lost => under_way.lost += 1,
            }
            !under_way.is_outlived
        });
        if is_taken {
            if of_this == Some(true) {
                // The sending began when the record was durable, so nobody needs to wait for the
                // transition to be.
                self.answer_waiters(&mut turn.at_once, key, &Ok(Done::Hash(key.hash)));
            }
            // A node's word is never illegal.
            _ = self.happen(turn, key, &Event::Taken, Source { node: Some(node), reason: None });
            self.answer_for(turn, key);
        }
    }

    /// A sending is over: all its words have come.
    pub(super) fn send_done(&mut self, turn: &mut Turn, key: &Key, send: u64, is_whole: bool) {
        let (round, now) = (self.next_round(), self.now);
        let ended = self.book.change(key, |entry| {
            let flight = &mut entry.flight;
            let done = flight.under_way.take_if(|under_way| under_way.number == send)?;
            flight.round = round;
            if done.taken || done.refused + done.others > 0 {
                flight.in_vain = 0;
            } else if entry.record.state.is_pending() && done.to == To::All {
                let pause = FIRST_PAUSE.saturating_mul(1 << flight.in_vain.min(16)).min(LONGEST_PAUSE);
                flight.in_vain += 1;
                flight.retry = Some(now.after(pause));
            }
            Some(done)
        });
        if self.book.get(key).is_some_and(Entry::is_settled) {
            self.book.take(key);
        }
        let Some(UnderWay { to, is_outlived, taken, refused, others, lost, node, .. }) = ended.flatten() else {
            return;
        };
        if taken || is_outlived {
            return;
        }
        if is_whole && to == To::All && refused > 0 && others + lost == 0 {
            let words = self.book.get(key).and_then(|entry| entry.flight.words.clone());
            let why = words.map(|words| reason(&words.message)).unwrap_or_default();
            _ = self.happen(
                turn,
                key,
                &Event::RefusedByAll { reason: why },
                Source { node: node.as_ref(), reason: None },
            );
            return;
        }
        if self.book.get(key).is_some_and(|entry| entry.flight.is_nonce_used) {
            self.want_look(key);
        }
        if refused + others > 0 {
            // Nodes were reached, and none takes it now. It is kept and will be sent again.
            self.answer_waiters(&mut turn.effects, key, &Ok(Done::Hash(key.hash)));
        }
    }

    /// A node can be used again: it gets what no block has.
    pub(super) fn node_returned(&mut self, node: &Arc<str>) {
        let pending = self.book.iter().filter(|entry| entry.record.state.is_pending());
        let keys: Vec<Key> = pending.map(Entry::key).collect();
        for key in keys {
            self.book.change(&key, |entry| entry.want(To::Node(node.clone())));
        }
    }
}
