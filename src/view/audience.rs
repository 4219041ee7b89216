//! Who listens: the subscribers to one thing, in one room for each worker, so that each is told on the thread that serves it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::{
    courier::Couriers,
    mailbox::{Closing, Mailbox},
};
use crate::metrics::Metrics;

/// The subscribers to one thing. They have wishes, and those of one wish are told the same.
pub(super) struct Audience<W> {
    rooms: Box<[Mutex<Room<W>>]>,
    couriers: Couriers,
    /// The newest change that has been announced, by its number.
    now: AtomicU64,
    /// For the metrics.
    kind: &'static str,
    metrics: Arc<Metrics>,
}

struct Room<W> {
    came: u64,
    /// The state that lasts, where it is states that are told, and it is known.
    present: Option<Arc<str>>,
    /// Whoever comes is closed too, when its subscription begins.
    closed: Option<Closing>,
    /// By wish, then in the order in which they came.
    seats: BTreeMap<Arc<W>, BTreeMap<u64, Listener>>,
}

struct Listener {
    /// The newest change that had been announced when it came: it hears of those that follow.
    since: u64,
    /// Whether it was told anything.
    was_told: bool,
    /// Its notifications' text up to the result.
    head: Arc<str>,
    mailbox: Arc<Mailbox>,
    /// Where it hears while its subscription has not begun.
    held: Option<Box<Held>>,
}

/// What a subscriber has heard and is to be told when its subscription begins.
#[derive(Default)]
struct Held {
    results: Vec<Arc<str>>,
    /// Whether the end came already.
    closing: Option<Closing>,
}

/// A subscriber's place; dropping it leaves.
pub(super) struct Seat<W: Ord> {
    audience: Arc<Audience<W>>,
    wish: Arc<W>,
    room: usize,
    number: u64,
    counted: Option<Box<dyn std::any::Any + Send + Sync>>,
}

