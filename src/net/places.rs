//! The connections to one node: how many may be open at once, over all workers, and who waits for one.
//!
//! Nodes take so many connections and no more: Besu closes the next one at once, without a byte. Such a node is full, not lost. So
//! each open connection has a place, and when there is none left, requests wait for one in their order. The bound is the operator's,
//! or it is learnt from connections that the node closed at once. The lock is taken where a connection is opened or closed, never
//! where an idle one is used again.

mod bound;
mod idle;

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
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

use self::{bound::Bound, idle::Idle};
use super::{exchange::Conn, upstream::worker};

/// How much later than the first in the queue another may have come and still be given a connection of its own worker's.
const LENIENCY: Duration = Duration::from_millis(100);
/// Calls wait for as long as they like.
const ENDLESS: u64 = u64::MAX;
/// How far into the queue a waiter of the connection's own worker is looked for.
const SEARCHED: usize = 64;

/// Whose request it is that needs a connection: the lower comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A probe. Some places are kept free for probes, or a full node would look like a dead one.
    Probe,
    /// Another question of our own, or a link.
    Own,
    /// A client's.
    Call,
}

/// What is known of a node's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Connections that are open.
    pub open: usize,
    /// How many may be.
    pub bound: Option<usize>,
    /// Whether the node taught the bound, and not the operator.
    pub learnt: bool,
    /// Requests that wait for a connection.
    pub waiting: usize,
}

/// The places for connections at a node.
pub struct Places {
    idle: Idle,
    /// Requests that wait, all of them and clients' only. Changed under the lock, read without it.
    waiting: AtomicUsize,
    waiting_calls: AtomicUsize,
    is_learnt: AtomicBool,
    /// Milliseconds that a call waits before it goes to another node; [`ENDLESS`] where there is none.
    patience: AtomicU64,
    state: Mutex<State>,
}

struct State {
    open: usize,
    bound: Bound,
    /// By rank, each in the order of arrival.
    queues: [VecDeque<Waiter>; 3],
    last_id: u64,
    /// When a place was last given.
    granted: Instant,
}

struct Waiter {
    id: u64,
    since: Instant,
    /// The worker that it runs on; `None` when it wants no connection but a new one.
    worker: Option<usize>,
    tell: oneshot::Sender<Grant>,
}

/// What a request gets to go over.
pub enum Grant {
    /// An idle connection.
    Conn(Conn),
    /// The right to open a connection.
    Place(Place),
}

/// One connection's place; given up when it is dropped.
pub struct Place {
    /// Idle connections are kept there, and must not keep it.
    places: Weak<Places>,
    refused: bool,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = self.places.upgrade() {
            places.release(self.refused);
        }
    }
}

impl Place {
    /// The node closed this new connection without a byte; `certain`: before anything was written. Tells whether it may be for want of
    /// room, since other connections are open: then no more than those are to be open from now on.
    pub fn refused(&mut self, certain: bool) -> bool {
        let Some(places) = self.places.upgrade() else { return false };
        let mut state = places.lock();
        let others = state.open.saturating_sub(1);
        if others == 0 {
            return false;
        }
        self.refused = true;
        state.bound.refused(others, certain, Instant::now());
        places.is_learnt.store(state.bound.is_learnt(), Relaxed);
        true
    }
}

/// A request in the queue; it leaves when this is dropped.
struct Waiting<'a> {
    places: &'a Places,
    rank: Rank,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        let queue = &mut state.queues[self.rank as usize];
        if let Ok(at) = queue.binary_search_by_key(&self.id, |waiter| waiter.id) {
            queue.remove(at);
            self.places.count(self.rank, false);
        }
    }
}

