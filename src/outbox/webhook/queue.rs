//! What waits for one endpoint: a copy in memory of the store's rows, in which tenants take turns.
//!
//! Pure: the time comes with the input. Bodies stay in the store, so that a long queue is small.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::outbox::record::{Millis, TenantName, WorkId};

/// A delivery's key in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    /// Whose.
    pub(super) tenant: TenantName,
    /// Which.
    pub(super) work: WorkId,
}

/// What waits for one endpoint, and what is under way to it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    tenants: BTreeMap<TenantName, Waiting>,
    /// Due times of those under way.
    under_way: HashMap<Key, Millis>,
    /// The tenant whose turn was last.
    last: Option<TenantName>,
    /// How many wait.
    count: usize,
}

/// What waits of one tenant.
#[derive(Debug, Default)]
struct Waiting {
    by_due: BTreeSet<(Millis, WorkId)>,
    due: HashMap<WorkId, Millis>,
    under_way: usize,
}

impl Queue {
    /// Adds a delivery, or moves it to another time. One that is under way stays so: its end
    /// decides.
    pub(super) fn add(&mut self, key: Key, due: Millis) {
        if self.under_way.contains_key(&key) {
            return;
        }
        let waiting = self.tenants.entry(key.tenant).or_default();
        if let Some(old) = waiting.due.insert(key.work.clone(), due) {
            waiting.by_due.remove(&(old, key.work.clone()));
        } else {
            self.count += 1;
        }
        waiting.by_due.insert((due, key.work));
    }

    /// Takes a delivery that is due at `now`: of the tenants that have one, the turn is that of the
    /// one with the fewest under way, and among equals of the next in the order of names.
    pub(super) fn take(&mut self, now: Millis) -> Option<Key> {
        let is_due = |waiting: &Waiting| waiting.by_due.first().is_some_and(|(due, _)| *due <= now);
        let behind = |name: &TenantName| self.last.as_ref().is_some_and(|last| name <= last);
        let due = self.tenants.iter().filter(|(_, waiting)| is_due(waiting));
        let tenant = due.min_by_key(|(name, waiting)| (waiting.under_way, behind(name), *name))?.0.clone();
        let waiting = self.tenants.get_mut(&tenant)?;
        let (due, work) = waiting.by_due.pop_first()?;
        waiting.due.remove(&work);
        self.count -= 1;
        waiting.under_way += 1;
        let key = Key { tenant, work };
        self.under_way.insert(key.clone(), due);
        self.last = Some(key.tenant.clone());
        Some(key)
    }

    /// A delivery is under way no more: it waits for `again`, or is gone.
    pub(super) fn ended(&mut self, key: &Key, again: Option<Millis>) {
        if self.under_way.remove(key).is_none() {
            return;
        }
        if let Some(waiting) = self.tenants.get_mut(&key.tenant) {
            waiting.under_way -= 1;
            if waiting.under_way == 0 && waiting.due.is_empty() {
                self.tenants.remove(&key.tenant);
            }
        }
        if let Some(due) = again {
            self.add(key.clone(), due);
        }
    }

    /// All that is under way waits again, at its old time: the attempts were given up.
    pub(super) fn give_back(&mut self) {
        let under_way: Vec<_> = self.under_way.iter().map(|(key, due)| (key.clone(), *due)).collect();
        under_way.into_iter().for_each(|(key, due)| self.ended(&key, Some(due)));
    }

    /// Some of the deliveries that wait, whenever they are due: at most `limit`.
    pub(super) fn some(&self, limit: usize) -> Vec<Key> {
        let all = self.tenants.iter().flat_map(|(tenant, waiting)| {
            waiting.by_due.iter().map(|(_, work)| Key { tenant: tenant.clone(), work: work.clone() })
        });
        all.take(limit).collect()
    }

