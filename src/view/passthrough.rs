//! Subscriptions whose notifications cannot be derived from the chain: all clients with the same
//! method and params share one subscription at one node.
//!
//! Rule: a task for each shared subscription holds it at the active node, if that node has a link.
//! On a change of node, the new subscription starts before the old one ends; both run beside each
//! other for two seconds, and a notification of both is sent once. Reason: clients miss nothing and
//! see nothing twice. Example: node a notifies transactions 1 and 2, node b becomes active and
//! notifies 2 and 3; clients get 1, 2, 3.
//!
//! A client joins before a node has granted the subscription, so that it gets all notifications
//! behind the node's answer. A client that joins a state (`syncing`) later is sent the state of the
//! present node, once known. Notifications during a time without any linked node are lost. The link
//! subscribes again on each connection, and the task ends with the last client.

mod claim;
mod overlap;
mod relay;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{runtime::Handle, sync::watch, task::JoinSet, time::timeout};

use self::{
    claim::{Claim, Claims},
    relay::Relay,
};
use super::{
    audience::{Audience, Membership},
    mailbox::Mailbox,
    subscription_refusal::SubscriptionRefusal,
    worker_jobs::WorkerJobs,
};
use crate::domain::duration::millis;
use crate::{metrics::Metrics, pool::Pool};

/// Different shared subscriptions of one network at a time, at most: each is a subscription at a
/// node.
const MOST_TOPICS: usize = 1024;
/// Bytes of the params of one shared subscription, which are kept, and of all of them together.
const MOST_PARAMS: usize = 64 << 10;
const MOST_BYTES: usize = 16 << 20;

/// The key of a shared subscription: method and params, as the client wrote them.
type TopicKey = (String, Bytes);

/// All shared subscriptions of one network's clients.
pub(super) struct Topics {
    open: Mutex<Open>,
    claims: Arc<Claims>,
    pools: watch::Sender<Arc<Pool>>,
    /// How long a client waits for a node's first answer, in milliseconds.
    timeout: AtomicU64,
    worker_jobs: WorkerJobs,
    metrics: Arc<Metrics>,
    /// Where the tasks run: with the links, and not with the client that came first.
    runtime: Handle,
}

#[derive(Default)]
struct Open {
    topics: BTreeMap<TopicKey, Weak<Topic>>,
}

/// A client's membership of a topic.
pub(super) type Joined = (Membership<()>, Arc<Topic>, Option<Claim>);

/// The subscriptions that every wallet and library uses, as they are sent to nodes: the limits on
/// different subscriptions do not apply to them.
fn usual(method: &str, params: &[u8]) -> Option<&'static [u8]> {
    const USUAL: [&[u8]; 4] = [
        br#"["syncing"]"#,
        br#"["newPendingTransactions"]"#,
        br#"["newPendingTransactions",true]"#,
        br#"["newPendingTransactions",false]"#,
    ];
    // White space outside of quotes makes no difference.
    let is_meant = |usual: &&&[u8]| {
        let mut is_quoted = false;
        let words = params.iter().filter(|byte| {
            is_quoted ^= **byte == b'"';
            is_quoted || !byte.is_ascii_whitespace()
        });
        words.eq(usual.iter())
    };
    USUAL.iter().find(is_meant).copied().filter(|_| method == "eth_subscribe")
}

/// A shared subscription, for as long as a client has it.
pub(super) struct Topic {
    audience: Arc<Audience<()>>,
    state: watch::Receiver<State>,
    /// The relay; dropping the topic ends the task.
    _task: JoinSet<()>,
}

/// The state of a shared subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// No node has answered yet.
    Asked,
    /// A node granted the subscription.
    Granted,
    /// No node grants the subscription; the first refusal.
    Refused(Bytes),
}

impl Topics {
    /// To be called on the runtime that runs the links.
    pub(super) fn new(pool: Arc<Pool>, timeout: Duration, worker_jobs: WorkerJobs, metrics: Arc<Metrics>) -> Self {
        let (open, pools, runtime) = (Mutex::default(), watch::Sender::new(pool), Handle::current());
        let timeout = AtomicU64::new(millis(timeout));
        Self { open, claims: Arc::default(), pools, timeout, worker_jobs, metrics, runtime }
    }

