//! Floor 7, promises: what a subscriber sees, over many blocks, whatever becomes of nodes.
//!
//! A client's subscription never touches a node. What the follower tells of the chain becomes
//! notifications here: [`heads`] of new blocks, [`logs`] of their logs; and what filters that are
//! polled are told ([`filters`]). What cannot be told from the chain comes from a subscription that
//! all clients share ([`passthrough`]). Subscribers are told on the threads that serve them
//! ([`courier`]), through their [`mailbox`].

mod audience;
mod courier;
mod filters;
mod heads;
mod id;
mod logs;
mod mailbox;
mod params;
mod passthrough;
mod refused;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::value::RawValue;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

#[doc(hidden)]
pub use self::logs::Fixture;
use self::{
    audience::{Audience, Membership},
    // What filters that are polled share with the views of logs and of other subscriptions.
    logs::{Block, Filter, Log, Logs},
    passthrough::{Joined, Topics},
};
pub use self::{
    courier::{Couriers, Job},
    filters::{Counts, Filters},
    id::SubscriptionId,
    mailbox::{Closing, Letter, Mailbox, Note},
    refused::Refused,
};
use crate::{
    chain::{Change, Follower},
    config,
    memory::Budget,
    metrics::Metrics,
    pool::{self, Pool},
};

/// What may be set.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How much of the chain is kept in mind.
    pub chain: config::Chain,
    /// How long a client waits for a subscription that a node must give.
    pub timeout: Duration,
    /// Limits of the filters that clients poll.
    pub filters: config::Filters,
    /// What clients make the proxy hold, which what is kept for filters is part of.
    pub memory: Arc<Budget>,
    /// What is random comes from it, but for the ids of filters.
    pub seed: u64,
    /// The ids of filters come from it.
    pub secret: [u8; 32],
}

/// The subscriptions of one network's clients.
pub struct Views {
    interest: Arc<Interest>,
    heads: Arc<Audience<()>>,
    logs: Arc<Audience<Filter>>,
    topics: Arc<Topics>,
    filters: Arc<Filters>,
    random: Mutex<fastrand::Rng>,
}

/// Bytes of the params of one subscription, at most: what is read of them takes several times as
/// many for a moment.
const MOST_PARAMS: usize = 1 << 20;

/// The tasks behind a network's subscriptions; they end when this is dropped.
pub struct Running {
    own: pool::Running,
    follower: pool::Running,
}

impl Running {
    /// Waits for a task to end, which none does by itself: the text says how it came about.
    pub async fn broken(&mut self) -> String {
        // Both arms are cancel-safe.
        tokio::select! {
            broken = self.own.broken() => broken,
            broken = self.follower.broken() => broken,
        }
    }
}

impl Views {
    /// Starts to serve subscriptions to the network of `pool`, a pool of execution nodes. Until
    /// somebody subscribes, no node is asked for anything. Clients are served by the workers behind
    /// `couriers`.
    pub fn start(
        pool: Arc<Pool>,
        settings: &Settings,
        couriers: Couriers,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, Running) {
        let (follower, changes, running) = Follower::start(pool, &settings.chain, metrics.clone());
        let heads = Audience::new("newHeads", couriers.clone(), metrics.clone());
        let logs = Audience::new("logs", couriers.clone(), metrics.clone());
        let topics = Arc::new(Topics::new(follower.pool(), settings.timeout, couriers, metrics.clone()));
        let interest = Arc::new(Interest { follower: follower.clone(), count: Mutex::new(0) });
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
            Arc::new(Self { interest, heads, logs, topics, filters, random }),
            Running { own: pool::Running::new(task), follower: running },
        )
    }

    /// The filters that clients poll.
    pub fn filters(&self) -> &Arc<Filters> {
        &self.filters
    }

    /// From now on the network's nodes are those of another pool, and clients wait so long for what
    /// a node must give. Subscriptions go on, and miss nothing.
    pub fn move_to(&self, pool: Arc<Pool>, timeout: Duration) {
        self.interest.follower.move_to(pool.clone());
        self.topics.move_to(pool, timeout);
    }

    /// Checks what a client asks for and prepares it; its notifications are put into `mailbox` from
    /// [`Prepared::activate`] on. What a node must give is waited for, no longer than a call.
    ///
    /// # Errors
    /// When there is no such subscription.
    pub async fn prepare(
        &self,
        method: &str,
        params: Option<&[u8]>,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Prepared, Refused> {
        // It is written into texts, whoever it came from.
        let is_word = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let Some(namespace) = method.strip_suffix("_subscribe").filter(is_word) else {
            return Err(Refused::Unsupported("there is no such subscription"));
        };
        let params = params.unwrap_or(b"[]");
        if params.len() > MOST_PARAMS {
            return Err(Refused::Limit("subscription_params"));
        }
        let asked = Asked::read(namespace, params)?;
        let id = SubscriptionId::draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner));
        let head = format!(
            r#"{{"jsonrpc":"2.0","method":"{namespace}_subscription","params":{{"subscription":"{id}","result":"#
        );
        let (head, mailbox) = (Arc::from(head), mailbox.clone());
        let wish = match asked {
            Asked::Heads => Wish::Heads(self.heads.clone(), Interested::new(&self.interest)),
            Asked::Logs(filter) => Wish::Logs(self.logs.clone(), filter, Interested::new(&self.interest)),
            Asked::Other => Wish::Topic(self.topics.open(method, params, &head, &mailbox).await?),
        };
        Ok(Prepared { id, head, wish, mailbox })
    }
}

