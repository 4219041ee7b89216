//! What is known of one endpoint while the proxy runs: what waits for it, and how it fares.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use tokio::sync::Notify;

use super::queue::{Key, Queue};
use crate::{
    metrics::{DeliveryOutcome, Metrics},
    outbox::record::Millis,
};

/// An endpoint's state, which outlives its task: a reload begins another task with it.
#[derive(Debug, Default)]
pub(super) struct EndpointState {
    queue: Mutex<Queue>,
    /// Notified when the queue has something new.
    pub(super) news: Notify,
    delivered: AtomicU64,
    failed: AtomicU64,
    quarantined: AtomicU64,
    pub(super) is_failing: AtomicBool,
    /// An operator wants an attempt now.
    pub(super) is_urged: AtomicBool,
    /// Until when the endpoint asked to be left alone; 0: it did not ask.
    pub(super) held_until: AtomicU64,
    last_error: Mutex<Option<String>>,
}

/// How an endpoint fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// The endpoint's name.
    pub name: String,
    /// Deliveries that wait.
    pub waiting: usize,
    /// Deliveries under way.
    pub under_way: usize,
    /// When the first of those that wait is due.
    pub next_due: Option<Millis>,
    /// Deliveries that it took, since the proxy started.
    pub delivered: u64,
    /// Attempts that failed, since the proxy started.
    pub failed: u64,
    /// Deliveries that were given up, since the proxy started.
    pub quarantined: u64,
    /// Whether it is left alone between single attempts.
    pub is_failing: bool,
    /// Until when the endpoint asked to be left alone, by `Retry-After`.
    pub held_until: Option<Millis>,
    /// The last failure, without secrets.
    pub last_error: Option<String>,
}

impl EndpointState {
    /// The queue. Every change is made whole under the lock, so a panic elsewhere cannot have
    /// spoilt it.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a delivery, and wakes the endpoint's task.
    pub(super) fn add(&self, key: Key, due: Millis) {
        self.queue().add(key, due);
        self.news.notify_one();
    }

    /// Has the endpoint asked with one attempt now, whatever it asked for.
    pub(super) fn urge(&self) {
        self.is_urged.store(true, Relaxed);
        self.news.notify_one();
    }

    /// Counts so many deliveries to this endpoint, of this name.
    pub(super) fn count(&self, metrics: &Metrics, name: &str, outcome: DeliveryOutcome, count: u64) {
        let counted = match outcome {
            DeliveryOutcome::Delivered => &self.delivered,
            DeliveryOutcome::Failed => &self.failed,
            DeliveryOutcome::GivenUp => &self.quarantined,
        };
        counted.fetch_add(count, Relaxed);
        metrics.webhook(name, outcome, count);
    }

    pub(super) fn note_error(&self, why: &str) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    pub(super) fn status(&self, name: &str) -> EndpointStatus {
        let (waiting, under_way, next_due) = {
            let queue = self.queue();
            (queue.waiting(), queue.under_way(), queue.next_due())
        };
        EndpointStatus {
            name: name.to_owned(),
            waiting,
            under_way,
            next_due,
            delivered: self.delivered.load(Relaxed),
            failed: self.failed.load(Relaxed),
            quarantined: self.quarantined.load(Relaxed),
            is_failing: self.is_failing.load(Relaxed),
            held_until: Some(Millis(self.held_until.load(Relaxed))).filter(|until| until.0 > 0),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
