//! The connections to one node: how many may be open at once, over all workers, and which request
//! gets the next.
//!
//! Rule: each open connection has a permit. When no permit is left, requests wait for one in their
//! order. Reason: a node takes a limited number of connections; Besu closes the next one at once,
//! without a byte. So such a node is full, not lost. Example: a node with 80 connections closes the
//! 81st; the bound is then 80, and the next request waits until a permit is free. The operator sets
//! the bound, or it is learnt from connections that the node closed at once. The lock is taken when
//! a connection is opened or closed, never when an idle one is used again.
//!
//! Clients that wait take turns, and one that has many connections leaves some to those that have
//! none. Some connections are kept for probes and for other questions of our own: see [`room`].

mod bound;
mod fair_queue;
mod idle;
mod next_waiter;
mod peers;
mod permit;
mod rank;
mod room;
mod share;
mod waiters;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicIsize, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use crate::domain::duration::millis;

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use self::{
    bound::Bound,
    fair_queue::Ticket,
    idle::Idle,
    share::Has,
    waiters::{State, Waiter},
};
pub use self::{
    peers::Peers,
    permit::Permit,
    rank::{Occupancy, Rank},
    share::Caller,
};
use super::{http::Conn, worker::worker};

/// Calls wait without a limit.
const ENDLESS: u64 = u64::MAX;

/// The connections to a node: the permits, the idle connections, and the queue for them.
pub struct NodeConnections {
    /// A unique number, by which clients count their use of these connections.
    number: u64,
    idle: Idle,
    /// The number of connections that calls may use, and how many fewer are open; negative where
    /// more are, which requests of our own opened. Changed under the lock, read without it.
    limit: AtomicUsize,
    spare: AtomicIsize,
    /// The number of requests that wait, and of clients' calls among them. Changed under the lock,
    /// read without it.
    waiting: AtomicUsize,
    waiting_calls: AtomicUsize,
    /// Whether idle connections are being closed for requests that wait.
    makes_room: AtomicBool,
    is_learnt: AtomicBool,
    /// Whether a learnt bound is being tried.
    is_tried: AtomicBool,
    /// Whether the node has refused a connection since its last answer.
    is_refusing: AtomicBool,
    /// Milliseconds that a call waits before another node is tried; [`ENDLESS`] without another
    /// node.
    wait_limit: AtomicU64,
    state: Mutex<State>,
}

/// The result of a wait for a connection.
pub enum Grant {
    /// An idle connection.
    Conn(Box<Conn>),
    /// The right to open a connection.
    Permit(Permit),
}

/// A request in the queue; dropping this takes the request out.
struct Waiting<'a> {
    connections: &'a NodeConnections,
    rank: Rank,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.connections.lock();
        if state.remove(self.rank, self.ticket).is_some() {
            self.connections.count(self.rank, false);
        }
    }
}

