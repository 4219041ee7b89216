//! Transactions that wait for a block: from the subscription that all clients share, or, where no node can push, from a filter at a node.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use serde_json::value::RawValue;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::{debug, info};

use super::Filters;
use crate::{
    domain::refusal::{Refusal, Unserved},
    pool::Pool,
    view::{Letter, Mailbox, Topics, refused::Refused},
};

/// How often a filter at a node is polled.
const POLL: Duration = Duration::from_millis(500);
/// The pause before a node is asked again that gave none.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a filter at a node is polled before a subscription is tried for again.
const SECOND_TRY: Duration = Duration::from_secs(30);
/// How long a node may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a client waits until it is known whether any node tells of transactions.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of transactions that may wait to be taken up, and of one answer of a node.
const MOST: usize = 32 << 20;

/// Whether transactions are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No node has answered yet.
    Asked,
    Told,
    /// No node tells of them.
    Refused,
}

/// Where transactions come from: hashes, and whole ones. Each feed runs while a filter wants it.
pub(super) struct Feeds {
    filters: Weak<Filters>,
    topics: Arc<Topics>,
    open: Mutex<[Option<Feed>; 2]>,
    runtime: Handle,
}

struct Feed {
    state: watch::Receiver<State>,
    /// Clients whose filter is not there yet wait for it.
    awaited: usize,
    /// Whether there is a filter for it.
    is_wanted: bool,
    /// Ends with this.
    _task: JoinSet<()>,
}

/// Someone who waits for a feed, which so goes on.
pub(super) struct Waiting<'a>(&'a Feeds, usize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let feed = &mut self.0.lock()[self.1];
        if let Some(feed) = feed {
            feed.awaited -= 1;
        }
        feed.take_if(|feed| feed.awaited == 0 && !feed.is_wanted);
    }
}

impl Feeds {
    pub(super) fn new(filters: Weak<Filters>, topics: Arc<Topics>) -> Self {
        Self { filters, topics, open: Mutex::default(), runtime: Handle::current() }
    }

    /// Has the feeds run that filters want, and ends the others.
    pub(super) fn want(&self, wanted: [bool; 2]) {
        for ((feed, wanted), full) in self.lock().iter_mut().zip(wanted).zip([false, true]) {
            if let Some(feed) = feed {
                feed.is_wanted = wanted;
            }
            if wanted {
                // It may have ended between its being ready and the first filter.
                feed.get_or_insert_with(|| self.start(full)).is_wanted = true;
            } else {
                feed.take_if(|feed| feed.awaited == 0);
            }
        }
    }

