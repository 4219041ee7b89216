//! Which connection goes for which, and which have left.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::advance;

use super::*;

impl Crowd {
    /// Takes a connection in, if there is room at once; also returns how many had to go.
    fn enter_now(self: &Arc<Self>, limit: usize) -> (Option<Place>, usize) {
        // Each of an address of its own.
        let address = 1_000_000 + self.lock().last;
        let (place, ended) = self.enter_from(limit, address);
        assert_eq!(ended.busy, 0);
        (place, ended.idle)
    }

    fn enter_from(self: &Arc<Self>, limit: usize, address: u64) -> (Option<Place>, Ended) {
        let mut ended = Ended::default();
        match self.room(limit, address, &mut ended) {
            Admission::Made(place) => {
                place.rests(Instant::now() - 2 * JUST_COME);
                (Some(place), ended)
            }
            _ => (None, ended),
        }
    }

    fn one(self: &Arc<Self>) -> Place {
        self.enter_now(usize::MAX / 2).0.unwrap()
    }
}

/// A crowd that has been there for a while.
async fn crowd() -> Arc<Crowd> {
    let crowd = Crowd::new();
    later().await;
    crowd
}

async fn later() {
    advance(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn the_longest_idle_goes_and_none_that_has_something_to_do() {
    let crowd = crowd().await;
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
    later().await;
    // The first is busy, and the second was so until lately.
    for expected in [2, 3, 1] {
        let seated = places[expected].seated();
        let gone = seated.told_to_go();
        assert!(crowd.end_longest_idle());
        assert!(gone.now_or_never().is_some(), "{expected}");
        assert!(!places[expected].begins());
    }
    assert!(!crowd.end_longest_idle());
    places[0].rests(Instant::now());
    later().await;
    assert!(crowd.end_longest_idle());
}

#[tokio::test(start_paused = true)]
async fn new_connection_is_spared_while_an_address_has_clearly_more() {
    let crowd = crowd().await;
    let (greedy, honest, other) = (1, 2, 3);
    let busy: Vec<_> = (0..7).map(|_| crowd.enter_from(8, greedy).0.unwrap()).collect();
    assert!(busy.iter().all(Place::begins));
    later().await;
    let came = crowd.enter_from(8, honest).0.unwrap();
    // Its request has not been read, and newcomers do not get its place.
    assert!(crowd.enter_from(8, greedy).0.is_none() && crowd.enter_from(8, greedy).0.is_none());
    let (place, ended) = crowd.enter_from(8, other);
    assert!(place.is_some() && ended == Ended { idle: 0, busy: 1 }, "{ended:?}");
    assert!(came.begins() && came.rests(Instant::now()));
    drop(place);
    later().await;
    later().await;
    // A connection that says nothing for longer goes.
    let _last = crowd.enter_from(8, greedy).0.unwrap();
    assert!(crowd.enter_from(8, greedy).0.is_some() && !came.begins());
}

#[tokio::test(start_paused = true)]
async fn chosen_connection_that_becomes_busy_stays() {
    let crowd = crowd().await;
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
    let crowd = crowd().await;
    let place = crowd.one();
    assert!(crowd.end_longest_idle());
    let task = tokio::spawn(std::future::pending::<()>());
    place.seated().ends_with(task.abort_handle());
    assert!(task.await.unwrap_err().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn those_who_make_room_are_waited_for_when_many_leave() {
    let crowd = crowd().await;
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
    let crowd = crowd().await;
    let places: Vec<_> = (0..100).map(|_| crowd.one()).collect();
    assert!(places.iter().all(Place::begins));
    let looks = || crowd.lock().looks;
    for _ in 0..1000 {
        assert!(crowd.enter_now(100).0.is_none());
    }
    assert_eq!(looks(), 1);
    // A connection that becomes idle reports that.
    places[7].rests(Instant::now() - 2 * JUST_COME);
    places[8].rests(Instant::now() - 2 * JUST_COME);
    assert!(places[8].begins());
    let another = crowd.enter_now(100).0.unwrap();
    assert!(!places[7].begins());
    assert!(another.begins());
    assert_eq!((crowd.enter_now(100).0.is_none(), looks()), (true, 1));
    later().await;
    assert_eq!((crowd.enter_now(100).0.is_none(), looks()), (true, 2));
}

#[tokio::test(start_paused = true)]
async fn idle_time_begins_with_the_last_byte_moved() {
    let crowd = crowd().await;
    let places: Vec<_> = (0..3).map(|_| crowd.one()).collect();
    assert!(places[2].begins());
    later().await;
    let now = Instant::now();
    places.iter().for_each(|place| place.refreshes(now));
    // An older moment than the known one changes nothing.
    places[1].refreshes(now - Duration::from_millis(500));
    places[0].refreshes(now + Duration::from_millis(1));
    later().await;
    assert!(crowd.end_longest_idle() && !places[1].begins() && places[0].begins());
    places[0].rests(now);
    places[1].rests(now);
    places[1].refreshes(now + Duration::from_secs(1));
    later().await;
    assert!(crowd.end_longest_idle() && !places[0].begins() && !crowd.end_longest_idle());
    drop(places);
    let list = crowd.lock();
    assert_eq!((list.seats.len(), list.leaving), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_place_is_its_own_until_its_connection_has_had_time_to_ask() {
    let crowd = crowd().await;
    let entered = crowd.enter(1, 1).await.place.unwrap();
    assert!(crowd.enter_now(1).0.is_none());
    later().await;
    // Its request may be on its way, also when one was answered before.
    for _ in 0..2 {
        assert!(crowd.enter_from(1, 1).0.is_none());
        assert!(entered.begins() && entered.rests(Instant::now()));
        assert!(crowd.enter_from(1, 1).0.is_none());
        advance(JUST_COME / 2).await;
    }
    advance(JUST_COME).await;
    let next = crowd.enter(1, 1).await;
    assert!(next.place.is_some() && next.ended == Ended { idle: 1, busy: 0 });
    // Of two newcomers at the same moment, one gets the free place.
    drop((entered, next));
    let both = tokio::join!(crowd.enter(1, 1), crowd.enter(1, 1));
    assert!(both.0.place.is_some() && both.1.place.is_none());
}

#[tokio::test(start_paused = true)]
async fn lingering_connections_keep_no_place_and_are_bounded() {
    let crowd = crowd().await;
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
    let crowd = crowd().await;
    let seats = [(); 3].map(|()| crowd.one().seated());
    let first = seats[0].streams(2);
    let second = seats[1].streams(2);
    assert!(first.is_some() && second.is_some() && seats[2].streams(2).is_none());
    drop(first);
    assert!(seats[2].streams(2).is_some());
}

#[tokio::test(start_paused = true)]
async fn one_that_is_not_let_in_costs_nobody_its_place() {
    let crowd = crowd().await;
    let (greedy, some, none) = (1, 2, 3);
    let many: Vec<_> = (0..30).map(|_| crowd.enter_from(38, greedy).0.unwrap()).collect();
    let few: Vec<_> = (0..8).map(|_| crowd.enter_from(38, some).0.unwrap()).collect();
    assert!(many.iter().chain(&few).all(Place::begins));
    // The door has become smaller. Of the thirty, thirteen could go for a ninth of the other
    // address, which is not enough.
    let (place, ended) = crowd.enter_from(10, some);
    assert_eq!((place.is_none(), ended), (true, Ended::default()));
    assert!(many.iter().chain(&few).all(Place::begins));
    let (place, ended) = crowd.enter_from(10, none);
    assert_eq!((place.is_some(), ended), (true, Ended { idle: 0, busy: 29 }));
}

#[tokio::test(start_paused = true)]
async fn one_whose_client_has_closed_its_side_is_the_first_to_go() {
    let crowd = crowd().await;
    let (idle, closed) = (crowd.one(), crowd.one());
    assert!(closed.begins());
    later().await;
    later().await;
    closed.departs();
    let goes = |place: &Place| place.seated().told_to_go().now_or_never().is_some();
    assert!(crowd.end_longest_idle());
    assert!(!goes(&idle) && goes(&closed) && !closed.begins());
    // A client that has its answer is busy again.
    let answered = crowd.one();
    assert!(answered.begins());
    answered.departs();
    assert!(answered.begins() && crowd.end_longest_idle());
    assert!(goes(&idle) && !goes(&answered));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_waits_for_a_second_at_most() {
    let crowd = crowd().await;
    let idle: Vec<_> = (0..LEAVING).map(|_| crowd.one()).collect();
    let places: Vec<_> = (0..LEAVING).map_while(|_| crowd.enter_now(LEAVING).0).collect();
    assert_eq!(places.len(), LEAVING);
    // The connections that had to go never leave.
    let began = Instant::now();
    assert!(crowd.enter(LEAVING, 1).await.place.is_none());
    assert!((LONGEST_LEAVE..2 * LONGEST_LEAVE).contains(&began.elapsed()), "{:?}", began.elapsed());
    drop((idle, places));
}