    pub(super) fn move_to(&self, pool: Arc<Pool>, timeout: Duration) {
        self.timeout.store(millis(timeout), Relaxed);
        self.pools.send_replace(pool);
    }

    /// The pool whose nodes are asked.
    pub(super) fn pool(&self) -> Arc<Pool> {
        self.pools.borrow().clone()
    }

    /// Joins the topic of this subscription, and waits until a node has granted it. The client is a
    /// member from the beginning, before it can know that the node granted the subscription,
    /// because nodes send the first notification at once. To be called on the thread that serves
    /// the client.
    pub(super) async fn open(
        &self,
        method: &str,
        params: &[u8],
        head: &Arc<str>,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Joined, SubscriptionRefusal> {
        if self.pools.borrow().nodes.iter().all(|node| node.link.is_none()) {
            return Err(SubscriptionRefusal::Unsupported(
                "no node has a WebSocket over which this could be subscribed to",
            ));
        }
        if params.len() > MOST_PARAMS {
            return Err(SubscriptionRefusal::Limit("subscription_params"));
        }
        let expect = |audience: &Arc<Audience<()>>| audience.expect((), head.clone(), mailbox.clone());
        let joined = self.topic(method, params, mailbox, expect)?;
        let topic = &joined.1;
        let mut state = topic.state.clone();
        let limit = Duration::from_millis(self.timeout.load(Relaxed));
        let settled = match timeout(limit, state.wait_for(|state| *state != State::Asked)).await {
            Ok(Ok(state)) => state.clone(),
            Ok(Err(_)) | Err(_) => State::Asked,
        };
        match settled {
            State::Granted => Ok(joined),
            State::Refused(error) => Err(SubscriptionRefusal::Node(error)),
            State::Asked if self.pools.borrow().snapshot().serves() => Err(SubscriptionRefusal::NotGranted),
            State::Asked => Err(SubscriptionRefusal::NoNode),
        }
    }

    fn topic(
        &self,
        method: &str,
        params: &[u8],
        mailbox: &Arc<Mailbox>,
        expect: impl Fn(&Arc<Audience<()>>) -> Membership<()>,
    ) -> Result<Joined, SubscriptionRefusal> {
        let usual = usual(method, params);
        let params = usual.map_or_else(|| Bytes::copy_from_slice(params), Bytes::from_static);
        let key = (method.to_owned(), params);
        let full = || SubscriptionRefusal::Limit("different_subscriptions");
        let claim = |topic: &Arc<Topic>| match usual {
            Some(_) => Ok(None),
            None => Claim::new(&self.claims, mailbox, topic).map(Some).ok_or_else(full),
        };
        let mut open = self.lock();
        if let Some(topic) = open.topics.get(&key).and_then(Weak::upgrade) {
            let claim = claim(&topic)?;
            return Ok((expect(&topic.audience), topic, claim));
        }
        open.topics.retain(|_, topic| topic.strong_count() > 0);
        if usual.is_none() {
            let others = open.topics.keys().filter(|(method, params)| self::usual(method, params).is_none());
            let (count, bytes) =
                others.fold((0, key.1.len()), |(count, bytes), (_, params)| (count + 1, bytes + params.len()));
            if count >= MOST_TOPICS || self.claims.are_used_up(mailbox) {
                return Err(full());
            }
            if bytes > MOST_BYTES {
                return Err(SubscriptionRefusal::Limit("subscription_params"));
            }
        }
        let audience = Audience::new("other", self.worker_jobs.clone(), self.metrics.clone());
        let membership = expect(&audience);
        let (settled, state) = watch::channel(State::Asked);
        let relay = Relay::new(key.clone(), self.pools.borrow().clone(), audience.clone(), settled);
        let mut task = JoinSet::new();
        task.spawn_on(relay.run(self.pools.subscribe()), &self.runtime);
        let topic = Arc::new(Topic { audience, state, _task: task });
        open.topics.insert(key, Arc::downgrade(&topic));
        let claim = claim(&topic)?;
        Ok((membership, topic, claim))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Every change is made whole under the lock, so a panic elsewhere cannot have spoilt the
        // map.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
