//! The requests that wait for a connection to a node, and the state that decides who is next.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Grant,
    bound::Bound,
    line::{Line, Ticket},
    rank::Rank,
    share::Caller,
};

/// The connections' state under its lock.
pub(super) struct State {
    pub(super) open: usize,
    pub(super) bound: Bound,
    /// Requests of our own that wait: probes, and others, in the order of arrival.
    pub(super) own: [BTreeMap<Ticket, Waiter>; 2],
    /// Clients' calls that wait.
    pub(super) calls: Line<Waiter>,
    pub(super) last_id: u64,
    /// The id of the first waiter when another waiter was given a connection, and how often that
    /// was so.
    pub(super) passed: (u64, u32),
    /// When a place was last given.
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
