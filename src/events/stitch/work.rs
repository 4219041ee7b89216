//! What a stream has said and clients have not been told yet.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::beacon::Checkpoint;
use crate::domain::hash::Hash;

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
        root: Hash,
        event: Option<Bytes>,
    },
    Head(Head),
    Reorg {
        old: Hash,
        event: Bytes,
    },
    Finalized {
        epoch: u64,
        event: Bytes,
    },
    /// What is final, as of this state?
    Finality(Option<Hash>),
    MissedFinality(Checkpoint),
    /// Good to know, should the next head have to be made up.
    LearnDuties,
}

/// A head that clients have not been told.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) slot: u64,
    pub(super) root: Hash,
    /// Without an event if it is to be made up.
    pub(super) event: Option<Bytes>,
    /// Since when it waits; not known until the time is told.
    pub(super) since: Option<Instant>,
}

impl From<Head> for Work {
    fn from(head: Head) -> Self {
        Self::Head(head)
    }
}

impl Work {
    fn bytes(&self) -> usize {
        match self {
            Self::Block { event, .. } | Self::Head(Head { event, .. }) => event.as_ref().map_or(0, Bytes::len),
            Self::Reorg { event, .. } | Self::Finalized { event, .. } => event.len(),
            Self::Catch | Self::Finality(_) | Self::MissedFinality(_) | Self::LearnDuties => 0,
        }
    }
}

/// Work in its order. What the stitcher gives itself to do is little and comes in front; what nodes
/// say is bounded and comes behind.
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

    /// The heads in it, in their order.
    pub(super) fn heads(&mut self) -> impl Iterator<Item = &mut Head> {
        self.work.iter_mut().filter_map(|work| if let Work::Head(head) = work { Some(head) } else { None })
    }

    /// Takes everything out up to this head, and the head.
    pub(super) fn take_up_to(&mut self, head: Hash) -> Vec<Work> {
        let is_it = |work: &Work| matches!(work, Work::Head(Head { root, .. }) if *root == head);
        let count = self.work.iter().position(is_it).map_or(0, |place| place + 1);
        (0..count).filter_map(|_| self.pop_front()).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Work> {
        self.work.iter()
    }

    pub(super) fn clear(&mut self) {
        self.work.clear();
        self.bytes = 0;
    }
}
