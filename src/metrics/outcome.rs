//! How calls and attempts end, in words for labels.

use crate::domain::refusal::Unserved;

/// How a call ended, for its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// With a result.
    Result,
    /// With an error that a node returned.
    NodeError,
    /// With an error of the proxy's own, but for those that have an outcome of their own.
    Refused,
    /// No node could serve.
    NoNode,
    /// All attempts at nodes failed.
    Failed,
    /// The deadline passed.
    Deadline,
    /// The call may have had its effect, and no answer came.
    OutcomeUnknown,
    /// The client left before the answer.
    Gone,
}

impl From<Unserved> for CallOutcome {
    fn from(why: Unserved) -> Self {
        if why.is_for_want_of_a_node() { Self::NoNode } else { Self::Failed }
    }
}

impl CallOutcome {
    pub(super) const ALL: [Self; 8] = [
        Self::Result,
        Self::NodeError,
        Self::Refused,
        Self::NoNode,
        Self::Failed,
        Self::Deadline,
        Self::OutcomeUnknown,
        Self::Gone,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::NodeError => "node_error",
            Self::Refused => "refused",
            Self::NoNode => "no_node",
            Self::Failed => "attempts_failed",
            Self::Deadline => "deadline",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Gone => "client_gone",
        }
    }
}

/// How an attempt at a node ended, for its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// With an answer that goes back to the client.
    Answered,
    /// With an answer that speaks of the node, not of the call.
    NodeFault,
    /// Refused for quota or place.
    Refused,
    /// No connection.
    Unreachable,
    /// The connection was lost.
    Dropped,
    /// No answer in time.
    Timeout,
    /// Given up because the node was found to be out, or the client left.
    Abandoned,
}

impl AttemptOutcome {
    pub(super) const ALL: [Self; 7] = [
        Self::Answered,
        Self::NodeFault,
        Self::Refused,
        Self::Unreachable,
        Self::Dropped,
        Self::Timeout,
        Self::Abandoned,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::NodeFault => "node_fault",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Dropped => "dropped",
            Self::Timeout => "timeout",
            Self::Abandoned => "abandoned",
        }
    }
}

/// Why the proxy ended a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client never asked for anything.
    Silent,
    /// The client asked for nothing any more.
    Idle,
    /// There were as many as may be, and it was idle longest.
    Crowded,
    /// There were as many as may be, none was idle, and its client's address had most of them.
    Share,
    /// Its request came too slowly.
    SlowRequest,
    /// The client took too little of its answer.
    SlowReader,
    /// Clients made the proxy hold as much as they may, and it held most of that.
    Memory,
}

impl Ended {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Idle => "idle",
            Self::Crowded => "crowded",
            Self::Share => "share",
            Self::SlowRequest => "slow_request",
            Self::SlowReader => "slow_reader",
            Self::Memory => "memory",
        }
    }
}
