//! The share of each client in a queue. Where the queue is full, the client with the largest share
//! gives up its newest call to a client with a smaller one, so that no client keeps the others out.
//! A client is the task that waits: a connection's own. Each signed message of the beacon API waits
//! in a task of its own, and counts as a client.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use tokio::{sync::Notify, task};

use crate::domain::refusal::Refusal;

/// A client, known by the task that waits; `None` for code that runs in no task.
type Who = Option<task::Id>;

/// The places of one queue.
pub(super) struct ClientQuotas {
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
    /// The clients in the order of their amounts: of calls, and of bytes.
    by_calls: BTreeSet<(usize, Who)>,
    by_bytes: BTreeSet<(usize, Who)>,
}

#[derive(Default)]
struct Client {
    has: Amount,
    /// By the calls' numbers, which grow: each call's bytes, and the bell that tells the call to
    /// go.
    calls: BTreeMap<u64, (usize, Arc<Bell>)>,
}

/// Tells a call to go.
#[derive(Default)]
struct Bell {
    rung: Notify,
    /// Whether bytes are short, and not places.
    is_for_bytes: AtomicBool,
}

/// The bound that another call would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Short {
    Calls,
    Bytes,
}

#[derive(Clone, Copy, Default)]
struct Amount {
    calls: usize,
    bytes: usize,
}

/// A call's place, given up on drop.
pub(super) struct HeldPlace<'a> {
    quotas: &'a ClientQuotas,
    client: Who,
    number: u64,
    bell: Arc<Bell>,
}

impl Drop for HeldPlace<'_> {
    fn drop(&mut self) {
        let mut state = self.quotas.lock();
        state.remove(self.client, self.number);
        self.quotas.calls.store(state.total.calls, Relaxed);
    }
}

impl HeldPlace<'_> {
    /// Completes when the place has to be given up to another client, with the refusal for the
    /// call.
    pub(super) async fn lost(&self) -> Refusal {
        self.bell.rung.notified().await;
        self.quotas.full(if self.bell.is_for_bytes.load(Acquire) { Short::Bytes } else { Short::Calls })
    }
}

impl ClientQuotas {
    pub(super) fn new(max_calls: usize, max_bytes: usize) -> Self {
        Self { state: Mutex::default(), calls: AtomicUsize::new(0), max_calls, max_bytes }
    }

    /// Whether no call has a place.
    pub(super) fn is_empty(&self) -> bool {
        self.calls.load(Relaxed) == 0
    }

    fn full(&self, short: Short) -> Refusal {
        match short {
            Short::Calls => Refusal::Limit { name: "max_held", limit: self.max_calls },
            Short::Bytes => Refusal::Limit { name: "max_held_bytes", limit: self.max_bytes },
        }
    }