impl<W: Ord + Send + Sync + 'static> Audience<W> {
    pub(super) fn new(kind: &'static str, couriers: Couriers, metrics: Arc<Metrics>) -> Arc<Self> {
        let room = || Mutex::new(Room { came: 0, present: None, closed: None, seats: BTreeMap::new() });
        let rooms = (0..couriers.count()).map(|_| room()).collect();
        Arc::new(Self { rooms, couriers, now: AtomicU64::new(0), kind, metrics })
    }

    /// Lets a subscriber in, who hears of all that is announced from now on. `head` is the text of its notifications up to the result.
    pub(super) fn join(self: &Arc<Self>, wish: W, head: Arc<str>, mailbox: Arc<Mailbox>) -> Seat<W> {
        let mut seat = self.expect(wish, head, mailbox);
        seat.begin();
        seat
    }

    /// Lets a subscriber in whose answer is not on its way: what it hears from now on waits for [`Seat::begin`], behind the present
    /// state, if states are told and one was.
    pub(super) fn expect(self: &Arc<Self>, wish: W, head: Arc<str>, mailbox: Arc<Mailbox>) -> Seat<W> {
        let index = self.couriers.here();
        let wish = Arc::new(wish);
        let mut room = self.room(index);
        // Read inside the room: whoever announces a change and then looks into it either finds this one, or has been heard by it.
        let since = self.now.load(Relaxed);
        let mut one = Listener { since, was_told: false, head, mailbox, held: Some(Box::default()) };
        if let Some(present) = &room.present {
            one.tell(std::slice::from_ref(present));
        }
        if let Some(why) = room.closed {
            one.close(why);
        }
        room.came += 1;
        let number = room.came;
        let wish = match room.seats.get_key_value(&wish) {
            Some((known, _)) => known.clone(),
            None => wish,
        };
        room.seats.entry(wish.clone()).or_default().insert(number, one);
        drop(room);
        Seat { audience: self.clone(), wish, room: index, number, counted: None }
    }

    /// The change of this number is there: it is told to nobody who comes from now on.
    pub(super) fn announce(&self, change: u64) {
        self.now.store(change, Relaxed);
    }

    /// The wishes of those who hear of the change of this number, each at least once.
    pub(super) fn wishes(&self, change: u64) -> Vec<Arc<W>> {
        let mut wishes = Vec::new();
        for index in 0..self.rooms.len() {
            let room = self.room(index);
            let hear = |listeners: &BTreeMap<u64, Listener>| listeners.values().any(|one| one.since < change);
            wishes.extend(room.seats.iter().filter(|(_, listeners)| hear(listeners)).map(|(wish, _)| wish.clone()));
        }
        wishes
    }

    /// Tells everybody who hears of the change of this number what `results` makes of the wish, in order. It is on its way when this is
    /// done, and what is told later arrives later.
    pub(super) async fn tell<R>(self: &Arc<Self>, change: u64, results: R)
    where
        R: Fn(&W) -> Arc<[Arc<str>]> + Send + Sync + 'static,
    {
        let results = Arc::new(results);
        for index in 0..self.rooms.len() {
            if self.room(index).seats.is_empty() {
                continue;
            }
            let (audience, results) = (self.clone(), results.clone());
            let job = move || audience.tell_room(index, None, |one| one.since < change, &*results);
            self.couriers.send(index, Box::new(job)).await;
        }
    }

    /// Tells a state, which lasts until the next, to everybody, or to those only who were told none yet: whoever is let in meanwhile hears of
    /// it first.
    pub(super) async fn tell_state(self: &Arc<Self>, state: Arc<str>, to_all: bool) {
        for index in 0..self.rooms.len() {
            let (audience, results): (_, Arc<[Arc<str>]>) = (self.clone(), [state.clone()].into());
            let job = move || {
                let hears = |one: &Listener| to_all || !one.was_told;
                audience.tell_room(index, Some(&results[0]), hears, |_| Arc::clone(&results));
            };
            self.couriers.send(index, Box::new(job)).await;
        }
    }

    /// What was told last need not be so any more: nobody who comes is told it.
    pub(super) async fn forget_state(self: &Arc<Self>) {
        for index in 0..self.rooms.len() {
            let audience = self.clone();
            self.couriers.send(index, Box::new(move || audience.room(index).present = None)).await;
        }
    }

    /// Closes everybody who hears of the change of this number and has one of `these` wishes, behind what they were told before.
    pub(super) async fn close(
        self: &Arc<Self>,
        change: u64,
        why: Closing,
        these: impl Fn(&W) -> bool + Send + Sync + 'static,
    ) {
        let these = Arc::new(these);
        for index in 0..self.rooms.len() {
            let (audience, these) = (self.clone(), these.clone());
            self.couriers.send(index, Box::new(move || audience.close_room(index, change, why, &*these))).await;
        }
    }

    /// Closes everybody at once, from whatever thread, also those who are yet to come.
    pub(super) fn close_all(&self, why: Closing) {
        for index in 0..self.rooms.len() {
            self.room(index).closed = Some(why);
            self.close_room(index, u64::MAX, why, &|_| true);
        }
    }

    /// Tells those in a room who hear of it; in one step, `present` becomes the state that lasts.
    fn tell_room(
        &self,
        index: usize,
        present: Option<&Arc<str>>,
        hears: impl Fn(&Listener) -> bool,
        results: impl Fn(&W) -> Arc<[Arc<str>]>,
    ) {
        let mut told = 0;
        let mut room = self.room(index);
        if present.is_some() {
            room.present = present.cloned();
        }
        for (wish, listeners) in &mut room.seats {
            let results = results(wish);
            if results.is_empty() {
                continue;
            }
            for one in listeners.values_mut().filter(|one| hears(one)) {
                if one.tell(&results) {
                    told += results.len() as u64;
                }
            }
        }
        drop(room);
        if told > 0 {
            self.metrics.notified(self.kind, told);
        }
    }

    fn close_room(&self, index: usize, change: u64, why: Closing, these: &dyn Fn(&W) -> bool) {
        let mut room = self.room(index);
        let seats = room.seats.iter_mut().filter(|(wish, _)| these(wish));
        seats.flat_map(|(_, seats)| seats.values_mut()).filter(|one| one.since < change).for_each(|one| one.close(why));
    }
}

impl Listener {
    /// `false` when the client is being closed, and so hears nothing.
    fn tell(&mut self, results: &[Arc<str>]) -> bool {
        self.was_told = true;
        match &mut self.held {
            None => self.mailbox.push_notes(&self.head, results),
            Some(held) => {
                let is_open = self.mailbox.hold(&self.head, results);
                if is_open {
                    held.results.extend_from_slice(results);
                } else {
                    self.mailbox.release(&self.head, results);
                }
                is_open
            }
        }
    }

    fn close(&mut self, why: Closing) {
        match &mut self.held {
            None => self.mailbox.close(why),
            Some(held) => _ = held.closing.get_or_insert(why),
        }
    }

    fn begin(&mut self) {
        let Some(held) = self.held.take() else { return };
        self.mailbox.release(&self.head, &held.results);
        self.mailbox.push_notes(&self.head, &held.results);
        if let Some(why) = held.closing {
            self.mailbox.close(why);
        }
    }
}

