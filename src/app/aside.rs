//! Work on files beside the runtime's thread, in bounded time.
//!
//! The rule: **no file can stop the proxy.** The reason: a read of a pipe waits for a writer, and
//! one of a network's file system for a server, without end, and calls, probes and signals have the
//! same thread. An example: the settings' file system hangs. A reload is refused after five
//! seconds, and again after five seconds each time, until the first read has ended: there is one at
//! most.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

/// The longest that work on files may take, the wait for earlier work that hangs included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A thread for work on files, while there is some.
#[derive(Clone, Debug)]
pub(super) struct Aside {
    one: Arc<Semaphore>,
}

impl Default for Aside {
    fn default() -> Self {
        Self { one: Arc::new(Semaphore::new(1)) }
    }
}

impl Aside {
    /// Does `work` on a thread for that, after the work before. `None` when that takes too long:
    /// work that was begun goes on, and its result is lost.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let one = self.one.clone();
        let within = async move {
            let permit = one.acquire_owned().await.ok()?;
            let work = move || {
                // Given back when the work has ended, though nothing may wait for its end.
                let _permit = permit;
                work()
            };
            spawn_blocking(work).await.ok()
        };
        timeout(TIMEOUT, within).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::{task::yield_now, time::advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_hangs_is_left_and_has_nothing_beside_it() {
        let aside = Aside::default();
        assert_eq!(aside.run(|| 7).await, Some(7));
        let (go_on, hangs) = mpsc::channel::<()>();
        let own = aside.clone();
        let first = tokio::spawn(async move { own.run(move || hangs.recv().is_err()).await });
        yield_now().await;
        let own = aside.clone();
        let second = tokio::spawn(async move { own.run(|| 8).await });
        yield_now().await;
        // Work under way holds this clock.
        advance(TIMEOUT).await;
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (None, None));
        drop(go_on);
        assert_eq!(aside.run(|| 9).await, Some(9));
    }
}
