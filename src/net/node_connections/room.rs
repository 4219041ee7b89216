//! Whether one more connection to a node may be put to use, and for whom.
//!
//! Rule: of the connections that a node takes, some are kept for probes and one for other questions
//! of our own; clients' calls use the others. A request of our own takes its kept connection first,
//! and a connection for calls only when the kept one is in use. Idle connections are in no use.
//! Reason: a call may take any time, and the follower needs each block's header and logs in the
//! meantime. Example with a bound of 4: two calls that take a minute use two connections, and a
//! third call waits. The logs of each block come over the third connection, probes go over the
//! fourth.
//!
//! Rule: where no connection is kept, a question of our own goes before the calls that wait. When
//! the question has used a connection for calls, calls go first for as long, divided by the number
//! of connections for calls. Reason: a node may be too slow for its own chain, which must not stop
//! the clients. Example with a bound of 2: the logs of a block take 1.5 s, and calls have the only
//! connection for requests for the next 1.5 s.
//!
//! Rule: while a learnt bound is tried, calls leave as many open connections as are kept, not only
//! permits for these. Reason: the node may not take more than before. Example: a node takes four
//! connections, and the bound is raised to seven: a third call opens a fifth connection, and does
//! not go over the one that is the probes'.

use std::sync::Arc;

use super::{
    NodeConnections, Relaxed, SeqCst,
    rank::Rank,
    share::{Caller, PART_FOR_CONNECTIONS},
    waiters::{State, Waiter},
};

impl NodeConnections {
    /// Whether a request of this rank may have one more connection, while so many are in hand,
    /// which are neither idle nor in use.
    pub(super) fn has_room(&self, state: &State, rank: Rank, in_hand: usize) -> bool {
        let (most, open) = (state.most(rank), state.open.saturating_sub(in_hand));
        open < most || self.idle.is_more_than(open - most)
    }

    /// Whether enough connections stay open for questions of our own when a request of this rank
    /// has one more, which is `idle` or in hand, or else a new one.
    pub(super) fn leaves_open(&self, state: &State, rank: Rank, idle: bool, in_hand: usize) -> bool {
        if rank != Rank::Call || !state.bound.is_tried() {
            return true;
        }
        let kept = |ahead: Rank, behind: Rank| {
            let kept = state.limit(ahead) - state.limit(behind);
            kept.saturating_sub(state.in_use[ahead as usize])
        };
        // A new one takes none of them, but the probes' must be there.
        let lacking = kept(Rank::Probe, Rank::Own) + if idle { kept(Rank::Own, Rank::Call) } else { 0 };
        let rest = if idle { in_hand } else { 1 };
        lacking < rest || self.idle.is_more_than(lacking - rest)
    }

    /// Whether a client may have one more connection, so that others find some.
    pub(super) fn may_have_more(&self, caller: Option<&Arc<Caller>>) -> bool {
        caller.is_none_or(|caller| self.has_more_for(caller, 0))
    }

    /// The same with so many connections in hand.
    fn has_more_for(&self, caller: &Caller, in_hand: usize) -> bool {
        let limit = self.limit.load(Relaxed);
        let spare = self.spare.load(Relaxed).saturating_add_unsigned(in_hand);
        // As a rule there is plenty, and the client's share need not be looked up.
        let is_free = |kept: usize| {
            let lacking = signed(kept).saturating_sub(spare);
            lacking < 0 || self.idle.is_more_than(lacking.unsigned_abs())
        };
        spare > signed(limit / PART_FOR_CONNECTIONS) || caller.has(self.number).leaves(limit).is_none_or(is_free)
    }

    pub(super) fn allows(&self, waiter: &Waiter, in_hand: usize) -> bool {
        waiter.caller.as_ref().is_none_or(|caller| self.has_more_for(caller, in_hand))
    }

    /// Publishes the numbers of connections, for readers without the lock.
    pub(super) fn note(&self, state: &State) {
        self.limit.store(state.limit(Rank::Call), Relaxed);
        self.is_tried.store(state.bound.is_tried(), Relaxed);
        self.spare.store(signed(state.most(Rank::Call)).saturating_sub_unsigned(state.open), Relaxed);
    }

    /// Closes idle connections, of whatever worker, as long as a waiting request may have another
    /// and no more may be opened.
    pub(super) fn make_room(&self) {
        let is_wanted = || {
            let state = self.lock();
            self.first(&state, 0).is_some_and(|(rank, _)| state.is_full(rank))
        };
        // Closing one gives its permit to the first in line, and then asks for more room. The
        // check is made again after the mark is gone, for those who found the mark.
        while self.waiting.load(SeqCst) > 0 && is_wanted() && !self.makes_room.swap(true, SeqCst) {
            let idle = self.idle.oldest();
            let is_any = idle.is_some();
            drop(idle);
            self.makes_room.store(false, SeqCst);
            if !is_any {
                return;
            }
        }
    }
}

/// A number of connections, or the largest number for none.
pub(super) fn signed(count: usize) -> isize {
    isize::try_from(count).unwrap_or(isize::MAX)
}
