//! The blocks that a node has: up to its head, and of each kind of data from an oldest block on.
//!
//! Rule: a node that lacked data of a block, by its own word, while another node had these data,
//! gets calls for that block and all below only where no other node is left: for ten minutes at
//! first, and for twice as long after each further lack, up to six hours. A good answer below the
//! bound lowers the bound, and the node's return from an outage ends all bounds. Reason: a full
//! node keeps the state of some 128 blocks, so most calls for old state are sure to fail there; but
//! nodes are given other data. Example: geth lacks the state of block 1, and an archive is there:
//! one call goes to geth in vain, and the next one goes to the archive at once.
//!
//! [`range_search`](super::range_search) finds the blocks between a lack and the bound. Nothing
//! here is evidence against a node. A lack says nothing of the blocks above, so a client cannot
//! move the bound beyond a block that the node really lacks.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::Pool;
use crate::domain::{asked_blocks::Data, backoff::doubled, node_id::NodeId};

/// How long a bound counts at first, and at most.
const FIRST_TIME: Duration = Duration::from_secs(10 * 60);
const LONGEST_TIME: Duration = Duration::from_secs(6 * 60 * 60);

/// The difference of two depths that counts as none, in blocks: new ones come during a search.
const SAME_DEPTH: u64 = 8;

/// No depth.
const NONE: u64 = u64::MAX;

/// The oldest blocks of which a node has data. A check costs one atomic load for a node that never
/// lacked these data, and takes a lock only for blocks below a bound.
#[derive(Debug, Default)]
pub struct BlockRange {
    bounds: [Bound; Data::COUNT],
    terms: Mutex<[Term; Data::COUNT]>,
}

/// The bound of one kind of data.
#[derive(Debug)]
struct Bound {
    /// The node lacks the data of all blocks below; 0 while no lack is known.
    oldest: AtomicU64,
    /// The node has the data of so many blocks below its head, and drops older ones as its head
    /// moves; [`NONE`] where the bound stands still.
    depth: AtomicU64,
}

impl Default for Bound {
    fn default() -> Self {
        Self { oldest: AtomicU64::new(0), depth: AtomicU64::new(NONE) }
    }
}

impl Bound {
    /// The bound while the node's head is at `head`; 0 for none.
    fn at(&self, head: u64) -> u64 {
        match (self.oldest.load(Relaxed), self.depth.load(Relaxed)) {
            (0, _) => 0,
            (oldest, NONE) => oldest,
            (oldest, depth) => oldest.max(head.saturating_sub(depth)),
        }
    }

    fn set(&self, oldest: u64, depth: u64) {
        self.oldest.store(oldest, Relaxed);
        self.depth.store(depth, Relaxed);
    }
}

/// How long a bound counts, and the search that found the bound.
#[derive(Clone, Copy, Debug, Default)]
struct Term {
    time: Duration,
    until: Option<Instant>,
    /// The outcome of the last search, since the bound counts.
    found: Option<Found>,
}

/// The outcome of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The oldest block of which the node has the data.
    pub oldest: u64,
    /// The height of the node at that time.
    pub head: u64,
}

impl Found {
    fn depth(&self) -> u64 {
        self.head.saturating_sub(self.oldest)
    }

    /// Whether the node had as many blocks at both times.
    pub fn is_as_deep_as(&self, later: &Self) -> bool {
        self.depth().abs_diff(later.depth()) <= SAME_DEPTH
    }
}

impl Term {
    fn counts(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    fn begins(&mut self, now: Instant) {
        if !self.counts(now) {
            self.found = None;
            self.time = if self.time.is_zero() { FIRST_TIME } else { doubled(self.time, 1, LONGEST_TIME) };
        }
        self.until = Some(now + self.time);
    }
}

impl BlockRange {
    /// Whether the node, whose head is at `head`, probably lacks these data of the block at
    /// `height`. Receipts and traces are kept no longer than the blocks.
    pub fn lacks(&self, data: Data, height: u64, head: u64) -> bool {
        self.lacks_at(data, height, head, Instant::now)
    }

