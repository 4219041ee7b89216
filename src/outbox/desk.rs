//! The brain of one network's outbox: inputs in, writes and effects out. No I/O, no clock.
//!
//! The writes of an input are one [`Step`](super::step::Step). What the input makes the proxy do
//! comes as effects, which wait until that step is durable: no client hears of a transaction, and
//! no node gets one, that is not on the disk. Steps may be handed in one behind the other without
//! waiting, as long as effects keep the order.
//!
//! The desk holds each transaction whose life is not over, without its bytes. It can be made anew
//! from the store at any moment, and must be, when a step fails: it then believes more than the
//! disk knows.
//!
//! # The order of sending
//!
//! A later nonce of a sender waits until a node took the earlier one, where both are ours. The rule
//! stands in [`book`]: the lowest nonce that waits for a word is the only one that may be sent.
//!
//! # How a transaction comes to a node again
//!
//! - A node returns: it is sent to that node.
//! - `resend_blocks` blocks after the last word: the nodes are asked for it, and it is sent again
//!   where none knows it, or to the nodes that lack it.
//! - Its block goes: it is sent at once.
//! - A node gave no word, or refused for a reason of the moment: the transaction is sent again
//!   after a pause that doubles, to all nodes while none has the transaction, else to the nodes
//!   that lack the transaction.
//! - The nonce before it came to a node or into a block, and nodes had refused it: it is sent at
//!   once.
//!
//! No sending but the first, that after a reorganisation, that behind an earlier nonce, and those
//! for a node that returned or an operator comes sooner than the pause of [`sending`] after the one
//! before it.

mod accept;
mod blocks;
mod book;
mod command;
mod effect;
mod entry;
mod index;
mod input;
mod looking;
mod sending;
mod take_up;
mod tally;
mod terms;
mod untaken;
mod word;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use alloy_primitives::Address;

use self::{
    blocks::Chain,
    book::Book,
    entry::{Entry, Key, Overdue},
    looking::{LookAnswer, LookQueue},
    untaken::Untaken,
};
pub use self::{
    command::replay,
    effect::{Answer, Done, Effect, NotDone, To, Turn},
    input::{Accept, Adopted, Blocks, Command, Final, Found, InBlock, Input, NewBlock, NodeWords, Waiter, Word},
    tally::{Excess, Sum},
    terms::{Bounds, TenantTerms, Terms},
};
use super::{
    life::{Change, Event, Illegal},
    record::{BlockId, Delivery, Millis, Record, State, TenantName, Transition, TxId, reason},
};

/// The most transitions that one input makes beyond those of its blocks; the rest follow with the
/// next.
const MOST_AT_ONCE: usize = 1000;

/// Memory that a pending transaction takes, in bytes: its entry, and its places in the indices.
pub const ENTRY_BYTES: usize = 3072;

/// How long a transaction whose deadline has passed waits for the nodes' word, in milliseconds: a
/// block may have it.
const OVERDUE_GRACE: u64 = 600_000;
/// The pause before the nodes are asked again for such a transaction, in milliseconds.
const OVERDUE_PAUSE: u64 = 10_000;

/// Numbers that a desk may use in each millisecond of its life, as a power of two, before they meet
/// those of a desk that is made anew.
const NUMBERS_PER_MILLI: u32 = 10;

/// The endpoints that are told of transitions.
pub trait Endpoints: Send + Sync {
    /// A delivery of the transition to each endpoint that wants it. `record` has made it.
    fn deliveries(&self, record: &Record, transition: &Transition) -> Vec<Delivery>;
}

/// The outbox of one network.
pub struct Desk {
    terms: Terms,
    endpoints: Arc<dyn Endpoints>,
    book: Book,
    chain: Chain,
    /// Transactions that the nodes are to be asked for.
    looks: LookQueue,
    /// The questions that the nodes are asked now, and up to where the chain was final when they
    /// were: an answer about a block means as much and no more.
    looking: BTreeMap<u64, Option<u64>>,
    /// The number of the newest sending or question.
    numbers: u64,
    now: Millis,
    /// More transitions follow from the newest blocks.
    has_more: bool,
    /// A deadline has passed: the nodes are asked also before the first block is known.
    has_overdue: bool,
    /// The proxy goes down: nothing begins.
    is_draining: bool,
    /// Records that are being removed. The store may have such a record still, and soon will not.
    leaving: BTreeSet<Key>,
}

