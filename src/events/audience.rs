//! The clients of one network's events: each has its own bounded queue of shared events.
//!
//! All workers share one map, and an event wakes each client's task from the hub's thread. Reason:
//! consensus nodes send some hundred events in a slot, so the system calls of these wakes cost
//! little. Subscriptions (`view::audience`), which have far more clients, are sharded by worker.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::{
    sync::Notify,
    time::{Instant, Sleep, sleep},
};
use tracing::warn;

use super::topics::{self, Names};
use crate::{
    memory::{Account, Claim, SHARED},
    metrics::Metrics,
};

/// Between two comments that keep a quiet stream alive.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Bytes that count for each event besides its text, because small events take memory too.
const OVERHEAD: usize = 64;

/// Topics unknown to the API that all clients of a network together may ask for: each topic makes
/// the request to the node longer.
const MOST_UNKNOWN: usize = 16;

/// All clients.
pub(super) struct Audience {
    network: Arc<str>,
    clients: Mutex<Clients>,
    /// Bytes that may wait for a client.
    max_waiting: usize,
    metrics: Arc<Metrics>,
    /// Notified when a client comes or goes.
    pub(super) changed: Notify,
    /// How many clients events have been looked at for.
    #[cfg(test)]
    looks: std::sync::atomic::AtomicUsize,
}

#[derive(Default)]
struct Clients {
    /// In the order of their arrival.
    present: BTreeMap<u64, Arc<Client>>,
    /// The clients by topic, so that an event costs nothing for clients of other topics. No topic
    /// is without clients.
    by_topic: BTreeMap<String, BTreeMap<u64, Arc<Client>>>,
    /// The topics of `by_topic`, made anew when they change.
    wanted: Arc<Names>,
    came: u64,
    closed: bool,
}

struct Client {
    topics: Names,
    waiting: Mutex<EventQueue>,
}

#[derive(Default)]
struct EventQueue {
    events: VecDeque<Bytes>,
    bytes: usize,
    /// Since when the client has had events waiting, without a break.
    since: Option<Instant>,
    /// The waiting events' part of the client's memory. Counts after [`SHARED`]; before that, the
    /// events are shared with other clients.
    claim: Option<Claim>,
    closed: bool,
    waker: Option<Waker>,
}

impl Clients {
    fn add(&mut self, client: Arc<Client>) -> u64 {
        self.came += 1;
        let id = self.came;
        for topic in &client.topics {
            self.by_topic.entry(topic.clone()).or_default().insert(id, client.clone());
        }
        self.present.insert(id, client);
        self.count_topics();
        id
    }

    fn remove(&mut self, id: u64) {
        let Some(client) = self.present.remove(&id) else { return };
        for topic in &client.topics {
            if let Some(of_topic) = self.by_topic.get_mut(topic) {
                of_topic.remove(&id);
                if of_topic.is_empty() {
                    self.by_topic.remove(topic);
                }
            }
        }
        self.count_topics();
    }

    fn count_topics(&mut self) {
        // A single client only adds topics, or only removes topics: an equal number means the same
        // topics.
        if self.wanted.len() != self.by_topic.len() {
            self.wanted = Arc::new(self.by_topic.keys().cloned().collect());
        }
    }
}

impl Audience {
    pub(super) fn new(network: Arc<str>, max_waiting: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        topics::labels().for_each(|topic| metrics.begin_notifications(topic));
        Arc::new(Self {
            network,
            clients: Mutex::default(),
            max_waiting,
            metrics,
            changed: Notify::new(),
            #[cfg(test)]
            looks: Default::default(),
        })
    }

    /// Lets a client in, to get events of these topics from now on.
    pub(super) fn join(self: &Arc<Self>, topics: Names) -> Subscription {
        let client = Arc::new(Client { topics, waiting: Mutex::default() });
        let id = {
            let mut clients = lock(&self.clients);
            client.waiting().closed = clients.closed;
            clients.add(client.clone())
        };
        self.changed.notify_one();
        let quiet = Box::pin(sleep(KEEP_ALIVE));
        let counted = Box::new(self.metrics.sse_stream());
        Subscription { id, client, audience: self.clone(), quiet, _counted: counted }
    }

    /// Whether these topics and those of the present clients have too many that are unknown to the
    /// API.
    pub(super) fn is_too_much(&self, topics: &Names) -> bool {
        let clients = lock(&self.clients);
        clients.wanted.union(topics).filter(|topic| topics::label(topic) == "other").count() > MOST_UNKNOWN
    }

    /// The topics of all clients; `None` without clients.
    pub(super) fn wanted(&self) -> Option<Arc<Names>> {
        let clients = lock(&self.clients);
        (!clients.present.is_empty()).then(|| clients.wanted.clone())
    }

