//! A limit on how long what streams may stand still.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// How long a stream may stand still, on either side.
const LONGEST: Duration = Duration::from_secs(30);

/// Watches one stream. It has a timer only while that stands still.
#[derive(Default)]
pub(super) struct Idle(Option<Pin<Box<Sleep>>>);

impl Idle {
    /// Passes on what polling the stream came to; `None` when it has stood still for too long.
    pub(super) fn watch<T>(&mut self, context: &mut Context<'_>, next: Poll<T>) -> Poll<Option<T>> {
        if let Poll::Ready(next) = next {
            self.0 = None;
            return Poll::Ready(Some(next));
        }
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep(LONGEST)));
        ready!(timer.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{Instant, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_piece_has_its_time() {
        let mut idle = Idle::default();
        for _ in 0..3 {
            // It stands still, but not for too long.
            let pending = poll_fn(|context| Poll::Ready(idle.watch(context, Poll::<u8>::Pending)));
            assert!(pending.await.is_pending());
            advance(LONGEST - Duration::from_millis(2)).await;
            assert_eq!(poll_fn(|context| idle.watch(context, Poll::Ready(7))).await, Some(7));
        }
        let start = Instant::now();
        assert_eq!(poll_fn(|context| idle.watch(context, Poll::<u8>::Pending)).await, None);
        assert_eq!(start.elapsed(), LONGEST);
    }
}
