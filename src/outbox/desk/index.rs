//! Entries in the order of a height or a time.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::Key;

/// Entries in the order of `T`.
#[derive(Debug)]
pub(super) struct Index<T>(BTreeMap<T, BTreeSet<Key>>);

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Copy + Ord> Index<T> {
    pub(super) fn insert(&mut self, at: T, key: Key) {
        self.0.entry(at).or_default().insert(key);
    }

    pub(super) fn remove(&mut self, at: T, key: &Key) {
        if let Some(keys) = self.0.get_mut(&at) {
            keys.remove(key);
            if keys.is_empty() {
                self.0.remove(&at);
            }
        }
    }

    /// The entries up to `end`, that included, in order.
    pub(super) fn until(&self, end: T) -> impl Iterator<Item = &Key> {
        self.0.range(..=end).flat_map(|(_, keys)| keys)
    }

    /// The entries at `at`.
    pub(super) fn at(&self, at: T) -> impl Iterator<Item = &Key> {
        self.0.get(&at).into_iter().flatten()
    }

    pub(super) fn first(&self) -> Option<T> {
        self.0.keys().next().copied()
    }
}
