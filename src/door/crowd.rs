//! The connections of one door: which of them is idle, and for how long. Where there are as many as may be, the one that has been idle
//! longest goes, and not the one that comes: whoever opens many and says nothing then shuts out nobody but itself.
//!
//! A connection notes that it is busy or idle in its own seat, without a lock; the list is locked where one comes, leaves, or is chosen.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
};

use tokio::{sync::Notify, task::AbortHandle, time::Instant};

/// Of a seat whose connection has something under way.
const BUSY: u64 = 0;
/// Of a seat whose connection has to go.
const ENDED: u64 = u64::MAX;
/// How many are chosen in one look at all.
const CHOSEN: usize = 32;

/// Connections that may be on their way out while others have taken their places already.
pub const LEAVING: usize = 32;

/// All connections of one door.
pub struct Crowd {
    list: Mutex<List>,
    started: Instant,
}

#[derive(Default)]
struct List {
    seats: BTreeMap<u64, Arc<Seat>>,
    last: u64,
    /// Those that were idle longest at the last look, the longest at the end, each with what its seat said then.
    chosen: Vec<(u64, Arc<Seat>)>,
}

/// What one connection says of itself.
struct Seat {
    /// Since when the connection is idle, in milliseconds from the crowd's beginning and one; or [`BUSY`], or [`ENDED`].
    state: AtomicU64,
    /// Who ends at the bell.
    bell: Notify,
    /// Who does not hear it.
    task: OnceLock<AbortHandle>,
    started: Instant,
}

/// A connection's place, given up when it is dropped. It is idle until it says that it is not.
pub struct Place {
    crowd: Arc<Crowd>,
    number: u64,
    seat: Arc<Seat>,
}

/// A request whose head has come, until it is answered: until this is dropped.
pub struct Asked(Seated);

/// A connection's seat, for who has to do with a request of its.
#[derive(Clone)]
pub struct Seated(Arc<Seat>);

impl Crowd {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { list: Mutex::default(), started: Instant::now() })
    }

    /// Takes a connection in.
    pub fn enter(self: &Arc<Self>) -> Place {
        let seat =
            Seat { state: AtomicU64::new(BUSY), bell: Notify::new(), task: OnceLock::new(), started: self.started };
        let seat = Arc::new(seat);
        seat.rests(Instant::now());
        let mut list = self.lock();
        list.last += 1;
        let number = list.last;
        list.seats.insert(number, seat.clone());
        Place { crowd: self.clone(), number, seat }
    }

    /// Ends the connection that has been idle longest; `false` when none is idle.
    pub fn end_longest_idle(&self) -> bool {
        let mut list = self.lock();
        for is_fresh in [false, true] {
            if is_fresh {
                list.choose();
            }
            while let Some((idle_since, seat)) = list.chosen.pop() {
                // It may have had something to do since it was chosen.
                if seat.state.compare_exchange(idle_since, ENDED, AcqRel, Acquire).is_ok() {
                    drop(list);
                    seat.end();
                    return true;
                }
            }
        }
        false
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the list.
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    fn choose(&mut self) {
        let idle = |seat: &Arc<Seat>| Some(seat.state.load(Acquire)).filter(|state| ![BUSY, ENDED].contains(state));
        let mut all: Vec<_> = self.seats.values().filter_map(|seat| Some((idle(seat)?, seat))).collect();
        let count = all.len().min(CHOSEN);
        if count > 0 {
            all.select_nth_unstable_by_key(count - 1, |(since, _)| *since);
        }
        all.truncate(count);
        all.sort_unstable_by_key(|(since, _)| std::cmp::Reverse(*since));
        self.chosen = all.into_iter().map(|(since, seat)| (since, seat.clone())).collect();
    }
}

impl Place {
    /// From now on something is under way; `false` when the connection has to go instead.
    #[must_use]
    pub fn begins(&self) -> bool {
        self.seat.begins()
    }

    /// From `now` on nothing is under way. To be called only after [`Place::begins`].
    pub fn rests(&self, now: Instant) {
        self.seat.rests(now);
    }

    /// Notes that the head of a request has come. While its body comes, the connection is still idle.
    pub fn asked(&self) -> Asked {
        Asked(Seated(self.seat.clone()))
    }

    /// Completes when the connection has to go.
    pub fn told_to_go(&self) -> impl Future<Output = ()> + Send + use<> {
        let seat = self.seat.clone();
        async move { seat.bell.notified().await }
    }

    /// The seat, for who does not keep the place.
    pub fn seated(&self) -> Seated {
        Seated(self.seat.clone())
    }
}

impl Seat {
    fn begins(&self) -> bool {
        // An end stays one.
        self.state.fetch_update(AcqRel, Acquire, |state| (state != ENDED).then_some(BUSY)).is_ok()
    }

    fn rests(&self, now: Instant) {
        let since = now.saturating_duration_since(self.started).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX / 2);
        // Only who is idle is ended, so that this cannot undo an end.
        self.state.store(since + 1, Release);
    }

    fn end(&self) {
        self.bell.notify_one();
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Seated {
    /// As [`Place::begins`].
    #[must_use]
    pub fn begins(&self) -> bool {
        self.0.begins()
    }

    /// Has the task ended with the connection, wherever it is.
    pub fn ends_with(&self, task: AbortHandle) {
        // A connection has one task.
        let _ = self.0.task.set(task);
        if self.0.state.load(Acquire) == ENDED {
            self.0.end();
        }
    }
}

impl Asked {
    /// The seat, for who takes the body or answers.
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
        self.crowd.lock().seats.remove(&self.number);
        // It may have been chosen to go, and is gone.
        self.seat.state.store(BUSY, Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    async fn later() {
        advance(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_goes_and_none_that_has_something_to_do() {
        let crowd = Crowd::new();
        let mut places = Vec::new();
        for _ in 0..4 {
            places.push(crowd.enter());
            later().await;
        }
        assert!(places[0].begins());
        let asked = places[1].asked();
        assert!(asked.seated().begins());
        later().await;
        drop(asked);
        // The first is busy, and the second was so until now.
        for expected in [2, 3, 1] {
            let gone = places[expected].told_to_go();
            assert!(crowd.end_longest_idle());
            assert!(gone.now_or_never().is_some(), "{expected}");
            assert!(!places[expected].begins());
        }
        assert!(!crowd.end_longest_idle());
        places[0].rests(Instant::now());
        assert!(crowd.end_longest_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_chosen_and_has_something_to_do_since_stays() {
        let crowd = Crowd::new();
        let places: Vec<_> = (0..3).map(|_| crowd.enter()).collect();
        assert!(crowd.end_longest_idle());
        let left: Vec<_> = places.iter().filter(|place| place.begins()).collect();
        assert_eq!(left.len(), 2);
        assert!(!crowd.end_longest_idle());
        later().await;
        left.iter().for_each(|place| place.rests(Instant::now()));
        drop(places);
        assert!(!crowd.end_longest_idle(), "they have left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_ends_with_its_place_even_when_it_was_told_before() {
        let crowd = Crowd::new();
        let place = crowd.enter();
        assert!(crowd.end_longest_idle());
        let task = tokio::spawn(std::future::pending::<()>());
        place.seated().ends_with(task.abort_handle());
        assert!(task.await.unwrap_err().is_cancelled());
    }
}
