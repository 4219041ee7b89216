//! The state of one connection, which the connection keeps in a seat of its own.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{AcqRel, Acquire, Release},
    },
};

use tokio::{sync::Notify, task::AbortHandle, time::Instant};

use super::{Crowd, by_address::SeatsByAddress};
use crate::memory::Account;

/// The state of a seat whose connection is busy.
const BUSY: u64 = 0;
/// The state of a seat whose connection is closed before all idle ones.
pub(super) const FIRST: u64 = 1;
/// The state of a seat whose connection has to go.
const ENDED: u64 = u64::MAX;
/// The state of a seat that its connection has left.
const LEFT: u64 = u64::MAX - 1;
/// Seats that have become idle are noted up to this number, which is more than is ever asked for at
/// once.
const MOST_RESTED: usize = 256;

/// The part that all seats of a crowd share.
pub(super) struct Common {
    started: Instant,
    /// Whether seats that become idle are to report that, and those that did: since when, and their
    /// numbers.
    is_asked: AtomicBool,
    rested: Mutex<Vec<(u64, u64)>>,
    /// Connections whose answer is a stream without an end.
    streams: Mutex<SeatsByAddress>,
}

/// A connection's seat.
pub(super) struct Seat {
    /// Since when the connection is idle: milliseconds after the crowd's beginning, and 2 more,
    /// since 0 and 1 are [`BUSY`] and [`FIRST`]. Or [`ENDED`], or [`LEFT`].
    state: AtomicU64,
    number: u64,
    /// The number of the client's address.
    address: u64,
    /// Notified when the connection has to go.
    bell: Notify,
    /// The task to abort, for a connection that does not wait for the bell.
    task: OnceLock<AbortHandle>,
    /// The account whose owner can tell the client before the end, while the connection is busy.
    account: OnceLock<Arc<Account>>,
    common: Arc<Common>,
}

/// A connection's place, given up on drop. The connection counts as busy until [`Place::rests`].
pub struct Place {
    crowd: Arc<Crowd>,
    seat: Arc<Seat>,
}

/// A connection that has left its seat and still writes a farewell, until this is dropped.
pub struct Linger {
    crowd: Arc<Crowd>,
    bytes: usize,
}

/// A request whose head has come, until it is answered: until this is dropped.
pub struct Asked(Seated);

/// A connection's seat, for code that serves one of its requests.
#[derive(Clone)]
pub struct Seated(Arc<Seat>);

/// A connection's share of the endless answers, given up on drop.
pub struct Stream(Arc<Seat>);

