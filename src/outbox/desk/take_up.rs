//! Transactions that replicas share. A client's transaction is written to the bucket before any
//! replica acts on it: the desk first proposes the record, and takes the transaction up when the
//! bucket has it. In between the desk holds nothing, so a write that fails leaves nothing behind.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    Desk, Source, To,
    accept::not_again,
    effect::{Effect, NotDone, Turn},
    entry::{Entry, Key},
    input::{Accept, Adopted},
};
use crate::{
    config::Ack,
    outbox::{
        life::{Change, Event},
        record::{EventId, Millis, Record, State, Transition, TxId},
    },
};

impl Desk {
    /// The record of a transaction as it is to be shared: a new one, or a new life of one that was
    /// refused or has expired. `None` where the transaction is kept, and its life goes on.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn propose(&mut self, now: Millis, accept: &Accept) -> Result<Option<Record>, NotDone> {
        self.now = self.now.max(now);
        let id = TxId { tenant: accept.tenant.clone(), network: self.terms.network.clone(), hash: accept.tx.hash };
        let key = Key::from(&id);
        let known = accept.known.as_deref().filter(|known| known.id == id && !self.leaving.contains(&key));
        let Some(known) = self.book.get(&key).map(|entry| &entry.record).or(known) else {
            return self.new_record(id, accept).map(Some);
        };
        let change = known.after(&Event::Accepted).map_err(|_| not_again(known))?;
        let Change::To { state, stopped } = change else { return Ok(None) };
        self.book.tally.room(&id.tenant, accept.raw.len(), &self.terms)?;
        self.has_room_for(&id.tenant, &accept.tx.sender)?;
        let mut record = known.clone();
        let transition = self.transition(&record, &state, Source::default());
        (record.accepted_at, record.deadline) = (self.now, self.now.after(self.terms.deadline_of(&id.tenant)));
        (record.state, record.stopped, record.keep_until) = (state, stopped, None);
        record.bytes = accept.raw.len();
        record.refusals.clear();
        record.note(transition);
        Ok(Some(record))
    }

    /// Takes a transaction up, once: from now on this desk sees it through.
    pub(super) fn take_up(&mut self, turn: &mut Turn, adopted: Adopted) {
        let Adopted { waiter: (waiter, patience), record, raw, told, known } = adopted;
        let key = Key::from(&record.id);
        let is_held = self.book.get(&key).is_some_and(|entry| entry.record.seq >= record.seq);
        if !is_held {
            if self.book.get(&key).is_none()
                && let Some(known) = known.filter(|_| !self.leaving.contains(&key))
            {
                self.book.add(Entry::stored(*known), true);
            }
            self.begin_to_hold(turn, &key, record, raw, &told);
        }
        self.acknowledge(turn, &key, waiter);
        let until = self.now.after(patience);
        self.book.change(&key, |entry| {
            entry.waiters.iter_mut().filter(|(of, _)| *of == waiter).for_each(|(_, at)| *at = until.min(*at));
        });
        if let Some(entry) = self.book.get(&key).filter(|entry| entry.record.state.is_over()) {
            turn.effects.push(Effect::Settled { id: entry.record.id.clone(), seq: entry.record.seq });
        }
        self.send_ready(turn);
        // Until a later sending the store keeps the bytes.
        self.book.change(&key, |entry| entry.raw = None);
    }

    fn begin_to_hold(&mut self, turn: &mut Turn, key: &Key, record: Record, raw: Bytes, told: &BTreeSet<EventId>) {
        let seen = self.book.get(key).map_or(0, |entry| entry.record.seq);
        for transition in record.history.iter().filter(|transition| transition.seq > seen) {
            turn.effects.push(Effect::Tell { id: record.id.clone(), transition: transition.clone() });
        }
        let of =
            |transition: &Transition| (record.event(transition.seq), self.endpoints.deliveries(&record, transition));
        let events = record.history.iter().map(of).filter(|(event, _)| !told.contains(event)).collect();
        turn.step.adopt(record.clone(), raw.clone(), events);
        let round = self.next_round(&key.tenant);
        // While no client has the hash, a want of funds ends the life.
        let is_new = record.state == State::Accepted && self.terms.ack == Ack::Node;
        let (is_pending, is_in_block) = (record.state.is_pending(), record.state.is_in_block());
        if self.book.get(key).is_none() {
            self.book.add(Entry::stored(record), false);
        } else {
            self.book.change(key, |entry| entry.record = record);
        }
        self.book.change(key, |entry| {
            (entry.raw, entry.settled) = (Some(raw).filter(|raw| !raw.is_empty()), None);
            (entry.flight.round, entry.flight.is_new) = (round, is_new);
            match entry.record.state {
                State::Accepted | State::Reorged { .. } => entry.arrived(entry.record.deadline),
                _ if is_pending => entry.want(To::All),
                _ => {}
            }
        });
        // A transaction that a replica brings that was away is not sent behind its deadline.
        let is_overdue = |entry: &Entry| entry.record.state.is_pending() && entry.record.deadline <= self.now;
        if self.book.get(key).is_some_and(is_overdue) {
            self.ask_before_the_end(key);
        }
        if is_in_block {
            self.want_look(key);
        }
    }

    /// The store has `new` of a transaction that another replica sees through, in the place of
    /// `old`: the bounds count it.
    pub fn recount(&mut self, old: Option<&Record>, new: &Record) {
        if let Some(old) = old {
            self.book.tally.remove(&old.id.tenant, old.bytes, old.state.is_over());
            self.book.untaken.count_foreign(old, false);
        }
        self.book.tally.add(&new.id.tenant, new.bytes, new.state.is_over());
        self.book.untaken.count_foreign(new, true);
    }
}
