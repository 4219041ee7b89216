//! What a desk wants done.

use std::{collections::BTreeSet, fmt, sync::Arc};

use alloy_primitives::B256;
use bytes::Bytes;

use super::input::{NodeWords, Waiter};
use crate::outbox::{
    record::{Transition, TxId},
    step::Step,
};

/// What follows from an input.
#[derive(Debug, Default)]
#[must_use]
pub struct Turn {
    /// To be performed as soon as it is here: each rests on a step that was durable before the
    /// input.
    pub at_once: Vec<Effect>,
    /// To be committed, in the order of the inputs.
    pub step: Step,
    /// To be performed in this order, after the step and all steps before it are durable. If a step
    /// fails, the effects of that turn and of all later ones are not performed.
    pub effects: Vec<Effect>,
}

/// Something that is done outside the desk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a transaction to nodes. Each node's word comes back as
    /// [`Input::Heard`](super::Input::Heard), and then one
    /// [`Input::SendDone`](super::Input::SendDone).
    Send {
        /// The transaction.
        id: TxId,
        /// The sending's number, which its words carry. No other sending has it, also none of an
        /// earlier desk.
        send: u64,
        /// The nodes.
        to: To,
        /// The bytes; where they are not here, the store has them.
        raw: Option<Bytes>,
        /// `x-request-id` of the request that brought it.
        request_id: Option<String>,
        /// `traceparent` of that request.
        traceparent: Option<String>,
    },
    /// Ask the usable nodes whether they know a transaction. One
    /// [`Input::Looked`](super::Input::Looked) comes back.
    Look {
        /// The transaction for whose sake they are asked.
        id: TxId,
        /// The question's number, which its answer carries.
        look: u64,
        /// The hash to ask for: its own, or that of the one which took its place.
        hash: B256,
        /// Whether to ask for the sender's nonce at the final block too.
        with_nonce: bool,
    },
    /// Answer a client or an operator.
    Answer {
        /// Who waits.
        waiter: Waiter,
        /// The answer.
        answer: Answer,
    },
    /// Tell the subscribers of a transaction.
    Tell {
        /// The transaction.
        id: TxId,
        /// What happened.
        transition: Transition,
    },
    /// A record was removed, and the store knows: tell the desk by
    /// [`Desk::forgotten`](super::Desk::forgotten).
    Forgotten {
        /// The transaction.
        id: TxId,
    },
    /// A life is over, and the store knows: tell the desk by
    /// [`Desk::settled`](super::Desk::settled).
    Settled {
        /// The transaction.
        id: TxId,
        /// The number of the transition that ended its life.
        seq: u64,
    },
}

/// The nodes that a transaction is sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// All usable ones that `outbox.send_to` allows.
    All,
    /// These of them: each returned, or lacks the transaction.
    Nodes(BTreeSet<Arc<str>>),
}

impl To {
    /// Whether the transaction goes to this node.
    pub fn has(&self, node: &str) -> bool {
        match self {
            Self::All => true,
            Self::Nodes(nodes) => nodes.contains(node),
        }
    }
}

/// The answer to a client or an operator.
pub type Answer = Result<Done, NotDone>;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The transaction is kept, and is this one.
    Hash(B256),
    /// The command was carried out.
    Command,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// A bound of the settings: its key and value.
    Full {
        /// The key.
        key: &'static str,
        /// The value.
        limit: usize,
    },
    /// There are as many transactions that no node took as may be.
    Untaken {
        /// Of this sender; otherwise in all.
        of_sender: bool,
        /// So many.
        limit: usize,
    },
    /// The disk has no room.
    DiskFull,
    /// The disk takes no writes.
    Unwritable,
    /// The disk failed in the middle of a write: the transaction may be kept, and sent when the
    /// disk is back.
    OutcomeUnknown,
    /// The cluster's bucket cannot be written, or this replica is no member beyond doubt.
    BucketAway,
    /// The clock of this replica is too far from the cluster's.
    WrongClock {
        /// By this number of seconds.
        seconds: u64,
        /// The clock is ahead; otherwise behind.
        is_ahead: bool,
    },
    /// The chain of a network of this replica is another one at the other replicas.
    OtherChain {
        /// The network.
        network: String,
        /// The chain id here.
        here: u64,
        /// The chain id at the others.
        others: u64,
    },
    /// The answer of the cluster's bucket was lost: the transaction may be kept, and sent.
    BucketUnsure,
    /// The transaction is longer than the cluster's bucket takes.
    TooLong {
        /// Bytes of the row.
        bytes: usize,
        /// The most bytes of a row.
        limit: usize,
    },
    /// Each node refuses the transaction, for good or for want of funds: the words of one.
    OfNodes(NodeWords),
    /// Another transaction of this sender and nonce is in a block.
    NonceUsed {
        /// The other transaction.
        by: B256,
    },
    /// An operator cancelled it. To send the same bytes again, its record must be dropped first.
    Cancelled,
    /// The deadline passed.
    Expired,
    /// There is no such transaction.
    Unknown,
    /// The command does not fit the transaction's state: says why.
    Unfit(String),
}

