//! Where calls wait while no node can serve: in the order of their arrival, bounded in count and
//! bytes, and shared fairly.

mod shares;

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

use self::shares::Shares;
use crate::{
    config::Calls,
    domain::refusal::Refusal,
    metrics::Metrics,
    net::{BoxFuture, http::Gate},
    pool::Pool,
};

/// For how long a call that has left the queue is held up at most by those before it that have a
/// node and are not written yet, because their connections come about more slowly, or not at all.
const LONGEST_TURN: Duration = Duration::from_secs(1);

/// The queue of one side of a network, whose calls are `To`'s.
pub struct Hold<To> {
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    /// The turn: whoever holds the one permit is first in the queue. Waiters get it in the order in
    /// which they asked.
    turn: Arc<Semaphore>,
    /// The calls that have left, in the order in which they did: whoever holds the one permit may
    /// be written.
    line: Semaphore,
    shares: Shares,
    /// The longest that a call waits.
    longest: Duration,
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
    /// A reload replaced the nodes: it goes on there, and those behind it follow when it has its
    /// place.
    Moved(Arc<To>, First),
}

/// The turn of a call that moves, if it had one.
#[derive(Debug, Default)]
pub struct First(Option<OwnedSemaphorePermit>);

impl First {
    /// Whether it is the first of those that move.
    pub fn is_first(&self) -> bool {
        self.0.is_some()
    }
}

impl<To> From<Refusal> for Left<To> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A call's place among those that have left the queue: all of them get their connections at once,
/// and each is written after those before it. It is given up when the call is written, or with
/// this.
pub struct Turn<'a>(Step<'a>);

enum Step<'a> {
    Waits(BoxFuture<'a, Option<SemaphorePermit<'a>>>),
    /// Without a permit when it would not wait any longer.
    Open(#[expect(dead_code, reason = "held for its drop")] Option<SemaphorePermit<'a>>),
    Written,
}

impl<'a> Turn<'a> {
    /// Takes the last place in the line.
    async fn last(line: &'a Semaphore) -> Self {
        let turn = timeout(LONGEST_TURN, line.acquire());
        // A semaphore that is never closed.
        let mut turn = Self(Step::Waits(Box::pin(async { turn.await.ok()?.ok() })));
        // Asking is what takes the place.
        poll_fn(|context| Poll::Ready(turn.poll_open(context).is_ready())).await;
        turn
    }
}

impl Gate for Turn<'_> {
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Step::Waits(turn) = &mut self.0 {
            self.0 = Step::Open(ready!(turn.as_mut().poll(context)));
        }
        Poll::Ready(())
    }

    fn written(&mut self) {
        self.0 = Step::Written;
    }
}

impl<To> Hold<To> {
    /// An empty queue for the calls to `pool`.
    pub fn new(pool: Arc<Pool>, settings: &Calls, metrics: Arc<Metrics>) -> Self {
        Self {
            pool,
            metrics,
            turn: Arc::new(Semaphore::new(1)),
            line: Semaphore::new(1),
            shares: Shares::new(settings.max_held.get(), settings.max_held_bytes),
            longest: settings.hold,
            fate: watch::Sender::new(Fate::Open),
        }
    }

    /// The longest that a call waits.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// Whether an exchange may pass the queue: nobody waits in it, and a node admits exchanges.
    pub fn admits(&self) -> bool {
        self.shares.is_empty() && self.pool.snapshot().admits(self.longest, Instant::now())
    }

