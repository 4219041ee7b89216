//! The inputs of a stitcher, and its effects.

use alloy_primitives::B256;
use bytes::Bytes;
use tokio::time::Instant;

use super::{
    super::{
        beacon::{Checkpoint, Duties, Header},
        sse::Event,
    },
    chain::Unknown,
};

/// An input of the stitcher.
#[derive(Debug)]
pub enum Input {
    /// There was no stream, and now one is open. Events and answers are of this stream.
    Opened,
    /// From here on, events and answers are of another node's stream. The one before still ran.
    Switched,
    /// From here on, events are of another stream of the same node.
    Renewed,
    /// The stream has not reported a head that its node has.
    Unheard,
    /// The stream's next event.
    Event(Event),
    /// The answer to the last question, `None` if no node has one.
    Answered(Question, Option<ChainAnswer>),
    /// By the clock, no honest node reports a higher slot.
    Latest(u64),
    /// The present time. Needed now and then while work [waits](super::Stitcher::holds).
    Time(Instant),
}

/// A question to the present stream's node, or to another. Work waits for one question at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The header of the node's head.
    Head,
    /// The header of the block with this root.
    Header(B256),
    /// The finalized checkpoint as of this state, or of the head's.
    Finalized(Option<B256>),
    /// The dependent roots of a head at this block.
    Duties {
        /// The block's root. The answer holds only while the block is on the node's canonical
        /// chain.
        root: B256,
        /// Its epoch.
        epoch: u64,
    },
}

/// A node's answer.
#[derive(Clone, Copy, Debug)]
pub enum ChainAnswer {
    /// To a question for a header.
    Header(B256, Header),
    /// To the question for finality.
    Finalized(Checkpoint),
    /// To the question for duties.
    Duties(Duties),
    /// To the same: the block is not of the node's chain any more.
    Left,
}

/// An effect of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Clients of the topic are sent an event.
    Tell {
        /// The topic.
        topic: String,
        /// The event's bytes on the wire.
        bytes: Bytes,
    },
    /// Clients are about to see a block at this slot.
    Shows(u64),
    /// The node is asked.
    Ask(Question),
    /// The head left its branch, this many slots back.
    Reorged(u64),
    /// A block that no stream had reported was made up.
    Filled,
    /// Clients miss the blocks between these slots.
    Skipped {
        /// The last slot sent.
        from: u64,
        /// The slot sent next.
        to: u64,
    },
    /// The node reported a slot ahead of the clock; clients get nothing of that.
    Ahead(u64),
    /// The node reported an event about the chain that cannot be read; clients get nothing of that.
    Unreadable,
    /// A head at this slot is sent although no node gave its header in time.
    Unproven(u64),
    /// The stream's node cannot prove its reports: another stream is needed.
    Broken(&'static str),
}

impl From<Unknown> for Question {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Header(root) => Self::Header(root),
            Unknown::Duties { root, epoch } => Self::Duties { root, epoch },
        }
    }
}
