//! Sending, and what nodes say of it.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    Desk, Source,
    book::Slot,
    effect::{Done, Effect, To, Turn},
    entry::{Entry, Flight, Key, UnderWay},
    input::Word,
};
use crate::outbox::{
    life::Event,
    record::{Millis, State, TenantName, reason},
};

/// The first pause before a transaction is sent again to nodes that lack it, in milliseconds. Each
/// sending doubles the pause.
const FIRST_PAUSE: u64 = 2_000;

/// The longest pause while no node has the transaction and some node gave no word, in
/// milliseconds.
const LONGEST_PAUSE: u64 = 60_000;

/// The same while some node has the transaction, or each node refuses it. Reason: nodes refuse
/// transactions of senders without funds, of which anybody can make as many as the outbox holds.
const LONGEST_REFUSED: u64 = 600_000;

impl Flight {
    /// The earliest time for the next sending to nodes that lack the transaction. Example: the
    /// first sending is at 0 s, and no node takes the transaction. The next sendings are at 2, 6,
    /// 14, 30 and 62 s: five in the first minute. Then the pauses go on to double up to ten minutes
    /// where each node refuses it; where one gives no word, a sending follows each minute.
    fn next_at(&self) -> Millis {
        let longest = if self.is_taken || self.is_refused { LONGEST_REFUSED } else { LONGEST_PAUSE };
        self.ended.after(FIRST_PAUSE.saturating_mul(1 << self.in_vain.min(16)).min(longest))
    }
}

impl Entry {
    /// Has the nodes that lack the transaction sent the transaction again after the pause.
    pub(super) fn send_later(&mut self, now: Millis) {
        if self.flight.under_way.is_some() || self.flight.want.is_some() {
            return;
        }
        let at = self.flight.next_at();
        if at <= now {
            self.want_owed();
        } else {
            self.flight.retry = Some(self.flight.retry.map_or(at, |before| before.min(at)));
        }
    }

    /// The nodes that had the transaction have forgotten it. The words before count no more, and a
    /// node that hangs in an earlier sending is not waited for.
    pub(super) fn forgotten(&mut self) {
        let flight = &mut self.flight;
        flight.is_taken = false;
        (flight.in_vain, flight.is_refused, flight.retry) = (0, false, None);
        if let Some(given_up) = flight.under_way.take() {
            flight.ended = flight.ended.max(given_up.begun);
        }
        if flight.want.is_some() {
            self.want(To::All);
        }
    }

    /// What a new state means for the sending. A transaction that waits for a block once more may
    /// wait until `deadline`.
    pub(super) fn arrived(&mut self, deadline: Millis) {
        if let State::Reorged { .. } = self.record.state {
            self.record.deadline = self.record.deadline.max(deadline);
        }
        match &self.record.state {
            State::Accepted | State::Reorged { .. } => {
                self.flight.overdue = None;
                self.flight.is_taken = false;
                (self.flight.is_nonce_used, self.flight.is_use_agreed) = (false, false);
                self.flight.is_watched = false;
                (self.flight.in_vain, self.flight.retry) = (0, None);
                self.flight.owing.clear();
                self.record.refusals.clear();
                // A sending that is under way rests on an older step, and is not waited for: a node
                // may hang in it.
                self.flight.under_way = None;
                self.want(To::All);
            }
            State::Sent | State::Seen => {}
            state => {
                if state.block().is_some() {
                    self.record.refusals.clear();
                }
                (self.flight.want, self.flight.retry, self.flight.overdue) = (None, None, None);
                self.flight.owing.clear();
            }
        }
    }
}

impl Desk {
    /// The height at which nodes are asked for a transaction of the tenant's of which they said
    /// something now.
    pub(super) fn next_round(&self, tenant: &TenantName) -> u64 {
        self.chain.tip().unwrap_or(0).saturating_add(self.terms.resend_blocks_of(tenant))
    }