    fn lacks_at(&self, data: Data, height: u64, head: u64, now: impl Fn() -> Instant) -> bool {
        let lacks =
            |data: Data| height < self.bounds[data as usize].at(head) && self.terms()[data as usize].counts(now());
        lacks(data) || (matches!(data, Data::Receipts | Data::Traces) && lacks(Data::Blocks))
    }

    /// The node lacks these data of the block at `height`, which another node has. Returns whether
    /// that raises the bound.
    pub fn learn(&self, data: Data, height: u64, now: Instant) -> bool {
        let (bound, mut terms) = (&self.bounds[data as usize], self.terms());
        let (term, next) = (&mut terms[data as usize], height.saturating_add(1));
        let (counts, oldest) = (term.counts(now), bound.oldest.load(Relaxed));
        if !counts {
            bound.set(next, NONE);
        } else if oldest < next {
            bound.oldest.store(next, Relaxed);
        }
        term.begins(now);
        !counts || oldest < next
    }

    /// The node, whose head is at `head`, answered a call well that needs these data of the block
    /// at `height`.
    pub fn answered(&self, data: Data, height: u64, head: u64) {
        let bound = &self.bounds[data as usize];
        if height < bound.at(head) {
            let _terms = self.terms();
            bound.set(height, NONE);
        }
    }

    /// The outcome of a search. With `moves` the node drops older blocks as its head moves. Says
    /// nothing about blocks below, so the bound counts no longer for that.
    pub(super) fn found(&self, data: Data, found: Found, moves: bool, now: Instant) {
        let mut terms = self.terms();
        let term = &mut terms[data as usize];
        if term.counts(now) {
            self.bounds[data as usize].set(found.oldest, if moves { found.depth() } else { NONE });
            term.found = Some(found);
        }
    }

    /// The outcome of the last search for a bound that counts.
    pub(super) fn found_before(&self, data: Data) -> Option<Found> {
        self.terms()[data as usize].found
    }

    /// The node may be another program now, with other data.
    pub fn forget_all(&self) {
        let mut terms = self.terms();
        self.bounds.iter().for_each(|bound| bound.set(0, NONE));
        *terms = Default::default();
    }

    /// The oldest block of which the node has these data, if blocks below are known to be lacking.
    pub fn oldest(&self, data: Data, head: u64, now: Instant) -> Option<u64> {
        let oldest = self.bounds[data as usize].at(head);
        (oldest > 0 && self.terms()[data as usize].counts(now)).then_some(oldest)
    }

    fn terms(&self) -> MutexGuard<'_, [Term; Data::COUNT]> {
        // Every change is whole, so a panic elsewhere cannot have spoilt the terms.
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// The greatest height that a node is known to have reached.
    pub fn height(&self, node: NodeId) -> u64 {
        self.snapshot().nodes[node].number().max(self.nodes[node].traffic.max_height())
    }

    /// Whether a node probably lacks these data of the block at `height`.
    pub fn lacks(&self, node: NodeId, data: Data, height: u64) -> bool {
        self.nodes[node].block_range.lacks(data, height, self.snapshot().nodes[node].number())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        Data::{Blocks, Receipts, State, Traces},
        *,
    };

    const HEAD: u64 = 1000;

    #[test]
    fn a_lack_says_nothing_of_blocks_above_or_other_data() {
        let (range, now) = (BlockRange::default(), Instant::now());
        assert!(!range.lacks_at(State, 0, HEAD, || now));
        assert!(range.learn(State, 5, now) && !range.learn(State, 3, now));
        assert!(range.lacks_at(State, 5, HEAD, || now) && range.lacks_at(State, 0, HEAD, || now));
        assert!(!range.lacks_at(State, 6, HEAD, || now) && !range.lacks_at(Blocks, 5, HEAD, || now));
        assert_eq!((range.oldest(State, HEAD, now), range.oldest(Blocks, HEAD, now)), (Some(6), None));
        // Without the block there are neither its receipts nor its traces.
        assert!(range.learn(Blocks, 8, now));
        assert!(range.lacks_at(Receipts, 8, HEAD, || now) && range.lacks_at(Traces, 8, HEAD, || now));
        assert!(!range.lacks_at(State, 8, HEAD, || now));
    }

