//! Numbers that order events. None comes from a clock.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

numbers! {
    /// The number that the store gave to a write. Each write to a bucket has a higher number than
    /// all writes before.
    StoreRevision;
    /// A bucket's moment of creation by the store's clock, in nanoseconds. Another incarnation is
    /// another bucket, whose revisions begin anew.
    Incarnation;
    /// A life of a replica: the revision of the registration.
    Epoch;
    /// A leader's time in office: the revision of the write that won the lease. The fencing token
    /// of each effect that only a leader may begin.
    Term;
    /// The number of a view: the revision of its key. Each number has one set of members.
    ViewNumber;
}

impl From<StoreRevision> for Epoch {
    fn from(revision: StoreRevision) -> Self {
        Self(revision.0)
    }
}

impl From<StoreRevision> for Term {
    fn from(revision: StoreRevision) -> Self {
        Self(revision.0)
    }
}

impl From<StoreRevision> for ViewNumber {
    fn from(revision: StoreRevision) -> Self {
        Self(revision.0)
    }
}

/// The place of an event among all events of a replica: first by the life, then by the count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision {
    /// The replica's life.
    pub epoch: Epoch,
    /// Counts up within the life.
    pub sequence: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.sequence)
    }
}
