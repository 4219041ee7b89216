//! The effects of the election.

use std::fmt;

use crate::domain::fleet::{Epoch, Lease, ReplicaName, Role, StoreRevision, Term};

/// The consequences of an input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Turn {
    /// The change of state, if the state changed: one at most.
    pub transition: Option<Transition>,
    /// To be performed in this order.
    pub effects: Vec<Effect>,
}

/// An action outside the state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Write the key `leader`. The outcome is an [`Input::Wrote`](super::Input::Wrote).
    Write {
        /// The write's number.
        sequence: u64,
        /// The revision that the key must have; none: the key must be absent.
        expected: Option<StoreRevision>,
        /// The value.
        lease: Lease,
    },
    /// Read the key `leader`, from the store's leader and from no copy. One
    /// [`Input::Read`](super::Input::Read) comes back.
    Read {
        /// The read's number.
        sequence: u64,
    },
    /// The work of a leader begins: each effect asks
    /// [`Leadership::may_begin`](super::Leadership::may_begin) first, and carries the term.
    BeginWork {
        /// The term.
        term: Term,
    },
    /// The work of a leader ends: no effect begins, and those under way come to an end, or are
    /// aborted. [`Input::Drained`](super::Input::Drained) comes back.
    StopWork {
        /// Effects under way are aborted: they had their time.
        abort: bool,
    },
    /// Run a hook, whether or not the settings have one. The outcome is an
    /// [`Input::HookDone`](super::Input::HookDone), unless the hook is aborted.
    RunHook {
        /// The run's number.
        hook: u64,
        /// Which hook.
        kind: HookKind,
        /// The term that begins or ends.
        term: Term,
    },
    /// Abort a hook that runs.
    AbortHook {
        /// The run's number.
        hook: u64,
    },
    /// A compare-and-set was lost to another writer, for the counter.
    CasLost,
    /// The lease is given away: a process that is about to end may end.
    Left,
    /// The work did not end, or the hook that fences failed: the process reports itself not live
    /// and exits, so that nothing goes on.
    Exit,
}

/// The hooks of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookKind {
    /// `on_lead`.
    Lead,
    /// `on_fence`.
    Fence,
}

/// A replica's part in the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Follows the leader's heartbeats.
    Watching,
    /// Has asked the store for the lease.
    Candidate,
    /// Leads.
    Leading,
    /// Leads still, begins no effect, and is about to give the lease away.
    Yielding,
    /// Led; ends the work.
    Fenced,
    /// Cannot use the store, or could not end the work.
    Failed,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Watching, Self::Candidate, Self::Leading, Self::Yielding, Self::Fenced, Self::Failed];

    /// Whether the state may change to `to` in one step.
    pub fn can_become(self, to: Self) -> bool {
        matches!(
            (self, to),
            (Self::Watching, Self::Candidate | Self::Failed)
                | (Self::Candidate, Self::Leading | Self::Watching)
                | (Self::Leading, Self::Yielding | Self::Fenced)
                | (Self::Yielding, Self::Leading | Self::Watching | Self::Fenced)
                | (Self::Fenced, Self::Watching | Self::Failed)
                | (Self::Failed, Self::Watching)
        )
    }

    /// The word in heartbeats and labels.
    pub fn role(self) -> Role {
        match self {
            Self::Watching => Role::Watching,
            Self::Candidate => Role::Candidate,
            Self::Leading => Role::Leading,
            Self::Yielding => Role::Yielding,
            Self::Fenced => Role::Fenced,
            Self::Failed => Role::Failed,
        }
    }
}

/// A change of state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transition {
    /// The state before.
    pub from: State,
    /// The state from now on.
    pub to: State,
    /// Why.
    pub reason: Reason,
}

/// Why a state changed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No leader was heard of for the failover timeout, or the lease is free.
    LeaseFree,
    /// This replica's own earlier process was the leader.
    Resumed,
    /// The store gave the lease to this replica.
    Won,
    /// The store gave the lease to another, or did not answer in time.
    Lost,
    /// The lease ran out: heartbeats were not stored in time.
    LeaseExpired,
    /// Heartbeats are stored and do not come back on the watch.
    WatchSilent,
    /// Another replica has the lease.
    Taken {
        /// The holder; none where the entry cannot be read.
        by: Option<ReplicaName>,
        /// The holder's life.
        epoch: Option<Epoch>,
        /// The term that has begun.
        term: Option<Term>,
    },
    /// A later process of this replica's name has registered.
    Replaced {
        /// The later process's life.
        by: Epoch,
    },
    /// The lease was deleted.
    Deleted,
    /// The bucket is another.
    Recreated,
    /// The replica registered anew while holding a lease.
    NewLife,
    /// A preferred replica asked for the lease.
    Asked {
        /// That replica.
        by: ReplicaName,
    },
    /// The process is about to end.
    Stopping,
    /// The replica is no active member of the view any more.
    Ineligible,
    /// The operator has drained the proxy.
    Drained,
    /// The work did not end in time, and the lease stays.
    YieldTimeout,
    /// A hook failed or ran for too long.
    HookFailed,
    /// The lease is given away.
    Left,
    /// The work has ended, and the store has said who leads.
    FenceDone,
    /// The work did not end in time.
    FenceFailed,
    /// The store failed several times in a row.
    StoreFailed,
    /// The store answers again.
    Recovered,
}

impl Reason {
    /// The word for labels.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::LeaseFree => "lease_free",
            Self::Resumed => "resumed",
            Self::Won => "won",
            Self::Lost => "lost",
            Self::LeaseExpired => "lease_expired",
            Self::WatchSilent => "watch_silent",
            Self::Taken { .. } => "taken",
            Self::Replaced { .. } => "replaced",
            Self::Deleted => "deleted",
            Self::Recreated => "recreated",
            Self::NewLife => "new_life",
            Self::Asked { .. } => "asked",
            Self::Stopping => "stopping",
            Self::Ineligible => "ineligible",
            Self::Drained => "drained",
            Self::YieldTimeout => "yield_timeout",
            Self::HookFailed => "hook_failed",
            Self::Left => "left",
            Self::FenceDone => "fence_done",
            Self::FenceFailed => "fence_failed",
            Self::StoreFailed => "store_failed",
            Self::Recovered => "recovered",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { by: Some(by), epoch: Some(epoch), term: Some(term) } => {
                write!(f, "{by} (epoch {epoch}) took over with term {term}")
            }
            Self::Replaced { by } => write!(f, "a later process of this name registered with epoch {by}"),
            Self::Asked { by } => write!(f, "{by} is preferred and asked"),
            other => f.write_str(&other.as_str().replace('_', " ")),
        }
    }
}