    /// Has transactions told, and waits until they are. They are for as long as what comes back is kept, or a filter wants them.
    ///
    /// # Errors
    /// When no node tells of them.
    pub(super) async fn ready(&self, full: bool) -> Result<Waiting<'_>, Refusal> {
        let place = usize::from(full);
        let mut state = {
            let mut open = self.lock();
            let feed = open[place].get_or_insert_with(|| self.start(full));
            feed.awaited += 1;
            feed.state.clone()
        };
        let waiting = Waiting(self, place);
        let settled = tokio::time::timeout(PATIENCE, state.wait_for(|state| *state != State::Asked)).await;
        match settled.map(|state| state.map(|state| *state)) {
            Ok(Ok(State::Told)) => Ok(waiting),
            Ok(Ok(State::Refused)) => Err(Refusal::Unserved(Unserved::Failed)),
            Ok(Ok(State::Asked) | Err(_)) | Err(_) => Err(Refusal::Unserved(Unserved::NoNode)),
        }
    }

    fn start(&self, full: bool) -> Feed {
        let (state, seen) = watch::channel(State::Asked);
        let source = Source { filters: self.filters.clone(), topics: self.topics.clone(), full, state };
        let mut task = JoinSet::new();
        task.spawn_on(source.run(), &self.runtime);
        Feed { state: seen, awaited: 0, is_wanted: false, _task: task }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, [Option<Feed>; 2]> {
        // Every change is whole, so a panic elsewhere cannot have spoilt it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task behind a feed.
struct Source {
    filters: Weak<Filters>,
    topics: Arc<Topics>,
    full: bool,
    state: watch::Sender<State>,
}

/// There are no filters any more.
struct Gone;

impl Source {
    async fn run(self) {
        while self.subscribe().await.is_ok() && self.poll().await.is_ok() {}
    }

    fn tell(&self, text: &str) -> Result<(), Gone> {
        self.filters.upgrade().ok_or(Gone)?.heard(self.full, text.into());
        Ok(())
    }

    fn set(&self, state: State) {
        self.state.send_if_modified(|now| std::mem::replace(now, state) != state);
    }

    /// Tells what the shared subscription brings, until there is none.
    async fn subscribe(&self) -> Result<(), Gone> {
        let params: &[u8] =
            if self.full { br#"["newPendingTransactions",true]"# } else { br#"["newPendingTransactions"]"# };
        let (mailbox, head) = (Mailbox::new(MOST), "".into());
        let mut joined = match self.topics.open("eth_subscribe", params, &head, &mailbox).await {
            Ok(joined) => joined,
            Err(refused) => {
                debug!(?refused, "no subscription to transactions");
                if refused == Refused::NoNode {
                    sleep(PAUSE).await;
                }
                return Ok(());
            }
        };
        joined.0.begin();
        self.set(State::Told);
        loop {
            match poll_fn(|context| mailbox.poll_next(context)).await {
                Letter::Note(note) => {
                    if let Ok(text) = std::str::from_utf8(note.parts()[1]) {
                        self.tell(text)?;
                    }
                }
                Letter::Answer(_) => {}
                Letter::Close(_) => return Ok(()),
            }
        }
    }

    /// Polls a filter at the node that serves the calls, and makes a new one when that node is lost.
    async fn poll(&self) -> Result<(), Gone> {
        let began = Instant::now();
        loop {
            let pool = self.topics.pool();
            let active = pool.snapshot().active;
            match active {
                Some(node) => self.poll_at(&pool, node, began).await?,
                None => sleep(PAUSE).await,
            }
            if is_over(&pool, began) {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }

    async fn poll_at(&self, pool: &Arc<Pool>, node: usize, began: Instant) -> Result<(), Gone> {
        let params = if self.full { "[true]" } else { "[]" };
        let name = &*pool.nodes[node].name;
        let id = match pool.ask_in_time(node, "eth_newPendingTransactionFilter", params, MOST, LIMIT).await {
            Ok(Ok(id)) => id,
            Ok(Err(refused)) => {
                debug!(node = name, why = refused.text, "the node makes no filter of transactions");
                self.state.send_if_modified(|state| {
                    let is_first = *state == State::Asked;
                    if is_first {
                        *state = State::Refused;
                    }
                    is_first
                });
                return Ok(());
            }
            Err(trouble) => {
                debug!(node = name, why = trouble.text, "the node makes no filter of transactions");
                return Ok(());
            }
        };
        let Ok(id) = std::str::from_utf8(&id).map(|id| format!("[{id}]")) else { return Ok(()) };
        info!(node = name, "transactions come from a filter at a node, since none tells them by itself");
        self.set(State::Told);
        loop {
            sleep(POLL).await;
            let is_elsewhere = !Arc::ptr_eq(&self.topics.pool(), pool) || pool.snapshot().active != Some(node);
            if is_elsewhere || is_over(pool, began) {
                // The node forgets it by itself, if it is lost.
                let _ = pool.ask_in_time(node, "eth_uninstallFilter", &id, MOST, LIMIT).await;
                return Ok(());
            }
            let Ok(Ok(news)) = pool.ask_in_time(node, "eth_getFilterChanges", &id, MOST, LIMIT).await else {
                return Ok(());
            };
            let news: Vec<&RawValue> = serde_json::from_slice(&news).unwrap_or_default();
            news.into_iter().try_for_each(|text| self.tell(text.get()))?;
        }
    }
}

/// Whether to try for a subscription again.
fn is_over(pool: &Pool, began: Instant) -> bool {
    began.elapsed() >= SECOND_TRY && pool.nodes.iter().any(|node| node.link.is_some())
}
