//! The values of labels, each list written once: the enum, its words, and the list of all.

use crate::domain::refusal::Unserved;

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

            pub(super) fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }
    };
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
        /// Refused for quota or for want of a connection.
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
