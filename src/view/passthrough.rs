//! Subscriptions to what the chain does not tell: all clients with the same wish share one at one
//! node.
//!
//! A task for each wish that somebody has holds the subscription to the node that serves the calls,
//! as far as that has a link. A new one runs before the old one is left, for a while beside it, and
//! what both tell is told once. A client has its place before a node has granted anything, and
//! hears of all that comes behind its answer; who comes later to what is a state (`syncing`) is
//! told that of the node that it is at, once that has told it. What no node told while none was
//! linked is not made up. The link asks for it again on each connection, and the task ends with the
//! last client.

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
    courier::Couriers,
    mailbox::Mailbox,
    refused::Refused,
};
use crate::{metrics::Metrics, pool::Pool};

/// Different wishes of one network's clients at a time: each is a subscription at a node.
const MOST_TOPICS: usize = 1024;
/// Bytes of the params of one wish, which are kept, and of all of them together.
const MOST_PARAMS: usize = 64 << 10;
const MOST_BYTES: usize = 16 << 20;

/// What clients can share: method and params, as they were written.
type Wish = (String, Bytes);

/// All wishes of one network's clients.
pub(super) struct Topics {
    open: Mutex<Open>,
    claims: Arc<Claims>,
    pools: watch::Sender<Arc<Pool>>,
    /// How long a client waits for a node's first answer, in milliseconds.
    timeout: AtomicU64,
    couriers: Couriers,
    metrics: Arc<Metrics>,
    /// Where the tasks run: beside the links, and not with whichever client came first.
    runtime: Handle,
}

#[derive(Default)]
struct Open {
    topics: BTreeMap<Wish, Weak<Topic>>,
}

/// A client's place with a topic.
pub(super) type Joined = (Membership<()>, Arc<Topic>, Option<Claim>);

/// The wishes that every wallet and library has, as they are sent to nodes: the limits on different
/// ones do not hold for them.
fn usual(method: &str, params: &[u8]) -> Option<&'static [u8]> {
    const USUAL: [&[u8]; 4] = [
        br#"["syncing"]"#,
        br#"["newPendingTransactions"]"#,
        br#"["newPendingTransactions",true]"#,
        br#"["newPendingTransactions",false]"#,
    ];
    // Space between the words makes no other wish.
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

/// One wish, for as long as somebody has it.
pub(super) struct Topic {
    audience: Arc<Audience<()>>,
    state: watch::Receiver<State>,
    /// Ends with this.
    _task: JoinSet<()>,
}

/// What became of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// No node has answered yet.
    Asked,
    /// A node granted it.
    Granted,
    /// No node grants it; what the first one said.
    Refused(Bytes),
}

impl Topics {
    /// To be called on the runtime on which the links are.
    pub(super) fn new(pool: Arc<Pool>, timeout: Duration, couriers: Couriers, metrics: Arc<Metrics>) -> Self {
        let (open, pools, runtime) = (Mutex::default(), watch::Sender::new(pool), Handle::current());
        let timeout = AtomicU64::new(millis(timeout));
        Self { open, claims: Arc::default(), pools, timeout, couriers, metrics, runtime }
    }

    pub(super) fn move_to(&self, pool: Arc<Pool>, timeout: Duration) {
        self.timeout.store(millis(timeout), Relaxed);
        self.pools.send_replace(pool);
    }

    /// The pool whose nodes are asked.
    pub(super) fn pool(&self) -> Arc<Pool> {
        self.pools.borrow().clone()
    }

    /// A place with the topic of this wish, once a node has granted it. What comes of it is heard
    /// there from the beginning, before the client can know that it is granted: nodes tell the
    /// first thing at once. To be called on the thread that serves the client.
    pub(super) async fn open(
        &self,
        method: &str,
        params: &[u8],
        head: &Arc<str>,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Joined, Refused> {
        if self.pools.borrow().nodes.iter().all(|node| node.link.is_none()) {
            return Err(Refused::Unsupported("no node has a WebSocket over which this could be subscribed to"));
        }
        if params.len() > MOST_PARAMS {
            return Err(Refused::Limit("subscription_params"));
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
            State::Refused(error) => Err(Refused::Node(error)),
            State::Asked if self.pools.borrow().snapshot().serves() => Err(Refused::NotGranted),
            State::Asked => Err(Refused::NoNode),
        }
    }

    fn topic(
        &self,
        method: &str,
        params: &[u8],
        mailbox: &Arc<Mailbox>,
        expect: impl Fn(&Arc<Audience<()>>) -> Membership<()>,
    ) -> Result<Joined, Refused> {
        let usual = usual(method, params);
        let params = usual.map_or_else(|| Bytes::copy_from_slice(params), Bytes::from_static);
        let wish = (method.to_owned(), params);
        let full = || Refused::Limit("different_subscriptions");
        let claim = |topic: &Arc<Topic>| match usual {
            Some(_) => Ok(None),
            None => Claim::new(&self.claims, mailbox, topic).map(Some).ok_or_else(full),
        };
        let mut open = self.lock();
        if let Some(topic) = open.topics.get(&wish).and_then(Weak::upgrade) {
            let claim = claim(&topic)?;
            return Ok((expect(&topic.audience), topic, claim));
        }
        open.topics.retain(|_, topic| topic.strong_count() > 0);
        if usual.is_none() {
            let others = open.topics.keys().filter(|(method, params)| self::usual(method, params).is_none());
            let (count, bytes) =
                others.fold((0, wish.1.len()), |(count, bytes), (_, params)| (count + 1, bytes + params.len()));
            if count >= MOST_TOPICS || self.claims.are_used_up(mailbox) {
                return Err(full());
            }
            if bytes > MOST_BYTES {
                return Err(Refused::Limit("subscription_params"));
            }
        }
        let audience = Audience::new("other", self.couriers.clone(), self.metrics.clone());
        let membership = expect(&audience);
        let (settled, state) = watch::channel(State::Asked);
        let relay = Relay::new(wish.clone(), self.pools.borrow().clone(), audience.clone(), settled);
        let mut task = JoinSet::new();
        task.spawn_on(relay.run(self.pools.subscribe()), &self.runtime);
        let topic = Arc::new(Topic { audience, state, _task: task });
        open.topics.insert(wish, Arc::downgrade(&topic));
        let claim = claim(&topic)?;
        Ok((membership, topic, claim))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // It is whole at every moment, so a panic elsewhere cannot have spoilt it.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
