//! A step: all writes that belong to one transition. The store makes them in one transaction of its
//! file, so that a part of a step is never found there.
//!
//! Rows that follow from a record are no part of a step: the store makes and removes them with the
//! record. These are the list of records whose life is not over, the deadline, and the time at
//! which a record may be dropped.

use std::mem;

use bytes::Bytes;

use super::record::{BlockId, Delivery, EventId, Network, Quarantined, Record, TenantName, TxId, WorkId};

/// All writes of one transition, in the order in which the store makes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a step does nothing until the store commits it"]
pub struct Step {
    writes: Vec<Write>,
    /// The step takes in something new.
    accepts: bool,
}

/// One write of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The raw bytes of a transaction, in the place of those with the same id.
    Raw {
        /// Whose bytes.
        id: TxId,
        /// The bytes, as the client sent them.
        bytes: Bytes,
    },
    /// A record, in the place of the one with the same id.
    Record(Box<Record>),
    /// The dedupe mark of an event. Where the mark is new, the deliveries are written too; where
    /// the mark is there already, the event had its deliveries, and nothing is written. An event
    /// that no endpoint wants needs no mark.
    Event {
        /// Whose event.
        tenant: TenantName,
        /// The event.
        event: EventId,
        /// One for each endpoint that wants the event.
        deliveries: Vec<Delivery>,
    },
    /// The dedupe mark of an event that another replica has delivered.
    Told {
        /// Whose event.
        tenant: TenantName,
        /// The event.
        event: EventId,
    },
    /// A record with its raw bytes, its indices and the dedupe marks of its transitions goes.
    Remove(TxId),
    /// A delivery, in the place of the one with the same id or of its quarantine record.
    Delivery(Box<Delivery>),
    /// A delivery is done, and goes.
    Delivered {
        /// Whose delivery.
        tenant: TenantName,
        /// The delivery.
        work: WorkId,
    },
    /// A delivery goes that another replica makes, with the dedupe mark of its event: when the
    /// event comes again, so does the delivery.
    Disowned {
        /// Whose delivery.
        tenant: TenantName,
        /// The delivery.
        work: WorkId,
        /// Its event.
        event: EventId,
    },
    /// A delivery was given up: a quarantine record takes its place.
    Quarantine(Box<Quarantined>),
    /// A quarantine record goes.
    Unquarantine {
        /// Whose record.
        tenant: TenantName,
        /// The delivery that was given up.
        work: WorkId,
    },
    /// The newest block that the network's records reflect.
    Checkpoint {
        /// The network.
        network: Network,
        /// The block.
        block: BlockId,
    },
    /// Whether other replicas have seen transactions through, and may have delivered their events.
    Shared(bool),
}

impl Step {
    /// A step without writes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A transaction is accepted: its raw bytes, its record, and the event of its newest transition
    /// with the deliveries of that event.
    pub fn accept(&mut self, record: Record, bytes: Bytes, deliveries: Vec<Delivery>) -> &mut Self {
        self.raw(record.id.clone(), bytes).transition(record, deliveries)
    }

    /// A transaction is taken up that another replica has accepted, or has seen through so far: its
    /// raw bytes, its record, and the events that are not told, with their deliveries.
    pub fn adopt(&mut self, record: Record, bytes: Bytes, events: Vec<(EventId, Vec<Delivery>)>) -> &mut Self {
        let tenant = record.id.tenant.clone();
        self.accepts |= !bytes.is_empty();
        self.replicate(record, bytes);
        for (event, deliveries) in events {
            self.untold(tenant.clone(), event, deliveries);
        }
        self
    }

    /// A transaction as the replica has it that sees it through. Bytes that are empty leave those
    /// that are there. A disk that is nearly full takes the step too: a client has the hash.
    pub fn replicate(&mut self, record: Record, bytes: Bytes) -> &mut Self {
        if !bytes.is_empty() {
            self.push(Write::Raw { id: record.id.clone(), bytes });
        }
        self.update(record)
    }

    /// An event that may not be delivered yet: its deliveries, unless the dedupe mark is there.
    pub fn untold(&mut self, tenant: TenantName, event: EventId, deliveries: Vec<Delivery>) -> &mut Self {
        self.push(Write::Event { tenant, event, deliveries })
    }

    /// Another replica has delivered an event.
    pub fn told(&mut self, tenant: TenantName, event: EventId) -> &mut Self {
        self.push(Write::Told { tenant, event })
    }