    #[test]
    fn one_good_answer_lowers_the_bound_and_a_return_ends_it() {
        let (range, now) = (BlockRange::default(), Instant::now());
        range.learn(State, 100, now);
        range.answered(State, 200, HEAD);
        range.answered(Blocks, 1, HEAD);
        assert_eq!(range.oldest(State, HEAD, now), Some(101));
        range.answered(State, 40, HEAD);
        assert_eq!(range.oldest(State, HEAD, now), Some(40));
        assert!(range.lacks_at(State, 39, HEAD, || now) && !range.lacks_at(State, 40, HEAD, || now));
        range.answered(State, 0, HEAD);
        assert_eq!(range.oldest(State, HEAD, now), None);
        range.learn(State, 100, now);
        range.forget_all();
        assert!(!range.lacks_at(State, 0, HEAD, || now));
    }

    #[test]
    fn a_bound_counts_for_a_time_that_doubles() {
        let (range, start) = (BlockRange::default(), Instant::now());
        range.learn(State, 100, start);
        let end = start + FIRST_TIME;
        assert!(
            range.lacks_at(State, 100, HEAD, || end - Duration::from_millis(1))
                && !range.lacks_at(State, 100, HEAD, || end)
        );
        // The node has got some of the data since.
        assert!(range.learn(State, 40, end));
        assert!(!range.lacks_at(State, 41, HEAD, || end) && range.lacks_at(State, 40, HEAD, || end + FIRST_TIME));
        assert!(!range.lacks_at(State, 40, HEAD, || end + 2 * FIRST_TIME));
        let mut now = start;
        for _ in 0..20 {
            range.learn(State, 40, now);
            now += LONGEST_TIME;
        }
        assert!(!range.lacks_at(State, 40, HEAD, || now));
    }

    #[test]
    fn a_window_is_told_from_a_bound_that_stands() {
        let found = |oldest, head| Found { oldest, head };
        assert!(found(873, 1000).is_as_deep_as(&found(879, 1005)));
        assert!(!found(873, 1000).is_as_deep_as(&found(900, 1005)));
    }

    #[test]
    fn a_window_moves_with_the_head() {
        let (range, now) = (BlockRange::default(), Instant::now());
        range.learn(State, 1, now);
        assert_eq!(range.found_before(State), None);
        let found = Found { oldest: HEAD - 127, head: HEAD };
        range.found(State, found, true, now);
        assert_eq!(range.found_before(State), Some(found));
        for head in [HEAD, HEAD + 5] {
            assert!(
                range.lacks_at(State, head - 128, head, || now) && !range.lacks_at(State, head - 127, head, || now)
            );
            assert_eq!(range.oldest(State, head, now), Some(head - 127));
        }
        // A node that falls back has not got back the blocks that were dropped.
        assert_eq!(range.oldest(State, HEAD - 5, now), Some(HEAD - 127));
        // A lack in the window raises the bound until the window has moved there.
        assert!(range.learn(State, HEAD - 126, now));
        assert_eq!([HEAD, HEAD + 5].map(|head| range.oldest(State, head, now)), [Some(HEAD - 125), Some(HEAD - 122)]);
        range.learn(Blocks, 1, now);
        range.found(Blocks, Found { oldest: 300, head: HEAD }, false, now);
        assert_eq!(range.oldest(Blocks, HEAD + 5, now), Some(300));
        // A search that ends after the bounds does not bring one back.
        range.forget_all();
        range.found(Blocks, found, false, now);
        assert_eq!(range.oldest(Blocks, HEAD, now), None);
        range.learn(State, 100, now);
        range.found(State, found, true, now);
        // The node keeps more than before.
        range.answered(State, 700, HEAD + 5);
        assert_eq!(range.oldest(State, HEAD + 5, now), Some(700));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_bound_is_never_above_a_block_that_was_lacking(heights in proptest::collection::vec(0u64..50, 0..40), kept in 0u64..50) {
            // The node has the blocks from `kept` on, and clients ask for any.
            let (range, now) = (BlockRange::default(), Instant::now());
            for height in heights {
                if height < kept {
                    range.learn(State, height, now);
                } else {
                    range.answered(State, height, HEAD);
                }
                prop_assert!(range.oldest(State, HEAD, now).unwrap_or(0) <= kept);
            }
        }
    }
}
