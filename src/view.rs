//! Floor 7, promises: the notifications of subscriptions, without a gap over blocks and failing
//! nodes.
//!
//! A client's subscription never touches a node. The follower's changes of the chain become
//! notifications here: [`heads`] of new blocks, [`logs`] of their logs; and changes for filters
//! that are polled ([`filters`]). Other subscriptions, such as `syncing`, cannot be derived from
//! the chain: all clients share one such subscription at a node ([`passthrough`]). Notifications
//! are made on the thread that serves the subscriber's client ([`worker_jobs`]), and wait for the
//! client in its [`mailbox`].

mod audience;
mod filters;
mod heads;
mod id;
mod logs;
mod mailbox;
mod outbox;
mod params;
mod passthrough;
mod subscription_refusal;
mod worker_jobs;

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use alloy_primitives::B256;
use serde_json::value::RawValue;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

#[doc(hidden)]
pub use self::logs::Fixture;
use self::{
    audience::{Audience, Membership},
    // Shared by polled filters and the views of logs and of other subscriptions.
    logs::{Block, Filter, Log, Logs},
    passthrough::{Joined, Topics},
};
pub use self::{
    filters::{Counts, Filters},
    id::SubscriptionId,
    mailbox::{Closing, Mailbox, Notification, Outbound},
    subscription_refusal::SubscriptionRefusal,
    worker_jobs::{Job, WorkerJobs},
};
use crate::{
    call::outbox_calls::{Tenant, TransactionKeeper},
    chain::{Change, Follower, Interest, Interested},
    config,
    memory::Budget,
    metrics::Metrics,
    pool::{self, Pool},
};

/// The settings of the subscriptions and filters of one network.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How much of the chain is remembered.
    pub chain: config::Chain,
    /// How long a client waits until a node has granted its subscription.
    pub timeout: Duration,
    /// Limits of the filters that clients poll.
    pub filters: config::Filters,
    /// Bounds the memory that clients take, which polled filters are part of.
    pub memory: Arc<Budget>,
    /// The seed of random values, except the ids of filters.
    pub seed: u64,
    /// The secret that the ids of filters are derived from.
    pub secret: [u8; 32],
}

/// The subscriptions of one network's clients.
pub struct Views {
    interest: Arc<Interest>,
    heads: Arc<Audience<()>>,
    logs: Arc<Audience<Filter>>,
    topics: Arc<Topics>,
    filters: Arc<Filters>,
    /// Keeps transactions, if the network has an outbox.
    outbox: OnceLock<Arc<dyn TransactionKeeper>>,
    random: Mutex<fastrand::Rng>,
}

/// Bytes of the params of one subscription, at most: reading params takes several times as much
/// memory for a moment.
const MOST_PARAMS: usize = 1 << 20;

/// The tasks behind a network's subscriptions; dropping this ends the tasks.
pub struct Running {
    own: pool::Running,
    follower: pool::Running,
}

impl Running {
    /// Waits for a task to end, though none ends by itself, and returns how the task ended.
    pub async fn broken(&mut self) -> String {
        // Both arms are cancel-safe.
        tokio::select! {
            broken = self.own.broken() => broken,
            broken = self.follower.broken() => broken,
        }
    }
}

impl Views {
    /// Starts to serve subscriptions to the network of `pool`, a pool of execution nodes. Without a
    /// subscription, nodes get no requests from here. Clients are served by the workers behind
    /// `worker_jobs`.
    pub fn start(
        pool: Arc<Pool>,
        settings: &Settings,
        worker_jobs: WorkerJobs,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, Running) {
        let (follower, changes, running) = Follower::start(pool, &settings.chain, metrics.clone());
        let heads = Audience::new("newHeads", worker_jobs.clone(), metrics.clone());
        let logs = Audience::new("logs", worker_jobs.clone(), metrics.clone());
        let topics = Arc::new(Topics::new(follower.pool(), settings.timeout, worker_jobs, metrics.clone()));
        let interest = Interest::new(follower.clone());
        let filters = Filters::new(
            interest.clone(),
            topics.clone(),
            &settings.filters,
            &settings.memory,
            settings.secret,
            metrics.clone(),
        );
        let desk = Logs::new(logs.clone(), filters.clone(), follower, &settings.chain, metrics);
        let mut task = JoinSet::new();
        task.spawn(run(changes, heads.clone(), desk, filters.clone()));
        let random = Mutex::new(fastrand::Rng::with_seed(settings.seed));
        (
            Arc::new(Self { interest, heads, logs, topics, filters, outbox: OnceLock::new(), random }),
            Running { own: pool::Running::new(task), follower: running },
        )
    }

