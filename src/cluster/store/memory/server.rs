//! The server of a store in memory: the bucket, the faults of its clients, the queues of watches.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use fastrand::Rng;
use tokio::time::Instant;

use super::{
    super::{Incarnation, Prefix, Revision, StoreTime},
    bucket::{Bucket, Message, Write},
    fault::{Client, Fate, Reach},
};

/// Messages that wait for one watch. With one more, the watch lists anew instead.
const QUEUE: usize = 4096;
/// Bits of the number before the first revision of a bucket that was made anew.
const REVISION_BITS: u32 = 40;

/// The messages that wait for one watch, each with the moment of its arrival.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) client: String,
    pub(super) prefix: Prefix,
    pub(super) messages: VecDeque<(Instant, Message)>,
    /// Messages were lost in a way that the client notices, so that a listing is due.
    pub(super) must_list: bool,
    /// The bucket that the watch hears is gone: no message comes until the next listing.
    pub(super) is_deaf: bool,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) bucket: Bucket,
    pub(super) queues: BTreeMap<u64, Queue>,
    started: Instant,
    /// The store's time then.
    dawn: StoreTime,
    tells_expiry: bool,
    rng: Rng,
    pub(super) clients: BTreeMap<String, Client>,
    /// Writes that are applied later, by time and then by order.
    late: BTreeMap<(Instant, u64), Write>,
    next_number: u64,
}

impl Server {
    pub(super) fn new(seed: u64, tells_expiry: bool, (now, dawn): (Instant, StoreTime)) -> Self {
        let incarnation = Incarnation::new(dawn);
        Self {
            bucket: Bucket::new(incarnation, Revision::new(0), tells_expiry),
            queues: BTreeMap::new(),
            started: now,
            dawn,
            tells_expiry,
            rng: Rng::with_seed(seed),
            clients: BTreeMap::new(),
            late: BTreeMap::new(),
            next_number: 0,
        }
    }

    pub(super) fn client(&mut self, name: &str) -> &mut Client {
        self.clients.entry(name.to_owned()).or_default()
    }

    pub(super) fn reach(&self, client: &str) -> Reach {
        self.clients.get(client).map(|client| client.reach).unwrap_or_default()
    }

    pub(super) fn write_fate(&mut self, client: &str) -> Fate {
        self.clients.entry(client.to_owned()).or_default().write_fate(&mut self.rng)
    }

    pub(super) fn read_fate(&mut self, client: &str) -> Fate {
        self.clients.entry(client.to_owned()).or_default().read_fate(&mut self.rng)
    }

    /// Applies a write that arrives at `moment`, and tells watches.
    pub(super) fn apply(&mut self, write: Write, moment: Instant) -> Result<Revision, Option<Revision>> {
        let created = self.clock(moment);
        let message = self.bucket.apply(write, moment, created)?;
        let revision = message.revision();
        self.tell(&message, moment);
        Ok(revision)
    }

    pub(super) fn write_later(&mut self, by: Duration, write: Write) {
        let number = self.number();
        self.late.insert((Instant::now() + by, number), write);
    }

    /// Lets all happen that is due by `now`, in its order. Returns whether there was any.
    pub(super) fn settle(&mut self, now: Instant) -> bool {
        let mut is_changed = false;
        while let Some(moment) = self.next_change().filter(|moment| *moment <= now) {
            is_changed = true;
            for message in self.bucket.expire(moment) {
                self.tell(&message, moment);
            }
            let is_due = self.late.first_key_value().is_some_and(|((at, _), _)| *at == moment);
            if let Some((_, write)) = is_due.then(|| self.late.pop_first()).flatten() {
                let _ = self.apply(write, moment);
            }
        }
        is_changed
    }

    /// When the bucket next changes by itself.
    pub(super) fn next_change(&self) -> Option<Instant> {
        let late = self.late.first_key_value().map(|((moment, _), _)| *moment);
        late.into_iter().chain(self.bucket.next_expiry()).min()
    }

    /// Begins a queue for a watch, which lists first.
    pub(super) fn open_queue(&mut self, client: &str, prefix: Prefix) -> u64 {
        let number = self.number();
        let client = client.to_owned();
        let queue = Queue { client, prefix, messages: VecDeque::new(), must_list: true, is_deaf: false };
        self.queues.insert(number, queue);
        number
    }

    /// Lets the watches of a client list anew.
    pub(super) fn relist(&mut self, client: &str) {
        for queue in self.queues.values_mut().filter(|queue| queue.client == client) {
            queue.must_list = true;
        }
    }

    pub(super) fn recreate(&mut self) {
        let now = self.clock(Instant::now()).as_nanos();
        let before = self.bucket.incarnation.created().as_nanos();
        let incarnation = Incarnation::new(StoreTime::from_nanos(now.max(before + 1)));
        let last = Revision::new(self.rng.u64(1 << 20..1 << REVISION_BITS));
        self.replace(Bucket::new(incarnation, last, self.tells_expiry));
    }

    /// Puts another bucket in the place. Watchers hear of none of it.
    pub(super) fn replace(&mut self, bucket: Bucket) {
        self.bucket = bucket;
        for queue in self.queues.values_mut() {
            queue.messages.clear();
            queue.is_deaf = true;
        }
    }

    pub(super) fn dump(&self) -> String {
        self.bucket.dump()
    }

    fn tell(&mut self, message: &Message, moment: Instant) {
        for queue in self.queues.values_mut().filter(|queue| queue.prefix.holds(message.key())) {
            let client = self.clients.entry(queue.client.clone()).or_default();
            if client.loses_message(&mut self.rng) || queue.is_deaf {
                continue;
            }
            let arrival = moment + client.delay(&mut self.rng);
            let last = queue.messages.back().map(|(arrival, _)| *arrival);
            queue.messages.push_back((last.map_or(arrival, |last| last.max(arrival)), message.clone()));
            if queue.messages.len() > QUEUE {
                queue.messages.clear();
                queue.must_list = true;
            }
        }
    }

    /// The store's clock.
    fn clock(&self, moment: Instant) -> StoreTime {
        let passed = moment.saturating_duration_since(self.started).as_nanos();
        StoreTime::from_nanos(self.dawn.as_nanos().saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)))
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}
