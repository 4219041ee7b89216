//! The connections to one node: how many may be open at once, over all workers, and which request
//! gets the next.
//!
//! Rule: each open connection has a place. When no place is left, requests wait for one in their
//! order. Reason: a node takes a limited number of connections; Besu closes the next one at once,
//! without a byte. So such a node is full, not lost. Example: a node with 80 connections closes the
//! 81st; the bound is then 80, and the next request waits until a place is free. The operator sets
//! the bound, or it is learnt from connections that the node closed at once. The lock is taken when
//! a connection is opened or closed, never when an idle one is used again.
//!
//! Clients that wait take turns, and one that has many connections leaves some to those that have
//! none.

mod bound;
mod idle;
mod line;
mod peers;
mod place;
mod queue;
mod rank;
mod share;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::{Instant, sleep_until},
};

use self::{
    bound::Bound,
    idle::Idle,
    line::{Line, SEARCHED, Ticket},
    queue::{State, Waiter},
    share::{Has, PART_FOR_CONNECTIONS},
};
pub use self::{
    peers::Peers,
    place::Place,
    rank::{Occupancy, Rank},
    share::Caller,
};
use super::{http::Conn, worker::worker};

/// How much later than the first in the queue another may have come and still be given a connection
/// of its own worker's.
const LENIENCY: Duration = Duration::from_millis(100);
/// Calls wait without a limit.
const ENDLESS: u64 = u64::MAX;
/// How often the first in the queue may be passed over for others of the connection's own worker.
const PASSED: u32 = 8;

/// The places for connections at a node.
pub struct Places {
    /// The number of these places, which is unique.
    number: u64,
    idle: Idle,
    /// The number of connections that may be open for calls, and of those that may still be opened.
    /// Changed under the lock, read without it.
    limit: AtomicUsize,
    spare: AtomicUsize,
    /// The number of requests that wait, and of clients' calls among them. Changed under the lock,
    /// read without it.
    waiting: AtomicUsize,
    waiting_calls: AtomicUsize,
    is_learnt: AtomicBool,
    /// Milliseconds that a call waits before another node is tried; [`ENDLESS`] without another
    /// node.
    patience: AtomicU64,
    state: Mutex<State>,
}

/// The result of a wait for a connection.
pub enum Grant {
    /// An idle connection.
    Conn(Conn),
    /// The right to open a connection.
    Place(Place),
}

/// A request in the queue; dropping this takes the request out.
struct Waiting<'a> {
    places: &'a Places,
    rank: Rank,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        if state.remove(self.rank, self.ticket).is_some() {
            self.places.count(self.rank, false);
        }
    }
}

