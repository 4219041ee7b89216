//! The inputs of the election.

use crate::domain::fleet::{Epoch, Lease, Malformed, ReplicaName, StoreRevision, timing::Timing};

/// An event that changes a replica's part in the election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// News of the key `leader` from the watch.
    Watch(Watched),
    /// A write ended.
    Wrote {
        /// The number that [`Effect::Write`](super::Effect::Write) had.
        sequence: u64,
        /// The revision that the store gave, or the failure.
        outcome: Result<StoreRevision, WriteError>,
    },
    /// A read of the key `leader` ended.
    Read {
        /// The number that [`Effect::Read`](super::Effect::Read) had.
        sequence: u64,
        /// The entry, none where the key is absent, or the failure.
        outcome: Result<Option<(StoreRevision, Lease)>, ReadError>,
    },
    /// The moment of [`Leadership::next_due`](super::Leadership::next_due) has come.
    Tick,
    /// The work of the leader has ended: no effect is under way.
    Drained,
    /// A hook ended.
    HookDone {
        /// The number that [`Effect::RunHook`](super::Effect::RunHook) had.
        hook: u64,
        /// Whether the hook did its job.
        is_ok: bool,
    },
    /// The replica has registered: a new life.
    Registered(Epoch),
    /// Whether the view has this replica as an active member, which may lead.
    Eligible(bool),
    /// Whether the operator has drained the proxy: a drained one does not lead.
    SetAside(bool),
    /// A later process of this replica's name has registered: this process ends.
    Replaced {
        /// The later process's life.
        by: Epoch,
    },
    /// A request of this replica to the store at another key ended: the store answered, or not.
    Link {
        /// The store answered.
        is_ok: bool,
    },
    /// An active replica that is preferred asks for the lease.
    Asked {
        /// That replica.
        by: ReplicaName,
    },
    /// The process is about to end (SIGTERM): the lease is to be released.
    Stop,
    /// Other settings count from now on.
    Reload(Options),
}

/// News from the watch, in the order of the store's revisions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Watched {
    /// The key has this value.
    Lease {
        /// The entry's revision.
        revision: StoreRevision,
        /// The value.
        lease: Lease,
    },
    /// The key has a value that cannot be read.
    Malformed {
        /// The entry's revision.
        revision: StoreRevision,
    },
    /// The key was deleted.
    Gone {
        /// The revision of the deletion.
        revision: StoreRevision,
    },
    /// The watch has listed all entries that there were when the watch began.
    Synced,
    /// The watch was lost and begins anew: entries come again, and deletions may go untold.
    Reset,
    /// The bucket is another: revisions begin anew, and all registrations are gone.
    Recreated,
}

/// Why a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteError {
    /// The key has another revision: nothing was written.
    Conflict,
    /// No answer came in time: the write was made, or may still be made, or never will be.
    Ambiguous,
    /// The store could not be asked: nothing was written.
    Unavailable,
}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReadError {
    /// The store did not answer.
    Unavailable,
    /// The value cannot be read.
    Malformed(StoreRevision, Malformed),
}

/// Settings of the election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// The times.
    pub timing: Timing,
    /// Whether this replica asks another leader for the lease.
    pub preferred: bool,
    /// Whether other processes use the store. If so, a bucket without a lease may be a new one in
    /// the place of another, whose leader does not know: a replica waits before the first claim.
    pub shared: bool,
    /// How long a hook may run, in milliseconds.
    pub hook_timeout: u64,
    /// How long a leader that was asked for the lease may take to end the work, in milliseconds.
    pub yield_timeout: u64,
    /// Good answers of the store in a row after which a failed replica recovers.
    pub rise: u32,
}
