//! The reader's side of a subscription.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{Shared, Signal};

/// How many events may wait for the reader.
const MAX_WAITING: usize = 1024;
/// How many bytes of events may wait for the reader; a single one may be longer.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// The news of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A notification: the bytes of its `result`, as the node wrote them. The bytes share memory
    /// with the whole frame, so a reader that keeps them for long copies them.
    Event(Bytes),
    /// From here on events are missing: the connection was lost, or the reader was too slow. The
    /// subscription will be asked for again.
    Lost,
    /// The subscription runs again.
    Back,
    /// The node refused a subscription that had been granted on an earlier connection, with this
    /// error object. The link tries again on the next connection.
    Refused(Bytes),
}

/// A subscription at one node. Dropping it unsubscribes.
pub struct Feed {
    key: u64,
    queue: Arc<Queue>,
    shared: Arc<Shared>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Feed({})", self.key)
    }
}

impl Feed {
    pub(super) fn new(key: u64, queue: Arc<Queue>, shared: Arc<Shared>) -> Self {
        Self { key, queue, shared }
    }

    /// Waits for the next news; `None` when the link's actor is gone. Cancel-safe. A reader that is
    /// too slow finds [`News::Lost`] as the last of its news, and the link subscribes again when
    /// the reader has taken that.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            {
                let mut waiting = self.queue.lock();
                if let Some(news) = waiting.pop() {
                    if waiting.overrun && waiting.news.is_empty() {
                        waiting.overrun = false;
                        drop(waiting);
                        self.shared.signal(Signal::FeedDrained(self.key));
                    }
                    return Some(news);
                }
                if waiting.ended {
                    return None;
                }
            }
            self.queue.bell.notified().await;
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.signal(Signal::FeedGone(self.key));
    }
}

/// The events that wait for one reader.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Default)]
struct Waiting {
    news: VecDeque<News>,
    /// Bytes of the events among them.
    bytes: usize,
    /// The last of them is a loss that came of the reader's slowness.
    overrun: bool,
    ended: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change is made whole under the lock, so a panic elsewhere cannot have spoilt the
        // queue.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The actor's end of a feed. Dropping the outlet ends the feed.
pub(super) struct Outlet(Arc<Queue>);

impl Outlet {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self(queue)
    }

    /// Hands `news` to the reader. `false` when too much waits already: then the event is dropped,
    /// the reader gets [`News::Lost`], and no more news may be pushed until the reader has taken
    /// that.
    pub(super) fn push(&self, news: News) -> bool {
        let taken = self.0.lock().push(news);
        self.0.bell.notify_one();
        taken
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.bell.notify_one();
    }
}

impl Waiting {
    fn push(&mut self, news: News) -> bool {
        match news {
            News::Event(event) => {
                let fits = self.bytes == 0 || self.bytes + event.len() <= MAX_WAITING_BYTES;
                if self.news.len() >= MAX_WAITING || !fits {
                    self.lose();
                    self.overrun = true;
                    return false;
                }
                self.bytes += event.len();
                self.news.push_back(News::Event(event));
            }
            News::Lost => self.lose(),
            other => self.news.push_back(other),
        }
        true
    }

    /// Adds a loss. `Back` and `Refused` right before the loss are dropped with it, as they are out
    /// of date; so a feed that is not read does not grow.
    fn lose(&mut self) {
        while let Some(News::Back | News::Refused(_)) = self.news.back() {
            self.news.pop_back();
        }
        if self.news.back() != Some(&News::Lost) {
            self.news.push_back(News::Lost);
        }
    }

    fn pop(&mut self) -> Option<News> {
        let news = self.news.pop_front()?;
        if let News::Event(event) = &news {
            self.bytes -= event.len();
        }
        Some(news)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn feed() -> (Feed, Outlet, Arc<Shared>) {
        let (queue, shared) = (Arc::new(Queue::default()), Arc::new(Shared::default()));
        (Feed::new(7, queue.clone(), shared.clone()), Outlet::new(queue), shared)
    }

    fn event(n: usize) -> News {
        News::Event(Bytes::from(n.to_string()))
    }

    fn read_all(feed: &mut Feed) -> Vec<News> {
        std::iter::from_fn(|| feed.next().now_or_never().flatten()).collect()
    }

    #[test]
    fn a_slow_reader_learns_where_events_are_missing() {
        let (mut feed, outlet, shared) = feed();
        for n in 0..MAX_WAITING {
            assert!(outlet.push(event(n)));
        }
        assert!(!outlet.push(event(MAX_WAITING)));
        for n in 0..MAX_WAITING {
            assert_eq!(feed.next().now_or_never().unwrap(), Some(event(n)));
            assert_eq!(shared.take_signals(), []);
        }
        assert_eq!(read_all(&mut feed), [News::Lost]);
        assert_eq!(shared.take_signals(), [Signal::FeedDrained(7)]);
        outlet.push(News::Back);
        assert!(outlet.push(event(1)));
        assert_eq!(read_all(&mut feed), [News::Back, event(1)]);
        assert_eq!(shared.take_signals(), []);
    }

    #[test]
    fn a_queue_is_bounded_in_bytes_but_for_a_single_event() {
        let (mut feed, outlet, _) = feed();
        let long = || News::Event(vec![b'x'; MAX_WAITING_BYTES + 1].into());
        assert!(outlet.push(long()));
        assert!(!outlet.push(event(1)));
        assert_eq!(read_all(&mut feed), [long(), News::Lost]);
        assert!(outlet.push(long()), "what was read is counted no more");
    }

    #[test]
    fn losses_that_nobody_reads_of_do_not_pile_up() {
        let (mut feed, outlet, _) = feed();
        outlet.push(event(1));
        for n in 0..100 {
            outlet.push(News::Lost);
            outlet.push(if n % 2 == 0 { News::Back } else { News::Refused(Bytes::new()) });
        }
        outlet.push(News::Lost);
        outlet.push(News::Back);
        outlet.push(event(2));
        assert_eq!(read_all(&mut feed), [event(1), News::Lost, News::Back, event(2)]);
    }

    #[test]
    fn a_feed_ends_with_the_actor_after_the_events_that_wait() {
        let (mut feed, outlet, shared) = feed();
        outlet.push(event(1));
        drop(outlet);
        assert_eq!(feed.next().now_or_never(), Some(Some(event(1))));
        assert_eq!(feed.next().now_or_never(), Some(None));
        drop(feed);
        assert_eq!(shared.take_signals(), [Signal::FeedGone(7)]);
    }
}