    /// A delivery waits no more.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some(waiting) = self.tenants.get_mut(&key.tenant) else { return };
        if let Some(due) = waiting.due.remove(&key.work) {
            waiting.by_due.remove(&(due, key.work.clone()));
            self.count -= 1;
        }
        if waiting.under_way == 0 && waiting.due.is_empty() {
            self.tenants.remove(&key.tenant);
        }
    }

    /// When the first of those that wait is due.
    pub(super) fn next_due(&self) -> Option<Millis> {
        self.tenants.values().filter_map(|waiting| Some(waiting.by_due.first()?.0)).min()
    }

    /// Deliveries that wait, without those under way.
    pub(super) fn waiting(&self) -> usize {
        self.count
    }

    /// Deliveries of a tenant's that wait.
    pub(super) fn waiting_of(&self, tenant: &TenantName) -> usize {
        self.tenants.get(tenant).map_or(0, |waiting| waiting.due.len())
    }

    /// Deliveries under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(tenant: &str, work: &str) -> Key {
        Key { tenant: tenant.parse().unwrap(), work: work.into() }
    }

    fn taken(queue: &mut Queue, now: u64) -> Option<String> {
        queue.take(Millis(now)).map(|key| format!("{}/{}", key.tenant, key.work))
    }

    #[test]
    fn tenants_take_turns_whatever_the_length_of_their_queues() {
        let mut queue = Queue::default();
        (0..100).for_each(|n| queue.add(key("a", &format!("{n:03}")), Millis(n)));
        queue.add(key("b", "x"), Millis(500));
        queue.add(key("c", "y"), Millis(500));
        let turns: Vec<_> = (0..5).filter_map(|_| taken(&mut queue, 1000)).collect();
        assert_eq!(turns, ["a/000", "b/x", "c/y", "a/001", "a/002"]);
    }

    #[test]
    fn a_tenant_with_less_under_way_comes_first() {
        let mut queue = Queue::default();
        (0..4).for_each(|n| queue.add(key("a", &n.to_string()), Millis(0)));
        assert_eq!(taken(&mut queue, 0).as_deref(), Some("a/0"));
        assert_eq!(taken(&mut queue, 0).as_deref(), Some("a/1"));
        (0..3).for_each(|n| queue.add(key("b", &n.to_string()), Millis(9)));
        let turns: Vec<_> = (0..4).filter_map(|_| taken(&mut queue, 9)).collect();
        assert_eq!(turns, ["b/0", "b/1", "a/2", "b/2"]);
    }

    #[test]
    fn a_delivery_is_not_taken_before_its_time() {
        let mut queue = Queue::default();
        queue.add(key("a", "late"), Millis(10));
        assert_eq!((taken(&mut queue, 9), queue.next_due()), (None, Some(Millis(10))));
        queue.add(key("a", "late"), Millis(5));
        assert_eq!((queue.waiting(), queue.next_due()), (1, Some(Millis(5))));
        assert_eq!(taken(&mut queue, 5).as_deref(), Some("a/late"));
        assert_eq!((queue.waiting(), queue.under_way(), queue.next_due()), (0, 1, None));
    }

    #[test]
    fn one_that_is_under_way_is_not_taken_twice() {
        let mut queue = Queue::default();
        queue.add(key("a", "1"), Millis(0));
        assert!(taken(&mut queue, 0).is_some());
        queue.add(key("a", "1"), Millis(0));
        assert_eq!(taken(&mut queue, 0), None);
        queue.ended(&key("a", "1"), Some(Millis(7)));
        assert_eq!(queue.next_due(), Some(Millis(7)));
        assert!(taken(&mut queue, 7).is_some());
        queue.give_back();
        assert_eq!((queue.under_way(), queue.next_due()), (0, Some(Millis(7))));
        queue.remove(&key("a", "1"));
        assert!(queue.tenants.is_empty() && queue.under_way.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is added is taken once, in time, and nothing is left behind.
        #[test]
        fn everything_is_taken_once(
            adds in prop::collection::vec((0_u8..4, 0_u8..20, 0_u64..50), 0..80),
            ends in prop::collection::vec(any::<bool>(), 80),
        ) {
            let mut queue = Queue::default();
            let mut expected = BTreeMap::new();
            for (tenant, work, due) in adds {
                let key = key(&format!("t{tenant}"), &work.to_string());
                queue.add(key.clone(), Millis(due));
                expected.insert(key, Millis(due));
            }
            let mut ends = ends.into_iter();
            for now in 0..60 {
                while let Some(key) = queue.take(Millis(now)) {
                    prop_assert!(expected.remove(&key).is_some_and(|due| due <= Millis(now)));
                    if ends.next().unwrap_or(true) {
                        queue.ended(&key, None);
                    } else {
                        queue.ended(&key, Some(Millis(now + 5)));
                        expected.insert(key, Millis(now + 5));
                    }
                }
            }
            let left: Vec<_> = expected.keys().cloned().collect();
            let mut some = queue.some(usize::MAX);
            some.sort();
            prop_assert_eq!(some, left);
        }
    }
}
