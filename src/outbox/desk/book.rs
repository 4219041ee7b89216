//! The entries of a desk, and the orders in which they are looked for. Every change of an entry
//! goes through [`Book::change`], so that no index is left behind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use alloy_primitives::{Address, B256};

use super::{
    entry::{Entry, Key, Lane, Look},
    index::Index,
    input::Waiter,
    tally::Tally,
    untaken::{Lack, Untaken},
};
use crate::outbox::record::{Millis, State, TenantName};

/// A sender and a nonce: one transaction of these is mined at most.
pub(super) type Slot = (Address, u64);

/// The entries and their indices.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// By hash; of one hash, each is another tenant's.
    entries: BTreeMap<B256, Vec<Entry>>,
    /// What is held, on the desk and in the store.
    pub(super) tally: Tally,
    pub(super) untaken: Untaken,
    slots: BTreeMap<Slot, Vec<Key>>,
    /// The slots that later nonces of their sender wait for.
    waiting: BTreeSet<Slot>,
    /// The slots that go again to nodes that lack them. Later ones of the sender that go again wait
    /// for them too.
    repeating: BTreeSet<Slot>,
    /// Those mined, by the height of the block.
    pub(super) mined: Index<u64>,
    /// Those confirmed or replaced, by the height of the block.
    pub(super) deep: Index<u64>,
    /// Those that the nodes are asked for next, by the height at which they are.
    pub(super) rounds: Index<u64>,
    /// Those that no block has, by their deadline, or by the end of the wait behind that.
    pub(super) deadlines: Index<Millis>,
    /// Those that are sent again to nodes that lack them, by the time of that.
    pub(super) retries: Index<Millis>,
    /// Clients that wait for a node's word.
    holds: BTreeSet<(Millis, Waiter, Key)>,
    /// Sendings without a word yet, of each lane.
    in_flight: BTreeMap<TenantName, [usize; 2]>,
    /// Those that became ready to be sent, of each lane in that order. An entry that is not ready
    /// any more is passed over.
    ready: BTreeMap<TenantName, [VecDeque<Key>; 2]>,
}

