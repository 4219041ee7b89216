//! Filters that clients poll: `eth_newFilter` and its like, answered without a node.
//!
//! A filter is a position in one record of what happened ([`backlog`]), and what it wants. So it costs the same whether anything happens
//! or not, and no node's end is an event for it. The record is of the changes that the follower tells, with the logs that the logs' view
//! fetches for all who want some. What is kept is bounded; a filter that is further behind is dropped, and its next poll says so.

mod backlog;
mod clients;
mod held;
mod ids;
mod registry;
mod tape;
mod transactions;
mod words;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{debug, warn};

use self::{
    held::{Kind, News, Taken, Why},
    ids::Ids,
    registry::{Registry, Went},
    tape::Most,
    transactions::Feeds,
};
use super::{Block, Filter, Interest, Interested, Log, SubscriptionId, Topics};
use crate::{
    call::{
        answer::{Answer, receipt::Receipt},
        kept::{Keeper, Kept},
    },
    chain::Change,
    config,
    domain::{hash::Hash, refusal::Refusal, rpc::Request},
    memory::{Account, Budget, SMALL},
    metrics::Metrics,
    net::BoxFuture,
};

/// How long a poll waits for what clients were shown already: the block, and its logs.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a poll waits until the answer to the one before has left, or is known to be lost.
const SETTLEMENT: Duration = Duration::from_millis(100);
/// Bytes of one answer to a poll, where one block does not bring more: what is more comes with the next poll. Such a part of what can be
/// sent at most is not passed either, so that the polls of a batch have room beside each other.
const USUAL: usize = 4 << 20;
const PART: usize = 4;
/// Such a part of what all clients may hold can be had for one answer, whatever is kept for filters.
const SHARE: usize = 4;
/// Bytes of an answer besides its id and its list, at most.
const FRAME: usize = 64;
/// How often filters that are not polled any more are looked for, at most and at least.
const SWEEP: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The filters of one network's clients.
pub struct Filters {
    me: Weak<Self>,
    registry: Mutex<Registry>,
    /// Changes with what polls may wait for.
    news: watch::Sender<u64>,
    interest: Arc<Interest>,
    feeds: Feeds,
    /// A height that clients were shown and the chain did not reach in time: no other poll waits for it.
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
    /// Bytes that they take themselves.
    pub bytes: usize,
    /// Bytes that are kept for those that were not polled since.
    pub backlog_bytes: usize,
}

/// A poll that waits for what it is to tell.
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
        self.filters.tell();
    }
}

impl Filters {
    /// To be called on the runtime on which the links are. What is kept counts against `memory`, and ids are made of the `secret`.
    pub(super) fn new(
        interest: Arc<Interest>,
        topics: Arc<Topics>,
        settings: &config::Filters,
        memory: &Arc<Budget>,
        secret: [u8; 32],
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let (own, kept) = (Account::open(memory).standing(), Account::open(memory).incoming());
        let registry = Mutex::new(Registry::new(settings.clone(), Ids::new(secret), own, kept));
        Arc::new_cyclic(|me: &Weak<Self>| Self {
            me: me.clone(),
            registry,
            news: watch::Sender::new(0),
            interest,
            feeds: Feeds::new(me.clone(), topics),
            unreached: AtomicU64::new(0),
            metrics,
        })
    }

    /// From now on these limits hold.
    pub fn allow(&self, settings: &config::Filters) {
        self.lock().settings = settings.clone();
    }

    /// How many there are.
    pub fn counts(&self) -> Counts {
        let registry = self.lock();
        let [blocks, logs, hashes, whole] = registry.counts();
        let (bytes, backlog_bytes) = (registry.bytes(), registry.backlog_bytes());
        Counts { blocks, logs, transactions: hashes + whole, bytes, backlog_bytes }
    }

    /// Waits until filters that are not polled any more are to be looked for. Cancel-safe: `due` is kept by who asks.
    pub(super) async fn idle(&self, due: &mut Instant) {
        let mut news = self.news.subscribe();
        while self.lock().is_empty() {
            // The sender is here.
            let _ = news.changed().await;
        }
        sleep_until(*due).await;
        let (least, most) = SWEEP;
        *due = Instant::now() + (self.lock().settings.timeout / 20).clamp(least, most);
    }