    /// Queues an event for every client of its topic. A client that is too far behind is cut off.
    pub(super) fn tell(&self, topic: &str, event: &Bytes) {
        let (mut told, now) = (0, Instant::now());
        for client in lock(&self.clients).by_topic.get(topic).into_iter().flat_map(BTreeMap::values) {
            #[cfg(test)]
            self.looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut waiting = client.waiting();
            if waiting.closed {
                continue;
            }
            told += 1;
            // A single event of any size does not make a client slow.
            let is_slow = waiting.bytes > 0 && waiting.bytes + event.len() + OVERHEAD > self.max_waiting;
            waiting.bytes += event.len() + OVERHEAD;
            let is_refused = !waiting.is_counted(now);
            if is_refused {
                self.metrics.slow_client_closed();
                waiting.close();
            } else if is_slow {
                warn!(network = &*self.network, limit = self.max_waiting, "a slow client of events is cut off");
                self.metrics.slow_client_closed();
                waiting.close();
            } else {
                waiting.events.push_back(event.clone());
            }
            waiting.wake();
        }
        if told > 0 {
            self.metrics.notified(topics::label(topic), told);
        }
    }

    /// Ends all streams, those to come included, each after the events that wait for its client.
    pub(super) fn close(&self) {
        let mut clients = lock(&self.clients);
        clients.closed = true;
        for client in clients.present.values() {
            let mut waiting = client.waiting();
            waiting.closed = true;
            waiting.wake();
        }
    }
}

impl Client {
    fn waiting(&self) -> MutexGuard<'_, EventQueue> {
        lock(&self.waiting)
    }
}

impl EventQueue {
    fn close(&mut self) {
        self.closed = true;
        self.events = VecDeque::new();
        self.bytes = 0;
        self.claim = None;
    }

    /// Counts the waiting events, if the client has left some for a while. `false` where memory has
    /// no room for them.
    fn is_counted(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        match &mut self.claim {
            Some(claim) if now - since > SHARED => claim.resize(self.bytes).is_ok(),
            _ => true,
        }
    }

    /// The next event.
    fn pop(&mut self) -> Option<Bytes> {
        let event = self.events.pop_front()?;
        self.bytes -= event.len() + OVERHEAD;
        if self.events.is_empty() {
            self.since = None;
        }
        if let Some(claim) = self.claim.as_mut().filter(|claim| claim.bytes() > 0) {
            claim.set(self.bytes);
        }
        Some(event)
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Queues are whole at every moment, so a panic elsewhere cannot have spoilt them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client's stream: events as bytes, and comments while there are no events. Ends when the client
/// is cut off or the network is gone; dropping the stream takes the client out.
pub struct Subscription {
    id: u64,
    client: Arc<Client>,
    audience: Arc<Audience>,
    quiet: Pin<Box<Sleep>>,
    _counted: Box<dyn std::any::Any + Send>,
}

impl Subscription {
    /// Has the waiting events count against `memory`, if the client takes them slowly.
    pub fn counted(self, memory: &Arc<Account>) -> Self {
        self.client.waiting().claim = Some(memory.outgoing());
        self
    }
}

impl Stream for Subscription {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        {
            let mut waiting = self.client.waiting();
            if let Some(event) = waiting.pop() {
                drop(waiting);
                self.quiet.as_mut().reset(Instant::now() + KEEP_ALIVE);
                return Poll::Ready(Some(event));
            }
            if waiting.closed {
                return Poll::Ready(None);
            }
            waiting.waker = Some(context.waker().clone());
        }
        std::task::ready!(self.quiet.as_mut().poll(context));
        self.quiet.as_mut().reset(Instant::now() + KEEP_ALIVE);
        Poll::Ready(Some(Bytes::from_static(b":\n\n")))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.audience.clients).remove(self.id);
        self.audience.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    fn audience(max_waiting: usize) -> (Arc<Audience>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new());
        (Audience::new("default".into(), max_waiting, metrics.clone()), metrics)
    }