impl Book {
    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(&key.hash)?.iter().find(|entry| entry.record.id.tenant == key.tenant)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().flatten()
    }

    /// Adds an entry. With `is_counted` the tally has its record already.
    pub(super) fn add(&mut self, entry: Entry, is_counted: bool) {
        if !is_counted {
            let record = &entry.record;
            self.tally.add(&record.id.tenant, record.bytes, record.state.is_over());
        }
        let slot = (entry.record.sender, entry.record.nonce);
        push_alone(self.slots.entry(slot).or_default(), entry.key());
        self.put(entry);
        self.settle(slot);
    }

    /// Takes an entry away. The tally keeps its record: the store has that still.
    pub(super) fn take(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.pull(key)?;
        let slot = (entry.record.sender, entry.record.nonce);
        if let Some(keys) = self.slots.get_mut(&slot) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.slots.remove(&slot);
            }
        }
        self.settle(slot);
        Some(entry)
    }

    /// Changes an entry and the indices with it. `None` where there is no such entry.
    pub(super) fn change<T>(&mut self, key: &Key, change: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let entry = self.get_mut(key)?;
        let (was_over, length, waiters) = (entry.record.state.is_over(), entry.record.bytes, entry.waiters.clone());
        let (places, standing) = (Places::of(entry), Standing::of(entry));
        let changed = change(entry);
        let (is_over, slot) = (entry.record.state.is_over(), (entry.record.sender, entry.record.nonce));
        let (new_length, new_waiters) = (entry.record.bytes, entry.waiters.clone());
        let (new_places, is_moved) = (Places::of(entry), Standing::of(entry) != standing);
        if (was_over, length) != (is_over, new_length) {
            self.tally.remove(&key.tenant, length, was_over);
            self.tally.add(&key.tenant, new_length, is_over);
        }
        self.hold(key, &waiters, &new_waiters);
        self.place(key, slot.0, &places, &new_places);
        if is_moved {
            self.settle(slot);
        }
        Some(changed)
    }

    /// The entries of a transaction, each another tenant's.
    pub(super) fn of_hash(&self, hash: &B256) -> Vec<Key> {
        self.entries.get(hash).into_iter().flatten().map(Entry::key).collect()
    }

    /// The entries of a sender and nonce.
    pub(super) fn of_slot(&self, slot: Slot) -> &[Key] {
        self.slots.get(&slot).map_or(&[], Vec::as_slice)
    }

    /// The entries whose block has this height.
    pub(super) fn of_height(&self, height: u64) -> Vec<Key> {
        self.mined.at(height).chain(self.deep.at(height)).cloned().collect()
    }

    /// The waiters who have waited long enough.
    pub(super) fn held_until(&self, now: Millis) -> Vec<(Waiter, Key)> {
        let found = self.holds.iter().take_while(|(at, ..)| *at <= now);
        found.map(|(_, waiter, key)| (*waiter, key.clone())).collect()
    }

    /// When time alone changes something next.
    pub(super) fn next_due(&self) -> Option<Millis> {
        let hold = self.holds.first().map(|(at, ..)| *at);
        [self.deadlines.first(), self.retries.first(), hold].into_iter().flatten().min()
    }

    /// The tenants of whom something may be ready.
    pub(super) fn ready_tenants(&self) -> Vec<TenantName> {
        self.ready.keys().cloned().collect()
    }

    /// The next of a tenant's that is ready, while fewer than `most` of its lane are on their way.
    pub(super) fn next_ready(&mut self, tenant: &TenantName, most: usize) -> Option<Key> {
        Lane::ALL.into_iter().find_map(|lane| self.next_of_lane(tenant, lane, most))
    }

    fn next_of_lane(&mut self, tenant: &TenantName, lane: Lane, most: usize) -> Option<Key> {
        if self.in_flight.get(tenant).is_some_and(|in_flight| in_flight[lane as usize] >= most) {
            return None;
        }
        loop {
            let lanes = self.ready.get_mut(tenant)?;
            let Some(key) = lanes[lane as usize].pop_front() else {
                if lanes.iter().all(VecDeque::is_empty) {
                    self.ready.remove(tenant);
                }
                return None;
            };
            // An entry that came into the other lane since has a place there.
            let Some(entry) = self.get_mut(&key).filter(|entry| entry.flight.queued == Some(lane)) else { continue };
            entry.flight.queued = None;
            let goes = |entry: &Entry| entry.is_ready() && (!self.is_blocked(entry) || self.is_copy(entry));
            if self.get(&key).is_some_and(goes) {
                return Some(key);
            }
        }
    }

    /// Transactions on their way to nodes.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.values().flatten().sum()
    }

    /// Whether an earlier nonce of the sender goes first.
    fn is_blocked(&self, entry: &Entry) -> bool {
        let (sender, nonce) = (entry.record.sender, entry.record.nonce);
        let has_earlier = |slots: &BTreeSet<Slot>| slots.range((sender, 0)..(sender, nonce)).next().is_some();
        has_earlier(&self.waiting) || (entry.lane() == Lane::Again && has_earlier(&self.repeating))
    }

    /// Whether a node has this very transaction from another tenant, or a block has used its nonce.
    fn is_copy(&self, entry: &Entry) -> bool {
        let record = &entry.record;
        let is_other = |other: &Entry| other.record.id.tenant != record.id.tenant && other.is_through();
        self.entries.get(&record.id.hash).is_some_and(|entries| entries.iter().any(is_other))
    }

    /// Decides whether later nonces wait for this slot, and readies what goes first now. A tenant's
    /// copy of what a node has from another tenant holds up no other transaction, and waits for
    /// none.
    fn settle(&mut self, slot: Slot) {
        let (mut on_their_way, mut is_pending, mut is_through) = ([false; 2], false, false);
        let mut next = Vec::new();
        for (key, entry) in self.of_slot(slot).iter().filter_map(|key| Some((key, self.get(key)?))) {
            if self.is_copy(entry) {
                next.push(key.clone());
            } else {
                on_their_way[entry.lane() as usize] |= entry.is_on_its_way();
            }
            is_pending |= entry.record.state.is_pending();
            is_through |= entry.is_through();
        }
        let [is_first_on_its_way, is_repeating] = on_their_way;
        set(&mut self.waiting, slot, is_first_on_its_way || (is_pending && !is_through));
        set(&mut self.repeating, slot, is_repeating);
        let (sender, _) = slot;
        for slots in [&self.waiting, &self.repeating] {
            let first = slots.range((sender, 0)..=(sender, u64::MAX)).next();
            next.extend_from_slice(first.map_or(&[], |first| self.of_slot(*first)));
        }
        for key in next {
            let Some(entry) = self.get_mut(&key).filter(|entry| entry.is_ready()) else { continue };
            let lane = entry.lane();
            if entry.flight.queued.replace(lane) != Some(lane) {
                self.ready.entry(key.tenant.clone()).or_default()[lane as usize].push_back(key);
            }
        }
    }

    fn get_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.entries.get_mut(&key.hash)?.iter_mut().find(|entry| entry.record.id.tenant == key.tenant)
    }

    /// Takes an entry out of the map and all indices but that of the slots.
    fn pull(&mut self, key: &Key) -> Option<Entry> {
        let entries = self.entries.get_mut(&key.hash)?;
        let at = entries.iter().position(|entry| entry.record.id.tenant == key.tenant)?;
        let entry = entries.swap_remove(at);
        if entries.is_empty() {
            self.entries.remove(&key.hash);
        }
        self.hold(key, &entry.waiters, &[]);
        self.place(key, entry.record.sender, &Places::of(&entry), &Places::default());
        Some(entry)
    }

    fn put(&mut self, entry: Entry) {
        let key = entry.key();
        self.hold(&key, &[], &entry.waiters);
        self.place(&key, entry.record.sender, &Places::default(), &Places::of(&entry));
        push_alone(self.entries.entry(key.hash).or_default(), entry);
    }

    /// Has these wait for a transaction in the place of those before.
    fn hold(&mut self, key: &Key, before: &[(Waiter, Millis)], after: &[(Waiter, Millis)]) {
        if before != after {
            before.iter().for_each(|(waiter, until)| _ = self.holds.remove(&(*until, *waiter, key.clone())));
            self.holds.extend(after.iter().map(|(waiter, until)| (*until, *waiter, key.clone())));
        }
    }

    /// Moves an entry of a sender's from these places in the indices to others.
    fn place(&mut self, key: &Key, sender: Address, before: &Places, after: &Places) {
        if before == after {
            return;
        }
        self.mined.replace(before.mined, after.mined, key);
        self.deep.replace(before.deep, after.deep, key);
        self.deadlines.replace(before.deadline, after.deadline, key);
        self.rounds.replace(before.round, after.round, key);
        self.retries.replace(before.retry, after.retry, key);
        if before.untaken != after.untaken {
            let of = (sender, &key.tenant);
            before.untaken.into_iter().for_each(|why| self.untaken.count(of, why, false));
            after.untaken.into_iter().for_each(|why| self.untaken.count(of, why, true));
        }
        if before.in_flight != after.in_flight {
            let counts = self.in_flight.entry(key.tenant.clone()).or_default();
            before
                .in_flight
                .into_iter()
                .for_each(|lane| counts[lane as usize] = counts[lane as usize].saturating_sub(1));
            after.in_flight.into_iter().for_each(|lane| counts[lane as usize] += 1);
            if *counts == [0; 2] {
                self.in_flight.remove(&key.tenant);
            }
        }
    }
}

