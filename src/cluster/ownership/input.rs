//! The inputs and effects of ownership.

use std::collections::BTreeSet;

use super::super::{lease::WriteError, moment::Moment};
use crate::domain::fleet::{Epoch, MoveReason, Ownership, ReplicaName, ShardKey, StoreRevision, View};

/// An event that changes ownership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// News from the watch.
    Watch(Watched),
    /// A write of a shard ended.
    Wrote {
        /// The shard.
        shard: ShardKey,
        /// The number that [`Effect::Write`] had.
        sequence: u64,
        /// The revision that the store gave, or the failure.
        outcome: Result<StoreRevision, WriteError>,
    },
    /// A read of a shard ended.
    Read {
        /// The shard.
        shard: ShardKey,
        /// The number that [`Effect::Read`] had.
        sequence: u64,
        /// The entry, none where the key is absent, its value none where the value cannot be
        /// read; an error where the store did not answer.
        outcome: Result<Option<(StoreRevision, Option<Ownership>)>, ()>,
    },
    /// There is a new view.
    View(View),
    /// The replica has this life from now on, or none.
    Life(Option<Epoch>),
    /// Until when the replica is a member beyond doubt: `Membership::sure_until`.
    Sure(Option<Moment>),
    /// No effect of a shard that was stopped is under way.
    Drained(ShardKey),
    /// The queues of webhooks are these.
    Queues(BTreeSet<ShardKey>),
    /// The moment of [`Shards::next_due`](super::Shards::next_due) has come.
    Tick,
}

/// News from the watch, in the order of the store's revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// A shard has this owner.
    Shard {
        /// The shard.
        shard: ShardKey,
        /// The entry's revision.
        revision: StoreRevision,
        /// The value; none where the value cannot be read.
        ownership: Option<Ownership>,
    },
    /// A shard's key was deleted.
    Gone {
        /// The shard.
        shard: ShardKey,
        /// The revision of the deletion.
        revision: StoreRevision,
    },
    /// All entries that there were when the watch began have been told.
    Synced,
    /// The watch was lost and begins anew.
    Reset,
    /// The bucket is another.
    Recreated,
}

/// An action outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write a shard's owner.
    Write {
        /// The shard.
        shard: ShardKey,
        /// The write's number.
        sequence: u64,
        /// The revision that the key must have; none: the key must be absent.
        expected: Option<StoreRevision>,
        /// The value.
        ownership: Ownership,
    },
    /// Read a shard's owner, from the store's leader and from no copy.
    Read {
        /// The shard.
        shard: ShardKey,
        /// The read's number.
        sequence: u64,
    },
    /// The shard's effects may begin. Each asks [`Shards::may_begin`](super::Shards::may_begin)
    /// first and carries the token.
    Begin {
        /// The shard.
        shard: ShardKey,
        /// The fencing token.
        token: StoreRevision,
    },
    /// No effect of the shard may begin. [`Input::Drained`] comes back once none is under way.
    Stop {
        /// The shard.
        shard: ShardKey,
    },
    /// A shard moved, as the watch tells: for status and metrics.
    Moved {
        /// The shard.
        shard: ShardKey,
        /// The owner before.
        from: Option<ReplicaName>,
        /// The owner from now on.
        to: ReplicaName,
        /// Why.
        reason: MoveReason,
    },
    /// A compare-and-set was lost to another writer, for the counter.
    CasLost,
}
