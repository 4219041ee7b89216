//! The connections to one node: how many may be open at once, over all workers, and who waits for one.
//!
//! Nodes take so many connections and no more: Besu closes the next one at once, without a byte. Such a node is full, not lost. So
//! each open connection has a place, and when there is none left, requests wait for one in their order. The bound is the operator's,
//! or it is learnt from connections that the node closed at once. The lock is taken where a connection is opened or closed, never
//! where an idle one is used again.
//!
//! Clients that wait take turns, and one that has many connections leaves some to those that have few.

mod bound;
mod idle;
mod rank;
mod share;

use std::{
    collections::{BTreeMap, BTreeSet},
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

use self::{bound::Bound, idle::Idle, share::Part};
pub use self::{
    rank::{Occupancy, Rank},
    share::Caller,
};
use super::{exchange::Conn, upstream::worker};

/// How much later than the first in the queue another may have come and still be given a connection of its own worker's.
const LENIENCY: Duration = Duration::from_millis(100);
/// Calls wait for as long as they like.
const ENDLESS: u64 = u64::MAX;
/// How far into the queue a waiter of the connection's own worker is looked for, and one that does not have its share.
const SEARCHED: usize = 64;

/// The places for connections at a node.
pub struct Places {
    /// No other places have it.
    number: u64,
    idle: Idle,
    /// Connections that may be open for calls, and that may still be opened. Changed under the lock, read without it.
    limit: AtomicUsize,
    spare: AtomicUsize,
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
    /// By rank, each by round and then in the order of arrival.
    queues: [BTreeMap<Turn, Waiter>; 3],
    /// Those of the calls whose clients had no connection and no other call in the queue when they came: they may have what is kept
    /// for such clients.
    newcomers: BTreeSet<Turn>,
    /// The round of clients' calls: of the last that were given a connection.
    round: u64,
    last_id: u64,
    /// When a place was last given.
    granted: Instant,
}

/// A round, and a number in the order of arrival. A client's calls that wait are in one round after another, so clients take turns.
type Turn = (u64, u64);

struct Waiter {
    /// Whose it is, if that is a client that may have many.
    caller: Option<(Arc<Caller>, Part)>,
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
    /// Whose call it is used for, if that is a client that may have many.
    user: Option<Part>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Before another is looked for who may have it.
        self.user = None;
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
        places.note(&state);
        places.is_learnt.store(state.bound.is_learnt(), Relaxed);
        true
    }
}

/// A request in the queue; it leaves when this is dropped.
struct Waiting<'a> {
    places: &'a Places,
    rank: Rank,
    turn: Turn,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        if state.remove(self.rank, self.turn).is_some() {
            self.places.count(self.rank, false);
        }
    }
}

