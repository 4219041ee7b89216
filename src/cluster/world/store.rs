//! A store in memory: the keys of one bucket, and the order of all writes.

use std::collections::BTreeMap;

use crate::{
    cluster::lease::WriteError,
    domain::fleet::{Key, StoreRevision},
};

/// A write that the store has taken.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) revision: StoreRevision,
    pub(super) key: Key,
    pub(super) value: Vec<u8>,
}

pub(super) struct Store {
    pub(super) incarnation: u64,
    /// All writes, oldest first.
    pub(super) log: Vec<Entry>,
    /// The place of each key's newest write.
    newest: BTreeMap<String, usize>,
}

impl Store {
    pub(super) fn new(incarnation: u64) -> Self {
        Self { incarnation, log: Vec::new(), newest: BTreeMap::new() }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.newest.get(&key.to_string()).map(|place| &self.log[*place])
    }

    pub(super) fn write(
        &mut self,
        key: &Key,
        expected: Option<StoreRevision>,
        value: Vec<u8>,
    ) -> Result<StoreRevision, WriteError> {
        if self.get(key).map(|entry| entry.revision) != expected {
            return Err(WriteError::Conflict);
        }
        let revision = StoreRevision(self.log.len() as u64 + 1);
        self.newest.insert(key.to_string(), self.log.len());
        self.log.push(Entry { revision, key: key.clone(), value });
        Ok(revision)
    }

    /// The newest entry of each key, in the order of revisions.
    pub(super) fn list(&self) -> Vec<Entry> {
        let mut places: Vec<_> = self.newest.values().copied().collect();
        places.sort_unstable();
        places.into_iter().map(|place| self.log[place].clone()).collect()
    }
}
