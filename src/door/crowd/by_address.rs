//! How many of the connections each client's address has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::seat::Seat;

/// An address has clearly more than another when it has twice as many.
const CLEARLY: usize = 2;

/// The seats of connections, by addresses. Addresses without a connection are left out.
#[derive(Default)]
pub(super) struct SeatsByAddress {
    of: BTreeMap<u64, BTreeMap<u64, Arc<Seat>>>,
    /// The addresses in the order of their numbers of seats.
    by_count: BTreeSet<(usize, u64)>,
    all: usize,
}

impl SeatsByAddress {
    /// The seats of all addresses.
    pub(super) fn len(&self) -> usize {
        self.all
    }

    pub(super) fn add(&mut self, seat: &Arc<Seat>) {
        self.change(seat.address(), |seats| _ = seats.insert(seat.number(), seat.clone()));
    }

    /// Removes a seat, if the seat is there.
    pub(super) fn remove(&mut self, seat: &Seat) {
        self.change(seat.address(), |seats| _ = seats.remove(&seat.number()));
    }

    /// Whether the addresses that have clearly more than this one would have can give up `count`
    /// seats together.
    pub(super) fn can_give(&self, address: u64, count: usize) -> bool {
        let clear = CLEARLY * (self.of.get(&address).map_or(0, BTreeMap::len) + 1);
        let more =
            self.by_count.iter().rev().map_while(|(has, _)| (has + 1).checked_sub(clear).filter(|more| *more > 0));
        // Each address gives until it no longer has clearly more.
        more.scan(0, |given, more| {
            *given += more;
            Some(*given)
        })
        .any(|given| given >= count)
    }

    /// The newest seat of the address with the most, if that is clearly more than `address` would
    /// have with one more.
    pub(super) fn outnumbering(&self, address: u64) -> Option<Arc<Seat>> {
        let own = self.of.get(&address).map_or(0, BTreeMap::len);
        let (_, most) = self.by_count.last().filter(|(count, _)| *count >= CLEARLY * (own + 1))?;
        self.of.get(most)?.last_key_value().map(|(_, seat)| seat.clone())
    }

    fn change(&mut self, address: u64, change: impl FnOnce(&mut BTreeMap<u64, Arc<Seat>>)) {
        let seats = self.of.entry(address).or_default();
        let before = seats.len();
        change(seats);
        let after = seats.len();
        self.by_count.remove(&(before, address));
        if after == 0 {
            self.of.remove(&address);
        } else {
            self.by_count.insert((after, address));
        }
        self.all = self.all - before + after;
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use futures_util::{FutureExt, task::noop_waker_ref};
    use tokio::time::{Duration, advance};

    use crate::{
        door::crowd::{Crowd, Ended, Entered, JUST_COME, LAST_WORDS, Place},
        memory::{Account, Cut},
    };

    /// A busy connection, and the account that tells it to go.
    struct Busy(Place, std::sync::Arc<Account>);

    impl Busy {
        fn is_cut(&self) -> bool {
            let heard = self.1.poll_cut(&mut Context::from_waker(noop_waker_ref()));
            heard == Poll::Ready(Cut::Crowded) && !self.0.begins() && !self.0.rests(tokio::time::Instant::now())
        }
    }

    fn enter(crowd: &std::sync::Arc<Crowd>, limit: usize, address: u64) -> (Option<Busy>, Ended) {
        let Some(Entered { place, ended }) = crowd.enter(limit, address).now_or_never() else {
            return (None, Ended::default());
        };
        let busy = place.map(|place| {
            let account = Account::unlimited();
            place.is_told_by(&account);
            assert!(place.begins());
            Busy(place, account)
        });
        (busy, ended)
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_door_is_open_to_an_address_that_has_clearly_less() {
        const CUT: Ended = Ended { idle: 0, busy: 1 };
        let crowd = Crowd::new();
        let mut many: Vec<_> = (0..10).filter_map(|_| enter(&crowd, 10, 1).0).collect();
        assert_eq!(many.len(), 10);
        assert!(enter(&crowd, 10, 1).0.is_none());
        let mut few = Vec::new();
        for _ in 0..3 {
            let (busy, ended) = enter(&crowd, 10, 2);
            assert_eq!(ended, CUT);
            few.push(busy.unwrap());
            // The newest goes.
            assert!(many.pop().unwrap().is_cut());
        }
        // Seven are not twice as many as four.
        for address in [1, 2] {
            assert_eq!(
                (enter(&crowd, 10, address).0.is_none(), enter(&crowd, 10, address).1),
                (true, Ended::default())
            );
        }
        // A third address takes from the address with the most, and an idle connection goes before
        // all busy ones.
        let (third, ended) = enter(&crowd, 10, 3);
        assert!(third.is_some() && ended == CUT && many.pop().unwrap().is_cut());
        assert!(few[0].0.rests(tokio::time::Instant::now()));
        advance(2 * JUST_COME).await;
        assert_eq!(enter(&crowd, 10, 3).1, Ended { idle: 1, busy: 0 });
        assert!(many.iter().chain(&few[1..]).all(|busy| busy.0.begins()));
        drop((many, few, third));
        let list = crowd.lock();
        assert!(
            list.seats.is_empty() && list.cut.is_empty() && list.by_address.len() == 0 && list.by_address.of.is_empty()
        );
        assert_eq!((list.leaving, list.by_address.by_count.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn connection_that_does_not_leave_in_time_is_ended() {
        let crowd = Crowd::new();
        let many: Vec<_> = (0..4).filter_map(|_| enter(&crowd, 4, 1).0).collect();
        let task = tokio::spawn(std::future::pending::<()>());
        many[3].0.seated().ends_with(task.abort_handle());
        assert_eq!(enter(&crowd, 4, 2).1.busy, 1);
        let Busy(_, account) = &many[3];
        assert!(account.poll_cut(&mut Context::from_waker(noop_waker_ref())).is_ready());
        advance(LAST_WORDS / 2).await;
        drop(enter(&crowd, 4, 2));
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        advance(LAST_WORDS).await;
        drop(enter(&crowd, 4, 2));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(task.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_with_few_streams_finds_room_for_one() {
        let crowd = Crowd::new();
        let entered = |address| enter(&crowd, 100, address).0.unwrap();
        let many: Vec<_> = (0..5).map(|_| entered(1)).collect();
        let mut streams: Vec<_> = many.iter().filter_map(|busy| busy.0.seated().streams(4)).collect();
        assert_eq!(streams.len(), 4);
        let other = entered(2);
        let stream = other.0.seated().streams(4);
        assert!(stream.is_some());
        let heard = many[3].1.poll_cut(&mut Context::from_waker(noop_waker_ref()));
        assert_eq!(heard, Poll::Ready(Cut::Crowded));
        // Three are not twice as many as two.
        assert!(entered(2).0.seated().streams(4).is_none() && many[4].0.seated().streams(4).is_none());
        // A stream that was given up is not given up again by its end.
        drop(streams.pop());
        assert!(many[4].0.seated().streams(4).is_none());
        drop(streams.pop());
        assert!(many[4].0.seated().streams(4).is_some());
    }
}
