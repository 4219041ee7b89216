//! The memory for transactions on their way to nodes: one bound for all tenants and networks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, time::sleep};

use crate::memory::{Account, Budget, Claim};

/// Transactions on their way to nodes may take an eighth of the clients' memory in all.
const DIVISOR: usize = 8;
/// A transaction of this length at most is small: it waits behind no other, and may take the
/// reserve. Otherwise long transactions, whose places last until a node that hangs is given up,
/// would hold up everybody's.
const SMALL: usize = 4096;
/// The reserve for small transactions: this part of the room.
const RESERVE_DIVISOR: usize = 8;
/// The pause before a sending without room asks for room again.
const ROOM_PAUSE: Duration = Duration::from_millis(20);
/// Copies of a transaction that a sending holds: the bytes, and their hex digits.
const COPIES: usize = 3;
/// Bytes of a sending besides the copies.
const OVERHEAD: usize = 1024;

/// The room.
#[derive(Debug)]
pub(super) struct SendRoom {
    budget: Arc<Budget>,
    held: AtomicUsize,
    /// Waiting sendings.
    waiting: AtomicUsize,
    /// Waiting sendings take turns.
    turn: Semaphore,
}

/// A waiting sending, in the count while it waits.
struct Waiting<'r>(&'r AtomicUsize);

impl<'r> Waiting<'r> {
    fn new(count: &'r AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// A place in the room, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<SendRoom>,
    bytes: usize,
    _claim: Claim,
}

impl SendRoom {
    /// A room in the memory of `budget`.
    pub(super) fn new(budget: Arc<Budget>) -> Arc<Self> {
        Arc::new(Self { budget, held: AtomicUsize::new(0), waiting: AtomicUsize::new(0), turn: Semaphore::new(1) })
    }

    /// A place for a transaction of this length, where there is room and none waits.
    pub(super) fn take_now(self: &Arc<Self>, length: usize) -> Option<Place> {
        if length > SMALL && self.waiting.load(SeqCst) > 0 {
            return None;
        }
        self.place(length)
    }

    /// A place for a transaction of this length, as soon as there is room. Cancel-safe.
    pub(super) async fn take(self: &Arc<Self>, length: usize) -> Place {
        let _waiting = (length > SMALL).then(|| Waiting::new(&self.waiting));
        // The semaphore is never closed.
        let _turn = if length > SMALL { self.turn.acquire().await.ok() } else { None };
        loop {
            if let Some(place) = self.place(length) {
                return place;
            }
            sleep(ROOM_PAUSE).await;
        }
    }

    fn place(self: &Arc<Self>, length: usize) -> Option<Place> {
        let bytes = length * COPIES + OVERHEAD;
        let before = self.held.fetch_add(bytes, SeqCst);
        let mut claim = Account::open(&self.budget).incoming();
        // However little memory there is, one transaction may go.
        let is_alone = before == 0;
        let limit = self.budget.limit() / DIVISOR;
        let limit = if length > SMALL { limit - limit / RESERVE_DIVISOR } else { limit };
        let has_room = before + bytes <= limit && claim.resize(bytes).is_ok();
        if !has_room && !is_alone {
            self.held.fetch_sub(bytes, SeqCst);
            return None;
        }
        claim.set(bytes);
        Some(Place { room: self.clone(), bytes, _claim: claim })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.held.fetch_sub(self.bytes, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sends_share_an_eighth_of_the_memory() {
        let budget = Budget::new(9 << 20);
        let room = SendRoom::new(budget.clone());
        let places: Vec<_> = std::iter::from_fn(|| room.take_now(100_000)).collect();
        assert_eq!(places.len(), 3, "an eighth, less the reserve, is 1 MiB");
        assert!(budget.held() > 800_000, "{}", budget.held());
        let waits = tokio::spawn({
            let room = room.clone();
            async move { room.take(100_000).await }
        });
        sleep(ROOM_PAUSE * 10).await;
        assert!(!waits.is_finished());
        assert!(room.take_now(5000).is_none(), "those who wait come first");
        assert!(room.take_now(100).is_some(), "a small one waits for no long ones");
        drop(places);
        let place = waits.await.unwrap();
        drop(place);
        assert_eq!((budget.held(), room.held.load(SeqCst)), (0, 0));
    }

    #[tokio::test]
    async fn one_transaction_may_go_however_large() {
        let room = SendRoom::new(Budget::new(1 << 10));
        let large = room.take(1 << 20).now_or_never().unwrap();
        assert!(room.take_now(1).is_none());
        drop(large);
        assert!(room.take_now(1).is_some());
    }
}