    /// The interest in the chain, for others who follow it.
    pub fn interest(&self) -> &Arc<Interest> {
        &self.interest
    }

    /// The filters that clients poll.
    pub fn filters(&self) -> &Arc<Filters> {
        &self.filters
    }

    /// Has subscriptions to transactions served by `outbox` from now on. The first one stays.
    pub fn keep_transactions(&self, outbox: Arc<dyn TransactionKeeper>) {
        let _ = self.outbox.set(outbox);
    }

    /// Moves the subscriptions to the nodes of another pool; no notification is lost. `timeout`
    /// limits from now on how long a client waits until a node has granted its subscription.
    pub fn move_to(&self, pool: Arc<Pool>, timeout: Duration) {
        self.interest.follower().move_to(pool.clone());
        self.topics.move_to(pool, timeout);
    }

    /// Checks and prepares a subscription; its notifications are put into `mailbox` from
    /// [`Prepared::activate`] on. If a node must grant the subscription, waits for the node, but no
    /// longer than for a call. `tenant` is the client's tenant, as a header named it.
    ///
    /// # Errors
    /// When the params are wrong, a limit is exceeded, or no node grants the subscription.
    pub async fn prepare(
        &self,
        method: &str,
        params: Option<&[u8]>,
        mailbox: &Arc<Mailbox>,
        tenant: Tenant<'_>,
    ) -> Result<Prepared, SubscriptionRefusal> {
        // The namespace is written into notifications, so it may hold only letters, digits and `_`.
        let is_word = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let Some(namespace) = method.strip_suffix("_subscribe").filter(is_word) else {
            return Err(SubscriptionRefusal::Unsupported("there is no such subscription"));
        };
        let params = params.unwrap_or(b"[]");
        if params.len() > MOST_PARAMS {
            return Err(SubscriptionRefusal::Limit("subscription_params"));
        }
        let asked = Asked::read(namespace, params)?;
        let id = SubscriptionId::draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner));
        let head = format!(
            r#"{{"jsonrpc":"2.0","method":"{namespace}_subscription","params":{{"subscription":"{id}","result":"#
        );
        let (head, mailbox) = (Arc::from(head), mailbox.clone());
        let source = match asked {
            Asked::Heads => Source::Heads(self.heads.clone(), Interested::new(&self.interest)),
            Asked::Logs(filter) => Source::Logs(self.logs.clone(), filter, Interested::new(&self.interest)),
            Asked::Transaction(hash) => match self.outbox.get() {
                Some(outbox) => Source::Transaction(outbox.watch(hash, tenant).map_err(SubscriptionRefusal::Own)?),
                // A node says that it knows no such subscription.
                None => Source::Topic(self.topics.open(method, params, &head, &mailbox).await?),
            },
            Asked::Other => Source::Topic(self.topics.open(method, params, &head, &mailbox).await?),
        };
        Ok(Prepared { id, head, source, mailbox })
    }
}

/// A subscription whose id the client does not know yet.
pub struct Prepared {
    /// The id that the client gets.
    pub id: SubscriptionId,
    head: Arc<str>,
    source: Source,
    mailbox: Arc<Mailbox>,
}

enum Source {
    Heads(Arc<Audience<()>>, Interested),
    Logs(Arc<Audience<Filter>>, Box<Filter>, Interested),
    Topic(Joined),
    Transaction(mpsc::Receiver<Arc<str>>),
}

impl Prepared {
    /// Bytes that the subscription takes in memory until its end.
    pub fn bytes(&self) -> usize {
        // The memory of a subscriber in an audience.
        const PLACE: usize = 512;
        PLACE + if let Source::Logs(_, filter, _) = &self.source { filter.bytes() } else { 0 }
    }

