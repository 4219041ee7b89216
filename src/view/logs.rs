//! Logs of new blocks, and of blocks that a reorganisation took out.
//!
//! Nodes are asked for a block's logs once for all subscribers, and only when the block's bloom
//! filter does not rule out that a subscriber wants some. Subscribers get logs in the order of the
//! blocks, as soon as a node has given them. Logs that were sent stay in memory for as long as a
//! reorganisation may remove their block, so that `removed` notifications need no node. A block
//! whose logs no node gives in time holds up only subscribers that its logs may concern, and their
//! connections are closed then.

mod blooms;
mod fetch;
mod filter;
mod fixture;
mod ledger;
mod log;

use std::{collections::BTreeMap, sync::Arc};

use alloy_primitives::{B256, Bloom};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{debug, warn};

pub use self::fixture::Fixture;
use self::{
    blooms::Blooms,
    fetch::Forms,
    ledger::{Ledger, Telling},
    log::NodeLogs,
};
pub(super) use self::{filter::Filter, ledger::Block, log::Log};
use super::{audience::Audience, filters::Filters, mailbox::Closing};
use crate::{
    chain::{self, Change, Follower},
    config,
    metrics::Metrics,
};

/// Blocks whose logs are asked for at once.
const AT_ONCE: usize = 8;

/// The logs of one network.
pub(super) struct Logs {
    pub(super) audience: Arc<Audience<Filter>>,
    /// Filters that are polled, which need logs too.
    filters: Arc<Filters>,
    follower: Arc<Follower>,
    ledger: Ledger<Log>,
    fetches: JoinSet<Fetched>,
    /// The blocks whose logs are not found yet.
    sought: BTreeMap<B256, Sought>,
    blooms: Blooms,
    settings: config::Chain,
    forms: Forms,
    /// Whether a warning was logged that nodes write odd logs; later ones are logged at debug
    /// level.
    said_odd: bool,
    metrics: Arc<Metrics>,
}

struct Sought {
    block: Arc<chain::Block>,
    /// Whether no filter matches the block's bloom filter, so that the logs are fetched only to
    /// check the bloom filter.
    is_sample: bool,
    /// The task that fetches the logs, once started.
    task: Option<AbortHandle>,
}

/// The logs of a block that filters want; `None` if no node gave the logs in time.
pub(super) struct Fetched {
    block: B256,
    told: Option<NodeLogs>,
}

