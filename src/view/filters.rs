//! Filters that clients poll: `eth_newFilter` and its like, answered without a node.
//!
//! Rule: a filter is its criteria and a position in one record of the chain's changes
//! ([`backlog`]). The record holds the changes that the follower reports, with the logs that the
//! view of logs fetches for all subscribers and filters. The record is bounded: a filter that is
//! too far behind is dropped, and its next poll is answered with an error. Reason: a filter so
//! depends on no node, and costs the same on a busy chain as on a quiet one. Example: the record
//! goes from step 100 to 180, and a filter at 150 is polled. The answer has the matching logs of
//! the steps 150 to 180, and the filter then stands at 181.

mod backlog;
mod clients;
mod feeds;
mod held;
mod ids;
mod registry;
mod tape;
mod transactions;
mod words;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use alloy_primitives::B256;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, warn};

use self::{
    feeds::Feeds,
    held::{Kind, News, Taken, Why},
    ids::Ids,
    registry::{Registry, Went},
    tape::Most,
};
use super::{Block, Filter, Interest, Interested, Log, SubscriptionId, Topics};
use crate::{
    call::{
        answer::{Answer, receipt::Receipt},
        filter_calls::{AnswerRoom, Keeper, KeeperReply},
    },
    chain::Change,
    config,
    domain::{client::Peer, refusal::Refusal, rpc::Request},
    memory::{Account, Budget, SMALL},
    metrics::Metrics,
    net::BoxFuture,
};

/// How long a poll waits for a block that clients were shown, and for its logs.
const SHOWN_BLOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a poll waits until the answer to the one before has left, or is known to be lost.
const SETTLEMENT: Duration = Duration::from_millis(100);
/// An answer takes at most such a part of the memory of all clients.
const SHARE: usize = 4;
/// Bytes of an answer besides its id and its list, at most.
const FRAME: usize = 64;
/// The shortest and the longest pause between two looks for filters that are not polled any more.
const SWEEP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The filters of one network's clients.
pub struct Filters {
    me: Weak<Self>,
    registry: Mutex<Registry>,
    /// Changes when polls that wait for blocks or logs should look again.
    news: watch::Sender<u64>,
    /// Wakes the task that drops filters: there is a filter.
    filled: Notify,
    /// How often a call that waits has looked at its filter.
    #[cfg(test)]
    looks: AtomicU64,
    interest: Arc<Interest>,
    feeds: Feeds,
    /// A height that clients were shown and that the chain did not reach in time. No further poll
    /// waits for this height.
    unreached: AtomicU64,
    metrics: Arc<Metrics>,
}

/// How many filters there are, for the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Of blocks.
    pub blocks: usize,
    /// Of logs.
    pub logs: usize,
    /// Of transactions that wait for a block.
    pub transactions: usize,
    /// Bytes of memory of the filters themselves.
    pub bytes: usize,
    /// Bytes of the records that are kept until filters are polled.
    pub backlog_bytes: usize,
}

/// A poll that is under way.
struct Polling<'a> {
    filters: &'a Filters,
    id: SubscriptionId,
}

impl<'a> Polling<'a> {
    fn new(filters: &'a Filters, id: SubscriptionId) -> Self {
        filters.lock().poll_begins(id);
        Self { filters, id }
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.filters.lock().poll_ends(self.id);
    }
}

impl Filters {
    /// To be called on the runtime of the links to nodes. Filters and records count against
    /// `memory`, and ids are made of `secret`.
    pub(super) fn new(
        interest: Arc<Interest>,
        topics: Arc<Topics>,
        settings: &config::Filters,
        memory: &Arc<Budget>,
        secret: [u8; 32],
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let (own, kept) = (Account::open(memory).standing(), Account::open(memory).records());
        let registry = Mutex::new(Registry::new(settings.clone(), Ids::new(secret), own, kept));
        Arc::new_cyclic(|me: &Weak<Self>| Self {
            me: me.clone(),
            registry,
            news: watch::Sender::new(0),
            filled: Notify::new(),
            #[cfg(test)]
            looks: AtomicU64::new(0),
            interest,
            feeds: Feeds::new(me.clone(), topics),
            unreached: AtomicU64::new(0),
            metrics,
        })
    }

