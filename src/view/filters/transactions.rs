//! Transactions that wait for a block. They come from the subscription that all clients share, or,
//! where no node can push, from a filter at a node.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    future::poll_fn,
    sync::{Arc, Weak},
    time::Duration,
};

use serde_json::value::RawValue;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{debug, info};

use super::{Filters, feeds::State};
use crate::{
    domain::{
        node_id::{ByNode, NodeId},
        refusal::{Refusal, Unserved},
    },
    pool::{
        Pool, ask,
        health::{Fault, Trouble},
    },
    route::avoided::Avoided,
    view::{Mailbox, Outbound, Topics, subscription_refusal::SubscriptionRefusal},
};

/// How often a filter at a node is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The pause before a node is asked again that gave none.
const ASK_PAUSE: Duration = Duration::from_millis(500);
/// How long a filter at a node is polled before a subscription is tried for again.
const SECOND_TRY: Duration = Duration::from_secs(30);
/// A filter that a node loses sooner counts as an early loss: the node may not serve such filters.
const EARLY_LOSS: Duration = Duration::from_secs(10);
/// How long a node may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of transactions that may wait to be recorded, and of one answer of a node.
const MAX_BYTES: usize = 32 << 20;
/// Bytes of a filter's id at most.
const LONGEST_ID: usize = 1024;

/// The source of a feed.
pub(super) struct Source {
    pub(super) filters: Weak<Filters>,
    pub(super) topics: Arc<Topics>,
    /// Whether transactions are told whole.
    pub(super) full: bool,
    pub(super) state: watch::Sender<State>,
    /// Turns true when the feed ends.
    pub(super) ends: watch::Receiver<bool>,
}

/// The feed ends, or there are no filters any more.
struct Gone;

/// How a filter at a node was left.
struct Parted {
    /// Whether another filter at that node may be of use.
    is_useful: bool,
    /// Whether the node may still have the filter.
    is_there: bool,
}

impl Source {
    /// Tells transactions until the feed ends. A filter at a node is ended before.
    pub(super) async fn run(self) {
        let mut known = (self.topics.pool(), Barren::default());
        while matches!(self.until_the_end(self.subscribe()).await, Ok(Ok(()))) && self.poll(&mut known).await.is_ok() {}
    }

    /// The outcome of `work`, which is dropped when the feed ends before.
    async fn until_the_end<T>(&self, work: impl Future<Output = T>) -> Result<T, Gone> {
        let mut ends = self.ends.clone();
        // Both arms are cancel-safe, or are not taken up again.
        tokio::select! {
            biased;
            _ = ends.wait_for(|ends| *ends) => Err(Gone),
            done = work => Ok(done),
        }
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
        let (mailbox, head) = (Mailbox::new(MAX_BYTES), "".into());
        let mut joined = match self.topics.open("eth_subscribe", params, &head, &mailbox).await {
            Ok(joined) => joined,
            Err(refused) => {
                debug!(?refused, "no subscription to transactions");
                if refused == SubscriptionRefusal::NoNode {
                    sleep(ASK_PAUSE).await;
                }
                return Ok(());
            }
        };
        joined.0.begin();
        self.is_told();
        loop {
            match poll_fn(|context| mailbox.poll_next(context)).await {
                Outbound::Notification(notification) => {
                    if let Ok(text) = std::str::from_utf8(notification.parts()[1]) {
                        self.tell(text)?;
                    }
                }
                Outbound::Answer(..) => {}
                Outbound::Close(_) => return Ok(()),
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
            barren.forget_outages(pool);
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
            self.until_the_end(sleep(ASK_PAUSE)).await?;
        }
    }

    /// Makes and polls a filter at `node`, and ends the filter. `false` when the node is avoided
    /// from now on.
    async fn poll_at(&self, pool: &Arc<Pool>, node: NodeId, barren: &mut Barren, began: Instant) -> Result<bool, Gone> {
        let params = if self.full { "[true]" } else { "[]" };
        let name = &*pool.nodes[node].name;
        let answer = pool.ask_in_time(node, "eth_newPendingTransactionFilter", params, MAX_BYTES, ASK_TIMEOUT).await;
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
                barren.avoided.add_for(node, ASK_TIMEOUT, Instant::now());
                return Ok(false);
            }
        };
        // The request for the filter was not broken off, so its id is known here.
        let parted = self.read(pool, node, &id, barren, began).await;
        if parted.as_ref().map_or(true, |parted| parted.is_there) {
            // A filter that cannot be ended times out at its node.
            let _ = pool.ask_in_time(node, "eth_uninstallFilter", &id, MAX_BYTES, ASK_TIMEOUT).await;
        }
        parted.map(|parted| parted.is_useful)
    }

    /// Polls the filter with these params at `node` until the filter is to be left.
    async fn read(
        &self,
        pool: &Arc<Pool>,
        node: NodeId,
        id: &str,
        barren: &mut Barren,
        began: Instant,
    ) -> Result<Parted, Gone> {
        let name = &*pool.nodes[node].name;
        let (made, mut has_worked) = (Instant::now(), false);
        // The first poll is sent at once, since clients wait for its outcome.
        loop {
            let news = pool.ask_in_time(node, "eth_getFilterChanges", id, MAX_BYTES, ASK_TIMEOUT).await;
            if matches!(&news, Err(Trouble { fault: Fault::Full, .. }))
                && pool.snapshot().nodes[node].preference(0, 0).is_some()
            {
                // The node was not asked, and has the filter still.
                self.until_the_end(sleep(POLL_INTERVAL)).await?;
                continue;
            }
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
                    let is_early = made.elapsed() < EARLY_LOSS;
                    return Ok(Parted { is_useful: !barren.lost(pool, node, is_early), is_there: news.is_ok() });
                }
            };
            let mut is_good = true;
            for text in list {
                is_good &= self.tell(text.get())?;
            }
            if is_good {
                if !std::mem::replace(&mut has_worked, true) {
                    info!(
                        node = name,
                        "pending transactions come from a filter at the node: no node offers the subscription"
                    );
                }
                self.is_told();
            } else {
                debug!(node = name, "node returned entries that are no transaction hashes");
                if barren.is_useless(pool, node) {
                    return Ok(Parted { is_useful: false, is_there: true });
                }
            }
            self.until_the_end(sleep(POLL_INTERVAL)).await?;
            barren.forget_outages(pool);
            if !Arc::ptr_eq(&self.topics.pool(), pool) || barren.is_better_elsewhere(pool, node) || is_over(pool, began)
            {
                return Ok(Parted { is_useful: true, is_there: true });
            }
        }
    }
}

