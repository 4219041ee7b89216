//! The task of one endpoint: takes what is due from its queue, a few at a time, and heeds the
//! breaker. A slow endpoint so delays nothing but itself.

use std::{collections::HashMap, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::{
    sync::watch,
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{error, info, warn};

use super::{
    attempt::{Outcome, Sender},
    breaker::{Breaker, May},
    judgement::Failure,
    queue::Key,
    state::EndpointState,
};
use crate::metrics::DeliveryOutcome;

/// Deliveries under way to one endpoint at once, at most.
const CONCURRENCY: usize = 8;
/// How long a delivery waits whose row could not be read or written.
const LOST_PAUSE: Duration = Duration::from_secs(60);
/// How long a delivery waits of which the replica is not sure that it is its own.
const UNSURE_PAUSE: Duration = Duration::from_secs(1);
/// The longest sleep of a task.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What an endpoint's task is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Deliver.
    Run,
    /// Deliver what is due, and end at this time at the latest.
    Flush(Instant),
    /// Begin nothing, and end when what is under way has ended, or at this time.
    Stop(Instant),
}

/// The task of one endpoint.
pub(super) struct Endpoint {
    pub(super) sender: Arc<Sender>,
    pub(super) state: Arc<EndpointState>,
    pub(super) orders: watch::Receiver<Order>,
    breaker: Breaker,
    rng: fastrand::Rng,
    attempts: JoinSet<Outcome>,
    keys: HashMap<Id, Key>,
}

impl Endpoint {
    pub(super) fn new(
        sender: Sender,
        state: Arc<EndpointState>,
        orders: watch::Receiver<Order>,
        mut rng: fastrand::Rng,
    ) -> Self {
        // An earlier task of the endpoint may have left it so.
        state.is_failing.store(false, Relaxed);
        Self {
            sender: Arc::new(sender),
            state,
            orders,
            breaker: Breaker::new(rng.u64(..)),
            rng,
            attempts: JoinSet::new(),
            keys: HashMap::new(),
        }
    }

    /// Delivers until ordered otherwise.
    pub(super) async fn run(mut self) {
        let order = loop {
            // The supervisor is gone: nobody else would end this task.
            let order = *self.orders.borrow_and_update();
            if order != Order::Run {
                break order;
            }
            let next = self.begin();
            // All arms are cancel-safe: attempts stay in their set, news and orders are kept.
            tokio::select! {
                changed = self.orders.changed() => if changed.is_err() { return self.end() },
                Some(ended) = self.attempts.join_next_with_id() => self.ended(ended),
                () = self.state.news.notified() => {}
                () = sleep_until(next) => {}
            }
        };
        let (Order::Flush(until) | Order::Stop(until)) = order else { return self.end() };
        loop {
            if matches!(order, Order::Flush(_)) {
                self.begin();
            }
            match timeout_at(until, self.attempts.join_next_with_id()).await {
                Ok(Some(ended)) => self.ended(ended),
                Ok(None) | Err(_) => return self.end(),
            }
        }
    }

    /// Begins as many attempts as may be, and tells when there may be more without news.
    fn begin(&mut self) -> Instant {
        let now = Instant::now();
        if self.state.is_urged.swap(false, Relaxed) {
            self.breaker.urge(now);
        }
        let wall = (self.sender.clock)();
        let held = self.breaker.held_until(now).map(|until| wall.after(super::attempt::millis(until - now)));
        self.state.held_until.store(held.map_or(0, |until| until.0), Relaxed);
        loop {
            let longest = now + LONGEST_SLEEP;
            if self.attempts.len() >= CONCURRENCY {
                return longest;
            }
            match self.breaker.may(now) {
                May::Begin => {}
                May::NotBefore(then) => return then.min(longest),
                May::AfterTheOneUnderWay => return longest,
            }
            let wall = (self.sender.clock)();
            let Some(key) = self.state.queue().take(wall) else {
                let next = self.state.queue().next_due();
                let pause = next.map(|due| Duration::from_millis(due.since(wall)));
                return pause.map_or(longest, |pause| longest.min(now + pause));
            };
            self.breaker.begins();
            let (sender, seed) = (self.sender.clone(), self.rng.u64(..));
            let of_the_task = key.clone();
            let task = self.attempts.spawn(async move { sender.attempt(&of_the_task, seed).await });
            self.keys.insert(task.id(), key);
        }
    }

    fn ended(&mut self, ended: Result<(Id, Outcome), JoinError>) {
        let now = Instant::now();
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, Some(outcome)),
            Err(error) => {
                error!(endpoint = &*self.sender.webhook.name, "an attempt at a delivery broke off: a bug");
                (error.id(), None)
            }
        };
        let Some(key) = self.keys.remove(&id) else { return };
        let later = || Some((self.sender.clock)().after(super::attempt::millis(LOST_PAUSE)));
        let again = match outcome {
            Some(Outcome::Delivered) => {
                self.count(DeliveryOutcome::Delivered);
                self.answered();
                None
            }
            Some(Outcome::Again { at, failure }) => {
                self.failed(&failure, now);
                Some(at)
            }
            Some(Outcome::GivenUp { why, failure }) => {
                self.count(DeliveryOutcome::GivenUp);
                match failure {
                    Some(failure) => self.failed(&failure, now),
                    None => {
                        self.state.note_error(&why);
                        self.answered();
                    }
                }
                None
            }
            Some(Outcome::Nothing) => {
                self.breaker.dropped(now);
                None
            }
            Some(Outcome::Unsure) => {
                self.breaker.dropped(now);
                Some((self.sender.clock)().after(super::attempt::millis(UNSURE_PAUSE)))
            }
            Some(Outcome::Lost(error)) => {
                warn!(endpoint = &*self.sender.webhook.name, %error, "a delivery waits, since the store fails");
                self.breaker.dropped(now);
                later()
            }
            None => {
                self.breaker.dropped(now);
                later()
            }
        };
        self.state.is_failing.store(self.breaker.is_open(), Relaxed);
        self.state.queue().ended(&key, again);
    }

    fn count(&self, outcome: DeliveryOutcome) {
        self.state.count(&self.sender.metrics, &self.sender.webhook.name, outcome, 1);
    }

    fn answered(&mut self) {
        if self.breaker.answered() {
            info!(endpoint = &*self.sender.webhook.name, "the endpoint answers again");
        }
    }

    fn failed(&mut self, failure: &Failure, now: Instant) {
        self.count(DeliveryOutcome::Failed);
        self.state.note_error(&failure.why);
        if let Some(pause) = failure.retry_after {
            self.breaker.hold(now + pause);
        }
        if !failure.blames_endpoint {
            self.answered();
        } else if self.breaker.failed(now) {
            let (endpoint, why) = (&*self.sender.webhook.name, &*failure.why);
            warn!(endpoint, why, "the endpoint fails: deliveries to it wait");
        }
    }

    /// What is under way is given up. Its rows are as they were, so it is tried again some time.
    fn end(mut self) {
        self.attempts.abort_all();
        self.state.queue().give_back();
    }
}