impl Logs {
    pub(super) fn new(
        audience: Arc<Audience<Filter>>,
        filters: Arc<Filters>,
        follower: Arc<Follower>,
        settings: &config::Chain,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            audience,
            filters,
            follower,
            ledger: Ledger::new(settings.window),
            fetches: JoinSet::new(),
            sought: BTreeMap::new(),
            blooms: Blooms::new(settings.trust_bloom),
            settings: settings.clone(),
            forms: Forms::default(),
            said_odd: false,
            metrics,
        }
    }

    /// Takes up a change of the chain: sends `removed` notifications, and starts to fetch the logs
    /// of new blocks.
    pub(super) async fn change(&mut self, change: &Change) {
        self.audience.announce(change.seq);
        if change.skipped {
            // A subscriber that comes after the announcement has missed no block.
            self.clear();
            self.audience.close(change.seq, Closing::Gap, |_| true).await;
        }
        let went: Vec<_> = change.removed.iter().map(|block| (block.hash, self.take_back(block.hash))).collect();
        let came = change.added.iter().map(|block| {
            let bloom = self.blooms.evidence(block.bloom.as_deref()).cloned();
            Arc::new(Block { hash: block.hash, number: block.number, change: change.seq, bloom })
        });
        let came: Vec<Arc<Block>> = came.collect();
        // In one step, so that a polled filter either records the whole change or is newer than the
        // change.
        let told = went.iter().map(|(hash, telling)| {
            (*hash, telling.as_ref().map(|telling| (telling.block.clone(), telling.logs.clone())))
        });
        self.filters.changed(change, told.collect(), came.iter().cloned());
        for telling in went.into_iter().filter_map(|(_, telling)| telling) {
            self.tell(telling).await;
        }
        let wanted = wanted_filters(&self.audience, &self.filters, change.seq);
        for (block, entry) in change.added.iter().zip(came) {
            let bloom = entry.bloom.as_ref();
            let may_match = |bloom| wanted.iter().any(|filter| filter.may_match(block.number, bloom));
            let is_wanted = may_match(bloom);
            let is_sample = !is_wanted && may_match(None) && self.blooms.doubts(block.hash, change.seq);
            let is_sought = is_wanted || is_sample;
            if is_sought {
                self.sought.insert(block.hash, Sought { block: block.clone(), is_sample, task: None });
            }
            if !is_sought {
                self.filters.found(block.hash, Some(&Arc::default()));
            }
            self.ledger.add(entry, (!is_sought).then(Arc::default));
        }
        while self.ledger.is_overfull() {
            let oldest = self.ledger.wanted().next().cloned();
            let Some(block) = oldest else { break };
            self.give_up(&block).await;
            self.tell_all().await;
        }
        if wanted.is_empty() {
            // Without subscribers and filters, no later notification can need these blocks.
            self.clear();
        }
        self.go_on().await;
    }

    /// Waits for logs that are under way; for ever if there are none. Cancel-safe.
    pub(super) async fn fetched(&mut self) -> Fetched {
        while let Some(fetched) = self.fetches.join_next().await {
            match fetched {
                Ok(fetched) => return fetched,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            }
        }
        std::future::pending().await
    }

    /// Takes up the logs of a block, and sends all notifications that have become possible.
    pub(super) async fn found(&mut self, Fetched { block: hash, told }: Fetched) {
        let sought = self.sought.remove(&hash);
        let block = self.ledger.wanted().find(|block| block.hash == hash).cloned();
        match (told, block) {
            (Some(told), Some(block)) => {
                let bloom = sought.as_ref().and_then(|sought| sought.block.bloom.as_deref());
                self.judge(hash, bloom, &told).await;
                let wanted = wanted_filters(&self.audience, &self.filters, block.change);
                let is_wanted = |log: &Log| wanted.iter().any(|filter| filter.matches(log, block.number));
                let logs: Arc<[Log]> = told.logs.into_iter().filter(is_wanted).collect();
                self.follower.pool().announce(logs.iter().filter_map(Log::transaction));
                self.filters.found(hash, Some(&logs));
                self.ledger.found(hash, logs);
            }
            (None, Some(block)) if sought.is_some_and(|sought| sought.is_sample) => {
                self.blooms.passed_over(block.change);
                self.filters.found(hash, Some(&Arc::default()));
                self.ledger.found(hash, Arc::default());
            }
            (None, Some(block)) => self.give_up(&block).await,
            (_, None) => {}
        }
        self.go_on().await;
    }

    /// Compares a block's logs with its bloom filter, and counts odd logs.
    async fn judge(&mut self, block: B256, bloom: Option<&Bloom>, told: &NodeLogs) {
        let network = self.follower.pool().network.clone();
        if told.odd > 0 {
            self.metrics.odd_logs(&network, told.odd);
            let odd = told.odd;
            if std::mem::replace(&mut self.said_odd, true) {
                debug!(network = &*network, %block, odd, "node returned logs in a non-standard form");
            } else {
                warn!(
                    network = &*network, %block, odd,
                    "node returned logs in a non-standard form: forwarded unchanged to the subscribers whose filter they match"
                );
            }
        }
        if let Some(contradiction) = self.blooms.compare(bloom, &told.logs) {
            self.metrics.bloom_contradicted(&network);
            warn!(
                network = &*network, %block,
                "block has logs missing from its header's bloom: bloom filters are ignored from now on"
            );
            if let Some(change) = contradiction.passed {
                // Earlier blocks that were not fetched may have had wanted logs too.
                self.filters.doubt(change);
                self.audience.close(change, Closing::Gap, |_| true).await;
            }
        }
    }

    async fn tell_all(&mut self) {
        while let Some(telling) = self.ledger.next() {
            self.tell(telling).await;
        }
    }

    /// Sends all notifications that are possible, and starts to fetch the next blocks' logs.
    async fn go_on(&mut self) {
        self.tell_all().await;
        let time_limit = self.settings.data_timeout(self.follower.block_time());
        for block in self.ledger.wanted().take(AT_ONCE) {
            if let Some(Sought { block: header, is_sample, task: task @ None }) = self.sought.get_mut(&block.hash) {
                let (audience, filters, change) = (self.audience.clone(), self.filters.clone(), block.change);
                let errand = fetch::Errand {
                    follower: self.follower.clone(),
                    block: header.clone(),
                    wanted: Box::new(move || wanted_filters(&audience, &filters, change)),
                    bloom: block.bloom.filter(|_| !*is_sample),
                    is_sample: *is_sample,
                    time_limit,
                    forms: self.forms.clone(),
                };
                let hash = block.hash;
                *task = Some(self.fetches.spawn(async move { Fetched { block: hash, told: errand.run().await } }));
            }
        }
    }

    /// Handles a block that a reorganisation removed: returns the `removed` notifications of its
    /// logs, last log first, if the logs were sent.
    fn take_back(&mut self, block: B256) -> Option<Telling<Log>> {
        self.forget(block);
        let telling = self.ledger.remove(block)?;
        let logs = telling.logs.iter().rev().map(Log::removed).collect();
        Some(Telling { logs, ..telling })
    }

    async fn tell(&self, Telling { block, logs, to, .. }: Telling<Log>) {
        if logs.is_empty() {
            return;
        }
        let change = block.change;
        let wanted = move |filter: &Filter| {
            if !to.includes(|block| filter.may_match(block.number, block.bloom.as_ref())) {
                return Arc::default();
            }
            let logs = logs.iter().filter(|log| filter.matches(log, block.number));
            logs.map(|log| log.text.clone()).collect()
        };
        self.audience.tell(change, wanted).await;
    }

    /// Stops the search for this block's logs.
    fn forget(&mut self, block: B256) {
        if let Some(Sought { task: Some(task), .. }) = self.sought.remove(&block) {
            task.abort();
        }
    }

    fn clear(&mut self) {
        self.ledger.clear();
        self.sought.clear();
        self.fetches.abort_all();
    }

    /// Gives up on the logs of this block: closes the subscribers that the logs may concern, since
    /// they must not believe to have all logs, and holds up no other subscriber.
    async fn give_up(&mut self, block: &Arc<Block>) {
        self.forget(block.hash);
        self.filters.found(block.hash, None);
        self.ledger.found(block.hash, Arc::default());
        let network = self.follower.pool().network.clone();
        self.metrics.logs_given_up(&network);
        warn!(
            network = &*network, block = %block.hash, number = block.number,
            "no node returned the logs of a block in time: closing the subscribers whose filter may match"
        );
        let at = block.clone();
        let concerned = move |filter: &Filter| filter.may_match(at.number, at.bloom.as_ref());
        self.audience.close(block.change, Closing::Gap, concerned).await;
    }
}

/// The filters of subscribers to this change and of polled filters, each at least once.
fn wanted_filters(audience: &Audience<Filter>, filters: &Filters, change: u64) -> Vec<Arc<Filter>> {
    let mut wanted = audience.requests(change);
    wanted.extend(filters.criteria());
    wanted
}
