//! A client sends a transaction: it is taken in, found to be known, or not taken.

use alloy_primitives::U128;
use bytes::Bytes;

use super::{
    Desk, Source,
    effect::{Answer, Done, Effect, NotDone, To, Turn},
    entry::{Entry, Flight, Key},
    input::{Accept, NodeWords, Waiter},
};
use crate::{
    config::Ack,
    outbox::{
        life::Event,
        record::{EventIds, Fees, Record, State, Stopped, TxId},
    },
};

/// The most clients that wait for a node's word about one transaction; more get the hash at once.
const MAX_WAITERS: usize = 64;

impl Desk {
    /// Takes a transaction in, once: the same bytes again give the same hash.
    pub(super) fn accept(&mut self, turn: &mut Turn, accept: Accept) {
        let id = TxId { tenant: accept.tenant.clone(), network: self.terms.network.clone(), hash: accept.tx.hash };
        let key = Key::from(&id);
        let waiter = accept.waiter;
        if self.book.get(&key).is_none()
            && !self.leaving.contains(&key)
            && let Some(known) = accept.known.as_deref().filter(|known| known.id == id)
        {
            self.book.add(Entry::stored(known.clone()), true);
        }
        let taken = match self.book.get(&key) {
            Some(_) => self.accept_again(turn, &key, &accept),
            None => self.accept_new(turn, id, accept),
        };
        match taken {
            Ok(()) => self.acknowledge(turn, &key, waiter),
            Err(why) => turn.effects.push(Effect::Answer { waiter, answer: Err(why) }),
        }
        if let Some(entry) = self.book.get(&key).filter(|entry| entry.record.state.is_over()) {
            // It was put on the desk for this question only.
            turn.effects.push(Effect::Settled { id: entry.record.id.clone(), seq: entry.record.seq });
        }
        self.send_ready(turn);
        // Until a later sending the store keeps the bytes.
        self.book.change(&key, |entry| entry.raw = None);
    }

    fn accept_again(&mut self, turn: &mut Turn, key: &Key, accept: &Accept) -> Result<(), NotDone> {
        let Some(entry) = self.book.get(key) else { return Ok(()) };
        let is_revived = matches!(entry.record.state, State::Refused { .. } | State::Expired);
        if is_revived {
            self.book.tally.room(&key.tenant, accept.raw.len(), &self.terms)?;
            self.has_room_for(&key.tenant, &accept.tx.sender)?;
            let (now, deadline) = (self.now, self.now.after(self.terms.deadline_of(&key.tenant)));
            self.book.change(key, |entry| {
                (entry.record.accepted_at, entry.record.deadline) = (now, deadline);
                entry.flight.is_new = true;
            });
        }
        // Bytes that a node has taken stay: the new ones may be worse.
        let is_untaken = entry_is_untaken(self.book.get(key));
        if is_revived || (accept.is_other_form && is_untaken) {
            self.take_bytes(turn, key, accept.raw.clone(), is_revived);
        }
        let happened = self.happen(turn, key, &Event::Accepted, Source::default());
        let Some(entry) = self.book.get(key) else { return Ok(()) };
        happened.map(|_| ()).map_err(|_| not_again(&entry.record))
    }

    /// Keeps the bytes of a transaction in the place of earlier ones, and sends them.
    fn take_bytes(&mut self, turn: &mut Turn, key: &Key, raw: Bytes, is_revived: bool) {
        turn.step.raw(self.id_of(key), raw.clone());
        let record = self.book.change(key, |entry| {
            entry.record.bytes = raw.len();
            entry.raw = Some(raw);
            if !is_revived {
                (entry.flight.in_vain, entry.flight.retry) = (0, None);
                entry.want(To::All);
            }
            entry.record.clone()
        });
        if !is_revived {
            self.write(turn, record, None);
        }
    }

    fn accept_new(&mut self, turn: &mut Turn, id: TxId, accept: Accept) -> Result<(), NotDone> {
        let record = self.new_record(id.clone(), &accept)?;
        let raw = accept.raw;
        let transition = record.history[0].clone();
        let deliveries = self.endpoints.deliveries(&record, &transition);
        turn.step.accept(record.clone(), raw.clone(), deliveries);
        turn.effects.push(Effect::Tell { id, transition });
        let mut flight = Flight { round: self.next_round(&record.id.tenant), ..Flight::default() };
        (flight.is_new, flight.want) = (true, Some(To::All));
        let entry = Entry { raw: Some(raw), flight, ..Entry::stored(record) };
        self.book.add(entry, false);
        Ok(())
    }