    /// Sets the limits, after a reload.
    pub fn allow(&self, settings: &config::Filters) {
        self.lock().settings = settings.clone();
    }

    /// How many filters there are.
    pub fn counts(&self) -> Counts {
        let registry = self.lock();
        let [blocks, logs, hashes, whole] = registry.counts();
        let (bytes, backlog_bytes) = (registry.bytes(), registry.backlog_bytes());
        Counts { blocks, logs, transactions: hashes + whole, bytes, backlog_bytes }
    }

    /// Waits until the next look for filters that are not polled any more. Cancel-safe: the caller
    /// keeps `due`.
    pub(super) async fn idle(&self, due: &mut Instant) {
        while self.lock().is_empty() {
            self.filled.notified().await;
        }
        sleep_until(*due).await;
        let (least, most) = SWEEP;
        *due = Instant::now() + (self.lock().settings.timeout / 20).clamp(least, most);
    }

    /// Drops the filters that were not polled for too long.
    pub(super) fn sweep(&self) {
        self.change_registry(|registry| registry.sweep(Instant::now()));
    }

    /// The criteria of all log filters, each once.
    pub(super) fn criteria(&self) -> Vec<Arc<Filter>> {
        self.lock().criteria().cloned().collect()
    }

    /// Records a change of the chain: blocks that went, with their logs where those were told, and
    /// blocks that came.
    pub(super) fn changed(&self, change: &Change, went: Vec<Went>, came: impl Iterator<Item = Arc<Block>>) {
        self.change_registry(|registry| registry.change(change, went, came));
        self.tell();
    }

    /// Records the logs of a block, or `None` if no node gives them.
    pub(super) fn found(&self, block: B256, logs: Option<&Arc<[Log]>>) {
        self.change_registry(|registry| registry.found(block, logs));
        self.tell();
    }

    /// Drops the log filters that cover this change, because some of its logs may be missing.
    pub(super) fn doubt(&self, change: u64) {
        self.change_registry(|registry| registry.doubt(change));
    }

    /// Records a transaction, or its hash, that waits for a block.
    fn heard(&self, full: bool, text: Arc<str>) {
        self.change_registry(|registry| registry.transaction(full, text));
    }

    /// Drops the filters of blocks and logs: nothing is told of the chain any more.
    pub(super) fn give_up(&self) {
        self.change_registry(Registry::give_up);
    }

    fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    /// Changes the registry, then starts and ends feeds, and counts and logs the dropped filters.
    fn change_registry<T>(&self, change: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = self.lock();
        let state = |registry: &Registry| (registry.counts(), registry.bytes(), registry.backlog_bytes());
        let before = state(&registry);
        let done = change(&mut registry);
        let (dropped, after) = (registry.take_dropped(), state(&registry));
        self.feeds.want([after.0[2] > 0, after.0[3] > 0]);
        let network = || self.interest.follower().pool().network.clone();
        if before != after {
            let [blocks, logs, hashes, whole] = after.0;
            self.metrics.filters(&network(), [blocks, logs, hashes + whole], after.1, after.2);
        }
        drop(registry);
        let mut counts: Vec<(Why, usize)> = Vec::new();
        for why in dropped {
            self.metrics.filter_dropped(&network(), why.as_str());
            match counts.iter_mut().find(|(other, _)| *other == why) {
                Some((_, count)) => *count += 1,
                None => counts.push((why, 1)),
            }
        }
        for (why, count) in counts {
            let network = &*network();
            match why {
                Why::Timeout => debug!(network, count, "filters were not polled any more"),
                Why::Ended => debug!(network, count, "filters end with the process"),
                Why::Backlog | Why::Gap | Why::TooLong => {
                    let why = why.as_str();
                    warn!(network, count, why, "filters are dropped: their clients have to make new ones");
                }
            }
        }
        done
    }

