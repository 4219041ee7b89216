//! The queue in which exchanges wait while no node can serve.
//!
//! Rule: exchanges leave the queue in the order of their arrival, and are written to nodes in that
//! order. The queue is bounded in count and in bytes, and a client that has much of a full queue
//! gives way to one that has less ([`client_quotas`]). Reason: a client that sent two transactions
//! of one account must not see the second overtake the first. Example: of three calls that wait,
//! the first opens a new connection when a node returns and the others find one open; they are
//! written after the first all the same, or after [`LONGEST_TURN`].
//!
//! Exception: exchanges also wait while a node serves that has not reached the head which clients
//! were shown. An exchange that finds the queue full then, loses its place, or has waited for as
//! long as it may, goes to that node at once and overtakes those that wait.

mod client_quotas;

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use self::client_quotas::ClientQuotas;
use crate::{
    config::Calls,
    domain::refusal::Refusal,
    metrics::Metrics,
    net::{BoxFuture, http::Gate},
    pool::Pool,
};

/// The longest that an exchange which has left the queue waits for earlier ones to be written:
/// their connections may be slow to open, or never open.
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// The queue of one side of a network, whose exchanges belong to a `To`.
pub struct Queue<To> {
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    /// The head of the queue is the exchange with the one permit. The semaphore gives the permit to
    /// waiters in the order of their asking.
    head: Arc<Semaphore>,
    /// The exchanges that have left, in the order of their leaving. The one permit allows its
    /// holder to be written.
    write_order: Semaphore,
    quotas: ClientQuotas,
    /// The longest that an exchange waits.
    max_hold: Duration,
    state: watch::Sender<QueueState<To>>,
}

enum QueueState<To> {
    Open,
    Closed,
    Moved(Arc<To>),
}

/// How an exchange leaves the queue without a ticket.
pub enum Exit<To> {
    /// With an error.
    Refused(Refusal),
    /// A reload replaced the nodes. The exchange goes on at the new nodes, and the exchanges behind
    /// follow when this one has its place there.
    Moved(Arc<To>, HeadPermit),
}

/// The permit of the head of a queue, which goes along when a reload moves the exchange. Empty for
/// an exchange that was not the head.
#[derive(Debug, Default)]
pub struct HeadPermit(Option<OwnedSemaphorePermit>);

impl HeadPermit {
    /// Whether the exchange was the head of the queue.
    pub fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

impl<To> From<Refusal> for Exit<To> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The place of an exchange among those that have left the queue. All of these get their
/// connections at once, and each is written after the ones before. The place is given up when the
/// exchange is written or the ticket is dropped.
pub struct Ticket<'a>(Step<'a>);

enum Step<'a> {
    Waits(BoxFuture<'a, Option<SemaphorePermit<'a>>>),
    /// Without a permit where [`LONGEST_TURN`] has passed.
    Open(#[expect(dead_code, reason = "held for its drop")] Option<SemaphorePermit<'a>>),
    Written,
}

impl<'a> Ticket<'a> {
    /// Takes the last place in `write_order`.
    async fn last(write_order: &'a Semaphore) -> Self {
        let permit = timeout(LONGEST_TURN, write_order.acquire());
        // The semaphore is never closed.
        let mut ticket = Self(Step::Waits(Box::pin(async { permit.await.ok()?.ok() })));
        // A semaphore gives a place to a waiter that has been polled once.
        poll_fn(|context| Poll::Ready(ticket.poll_open(context).is_ready())).await;
        ticket
    }
}

impl Gate for Ticket<'_> {
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Step::Waits(permit) = &mut self.0 {
            self.0 = Step::Open(ready!(permit.as_mut().poll(context)));
        }
        Poll::Ready(())
    }

    fn written(&mut self) {
        self.0 = Step::Written;
    }
}

impl<To> Queue<To> {
    /// An empty queue for the exchanges with `pool`.
    pub fn new(pool: Arc<Pool>, settings: &Calls, metrics: Arc<Metrics>) -> Self {
        Self {
            pool,
            metrics,
            head: Arc::new(Semaphore::new(1)),
            write_order: Semaphore::new(1),
            quotas: ClientQuotas::new(settings.max_held.get(), settings.max_held_bytes),
            max_hold: settings.hold,
            state: watch::Sender::new(QueueState::Open),
        }
    }

    /// The longest that an exchange waits.
    pub fn max_hold(&self) -> Duration {
        self.max_hold
    }

    /// Whether an exchange may pass the queue: the queue is empty, and a node admits exchanges.
    pub fn admits(&self) -> bool {
        self.quotas.is_empty() && self.pool.snapshot().admits(self.max_hold, Instant::now())
    }