    /// The record of a transaction that is new, if there is room and the nonce is free.
    pub(super) fn new_record(&self, id: TxId, accept: &Accept) -> Result<Record, NotDone> {
        let Accept { raw, tx, request_id, traceparent, .. } = accept;
        let slot = (tx.sender, tx.nonce);
        let mut others = self.book.of_slot(slot).iter().filter_map(|key| self.book.get(key));
        let used_by = others.find_map(|entry| match &entry.record.state {
            State::Mined { .. } | State::Confirmed { .. } | State::Final { .. } => Some(entry.record.id.hash),
            State::Replaced { by, .. } => Some(*by),
            _ => None,
        });
        if let Some(by) = used_by.filter(|by| *by != id.hash) {
            return Err(NotDone::NonceUsed { by });
        }
        self.book.tally.room(&id.tenant, raw.len(), &self.terms)?;
        self.has_room_for(&id.tenant, &tx.sender)?;
        let mut record = Record {
            sender: tx.sender,
            nonce: tx.nonce,
            chain_id: tx.chain_id,
            kind: tx.kind,
            fees: Fees {
                max_fee: U128::from(tx.max_fee),
                max_priority_fee: tx.max_priority_fee.map(U128::from),
                max_blob_fee: tx.max_blob_fee.map(U128::from),
            },
            blobs: tx.blobs,
            bytes: raw.len(),
            accepted_at: self.now,
            deadline: self.now.after(self.terms.deadline_of(&id.tenant)),
            request_id: request_id.clone(),
            traceparent: traceparent.clone(),
            state: State::Accepted,
            stopped: None,
            seq: 0,
            refusals: Vec::new(),
            history: Vec::new(),
            keep_until: None,
            event_ids: EventIds::OfContent,
            id,
        };
        let transition = self.transition(&record, &State::Accepted, Source::default());
        record.note(transition);
        Ok(record)
    }

    /// Gives the client the hash, now or when the first node has the transaction.
    pub(super) fn acknowledge(&mut self, turn: &mut Turn, key: &Key, waiter: Waiter) {
        let Some(entry) = self.book.get(key) else { return };
        let is_decided = !entry.record.state.is_pending() || entry.flight.is_taken;
        // Where too many wait that no node took, the nodes' words decide on a further one.
        let needs_no_node =
            self.terms.ack == Ack::Disk && !(entry.flight.is_new && self.is_full_of_untaken(&key.tenant));
        if needs_no_node || is_decided || entry.waiters.len() >= MAX_WAITERS || self.is_draining {
            self.book.change(key, |entry| entry.flight.is_new = false);
            turn.effects.push(Effect::Answer { waiter, answer: Ok(Done::Hash(key.hash)) });
        } else {
            let until = self.now.after(self.terms.hold);
            self.book.change(key, |entry| entry.waiters.push((waiter, until)));
        }
    }

    /// Answers those who wait for a transaction, if its state decides the answer.
    pub(super) fn answer_for(&mut self, turn: &mut Turn, key: &Key) {
        let Some(entry) = self.book.get(key).filter(|entry| !entry.waiters.is_empty()) else { return };
        let answer = match &entry.record.state {
            State::Accepted | State::Reorged { .. } => return,
            State::Sent | State::Seen | State::Mined { .. } | State::Confirmed { .. } | State::Final { .. } => {
                Ok(Done::Hash(key.hash))
            }
            State::Refused { reason } => {
                let words = entry.flight.words.clone();
                Err(NotDone::OfNodes(words.unwrap_or(NodeWords { code: -32000, message: reason.clone() })))
            }
            State::Replaced { .. } | State::Expired | State::Cancelled => Err(not_again(&entry.record)),
        };
        self.answer_waiters(&mut turn.effects, key, &answer);
    }

    /// Gives all who wait for a transaction this answer.
    pub(super) fn answer_waiters(&mut self, effects: &mut Vec<Effect>, key: &Key, answer: &Answer) {
        let waiters = self.book.change(key, |entry| {
            entry.flight.is_new &= answer.is_err();
            std::mem::take(&mut entry.waiters)
        });
        let waiters = waiters.unwrap_or_default();
        effects.extend(waiters.into_iter().map(|(waiter, _)| Effect::Answer { waiter, answer: answer.clone() }));
    }

    pub(super) fn id_of(&self, key: &Key) -> TxId {
        TxId { tenant: key.tenant.clone(), network: self.terms.network.clone(), hash: key.hash }
    }
}

/// Whether no node has had the transaction so far.
fn entry_is_untaken(entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| entry.record.state == State::Accepted && !entry.flight.is_taken)
}

/// Why a record in this state does not let its transaction be sent.
pub(super) fn not_again(record: &Record) -> NotDone {
    match (&record.state, &record.stopped) {
        (State::Replaced { by, .. }, _) => NotDone::NonceUsed { by: *by },
        (State::Cancelled, _) | (_, Some(Stopped::Cancelled)) => NotDone::Cancelled,
        _ => NotDone::Expired,
    }
}
