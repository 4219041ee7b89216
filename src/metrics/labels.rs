//! The values of labels, each list written once: the enum, its words, and the list of all.

use crate::domain::{refusal::Unserved, verdict::Verdict};

/// An enum of which each value is one word of a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$value_doc])* $value,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$value),+];

            /// The word of the label.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }
    };
}

/// Why the active node changed, where that is not the verdict on the node before.
const SWITCH_CAUSES: [&str; 8] =
    ["start", "recovered", "removed", "cordoned", "behind", "failback", "duties", "events"];

/// Why the active node changed: each of these causes, and each verdict but the good one.
pub(super) fn switch_reasons() -> impl Iterator<Item = &'static str> {
    SWITCH_CAUSES.into_iter().chain(Verdict::WORDS).filter(|word| *word != Verdict::Up.as_str())
}

/// Why a signed message was given to one more node.
pub(super) const PUBLISH_REASONS: [&str; 7] =
    ["lost", "refused", "unreachable", "late", "out", "doubtful", "unknown_block"];
/// The words of nodes on raw transactions.
pub(super) const SEND_WORDS: [&str; 5] = ["took", "already_known", "refused", "busy", "lost"];
/// Why an event was doubtful.
pub(super) const DOUBT_REASONS: [&str; 3] = ["no_header", "ahead", "unreadable"];
/// Why a filter was dropped.
pub(super) const FILTER_ENDS: [&str; 5] = ["timeout", "backlog", "gap", "too_long", "ended"];
/// The limits for which a filter is not made.
pub(super) const FILTER_LIMITS: [&str; 4] =
    ["filters.max", "filters.max_per_client", "filters.max_bytes_per_client", "max_client_memory"];
/// The subjects of filters.
pub(super) const FILTER_KINDS: [&str; 3] = ["blocks", "logs", "transactions"];
/// The kinds of subscriptions.
pub(super) const SUBSCRIPTIONS: [&str; 3] = ["newHeads", "logs", "other"];
/// The outcomes of a lookup of a name.
pub(super) const LOOKUPS: [&str; 2] = ["found", "failed"];
/// The outcomes of a reload.
pub(super) const RELOADS: [&str; 2] = ["applied", "refused"];

label! {
    /// For whom credits of a node were spent.
    Payer {
        /// For a client's call, or the outbox's.
        Call = "calls",
        /// For a question of our own, as a probe is, or for a notification that a node pushed.
        Own = "own",
    }
}

label! {
    /// How a call ended.
    CallOutcome {
        /// With a result.
        Result = "result",
        /// With an error that a node returned.
        NodeError = "node_error",
        /// With an error of the proxy's own that has no outcome of its own.
        Refused = "refused",
        /// No node could serve.
        NoNode = "no_node",
        /// All attempts at nodes failed.
        Failed = "attempts_failed",
        /// The deadline passed.
        Deadline = "deadline",
        /// The call may have had its effect, and no answer came.
        OutcomeUnknown = "outcome_unknown",
        /// The client left before the answer.
        Gone = "client_gone",
    }
}

impl From<Unserved> for CallOutcome {
    fn from(why: Unserved) -> Self {
        if why.is_for_want_of_a_node() { Self::NoNode } else { Self::Failed }
    }
}

label! {
    /// How an attempt at a node ended.
    AttemptOutcome {
        /// With an answer that goes back to the client.
        Answered = "answered",
        /// With an answer that shows a fault of the node, not of the call.
        NodeFault = "node_fault",
        /// With the answer that the node does not offer the method.
        Lacking = "lacking",
        /// Refused for quota or for load.
        Refused = "refused",
        /// No connection.
        Unreachable = "unreachable",
        /// The connection was lost.
        Dropped = "dropped",
        /// No answer in time.
        Timeout = "timeout",
        /// Given up because the node was found to be out, or the client left.
        Abandoned = "abandoned",
    }
}

label! {
    /// Why spans were lost.
    SpanLoss {
        /// The queue was full.
        QueueFull = "queue_full",
        /// The collector did not take them in time.
        NotTaken = "not_taken",
        /// The collector refused them.
        Rejected = "rejected",
        /// The proxy ended first.
        Shutdown = "shutdown",
    }
}

label! {
    /// Why the proxy ended a client's connection.
    Ended {
        /// No request ever came.
        Silent = "silent",
        /// No further request came.
        Idle = "idle",
        /// There were as many as may be, and this connection was idle longest.
        Crowded = "crowded",
        /// There were as many as may be, none was idle, and the client's address had most of them.
        Share = "share",
        /// A request came too slowly.
        SlowRequest = "slow_request",
        /// The client took too little of an answer.
        SlowReader = "slow_reader",
        /// Clients made the proxy hold as much as they may, and this connection held most of that.
        Memory = "memory",
    }
}

label! {
    /// How a subscription of the proxy's own ended up when the proxy asked for it again.
    Replay {
        /// The node granted the subscription.
        Accepted = "accepted",
        /// The node answered with an error.
        Refused = "refused",
        /// The connection was lost before the answer.
        Lost = "lost",
    }
}