/// What a desk is made from.
#[derive(Debug, Default)]
pub struct Stored {
    /// The records of the network whose life is not over.
    pub live: Vec<Record>,
    /// What the store holds, by tenant, these records included.
    pub sums: Vec<(TenantName, Sum)>,
    /// The newest block that the records reflect.
    pub checkpoint: Option<BlockId>,
    /// The transactions that other replicas see through, and that no node took.
    pub(super) others: Untaken,
}

/// Whose word an event is.
#[derive(Clone, Copy, Debug, Default)]
struct Source<'a> {
    node: Option<&'a Arc<str>>,
    reason: Option<&'a str>,
}

impl Desk {
    /// The desk of a network as the store knows it. What the nodes think of its transactions is
    /// found out with the first blocks.
    pub fn new(terms: Terms, endpoints: Arc<dyn Endpoints>, stored: Stored, now: Millis) -> Self {
        let Stored { live, sums, checkpoint, others } = stored;
        let mut book = Book::default();
        book.untaken = others;
        for record in live {
            let entry = Entry::stored(record);
            book.add(entry, true);
        }
        book.tally = tally::Tally::new(sums);
        let mut desk = Self {
            terms,
            endpoints,
            book,
            chain: Chain::new(checkpoint),
            looks: LookQueue::default(),
            looking: BTreeMap::new(),
            numbers: now.0 << NUMBERS_PER_MILLI,
            now,
            has_more: false,
            has_overdue: false,
            is_draining: false,
            leaving: BTreeSet::new(),
        };
        desk.look_at_all();
        desk
    }

    /// Takes an input of the time `now`.
    pub fn input(&mut self, now: Millis, input: Input) -> Turn {
        self.now = self.now.max(now);
        let mut turn = Turn::default();
        match input {
            Input::Accept(accept) => self.accept(&mut turn, *accept),
            Input::Heard { id, send, node, word } => self.heard(&mut turn, &Key::from(&id), send, &node, word),
            Input::SendDone { id, send, is_whole } => self.send_done(&mut turn, &Key::from(&id), send, is_whole),
            Input::Looked { id, look, found, final_nonces } => {
                if let Some(finalized) = self.looking.remove(&look) {
                    let answer = LookAnswer { found, final_nonces, finalized };
                    self.looked(&mut turn, &Key::from(&id), answer);
                }
            }
            Input::Blocks(blocks) => self.blocks(&mut turn, *blocks),
            Input::NodeReturned { node } => self.node_returned(&node),
            Input::Due => self.due(&mut turn),
            Input::Drain => self.drain(&mut turn),
            Input::Recall(records) => self.recall(records),
            Input::Command { waiter, id, known, command } => {
                self.command(&mut turn, waiter, &id, known.as_deref(), command);
            }
            Input::Forget(records) => self.forget(&mut turn, records),
            Input::TakeUp(adopted) => self.take_up(&mut turn, *adopted),
        }
        self.send_ready(&mut turn);
        self.start_looks(&mut turn);
        turn
    }

    /// When time alone changes something next; the desk wants [`Input::Due`] then.
    pub fn next_due(&self) -> Option<Millis> {
        if self.has_more { Some(self.now) } else { self.book.next_due() }
    }

    /// A life is over since transition `seq`, and the store knows: the desk need not hold the
    /// record any more, unless it has begun to live again.
    pub fn settled(&mut self, id: &TxId, seq: u64) {
        let key = Key::from(id);
        let is_idle = self.book.change(&key, |entry| {
            entry.settled = Some(seq);
            entry.is_settled()
        });
        if is_idle == Some(true) {
            self.book.take(&key);
        }
    }

    /// A record was removed, and the store knows.
    pub fn forgotten(&mut self, id: &TxId) {
        self.leaving.remove(&Key::from(id));
    }