impl Places {
    /// Places at a node for `workers` workers; `bound` is the operator's, `None` for as many as the node takes.
    pub fn new(bound: Option<usize>, workers: usize) -> Arc<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let now = Instant::now();
        let bound = Bound::new(bound, now);
        let limit = bound.limit(Rank::Call);
        let state = State {
            open: 0,
            bound,
            queues: Default::default(),
            newcomers: BTreeSet::new(),
            round: 0,
            last_id: 0,
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

    /// How long a call waits for a place now: not at all when none was given to those who wait for as long as that. `None`: as long as
    /// it likes.
    pub fn patience(&self) -> Option<Duration> {
        let millis = Some(self.patience.load(Relaxed)).filter(|millis| *millis != ENDLESS)?;
        let patience = Duration::from_millis(millis);
        let is_stuck = self.waiting_calls() > 0 && self.granted().elapsed() > patience;
        Some(if is_stuck { Duration::ZERO } else { patience })
    }

    /// An idle connection of this worker's, if there is one, and `caller` may have it.
    pub fn idle(&self, caller: Option<&Arc<Caller>>) -> Option<Conn> {
        if !self.may_have_more(caller) {
            return None;
        }
        let mut conn = self.idle.take()?;
        conn.place.user = caller.map(|caller| caller.uses(self.number));
        Some(conn)
    }

    /// A place that is free now, and that nobody waits for who comes first.
    pub fn free(self: &Arc<Self>, rank: Rank, caller: Option<&Arc<Caller>>) -> Option<Place> {
        let mut state = self.lock();
        let is_taken = state.queues[..=rank as usize].iter().any(|queue| !queue.is_empty());
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
        let free = || self.spare.load(Relaxed).saturating_add(self.idle.count()).saturating_add(in_hand);
        caller.may_have_more(self.number, self.limit.load(Relaxed), free)
    }

    /// Notes for who has no lock what may still be opened.
    fn note(&self, state: &State) {
        let limit = state.bound.limit(Rank::Call);
        self.limit.store(limit, Relaxed);
        self.spare.store(limit.saturating_sub(state.open), Relaxed);
    }

    /// Waits for a place or, unless it must be a `fresh` one, for a connection. Idle ones of other workers are closed to make room. The
    /// caller bounds it in time.
    pub async fn wait(self: &Arc<Self>, rank: Rank, fresh: bool, caller: Option<&Arc<Caller>>) -> Grant {
        let (tell, mut told) = oneshot::channel();
        let mut early = None;
        let _waiting = self.enter(rank, fresh, caller, tell);
        // A place may have become free since one was looked for, when this one could not be seen to wait.
        self.grant();
        // It may be that another waits already who comes first, and then that one gets the room.
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
                    // The queue is ours, and lets nobody go without a word.
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
        let waits = caller.map(|caller| (caller, caller.waits(self.number)));
        let is_new = caller.is_none_or(|caller| caller.has_none(self.number));
        let (caller, before) =
            waits.map_or((None, 0), |(caller, (part, before))| (Some((caller.clone(), part)), before));
        // The next round is everybody's: in this one, clients that come again and again would keep others from their next.
        let turn = (if rank == Rank::Call { state.round + 1 + before as u64 } else { 0 }, state.last_id);
        if rank == Rank::Call && is_new {
            state.newcomers.insert(turn);
        }
        let worker = (!fresh).then(worker);
        state.queues[rank as usize].insert(turn, Waiter { caller, since: Instant::now(), worker, tell });
        self.count(rank, true);
        Waiting { places: self, rank, turn }
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
            let Some((rank, (round, id))) = self.first(&state, 1, |_| true) else {
                // With the lock held: whoever begins to wait finds it lying idle.
                let spare = self.idle.put(conn, || false);
                drop(state);
                return drop(spare);
            };
            let is_over = state.open > state.bound.limit(rank);
            let until = state.queues[rank as usize].get(&(round, id)).map(|first| first.since + LENIENCY);
            let own = Some(worker());
            let is_near = |(turn, waiter): &(&Turn, &Waiter)| {
                let is_allowed = || self.allows(waiter, 1);
                turn.0 <= round + 1 && waiter.worker == own && Some(waiter.since) <= until && is_allowed()
            };
            let near = state.queues[rank as usize].iter().take(SEARCHED).find(is_near).map(|(turn, _)| *turn);
            let Some(waiter) = near.filter(|_| !is_over).and_then(|turn| state.take(rank, turn)) else {
                drop(state);
                return drop(conn);
            };
            self.count(rank, false);
            conn.place.user = waiter.caller.as_ref().map(|(caller, _)| caller.uses(self.number));
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

    /// Gives the free places to those who wait.
    fn grant(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            let open = state.open;
            let Some((rank, turn)) = self.first(&state, 0, |rank| open < state.bound.limit(rank)) else { return };
            let Some(waiter) = state.take(rank, turn) else { return };
            self.count(rank, false);
            let place = self.place(&mut state, waiter.caller.as_ref().map(|(caller, _)| caller));
            state.granted = Instant::now();
            drop(state);
            // Of a waiter that has just left the place comes back by being dropped.
            let _ = waiter.tell.send(Grant::Place(place));
        }
    }

    /// Who comes next of the ranks that may: of clients, one that does not have its share. So many connections are in hand.
    fn first(&self, state: &State, in_hand: usize, may: impl Fn(Rank) -> bool) -> Option<(Rank, Turn)> {
        [Rank::Probe, Rank::Own, Rank::Call].into_iter().filter(|rank| may(*rank)).find_map(|rank| {
            let queue = &state.queues[rank as usize];
            let mut near = queue.iter().take(SEARCHED);
            let near = near.find(|(_, waiter)| self.allows(waiter, in_hand)).map(|(turn, _)| *turn);
            let is_allowed = |turn: &&Turn| queue.get(turn).is_some_and(|waiter| self.allows(waiter, in_hand));
            let new = || state.newcomers.iter().take(SEARCHED).find(is_allowed).copied();
            near.or_else(|| (rank == Rank::Call).then(new).flatten()).map(|turn| (rank, turn))
        })
    }

    fn allows(&self, waiter: &Waiter, in_hand: usize) -> bool {
        waiter.caller.as_ref().is_none_or(|(caller, _)| self.has_more_for(caller, in_hand))
    }

    /// What the node did was not for want of room: a bound that was only suspected is forgotten.
    pub fn cleared(self: &Arc<Self>) {
        self.lock().bound.cleared();
        self.note_bound();
        self.grant();
    }

    /// Closes every idle connection, and forgets what was learnt: what comes back may be another node.
    pub fn disconnect(self: &Arc<Self>) {
        drop(self.idle.all());
        self.lock().bound.forget();
        self.note_bound();
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

    /// From now on so many connections may be open, as the operator says; `None`: as many as the node takes.
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
    /// Takes a waiter out.
    fn take(&mut self, rank: Rank, turn: Turn) -> Option<Waiter> {
        if rank == Rank::Call {
            self.round = self.round.max(turn.0);
        }
        self.remove(rank, turn)
    }

    fn remove(&mut self, rank: Rank, turn: Turn) -> Option<Waiter> {
        if rank == Rank::Call {
            self.newcomers.remove(&turn);
        }
        self.queues[rank as usize].remove(&turn)
    }
}

#[cfg(test)]
mod tests;
