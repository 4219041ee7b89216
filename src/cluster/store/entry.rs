//! Entries, and the numbers that the store gives to them.

use std::{fmt, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Key;

/// The number that the store gave to a write: within one incarnation of the bucket each write has
/// a greater one. Serves as epoch and fencing token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(u64);

impl Revision {
    /// The revision with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A moment by the store's clock, in nanoseconds since 1970. Compares with others of the store
/// and with no other clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoreTime(u64);

impl StoreTime {
    /// The moment this many nanoseconds after 1970.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since 1970.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since `earlier`, or zero if that was later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A bucket's identity: the moment at which the store made the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(StoreTime);

impl Incarnation {
    /// The identity of a bucket that was made at `created`.
    pub const fn new(created: StoreTime) -> Self {
        Self(created)
    }

    /// The moment at which the store made the bucket.
    pub const fn created(self) -> StoreTime {
        self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.0.fmt(f)
    }
}

/// A time to live: whole seconds, one at least, for servers count no finer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u64);

impl Ttl {
    /// The shortest time to live that is no shorter than `span`.
    pub const fn at_least(span: Duration) -> Self {
        let seconds = span.as_secs().saturating_add((span.subsec_nanos() > 0) as u64);
        Self(if seconds == 0 { 1 } else { seconds })
    }

    /// Whole seconds.
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// The span.
    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

/// A value under its key, as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The place.
    pub key: Key,
    /// The value as written.
    pub value: Bytes,
    /// The number of the write.
    pub revision: Revision,
    /// The moment of the write, by the store's clock.
    pub created: StoreTime,
}

/// An entry that is not read, for its key is not one of Steadfast's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The key as the store has it.
    pub key: String,
    /// The number of the write.
    pub revision: Revision,
    /// The fault.
    pub why: String,
}

/// All entries under a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The bucket that was listed.
    pub incarnation: Incarnation,
    /// The last revision of the bucket when the listing began. Each write up to here is listed.
    pub upto: Revision,
    /// The entries, in the order of their keys.
    pub entries: Vec<Entry>,
    /// Entries that are not read.
    pub malformed: Vec<Malformed>,
}