    /// The desk's settings and endpoints from now on.
    pub fn reload(&mut self, terms: Terms, endpoints: Arc<dyn Endpoints>) {
        (self.terms, self.endpoints) = (terms, endpoints);
    }

    /// The record of a transaction, while the desk holds it.
    pub fn record(&self, id: &TxId) -> Option<&Record> {
        self.book.get(&Key::from(id)).map(|entry| &entry.record)
    }

    /// The records that the desk holds.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.book.iter().map(|entry| &entry.record)
    }

    /// The first nonce from `count` on for which the tenant has no transaction of this sender that
    /// waits or is in a block.
    pub fn next_nonce(&self, tenant: &TenantName, sender: Address, count: u64) -> u64 {
        let is_theirs = |key: &Key| {
            let entry = self.book.get(key).filter(|_| key.tenant == *tenant);
            entry.is_some_and(|entry| entry.record.state.is_pending() || entry.record.state.is_in_block())
        };
        let is_used = |nonce: &u64| self.book.of_slot((sender, *nonce)).iter().any(is_theirs);
        (count..u64::MAX).find(|nonce| !is_used(nonce)).unwrap_or(count)
    }

    /// Whether the desk follows no transaction.
    pub fn is_idle(&self) -> bool {
        self.book.iter().next().is_none()
    }

    /// What is held of each tenant.
    pub fn sums(&self) -> impl Iterator<Item = (&TenantName, &Sum)> {
        self.book.tally.tenants.iter()
    }

    /// What is held in all.
    pub fn total(&self) -> Sum {
        self.book.tally.all
    }

    /// Transactions on their way to nodes.
    pub fn in_flight(&self) -> usize {
        self.book.in_flight()
    }

    /// Whose records of lives that are over must go before their time, if the bounds want that.
    pub fn excess(&self) -> Option<Excess> {
        self.book.tally.excess(&self.terms)
    }

    /// Ends the desk: those who wait still, each with its transaction and the end of its wait. The
    /// desk that is made anew takes them by [`Desk::adopt`].
    pub fn into_waiters(self) -> Vec<(Waiter, TxId, Millis)> {
        let waiters = |entry: &Entry| {
            let id = entry.record.id.clone();
            entry.waiters.iter().map(move |(waiter, until)| (*waiter, id.clone(), *until)).collect::<Vec<_>>()
        };
        self.book.iter().flat_map(waiters).collect()
    }

    /// Lets somebody who waited at an earlier desk wait here. `false`: the transaction is not on
    /// the disk, and the waiter must be answered so.
    #[must_use]
    pub fn adopt(&mut self, waiter: Waiter, id: &TxId, until: Millis) -> bool {
        self.book.change(&Key::from(id), |entry| entry.waiters.push((waiter, until))).is_some()
    }

    /// A number for a sending or a question.
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Lets an event happen to a transaction, and makes the transitions that follow. Whether there
    /// were some.
    fn happen(&mut self, turn: &mut Turn, key: &Key, event: &Event, source: Source<'_>) -> Result<bool, Illegal> {
        let mut made = false;
        loop {
            let Some(entry) = self.book.get(key) else { return Ok(made) };
            match entry.record.after(event)? {
                Change::Nothing => return Ok(made),
                Change::Silent { state, stopped } => {
                    let keep_until = state.is_over().then(|| self.now.after(self.terms.keep));
                    let changed = self.book.change(key, |entry| {
                        let record = &mut entry.record;
                        (record.state, record.stopped, record.keep_until) = (state, stopped, keep_until);
                        record.clone()
                    });
                    self.write(turn, changed, None);
                    made = true;
                }
                Change::To { state, stopped } => {
                    let transition = self.transition(&entry.record, &state, source);
                    let is_over = state.is_over();
                    let slot = (entry.record.sender, entry.record.nonce);
                    let ends_the_gap =
                        matches!(state, State::Sent | State::Seen | State::Mined { .. } | State::Replaced { .. });
                    let keep_until = is_over.then(|| self.now.after(self.terms.keep));
                    let deadline = self.now.after(self.terms.deadline_of(&key.tenant));
                    let changed = self.book.change(key, |entry| {
                        let record = &mut entry.record;
                        (record.state, record.stopped, record.keep_until) = (state, stopped, keep_until);
                        record.note(transition.clone());
                        entry.arrived(deadline);
                        entry.record.clone()
                    });
                    self.write(turn, changed, Some(transition));
                    self.answer_for(turn, key);
                    if ends_the_gap {
                        self.send_next_nonce(slot);
                    }
                    made = true;
                }
            }
        }
    }

    /// Writes a record that was changed, and tells of its newest transition, if it made one.
    fn write(&self, turn: &mut Turn, changed: Option<Record>, transition: Option<Transition>) {
        let Some(record) = changed else { return };
        let (id, seq, is_over) = (record.id.clone(), record.seq, record.state.is_over());
        match transition {
            Some(transition) => {
                let deliveries = self.endpoints.deliveries(&record, &transition);
                turn.step.transition(record, deliveries);
                turn.effects.push(Effect::Tell { id: id.clone(), transition });
            }
            None => _ = turn.step.update(record),
        }
        if is_over {
            turn.effects.push(Effect::Settled { id, seq });
        }
    }

    /// The next transition of a record: into `state`.
    fn transition(&self, record: &Record, state: &State, source: Source<'_>) -> Transition {
        let why = match state {
            State::Refused { reason } => Some(reason.clone()),
            State::Replaced { by, .. } => Some(by.to_string()),
            _ => source.reason.map(reason),
        };
        let mut transition = Transition {
            seq: record.seq + 1,
            at: self.now,
            to: state.name(),
            block: state.block(),
            node: source.node.map(|node| node.to_string()),
            reason: why,
            refusals: if matches!(state, State::Refused { .. }) { record.refusals.clone() } else { Vec::new() },
            repeat: 0,
        };
        transition.repeat = record.repeats(&transition);
        transition
    }

    /// The deadline of a transaction has passed. A block may have it that was not told here: while
    /// the proxy was away, or while its nodes were.
    fn ask_before_the_end(&mut self, key: &Key) {
        let (next, end) = (self.now.after(OVERDUE_PAUSE), self.now.after(OVERDUE_GRACE));
        self.book.change(key, |entry| {
            let end = entry.flight.overdue.map_or(end, |overdue| overdue.end);
            entry.flight.overdue = Some(Overdue { next, end });
        });
        // A chain without new blocks lets questions begin as well.
        self.looks.refill(self.now);
        self.has_overdue = true;
        self.want_look_soon(key);
    }

    /// Ends a transaction that no block had until its deadline.
    fn expire(&mut self, turn: &mut Turn, key: &Key) {
        // A deadline ends only pending transactions, and these can always expire.
        _ = self.happen(turn, key, &Event::DeadlinePassed, Source::default());
    }

    /// Does what is due by now.
    fn due(&mut self, turn: &mut Turn) {
        for key in keys(self.book.deadlines.until(self.now)) {
            let overdue = self.book.get(&key).and_then(|entry| entry.flight.overdue);
            let has_waited = overdue.is_some_and(|overdue| overdue.end <= self.now);
            // Without nodes nobody can be asked.
            if has_waited || self.terms.in_flight == 0 {
                self.expire(turn, &key);
            } else {
                self.ask_before_the_end(&key);
            }
        }
        for key in keys(self.book.retries.until(self.now)) {
            self.book.change(&key, |entry| {
                entry.flight.retry = None;
                if entry.record.state.is_pending() && entry.flight.under_way.is_none() {
                    entry.want_owed();
                }
            });
        }
        for (waiter, key) in self.book.held_until(self.now) {
            // The transaction is kept and will be sent: the client has waited long enough.
            self.book.change(&key, |entry| {
                entry.waiters.retain(|(other, _)| *other != waiter);
                entry.flight.is_new = false;
            });
            turn.effects.push(Effect::Answer { waiter, answer: Ok(Done::Hash(key.hash)) });
        }
        if self.has_more {
            self.advance(turn);
        }
    }
}

/// The first of these, as many as one input handles.
fn keys<'a>(found: impl Iterator<Item = &'a Key>) -> Vec<Key> {
    found.take(MOST_AT_ONCE).cloned().collect()
}
