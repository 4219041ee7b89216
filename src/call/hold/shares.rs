//! What each client has in a queue. Where the queue is full, the client that has most of it gives up its newest call to one that has
//! less, so that none keeps the others out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{sync::Notify, task};

use crate::domain::refusal::Refusal;

/// A client, known by the task that has its connection; `None`: whatever runs in no task.
type Who = Option<task::Id>;

/// The places of one queue.
pub(super) struct Shares {
    state: Mutex<State>,
    /// The number of calls, to be read without the lock.
    calls: AtomicUsize,
    max_calls: usize,
    max_bytes: usize,
}

#[derive(Default)]
struct State {
    last: u64,
    /// Over all clients.
    total: Amount,
    clients: BTreeMap<Who, Client>,
    /// The clients in the order of what they have: of calls, and of bytes.
    by_calls: BTreeSet<(usize, Who)>,
    by_bytes: BTreeSet<(usize, Who)>,
}

#[derive(Default)]
struct Client {
    has: Amount,
    /// By their numbers, which grow: what each takes, and the bell that tells it to go.
    calls: BTreeMap<u64, (usize, Arc<Notify>)>,
}

#[derive(Clone, Copy, Default)]
struct Amount {
    calls: usize,
    bytes: usize,
}

/// A call's place, given up when it is dropped.
pub(super) struct Place<'a> {
    shares: &'a Shares,
    client: Who,
    number: u64,
    bell: Arc<Notify>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.shares.lock();
        state.remove(self.client, self.number);
        self.shares.calls.store(state.total.calls, Relaxed);
    }
}

impl Place<'_> {
    /// Completes when the place has to be given up to another client.
    pub(super) async fn lost(&self) {
        self.bell.notified().await;
    }
}

impl Shares {
    pub(super) fn new(max_calls: usize, max_bytes: usize) -> Self {
        Self { state: Mutex::default(), calls: AtomicUsize::new(0), max_calls, max_bytes }
    }

    /// Whether nobody has a place.
    pub(super) fn is_empty(&self) -> bool {
        self.calls.load(Relaxed) == 0
    }

    /// The refusal of a call for which there is no place.
    pub(super) fn full(&self) -> Refusal {
        Refusal::Limit { name: "max_held", limit: self.max_calls }
    }

    /// A place for a call of `bytes` bytes, whose client is the task that asks.
    ///
    /// # Errors
    /// When the queue is full, and no client has more of it than this one would have.
    pub(super) fn enter(&self, bytes: usize) -> Result<Place<'_>, Refusal> {
        self.enter_as(task::try_id(), bytes)
    }

    fn enter_as(&self, client: Who, bytes: usize) -> Result<Place<'_>, Refusal> {
        let mut state = self.lock();
        let has = state.clients.get(&client).map_or(Amount::default(), |client| client.has);
        while state.total.calls >= self.max_calls {
            let most = state.by_calls.last().copied().filter(|(calls, _)| *calls > has.calls + 1);
            let Some((_, most)) = most else { return Err(self.full()) };
            state.cut(most);
        }
        while state.total.bytes + bytes > self.max_bytes {
            let most = state.by_bytes.last().copied().filter(|(most, _)| *most > has.bytes + bytes);
            let Some((_, most)) = most else {
                return Err(Refusal::Limit { name: "max_held_bytes", limit: self.max_bytes });
            };
            state.cut(most);
        }
        let (number, bell) = state.add(client, bytes);
        self.calls.store(state.total.calls, Relaxed);
        Ok(Place { shares: self, client, number, bell })
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, client: Who, bytes: usize) -> (u64, Arc<Notify>) {
        self.last += 1;
        let (number, bell) = (self.last, Arc::new(Notify::new()));
        self.change(client, |entry| {
            entry.calls.insert(number, (bytes, bell.clone()));
            entry.has = Amount { calls: entry.has.calls + 1, bytes: entry.has.bytes + bytes };
        });
        (number, bell)
    }

    /// Takes a call out, if it is still there.
    fn remove(&mut self, client: Who, number: u64) {
        self.change(client, |entry| {
            if let Some((bytes, _)) = entry.calls.remove(&number) {
                entry.has = Amount { calls: entry.has.calls - 1, bytes: entry.has.bytes - bytes };
            }
        });
    }

    /// Has a client give up its newest call.
    fn cut(&mut self, client: Who) {
        let newest = self.clients.get(&client).and_then(|client| client.calls.last_key_value());
        let Some((number, bell)) = newest.map(|(number, (_, bell))| (*number, bell.clone())) else { return };
        bell.notify_one();
        self.remove(client, number);
    }

    fn change(&mut self, client: Who, change: impl FnOnce(&mut Client)) {
        let entry = self.clients.entry(client).or_default();
        let before = entry.has;
        change(entry);
        let after = entry.has;
        self.by_calls.remove(&(before.calls, client));
        self.by_bytes.remove(&(before.bytes, client));
        if after.calls == 0 {
            self.clients.remove(&client);
        } else {
            self.by_calls.insert((after.calls, client));
            self.by_bytes.insert((after.bytes, client));
        }
        self.total.calls = self.total.calls - before.calls + after.calls;
        self.total.bytes = self.total.bytes - before.bytes + after.bytes;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    async fn clients<const N: usize>() -> [Who; N] {
        let mut all = [None; N];
        for who in &mut all {
            *who = tokio::spawn(async { task::try_id() }).await.unwrap();
        }
        all
    }

    #[tokio::test]
    async fn a_full_queue_has_room_for_who_has_less_of_it() {
        let shares = Shares::new(4, 1000);
        let [greedy, other] = clients().await;
        let places: Vec<_> = (0..4).map(|_| shares.enter_as(greedy, 10).ok()).collect();
        assert!(shares.enter_as(greedy, 10).is_err());
        let (first, second) = (shares.enter_as(other, 10), shares.enter_as(other, 10));
        assert!(first.is_ok() && second.is_ok());
        let lost =
            |place: &Option<Place<'_>>| place.as_ref().is_some_and(|place| place.lost().now_or_never().is_some());
        // The newest go, and only as many as the other is behind.
        assert_eq!(places.iter().map(lost).collect::<Vec<_>>(), [false, false, true, true]);
        assert!(shares.enter_as(other, 10).is_err() && shares.enter_as(greedy, 10).is_err());
        drop(places);
        assert!(!shares.is_empty());
        drop((first, second));
        assert!(shares.is_empty() && shares.lock().clients.is_empty() && shares.lock().by_bytes.is_empty());
    }

    #[tokio::test]
    async fn a_small_call_finds_room_beside_large_ones() {
        let shares = Shares::new(100, 1000);
        let [small, large @ ..] = clients::<5>().await;
        let places: Vec<_> = large.into_iter().map(|client| shares.enter_as(client, 250).ok()).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(matches!(shares.enter_as(small, 251), Err(Refusal::Limit { name: "max_held_bytes", .. })));
        let place = shares.enter_as(small, 10);
        assert!(place.is_ok());
        assert_eq!(shares.lock().total.bytes, 760);
        drop(places);
        assert_eq!(shares.lock().total.bytes, 10);
    }
}
