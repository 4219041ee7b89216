//! Where calls wait while no node can serve: in the order of their arrival, bounded in count and bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::{Instant, timeout_at},
};

use crate::{config::Calls, domain::refusal::Refusal, metrics::Metrics, pool::Pool};

/// The queue of one side of a network, whose calls are `To`'s.
pub struct Hold<To> {
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    /// The turn: whoever holds the one permit is first in the queue. Waiters get it in the order in which they asked.
    turn: Semaphore,
    calls: AtomicUsize,
    bytes: AtomicUsize,
    max_calls: usize,
    max_bytes: usize,
    fate: watch::Sender<Fate<To>>,
}

/// What has become of the queue.
enum Fate<To> {
    Open,
    Closed,
    Moved(Arc<To>),
}

/// How a call leaves the queue without a turn.
pub enum Left<To> {
    /// With an error.
    Refused(Refusal),
    /// A reload replaced the nodes: it goes on there.
    Moved(Arc<To>),
}

impl<To> From<Refusal> for Left<To> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A place at the head of the queue; the next call's turn comes when it is dropped.
pub struct Turn<'a>(#[expect(dead_code, reason = "held for its drop")] SemaphorePermit<'a>);

/// A call's share of the queue's bounds.
struct Place<'a, To> {
    hold: &'a Hold<To>,
    bytes: usize,
}

impl<To> Drop for Place<'_, To> {
    fn drop(&mut self) {
        self.hold.calls.fetch_sub(1, Relaxed);
        self.hold.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

impl<To> Hold<To> {
    /// An empty queue for the calls to `pool`.
    pub fn new(pool: Arc<Pool>, settings: &Calls, metrics: Arc<Metrics>) -> Self {
        Self {
            pool,
            metrics,
            turn: Semaphore::new(1),
            calls: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_calls: settings.max_held.get(),
            max_bytes: settings.max_held_bytes,
            fate: watch::Sender::new(Fate::Open),
        }
    }

    /// Whether nobody waits, so that a call may pass.
    pub fn is_empty(&self) -> bool {
        self.calls.load(Relaxed) == 0
    }

    /// Waits, behind those that came before, until a node serves. `bytes` is what the call keeps in memory.
    ///
    /// # Errors
    /// When the queue is full, `until` passes, the proxy shuts down, or the queue has moved.
    pub async fn wait(&self, bytes: usize, until: Instant) -> Result<Turn<'_>, Left<To>> {
        let _place = self.enter(bytes)?;
        let _gauge = self.metrics.hold(&self.pool.network);
        let wait = async {
            // A semaphore that is never closed.
            let turn = self.turn.acquire().await.map_err(|_| Refusal::ShuttingDown)?;
            let mut changes = self.pool.subscribe();
            while !self.pool.snapshot().serves() {
                if changes.changed().await.is_err() {
                    return Err(Refusal::NoNode);
                }
            }
            Ok(Turn(turn))
        };
        // All arms are cancel-safe: a waiter that leaves gives up its place only.
        tokio::select! {
            biased;
            outcome = timeout_at(until, wait) => Ok(outcome.unwrap_or(Err(Refusal::NoNode))?),
            left = self.ended() => Err(left),
        }
    }

    /// Waits a little, after every node that seemed to serve did not.
    ///
    /// # Errors
    /// When the queue is full, the proxy shuts down, or the queue has moved.
    pub async fn pause(&self, length: Duration, bytes: usize) -> Result<(), Left<To>> {
        let _place = self.enter(bytes)?;
        let _gauge = self.metrics.hold(&self.pool.network);
        // Both arms are cancel-safe.
        tokio::select! {
            () = tokio::time::sleep(length) => Ok(()),
            left = self.ended() => Err(left),
        }
    }

    /// Answers all that wait, and all that would, with 'shutting down'.
    pub fn close(&self) {
        self.fate.send_replace(Fate::Closed);
    }

    /// Sends all that wait, and all that would, to the nodes that have taken the place of these.
    pub fn move_to(&self, calls: Arc<To>) {
        self.fate.send_replace(Fate::Moved(calls));
    }

    /// Completes when there is no waiting here any more.
    async fn ended(&self) -> Left<To> {
        let mut fate = self.fate.subscribe();
        match fate.wait_for(|fate| !matches!(fate, Fate::Open)).await.as_deref() {
            Ok(Fate::Moved(calls)) => Left::Moved(calls.clone()),
            _ => Left::Refused(Refusal::ShuttingDown),
        }
    }

    fn enter(&self, bytes: usize) -> Result<Place<'_, To>, Refusal> {
        let place = Place { hold: self, bytes };
        let calls = self.calls.fetch_add(1, Relaxed) + 1;
        let total = self.bytes.fetch_add(bytes, Relaxed) + bytes;
        if calls > self.max_calls {
            return Err(Refusal::Limit { name: "max_held", limit: self.max_calls });
        }
        if total > self.max_bytes {
            return Err(Refusal::Limit { name: "max_held_bytes", limit: self.max_bytes });
        }
        Ok(place)
    }
}