    /// Notes whether other replicas have seen transactions through.
    pub fn shared(&mut self, is_shared: bool) -> &mut Self {
        self.push(Write::Shared(is_shared))
    }

    /// The raw bytes of a transaction that is kept already, as a client has sent them now.
    pub fn raw(&mut self, id: TxId, bytes: Bytes) -> &mut Self {
        self.accepts = true;
        self.push(Write::Raw { id, bytes })
    }

    /// A transaction made a transition, the newest of its history: its record, and the event with
    /// its deliveries. The dedupe mark of the event is written with the record, and only here, so a
    /// transition that is made twice has its deliveries once.
    pub fn transition(&mut self, record: Record, deliveries: Vec<Delivery>) -> &mut Self {
        if deliveries.is_empty() {
            return self.update(record);
        }
        let (tenant, event) = (record.id.tenant.clone(), record.event(record.seq));
        self.update(record).push(Write::Event { tenant, event, deliveries })
    }

    /// A record changed without a transition.
    pub fn update(&mut self, record: Record) -> &mut Self {
        self.push(Write::Record(Box::new(record)))
    }

    /// Drops a transaction and all that belongs to it, but for deliveries that are still on their
    /// way.
    pub fn remove(&mut self, id: TxId) -> &mut Self {
        self.push(Write::Remove(id))
    }

    /// Adds a delivery, or replaces the one with the same id: an event of the pool, another attempt
    /// at a later time, a replay, a delivery taken out of quarantine. No dedupe mark is looked at.
    pub fn deliver(&mut self, delivery: Delivery) -> &mut Self {
        self.push(Write::Delivery(Box::new(delivery)))
    }

    /// The endpoint has taken a delivery: it goes.
    pub fn delivered(&mut self, tenant: TenantName, work: WorkId) -> &mut Self {
        self.push(Write::Delivered { tenant, work })
    }

    /// Another replica makes the delivery: it goes from here.
    pub fn disown(&mut self, delivery: &Delivery) -> &mut Self {
        let Delivery { tenant, id, event, .. } = delivery;
        self.push(Write::Disowned { tenant: tenant.clone(), work: id.clone(), event: event.clone() })
    }

    /// Gives a delivery up: the quarantine record takes its place.
    pub fn quarantine(&mut self, given_up: Quarantined) -> &mut Self {
        self.push(Write::Quarantine(Box::new(given_up)))
    }

    /// Drops a quarantine record.
    pub fn unquarantine(&mut self, tenant: TenantName, work: WorkId) -> &mut Self {
        self.push(Write::Unquarantine { tenant, work })
    }

    /// The network's records reflect all blocks up to this one.
    pub fn checkpoint(&mut self, network: Network, block: BlockId) -> &mut Self {
        self.push(Write::Checkpoint { network, block })
    }

    /// Adds the writes of `other` after those of this step: both are made, or neither.
    pub fn append(&mut self, other: Self) -> &mut Self {
        self.writes.extend(other.writes);
        self.accepts |= other.accepts;
        self
    }

    /// The step, with an empty one left in its place: ends a chain of the methods above.
    pub fn take(&mut self) -> Self {
        mem::take(self)
    }

    /// The writes, in order.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Whether the step writes nothing.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Whether the step takes in something new. A disk that is nearly full refuses those
    /// steps, and keeps its last room for transactions that were accepted before.
    pub fn accepts(&self) -> bool {
        self.accepts
    }

    /// Bytes of the texts and raw bytes that the step holds, roughly.
    pub fn bytes(&self) -> usize {
        let of = |write: &Write| match write {
            Write::Raw { bytes, .. } => bytes.len(),
            Write::Event { deliveries, .. } => deliveries.iter().map(|delivery| SMALL + delivery.body.len()).sum(),
            Write::Delivery(delivery) => SMALL + delivery.body.len(),
            Write::Quarantine(given_up) => SMALL + given_up.delivery.body.len(),
            Write::Record(record) => SMALL + record.history.len() * SMALL / 4,
            _ => SMALL,
        };
        self.writes.iter().map(of).sum()
    }

    fn push(&mut self, write: Write) -> &mut Self {
        self.writes.push(write);
        self
    }
}

/// Bytes of a row without its longest parts.
const SMALL: usize = 512;
