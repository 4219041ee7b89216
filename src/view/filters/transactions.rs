//! Transactions that wait for a block. They come from the subscription that all clients share, or,
//! where no node can push, from a filter at a node.

use std::{
    borrow::Cow,
    collections::BTreeSet,
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
    pool::{Pool, ask},
    route::avoided::Avoided,
    view::{Letter, Mailbox, Topics, refused::Refused},
};

/// How often a filter at a node is polled.
const POLL: Duration = Duration::from_millis(500);
/// The pause before a node is asked again that gave none.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a filter at a node is polled before a subscription is tried for again.
const SECOND_TRY: Duration = Duration::from_secs(30);
/// A filter that a node loses sooner counts as an early loss: the node may not serve such filters.
const STEADY: Duration = Duration::from_secs(10);
/// How long a node may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a client waits until a node is known to report transactions, or none to.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of transactions that may wait to be recorded, and of one answer of a node.
const MOST: usize = 32 << 20;
/// Bytes of a filter's id at most.
const LONGEST_ID: usize = 1024;

/// Whether transactions are told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Not all nodes have answered yet.
    Asked,
    Told,
    /// No usable node tells of them.
    Refused(Refusal),
}

/// The feeds of transactions: one of hashes, and one of whole transactions. Each runs while a
/// filter wants it.
pub(super) struct Feeds {
    filters: Weak<Filters>,
    topics: Arc<Topics>,
    open: Mutex<[Option<Feed>; 2]>,
    runtime: Handle,
}

struct Feed {
    state: watch::Receiver<State>,
    /// Clients that wait for the feed before their filter is made.
    awaited: usize,
    /// Whether a filter reads the feed.
    is_wanted: bool,
    /// The task ends when this is dropped.
    _task: JoinSet<()>,
}

