//! What a stream has said and clients have not been told yet.

use std::collections::VecDeque;

use bytes::Bytes;

use super::super::beacon::{Checkpoint, Root};

/// Statements that may wait for a question to be answered.
pub(super) const MAX_WAITING: usize = 4096;
/// Bytes of their events.
pub(super) const MAX_WAITING_BYTES: usize = 4 << 20;

/// What waits to be told, in the order in which it was said.
#[derive(Debug)]
pub(super) enum Work {
    /// Where is the node?
    Catch,
    /// Without an event if it is to be made up.
    Block {
        slot: u64,
        root: Root,
        event: Option<Bytes>,
    },
    /// Without an event if it is to be made up.
    Head {
        slot: u64,
        root: Root,
        event: Option<Bytes>,
    },
    Reorg {
        old: Root,
        event: Bytes,
    },
    Finalized {
        epoch: u64,
        event: Bytes,
    },
    /// What is final, as of this state?
    Finality(Option<Root>),
    MissedFinality(Checkpoint),
    /// Good to know, should the next head have to be made up.
    LearnDuties,
}

impl Work {
    fn bytes(&self) -> usize {
        match self {
            Self::Block { event, .. } | Self::Head { event, .. } => event.as_ref().map_or(0, Bytes::len),
            Self::Reorg { event, .. } | Self::Finalized { event, .. } => event.len(),
            Self::Catch | Self::Finality(_) | Self::MissedFinality(_) | Self::LearnDuties => 0,
        }
    }
}

/// Work in its order. What the stitcher gives itself to do is little and comes in front; what nodes say is bounded and comes behind.
#[derive(Debug, Default)]
pub(super) struct Queue {
    work: VecDeque<Work>,
    bytes: usize,
}

impl Queue {
    /// Takes what a node said; `false` if there is too much of it.
    pub(super) fn hear(&mut self, work: Work) -> bool {
        let fits = self.work.len() < MAX_WAITING && self.bytes + work.bytes() <= MAX_WAITING_BYTES;
        if fits {
            self.bytes += work.bytes();
            self.work.push_back(work);
        }
        fits
    }

    pub(super) fn push_front(&mut self, work: Work) {
        self.bytes += work.bytes();
        self.work.push_front(work);
    }

    /// A check for finality that the work itself has put in front of it stays there.
    pub(super) fn put_back(&mut self, work: Work) {
        let place = usize::from(matches!(self.work.front(), Some(Work::Finality(Some(_)))));
        self.bytes += work.bytes();
        self.work.insert(place.min(self.work.len()), work);
    }

    pub(super) fn pop_front(&mut self) -> Option<Work> {
        let work = self.work.pop_front()?;
        self.bytes -= work.bytes();
        Some(work)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Work> {
        self.work.iter()
    }

    pub(super) fn clear(&mut self) {
        self.work.clear();
        self.bytes = 0;
    }
}
