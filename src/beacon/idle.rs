//! A limit on how long a body may stand still, and on how slow the body may be in the long run.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use crate::domain::pace::Pace;

/// How long a body may stand still, on either side.
const MAX_STANDSTILL: Duration = Duration::from_secs(30);

/// Watches one body. The timer exists only while the body stands still.
pub(super) struct Idle {
    pace: Pace,
    waits: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Idle {
    /// For a body that has to move `rate` bytes in a second in the long run.
    pub(super) fn new(rate: u32) -> Self {
        Self { pace: Pace::new(MAX_STANDSTILL, rate), waits: None }
    }

    /// Passes on the outcome of a poll, which has `bytes` bytes; `None` when the body has been too
    /// slow.
    pub(super) fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        next: Poll<T>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Poll<Option<T>> {
        if let Poll::Ready(next) = next {
            let waited = self.waits.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
            self.pace.moved(waited, bytes(&next));
            return Poll::Ready(Some(next));
        }
        let left = self.pace.left();
        let (_, timer) = self.waits.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        ready!(timer.as_mut().poll(context));
        self.waits = None;
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::advance;

    use super::*;

    async fn stands_still(idle: &mut Idle, length: Duration) {
        let pending = poll_fn(|context| Poll::Ready(idle.watch(context, Poll::<usize>::Pending, |bytes| *bytes)));
        assert!(pending.await.is_pending());
        advance(length).await;
    }

    async fn moves(idle: &mut Idle, bytes: usize) {
        let moved = poll_fn(|context| idle.watch(context, Poll::Ready(bytes), |bytes| *bytes));
        assert_eq!(moved.await, Some(bytes));
    }

    #[tokio::test(start_paused = true)]
    async fn each_piece_has_its_time_and_drops_have_it_together() {
        let mut idle = Idle::new(1000);
        for _ in 0..3 {
            // The body stands still, but not for too long.
            stands_still(&mut idle, MAX_STANDSTILL - Duration::from_millis(2)).await;
            moves(&mut idle, 30_000).await;
        }
        for _ in 0..2 {
            stands_still(&mut idle, MAX_STANDSTILL / 3).await;
            moves(&mut idle, 1).await;
        }
        let start = Instant::now();
        assert_eq!(poll_fn(|context| idle.watch(context, Poll::<usize>::Pending, |bytes| *bytes)).await, None);
        assert!(start.elapsed() < MAX_STANDSTILL / 2 && start.elapsed() > MAX_STANDSTILL / 4, "{:?}", start.elapsed());
    }
}