    fn names(list: &[&str]) -> Names {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn shown(metrics: &Metrics, line: &str) -> bool {
        String::from_utf8(metrics.render(|_| {})).unwrap().contains(line)
    }

    #[tokio::test(start_paused = true)]
    async fn each_hears_of_its_topics_and_the_same_bytes_are_shared() {
        let (audience, metrics) = audience(1000);
        let (mut heads, mut all) = (audience.join(names(&["head"])), audience.join(names(&["block", "head"])));
        assert_eq!(audience.wanted().as_deref(), Some(&names(&["block", "head"])));
        assert!(shown(&metrics, "steadfast_sse_streams 2"));
        let (block, head) = (Bytes::from("block 1"), Bytes::from("head 1"));
        audience.tell("block", &block);
        audience.tell("head", &head);
        audience.tell("novelty", &head);
        assert_eq!(heads.next().await.unwrap().as_ptr(), head.as_ptr());
        assert_eq!(all.next().await.unwrap().as_ptr(), block.as_ptr());
        assert_eq!(all.next().await.unwrap().as_ptr(), head.as_ptr());
        assert!(shown(&metrics, r#"steadfast_notifications_total{kind="head"} 2"#));
        assert!(all.next().now_or_never().is_none());
        drop((heads, all));
        assert_eq!(audience.wanted(), None);
        assert!(shown(&metrics, "steadfast_sse_streams 0"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_is_cut_off_and_the_others_are_not() {
        let (audience, metrics) = audience(10 * (100 + OVERHEAD));
        let (mut slow, mut fast) = (audience.join(names(&["head"])), audience.join(names(&["head"])));
        let event = Bytes::from(vec![b'x'; 100]);
        for _ in 0..10 {
            audience.tell("head", &event);
            assert!(fast.next().await.is_some());
        }
        assert!((1..=9).all(|count| !shown(&metrics, &format!("steadfast_slow_clients_closed_total {count}"))));
        audience.tell("head", &event);
        assert!(fast.next().await.is_some());
        assert_eq!(slow.next().await, None);
        assert!(shown(&metrics, "steadfast_slow_clients_closed_total 1"));
        audience.tell("head", &event);
        assert!(fast.next().await.is_some(), "the other goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn one_large_event_cuts_nobody_off() {
        let (audience, _) = audience(100);
        let mut client = audience.join(names(&["head"]));
        audience.tell("head", &Bytes::from(vec![b'x'; 1000]));
        assert_eq!(client.next().await.map(|event| event.len()), Some(1000));
    }

    #[tokio::test(start_paused = true)]
    async fn wanted_topics_are_those_of_present_clients() {
        let (audience, _) = audience(1000);
        let heads = audience.join(names(&["head"]));
        let before = audience.wanted().unwrap();
        let more = audience.join(names(&["block", "head"]));
        let changing = [names(&["head"]), names(&["attestation", "head"]), names(&["attestation"])];
        assert_eq!(*audience.wanted().unwrap(), names(&["block", "head"]));
        drop(more);
        assert_eq!(audience.wanted().unwrap(), before);
        let present = changing.map(|topics| audience.join(topics));
        assert_eq!(*audience.wanted().unwrap(), names(&["attestation", "head"]));
        drop(heads);
        let [heads, both, attestations] = present;
        drop((heads, both));
        assert_eq!(*audience.wanted().unwrap(), names(&["attestation"]));
        drop(attestations);
        assert_eq!(audience.wanted(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_costs_nothing_for_clients_that_do_not_want_it() {
        let (audience, _) = audience(1 << 20);
        let others: Vec<_> = (0..20).map(|_| audience.join(names(&["attestation", "block"]))).collect();
        let mut one = audience.join(names(&["head"]));
        let (event, wanted) = (Bytes::from("event"), audience.wanted().unwrap());
        for _ in 0..50 {
            // The hub does both for each event.
            assert!(Arc::ptr_eq(&audience.wanted().unwrap(), &wanted), "the topics are gathered anew");
            audience.tell("head", &event);
        }
        assert_eq!(audience.looks.load(std::sync::atomic::Ordering::Relaxed), 50);
        assert_eq!(one.next().await.unwrap(), event);
        drop(others);
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_topics_are_bounded_over_all_clients() {
        let (audience, _) = audience(100);
        let some = |from: usize, count: usize| (from..from + count).map(|n| format!("novelty_{n}")).collect::<Names>();
        let _first = audience.join(some(0, 10));
        assert!(!audience.is_too_much(&some(5, 11)));
        assert!(audience.is_too_much(&some(5, 12)));
        assert!(!audience.is_too_much(&names(&["head", "attestation"])));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_is_kept_alive_every_ten_seconds() {
        let (audience, _) = audience(1000);
        let mut stream = audience.join(names(&["head"]));
        let start = Instant::now();
        for seconds in [10, 20] {
            assert_eq!(stream.next().await.unwrap(), ":\n\n");
            assert_eq!(start.elapsed(), Duration::from_secs(seconds));
        }
        tokio::time::advance(Duration::from_secs(5)).await;
        audience.tell("head", &Bytes::from("event"));
        assert_eq!(stream.next().await.unwrap(), "event");
        assert_eq!(stream.next().await.unwrap(), ":\n\n");
        assert_eq!(start.elapsed(), Duration::from_secs(35));
        audience.tell("head", &Bytes::from("last"));
        audience.close();
        assert_eq!((stream.next().await, stream.next().await), (Some(Bytes::from("last")), None));
        assert_eq!(audience.join(names(&["head"])).next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_client_ends_when_its_memory_is_used_up() {
        let (audience, metrics) = audience(1 << 20);
        let budget = crate::memory::Budget::new(64 << 10);
        let memory = Account::open(&budget);
        let mut slow = audience.join(names(&["head"])).counted(&memory);
        let mut fast = audience.join(names(&["head"])).counted(&Account::open(&budget));
        let event = Bytes::from(vec![b'x'; 10_000]);
        for round in 0..20 {
            audience.tell("head", &event);
            assert!(fast.next().await.is_some(), "{round}");
            tokio::time::advance(SHARED).await;
        }
        assert_eq!((slow.next().await, budget.held()), (None, 0));
        assert!(shown(&metrics, "steadfast_slow_clients_closed_total 1"));
        audience.tell("head", &event);
        assert!(fast.next().await.is_some());
    }
}
