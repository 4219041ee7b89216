//! Entries in the order of a height or a time.

use std::collections::BTreeSet;

use super::entry::Key;

/// Entries in the order of `T`.
#[derive(Debug)]
pub(super) struct Index<T>(BTreeSet<(T, Key)>);

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<T: Copy + Ord> Index<T> {
    pub(super) fn insert(&mut self, at: T, key: Key) {
        self.0.insert((at, key));
    }

    pub(super) fn remove(&mut self, at: T, key: &Key) {
        self.0.remove(&(at, key.clone()));
    }

    /// The entries up to `end`, that included, in order.
    pub(super) fn until(&self, end: T) -> impl Iterator<Item = &Key> {
        self.0.iter().take_while(move |(at, _)| *at <= end).map(|(_, key)| key)
    }

    /// The entries at `at`.
    pub(super) fn at(&self, at: T) -> impl Iterator<Item = &Key> {
        self.0.range((at, Key::first())..).take_while(move |(other, _)| *other == at).map(|(_, key)| key)
    }

    pub(super) fn first(&self) -> Option<T> {
        self.0.first().map(|(at, _)| *at)
    }
}
