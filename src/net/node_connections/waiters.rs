//! The requests that wait for a connection to a node, and the counts of its connections.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Grant,
    bound::Bound,
    fair_queue::{FairQueue, Ticket},
    rank::Rank,
    share::Caller,
};

/// The connections' state under its lock.
pub(super) struct State {
    pub(super) open: usize,
    /// The WebSockets among the open connections.
    pub(super) links: usize,
    pub(super) bound: Bound,
    /// Requests of our own that wait: probes, and others, in the order of arrival.
    pub(super) own: [BTreeMap<Ticket, Waiter>; 2],
    /// Clients' calls that wait.
    pub(super) calls: FairQueue<Waiter>,
    /// The last number that an arrival or a turn was given.
    pub(super) last_id: u64,
    /// The id of the first waiter when another waiter was given a connection, and how often that
    /// was so.
    pub(super) passed: (u64, u32),
    /// The connections that requests of our own use: probes, and others. A link is none of these.
    pub(super) in_use: [usize; 2],
    /// Until when calls go before questions of our own that find no connection kept for them.
    calls_first: Option<Instant>,
    /// When a call was last given a permit, or a connection after a wait.
    pub(super) granted: Instant,
}

pub(super) struct Waiter {
    /// The client, if the request is a client's.
    pub(super) caller: Option<Arc<Caller>>,
    pub(super) since: Instant,
    /// The worker that the request runs on; `None` when only a new connection will do.
    pub(super) worker: Option<usize>,
    pub(super) tell: oneshot::Sender<Grant>,
}

impl State {
    /// With no connection.
    pub(super) fn new(bound: Bound, now: Instant) -> Self {
        Self {
            open: 0,
            links: 0,
            bound,
            own: Default::default(),
            calls: FairQueue::default(),
            last_id: 0,
            passed: (0, 0),
            in_use: [0; 2],
            calls_first: None,
            granted: now,
        }
    }

    /// How many connections there are for requests of this rank and of those behind.
    pub(super) fn limit(&self, rank: Rank) -> usize {
        self.bound.limit(rank, self.links)
    }

    /// As many connections may be in use, of whatever rank, after one was put to use for a request
    /// of this rank. Requests of our own that use the connections kept for them take nothing from
    /// others.
    pub(super) fn most(&self, rank: Rank) -> usize {
        let apart = |ahead: Rank, behind: Rank| {
            let kept = self.limit(ahead) - self.limit(behind);
            self.in_use[ahead as usize].min(kept)
        };
        let of_probes = || apart(Rank::Probe, Rank::Own);
        let apart = match rank {
            Rank::Probe => 0,
            Rank::Own => of_probes(),
            Rank::Call => of_probes() + apart(Rank::Own, Rank::Call),
        };
        self.limit(rank).saturating_add(apart)
    }

    /// Whether no more may be opened for a request of this rank. Only probes open the last ones: a
    /// node may take a moment to notice that a connection was closed before another was opened.
    pub(super) fn is_full(&self, rank: Rank) -> bool {
        self.open >= self.most(rank.min(Rank::Own))
    }

    /// Whether more are open than should be when a waiter of this rank gets its turn; `None`: no
    /// waiter has a turn.
    pub(super) fn is_beyond(&self, rank: Option<Rank>) -> bool {
        self.open > self.most(rank.map_or(Rank::Probe, |rank| rank.min(Rank::Own)))
    }

    /// Whether the next question of our own would find the connection kept for these questions.
    fn has_kept(&self) -> bool {
        self.in_use[Rank::Own as usize] < self.limit(Rank::Own) - self.limit(Rank::Call)
    }

    /// The ranks in the order of their turns.
    pub(super) fn order(&self, now: Instant) -> [Rank; 3] {
        match self.calls_first.is_some_and(|until| now < until) && !self.has_kept() {
            true => [Rank::Probe, Rank::Call, Rank::Own],
            false => [Rank::Probe, Rank::Own, Rank::Call],
        }
    }

    /// A request of our own of this rank has used a connection since then. If the connection was
    /// one for calls, calls get as much of them.
    pub(super) fn ends_use(&mut self, rank: Rank, since: Instant) {
        let for_calls = u32::try_from(self.limit(Rank::Call)).unwrap_or(u32::MAX);
        if rank == Rank::Own && self.in_use[rank as usize] > self.limit(Rank::Own) - self.limit(Rank::Call) {
            let now = Instant::now();
            let from = self.calls_first.map_or(now, |until| until.max(now));
            self.calls_first = Some(from + now.saturating_duration_since(since) / for_calls.max(1));
        }
        self.in_use[rank as usize] -= 1;
    }

    /// Whether a waiting request comes before a new request of this rank.
    pub(super) fn is_waited_for(&self, rank: Rank) -> bool {
        let is_own = self.own.iter().take(1 + rank as usize).any(|queue| !queue.is_empty());
        is_own || (rank == Rank::Call && !self.calls.is_empty())
    }

    pub(super) fn get(&self, rank: Rank, ticket: Ticket) -> Option<&Waiter> {
        if rank == Rank::Call { self.calls.get(ticket) } else { self.own[rank as usize].get(&ticket) }
    }

    /// Takes out a waiter that gets its turn.
    pub(super) fn take(&mut self, rank: Rank, ticket: Ticket) -> Option<Waiter> {
        if rank == Rank::Call { self.calls.take(ticket) } else { self.remove(rank, ticket) }
    }

    pub(super) fn remove(&mut self, rank: Rank, ticket: Ticket) -> Option<Waiter> {
        if rank == Rank::Call { self.calls.remove(ticket) } else { self.own[rank as usize].remove(&ticket) }
    }
}