/// A subscription of which the client has heard nothing yet.
pub struct Prepared {
    /// What the client knows it by.
    pub id: SubscriptionId,
    head: Arc<str>,
    wish: Wish,
    mailbox: Arc<Mailbox>,
}

enum Wish {
    Heads(Arc<Audience<()>>, Interested),
    Logs(Arc<Audience<Filter>>, Box<Filter>, Interested),
    Topic(Joined),
}

impl Prepared {
    /// Bytes that the subscription takes for as long as it lasts.
    pub fn bytes(&self) -> usize {
        // A place in an audience, with all that belongs to it.
        const PLACE: usize = 512;
        PLACE + if let Wish::Logs(_, filter, _) = &self.wish { filter.bytes() } else { 0 }
    }

    /// Lets notifications come, from now on, and of what a node gives also those that came since it
    /// granted it. To be called on the thread that serves the client, when the answer with the id
    /// is in its mailbox.
    pub fn activate(self) -> Subscription {
        let Self { id: _, head, wish, mailbox } = self;
        Subscription(match wish {
            Wish::Heads(audience, interested) => Held::Heads(audience.join((), head, mailbox), interested),
            Wish::Logs(audience, filter, interested) => Held::Logs(audience.join(*filter, head, mailbox), interested),
            Wish::Topic(mut joined) => {
                joined.0.begin();
                Held::Topic(joined)
            }
        })
    }
}

/// A subscription that runs. Dropping it ends it: no notification is put into the mailbox after
/// that.
#[expect(dead_code, reason = "it is only held, and what it holds ends with it")]
pub struct Subscription(Held);

#[expect(dead_code, reason = "as above")]
enum Held {
    Heads(Membership<()>, Interested),
    Logs(Membership<Filter>, Interested),
    Topic(Joined),
}

/// What a client asks for.
enum Asked {
    Heads,
    Logs(Box<Filter>),
    Other,
}

impl Asked {
    fn read(namespace: &str, params: &[u8]) -> Result<Self, Refused> {
        if namespace != "eth" {
            return Ok(Self::Other);
        }
        let list: Vec<&RawValue> =
            serde_json::from_slice(params).map_err(|_| Refused::Params("non-array args".to_owned()))?;
        let kind = list.first().and_then(|kind| serde_json::from_str::<String>(kind.get()).ok());
        let at_most = |count: usize| match list.get(count).is_some_and(|more| more.get() != "null") {
            true => Err(Refused::Params(format!("too many arguments, want at most {count}"))),
            false => Ok(()),
        };
        match kind.as_deref() {
            Some("newHeads") => at_most(1).map(|()| Self::Heads),
            Some("logs") => {
                at_most(2)?;
                let filter = Filter::read(list.get(1).map_or("null", |filter| filter.get()));
                filter.map(|filter| Self::Logs(Box::new(filter))).map_err(Refused::Params)
            }
            Some(_) => Ok(Self::Other),
            None => Err(Refused::Params("expected subscription name as first argument".to_owned())),
        }
    }
}

/// How many want to hear of the chain. While nobody does, the follower rests.
struct Interest {
    follower: Arc<Follower>,
    count: Mutex<usize>,
}

/// One of them.
struct Interested(Arc<Interest>);

impl Interest {
    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *count;
        *count = change(before);
        if (before == 0) != (*count == 0) {
            self.follower.want(before == 0);
        }
    }
}

impl Interested {
    fn new(interest: &Arc<Interest>) -> Self {
        interest.change(|count| count + 1);
        Self(interest.clone())
    }
}

impl Drop for Interested {
    fn drop(&mut self) {
        self.0.change(|count| count - 1);
    }
}

/// However the task ends, its subscribers' connections end with it.
struct EndsWith(Arc<Audience<()>>, Arc<Audience<Filter>>, Arc<Filters>);

impl Drop for EndsWith {
    fn drop(&mut self) {
        self.0.close_all(Closing::Gone);
        self.1.close_all(Closing::Gone);
        self.2.give_up();
    }
}

/// Makes notifications of what changes, for as long as the follower lives.
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