impl<W> Audience<W> {
    fn room(&self, index: usize) -> MutexGuard<'_, Room<W>> {
        // A room is whole at every moment, so a panic elsewhere cannot have spoilt it.
        self.rooms[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Ord> Seat<W> {
    /// Tells the subscriber what it has heard so far, and from now on each thing as it comes: the answer that tells it of the
    /// subscription is in its mailbox.
    pub(super) fn begin(&mut self) {
        let mut room = self.audience.room(self.room);
        if let Some(one) = room.seats.get_mut(&self.wish).and_then(|listeners| listeners.get_mut(&self.number)) {
            one.begin();
        }
        drop(room);
        let count = || Box::new(self.audience.metrics.subscription(self.audience.kind)) as _;
        self.counted.get_or_insert_with(count);
    }
}

impl<W: Ord> Drop for Seat<W> {
    fn drop(&mut self) {
        let mut room = self.audience.room(self.room);
        if let Some(listeners) = room.seats.get_mut(&self.wish) {
            if let Some(Listener { head, mailbox, held: Some(held), .. }) = listeners.remove(&self.number) {
                mailbox.release(&head, &held.results);
            }
            if listeners.is_empty() {
                room.seats.remove(&self.wish);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use tokio::sync::mpsc;

    use super::{
        super::{courier::Job, mailbox::Letter},
        *,
    };

    struct Hall {
        audience: Arc<Audience<u8>>,
        jobs: mpsc::Receiver<Job>,
    }

    impl Hall {
        fn new() -> Self {
            let (couriers, mut ends) = Couriers::new(1);
            let audience = Audience::new("newHeads", couriers, Arc::new(Metrics::new()));
            Self { audience, jobs: ends.remove(0) }
        }

        fn join(&self, wish: u8) -> (Arc<Mailbox>, Seat<u8>) {
            let mailbox = Mailbox::new(1000);
            let seat = self.audience.join(wish, "".into(), mailbox.clone());
            (mailbox, seat)
        }

        /// Tells each its own wish and the number of the change.
        async fn tell(&self, change: u64) {
            self.audience.announce(change);
            self.audience.tell(change, move |wish| [format!("{wish}:{change}").into()].into()).await;
        }

        fn work(&mut self) {
            while let Ok(job) = self.jobs.try_recv() {
                job();
            }
        }
    }

    fn heard(mailbox: &Mailbox) -> Vec<String> {
        let mut heard = Vec::new();
        while let Poll::Ready(letter) = mailbox.poll_next(&mut Context::from_waker(Waker::noop())) {
            let Letter::Note(note) = letter else { panic!("{letter:?}") };
            heard.push(String::from_utf8(note.parts()[1].to_vec()).unwrap());
        }
        heard
    }

    #[tokio::test]
    async fn who_comes_hears_of_what_is_announced_from_then_on() {
        let mut hall = Hall::new();
        let (early, _seat) = hall.join(1);
        hall.tell(1).await;
        let (late, _seat) = hall.join(1);
        assert_eq!(hall.audience.wishes(1).len(), 1);
        hall.tell(2).await;
        hall.work();
        assert_eq!((heard(&early), heard(&late)), (vec!["1:1".into(), "1:2".into()], vec!["1:2".to_owned()]));
    }

    #[tokio::test]
    async fn who_leaves_hears_nothing_of_what_is_on_its_way() {
        let mut hall = Hall::new();
        let ((one, stays), (two, leaves)) = (hall.join(1), hall.join(1));
        hall.tell(1).await;
        drop(leaves);
        hall.work();
        assert_eq!((heard(&one), heard(&two)), (vec!["1:1".into()], Vec::<String>::new()));
        drop(stays);
        assert_eq!(hall.audience.wishes(2), []);
        hall.tell(2).await;
        assert!(hall.jobs.try_recv().is_err(), "nobody is there");
    }

    #[tokio::test]
    async fn a_wish_is_worked_out_once_for_all_who_have_it() {
        use std::sync::atomic::AtomicUsize;
        let mut hall = Hall::new();
        let all: Vec<_> = (0..100).map(|n| hall.join(n % 2)).collect();
        assert_eq!(hall.audience.wishes(1).len(), 2);
        let worked = Arc::new(AtomicUsize::new(0));
        let count = worked.clone();
        let results = move |wish: &u8| {
            count.fetch_add(1, Relaxed);
            [wish.to_string().into()].into()
        };
        hall.audience.tell(1, results).await;
        hall.work();
        assert_eq!(worked.load(Relaxed), 2);
        assert!(all.iter().enumerate().all(|(n, (mailbox, _))| heard(mailbox) == [(n % 2).to_string()]));
    }

    #[tokio::test]
    async fn those_to_whom_a_change_matters_are_closed_behind_what_they_were_told() {
        let mut hall = Hall::new();
        let (early, _seat) = hall.join(1);
        hall.tell(1).await;
        hall.audience.announce(2);
        let ((late, _seat), (other, _other_seat)) = (hall.join(1), hall.join(2));
        hall.audience.close(2, Closing::Gap, |wish| *wish == 1).await;
        hall.audience.close(3, Closing::Gap, |wish| *wish == 3).await;
        hall.tell(3).await;
        hall.work();
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(early.poll_next(&mut context), Poll::Ready(Letter::Note(_))));
        assert_eq!(early.poll_next(&mut context), Poll::Ready(Letter::Close(Closing::Gap)));
        assert_eq!((heard(&late), heard(&other)), (vec!["1:3".into()], vec!["2:3".to_owned()]));
    }
}