    /// Waits behind earlier exchanges until a node serves. `bytes` is the size of the exchange in
    /// memory; `held` is the permit that the exchange had in the queue of the replaced nodes.
    ///
    /// # Errors
    /// When the queue is full, `until` passes, the proxy shuts down, or the queue has moved.
    pub async fn wait(&self, bytes: usize, until: Instant, held: HeadPermit) -> Result<Ticket<'_>, Exit<To>> {
        let place = match self.quotas.enter(bytes) {
            // Other nodes, less good than wanted, serve: better one of them than a refusal.
            Err(_) if self.pool.snapshot().serves() && self.is_open() => {
                return Ok(Ticket::last(&self.write_order).await);
            }
            place => place?,
        };
        let _gauge = self.metrics.hold(&self.pool.network, self.pool.layer.as_str());
        let wait = async {
            let mut asking = pin!(self.head.clone().acquire_owned());
            // The first poll takes the place. Then the exchanges that move behind this one may
            // come.
            let asked = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await;
            drop(held);
            let permit = match asked {
                Poll::Ready(permit) => permit,
                Poll::Pending => asking.await,
            };
            // The semaphore is never closed.
            let permit = permit.map_err(|_| Refusal::ShuttingDown)?;
            let (mut changes, mut state) = (self.pool.subscribe(), self.state.subscribe());
            loop {
                // Only the head moves: if all moved at once, they would arrive in no order.
                if let QueueState::Moved(to) = &*state.borrow_and_update() {
                    return Err(Exit::Moved(to.clone(), HeadPermit(Some(permit))));
                }
                let now = Instant::now();
                if self.pool.snapshot().admits(self.max_hold, now) {
                    break;
                }
                let wait = self.pool.snapshot().wait.map(|wait| wait.since + wait.longest.min(self.max_hold));
                let wait = wait.filter(|until| *until > now);
                // All arms are cancel-safe.
                let changed = tokio::select! {
                    biased;
                    changed = changes.changed() => changed,
                    changed = state.changed() => changed,
                    () = sleep_until(wait.unwrap_or(now)), if wait.is_some() => continue,
                };
                changed.map_err(|_| self.unserved())?;
            }
            let place = Ticket::last(&self.write_order).await;
            drop(permit);
            Ok(place)
        };
        // All arms are cancel-safe: a waiter that leaves gives up its place only.
        tokio::select! {
            biased;
            outcome = timeout_at(until, wait) => match outcome {
                Ok(outcome) => outcome,
                // A node serves, though its head is behind one that clients were shown.
                Err(_) if self.pool.snapshot().serves() && self.is_open() => {
                    self.pool.waited_in_vain();
                    Ok(Ticket::last(&self.write_order).await)
                }
                Err(_) => Err(self.unserved().into()),
            },
            () = self.is(|state| matches!(state, QueueState::Closed)) => Err(Refusal::ShuttingDown.into()),
            // Better at a node that is not the best than refused.
            refusal = place.lost() => match self.pool.snapshot().serves() && self.is_open() {
                true => Ok(Ticket::last(&self.write_order).await),
                false => Err(refusal.into()),
            },
        }
    }

    /// Waits a little, after every node that seemed to serve did not.
    ///
    /// # Errors
    /// When the queue is full, the proxy shuts down, or the queue has moved.
    pub async fn pause(&self, length: Duration, bytes: usize) -> Result<(), Exit<To>> {
        self.stay(sleep(length), bytes).await
    }

    async fn stay(&self, wait: impl Future<Output = ()>, bytes: usize) -> Result<(), Exit<To>> {
        let place = self.quotas.enter(bytes)?;
        let _gauge = self.metrics.hold(&self.pool.network, self.pool.layer.as_str());
        // All arms are cancel-safe.
        tokio::select! {
            () = wait => Ok(()),
            refusal = place.lost() => Err(refusal.into()),
            () = self.is(|state| !matches!(state, QueueState::Open)) => Err(match &*self.state.borrow() {
                QueueState::Moved(to) => Exit::Moved(to.clone(), HeadPermit::default()),
                QueueState::Open | QueueState::Closed => Refusal::ShuttingDown.into(),
            }),
        }
    }

    /// Waits until nodes that rest may have had their rest, or `until`.
    ///
    /// # Errors
    /// As of [`Queue::pause`].
    pub async fn rest(&self, until: Instant, bytes: usize) -> Result<(), Exit<To>> {
        self.stay(self.pool.stirs(until), bytes).await
    }

    /// Refuses with 'shutting down' all that wait and all that come later.
    pub fn close(&self) {
        self.state.send_replace(QueueState::Closed);
    }

    /// Sends all that wait and all that come later to the nodes that have replaced these.
    pub fn move_to(&self, next: Arc<To>) {
        self.state.send_replace(QueueState::Moved(next));
    }

    /// The owner of the exchanges with the new nodes, if a reload has replaced these.
    pub fn successor(&self) -> Option<Arc<To>> {
        match &*self.state.borrow() {
            QueueState::Moved(to) => Some(to.clone()),
            QueueState::Open | QueueState::Closed => None,
        }
    }

    /// Completes when there is a successor. Cancel-safe.
    pub async fn moves(&self) {
        self.is(|state| matches!(state, QueueState::Moved(_))).await;
    }

    /// Completes when the state is `such`.
    async fn is(&self, such: impl Fn(&QueueState<To>) -> bool) {
        // The queue itself holds the sender.
        let _ = self.state.subscribe().wait_for(such).await;
    }

    fn unserved(&self) -> Refusal {
        Refusal::Unserved(self.pool.snapshot().unserved())
    }

    fn is_open(&self) -> bool {
        matches!(&*self.state.borrow(), QueueState::Open)
    }
}
