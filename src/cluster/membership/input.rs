//! The inputs and effects of membership.

use super::{super::lease::WriteError, standing::MemberChange};
use crate::domain::fleet::{Epoch, Heartbeat, MemberState, ReplicaName, StoreRevision, View, ViewNumber};

/// An event that changes the membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// News from the watch.
    Watch(Watched),
    /// A write of the own heartbeat ended.
    Wrote {
        /// The number that [`Effect::Write`] had.
        sequence: u64,
        /// The revision that the store gave, or the failure.
        outcome: Result<StoreRevision, WriteError>,
    },
    /// A read of the own heartbeat ended.
    Read {
        /// The number that [`Effect::Read`] had.
        sequence: u64,
        /// The entry, none where the key is absent, its value none where the value cannot be
        /// read; an error where the store did not answer.
        outcome: Result<Option<(StoreRevision, Option<Heartbeat>)>, ()>,
    },
    /// A write of the view ended.
    WroteView {
        /// The number that [`Effect::WriteView`] had.
        sequence: u64,
        /// The revision that the store gave, or the failure.
        outcome: Result<StoreRevision, WriteError>,
    },
    /// The moment of [`Membership::next_due`](super::Membership::next_due) has come.
    Tick,
    /// The copies of the cluster's state and of the outbox are read: the second step of joining.
    Ready,
    /// The next heartbeat has news, and is sent sooner.
    Beat,
    /// The replica is to leave.
    Drain,
    /// A draining replica owns no shard any more.
    Emptied,
}

/// News from the watch, in the order of the store's revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// A replica's heartbeat.
    Heartbeat {
        /// The replica of the key.
        replica: ReplicaName,
        /// The entry's revision.
        revision: StoreRevision,
        /// The value; none where the value cannot be read.
        heartbeat: Option<Box<Heartbeat>>,
    },
    /// A replica's key was deleted.
    Gone {
        /// The replica of the key.
        replica: ReplicaName,
        /// The revision of the deletion.
        revision: StoreRevision,
    },
    /// The view.
    View {
        /// The entry's revision.
        revision: StoreRevision,
        /// The value; none where the value cannot be read.
        view: Option<View>,
    },
    /// The view was deleted.
    ViewGone {
        /// The revision of the deletion.
        revision: StoreRevision,
    },
    /// The watch has listed all entries that there were when the watch began.
    Synced,
    /// The watch was lost and begins anew.
    Reset,
    /// The bucket is another.
    Recreated,
}

/// An action outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write the own heartbeat. The caller adds role, term, heads, serving nodes, queues, applied
    /// wishes and build, and leaves the rest.
    Write {
        /// The write's number.
        sequence: u64,
        /// The revision that the key must have; none: the key must be absent.
        expected: Option<StoreRevision>,
        /// The value.
        heartbeat: Box<Heartbeat>,
    },
    /// Read the own heartbeat, from the store's leader and from no copy.
    Read {
        /// The read's number.
        sequence: u64,
    },
    /// Write the view.
    WriteView {
        /// The write's number.
        sequence: u64,
        /// The revision that the key must have; none: the key must be absent.
        expected: Option<StoreRevision>,
        /// The value.
        view: View,
    },
    /// The replica has a new life.
    Registered(Epoch),
    /// Whether the replica may lead and own shards.
    Eligible(bool),
    /// A later process of this name has registered: this one takes part no more.
    Replaced {
        /// The later process's life.
        by: Epoch,
    },
    /// There is a new view.
    View {
        /// The number.
        number: ViewNumber,
        /// The differences to the view before.
        changes: Vec<MemberChange>,
    },
    /// Two views had the same number: the store is broken.
    Violation {
        /// The number.
        number: ViewNumber,
    },
    /// The store answered a request, or did not: for the election's count.
    Link {
        /// The store answered.
        is_ok: bool,
    },
    /// Delete the heartbeat of a replica that is gone, if that has this revision yet. No answer is
    /// wanted.
    Forget {
        /// The replica.
        replica: ReplicaName,
        /// The revision of the last heartbeat.
        revision: StoreRevision,
    },
    /// There are more replicas than are kept, and the heartbeat of one was left out: for the
    /// counter.
    Unheard,
    /// A compare-and-set was lost to another writer, for the counter.
    CasLost,
}

/// A change of the own standing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The standing before; none before the first registration.
    pub from: Option<MemberState>,
    /// The standing from now on.
    pub to: MemberState,
}

/// The consequences of an input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Turn {
    /// The change of the own standing: one at most.
    pub transition: Option<Transition>,
    /// To be performed in this order.
    pub effects: Vec<Effect>,
}