    /// Waits, for a moment, until the record has the block that clients were shown, and the logs
    /// that the filter may want.
    async fn catch_up(&self, id: Option<SubscriptionId>) {
        let follower = self.interest.follower();
        let (mut place, mut news) = (follower.place(), self.news.subscribe());
        let until = Instant::now() + SHOWN_BLOCK_TIMEOUT;
        let (pool, mut is_asked) = (follower.pool(), false);
        let served = pool.served();
        loop {
            let at = *place.borrow_and_update();
            news.mark_unchanged();
            let is_low = at.tip < served && self.unreached.load(Relaxed) != served;
            let is_behind = {
                let registry = self.look();
                registry.seq() < at.seq || id.is_some_and(|id| registry.awaits(id))
            };
            if !is_low && !is_behind {
                return;
            }
            if is_low
                && !std::mem::replace(&mut is_asked, true)
                && let Some(active) = pool.snapshot().active
            {
                pool.probe_now(active);
            }
            // Both arms are cancel-safe.
            let woken = timeout_at(until, async {
                tokio::select! {
                    changed = place.changed() => changed,
                    changed = news.changed() => changed,
                }
            });
            if !matches!(woken.await, Ok(Ok(()))) {
                if is_low {
                    self.unreached.store(served, Relaxed);
                }
                return;
            }
        }
    }

    /// Waits, for a moment, while an answer to another poll of the filter is on its way: later
    /// entries are not sent before that answer has left.
    async fn settled(&self, id: SubscriptionId) {
        self.wait_while(id, Instant::now() + SETTLEMENT, Registry::is_under_way).await;
    }

    /// Waits while `holds` is true of the filter, until its bell rings in vain or the time is over.
    /// Each filter has a bell of its own, since other filters' polls end all the time. Cancel-safe.
    async fn wait_while(&self, id: SubscriptionId, until: Instant, holds: fn(&Registry, SubscriptionId) -> bool) {
        loop {
            let bell = {
                let mut registry = self.look();
                if holds(&registry, id) { registry.bell(id) } else { None }
            };
            let Some(mut bell) = bell else { return };
            // A bell rings by its end, which is an error here.
            if timeout_at(until, bell.changed()).await.is_err() {
                return;
            }
        }
    }

    async fn create(&self, kind: Kind, memory: &Arc<Account>) -> Result<Answer, Refusal> {
        let mut feed = None;
        // Until the filter is in the registry, the client's account holds its bytes.
        let mut claim = memory.incoming();
        if let Kind::Logs { filter, .. } = &kind
            && filter.bytes() > SMALL
        {
            claim.resize(filter.bytes())?;
        }
        let interested = match &kind {
            Kind::Blocks | Kind::Logs { .. } => {
                // The filter covers changes after its own answer, and no block that clients were
                // shown before.
                let interested = Interested::new(&self.interest);
                self.catch_up(None).await;
                Some(interested)
            }
            Kind::Transactions { full } => {
                feed = Some(self.feeds.ready(*full).await?);
                None
            }
        };
        let (client, now): (Option<Peer>, _) = (memory.client(), Instant::now());
        let id =
            self.change_registry(|registry| registry.add(kind, client, interested, now)).inspect_err(|refusal| {
                self.metrics.filter_refused(&self.interest.follower().pool().network, refusal.reason());
            })?;
        drop(feed);
        self.filled.notify_one();
        Ok(Answer::made(&format!("\"{id}\"")))
    }

