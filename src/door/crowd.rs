//! The connections of one door: which of them is idle, and for how long. Where there are as many as may be, the one that has been idle
//! longest goes, and not the one that comes: whoever opens many and says nothing then shuts out nobody but itself. Where none is idle,
//! the client's address that has clearly most of them gives up its newest to one that has few.
//!
//! A connection notes that it is busy or idle in its own seat, without a lock; the list is locked where one comes, leaves, or is chosen.
//! When none was idle at a look at all, those that become idle say so, so that a refusal costs no second look.

mod seat;
mod shares;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

pub use self::seat::{Asked, Linger, Place, Seated, Stream};
use self::{
    seat::{Common, Seat},
    shares::Shares,
};

/// How many are chosen in one look at all.
const CHOSEN: usize = 32;
/// How often all are looked at while none is idle, in case one was missed that became idle during a look.
const AGAIN: Duration = Duration::from_secs(1);
/// How long somebody who comes waits for those to leave that make room.
const LONGEST_LEAVE: Duration = Duration::from_secs(1);

/// How long one that has something under way, and has to go, has to tell its client.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Connections that may be on their way out while others have taken their places already.
pub const LEAVING: usize = 32;
/// Of those, the ones that may wait for their clients to take what was written last; the others go at once.
const LINGERING: usize = LEAVING / 2;
/// What is still to be written to all clients that are waited for, in bytes.
const LINGERING_BYTES: usize = 4 << 20;

/// All connections of one door.
pub struct Crowd {
    list: Mutex<List>,
    common: Arc<Common>,
    /// Rung when one has left that had to go.
    left: Notify,
}

#[derive(Default)]
struct List {
    seats: BTreeMap<u64, Arc<Seat>>,
    /// The same by addresses, without those that have to go.
    shares: Shares,
    last: u64,
    /// Of the seats, those that had to go and have not left yet.
    leaving: usize,
    /// Of those, the ones that had something under way, and since when they have to go.
    cut: VecDeque<(Instant, Arc<Seat>)>,
    /// Connections that have left their seats and say farewell, and what is still to be written to them.
    lingering: usize,
    lingering_bytes: usize,
    /// Those that were idle longest at the last look, the longest at the end, by what their seats said then and their numbers.
    chosen: Vec<(u64, u64)>,
    /// When a look at all last found none that is idle.
    found_none: Option<Instant>,
    #[cfg(test)]
    looks: usize,
}

/// What became of one that asked for a place.
pub struct Entered {
    /// `None` when there are as many as may be, none of them is idle, and no address has clearly more than this one's.
    pub place: Option<Place>,
    /// How many had to go for it.
    pub ended: Ended,
}

/// How many had to go for one that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Those that were idle longest.
    pub idle: usize,
    /// Those that had something under way, but whose address had most.
    pub busy: usize,
}

/// Whether one more may come in.
enum Room {
    /// It is in.
    Made(Place),
    /// It may when some of those have left that have to go.
    Soon,
    None,
}