impl Common {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            is_asked: AtomicBool::new(false),
            rested: Mutex::default(),
            streams: Mutex::default(),
        })
    }

    /// Whether seats that become idle are to report that. Earlier reports are forgotten.
    pub(super) fn ask_who_rests(&self, asks: bool) {
        self.take_rested();
        self.is_asked.store(asks, Release);
    }

    /// Every change is complete, so a panic elsewhere cannot have spoilt the lists.
    fn streams(&self) -> MutexGuard<'_, SeatsByAddress> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A moment in the form of a seat's state.
    pub(super) fn millis(&self, moment: Instant) -> u64 {
        let millis = moment.saturating_duration_since(self.started).as_millis();
        u64::try_from(millis).unwrap_or(u64::MAX / 2) + 2
    }

    /// Seats that became idle since the last call: since when, and their numbers.
    pub(super) fn take_rested(&self) -> Vec<(u64, u64)> {
        std::mem::take(&mut *self.rested.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn is_idle(state: u64) -> bool {
    state != BUSY && state < LEFT
}

impl Seat {
    /// A seat that is not idle yet.
    pub(super) fn new(common: Arc<Common>, number: u64, address: u64) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU64::new(BUSY),
            number,
            address,
            bell: Notify::new(),
            task: OnceLock::new(),
            account: OnceLock::new(),
            common,
        })
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn address(&self) -> u64 {
        self.address
    }

    /// Since when the connection is idle; `None` if busy or gone.
    pub(super) fn idle_since(&self) -> Option<u64> {
        Some(self.state.load(Acquire)).filter(|state| is_idle(*state))
    }

    /// Has the connection go, if the connection has been idle since then.
    pub(super) fn has_to_go(&self, idle_since: u64) -> bool {
        self.state.compare_exchange(idle_since, ENDED, AcqRel, Acquire).is_ok()
    }

    /// Has the connection go, idle or busy; returns whether the connection is idle. `None` when the
    /// connection has left or has to go already.
    pub(super) fn gives_way(&self) -> Option<bool> {
        let state = self.state.fetch_update(AcqRel, Acquire, |state| (state < LEFT).then_some(ENDED));
        state.ok().map(is_idle)
    }

    fn begins(&self) -> bool {
        // A connection that has to go stays so.
        self.state.fetch_update(AcqRel, Acquire, |state| (state < LEFT).then_some(BUSY)).is_ok()
    }

    fn rests(&self, since: Instant) -> bool {
        let since = self.common.millis(since);
        // A connection that has to go stays so.
        let rests = self.state.fetch_update(AcqRel, Acquire, |state| (state < LEFT).then_some(since)).is_ok();
        if rests {
            self.tell(since);
        }
        rests
    }

    fn refreshes(&self, since: Instant) {
        let since = self.common.millis(since);
        let newer = |state| (is_idle(state) && state < since).then_some(since);
        if self.state.fetch_update(AcqRel, Acquire, newer).is_ok() {
            self.tell(since);
        }
    }

    fn departs(&self) {
        // A connection that has to go stays so.
        if self.state.fetch_update(AcqRel, Acquire, |state| (state < LEFT).then_some(FIRST)).is_ok() {
            self.tell(FIRST);
        }
    }

    /// Reports since when the connection is idle, if reports are asked for.
    fn tell(&self, since: u64) {
        if self.common.is_asked.load(Acquire) {
            let mut rested = self.common.rested.lock().unwrap_or_else(PoisonError::into_inner);
            if rested.len() < MOST_RESTED {
                rested.push((since, self.number));
            }
        }
    }

    /// Ends the connection.
    pub(super) fn end(&self) {
        self.bell.notify_one();
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Ends a busy connection: its client is told first.
    pub(super) fn cut(&self) {
        match self.account.get() {
            Some(account) => account.end(),
            None => self.end(),
        }
    }
}

impl Place {
    pub(super) fn new(crowd: Arc<Crowd>, seat: Arc<Seat>) -> Self {
        Self { crowd, seat }
    }

    /// The connection is busy from now on; `false` when the connection has to go instead.
    #[must_use]
    pub fn begins(&self) -> bool {
        self.seat.begins()
    }

    /// The connection is idle from `now` on; `false` when the connection has to go instead.
    pub fn rests(&self, now: Instant) -> bool {
        self.seat.rests(now)
    }

    /// Names the account whose owner tells the client when the connection has to go while busy.
    pub fn is_told_by(&self, account: &Arc<Account>) {
        // A connection has one account.
        let _ = self.seat.account.set(account.clone());
    }

    /// The client moves bytes: an idle connection counts as idle only since this moment.
    pub fn refreshes(&self, since: Instant) {
        self.seat.refreshes(since);
    }

    /// The client has closed its side, and may as well be gone, or the connection is closed: until
    /// [`Place::begins`], the connection goes before all idle ones, even while busy.
    pub fn departs(&self) {
        self.seat.departs();
    }

    /// Leaves the seat to others, before the connection is at its end.
    pub fn leave(&self) {
        // The connection may have been chosen to go, and have gone.
        match self.seat.state.swap(LEFT, AcqRel) {
            LEFT => {}
            state => self.crowd.leave(&self.seat, state == ENDED),
        }
    }

    /// Leaves the seat to others. The client may still be sent `bytes` and a farewell; `None` when
    /// too many connections do so.
    pub fn lingers(self, bytes: usize) -> Option<Linger> {
        self.leave();
        self.crowd.lingers(bytes)
    }

    /// Notes that the head of a request has come. The connection counts as idle until the body has
    /// come.
    pub fn asked(&self) -> Asked {
        Asked(Seated(self.seat.clone()))
    }

    /// The seat, for code that does not hold the place.
    pub fn seated(&self) -> Seated {
        Seated(self.seat.clone())
    }
}

impl Seated {
    /// As [`Place::begins`].
    #[must_use]
    pub fn begins(&self) -> bool {
        self.0.begins()
    }

    /// Completes when the connection has to go.
    pub async fn told_to_go(&self) {
        self.0.bell.notified().await;
    }

    /// As [`Place::refreshes`].
    pub fn refreshes(&self, since: Instant) {
        self.0.refreshes(since);
    }

    /// Has the task aborted when the connection has to go.
    pub fn ends_with(&self, task: AbortHandle) {
        // A connection has one task.
        let _ = self.0.task.set(task);
        if self.0.state.load(Acquire) == ENDED {
            self.0.end();
        }
    }

    /// Notes that the answer is a stream without an end. A connection with an endless answer is
    /// never idle, so no more than `most` are let in. Beyond that, the address that has clearly
    /// most of them gives up its newest; `None` when no address has clearly more.
    pub fn streams(&self, most: usize) -> Option<Stream> {
        let mut streams = self.0.common.streams();
        let gone = if streams.len() < most { None } else { Some(streams.outnumbering(self.0.address)?) };
        gone.iter().for_each(|seat| streams.remove(seat));
        streams.add(&self.0);
        drop(streams);
        gone.iter().for_each(|seat| seat.cut());
        Some(Stream(self.0.clone()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.common.streams().remove(&self.0);
    }
}

impl Asked {
    /// The seat, for code that takes the body or answers.
    pub fn seated(&self) -> &Seated {
        &self.0
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let seat = &self.0.0;
        if seat.begins() {
            seat.rests(Instant::now());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Linger {
    pub(super) fn new(crowd: Arc<Crowd>, bytes: usize) -> Self {
        Self { crowd, bytes }
    }
}

impl Drop for Linger {
    fn drop(&mut self) {
        self.crowd.lingers_no_more(self.bytes);
    }
}