    /// The entries that a filter has yet to send, in an answer that fits into `room`.
    async fn poll(&self, request: &Request<'_>, memory: &Account, room: AnswerRoom) -> Result<Answer, Refusal> {
        let id = words::id(request)?;
        let id = id.ok_or(Refusal::NoFilter)?;
        let kind =
            self.change_registry(|registry| registry.look_up(id, true, Instant::now())).ok_or(Refusal::NoFilter)?;
        let _polling = Polling::new(self, id);
        self.settled(id).await;
        if matches!(kind, Kind::Blocks | Kind::Logs { .. }) {
            self.catch_up(Some(id)).await;
        }
        // No await from here on: a client that leaves before this has taken nothing.
        let frame = request.id.map_or(0, <[u8]>::len) + FRAME;
        let most = Most::of(room, frame, memory.limit() / SHARE);
        let taken = self.change_registry(|registry| registry.take(id, most, Instant::now()));
        let Taken { news, from } = taken.ok_or(Refusal::NoFilter)?;
        let result = match news {
            News::Hashes(hashes) => list(hashes.iter().map(|hash| format!("\"{hash}\""))),
            News::Texts(texts) => list(texts.iter()),
        };
        let mut answer = Answer::made(&result);
        // An answer without news cannot be missed, and an answer with news may be under way from
        // the same position.
        if result != "[]" {
            let me = self.me.clone();
            answer.expect(Receipt::new(move |has_left| {
                if let Some(filters) = me.upgrade() {
                    filters.change_registry(|registry| registry.settle(id, from, has_left));
                }
            }));
        }
        Ok(answer)
    }

    /// Ends a filter, behind the polls that came before: some clients poll once more and end the
    /// filter in one batch.
    async fn end(&self, id: SubscriptionId) -> bool {
        self.wait_while(id, Instant::now() + SHOWN_BLOCK_TIMEOUT + SETTLEMENT, Registry::is_polled).await;
        self.change_registry(|registry| registry.end(id, Instant::now()))
    }

    /// The params of the `eth_getLogs` that gives a filter's past logs.
    fn past(&self, id: Option<SubscriptionId>) -> Result<String, Refusal> {
        let id = id.ok_or(Refusal::NoFilter)?;
        match self.change_registry(|registry| registry.look_up(id, false, Instant::now())) {
            Some(Kind::Logs { filter, range }) => Ok(format!("[{{{}}}]", filter.members(&range))),
            Some(Kind::Blocks | Kind::Transactions { .. }) | None => Err(Refusal::NoFilter),
        }
    }

    async fn respond(
        &self,
        request: &Request<'_>,
        memory: &Arc<Account>,
        room: AnswerRoom,
    ) -> Result<KeeperReply, Refusal> {
        let made = match &*request.method {
            // Without an id there is no answer, so no client would know the filter.
            "eth_newFilter" | "eth_newBlockFilter" | "eth_newPendingTransactionFilter" if request.id.is_none() => {
                Answer::made("null")
            }
            "eth_newBlockFilter" => {
                words::arguments(request, 0)?;
                self.create(Kind::Blocks, memory).await?
            }
            "eth_newFilter" => {
                let asked = Filter::read_polled(words::first(request)?.get()).map_err(Refusal::Params)?;
                self.create(Kind::Logs { filter: Arc::new(asked.0), range: asked.1 }, memory).await?
            }
            "eth_newPendingTransactionFilter" => {
                self.create(Kind::Transactions { full: words::is_full(request)? }, memory).await?
            }
            "eth_getFilterChanges" => self.poll(request, memory, room).await?,
            "eth_getFilterLogs" => return Ok(KeeperReply::Logs(self.past(words::id(request)?)?)),
            _ => {
                let ended = match words::id(request)? {
                    Some(id) => self.end(id).await,
                    None => false,
                };
                Answer::made(if ended { "true" } else { "false" })
            }
        };
        Ok(KeeperReply::Answer(made))
    }

    /// The registry, for a call that waits.
    fn look(&self) -> MutexGuard<'_, Registry> {
        #[cfg(test)]
        self.looks.fetch_add(1, Relaxed);
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // The registry is consistent at every moment, so a panic elsewhere cannot have spoilt it.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper for Filters {
    fn answer<'a>(
        &'a self,
        request: &'a Request<'a>,
        memory: &'a Arc<Account>,
        room: AnswerRoom,
    ) -> BoxFuture<'a, KeeperReply> {
        Box::pin(async move { self.respond(request, memory, room).await.unwrap_or_else(KeeperReply::Refused) })
    }
}

/// A JSON array.
fn list(items: impl ExactSizeIterator<Item = impl AsRef<str>>) -> String {
    let mut text = String::from("[");
    for item in items {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(item.as_ref());
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests;