impl Crowd {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { list: Mutex::default(), common: Common::new(), left: Notify::new() })
    }

    /// Takes a connection in as one among at most `limit`; it is idle. `address` is the number of its client's. Others may have to go
    /// for it: they have left, or will at once, and more than [`LEAVING`] of them are waited for.
    pub async fn enter(self: &Arc<Self>, limit: usize, address: u64) -> Entered {
        self.take_in(limit, address, true).await
    }

    /// As [`Crowd::enter`], for a connection that begins only later: until [`Place::rests`] it does not have to go for another.
    pub async fn reserve(self: &Arc<Self>, limit: usize, address: u64) -> Entered {
        self.take_in(limit, address, false).await
    }

    async fn take_in(self: &Arc<Self>, limit: usize, address: u64, is_idle: bool) -> Entered {
        let mut ended = Ended::default();
        let made = async {
            loop {
                let left = self.left.notified();
                match self.room(limit, address, is_idle, &mut ended) {
                    Room::Made(place) => return Some(place),
                    Room::None => return None,
                    // Who has not left by then is seen off.
                    Room::Soon => _ = timeout(LAST_WORDS, left).await,
                }
            }
        };
        let place = timeout(LONGEST_LEAVE, made).await.ok().flatten();
        Entered { place, ended }
    }

    /// Makes room for one more, and takes it in before another can have the room. `count` grows by those that had to go.
    fn room(self: &Arc<Self>, limit: usize, address: u64, is_idle: bool, count: &mut Ended) -> Room {
        let mut list = self.lock();
        let late = list.see_off(Instant::now());
        let (mut ended, mut cut) = (Vec::new(), Vec::new());
        // More than one has to go where there may be fewer than before.
        while list.seats.len() - list.leaving >= limit && ended.len() + cut.len() < CHOSEN {
            match list.choose(&self.common) {
                Some(seat) => ended.push(seat),
                None => match list.outnumbering(address) {
                    Some((seat, true)) => ended.push(seat),
                    Some((seat, false)) => cut.push(seat),
                    None => break,
                },
            }
        }
        let room = match list.seats.len() {
            all if all - list.leaving >= limit && ended.is_empty() && cut.is_empty() => Room::None,
            all if all - list.leaving >= limit || all + list.lingering >= limit + LEAVING => Room::Soon,
            _ => {
                let seat = Seat::new(self.common.clone(), list.last + 1, address, is_idle);
                list.last += 1;
                list.seats.insert(seat.number(), seat.clone());
                list.shares.add(&seat);
                Room::Made(Place::new(self.clone(), seat))
            }
        };
        drop(list);
        count.idle += ended.len();
        count.busy += cut.len();
        ended.iter().chain(&late).for_each(|seat| seat.end());
        cut.iter().for_each(|seat| seat.cut());
        room
    }

    /// Ends the connection that has been idle longest; `false` when none is idle.
    pub fn end_longest_idle(&self) -> bool {
        let mut list = self.lock();
        let Some(seat) = list.choose(&self.common) else { return false };
        drop(list);
        seat.end();
        true
    }

    /// A connection has left.
    fn leave(&self, seat: &Seat, had_to_go: bool) {
        let mut list = self.lock();
        list.seats.remove(&seat.number());
        if !had_to_go {
            list.shares.remove(seat);
        } else {
            list.leaving -= 1;
            list.cut.retain(|(_, cut)| cut.number() != seat.number());
            drop(list);
            self.left.notify_waiters();
        }
    }

    /// Lets a connection that has left say farewell, with so many bytes to be written before it, unless too many do.
    fn lingers(self: &Arc<Self>, bytes: usize) -> Option<Linger> {
        let mut list = self.lock();
        if list.lingering >= LINGERING || list.lingering_bytes + bytes > LINGERING_BYTES {
            return None;
        }
        list.lingering += 1;
        list.lingering_bytes += bytes;
        Some(Linger::new(self.clone(), bytes))
    }

    fn lingers_no_more(&self, bytes: usize) {
        let mut list = self.lock();
        list.lingering -= 1;
        list.lingering_bytes -= bytes;
        drop(list);
        self.left.notify_waiters();
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the list.
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl List {
    /// The one that has been idle longest, which is idle no more but has to go.
    fn choose(&mut self, common: &Common) -> Option<Arc<Seat>> {
        let seat = self.longest_idle(common)?;
        self.shares.remove(&seat);
        self.leaving += 1;
        Some(seat)
    }

    /// The newest of the address that has clearly more than this one, which has to go; and whether it is idle.
    fn outnumbering(&mut self, address: u64) -> Option<(Arc<Seat>, bool)> {
        loop {
            let seat = self.shares.outnumbering(address)?;
            self.shares.remove(&seat);
            // It may be just about to leave by itself.
            let Some(is_idle) = seat.gives_way() else { continue };
            self.leaving += 1;
            if !is_idle {
                self.cut.push_back((Instant::now(), seat.clone()));
            }
            return Some((seat, is_idle));
        }
    }

    /// Those that should have told their clients by now.
    fn see_off(&mut self, now: Instant) -> Vec<Arc<Seat>> {
        let late = self.cut.iter().take_while(|(since, _)| now.duration_since(*since) >= LAST_WORDS).count();
        self.cut.drain(..late).map(|(_, seat)| seat).collect()
    }

    fn longest_idle(&mut self, common: &Common) -> Option<Arc<Seat>> {
        if let Some(seat) = self.take_chosen() {
            return Some(seat);
        }
        if self.found_none.is_some_and(|when| when.elapsed() < AGAIN) {
            self.chosen = common.take_rested();
            self.chosen.reverse();
            return self.take_chosen();
        }
        // Whoever becomes idle from now on says so.
        common.ask_who_rests(true);
        self.look();
        let found = self.take_chosen();
        self.found_none = found.is_none().then(Instant::now);
        common.ask_who_rests(found.is_none());
        found
    }

    fn take_chosen(&mut self) -> Option<Arc<Seat>> {
        while let Some((idle_since, number)) = self.chosen.pop() {
            // It may have had something to do since it was chosen.
            if let Some(seat) = self.seats.get(&number).filter(|seat| seat.has_to_go(idle_since)) {
                return Some(seat.clone());
            }
        }
        None
    }

    /// Looks at all.
    fn look(&mut self) {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        let mut all: Vec<_> =
            self.seats.iter().filter_map(|(number, seat)| Some((seat.idle_since()?, *number))).collect();
        let count = all.len().min(CHOSEN);
        if count > 0 {
            all.select_nth_unstable(count - 1);
        }
        all.truncate(count);
        all.sort_unstable_by_key(|one| std::cmp::Reverse(*one));
        self.chosen = all;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    impl Crowd {
        /// One more, if there is room at once; also how many had to go for it.
        fn enter_now(self: &Arc<Self>, limit: usize) -> (Option<Place>, usize) {
            // Each of an address of its own.
            let address = 1_000_000 + self.lock().last;
            let (place, ended) = self.enter_from(limit, address);
            assert_eq!(ended.busy, 0);
            (place, ended.idle)
        }

        fn enter_from(self: &Arc<Self>, limit: usize, address: u64) -> (Option<Place>, Ended) {
            let mut ended = Ended::default();
            match self.room(limit, address, true, &mut ended) {
                Room::Made(place) => (Some(place), ended),
                _ => (None, ended),
            }
        }

        fn one(self: &Arc<Self>) -> Place {
            self.enter_now(usize::MAX / 2).0.unwrap()
        }
    }

    async fn later() {
        advance(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_goes_and_none_that_has_something_to_do() {
        let crowd = Crowd::new();
        let mut places = Vec::new();
        for _ in 0..4 {
            places.push(crowd.one());
            later().await;
        }
        assert!(places[0].begins());
        let asked = places[1].asked();
        assert!(asked.seated().begins());
        later().await;
        drop(asked);
        // The first is busy, and the second was so until now.
        for expected in [2, 3, 1] {
            let seated = places[expected].seated();
            let gone = seated.told_to_go();
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
        let places: Vec<_> = (0..3).map(|_| crowd.one()).collect();
        assert!(crowd.end_longest_idle());
        let left: Vec<_> = places.iter().filter(|place| place.begins()).collect();
        assert_eq!(left.len(), 2);
        assert!(!crowd.end_longest_idle());
        later().await;
        assert!(left.iter().all(|place| place.rests(Instant::now())));
        drop(places);
        assert!(!crowd.end_longest_idle(), "they have left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_ends_with_its_place_even_when_it_was_told_before() {
        let crowd = Crowd::new();
        let place = crowd.one();
        assert!(crowd.end_longest_idle());
        let task = tokio::spawn(std::future::pending::<()>());
        place.seated().ends_with(task.abort_handle());
        assert!(task.await.unwrap_err().is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_make_room_are_waited_for_when_many_leave() {
        let crowd = Crowd::new();
        let mut idle: Vec<_> = (0..100).map(|_| crowd.one()).collect();
        for _ in 0..LEAVING {
            let (place, ended) = crowd.enter_now(100);
            assert_eq!(ended, 1);
            idle.push(place.unwrap());
        }
        // All others are idle, and so many have not left yet.
        assert!(crowd.enter_now(100).0.is_none());
        let mut waits = Box::pin(crowd.enter(100, 1));
        assert!(waits.as_mut().now_or_never().is_none());
        idle.swap_remove(0);
        assert!(waits.as_mut().now_or_never().is_some_and(|entered| entered.place.is_some()));
        drop(waits);
        // Fewer than before may be there: more than one goes for one that comes.
        let leaves = async {
            later().await;
            idle.retain(Place::begins);
        };
        let (entered, ()) = tokio::join!(crowd.enter(90, 1), leaves);
        assert!(entered.place.is_some() && entered.ended.idle >= 10, "{:?}", entered.ended);
        assert!(crowd.lock().seats.len() <= 90);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_look_at_all_but_once_while_none_is_idle() {
        let crowd = Crowd::new();
        let places: Vec<_> = (0..100).map(|_| crowd.one()).collect();
        assert!(places.iter().all(Place::begins));
        let looks = || crowd.lock().looks;
        for _ in 0..1000 {
            assert!(crowd.enter_now(100).0.is_none());
        }
        assert_eq!(looks(), 1);
        // One that becomes idle says so.
        places[7].rests(Instant::now());
        places[8].rests(Instant::now());
        assert!(places[8].begins());
        let another = crowd.enter_now(100).0.unwrap();
        assert!(!places[7].begins());
        assert!(another.begins());
        assert_eq!((crowd.enter_now(100).0.is_none(), looks()), (true, 1));
        later().await;
        assert_eq!((crowd.enter_now(100).0.is_none(), looks()), (true, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn who_moves_bytes_is_idle_since_then_and_an_end_stays_one() {
        let crowd = Crowd::new();
        let places: Vec<_> = (0..3).map(|_| crowd.one()).collect();
        assert!(places[2].begins());
        later().await;
        let now = Instant::now();
        places.iter().for_each(|place| place.refreshes(now));
        // What is older than what is known is no news.
        places[1].refreshes(now - Duration::from_millis(500));
        places[0].refreshes(now + Duration::from_millis(1));
        assert!(crowd.end_longest_idle() && !places[1].begins() && places[0].begins());
        places[0].rests(now);
        places[1].rests(now);
        places[1].refreshes(now + Duration::from_secs(1));
        assert!(crowd.end_longest_idle() && !places[0].begins() && !crowd.end_longest_idle());
        drop(places);
        let list = crowd.lock();
        assert_eq!((list.seats.len(), list.leaving), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reserved_place_is_its_own_until_its_connection_begins() {
        let crowd = Crowd::new();
        let reserved = crowd.reserve(1, 1).await.place.unwrap();
        assert!(crowd.enter_now(1).0.is_none());
        later().await;
        reserved.rests(Instant::now());
        let next = crowd.reserve(1, 1).await;
        assert!(next.place.is_some() && next.ended == Ended { idle: 1, busy: 0 });
        // Of two who come at once, one has the place that there is.
        drop((reserved, next));
        let both = tokio::join!(crowd.reserve(1, 1), crowd.reserve(1, 1));
        assert!(both.0.place.is_some() && both.1.place.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_farewell_keeps_no_place_and_few_may() {
        let crowd = Crowd::new();
        let idle: Vec<_> = (0..100).map(|_| crowd.one()).collect();
        let lingers: Vec<_> = idle.into_iter().map(|place| place.lingers(100)).collect();
        assert_eq!(lingers.iter().flatten().count(), LINGERING);
        let places: Vec<_> = (0..100).map_while(|_| crowd.enter_now(100).0).collect();
        assert_eq!(places.len(), 100, "those who linger are in nobody's way");
        drop(lingers);
        let with = |bytes| crowd.one().lingers(bytes);
        let long = with(LINGERING_BYTES);
        assert!(long.is_some() && with(1).is_none());
        drop(long);
        assert!(with(1).is_some());
        drop(places);
        let list = crowd.lock();
        assert_eq!((list.seats.len(), list.leaving, list.lingering, list.lingering_bytes), (0, 0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn streams_have_a_share_that_they_give_back() {
        let crowd = Crowd::new();
        let seats = [(); 3].map(|()| crowd.one().seated());
        let first = seats[0].streams(2);
        let second = seats[1].streams(2);
        assert!(first.is_some() && second.is_some() && seats[2].streams(2).is_none());
        drop(first);
        assert!(seats[2].streams(2).is_some());
    }
}