    /// Begins the sendings that may begin: each tenant's in turn.
    pub(super) fn send_ready(&mut self, turn: &mut Turn) {
        if self.is_draining {
            return;
        }
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
        let (number, now) = (self.number(), self.now);
        let sent = self.book.change(key, |entry| {
            let to = entry.flight.want.take().unwrap_or(To::All);
            entry.flight.under_way = Some(Box::new(UnderWay::new(entry.lane(), to.clone(), number, now)));
            entry.flight.words = None;
            entry.flight.owing.retain(|node| !to.has(node));
            if entry.flight.owing.is_empty() && entry.flight.is_taken {
                entry.flight.retry = None;
            }
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
        let is_first = is_taken && self.book.get(key).is_some_and(|entry| !entry.flight.is_taken);
        let of_this = self.book.change(key, |entry| {
            let flight = &mut entry.flight;
            if is_taken {
                (flight.is_taken, flight.is_nonce_used, flight.is_refused) = (true, false, false);
                flight.owing.remove(node);
                if flight.owing.is_empty() {
                    flight.retry = None;
                }
            }
            let Some(under_way) = flight.under_way.as_mut().filter(|under_way| under_way.number == send) else {
                return false;
            };
            if matches!(word, Word::Unfunded(_) | Word::RefusedNow(_) | Word::NonceUsed(_) | Word::Lost) {
                under_way.owing.insert(node.clone());
            }
            let words = match &word {
                Word::Taken | Word::Lost => None,
                Word::RefusedForGood(words)
                | Word::Unfunded(words)
                | Word::RefusedNow(words)
                | Word::NonceUsed(words) => Some(words.clone()),
            };
            if word != Word::Lost {
                under_way.words.push((node.clone(), words));
            }
            match word {
                Word::Taken => under_way.taken = true,
                Word::RefusedForGood(words) => {
                    under_way.refused += 1;
                    under_way.node.get_or_insert_with(|| node.clone());
                    flight.words.get_or_insert(words);
                }
                Word::Unfunded(words) => {
                    (under_way.others, under_way.unfunded) = (under_way.others + 1, under_way.unfunded + 1);
                    under_way.node.get_or_insert_with(|| node.clone());
                    flight.words.get_or_insert(words);
                }
                Word::RefusedNow(_) => under_way.others += 1,
                Word::NonceUsed(_) => {
                    (under_way.others, under_way.used) = (under_way.others + 1, under_way.used + 1);
                    flight.is_nonce_used |= !flight.is_taken;
                }
                Word::Lost => under_way.lost += 1,
            }
            true
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
        let Some(record) = self.book.get(key).map(|entry| &entry.record).filter(|_| is_taken) else { return };
        let slot = (record.sender, record.nonce);
        if is_first {
            self.send_next_nonce(slot);
        } else {
            self.send_next_owed(slot, node);
        }
    }

    /// A node has the transaction of this sender and nonce, or a block has one: nodes that refused
    /// the sender's next nonce for the gap before that take it now.
    pub(super) fn send_next_nonce(&mut self, slot: Slot) {
        for next in self.behind(slot) {
            self.book.change(&next, |entry| {
                let flight = &mut entry.flight;
                // A sending that is under way may have been too early.
                let is_refused = !flight.is_taken && (flight.retry.is_some() || flight.under_way.is_some());
                if is_refused && entry.record.state.is_pending() {
                    (flight.in_vain, flight.retry) = (0, None);
                    // The other nodes' words on the gap need not be waited for.
                    flight.under_way.take_if(|under_way| under_way.is_heard());
                    entry.want(To::All);
                }
            });
        }
    }

    /// A node has got the transaction of this sender and nonce, which another node had before: the
    /// node that lacks the next one can take it now.
    fn send_next_owed(&mut self, slot: Slot, node: &Arc<str>) {
        for next in self.behind(slot) {
            self.book.change(&next, |entry| {
                let flight = &mut entry.flight;
                let is_quiet = flight.is_taken && flight.under_way.is_none() && flight.want.is_none();
                if is_quiet && flight.owing.contains(node) && entry.record.state.is_pending() {
                    entry.want(To::Nodes(BTreeSet::from([node.clone()])));
                }
            });
        }
    }

    /// The transactions of the nonce behind this one.
    fn behind(&self, (sender, nonce): Slot) -> Vec<Key> {
        self.book.of_slot((sender, nonce.saturating_add(1))).to_vec()
    }

    /// A sending is over: all its words have come.
    pub(super) fn send_done(&mut self, turn: &mut Turn, key: &Key, send: u64, is_whole: bool) {
        let (round, now) = (self.next_round(&key.tenant), self.now);
        let mut has_new_words = false;
        let ended = self.book.change(key, |entry| {
            let flight = &mut entry.flight;
            let mut done = flight.under_way.take_if(|under_way| under_way.number == send)?;
            (flight.round, flight.ended) = (round, now);
            if done.to == To::All {
                flight.is_refused = done.refused + done.others > 0 && !done.taken && done.lost == 0;
                // Two nodes, or the only one. A single node may be wrong.
                let is_only = is_whole && done.used > 0 && done.refused + done.others + done.lost == done.used;
                flight.is_use_agreed = done.used > 1 || is_only;
            }
            flight.owing.append(&mut done.owing);
            let is_owed = !flight.owing.is_empty() || !(flight.is_taken || done.taken);
            if is_owed && entry.record.state.is_pending() {
                flight.retry = Some(flight.next_at());
                flight.in_vain = flight.in_vain.saturating_add(1);
            } else {
                flight.in_vain = 0;
            }
            if entry.record.state.is_pending() {
                has_new_words = entry.note_words(std::mem::take(&mut done.words));
            }
            Some(done)
        });
        if has_new_words {
            self.write(turn, self.book.get(key).map(|entry| entry.record.clone()), None);
        }
        if self.book.get(key).is_some_and(Entry::is_settled) {
            self.book.take(key);
        }
        let Some(done) = ended.flatten() else { return };
        let UnderWay { to, taken, refused, others, unfunded, lost, node, .. } = *done;
        if taken {
            return;
        }
        // While no client has its hash, a want of funds ends it: nodes alone would have said no.
        let is_new = self.book.get(key).is_some_and(|entry| entry.flight.is_new);
        let for_good = if is_new { refused + unfunded } else { refused };
        if is_whole && to == To::All && for_good > 0 && refused + others + lost == for_good {
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
        let flight = self.book.get(key).map(|entry| &entry.flight);
        let is_nonce_used = flight.is_some_and(|flight| flight.is_nonce_used);
        let is_use_agreed = flight.is_some_and(|flight| flight.is_use_agreed);
        if is_new
            && refused + others > 0
            && lost == 0
            && let Some(full) = self.one_too_many(&key.tenant, is_nonce_used)
        {
            let why = full.to_string();
            self.answer_waiters(&mut turn.effects, key, &Err(full));
            _ = self.happen(turn, key, &Event::RefusedByAll { reason: why }, Source::default());
            return;
        }
        if is_nonce_used {
            self.want_look_soon(key);
            if is_new && is_use_agreed {
                // The client hears whether a block has it, or has another.
                return;
            }
        }
        if refused + others > 0 {
            // Nodes were reached, and none takes it now. It is kept and will be sent again.
            self.book.change(key, |entry| entry.flight.words = None);
            self.answer_waiters(&mut turn.effects, key, &Ok(Done::Hash(key.hash)));
        }
    }

    /// The proxy goes down: what is under way ends, and nothing begins. Each client that waits gets
    /// the hash: the transaction is kept, and sent after the next start.
    pub(super) fn drain(&mut self, turn: &mut Turn) {
        self.is_draining = true;
        let waits = |entry: &&Entry| !entry.waiters.is_empty();
        let keys: Vec<Key> = self.book.iter().filter(waits).map(Entry::key).collect();
        for key in keys {
            self.answer_waiters(&mut turn.effects, &key, &Ok(Done::Hash(key.hash)));
        }
    }

    /// A node can be used again: it gets what no block has.
    pub(super) fn node_returned(&mut self, node: &Arc<str>) {
        let pending = self.book.iter().filter(|entry| entry.record.state.is_pending());
        let keys: Vec<Key> = pending.map(Entry::key).collect();
        for key in keys {
            self.book.change(&key, |entry| entry.want(To::Nodes(BTreeSet::from([node.clone()]))));
        }
    }
}