    /// Lets notifications come from now on. From a node's subscription, notifications since the
    /// node granted it come too. To be called on the thread that serves the client, when the answer
    /// with the id is in its mailbox.
    pub fn activate(self) -> Subscription {
        let Self { id: _, head, source, mailbox } = self;
        Subscription(match source {
            Source::Heads(audience, interested) => Held::Heads(audience.join((), head, mailbox), interested),
            Source::Logs(audience, filter, interested) => Held::Logs(audience.join(*filter, head, mailbox), interested),
            Source::Topic(mut joined) => {
                joined.0.begin();
                Held::Topic(joined)
            }
            Source::Transaction(transitions) => Held::Transaction(outbox::tell(transitions, head, mailbox)),
        })
    }
}

/// A subscription that runs. Dropping the subscription ends its notifications at once.
#[expect(dead_code, reason = "it is only held, and what it holds ends with it")]
pub struct Subscription(Held);

#[expect(dead_code, reason = "as above")]
enum Held {
    Heads(Membership<()>, Interested),
    Logs(Membership<Filter>, Interested),
    Topic(Joined),
    Transaction(JoinSet<()>),
}

/// The kind of a subscription.
enum Asked {
    Heads,
    Logs(Box<Filter>),
    Transaction(B256),
    Other,
}

impl Asked {
    fn read(namespace: &str, params: &[u8]) -> Result<Self, SubscriptionRefusal> {
        if namespace != "eth" {
            return Ok(Self::Other);
        }
        let list: Vec<&RawValue> =
            serde_json::from_slice(params).map_err(|_| SubscriptionRefusal::Params("non-array args".to_owned()))?;
        let kind = list.first().and_then(|kind| serde_json::from_str::<String>(kind.get()).ok());
        let at_most = |count: usize| match list.get(count).is_some_and(|more| more.get() != "null") {
            true => Err(SubscriptionRefusal::Params(format!("too many arguments, want at most {count}"))),
            false => Ok(()),
        };
        match kind.as_deref() {
            Some("newHeads") => at_most(1).map(|()| Self::Heads),
            Some("logs") => {
                at_most(2)?;
                let filter = Filter::read(list.get(1).map_or("null", |filter| filter.get()));
                filter.map(|filter| Self::Logs(Box::new(filter))).map_err(SubscriptionRefusal::Params)
            }
            Some("steadfast_transaction") => {
                at_most(2)?;
                let hash = list.get(1).and_then(|hash| serde_json::from_str(hash.get()).ok());
                let wrong =
                    || SubscriptionRefusal::Params("expected a transaction's hash as second argument".to_owned());
                hash.map(Self::Transaction).ok_or_else(wrong)
            }
            Some(_) => Ok(Self::Other),
            None => Err(SubscriptionRefusal::Params("expected subscription name as first argument".to_owned())),
        }
    }
}

/// Closes all subscribers when dropped, so that a task that panics does not leave connections open
/// that wait for ever.
struct EndsWith(Arc<Audience<()>>, Arc<Audience<Filter>>, Arc<Filters>);

impl Drop for EndsWith {
    fn drop(&mut self) {
        self.0.close_all(Closing::Gone);
        self.1.close_all(Closing::Gone);
        self.2.give_up();
    }
}

/// Makes notifications of the chain's changes for as long as the follower lives.
async fn run(mut changes: mpsc::Receiver<Change>, heads: Arc<Audience<()>>, mut logs: Logs, filters: Arc<Filters>) {
    let _ends_with = EndsWith(heads.clone(), logs.audience.clone(), filters.clone());
    let mut sweep = Instant::now();
    loop {
        // All arms are cancel-safe. Heads never wait for logs.
        tokio::select! {
            biased;
            change = changes.recv() => {
                let Some(change) = change else { return };
                heads::tell(&heads, &change).await;
                logs.change(&change).await;
            }
            fetched = logs.fetched() => logs.found(fetched).await,
            () = filters.idle(&mut sweep) => filters.sweep(),
        }
    }
}