/// A client that waits for a feed. The feed runs at least as long.
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

    /// Starts the feeds that filters want, and ends the others.
    pub(super) fn want(&self, wanted: [bool; 2]) {
        for ((feed, wanted), full) in self.lock().iter_mut().zip(wanted).zip([false, true]) {
            if let Some(feed) = feed {
                feed.is_wanted = wanted;
            }
            if wanted {
                // The feed may have ended before its first filter was made.
                feed.get_or_insert_with(|| self.start(full)).is_wanted = true;
            } else {
                feed.take_if(|feed| feed.awaited == 0);
            }
        }
    }

    /// Starts the feed and waits until it tells transactions. The feed runs while the result is
    /// held, or a filter wants it.
    ///
    /// # Errors
    /// When no node reports transactions.
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
        match settled.map(|state| state.map(|state| state.clone())) {
            Ok(Ok(State::Told)) => Ok(waiting),
            Ok(Ok(State::Refused(refusal))) => Err(refusal),
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
        // The feeds are consistent at every moment, so a panic elsewhere cannot have spoilt them.
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
        let mut known = (self.topics.pool(), Barren::default());
        while self.subscribe().await.is_ok() && self.poll(&mut known).await.is_ok() {}
    }

    /// Records a transaction. `false` when the text is no transaction, and clients are not sent the
    /// text.
    fn tell(&self, text: &str) -> Result<bool, Gone> {
        let filters = self.filters.upgrade().ok_or(Gone)?;
        let is_one = is_transaction(text, self.full);
        if is_one {
            filters.heard(self.full, text.into());
        }
        Ok(is_one)
    }

    fn is_told(&self) {
        self.state.send_if_modified(|state| std::mem::replace(state, State::Told) != State::Told);
    }

    /// Records the transactions of the shared subscription, until the subscription ends.
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
        self.is_told();
        loop {
            match poll_fn(|context| mailbox.poll_next(context)).await {
                Letter::Note(note) => {
                    if let Ok(text) = std::str::from_utf8(note.parts()[1]) {
                        self.tell(text)?;
                    }
                }
                Letter::Answer(..) => {}
                Letter::Close(_) => return Ok(()),
            }
        }
    }

    /// Polls a filter at a node: at the node that serves the calls, or, where that makes no working
    /// filter, at another. Makes a new filter when that node is lost. `known` says which nodes make
    /// no working filters.
    async fn poll(&self, known: &mut (Arc<Pool>, Barren)) -> Result<(), Gone> {
        let began = Instant::now();
        loop {
            let now = self.topics.pool();
            if !Arc::ptr_eq(&now, &known.0) {
                *known = (now, Barren::default());
            }
            let (pool, barren) = (&known.0, &mut known.1);
            match barren.avoided.choose(pool, |_| true, Instant::now()) {
                Some(node) if self.poll_at(pool, node, barren, began).await? => {}
                // Another node may make one.
                Some(_) => continue,
                None => {
                    if let Some(refusal) = barren.first.as_ref().filter(|_| barren.is_all(pool)) {
                        self.state.send_if_modified(|state| {
                            let is_asked = *state == State::Asked;
                            if is_asked {
                                *state = State::Refused(refusal.clone());
                            }
                            is_asked
                        });
                    }
                }
            }
            if is_over(pool, began) {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }

    /// Makes and polls a filter at `node`. `false` when the node is avoided from now on.
    async fn poll_at(&self, pool: &Arc<Pool>, node: usize, barren: &mut Barren, began: Instant) -> Result<bool, Gone> {
        let params = if self.full { "[true]" } else { "[]" };
        let name = &*pool.nodes[node].name;
        let answer = pool.ask_in_time(node, "eth_newPendingTransactionFilter", params, MOST, LIMIT).await;
        let why = match &answer {
            Ok(Ok(id)) if is_id(id) => None,
            Ok(Ok(_)) => Some("eth_newPendingTransactionFilter: the id is no string"),
            Ok(Err(refused)) => Some(&*refused.text),
            Err(trouble) => Some(&*trouble.text),
        };
        if let Some(why) = why {
            debug!(node = name, why, "the node makes no filter of transactions");
        }
        let id = match answer {
            Ok(Ok(id)) if why.is_none() => format!("[{}]", String::from_utf8_lossy(&id)),
            Ok(Ok(_)) => {
                barren.is_useless(pool, node);
                return Ok(false);
            }
            Ok(Err(refused)) => {
                barren.refused(node, refused);
                return Ok(false);
            }
            Err(_) => {
                barren.avoided.add_for(node, LIMIT, Instant::now());
                return Ok(false);
            }
        };
        // A filter that cannot be ended times out at its node.
        let uninstall = async || _ = pool.ask_in_time(node, "eth_uninstallFilter", &id, MOST, LIMIT).await;
        let (made, mut has_worked) = (Instant::now(), false);
        // The first poll is sent at once, since clients wait for its outcome.
        loop {
            let news = pool.ask_in_time(node, "eth_getFilterChanges", &id, MOST, LIMIT).await;
            let list = match &news {
                Ok(Ok(news)) => serde_json::from_slice::<Vec<&RawValue>>(news)
                    .map_err(|_| "eth_getFilterChanges: the answer is no list"),
                Ok(Err(refused)) => Err(&*refused.text),
                Err(trouble) => Err(&*trouble.text),
            };
            let list = match list {
                Ok(list) => list,
                Err(why) => {
                    debug!(node = name, why, "the filter of transactions at the node is lost");
                    if news.is_ok() {
                        uninstall().await;
                    }
                    let is_early = made.elapsed() < STEADY;
                    return Ok(!barren.lost(pool, node, is_early));
                }
            };
            let mut is_good = true;
            for text in list {
                is_good &= self.tell(text.get())?;
            }
            if is_good {
                if !std::mem::replace(&mut has_worked, true) {
                    info!(node = name, "transactions come from a filter at a node, since none tells them by itself");
                }
                self.is_told();
            } else {
                debug!(node = name, "the node tells transactions that are none");
                if barren.is_useless(pool, node) {
                    uninstall().await;
                    return Ok(false);
                }
            }
            sleep(POLL).await;
            if !Arc::ptr_eq(&self.topics.pool(), pool) || barren.is_better_elsewhere(pool, node) || is_over(pool, began)
            {
                uninstall().await;
                return Ok(true);
            }
        }
    }
}

/// The nodes that make no working filter of transactions.
#[derive(Default)]
struct Barren {
    avoided: Avoided,
    /// Nodes that refused, or whose filters were of no use.
    refused: BTreeSet<usize>,
    /// The error of the first of these.
    first: Option<Refusal>,
    /// Nodes whose last filter was lost early.
    shaky: BTreeSet<usize>,
}

impl Barren {
    fn refused(&mut self, node: usize, refused: ask::Refused) {
        /// The code of "method not found".
        const NO_METHOD: i32 = -32601;
        self.avoided.add(node, Instant::now());
        self.refused.insert(node);
        let code = i32::try_from(refused.code).ok().filter(|code| *code != 0).unwrap_or(NO_METHOD);
        self.first.get_or_insert(Refusal::OfNodes { code, message: refused.message });
    }

    /// Avoids a node whose answers are of no use. Returns whether another can be asked; if none
    /// can, this node is asked again soon.
    fn is_useless(&mut self, pool: &Pool, node: usize) -> bool {
        let now = Instant::now();
        self.refused.insert(node);
        self.first.get_or_insert(Refusal::Unserved(Unserved::Failed));
        self.avoided.add(node, now);
        let is_other = self.avoided.choose(pool, |_| true, now).is_some();
        if !is_other {
            self.avoided.add_for(node, LIMIT, now);
        }
        is_other
    }

    /// Takes note that a filter at the node was lost. A single early loss may be a restart. After
    /// two in a row the node is avoided, and `true` is returned: behind a balancer there may be
    /// nodes that do not know each other's filters.
    fn lost(&mut self, pool: &Pool, node: usize, is_early: bool) -> bool {
        let is_again = !self.shaky.insert(node);
        if !is_early || is_again {
            self.shaky.remove(&node);
        }
        if is_early && is_again {
            self.is_useless(pool, node);
        }
        is_early && is_again
    }

    /// Whether every node that serves has refused.
    fn is_all(&self, pool: &Pool) -> bool {
        let snapshot = pool.snapshot();
        let mut serving = snapshot.nodes.iter().enumerate().filter(|(_, facts)| facts.rank(0, 0).is_some());
        serving.all(|(node, _)| self.refused.contains(&node))
    }

    /// Whether `node` is usable no longer, or the node that serves the calls may make a filter.
    fn is_better_elsewhere(&self, pool: &Pool, node: usize) -> bool {
        let snapshot = pool.snapshot();
        snapshot.nodes[node].rank(0, 0).is_none()
            || snapshot.active.is_some_and(|active| active != node && !self.avoided.has(active, Instant::now()))
    }
}

/// Whether JSON is an id of a filter: a string that is short enough to send with every poll.
fn is_id(json: &[u8]) -> bool {
    json.len() <= LONGEST_ID && serde_json::from_slice::<Cow<'_, str>>(json).is_ok()
}

/// Whether JSON is a transaction: a hash, or an object for a feed of whole transactions.
fn is_transaction(json: &str, full: bool) -> bool {
    if full {
        return json.starts_with('{');
    }
    let digits = json.strip_prefix("\"0x").and_then(|rest| rest.strip_suffix('"'));
    digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// Whether to try for a subscription again.
fn is_over(pool: &Pool, began: Instant) -> bool {
    began.elapsed() >= SECOND_TRY && pool.nodes.iter().any(|node| node.link.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_strings_and_transactions_hashes_or_objects() {
        for (json, expected) in [("\"0x1\"", true), ("\"\"", true), ("null", false), ("1", false), ("[\"0x1\"]", false)]
        {
            assert_eq!(is_id(json.as_bytes()), expected, "{json}");
        }
        assert!(!is_id(format!("\"{}\"", "0".repeat(LONGEST_ID)).as_bytes()));
        let hash = |digits: &str| format!("\"0x{digits}\"");
        for (json, is_hash, is_whole) in [
            (hash(&"aB".repeat(32)), true, false),
            (hash(&"ab".repeat(31)), false, false),
            (hash(&"ab".repeat(33)), false, false),
            (hash(&"zz".repeat(32)), false, false),
            ("{\"hash\":1}".to_owned(), false, true),
            ("null".to_owned(), false, false),
            ("7".to_owned(), false, false),
        ] {
            assert_eq!((is_transaction(&json, false), is_transaction(&json, true)), (is_hash, is_whole), "{json}");
        }
    }
}
