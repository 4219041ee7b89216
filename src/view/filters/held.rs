//! One filter: what it wants, where it is in the record, and which answer is on its way.

use std::{net::IpAddr, sync::Arc};

use tokio::time::Instant;

use crate::{domain::hash::Hash, view::Filter};

/// What a filter is about.
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

    /// Whether it is about the chain.
    pub(super) fn is_of_the_chain(&self) -> bool {
        matches!(self, Self::Blocks | Self::Logs { .. })
    }
}

/// Why a filter was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It was not polled for too long.
    Timeout,
    /// More happened since its last poll than is kept.
    Backlog,
    /// Blocks, or the logs of one, cannot be had.
    Gap,
    /// One block, or one transaction, brings more than can be sent in one answer.
    TooLong,
}

impl Why {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Backlog => "backlog",
            Self::Gap => "gap",
            Self::TooLong => "too_long",
        }
    }
}

/// What a poll takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) news: News,
    /// The position where it begins, which its answer is known by.
    pub(super) from: u64,
}

/// What happened, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Hashes(Vec<Hash>),
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

/// A filter, and how far it was told.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) kind: Kind,
    /// What happens from this position on is news.
    pub(super) cursor: u64,
    /// Where the answer begins that is on its way to the client. What comes behind it has to wait: it would be told before what the answer
    /// brings, if that is lost.
    under_way: Option<u64>,
    /// It hears of the changes after this one.
    pub(super) since: u64,
    pub(super) used: Instant,
    /// Polls that wait for what they are to tell.
    pub(super) polls: usize,
    pub(super) client: Option<IpAddr>,
    /// Bytes that it takes with its criteria, as they count for its client.
    pub(super) bytes: usize,
}

impl Held {
    pub(super) fn new(
        kind: Kind,
        cursor: u64,
        since: u64,
        used: Instant,
        client: Option<IpAddr>,
        bytes: usize,
    ) -> Self {
        Self { kind, cursor, under_way: None, since, used, polls: 0, client, bytes }
    }

    /// From here on the record is kept for it.
    pub(super) fn floor(&self) -> u64 {
        self.under_way.unwrap_or(self.cursor)
    }

    /// Whether an answer is on its way, before whose end nothing more is told.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Has been told `news`, up to this position; [`Held::settle`] says when they have left.
    pub(super) fn take(&mut self, news: News, to: u64) -> Taken {
        let from = std::mem::replace(&mut self.cursor, to);
        // What tells nothing cannot be missed.
        self.under_way = (!news.is_empty()).then_some(from);
        Taken { news, from }
    }

    /// The answer that begins at `from` has left, or is lost: then it is given again.
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
    fn what_was_lost_is_given_again_and_what_left_is_not() {
        let mut held = Held::new(Kind::Blocks, 1, 0, Instant::now(), None, 0);
        let some = || News::Hashes(vec![Hash::default()]);
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
