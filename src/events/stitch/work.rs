//! Reports of a stream that have not been sent to clients yet.

use std::collections::VecDeque;

use alloy_primitives::B256;
use bytes::Bytes;
use tokio::time::Instant;

use super::super::beacon::Checkpoint;

/// Reports that may wait for an answer.
pub(super) const MAX_WAITING: usize = 4096;
/// Bytes of their events.
pub(super) const MAX_WAITING_BYTES: usize = 4 << 20;

/// Work that waits to be done, in the order of the reports.
#[derive(Debug)]
pub(super) enum Work {
    /// Ask for the node's head.
    Catch,
    /// The same, where the head is needed only if the node has not reported that one.
    Look,
    /// Without an event if the event is to be made up.
    Block {
        slot: u64,
        root: B256,
        event: Option<Bytes>,
    },
    Head(Head),
    Reorg {
        old: B256,
        event: Bytes,
    },
    Finalized {
        epoch: u64,
        event: Bytes,
    },
    /// Ask for the finalized checkpoint, as of this state or of the head's.
    Finality(Option<B256>),
    MissedFinality(Checkpoint),
    /// Ask for the dependent roots, in case the next head has to be made up.
    LearnDuties,
}

/// A head that clients have not been sent.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) slot: u64,
    pub(super) root: B256,
    /// Without an event if the event is to be made up.
    pub(super) event: Option<Bytes>,
    /// Since when the head waits; `None` until the next [`Input::Time`](super::Input::Time).
    pub(super) since: Option<Instant>,
}

impl From<Head> for Work {
    fn from(head: Head) -> Self {
        Self::Head(head)
    }
}

impl Work {
    /// Whether this answers all that `other`, a question of the stitcher's own, is for.
    pub(super) fn is_same_question(&self, other: &Self) -> bool {
        match other {
            Self::Look => matches!(self, Self::Catch | Self::Look),
            Self::Finality(None) => matches!(self, Self::Finality(None)),
            _ => false,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Block { event, .. } | Self::Head(Head { event, .. }) => event.as_ref().map_or(0, Bytes::len),
            Self::Reorg { event, .. } | Self::Finalized { event, .. } => event.len(),
            Self::Catch | Self::Look | Self::Finality(_) | Self::MissedFinality(_) | Self::LearnDuties => 0,
        }
    }
}

/// Work in its order. The stitcher's own work is little and goes in front; reports of nodes are
/// bounded and go behind.
#[derive(Debug, Default)]
pub(super) struct Queue {
    work: VecDeque<Work>,
    bytes: usize,
}

impl Queue {
    /// Adds a report of a node; `false` where too many wait.
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

    /// Puts work back in front, but behind a check for finality that this work has just pushed.
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

    pub(super) fn front(&self) -> Option<&Work> {
        self.work.front()
    }

    /// The heads in the queue, in order.
    pub(super) fn heads(&mut self) -> impl Iterator<Item = &mut Head> {
        self.work.iter_mut().filter_map(|work| if let Work::Head(head) = work { Some(head) } else { None })
    }

    /// Takes out all work up to this head, and the head.
    pub(super) fn take_up_to(&mut self, head: B256) -> Vec<Work> {
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