impl NodeConnections {
    /// Connections to a node for `workers` workers; `bound` is the operator's, `None` for as many
    /// as the node takes.
    pub fn new(bound: Option<usize>, workers: usize) -> Arc<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let now = Instant::now();
        let bound = Bound::new(bound, now);
        let limit = bound.limit(Rank::Call, 0);
        let state = State::new(bound, now);
        Arc::new(Self {
            number: LAST.fetch_add(1, Relaxed),
            limit: AtomicUsize::new(limit),
            spare: AtomicIsize::new(room::signed(limit)),
            idle: Idle::new(workers),
            waiting: AtomicUsize::new(0),
            waiting_calls: AtomicUsize::new(0),
            makes_room: AtomicBool::new(false),
            is_learnt: AtomicBool::new(false),
            is_tried: AtomicBool::new(false),
            is_refusing: AtomicBool::new(false),
            wait_limit: AtomicU64::new(ENDLESS),
            state: Mutex::new(state),
        })
    }

    /// Calls that find no permit have other nodes to go to, after `wait_limit`; `None`: there is
    /// none.
    pub fn set_wait_limit(&self, wait_limit: Option<Duration>) {
        self.wait_limit.store(wait_limit.map_or(ENDLESS, millis), Relaxed);
    }

    /// Whether calls that find no permit have no other node to go to.
    pub fn is_the_only_node(&self) -> bool {
        self.wait_limit.load(Relaxed) == ENDLESS
    }

    /// How long a call waits for a permit now; `None`: without a limit. Zero if calls have waited
    /// for the whole limit and none was given a permit in that time: another call would wait in
    /// vain.
    pub fn wait_limit(&self) -> Option<Duration> {
        let millis = Some(self.wait_limit.load(Relaxed)).filter(|millis| *millis != ENDLESS)?;
        let wait_limit = Duration::from_millis(millis);
        let is_stuck = self.waiting_calls() > 0 && self.granted().elapsed() > wait_limit;
        Some(if is_stuck { Duration::ZERO } else { wait_limit })
    }

    /// An idle connection of this worker, if there is one and a request of this rank, or `caller`,
    /// may have one.
    pub fn idle(&self, rank: Rank, caller: Option<&Arc<Caller>>) -> Option<Box<Conn>> {
        // With no more open than calls may use, one that lies idle is not kept for others.
        let is_kept = || {
            let may_lack = rank != Rank::Call || self.spare.load(Relaxed) < 0 || self.is_tried.load(Relaxed);
            may_lack && {
                let state = self.lock();
                !self.has_room(&state, rank, 0) || !self.leaves_open(&state, rank, true, 0)
            }
        };
        if !self.may_have_more(caller) || is_kept() {
            return None;
        }
        let mut conn = self.idle.take()?;
        conn.permit.user = caller.map(|caller| caller.uses(self.number));
        if rank != Rank::Call {
            self.begins_use(&mut self.lock(), &mut conn.permit, rank);
        }
        Some(conn)
    }

    /// A permit that is free now, unless a waiting request comes first.
    pub fn free(self: &Arc<Self>, rank: Rank, caller: Option<&Arc<Caller>>) -> Option<Permit> {
        let mut state = self.lock();
        let has_room = self.has_room(&state, rank, 0) && self.leaves_open(&state, rank, false, 0);
        let is_taken = state.is_waited_for(rank) || state.is_full(rank) || !has_room;
        if is_taken || !self.may_have_more(caller) {
            return None;
        }
        Some(self.permit(&mut state, rank, caller))
    }

    fn permit(self: &Arc<Self>, state: &mut State, rank: Rank, caller: Option<&Arc<Caller>>) -> Permit {
        state.open += 1;
        let user = caller.map(|caller| caller.uses(self.number));
        let mut permit = Permit { connections: Arc::downgrade(self), refused: false, is_link: false, user, own: None };
        self.begins_use(state, &mut permit, rank);
        permit
    }

    /// A request of this rank has the connection from now on.
    fn begins_use(&self, state: &mut State, permit: &mut Permit, rank: Rank) {
        if rank == Rank::Call {
            state.granted = Instant::now();
        } else {
            state.in_use[rank as usize] += 1;
            permit.own = Some((rank, Instant::now()));
        }
        self.note(state);
    }

    fn ends_use(&self, permit: &mut Permit) {
        permit.user = None;
        if let Some((rank, since)) = permit.own.take() {
            let mut state = self.lock();
            state.ends_use(rank, since);
            self.note(&state);
        }
    }

    /// Waits for a permit or, unless only a `fresh` connection will do, for an idle connection.
    /// Idle ones of other workers are closed to make room. The caller limits the time.
    pub async fn wait(self: &Arc<Self>, rank: Rank, fresh: bool, caller: Option<&Arc<Caller>>) -> Grant {
        let (tell, mut told) = oneshot::channel();
        let _waiting = self.enter(rank, fresh, caller, tell);
        // A permit may have become free since one was looked for, when this one could not be seen
        // to wait.
        self.grant();
        self.make_room();
        loop {
            let due = self.lock().bound.raise_at();
            // Both arms are cancel-safe.
            tokio::select! {
                biased;
                grant = &mut told => match grant {
                    Ok(grant) => return grant,
                    // The queue drops no waiter without a grant.
                    Err(_) => std::future::pending().await,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.lock().bound.raise(Instant::now());
                    self.note_bound();
                    self.grant();
                }
            }
        }
    }

    fn enter(
        &self,
        rank: Rank,
        fresh: bool,
        caller: Option<&Arc<Caller>>,
        tell: oneshot::Sender<Grant>,
    ) -> Waiting<'_> {
        let mut state = self.lock();
        state.last_id += 1;
        // Whoever has no address is a client of its own.
        let (address, connection) =
            caller.map_or_else(|| (share::number(), 0), |caller| (caller.address(), caller.number()));
        let has = caller.map_or(Has::NONE, |caller| caller.has(self.number));
        let ticket = Ticket { id: state.last_id, address, connection };
        let worker = (!fresh).then(worker);
        let waiter = Waiter { caller: caller.cloned(), since: Instant::now(), worker, tell };
        match rank {
            Rank::Call => state.calls.push(ticket, has, waiter),
            _ => _ = state.own[rank as usize].insert(ticket, waiter),
        }
        self.count(rank, true);
        Waiting { connections: self, rank, ticket }
    }

    fn count(&self, rank: Rank, more: bool) {
        // The order against the idle connections matters: see `give_back`.
        let change = |count: &AtomicUsize| match more {
            true => count.fetch_add(1, SeqCst),
            false => count.fetch_sub(1, SeqCst),
        };
        change(&self.waiting);
        if rank == Rank::Call {
            change(&self.waiting_calls);
        }
    }

    /// Takes back a connection that can carry another request: for whoever waits, or to lie idle.
    pub fn give_back(self: &Arc<Self>, mut conn: Box<Conn>) {
        if conn.permit.is_link {
            return;
        }
        self.ends_use(&mut conn.permit);
        // A request that begins to wait is counted first and then looks for idle connections. So
        // either the waiter finds this connection, or this check sees the waiter.
        let taken = self.idle.put(conn, || self.waiting.load(SeqCst) > 0);
        if let Some(conn) = taken {
            self.hand_over(conn);
        }
    }

    /// Gives a connection to a waiter of this worker that is first in line, or nearly first.
    /// Without such a waiter, closes the connection, which makes room for the first in line.
    fn hand_over(&self, mut conn: Box<Conn>) {
        loop {
            let mut state = self.lock();
            let first = self.first(&state, 1);
            if state.is_beyond(first.map(|(rank, _)| rank)) {
                drop(state);
                // This one is in the right hands more likely than one that lies idle.
                let Some(idle) = self.idle.oldest() else { return drop(conn) };
                drop(idle);
                continue;
            }
            let Some((rank, first)) = first else {
                // Under the lock: a request that begins to wait later finds the connection idle.
                let spare = self.idle.put(conn, || false);
                drop(state);
                return drop(spare);
            };
            let near = self.of_this_worker(&state, rank, first);
            let Some((ticket, waiter)) = near.and_then(|near| Some((near, self.take(&mut state, rank, near)?))) else {
                drop(state);
                return drop(conn);
            };
            let passes = if state.passed.0 == first.id { state.passed.1 } else { 0 };
            state.passed = (first.id, if ticket == first { 0 } else { passes + 1 });
            conn.permit.user = waiter.caller.as_ref().map(|caller| caller.uses(self.number));
            self.begins_use(&mut state, &mut conn.permit, rank);
            drop(state);
            match waiter.tell.send(Grant::Conn(conn)) {
                Err(Grant::Conn(back)) => {
                    conn = back;
                    self.ends_use(&mut conn.permit);
                }
                _ => return,
            }
        }
    }

    /// Takes out a waiter that gets its turn.
    fn take(&self, state: &mut State, rank: Rank, ticket: Ticket) -> Option<Waiter> {
        let waiter = state.take(rank, ticket)?;
        self.count(rank, false);
        if let Some(caller) = &waiter.caller {
            state.last_id += 1;
            caller.has_turn(self.number, state.last_id);
        }
        Some(waiter)
    }

    /// The connection of this permit is closed.
    fn release(self: &Arc<Self>, permit: &Permit) {
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
        state.links = state.links.saturating_sub(usize::from(permit.is_link));
        if let Some((rank, since)) = permit.own {
            state.ends_use(rank, since);
        }
        if !permit.refused {
            state.bound.closed(Instant::now());
        }
        self.note(&state);
        drop(state);
        self.grant();
        self.make_room();
    }

    /// Gives the free permits to waiting requests.
    fn grant(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            let first = self.first(&state, 0).filter(|(rank, _)| !state.is_full(*rank));
            let Some((rank, ticket)) = first else { return };
            let Some(waiter) = self.take(&mut state, rank, ticket) else { return };
            let permit = self.permit(&mut state, rank, waiter.caller.as_ref());
            drop(state);
            // Of a waiter that has just left the permit comes back by being dropped.
            let _ = waiter.tell.send(Grant::Permit(permit));
        }
    }

    /// The node answered a request: see [`bound`].
    pub fn answered(self: &Arc<Self>) {
        if self.is_refusing.load(Relaxed) && self.is_refusing.swap(false, Relaxed) {
            self.lock().bound.answered(Instant::now());
            self.note_bound();
            self.grant();
        }
    }

    /// Forgets a bound that was only suspected, after the node showed that lack of room was not the
    /// reason.
    pub fn cleared(self: &Arc<Self>) {
        self.lock().bound.cleared();
        self.note_bound();
        self.grant();
    }

    /// Closes every idle connection and forgets the learnt bound.
    pub fn disconnect(self: &Arc<Self>) {
        drop(self.idle.all());
        self.forget();
    }

    /// Forgets what was learnt: what comes back may be another node, and one that is out closes
    /// connections for other reasons than want of room.
    pub fn forget(self: &Arc<Self>) {
        self.lock().bound.forget();
        self.note_bound();
        self.grant();
    }

    /// Closes every idle connection.
    pub fn close_idle(&self) {
        drop(self.idle.all());
    }

    /// Closes connections that were idle for too long.
    pub fn sweep(&self) {
        drop(self.idle.stale(Instant::now()));
    }

    /// From now on so many connections may be open, as the operator says; `None`: as many as the
    /// node takes.
    pub fn set_bound(self: &Arc<Self>, bound: Option<usize>) {
        self.lock().bound.configure(bound);
        self.note_bound();
        self.grant();
    }

    fn note_bound(&self) {
        let state = self.lock();
        self.note(&state);
        self.is_learnt.store(state.bound.is_learnt(), Relaxed);
    }

    /// Whether the node has shown a bound.
    pub fn is_learnt(&self) -> bool {
        self.is_learnt.load(Relaxed)
    }

    /// Whether the node takes so few connections that none is kept for probes.
    pub fn keeps_none_for_probes(&self) -> bool {
        let state = self.lock();
        state.limit(Rank::Probe) == state.limit(Rank::Own)
    }

    /// The connections that requests of our own of this rank use, also while these are opened.
    pub fn uses(&self, rank: Rank) -> usize {
        self.lock().in_use.get(rank as usize).copied().unwrap_or(0)
    }

    /// Whether a question of our own waits for a connection, other than a probe.
    pub fn keeps_own_waiting(&self) -> bool {
        self.waiting.load(Relaxed) > self.waiting_calls() && !self.lock().own[Rank::Own as usize].is_empty()
    }

    /// The length of the line of calls, in sixteenths of the connections that calls may use.
    pub fn line(&self) -> usize {
        self.waiting_calls().saturating_mul(16) / self.limit.load(Relaxed).max(1)
    }

    /// Clients' requests that wait for a connection.
    pub fn waiting_calls(&self) -> usize {
        self.waiting_calls.load(Relaxed)
    }

    /// When a client's call was last given a permit, or a connection after a wait.
    pub fn granted(&self) -> Instant {
        self.lock().granted
    }

    /// The present state of the node's connections.
    pub fn occupancy(&self) -> Occupancy {
        let state = self.lock();
        let (bound, learnt) = (state.bound.bound(), state.bound.is_learnt());
        Occupancy { open: state.open, bound, learnt, waiting: self.waiting.load(Relaxed) }
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