    /// Drops the filters that were not polled for too long.
    pub(super) fn sweep(&self) {
        self.change_registry(|registry| registry.sweep(Instant::now()));
    }

    /// What is wanted of logs, each once.
    pub(super) fn criteria(&self) -> Vec<Arc<Filter>> {
        self.lock().criteria().cloned().collect()
    }

    /// Takes up how the chain changed: blocks that went, with their logs where those were told, and those that came.
    pub(super) fn changed(&self, change: &Change, went: Vec<Went>, came: impl Iterator<Item = Arc<Block>>) {
        self.change_registry(|registry| registry.change(change, went, came));
        self.tell();
    }

    /// The logs of a block were found, or `None` if they cannot be.
    pub(super) fn found(&self, block: Hash, logs: Option<&Arc<[Log]>>) {
        self.change_registry(|registry| registry.found(block, logs));
        self.tell();
    }

    /// Whoever wanted logs of the change of this number may lack some.
    pub(super) fn doubt(&self, change: u64) {
        self.change_registry(|registry| registry.doubt(change));
    }

    /// A transaction, or its hash, waits for a block.
    fn heard(&self, full: bool, text: Arc<str>) {
        self.change_registry(|registry| registry.transaction(full, text));
    }

    /// Nothing is told of the chain any more.
    pub(super) fn give_up(&self) {
        self.change_registry(Registry::give_up);
    }

    fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    /// Does something to the registry, and what follows from it.
    fn change_registry<T>(&self, change: impl FnOnce(&mut Registry) -> T) -> T {
        let mut registry = self.lock();
        let state = |registry: &Registry| (registry.counts(), registry.bytes(), registry.backlog_bytes());
        let before = state(&registry);
        let done = change(&mut registry);
        let (dropped, after) = (registry.take_dropped(), state(&registry));
        self.feeds.want([after.0[2] > 0, after.0[3] > 0]);
        let network = || self.interest.follower.pool().network.clone();
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
            let (network, why, is_idle) = (&*network(), why.as_str(), why == Why::Timeout);
            if is_idle {
                debug!(network, count, "filters were not polled any more");
            } else {
                warn!(network, count, why, "filters are dropped: their clients have to make new ones");
            }
        }
        done
    }

    /// Waits, for a moment, until what clients were shown is taken up, and until the logs that the filter may want are there.
    async fn catch_up(&self, id: Option<SubscriptionId>) {
        let follower = &self.interest.follower;
        let (mut place, mut news) = (follower.place(), self.news.subscribe());
        let until = Instant::now() + PATIENCE;
        let (pool, mut is_asked) = (follower.pool(), false);
        let served = pool.served();
        loop {
            let at = *place.borrow_and_update();
            news.mark_unchanged();
            let is_low = at.tip < served && self.unreached.load(Relaxed) != served;
            let is_behind = {
                let registry = self.lock();
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

    /// Waits, for a moment, while an answer to a poll is on its way: what comes behind it is not told before.
    async fn settled(&self, id: SubscriptionId) {
        if !self.lock().is_under_way(id) {
            return;
        }
        let (mut news, until) = (self.news.subscribe(), Instant::now() + SETTLEMENT);
        // What is waited for is cancel-safe.
        while self.lock().is_under_way(id) && matches!(timeout_at(until, news.changed()).await, Ok(Ok(()))) {}
    }

    async fn create(&self, kind: Kind, memory: &Arc<Account>) -> Result<Answer, Refusal> {
        let mut feed = None;
        // Until it is there, it is counted as its client's.
        let mut claim = memory.incoming();
        if let Kind::Logs { filter, .. } = &kind
            && filter.bytes() > SMALL
        {
            claim.resize(filter.bytes())?;
        }
        let interested = match &kind {
            Kind::Blocks | Kind::Logs { .. } => {
                // What happens from the answer on is heard, and nothing that clients were shown before.
                let interested = Interested::new(&self.interest);
                self.catch_up(None).await;
                Some(interested)
            }
            Kind::Transactions { full } => {
                feed = Some(self.feeds.ready(*full).await?);
                None
            }
        };
        let (client, now): (Option<IpAddr>, _) = (memory.client(), Instant::now());
        let id =
            self.change_registry(|registry| registry.add(kind, client, interested, now)).inspect_err(|refusal| {
                self.metrics.filter_refused(&self.interest.follower.pool().network, refusal.reason());
            })?;
        drop(feed);
        // Whoever looks for idle ones may wait for the first.
        self.tell();
        Ok(Answer::made(&format!("\"{id}\"")))
    }

    /// What a filter has not been told, in an answer of at most `longest` bytes.
    async fn poll(&self, request: &Request<'_>, memory: &Account, longest: usize) -> Result<Answer, Refusal> {
        let id = words::id(request)?;
        let id = id.ok_or(Refusal::NoFilter)?;
        let kind = self.change_registry(|registry| registry.kind(id, true, Instant::now())).ok_or(Refusal::NoFilter)?;
        let _polling = Polling::new(self, id);
        self.settled(id).await;
        if matches!(kind, Kind::Blocks | Kind::Logs { .. }) {
            self.catch_up(Some(id)).await;
        }
        // Nothing is waited for from here on: whoever leaves before has taken nothing.
        let ever = longest.saturating_sub(request.id.map_or(0, <[u8]>::len) + FRAME).min(memory.limit() / SHARE);
        let most = Most { usual: USUAL.min(ever / PART), ever };
        let taken = self.change_registry(|registry| registry.take(id, most, Instant::now()));
        let Taken { news, from } = taken.ok_or(Refusal::NoFilter)?;
        let result = match news {
            News::Hashes(hashes) => list(hashes.iter().map(|hash| format!("\"{hash}\""))),
            News::Texts(texts) => list(texts.iter()),
        };
        let mut answer = Answer::made(&result);
        // An answer without news cannot be missed, and another that begins where it does may be under way.
        if result != "[]" {
            let me = self.me.clone();
            answer.expect(Receipt::new(move |has_left| {
                if let Some(filters) = me.upgrade() {
                    filters.change_registry(|registry| registry.settle(id, from, has_left));
                    filters.tell();
                }
            }));
        }
        Ok(answer)
    }

    /// Ends a filter, behind the polls that came before: a client polls once more and ends it in one batch.
    async fn end(&self, id: SubscriptionId) -> bool {
        let (mut news, until) = (self.news.subscribe(), Instant::now() + PATIENCE + SETTLEMENT);
        // What is waited for is cancel-safe.
        while self.lock().is_polled(id) && matches!(timeout_at(until, news.changed()).await, Ok(Ok(()))) {}
        self.change_registry(|registry| registry.end(id, Instant::now()))
    }

    /// The params of the `eth_getLogs` that gives a filter's past logs.
    fn past(&self, id: Option<SubscriptionId>) -> Result<String, Refusal> {
        let id = id.ok_or(Refusal::NoFilter)?;
        match self.change_registry(|registry| registry.kind(id, false, Instant::now())) {
            Some(Kind::Logs { filter, range }) => Ok(format!("[{{{}}}]", filter.members(&range))),
            Some(Kind::Blocks | Kind::Transactions { .. }) | None => Err(Refusal::NoFilter),
        }
    }

    async fn respond(&self, request: &Request<'_>, memory: &Arc<Account>, longest: usize) -> Result<Kept, Refusal> {
        let made = match &*request.method {
            // Nobody would know the filter.
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
            "eth_getFilterChanges" => self.poll(request, memory, longest).await?,
            "eth_getFilterLogs" => return Ok(Kept::Logs(self.past(words::id(request)?)?)),
            _ => {
                let ended = match words::id(request)? {
                    Some(id) => self.end(id).await,
                    None => false,
                };
                Answer::made(if ended { "true" } else { "false" })
            }
        };
        Ok(Kept::Answer(made))
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Every change is whole, so a panic elsewhere cannot have spoilt it.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper for Filters {
    fn answer<'a>(&'a self, request: &'a Request<'a>, memory: &'a Arc<Account>, longest: usize) -> BoxFuture<'a, Kept> {
        Box::pin(async move { self.respond(request, memory, longest).await.unwrap_or_else(Kept::Refused) })
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