/// The nodes that make no working filter of transactions.
#[derive(Default)]
struct Barren {
    avoided: Avoided,
    /// Nodes that refused, or whose filters were of no use.
    refused: BTreeSet<NodeId>,
    /// The error of the first of these.
    first: Option<Refusal>,
    /// Nodes whose last filter was lost early.
    shaky: BTreeSet<NodeId>,
    /// Nodes that could not serve when last looked at.
    away: BTreeSet<NodeId>,
}

impl Barren {
    fn refused(&mut self, node: NodeId, refused: ask::NodeRefusal) {
        /// The code of "method not found".
        const NO_METHOD: i32 = -32601;
        self.avoided.add(node, Instant::now());
        self.refused.insert(node);
        let code = i32::try_from(refused.code).ok().filter(|code| *code != 0).unwrap_or(NO_METHOD);
        self.first.get_or_insert(Refusal::OfNodes { code, message: refused.message });
    }

    /// Avoids a node whose answers are of no use. Returns whether another can be asked; if none
    /// can, this node is asked again soon.
    fn is_useless(&mut self, pool: &Pool, node: NodeId) -> bool {
        let now = Instant::now();
        self.refused.insert(node);
        self.first.get_or_insert(Refusal::Unserved(Unserved::Failed));
        self.avoided.add(node, now);
        let is_other = self.avoided.choose(pool, |_| true, now).is_some();
        if !is_other {
            self.avoided.add_for(node, ASK_TIMEOUT, now);
        }
        is_other
    }

    /// Takes note that a filter at the node was lost. A single early loss may be a restart. After
    /// two in a row the node is avoided, and `true` is returned: behind a balancer there may be
    /// nodes that do not know each other's filters.
    fn lost(&mut self, pool: &Pool, node: NodeId, is_early: bool) -> bool {
        let is_again = !self.shaky.insert(node);
        if !is_early || is_again {
            self.shaky.remove(&node);
        }
        if is_early && is_again {
            self.is_useless(pool, node);
        }
        is_early && is_again
    }

    /// Forgets what is known of a node that has come back from an outage. The outage explains lost
    /// filters and failed requests: a node that dies twice in ten seconds loses two filters, and
    /// serves filters all the same.
    fn forget_outages(&mut self, pool: &Pool) {
        for (node, facts) in pool.snapshot().nodes.by_node() {
            if facts.preference(0, 0).is_none() {
                self.away.insert(node);
            } else if self.away.remove(&node) {
                self.shaky.remove(&node);
                self.refused.remove(&node);
                self.avoided.forgive(node);
            }
        }
    }

    /// Whether every node that serves has refused.
    fn is_all(&self, pool: &Pool) -> bool {
        let snapshot = pool.snapshot();
        let mut serving = snapshot.nodes.by_node().filter(|(_, facts)| facts.preference(0, 0).is_some());
        serving.all(|(node, _)| self.refused.contains(&node))
    }

    /// Whether `node` is usable no longer, or the node that serves the calls may make a filter.
    fn is_better_elsewhere(&self, pool: &Pool, node: NodeId) -> bool {
        let snapshot = pool.snapshot();
        snapshot.nodes[node].preference(0, 0).is_none()
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
