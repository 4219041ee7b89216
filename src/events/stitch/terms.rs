//! What goes into a stitcher, and what comes out.

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    super::{
        beacon::{Checkpoint, Duties, Header},
        sse::Event,
    },
    chain::Unknown,
};
use crate::domain::hash::Hash;

/// What the stitcher is told.
#[derive(Debug)]
pub enum Input {
    /// From here on, events and answers are another stream's.
    Opened,
    /// The stream's next event.
    Event(Event),
    /// The answer to the question asked last, `None` if it cannot be had.
    Answered(Question, Option<Answer>),
    /// By the clock, no honest node tells of a higher slot.
    Latest(u64),
    /// So late is it. Wanted from time to time while something [waits](super::Stitcher::holds).
    Time(Instant),
}

/// What the node of the present stream is to be asked, or another. What is told waits for one
/// question at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The header of its head.
    Head,
    /// The header of the block with this root.
    Header(Hash),
    /// The finalized checkpoint as of this state, or of the head's.
    Finalized(Option<Hash>),
    /// What the duties of a head at this block depend on.
    Duties {
        /// The block's root. The answer holds only if it is of the node's canonical chain.
        root: Hash,
        /// Its epoch.
        epoch: u64,
    },
}

/// What the node answers.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// To a question for a header.
    Header(Hash, Header),
    /// To the question for finality.
    Finalized(Checkpoint),
    /// To the question for duties.
    Duties(Duties),
    /// To the same: the block is not of the node's chain any more.
    Left,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Clients that want the topic are told.
    Tell {
        /// The topic.
        topic: String,
        /// The event as it goes over the wire.
        bytes: Bytes,
    },
    /// Clients are about to hear of a block at this slot.
    Shows(u64),
    /// The node is asked.
    Ask(Question),
    /// The head left its branch, this many slots back.
    Reorged(u64),
    /// A block that no stream had told was made up.
    Filled,
    /// Clients miss what lay between these slots.
    Skipped {
        /// The last slot told.
        from: u64,
        /// The slot told next.
        to: u64,
    },
    /// The node told of a slot that lies ahead of the clock; clients are not told.
    Ahead(u64),
    /// A head at this slot is told although no node gave its header in time.
    Unproven(u64),
    /// The stream's node cannot bear out what it says: another stream is needed.
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