impl NotDone {
    /// The JSON-RPC error code.
    pub fn code(&self) -> i64 {
        match self {
            Self::Full { .. }
            | Self::Untaken { .. }
            | Self::DiskFull
            | Self::Unwritable
            | Self::BucketAway
            | Self::WrongClock { .. }
            | Self::OtherChain { .. } => -32005,
            Self::OutcomeUnknown | Self::BucketUnsure => -32002,
            Self::TooLong { .. } => -32000,
            Self::OfNodes(words) => words.code,
            Self::NonceUsed { .. } | Self::Cancelled | Self::Expired | Self::Unknown | Self::Unfit(_) => -32000,
        }
    }

    /// The word for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Full { .. } | Self::Untaken { .. } | Self::DiskFull => "outbox_full",
            Self::Unwritable | Self::BucketAway | Self::WrongClock { .. } | Self::OtherChain { .. } => {
                "outbox_unwritable"
            }
            Self::OutcomeUnknown | Self::BucketUnsure => "outcome_unknown",
            Self::TooLong { .. } => "transaction_too_large",
            Self::OfNodes(_) => "refused_by_nodes",
            Self::NonceUsed { .. } => "nonce_used",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Unknown => "unknown_transaction",
            Self::Unfit(_) => "unfit_state",
        }
    }
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { key, limit } => write!(f, "the outbox is full: `{key}` is {limit}"),
            Self::Untaken { of_sender: true, limit } => {
                write!(f, "the outbox is full: of this sender {limit} transactions wait that no node took")
            }
            Self::Untaken { of_sender: false, limit } => {
                write!(f, "the outbox is full: nodes refuse this transaction, and {limit} wait that no node took")
            }
            Self::DiskFull => f.write_str("the outbox is full: its disk has no room"),
            Self::Unwritable => f.write_str("the outbox cannot write to its disk"),
            Self::OutcomeUnknown => f.write_str(
                "the disk of the outbox failed: the transaction may be kept, and sent later; ask for its status",
            ),
            Self::BucketAway => f.write_str("the outbox cannot reach the bucket that replicas share"),
            Self::WrongClock { seconds, is_ahead } => {
                let side = if *is_ahead { "ahead of" } else { "behind" };
                write!(
                    f,
                    "the clock of this replica is {seconds} s {side} that of the other replicas or of their bucket"
                )
            }
            Self::OtherChain { network, here, others } => {
                write!(f, "the chain id of network {network} is {here} here, and {others} at the other replicas")
            }
            Self::BucketUnsure => f.write_str(
                "the answer of the replicas' bucket was lost: the transaction may be kept, and sent later; ask for its \
                 status",
            ),
            Self::TooLong { bytes, limit } => {
                write!(f, "the transaction has {bytes} bytes with its record, and replicas share {limit} at most")
            }
            Self::OfNodes(words) => f.write_str(&words.message),
            Self::NonceUsed { by } => write!(f, "nonce too low: {by} of the same sender and nonce is in a block"),
            Self::Cancelled => f.write_str("this transaction was cancelled; drop its record to send it again"),
            Self::Expired => f.write_str("the transaction's deadline has passed"),
            Self::Unknown => f.write_str("the outbox has no such transaction"),
            Self::Unfit(why) => f.write_str(why),
        }
    }
}
