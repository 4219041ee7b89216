//! The entries of a desk, and the orders in which they are looked for. Every change of an entry
//! goes through [`Book::change`], so that no index is left behind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use alloy_primitives::{Address, B256};

use super::{
    entry::{Entry, Key, Look},
    index::Index,
    input::Waiter,
    tally::Tally,
    untaken::Untaken,
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
    /// Those mined, by the height of the block.
    pub(super) mined: Index<u64>,
    /// Those confirmed or replaced, by the height of the block.
    pub(super) deep: Index<u64>,
    /// Those that the nodes are asked for next, by the height at which they are.
    pub(super) rounds: Index<u64>,
    /// Those that no block has, by their deadline.
    pub(super) deadlines: Index<Millis>,
    /// Those that are sent again to nodes that lack them, by the time of that.
    pub(super) retries: Index<Millis>,
    /// Clients that wait for a node's word.
    holds: BTreeSet<(Millis, Waiter, Key)>,
    in_flight: BTreeMap<TenantName, usize>,
    /// Those that became ready to be sent, in that order. One that is not ready any more is passed
    /// over.
    ready: BTreeMap<TenantName, VecDeque<Key>>,
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
            self.tally.add(&entry.record);
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
        let mut entry = self.pull(key)?;
        let before = (entry.record.state.is_over(), entry.record.bytes);
        let changed = change(&mut entry);
        if before != (entry.record.state.is_over(), entry.record.bytes) {
            let (was_over, length) = before;
            self.tally.remove(&key.tenant, length, was_over);
            self.tally.add(&entry.record);
        }
        let slot = (entry.record.sender, entry.record.nonce);
        self.put(entry);
        self.settle(slot);
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

    /// The next of a tenant's that is ready, while fewer than `most` are on their way.
    pub(super) fn next_ready(&mut self, tenant: &TenantName, most: usize) -> Option<Key> {
        if self.in_flight.get(tenant).copied().unwrap_or(0) >= most {
            return None;
        }
        loop {
            let Some(key) = self.ready.get_mut(tenant)?.pop_front() else {
                self.ready.remove(tenant);
                return None;
            };
            let Some(entry) = self.get_mut(&key) else { continue };
            entry.flight.is_queued = false;
            let goes = |entry: &Entry| entry.is_ready() && (!self.is_blocked(entry) || self.is_copy(entry));
            if self.get(&key).is_some_and(goes) {
                return Some(key);
            }
        }
    }

    /// Transactions on their way to nodes.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.values().sum()
    }

    /// Whether an earlier nonce of the sender goes first.
    fn is_blocked(&self, entry: &Entry) -> bool {
        let (sender, nonce) = (entry.record.sender, entry.record.nonce);
        self.waiting.range((sender, 0)..(sender, nonce)).next().is_some()
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
        let (mut is_on_its_way, mut is_pending, mut is_through) = (false, false, false);
        let mut copies = Vec::new();
        for (key, entry) in self.of_slot(slot).iter().filter_map(|key| Some((key, self.get(key)?))) {
            if self.is_copy(entry) {
                copies.push(key.clone());
            } else {
                is_on_its_way |= entry.is_on_its_way();
            }
            is_pending |= entry.record.state.is_pending();
            is_through |= entry.is_through();
        }
        if is_on_its_way || (is_pending && !is_through) {
            self.waiting.insert(slot);
        } else {
            self.waiting.remove(&slot);
        }
        let (sender, _) = slot;
        let first = self.waiting.range((sender, 0)..=(sender, u64::MAX)).next();
        let first = first.map_or(&[][..], |first| self.of_slot(*first)).to_vec();
        for key in first.into_iter().chain(copies) {
            let is_new = self.get(&key).is_some_and(|entry| entry.is_ready() && !entry.flight.is_queued);
            if is_new && let Some(entry) = self.get_mut(&key) {
                entry.flight.is_queued = true;
                self.ready.entry(key.tenant.clone()).or_default().push_back(key);
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
        self.index(&entry, false);
        Some(entry)
    }

    fn put(&mut self, entry: Entry) {
        self.index(&entry, true);
        push_alone(self.entries.entry(entry.record.id.hash).or_default(), entry);
    }

    /// Adds the entry to all indices but that of the slots, or takes it out.
    fn index(&mut self, entry: &Entry, is_added: bool) {
        let (record, flight, key) = (&entry.record, &entry.flight, entry.key());
        fn set<T: Copy + Ord>(index: &mut Index<T>, at: T, key: &Key, is_added: bool) {
            if is_added { index.insert(at, key.clone()) } else { index.remove(at, key) }
        }
        self.untaken.count(record, is_added);
        match &record.state {
            State::Mined { block } => set(&mut self.mined, block.number, &key, is_added),
            State::Confirmed { block } | State::Replaced { block, is_final: false, .. } => {
                set(&mut self.deep, block.number, &key, is_added);
            }
            _ => {}
        }
        if record.state.is_pending() {
            set(&mut self.deadlines, record.deadline, &key, is_added);
            let is_quiet = flight.under_way.is_none() && flight.want.is_none() && flight.look == Look::No;
            // A refused one is sent again, and a node that has the transaction says so then.
            if is_quiet && !entry.is_unwanted() {
                set(&mut self.rounds, flight.round, &key, is_added);
            }
        }
        if let Some(at) = flight.retry {
            set(&mut self.retries, at, &key, is_added);
        }
        for (waiter, until) in &entry.waiters {
            let hold = (*until, *waiter, key.clone());
            if is_added {
                self.holds.insert(hold)
            } else {
                self.holds.remove(&hold)
            };
        }
        // The first word ends the place: a node that hangs holds up no other transaction.
        if flight.under_way.as_ref().is_some_and(|under_way| !under_way.is_heard()) {
            let count = self.in_flight.entry(key.tenant.clone()).or_default();
            *count = if is_added { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.in_flight.remove(&key.tenant);
            }
        }
    }
}

/// Adds one to a list that hardly ever has more. A list that grows by itself takes room for four.
fn push_alone<T>(list: &mut Vec<T>, one: T) {
    list.reserve_exact(1);
    list.push(one);
}
