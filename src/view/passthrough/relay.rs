//! The task behind a shared subscription: holds the subscription at the right node, and sends its
//! notifications to the subscribers.

use std::{future::pending, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{
    State, TopicKey,
    overlap::{OVERLAP, Overlap},
};
use crate::{
    domain::node_id::NodeId,
    net::link::{Error, Feed, News, SubscribeError},
    pool::Pool,
    route::avoided::Avoided,
    view::{audience::Audience, mailbox::Closing},
};

/// How long a node may take to grant a subscription.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a request to subscribe got lost.
const SUBSCRIBE_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Relay {
    key: TopicKey,
    pool: Arc<Pool>,
    audience: Arc<Audience<()>>,
    /// Whether the notifications are states, each of which lasts until the next.
    is_state: bool,
    state: watch::Sender<State>,
    current: Option<Source>,
    /// The source before, for the time of an overlap.
    fading: Option<(Source, Instant)>,
    opening: Option<Opening>,
    avoided: Avoided,
    overlap: Overlap,
    /// No request is sent before this time.
    paused: Option<Instant>,
    /// The first refusal, while no node has granted the subscription.
    refusal: Option<Bytes>,
}

/// A subscription at a node.
struct Source {
    pool: Arc<Pool>,
    node: NodeId,
    feed: Feed,
    /// The source's number for the overlap: 0 or 1, other than that of the source before.
    number: usize,
}

struct Opening {
    pool: Arc<Pool>,
    node: NodeId,
    answer: Pin<Box<dyn Future<Output = Result<Feed, SubscribeError>> + Send>>,
}

/// Closes the subscribers when dropped, so that a panic of the task does not leave connections open
/// that wait for ever.
struct EndsWith(Arc<Audience<()>>);

impl Drop for EndsWith {
    fn drop(&mut self) {
        self.0.close_all(Closing::Gone);
    }
}

impl Relay {
    pub(super) fn new(
        key: TopicKey,
        pool: Arc<Pool>,
        audience: Arc<Audience<()>>,
        state: watch::Sender<State>,
    ) -> Self {
        let is_state = is_state(&key);
        Self {
            key,
            pool,
            audience,
            is_state,
            state,
            current: None,
            fading: None,
            opening: None,
            avoided: Avoided::default(),
            overlap: Overlap::new(is_state),
            paused: None,
            refusal: None,
        }
    }

    /// Runs until all nodes that can be reached have refused the subscription and none had granted
    /// it.
    pub(super) async fn run(mut self, mut pools: watch::Receiver<Arc<Pool>>) {
        let _ends_with = EndsWith(self.audience.clone());
        let mut changes = self.pool.subscribe();
        while self.steer(Instant::now()) {
            let wake = [self.paused, self.fading.as_ref().map(|(_, until)| *until)].into_iter().flatten().min();
            // All arms are cancel-safe: a pending answer stays in `opening`.
            tokio::select! {
                biased;
                moved = pools.changed() => {
                    if moved.is_err() {
                        return;
                    }
                    self.pool = pools.borrow_and_update().clone();
                    changes = self.pool.subscribe();
                    // Another pool numbers other nodes.
                    self.avoided.clear();
                }
                // `self.pool` holds the sender, so this cannot fail.
                _ = changes.changed() => {}
                answer = answer(&mut self.opening) => self.answered(answer).await,
                news = next(self.fading.as_mut().map(|(source, _)| source)) => match news {
                    // A state of the old node means nothing any more.
                    Some(News::Event(_)) if self.is_state => {}
                    Some(News::Event(event)) => self.tell(self.fading.as_ref().map(|(source, _)| source.number), &event).await,
                    Some(News::Back) => {}
                    Some(News::Lost | News::Refused(_)) | None => self.fading = None,
                },
                news = next(self.current.as_mut()) => self.hear(news).await,
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// Begins to move the subscription if another node should have it. `false` when no node grants
    /// it.
    fn steer(&mut self, now: Instant) -> bool {
        self.fading.take_if(|(_, until)| *until <= now);
        self.paused.take_if(|until| *until <= now);
        let Some(node) =
            self.avoided.choose(&self.pool, |node| node.link.as_ref().is_some_and(|link| link.is_up()), now)
        else {
            if let Some(refusal) = self.refusal.take_if(|_| self.opening.is_none()) {
                self.state.send_replace(State::Refused(refusal));
                return false;
            }
            return true;
        };
        let is_there = |pool: &Arc<Pool>, at: NodeId| at == node && Arc::ptr_eq(pool, &self.pool);
        if self.current.as_ref().is_some_and(|current| is_there(&current.pool, current.node)) {
            self.opening = None;
        } else if self.opening.as_ref().is_none_or(|opening| !is_there(&opening.pool, opening.node))
            && self.paused.is_none()
            && let Some(link) = self.pool.nodes[node].link.clone()
        {
            let (method, params) = self.key.clone();
            let pool = self.pool.clone();
            let answer = async move {
                let subscribed = pool.nodes[node].subscribe(&link, &method, params);
                let answer = timeout(SUBSCRIBE_TIMEOUT, subscribed).await;
                answer.unwrap_or(Err(SubscribeError::Link(Error::Lost)))
            };
            self.opening = Some(Opening { pool: self.pool.clone(), node, answer: Box::pin(answer) });
        }
        true
    }

    async fn answered(&mut self, answer: Result<Feed, SubscribeError>) {
        let Some(Opening { pool, node, .. }) = self.opening.take() else { return };
        let (now, name) = (Instant::now(), pool.nodes[node].name.clone());
        match answer {
            Ok(feed) => {
                let number = self.current.as_ref().map_or(0, |before| 1 - before.number);
                // The source that had the number before is dropped here.
                self.fading = self.current.take().map(|before| (before, now + OVERLAP));
                self.overlap.replace(number);
                self.current = Some(Source { pool, node, feed, number });
                self.refusal = None;
                self.forget_state().await;
                if *self.state.borrow() != State::Granted {
                    self.state.send_replace(State::Granted);
                }
                if let Some((before, _)) = &self.fading {
                    let from = &*before.pool.nodes[before.node].name;
                    info!(method = self.key.0, from, to = &*name, "a subscription comes from another node");
                }
            }
            Err(SubscribeError::Refused(error)) => {
                debug!(method = self.key.0, node = &*name, "the node refuses a subscription");
                if Arc::ptr_eq(&pool, &self.pool) {
                    self.avoided.add(node, now);
                }
                if *self.state.borrow() == State::Asked {
                    let error = pool.nodes[node].redact(&error).map_or(error, Bytes::from);
                    self.refusal.get_or_insert(error);
                }
            }
            Err(SubscribeError::Link(_)) => self.paused = Some(now + SUBSCRIBE_PAUSE),
        }
    }

    async fn hear(&mut self, news: Option<News>) {
        let Some(current) = &self.current else { return };
        match news {
            Some(News::Event(event)) => self.tell(Some(current.number), &event).await,
            // The link subscribes again by itself. If the link is down, `steer` chooses another
            // node.
            Some(News::Lost | News::Back) => {
                self.overlap.interrupt(current.number);
                self.forget_state().await;
            }
            Some(News::Refused(_)) => {
                let node = &*current.pool.nodes[current.node].name;
                warn!(method = self.key.0, node, "the node refuses a subscription that it had granted");
                if Arc::ptr_eq(&current.pool, &self.pool) {
                    self.avoided.add(current.node, Instant::now());
                }
                self.current = None;
                self.forget_state().await;
            }
            None => {
                self.current = None;
                self.forget_state().await;
            }
        }
    }

    async fn tell(&mut self, source: Option<usize>, event: &Bytes) {
        let (Some(source), Ok(text)) = (source, std::str::from_utf8(event)) else { return };
        let is_new = self.overlap.hear(source, event, Instant::now());
        if self.is_state {
            // Subscribers that joined while the node's state was unknown need the state even if it
            // is no news to the others.
            self.audience.tell_state(text.into(), is_new).await;
        } else if is_new {
            let results: Arc<[Arc<str>]> = [text.into()].into();
            self.audience.tell(u64::MAX, move |()| results.clone()).await;
        }
    }

    /// Forgets the last state after a change of node or a lost connection, so that a new subscriber
    /// is not sent an old state.
    async fn forget_state(&mut self) {
        if self.is_state {
            self.audience.forget_state().await;
        }
    }
}

/// Whether a node answers each new subscription of this kind with its present state.
fn is_state((method, params): &TopicKey) -> bool {
    let params: Vec<&RawValue> = serde_json::from_slice(params).unwrap_or_default();
    let kind = params.first().and_then(|kind| serde_json::from_str::<String>(kind.get()).ok());
    method == "eth_subscribe" && kind.as_deref() == Some("syncing")
}

async fn answer(opening: &mut Option<Opening>) -> Result<Feed, SubscribeError> {
    match opening {
        Some(opening) => opening.answer.as_mut().await,
        None => pending().await,
    }
}

async fn next(source: Option<&mut Source>) -> Option<News> {
    match source {
        Some(source) => {
            let news = source.feed.next().await;
            news.iter().for_each(|news| source.pool.nodes[source.node].pay_for(news));
            news
        }
        None => pending().await,
    }
}
