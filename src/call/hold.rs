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

/// The queue of one network.
pub struct Hold {
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    /// The turn: whoever holds the one permit is first in the queue. Waiters get it in the order in which they asked.
    turn: Semaphore,
    calls: AtomicUsize,
    bytes: AtomicUsize,
    max_calls: usize,
    max_bytes: usize,
    closed: watch::Sender<bool>,
}

/// A place at the head of the queue; the next call's turn comes when it is dropped.
pub struct Turn<'a>(#[expect(dead_code, reason = "held for its drop")] SemaphorePermit<'a>);

/// A call's share of the queue's bounds.
struct Place<'a> {
    hold: &'a Hold,
    bytes: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.hold.calls.fetch_sub(1, Relaxed);
        self.hold.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

impl Hold {
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
            closed: watch::Sender::new(false),
        }
    }

    /// Whether nobody waits, so that a call may pass.
    pub fn is_empty(&self) -> bool {
        self.calls.load(Relaxed) == 0
    }

    /// Waits, behind those that came before, until a node serves. `bytes` is what the call keeps in memory.
    ///
    /// # Errors
    /// When the queue is full, `until` passes, or the proxy shuts down.
    pub async fn wait(&self, bytes: usize, until: Instant) -> Result<Turn<'_>, Refusal> {
        let _place = self.enter(bytes)?;
        let _gauge = self.metrics.hold(&self.pool.network);
        let mut closed = self.closed.subscribe();
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
            outcome = timeout_at(until, wait) => outcome.unwrap_or(Err(Refusal::NoNode)),
            _ = closed.wait_for(|closed| *closed) => Err(Refusal::ShuttingDown),
        }
    }

    /// Waits a little, or until something is new, after every node that seemed to serve did not.
    pub async fn pause(&self, length: Duration, bytes: usize) -> Result<(), Refusal> {
        let _place = self.enter(bytes)?;
        let _gauge = self.metrics.hold(&self.pool.network);
        let mut changes = self.pool.subscribe();
        // Both arms are cancel-safe.
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(length) => {}
        }
        Ok(())
    }

    /// Answers all that wait, and all that would, with 'shutting down'.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    fn enter(&self, bytes: usize) -> Result<Place<'_>, Refusal> {
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
