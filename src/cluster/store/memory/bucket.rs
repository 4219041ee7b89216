//! The bucket of a store in memory: a plain value, one write after another.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::super::{Entry, Incarnation, Key, Listing, Prefix, Revision, StoreTime, Ttl};

/// A write as a client sends it.
#[derive(Clone, Debug)]
pub(super) enum Write {
    Create { key: Key, value: Bytes, ttl: Option<Ttl> },
    Set { key: Key, seen: Revision, value: Bytes, ttl: Option<Ttl> },
    Delete { key: Key, seen: Revision },
}

impl Write {
    /// Bytes of the value.
    pub(super) fn length(&self) -> usize {
        match self {
            Self::Create { value, .. } | Self::Set { value, .. } => value.len(),
            Self::Delete { .. } => 0,
        }
    }
}

/// A change of the bucket, as watchers are told.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Written(Entry),
    Deleted(Key, Revision),
}

impl Message {
    pub(super) const fn key(&self) -> &Key {
        match self {
            Self::Written(entry) => &entry.key,
            Self::Deleted(key, _) => key,
        }
    }

    pub(super) const fn revision(&self) -> Revision {
        match self {
            Self::Written(entry) => entry.revision,
            Self::Deleted(_, revision) => *revision,
        }
    }
}

/// The last message of a key.
#[derive(Clone, Debug)]
enum Row {
    Entry {
        entry: Entry,
        expires: Option<Instant>,
    },
    /// A deletion, which holds the key's last revision as on the real server.
    Deleted(Revision),
}

impl Row {
    const fn revision(&self) -> Revision {
        match self {
            Self::Entry { entry, .. } => entry.revision,
            Self::Deleted(revision) => *revision,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) incarnation: Incarnation,
    last: Revision,
    rows: BTreeMap<Key, Row>,
    /// Whether an expiry is a deletion with a revision, that watchers are told of.
    tells_expiry: bool,
}

impl Bucket {
    /// An empty bucket whose first revision follows `last`.
    pub(super) const fn new(incarnation: Incarnation, last: Revision, tells_expiry: bool) -> Self {
        Self { incarnation, last, rows: BTreeMap::new(), tells_expiry }
    }

    /// Applies `write` if the key's last revision is the one that the write names. The error is the
    /// last revision.
    pub(super) fn apply(
        &mut self,
        write: Write,
        now: Instant,
        created: StoreTime,
    ) -> Result<Message, Option<Revision>> {
        let (key, seen, value) = match write {
            Write::Create { key, value, ttl } => (key, None, Some((value, ttl))),
            Write::Set { key, seen, value, ttl } => (key, Some(seen), Some((value, ttl))),
            Write::Delete { key, seen } => (key, Some(seen), None),
        };
        let found = self.rows.get(&key).map(Row::revision);
        let is_free = !matches!(self.rows.get(&key), Some(Row::Entry { .. }));
        if !(found == seen || seen.is_none() && is_free) {
            return Err(found);
        }
        let revision = self.number();
        let message = match value {
            Some((value, ttl)) => {
                let entry = Entry { key: key.clone(), value, revision, created };
                let expires = ttl.map(|ttl| now + ttl.as_duration());
                self.rows.insert(key, Row::Entry { entry: entry.clone(), expires });
                Message::Written(entry)
            }
            None => {
                self.rows.insert(key.clone(), Row::Deleted(revision));
                Message::Deleted(key, revision)
            }
        };
        Ok(message)
    }

    pub(super) fn read(&self, key: &Key) -> Option<Entry> {
        match self.rows.get(key)? {
            Row::Entry { entry, .. } => Some(entry.clone()),
            Row::Deleted(_) => None,
        }
    }

    pub(super) fn list(&self, prefix: &Prefix) -> Listing {
        let under = self.rows.iter().filter(|(key, _)| prefix.holds(key));
        let entries = under.filter_map(|(key, _)| self.read(key)).collect();
        Listing { incarnation: self.incarnation, upto: self.last, entries, malformed: Vec::new() }
    }

    /// When the next entry expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        let expiry = |row: &Row| match row {
            Row::Entry { expires, .. } => *expires,
            Row::Deleted(_) => None,
        };
        self.rows.values().filter_map(expiry).min()
    }

    /// Removes the entries that expire by `moment`. Returns the messages that tell of them.
    pub(super) fn expire(&mut self, moment: Instant) -> Vec<Message> {
        let is_over = |row: &Row| matches!(row, Row::Entry { expires: Some(at), .. } if *at <= moment);
        let over = self.rows.iter().filter(|(_, row)| is_over(row));
        let over: Vec<Key> = over.map(|(key, _)| key.clone()).collect();
        let mut messages = Vec::new();
        for key in over {
            self.rows.remove(&key);
            if self.tells_expiry {
                let revision = self.number();
                self.rows.insert(key.clone(), Row::Deleted(revision));
                messages.push(Message::Deleted(key, revision));
            }
        }
        messages
    }

    /// Removes every entry, and every deletion.
    pub(super) fn empty(&mut self) {
        self.rows.clear();
    }

    fn number(&mut self) -> Revision {
        self.last = Revision::new(self.last.get() + 1);
        self.last
    }

    pub(super) fn dump(&self) -> String {
        let mut text = format!("bucket {} at revision {}\n", self.incarnation, self.last);
        for (key, row) in &self.rows {
            let line = match row {
                Row::Entry { entry, .. } => format!(
                    "{key} {} {} {:?}\n",
                    entry.revision,
                    Duration::from_nanos(entry.created.as_nanos()).as_secs_f64(),
                    entry.value
                ),
                Row::Deleted(revision) => format!("{key} {revision} deleted\n"),
            };
            text.push_str(&line);
        }
        text
    }
}