#[cfg(test)]
impl Book {
    /// Fails unless the indices are those that the entries have when they come anew.
    pub(super) fn check_indices(&self) {
        let mut anew = Self::default();
        self.iter().for_each(|entry| anew.add(entry.clone(), true));
        assert_eq!((&self.mined, &self.deep), (&anew.mined, &anew.deep));
        assert_eq!((&self.rounds, &self.deadlines, &self.retries), (&anew.rounds, &anew.deadlines, &anew.retries));
        assert_eq!((&self.holds, &self.in_flight), (&anew.holds, &anew.in_flight));
        assert_eq!(self.untaken, anew.untaken);
        assert_eq!((&self.waiting, &self.repeating), (&anew.waiting, &anew.repeating));
    }
}

/// The places of an entry in the indices, but for those of its slot and its waiters.
#[derive(Debug, Default, PartialEq, Eq)]
struct Places {
    mined: Option<u64>,
    deep: Option<u64>,
    deadline: Option<Millis>,
    round: Option<u64>,
    retry: Option<Millis>,
    /// Why no node ever took the transaction.
    untaken: Option<Lack>,
    in_flight: Option<Lane>,
}

impl Places {
    fn of(entry: &Entry) -> Self {
        let (record, flight) = (&entry.record, &entry.flight);
        let mut places = Self { retry: flight.retry, ..Self::default() };
        match &record.state {
            State::Mined { block } => places.mined = Some(block.number),
            State::Confirmed { block } | State::Replaced { block, is_final: false, .. } => {
                places.deep = Some(block.number);
            }
            _ => {}
        }
        places.untaken = Lack::of(entry);
        if record.state.is_pending() {
            let deadline = flight.overdue.map_or(record.deadline, |overdue| overdue.next.min(overdue.end));
            places.deadline = Some(deadline);
            // A transaction that some node has is asked for also while it goes to others, which may
            // hang.
            let is_quiet = flight.is_taken || (flight.under_way.is_none() && flight.want.is_none());
            // A refused one is sent again, and a node that has the transaction says so then.
            let is_due = flight.overdue.is_some() || (is_quiet && !entry.is_unwanted());
            places.round = (is_due && flight.look == Look::No).then_some(flight.round);
        }
        // The first word ends the place: a node that hangs holds up no other transaction.
        let under_way = flight.under_way.as_ref().filter(|under_way| !under_way.is_heard());
        places.in_flight = under_way.map(|under_way| under_way.lane);
        places
    }
}

/// How an entry stands to the others of its sender: what [`Book::settle`] looks at.
#[derive(PartialEq, Eq)]
struct Standing {
    lane: Lane,
    queued: Option<Lane>,
    is_pending: bool,
    is_through: bool,
    is_on_its_way: bool,
    is_ready: bool,
}

impl Standing {
    fn of(entry: &Entry) -> Self {
        Self {
            lane: entry.lane(),
            queued: entry.flight.queued,
            is_pending: entry.record.state.is_pending(),
            is_through: entry.is_through(),
            is_on_its_way: entry.is_on_its_way(),
            is_ready: entry.is_ready(),
        }
    }
}

/// Has the slot be among these, or not.
fn set(slots: &mut BTreeSet<Slot>, slot: Slot, is_there: bool) {
    if is_there {
        slots.insert(slot);
    } else {
        slots.remove(&slot);
    }
}

/// Adds one to a list that hardly ever has more. A list that grows by itself takes room for four.
fn push_alone<T>(list: &mut Vec<T>, one: T) {
    list.reserve_exact(1);
    list.push(one);
}