    /// A place for a call of `bytes` bytes, whose client is the task that asks.
    ///
    /// # Errors
    /// When the queue is full, and no client has more of the queue than this one would have.
    pub(super) fn enter(&self, bytes: usize) -> Result<HeldPlace<'_>, Refusal> {
        self.enter_as(task::try_id(), bytes)
    }

    fn enter_as(&self, client: Who, bytes: usize) -> Result<HeldPlace<'_>, Refusal> {
        let mut state = self.lock();
        // No call is cut unless the cuts make room enough.
        let in_the_way = self.in_the_way(&state, client, bytes).map_err(|short| self.full(short))?;
        for (client, number, short) in in_the_way {
            state.cut(client, number, short);
        }
        let (number, bell) = state.add(client, bytes);
        self.calls.store(state.total.calls, Relaxed);
        Ok(HeldPlace { quotas: self, client, number, bell })
    }

    /// The calls that have to go for another one: of the client that has most, the newest.
    fn in_the_way(&self, state: &State, client: Who, bytes: usize) -> Result<Vec<(Who, u64, Short)>, Short> {
        let has = state.clients.get(&client).map_or(Amount::default(), |client| client.has);
        let mut total = state.total;
        // The amounts of these clients after the cuts, and the calls that each could still give up.
        let mut left = BTreeMap::new();
        let mut in_the_way = Vec::new();
        loop {
            let short = match () {
                () if total.calls >= self.max_calls => Short::Calls,
                () if total.bytes + bytes > self.max_bytes => Short::Bytes,
                () => return Ok(in_the_way),
            };
            let (order, least) = match short {
                Short::Calls => (&state.by_calls, has.calls + 1),
                Short::Bytes => (&state.by_bytes, has.bytes + bytes),
            };
            let of_others = order.iter().rev().find(|(_, who)| !left.contains_key(who)).copied();
            let of_these = left.iter().map(|(who, (has, _)): (&Who, &(Amount, _))| (has.of(short), *who)).max();
            let most = of_others.max(of_these).filter(|(most, _)| *most > least);
            let most = most.and_then(|(_, who)| Some((who, state.clients.get(&who)?)));
            let Some((who, most)) = most else { return Err(short) };
            let (has, calls) = left.entry(who).or_insert_with(|| (most.has, most.calls.iter().rev()));
            let Some((number, (bytes, _))) = calls.next() else { return Err(short) };
            for amount in [has, &mut total] {
                *amount = Amount { calls: amount.calls - 1, bytes: amount.bytes - bytes };
            }
            in_the_way.push((who, *number, short));
        }
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Amount {
    fn of(self, short: Short) -> usize {
        match short {
            Short::Calls => self.calls,
            Short::Bytes => self.bytes,
        }
    }
}

impl State {
    fn add(&mut self, client: Who, bytes: usize) -> (u64, Arc<Bell>) {
        self.last += 1;
        let (number, bell) = (self.last, Arc::<Bell>::default());
        self.change(client, |entry| {
            entry.calls.insert(number, (bytes, bell.clone()));
            entry.has = Amount { calls: entry.has.calls + 1, bytes: entry.has.bytes + bytes };
        });
        (number, bell)
    }

    /// Removes a call, if the call is still there.
    fn remove(&mut self, client: Who, number: u64) {
        self.change(client, |entry| {
            if let Some((bytes, _)) = entry.calls.remove(&number) {
                entry.has = Amount { calls: entry.has.calls - 1, bytes: entry.has.bytes - bytes };
            }
        });
    }

    /// Has a client give up a call.
    fn cut(&mut self, client: Who, number: u64, short: Short) {
        if let Some((_, bell)) = self.clients.get(&client).and_then(|client| client.calls.get(&number)) {
            bell.is_for_bytes.store(short == Short::Bytes, Release);
            bell.rung.notify_one();
        }
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
        let quotas = ClientQuotas::new(4, 1000);
        let [greedy, other] = clients().await;
        let places: Vec<_> = (0..4).map(|_| quotas.enter_as(greedy, 10).ok()).collect();
        assert!(quotas.enter_as(greedy, 10).is_err());
        let (first, second) = (quotas.enter_as(other, 10), quotas.enter_as(other, 10));
        assert!(first.is_ok() && second.is_ok());
        let lost =
            |place: &Option<HeldPlace<'_>>| place.as_ref().is_some_and(|place| place.lost().now_or_never().is_some());
        // The newest go, and only as many as the other is behind.
        assert_eq!(places.iter().map(lost).collect::<Vec<_>>(), [false, false, true, true]);
        assert!(quotas.enter_as(other, 10).is_err() && quotas.enter_as(greedy, 10).is_err());
        drop(places);
        assert!(!quotas.is_empty());
        drop((first, second));
        assert!(quotas.is_empty() && quotas.lock().clients.is_empty() && quotas.lock().by_bytes.is_empty());
    }

    #[tokio::test]
    async fn no_call_gives_way_to_one_that_still_finds_no_room() {
        let quotas = ClientQuotas::new(3, 1000);
        let [small, large, other, late] = clients().await;
        let places = [(large, 400), (other, 300), (other, 300)].map(|(who, bytes)| quotas.enter_as(who, bytes).ok());
        let lost = || places.each_ref().map(|place| place.as_ref().and_then(|place| place.lost().now_or_never()));
        // A place would be free for this call, but not the bytes.
        assert!(matches!(quotas.enter_as(late, 700), Err(Refusal::Limit { name: "max_held_bytes", .. })));
        assert_eq!(lost(), [None, None, None]);
        let place = quotas.enter_as(small, 50);
        assert!(place.is_ok());
        assert_eq!(lost(), [None, None, Some(Refusal::Limit { name: "max_held", limit: 3 })]);
        drop(place);
        // Where bytes are short, the refusal names the limit on bytes.
        let more = quotas.enter_as(late, 350);
        assert!(more.is_ok());
        assert_eq!(lost(), [Some(Refusal::Limit { name: "max_held_bytes", limit: 1000 }), None, None]);
    }

    #[tokio::test]
    async fn a_small_call_finds_room_beside_large_ones() {
        let quotas = ClientQuotas::new(100, 1000);
        let [small, large @ ..] = clients::<5>().await;
        let places: Vec<_> = large.into_iter().map(|client| quotas.enter_as(client, 250).ok()).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(matches!(quotas.enter_as(small, 251), Err(Refusal::Limit { name: "max_held_bytes", .. })));
        let place = quotas.enter_as(small, 10);
        assert!(place.is_ok());
        assert_eq!(quotas.lock().total.bytes, 760);
        drop(places);
        assert_eq!(quotas.lock().total.bytes, 10);
    }
}
