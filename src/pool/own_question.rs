//! The time that a node has for a question of our own.
//!
//! Rule: only time in which a connection to the node is there for the question counts. Before that
//! the node owes nothing, and how long the question waits is bounded where it waits, see
//! [`Retry`](crate::net::http). Reason: clients' calls may hold every connection that the node
//! takes, which says nothing about the node. Example: a node has two seconds for a header, and the
//! question waits for three seconds until a call has ended. The node still has its two seconds.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::traffic::{Owed, Traffic};
use crate::net::http::Gate;

/// The clock of one question.
#[derive(Debug)]
pub struct Clock {
    limit: Duration,
    run: Mutex<Run>,
}

/// The time that has passed, and since when more passes.
#[derive(Debug, Default)]
struct Run {
    passed: Duration,
    since: Option<Instant>,
}

/// Starts the clock when the question may be written, and has the node owe an answer from then on.
pub struct OwnQuestion<'a> {
    clock: Option<&'a Clock>,
    /// `None` where no task watches for the answer.
    traffic: Option<&'a Traffic>,
    owed: Option<Owed<'a>>,
}

impl Clock {
    /// A clock that stands.
    pub fn new(limit: Duration) -> Self {
        Self { limit, run: Mutex::default() }
    }

    /// The answer to the question; `None` when the node has had its time.
    pub async fn limits<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let left = self.limit.saturating_sub(self.passed(Instant::now()));
            if left.is_zero() {
                return None;
            }
            // Both arms are cancel-safe: the answer is taken up again.
            tokio::select! {
                biased;
                answer = answer.as_mut() => return Some(answer),
                () = sleep(left) => {}
            }
        }
    }

    /// Time passes from now on.
    fn starts(&self) {
        self.lock().since.get_or_insert_with(Instant::now);
    }

    fn stops(&self) {
        let mut run = self.lock();
        if let Some(since) = run.since.take() {
            run.passed += since.elapsed();
        }
    }

    fn passed(&self, now: Instant) -> Duration {
        let run = self.lock();
        run.passed + run.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt it.
    fn lock(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> OwnQuestion<'a> {
    /// A question under this clock, for which the node owes an answer by `traffic`.
    pub fn new(clock: Option<&'a Clock>, traffic: Option<&'a Traffic>) -> Self {
        Self { clock, traffic, owed: None }
    }
}

impl Gate for OwnQuestion<'_> {
    fn closes(&mut self) {
        self.owed = None;
        if let Some(clock) = self.clock {
            clock.stops();
        }
    }

    fn poll_open(&mut self, _: &mut Context<'_>) -> Poll<()> {
        if self.owed.is_none() {
            self.owed = self.traffic.map(|traffic| traffic.track(Instant::now()));
        }
        if let Some(clock) = self.clock {
            clock.starts();
        }
        Poll::Ready(())
    }

    fn written(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);
    const WAIT: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn a_node_has_its_time_from_the_connection_on() {
        let (clock, traffic, began) = (Clock::new(LIMIT), Traffic::new(), Instant::now());
        let mut gate = OwnQuestion::new(Some(&clock), Some(&traffic));
        let asked = async {
            // The connection is lost after a second, and another takes as long as the first.
            for _ in 0..2 {
                gate.closes();
                sleep(WAIT).await;
                assert_eq!(traffic.silence(Instant::now()), Duration::ZERO, "the node owes nothing yet");
                poll_fn(|context| gate.poll_open(context)).await;
                sleep(LIMIT / 2).await;
                assert_eq!(traffic.silence(Instant::now()), LIMIT / 2);
            }
            pending::<()>().await;
        };
        assert_eq!(clock.limits(asked).await, None);
        assert_eq!(began.elapsed(), 2 * WAIT + LIMIT);
    }
}
