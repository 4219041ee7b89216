//! A filter: its criteria, its position in the record, and the answer that is on its way.

use std::sync::Arc;

use alloy_primitives::B256;
use tokio::{sync::watch, time::Instant};

use crate::{domain::client::Peer, view::Filter};

/// The kind of a filter.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Blocks that become canonical.
    Blocks,
    /// Logs.
    Logs {
        filter: Arc<Filter>,
        /// The members of a filter object that say which blocks its past logs are of.
        range: Box<str>,
    },
    /// Transactions that wait for a block: whole, or their hashes.
    Transactions { full: bool },
}

impl Kind {
    /// Its place in [`super::registry::Registry::counts`].
    pub(super) fn place(&self) -> usize {
        match self {
            Self::Blocks => 0,
            Self::Logs { .. } => 1,
            Self::Transactions { full: false } => 2,
            Self::Transactions { full: true } => 3,
        }
    }

    /// Whether the filter is of blocks or logs, and not of transactions.
    pub(super) fn is_of_the_chain(&self) -> bool {
        matches!(self, Self::Blocks | Self::Logs { .. })
    }
}

/// Why a filter was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The filter was not polled for too long.
    Timeout,
    /// More happened since its last poll than is kept.
    Backlog,
    /// Blocks, or the logs of one, cannot be had.
    Gap,
    /// A single block, or a single transaction, brings more than can be sent in one answer.
    TooLong,
    /// The chain is not followed any more, as when the process ends.
    Ended,
}

impl Why {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Backlog => "backlog",
            Self::Gap => "gap",
            Self::TooLong => "too_long",
            Self::Ended => "ended",
        }
    }
}

/// The part of the record that a poll takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) news: News,
    /// The position at which the poll began, by which [`Held::settle`] knows the answer.
    pub(super) from: u64,
}

/// The items of a poll's answer, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Hashes(Vec<B256>),
    Texts(Vec<Arc<str>>),
}

impl News {
    fn is_empty(&self) -> bool {
        match self {
            Self::Hashes(hashes) => hashes.is_empty(),
            Self::Texts(texts) => texts.is_empty(),
        }
    }
}

/// A filter, and how far its client has been answered.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) kind: Kind,
    /// Entries of the record from this position on were not told yet.
    pub(super) cursor: u64,
    /// The position at which the answer begins that is on its way to the client. Later entries
    /// wait: if that answer were lost, later entries would come before those of the lost answer.
    under_way: Option<u64>,
    /// The filter is told the changes after this one.
    pub(super) since: u64,
    pub(super) used: Instant,
    /// Polls that are under way.
    pub(super) polls: usize,
    /// Wakes the calls that wait for a poll of this filter, if there are some.
    bell: Option<watch::Sender<()>>,
    pub(super) client: Option<Peer>,
    /// Bytes of memory with the criteria, as counted in the client's share.
    pub(super) bytes: usize,
}

impl Held {
    pub(super) fn new(kind: Kind, cursor: u64, since: u64, used: Instant, client: Option<Peer>, bytes: usize) -> Self {
        Self { kind, cursor, under_way: None, since, used, polls: 0, bell: None, client, bytes }
    }

    /// Rings once, by its end.
    pub(super) fn bell(&mut self) -> watch::Receiver<()> {
        self.bell.get_or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// Wakes the calls that wait for a poll of this filter.
    pub(super) fn ring(&mut self) {
        self.bell = None;
    }

    /// The oldest position that the filter needs.
    pub(super) fn floor(&self) -> u64 {
        self.under_way.unwrap_or(self.cursor)
    }

    /// Whether an answer with news is on its way. Until its end nothing more is told.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Counts `news` as sent, up to position `to`, until [`Held::settle`] gives the answer's fate.
    pub(super) fn take(&mut self, news: News, to: u64) -> Taken {
        let from = std::mem::replace(&mut self.cursor, to);
        // An answer without news cannot be missed.
        self.under_way = (!news.is_empty()).then_some(from);
        Taken { news, from }
    }

    /// The answer that began at `from` was written, or is lost. A lost one is given again.
    pub(super) fn settle(&mut self, from: u64, has_left: bool) {
        if self.under_way.take_if(|begins| *begins == from).is_some() && !has_left {
            self.cursor = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_answer_is_given_again_and_a_sent_one_is_not() {
        let mut held = Held::new(Kind::Blocks, 1, 0, Instant::now(), None, 0);
        let some = || News::Hashes(vec![B256::default()]);
        assert_eq!(held.take(some(), 3).from, 1);
        assert!(held.is_under_way());
        held.settle(1, false);
        assert_eq!((held.cursor, held.floor(), held.is_under_way()), (1, 1, false));
        held.take(some(), 5);
        assert_eq!((held.cursor, held.floor()), (5, 1));
        held.settle(1, true);
        held.settle(1, false);
        assert_eq!((held.cursor, held.floor()), (5, 5));
        held.take(News::Hashes(Vec::new()), 7);
        assert_eq!((held.cursor, held.floor(), held.is_under_way()), (7, 7, false), "what tells nothing is not missed");
    }
}