impl Places {
    /// Places at a node for `workers` workers; `bound` is the operator's, `None` for as many as the node takes.
    pub fn new(bound: Option<usize>, workers: usize) -> Arc<Self> {
        let now = Instant::now();
        let state =
            State { open: 0, bound: Bound::new(bound, now), queues: Default::default(), last_id: 0, granted: now };
        Arc::new(Self {
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

    /// How long a call waits for a place now: not at all when none was given to those who wait for as long as that. `None`: as long as
    /// it likes.
    pub fn patience(&self) -> Option<Duration> {
        let millis = Some(self.patience.load(Relaxed)).filter(|millis| *millis != ENDLESS)?;
        let patience = Duration::from_millis(millis);
        let is_stuck = self.waiting_calls() > 0 && self.granted().elapsed() > patience;
        Some(if is_stuck { Duration::ZERO } else { patience })
    }

    /// An idle connection of this worker's, if there is one.
    pub fn idle(&self) -> Option<Conn> {
        self.idle.take()
    }

    /// A place that is free now, and that nobody waits for who comes first.
    pub fn free(self: &Arc<Self>, rank: Rank) -> Option<Place> {
        let mut state = self.lock();
        let is_taken = state.queues[..=rank as usize].iter().any(|queue| !queue.is_empty());
        if is_taken || state.open >= state.bound.limit(rank) {
            return None;
        }
        state.open += 1;
        state.granted = Instant::now();
        Some(Place { places: Arc::downgrade(self), refused: false })
    }

    /// Waits for a place or, unless it must be a `fresh` one, for a connection. Idle ones of other workers are closed to make room. The
    /// caller bounds it in time.
    pub async fn wait(self: &Arc<Self>, rank: Rank, fresh: bool) -> Grant {
        let (tell, mut told) = oneshot::channel();
        let mut early = None;
        let _waiting = self.enter(rank, fresh, tell);
        // A place may have become free since one was looked for, when this one could not be seen to wait.
        self.grant();
        // It may be that another waits already who comes first, and then that one gets the room.
        while let Err(TryRecvError::Empty) = told.try_recv().map(|grant| early = Some(grant)) {
            let Some(conn) = self.idle.oldest() else { break };
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
                    // The queue is ours, and lets nobody go without a word.
                    Err(_) => std::future::pending().await,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.lock().bound.raise(Instant::now());
                    self.note_learnt();
                    self.grant();
                }
            }
        }
    }

    fn enter(&self, rank: Rank, fresh: bool, tell: oneshot::Sender<Grant>) -> Waiting<'_> {
        let mut state = self.lock();
        state.last_id += 1;
        let id = state.last_id;
        let worker = (!fresh).then(worker);
        state.queues[rank as usize].push_back(Waiter { id, since: Instant::now(), worker, tell });
        self.count(rank, true);
        Waiting { places: self, rank, id }
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
    pub fn give_back(self: &Arc<Self>, conn: Conn) {
        // Whoever begins to wait closes an idle connection after that; so either it finds this one, or it is seen here.
        let taken = self.idle.put(conn, || self.waiting.load(SeqCst) > 0);
        if let Some(conn) = taken {
            self.hand_over(conn);
        }
    }

    /// Gives a connection to a waiter of its own worker's that is first, or nearly; or else closes it, which makes room for the first.
    fn hand_over(&self, mut conn: Conn) {
        loop {
            let mut state = self.lock();
            let Some(rank) = state.first() else {
                // With the lock held: whoever begins to wait finds it lying idle.
                let spare = self.idle.put(conn, || false);
                drop(state);
                return drop(spare);
            };
            let is_over = state.open > state.bound.limit(rank);
            let queue = &mut state.queues[rank as usize];
            let until = queue.front().map(|first| first.since + LENIENCY);
            let own = Some(worker());
            let place =
                queue.iter().take(SEARCHED).position(|waiter| waiter.worker == own && Some(waiter.since) <= until);
            let Some(waiter) = place.filter(|_| !is_over).and_then(|place| queue.remove(place)) else {
                drop(state);
                return drop(conn);
            };
            self.count(rank, false);
            state.granted = Instant::now();
            drop(state);
            match waiter.tell.send(Grant::Conn(conn)) {
                Err(Grant::Conn(back)) => conn = back,
                _ => return,
            }
        }
    }

    fn release(self: &Arc<Self>, refused: bool) {
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
        if !refused {
            state.bound.closed(Instant::now());
        }
        drop(state);
        self.grant();
    }

    /// Gives the free places to those who wait.
    fn grant(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            let open = state.open;
            let ranks = [Rank::Probe, Rank::Own, Rank::Call].into_iter();
            let mut served = ranks.filter(|rank| !state.queues[*rank as usize].is_empty());
            let Some(rank) = served.find(|rank| open < state.bound.limit(*rank)) else { return };
            let Some(waiter) = state.queues[rank as usize].pop_front() else { return };
            self.count(rank, false);
            state.open += 1;
            state.granted = Instant::now();
            drop(state);
            // Of a waiter that has just left the place comes back by being dropped.
            let _ = waiter.tell.send(Grant::Place(Place { places: Arc::downgrade(self), refused: false }));
        }
    }

    /// What the node did was not for want of room: a bound that was only suspected is forgotten.
    pub fn cleared(self: &Arc<Self>) {
        self.lock().bound.cleared();
        self.note_learnt();
        self.grant();
    }

    /// Closes every idle connection, and forgets what was learnt: what comes back may be another node.
    pub fn disconnect(self: &Arc<Self>) {
        drop(self.idle.all());
        self.lock().bound.forget();
        self.note_learnt();
        self.grant();
    }

    /// Closes every idle connection.
    pub fn close_idle(&self) {
        drop(self.idle.all());
    }

    /// Closes connections that nobody has used for a while.
    pub fn sweep(&self) {
        drop(self.idle.stale(Instant::now()));
    }

    fn note_learnt(&self) {
        self.is_learnt.store(self.lock().bound.is_learnt(), Relaxed);
    }

    /// Whether the node has shown that it takes only so many.
    pub fn is_learnt(&self) -> bool {
        self.is_learnt.load(Relaxed)
    }

    /// Clients' requests that wait for a connection.
    pub fn waiting_calls(&self) -> usize {
        self.waiting_calls.load(Relaxed)
    }

    /// When a request was last given a place, or a connection that it had waited for.
    pub fn granted(&self) -> Instant {
        self.lock().granted
    }

    /// What is known now.
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

impl State {
    /// The rank whose turn it is.
    fn first(&self) -> Option<Rank> {
        [Rank::Probe, Rank::Own, Rank::Call].into_iter().find(|rank| !self.queues[*rank as usize].is_empty())
    }
}

#[cfg(test)]
mod tests;