impl Places {
    /// Places at a node for `workers` workers; `bound` is the operator's, `None` for as many as the
    /// node takes.
    pub fn new(bound: Option<usize>, workers: usize) -> Arc<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let now = Instant::now();
        let bound = Bound::new(bound, now);
        let limit = bound.limit(Rank::Call);
        let state = State {
            open: 0,
            bound,
            own: Default::default(),
            calls: Line::default(),
            last_id: 0,
            passed: (0, 0),
            granted: now,
        };
        Arc::new(Self {
            number: LAST.fetch_add(1, Relaxed),
            limit: AtomicUsize::new(limit),
            spare: AtomicUsize::new(limit),
            idle: Idle::new(workers),
            waiting: AtomicUsize::new(0),
            waiting_calls: AtomicUsize::new(0),
            is_learnt: AtomicBool::new(false),
            patience: AtomicU64::new(ENDLESS),
            state: Mutex::new(state),
        })
    }

    /// Calls that find no place have other nodes to go to, after `patience`; `None`: there is none.
    pub fn set_patience(&self, patience: Option<Duration>) {
        let millis = patience.map_or(ENDLESS, |patience| u64::try_from(patience.as_millis()).unwrap_or(ENDLESS));
        self.patience.store(millis, Relaxed);
    }

    /// How long a call waits for a place now; `None`: without a limit. Zero if calls have waited
    /// for the whole patience and none was given a place in that time: another call would wait in
    /// vain.
    pub fn patience(&self) -> Option<Duration> {
        let millis = Some(self.patience.load(Relaxed)).filter(|millis| *millis != ENDLESS)?;
        let patience = Duration::from_millis(millis);
        let is_stuck = self.waiting_calls() > 0 && self.granted().elapsed() > patience;
        Some(if is_stuck { Duration::ZERO } else { patience })
    }

    /// An idle connection of this worker, if there is one and `caller` may have it.
    pub fn idle(&self, caller: Option<&Arc<Caller>>) -> Option<Conn> {
        if !self.may_have_more(caller) {
            return None;
        }
        let mut conn = self.idle.take()?;
        conn.place.user = caller.map(|caller| caller.uses(self.number));
        Some(conn)
    }

    /// A place that is free now, unless a waiting request comes first.
    pub fn free(self: &Arc<Self>, rank: Rank, caller: Option<&Arc<Caller>>) -> Option<Place> {
        let mut state = self.lock();
        let is_taken = state.is_waited_for(rank);
        if is_taken || state.open >= state.bound.limit(rank) || !self.may_have_more(caller) {
            return None;
        }
        state.granted = Instant::now();
        Some(self.place(&mut state, caller))
    }

    fn place(self: &Arc<Self>, state: &mut State, caller: Option<&Arc<Caller>>) -> Place {
        state.open += 1;
        self.note(state);
        let user = caller.map(|caller| caller.uses(self.number));
        Place { places: Arc::downgrade(self), refused: false, user }
    }

    /// Whether a client may have one more connection, so that others find some.
    fn may_have_more(&self, caller: Option<&Arc<Caller>>) -> bool {
        caller.is_none_or(|caller| self.has_more_for(caller, 0))
    }

    /// The same with so many connections in hand.
    fn has_more_for(&self, caller: &Caller, in_hand: usize) -> bool {
        let limit = self.limit.load(Relaxed);
        let spare = self.spare.load(Relaxed).saturating_add(in_hand);
        // As a rule there is plenty, and the client's share need not be looked up.
        let is_free = |kept: usize| spare > kept || self.idle.is_more_than(kept - spare);
        spare > limit / PART_FOR_CONNECTIONS || caller.has(self.number).leaves(limit).is_none_or(is_free)
    }

    /// Publishes the number of connections that may still be opened, for readers without the lock.
    fn note(&self, state: &State) {
        let limit = state.bound.limit(Rank::Call);
        self.limit.store(limit, Relaxed);
        self.spare.store(limit.saturating_sub(state.open), Relaxed);
    }

    /// Waits for a place or, unless only a `fresh` connection will do, for an idle connection. Idle
    /// ones of other workers are closed to make room. The caller limits the time.
    pub async fn wait(self: &Arc<Self>, rank: Rank, fresh: bool, caller: Option<&Arc<Caller>>) -> Grant {
        let (tell, mut told) = oneshot::channel();
        let mut early = None;
        let _waiting = self.enter(rank, fresh, caller, tell);
        // A place may have become free since one was looked for, when this one could not be seen to
        // wait.
        self.grant();
        // If another waiter comes first, that waiter gets the room, and one more idle connection is
        // closed.
        while let Err(TryRecvError::Empty) = told.try_recv().map(|grant| early = Some(grant)) {
            // A client that has its share leaves them to others.
            let Some(conn) = self.may_have_more(caller).then(|| self.idle.oldest()).flatten() else { break };
            drop(conn);
        }
        if let Some(grant) = early {
            return grant;
        }
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
        Waiting { places: self, rank, ticket }
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
    pub fn give_back(self: &Arc<Self>, mut conn: Conn) {
        conn.place.user = None;
        // A request that begins to wait is counted first and then looks for idle connections. So
        // either the waiter finds this connection, or this check sees the waiter.
        let taken = self.idle.put(conn, || self.waiting.load(SeqCst) > 0);
        if let Some(conn) = taken {
            self.hand_over(conn);
        }
    }

    /// Gives a connection to a waiter of this worker that is first in line, or nearly first.
    /// Without such a waiter, closes the connection, which makes room for the first in line.
    fn hand_over(&self, mut conn: Conn) {
        loop {
            let mut state = self.lock();
            let Some((rank, first)) = self.first(&state, 1, |_| true) else {
                // Under the lock: a request that begins to wait later finds the connection idle.
                let spare = self.idle.put(conn, || false);
                drop(state);
                return drop(spare);
            };
            let near = if state.open > state.bound.limit(rank) { None } else { self.near(&state, rank, first) };
            let Some((ticket, waiter)) = near.and_then(|near| Some((near, state.take(rank, near)?))) else {
                drop(state);
                return drop(conn);
            };
            let passes = if state.passed.0 == first.id { state.passed.1 } else { 0 };
            state.passed = (first.id, if ticket == first { 0 } else { passes + 1 });
            self.count(rank, false);
            conn.place.user = waiter.caller.as_ref().map(|caller| caller.uses(self.number));
            state.granted = Instant::now();
            drop(state);
            match waiter.tell.send(Grant::Conn(conn)) {
                Err(Grant::Conn(back)) => {
                    conn = back;
                    conn.place.user = None;
                }
                _ => return,
            }
        }
    }

    /// The ticket that gets a connection of this worker's while `first` is first in line: `first`,
    /// or another of this worker that came hardly later, unless that was so too often.
    fn near(&self, state: &State, rank: Rank, first: Ticket) -> Option<Ticket> {
        let until = state.get(rank, first)?.since + LENIENCY;
        let may_pass = state.passed.0 != first.id || state.passed.1 < PASSED;
        let own = Some(worker());
        let is_near = |ticket: Ticket, waiter: &Waiter| {
            (may_pass || ticket == first) && waiter.worker == own && waiter.since <= until && self.allows(waiter, 1)
        };
        match rank {
            // The first in line may stand far back in the order of `near`.
            Rank::Call if is_near(first, state.get(rank, first)?) => Some(first),
            Rank::Call => {
                state.calls.near().find(|(ticket, waiter)| is_near(*ticket, waiter)).map(|(ticket, _)| ticket)
            }
            _ => {
                let mut near = state.own[rank as usize].iter().take(SEARCHED);
                near.find(|(ticket, waiter)| is_near(**ticket, waiter)).map(|(ticket, _)| *ticket)
            }
        }
    }

    fn release(self: &Arc<Self>, refused: bool) {
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
        if !refused {
            state.bound.closed(Instant::now());
        }
        self.note(&state);
        drop(state);
        self.grant();
    }

    /// Gives the free places to waiting requests.
    fn grant(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            let open = state.open;
            let Some((rank, ticket)) = self.first(&state, 0, |rank| open < state.bound.limit(rank)) else { return };
            let Some(waiter) = state.take(rank, ticket) else { return };
            self.count(rank, false);
            let place = self.place(&mut state, waiter.caller.as_ref());
            state.granted = Instant::now();
            drop(state);
            // Of a waiter that has just left the place comes back by being dropped.
            let _ = waiter.tell.send(Grant::Place(place));
        }
    }

    /// The next ticket of the ranks that may have a connection, while so many are in hand. Of
    /// clients, that is one below its share.
    fn first(&self, state: &State, in_hand: usize, may: impl Fn(Rank) -> bool) -> Option<(Rank, Ticket)> {
        [Rank::Probe, Rank::Own, Rank::Call].into_iter().filter(|rank| may(*rank)).find_map(|rank| {
            let ticket = match rank {
                Rank::Call => state.calls.first(|waiter| self.allows(waiter, in_hand)),
                _ => state.own[rank as usize].keys().next().copied(),
            };
            ticket.map(|ticket| (rank, ticket))
        })
    }

    fn allows(&self, waiter: &Waiter, in_hand: usize) -> bool {
        waiter.caller.as_ref().is_none_or(|caller| self.has_more_for(caller, in_hand))
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

    /// Clients' requests that wait for a connection.
    pub fn waiting_calls(&self) -> usize {
        self.waiting_calls.load(Relaxed)
    }

    /// When a request was last given a place or a connection.
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
