//! Entries in the order of a height or a time.

use std::collections::BTreeSet;

use super::entry::Key;

/// Entries in the order of `T`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Index<T>(BTreeSet<(T, Key)>);

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<T: Copy + Ord> Index<T> {
    /// Moves an entry from one place to another; `None` is no place.
    pub(super) fn replace(&mut self, before: Option<T>, after: Option<T>, key: &Key) {
        if before != after {
            before.into_iter().for_each(|at| _ = self.0.remove(&(at, key.clone())));
            after.into_iter().for_each(|at| _ = self.0.insert((at, key.clone())));
        }
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