    /// Waits, behind those that came before, until a node serves. `bytes` is the size of the call in
    /// memory, `first` the turn that it had where it comes from.
    ///
    /// # Errors
    /// When the queue is full, `until` passes, the proxy shuts down, or the queue has moved.
    pub async fn wait(&self, bytes: usize, until: Instant, first: First) -> Result<Turn<'_>, Left<To>> {
        let place = match self.shares.enter(bytes) {
            // Better at a node that is not the best than refused.
            Err(_) if self.pool.snapshot().serves() && self.is_open() => return Ok(Turn::last(&self.line).await),
            place => place?,
        };
        let _gauge = self.metrics.hold(&self.pool.network, self.pool.layer.as_str());
        let wait = async {
            let mut asking = pin!(self.turn.clone().acquire_owned());
            // Asking is what takes the place; then those that move behind it may come.
            let asked = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await;
            drop(first);
            let turn = match asked {
                Poll::Ready(turn) => turn,
                Poll::Pending => asking.await,
            };
            // A semaphore that is never closed.
            let turn = turn.map_err(|_| Refusal::ShuttingDown)?;
            let (mut changes, mut fate) = (self.pool.subscribe(), self.fate.subscribe());
            loop {
                // Only whoever is first moves: all would wake in no order.
                if let Fate::Moved(to) = &*fate.borrow_and_update() {
                    return Err(Left::Moved(to.clone(), First(Some(turn))));
                }
                let now = Instant::now();
                if self.pool.snapshot().admits(self.longest, now) {
                    break;
                }
                let wait = self.pool.snapshot().wait.map(|wait| wait.since + wait.longest.min(self.longest));
                let wait = wait.filter(|until| *until > now);
                // All arms are cancel-safe.
                let changed = tokio::select! {
                    biased;
                    changed = changes.changed() => changed,
                    changed = fate.changed() => changed,
                    () = sleep_until(wait.unwrap_or(now)), if wait.is_some() => continue,
                };
                changed.map_err(|_| self.unserved())?;
            }
            let place = Turn::last(&self.line).await;
            drop(turn);
            Ok(place)
        };
        // All arms are cancel-safe: a waiter that leaves gives up its place only.
        tokio::select! {
            biased;
            outcome = timeout_at(until, wait) => match outcome {
                Ok(outcome) => outcome,
                // There is a node, though not as far as another was.
                Err(_) if self.pool.snapshot().serves() && self.is_open() => {
                    self.pool.waited_in_vain();
                    Ok(Turn::last(&self.line).await)
                }
                Err(_) => Err(self.unserved().into()),
            },
            () = self.is(|fate| matches!(fate, Fate::Closed)) => Err(Refusal::ShuttingDown.into()),
            // Better at a node that is not the best than refused.
            refusal = place.lost() => match self.pool.snapshot().serves() && self.is_open() {
                true => Ok(Turn::last(&self.line).await),
                false => Err(refusal.into()),
            },
        }
    }

    /// Waits a little, after every node that seemed to serve did not.
    ///
    /// # Errors
    /// When the queue is full, the proxy shuts down, or the queue has moved.
    pub async fn pause(&self, length: Duration, bytes: usize) -> Result<(), Left<To>> {
        self.stay(sleep(length), bytes).await
    }

    async fn stay(&self, wait: impl Future<Output = ()>, bytes: usize) -> Result<(), Left<To>> {
        let place = self.shares.enter(bytes)?;
        let _gauge = self.metrics.hold(&self.pool.network, self.pool.layer.as_str());
        // All arms are cancel-safe.
        tokio::select! {
            () = wait => Ok(()),
            refusal = place.lost() => Err(refusal.into()),
            () = self.is(|fate| !matches!(fate, Fate::Open)) => Err(match &*self.fate.borrow() {
                Fate::Moved(to) => Left::Moved(to.clone(), First::default()),
                Fate::Open | Fate::Closed => Refusal::ShuttingDown.into(),
            }),
        }
    }

    /// Waits until nodes that rest may have had their rest, or `until`.
    ///
    /// # Errors
    /// As of [`Hold::pause`].
    pub async fn rest(&self, until: Instant, bytes: usize) -> Result<(), Left<To>> {
        self.stay(self.pool.stirs(until), bytes).await
    }

    /// Answers all that wait, and all that would, with 'shutting down'.
    pub fn close(&self) {
        self.fate.send_replace(Fate::Closed);
    }

    /// Sends all that wait, and all that would, to the nodes that have taken the place of these.
    pub fn move_to(&self, calls: Arc<To>) {
        self.fate.send_replace(Fate::Moved(calls));
    }

    /// Those who serve the calls now, if a reload has replaced the nodes.
    pub fn successor(&self) -> Option<Arc<To>> {
        match &*self.fate.borrow() {
            Fate::Moved(to) => Some(to.clone()),
            Fate::Open | Fate::Closed => None,
        }
    }

    /// Completes when there is a successor. Cancel-safe.
    pub async fn moves(&self) {
        self.is(|fate| matches!(fate, Fate::Moved(_))).await;
    }

    /// Completes when the queue's fate is `such`.
    async fn is(&self, such: impl Fn(&Fate<To>) -> bool) {
        // The queue itself holds the sender.
        let _ = self.fate.subscribe().wait_for(such).await;
    }

    fn unserved(&self) -> Refusal {
        Refusal::Unserved(self.pool.snapshot().unserved())
    }

    fn is_open(&self) -> bool {
        matches!(&*self.fate.borrow(), Fate::Open)
    }
}
