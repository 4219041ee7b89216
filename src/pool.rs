//! Floor 3, knowledge: the state of the nodes of one side of a network, published as snapshots.
//!
//! Every node is probed by a task of its own, so a hanging one delays no other. The state task
//! takes the findings of probes and calls in their order, and publishes a new [`Snapshot`] after
//! each. Readers never wait.

mod announced;
pub mod ask;
pub mod block_range;
pub mod bounds;
pub mod clock;
pub mod credits;
mod effects;
pub mod evidence;
mod feed_watch;
pub mod head;
pub mod health;
mod identity;
mod inherit;
mod late_primary;
mod latency;
mod lazy;
pub mod listen;
pub mod missing_methods;
mod named_heads;
pub mod node;
mod out_of_turn;
mod outage_log;
pub mod own_question;
pub mod paid;
pub mod pair;
pub mod preference;
pub mod probe;
mod range_search;
mod redact;
pub mod resting;
mod running;
mod scout;
mod shared_finding;
mod silence;
pub mod snapshot;
pub mod state;
mod tasks;
mod traffic;
pub mod validator_node;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use alloy_primitives::B256;
use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::{
    sync::{Notify, broadcast, mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use self::{
    announced::Announced,
    ask::NodeRefusal,
    health::{Fault, Trouble},
    listen::{Listener, Pushed},
    node::Node,
    outage_log::OutageLog,
    own_question::{Clock, OwnQuestion},
    resting::Kind,
    snapshot::Snapshot,
    state::{Input, PoolState},
    traffic::Traffic,
    validator_node::Tied,
};
pub use self::{running::Running, scout::Scout};
use crate::{
    config::Health,
    domain::{
        block::BlockRef,
        layer::Layer,
        method::Method,
        node_id::{ByNode, NodeId},
        verdict::Verdict,
    },
    metrics::{Burst, Metrics},
};

/// A node may be silent to a probe for half the probe's timeout, but for this long at least, before
/// another probe is sent, and for as long again.
const PROBE_SILENCE: Duration = Duration::from_secs(1);
/// How long a change of the pool's knowledge may take to appear in a snapshot.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(1);
/// How many findings may wait for the state task. Only a flood of failing calls brings more, and
/// all of those say the same.
const INBOX: usize = 1024;
/// Pushed headers that may wait for a slow reader before the reader misses some.
const HEADERS: usize = 256;

/// All multiples of this, cut to 64 bits on an overflow, lie evenly: the number is 2^64 by the
/// golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The index of no node.
const NOBODY: usize = usize::MAX;

/// The wall clock: seconds since the Unix epoch.
pub type Wall = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The nodes of one side of a network.
pub struct Pool {
    /// The network's name.
    pub network: Arc<str>,
    /// Which side.
    pub layer: Layer,
    /// The nodes, primaries first, in the order of the configuration.
    pub nodes: Box<[Node]>,
    settings: Health,
    snapshot: ArcSwap<Snapshot>,
    state: Mutex<PoolState>,
    /// Whether the pool is the one that clients' calls go to. Only that one logs the state of its
    /// nodes and counts its switches: not a pool that is to take the place of another, or has been
    /// replaced.
    is_in_charge: AtomicBool,
    changed: watch::Sender<()>,
    /// The highest block that clients have been shown.
    served: AtomicU64,
    /// The node that showed the highest block.
    served_by: AtomicUsize,
    /// The chain whose `net_version` is its id, as a node has told.
    version: AtomicU64,
    /// See [`Self::draw`].
    drawn: AtomicU64,
    /// When nodes that were passed over were last asked for their heads.
    caught_up: Mutex<Vec<Option<Instant>>>,
    /// Notified when the highest block that clients have been shown is another.
    higher: Notify,
    /// Notified when a rest may have ended.
    stirred: Notify,
    /// Notified when a node lacked blocks that another node had.
    lacks_news: Notify,
    /// The ties of clients to a node.
    tied: Tied,
    wall: Wall,
    /// Keeps nodes that come and go from filling the log.
    lines: Burst,
    /// The time without a node that serves, as the log was told.
    outage: Mutex<OutageLog>,
    /// Hashes that clients were told of.
    announced: Mutex<Announced>,
    /// The names of cordoned nodes at addresses of a DNS name that does not have them now.
    away: Mutex<BTreeSet<Arc<str>>>,
    /// Whether another pool has taken this one's place.
    is_retired: Arc<AtomicBool>,
    inbox: mpsc::Sender<Input>,
    headers: broadcast::Sender<Pushed>,
    /// Whether the headers that probes find are wanted.
    headers_wanted: AtomicBool,
}

impl Pool {
    /// Starts to probe `nodes` and to keep account of them.
    pub fn start(
        network: &str,
        layer: Layer,
        nodes: Vec<Node>,
        settings: &Health,
        expected_chain: Option<u64>,
        metrics: Arc<Metrics>,
        wall: Wall,
    ) -> (Arc<Self>, Running) {
        let (inbox, findings) = mpsc::channel(INBOX);
        let count = nodes.len();
        let links: Vec<_> = nodes.iter().filter_map(Node::link_run).collect();
        let state = PoolState::new(nodes.len(), layer, settings, expected_chain);
        let pool = Arc::new(Self {
            network: network.into(),
            layer,
            snapshot: ArcSwap::from_pointee(state.snapshot(&nodes, Instant::now())),
            state: Mutex::new(state),
            is_in_charge: AtomicBool::new(true),
            nodes: nodes.into(),
            settings: settings.clone(),
            changed: watch::Sender::new(()),
            served: AtomicU64::new(0),
            served_by: AtomicUsize::new(NOBODY),
            version: AtomicU64::new(0),
            drawn: AtomicU64::new(0),
            caught_up: Mutex::new(vec![None; count]),
            higher: Notify::new(),
            stirred: Notify::new(),
            lacks_news: Notify::new(),
            tied: Tied::new(),
            wall: wall.clone(),
            lines: Burst::default(),
            outage: Mutex::default(),
            announced: Mutex::default(),
            away: Mutex::default(),
            is_retired: Arc::default(),
            inbox,
            headers: broadcast::Sender::new(HEADERS),
            headers_wanted: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(tasks::run_state(pool.clone(), findings, metrics, wall));
        for node in NodeId::all(pool.nodes.len()) {
            tasks.spawn(tasks::keep_probing(pool.clone(), node));
        }
        for link in links {
            tasks.spawn(link);
        }
        for (index, node) in pool.nodes.by_node() {
            if let Some(link) = &node.link {
                tasks.spawn(Listener { pool: pool.clone(), index, link: link.clone() }.run());
            }
        }
        tasks.spawn(silence::watch_silence(pool.clone()));
        tasks.spawn(out_of_turn::tend(pool.clone()));
        tasks.spawn(outage_log::watch(pool.clone()));
        if layer == Layer::El && settings.find_oldest_blocks {
            tasks.spawn(range_search::tend(pool.clone()));
        }
        (pool, Running::new(tasks))
    }

    /// The latest knowledge of all nodes.
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Hears of every new snapshot from now on.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The next of a row of numbers that are spread evenly over all there are, for a choice by
    /// chance. A row and no dice: so a part of one in four is met in each four calls.
    pub fn draw(&self) -> u64 {
        self.drawn.fetch_add(GOLDEN, Relaxed)
    }

    /// The highest block that clients have been shown.
    pub fn served(&self) -> u64 {
        self.served.load(Acquire)
    }

    /// The highest block that clients have been shown, and the latest knowledge of all nodes. The
    /// height is read before the knowledge, and raised after it: a choice that found the height
    /// first and not the node's own head would pass over the very node that brought the height.
    pub fn served_and_snapshot(&self) -> (u64, arc_swap::Guard<Arc<Snapshot>>) {
        (self.served(), self.snapshot())
    }

    /// Clients are told of these, by their hashes.
    pub fn announce(&self, hashes: impl IntoIterator<Item = B256>) {
        let mut announced = self.announced();
        hashes.into_iter().for_each(|hash| announced.add(hash));
    }

    /// Whether clients were told of a block or a transaction, as far back as is remembered.
    pub fn is_announced(&self, hash: &B256) -> bool {
        self.announced().has(hash)
    }

    fn announced(&self) -> MutexGuard<'_, Announced> {
        // The hashes are whole at every moment, so a panic elsewhere cannot have spoilt them.
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the rules find `node` usable, and the operator left it in.
    pub fn is_usable(&self, node: NodeId) -> bool {
        let known = &self.snapshot().nodes[node];
        known.verdict.is_usable() && !known.cordoned
    }

    /// Whether `node` is usable and owes no byte to a probe for as long as would be silence.
    pub fn answers_probes(&self, node: NodeId) -> bool {
        self.is_usable(node) && self.nodes[node].probe_silence(Instant::now()) < PROBE_SILENCE
    }

    /// Whether `node` is usable and a little below the highest block that clients were shown, and
    /// another node showed that block.
    pub fn owes_head(&self, node: NodeId) -> bool {
        let (served, snapshot) = self.served_and_snapshot();
        let preference = snapshot.nodes[node].preference(self.nodes[node].traffic.max_height(), served);
        let is_a_little_below = preference.is_some_and(|preference| {
            preference.badness == 0 && (1..=snapshot.near).contains(&preference.below_served)
        });
        is_a_little_below && self.served_by() != Some(node)
    }

    /// Notes that `node` showed a client the block at `height`. A height is believed only within
    /// the limit above the pool's head, so that a lying node cannot raise the highest block.
    pub fn shown(&self, node: NodeId, height: u64) {
        let snapshot = self.snapshot();
        let believed = snapshot.head.unwrap_or(0).saturating_add(snapshot.near);
        if height <= believed && snapshot.nodes[node].verdict != Verdict::Suspect {
            self.nodes[node].traffic.record_height(height);
            self.raise(node, height);
        }
    }

    /// Notes that other proxies showed clients the blocks at these heights. The highest one that is
    /// believed counts: one within the same limit, which comes back. Without a head there is none.
    pub fn shown_elsewhere(&self, heights: impl IntoIterator<Item = u64>) -> Option<u64> {
        let snapshot = self.snapshot();
        let limit = snapshot.head?.saturating_add(snapshot.near);
        let height = heights.into_iter().filter(|height| *height <= limit).max().unwrap_or(0);
        if self.served.fetch_max(height, Release) < height {
            self.served_by.store(NOBODY, Relaxed);
            // A full inbox has the state look at the height too.
            let _ = self.inbox.try_send(Input::ShownElsewhere);
            // A node may have reached the block since its last probe.
            for (node, known) in snapshot.nodes.by_node() {
                if known.verdict.is_usable() && !known.has(height) {
                    self.probe_now(node);
                }
            }
        }
        Some(limit)
    }

    /// Waits until clients have been shown a higher block than at the wait before. For one task.
    pub async fn shown_higher(&self) {
        self.higher.notified().await;
    }

    fn raise(&self, node: NodeId, height: u64) {
        if self.served.fetch_max(height, Release) < height {
            self.served_by.store(node.0, Relaxed);
            self.higher.notify_one();
        }
    }

    fn served_by(&self) -> Option<NodeId> {
        Some(NodeId(self.served_by.load(Relaxed))).filter(|node| node.0 < self.nodes.len())
    }

    /// The time between two probes of a node that is not [idle](Pool::is_idle), when nothing calls
    /// for one sooner.
    pub fn interval(&self, node: NodeId) -> Duration {
        self.nodes[node].settings().probe_interval.unwrap_or(self.settings.interval)
    }

    /// A call that waited for a height could not wait any longer: no other needs to.
    pub fn waited_in_vain(&self) {
        if self.snapshot().wait.is_some() {
            // A full inbox has more of the same.
            let _ = self.inbox.try_send(Input::Impatient);
        }
    }

    /// Has `node` probed now, unless the node is [idle](Pool::is_idle).
    pub fn probe_now(&self, node: NodeId) {
        if !self.is_idle(node) {
            self.nodes[node].probe_now.notify_one();
        }
    }

    /// Hears of every header that a node pushes from now on. A header saves a question: a reader
    /// that is too slow misses some and loses nothing. Each header comes before the snapshot that
    /// has its block as the node's head.
    pub fn headers(&self) -> broadcast::Receiver<Pushed> {
        self.headers.subscribe()
    }

    /// Takes a block that `node` pushed. The block is the node's head from now on, unless it is
    /// below the head that is known.
    pub async fn pushed(&self, node: NodeId, block: BlockRef, json: Bytes) {
        // There may be no listener.
        let _ = self.headers.send(Pushed { node, block: block.clone(), json, is_whole: false });
        if self.nodes[node].upstream.is_none() {
            // A header over the link is no sign of life of an HTTP side that hangs.
            self.nodes[node].traffic.touch(Instant::now());
        }
        // The state task lives as long as the pool's other tasks do.
        let _ = self.inbox.send(Input::Told(node, block, Instant::now())).await;
    }

    /// Whether `node` has pushed a head since its feed of heads last began. The heads of other
    /// nodes are known from probes only.
    pub fn is_pushing(&self, node: NodeId) -> bool {
        self.snapshot().nodes[node].pushing
    }

    /// Calls `method` at `node` on our own account, with `params`, a JSON array: see [`ask::ask`].
    ///
    /// # Errors
    /// When no JSON-RPC response of at most `max_bytes` came within `limit` after a connection was
    /// there.
    pub async fn ask_in_time(
        &self,
        node: NodeId,
        method: &str,
        params: &str,
        max_bytes: usize,
        limit: Duration,
    ) -> Result<Result<Bytes, NodeRefusal>, Trouble> {
        self.ask_once(node, method, params, max_bytes, limit, None).await
    }

    /// [`Pool::ask_in_time`], of a node that owes the answer: the pool watches its silence.
    ///
    /// # Errors
    /// As [`Pool::ask_in_time`].
    pub async fn ask_watched(
        &self,
        node: NodeId,
        method: &str,
        params: &str,
        max_bytes: usize,
        limit: Duration,
    ) -> Result<Result<Bytes, NodeRefusal>, Trouble> {
        self.ask_once(node, method, params, max_bytes, limit, Some(&self.nodes[node].traffic)).await
    }

    async fn ask_once(
        &self,
        node: NodeId,
        method: &str,
        params: &str,
        max_bytes: usize,
        limit: Duration,
        owes: Option<&Traffic>,
    ) -> Result<Result<Bytes, NodeRefusal>, Trouble> {
        let kind = Kind::of_method(Method::of(method).id, method);
        let clock = Clock::new(limit);
        let question = OwnQuestion::new(Some(&clock), owes);
        let answer = clock.limits(ask::ask(question, &self.nodes[node], method, params, max_bytes)).await;
        match &answer {
            Some(Ok(Ok(_))) if self.nodes[node].resting.answered(kind, None, Instant::now()) => self.rest_changed(node),
            Some(Err(Trouble { fault: Fault::Resting(wait), .. })) => self.call_refused(node, kind, *wait),
            _ => {}
        }
        answer.unwrap_or_else(|| {
            Err(Trouble { fault: Fault::Silent, text: format!("{method}: no answer within {limit:?}") })
        })
    }

    /// This pool with the name of each of its nodes, cordoned ones included whose address has left
    /// its DNS name.
    pub fn names(&self) -> Vec<(&Self, Arc<str>)> {
        let away = self.away().clone();
        self.nodes.iter().map(|node| node.name.clone()).chain(away).map(|name| (self, name)).collect()
    }

    /// Cordons a node for the operator, or lets the node back in. The change has taken effect when
    /// this returns. `false` when no node has this name. A cordoned node whose address has left its
    /// DNS name can be let back in.
    pub async fn cordon(&self, name: &str, cordoned: bool) -> bool {
        if !cordoned && self.away().remove(name) {
            return true;
        }
        let Some(node) = self.nodes.find_node(|node| *node.name == *name) else { return false };
        let mut changes = self.subscribe();
        if self.inbox.send(Input::Cordon(node, cordoned)).await.is_err() {
            return false;
        }
        let seen = changes.wait_for(|()| self.snapshot().nodes[node].cordons.local == cordoned);
        // The state task takes its inputs in order, and none takes long.
        timeout(SNAPSHOT_TIMEOUT, seen).await.is_ok()
    }

    /// Takes a node out of use by the operator's wish for all replicas, or ends that wish. A cordon
    /// of this proxy alone stays as it is. The change has taken effect when this returns `true`.
    pub async fn wish(&self, node: NodeId, is_out: bool) -> bool {
        if self.snapshot().nodes[node].cordons.fleet == is_out {
            return true;
        }
        let mut changes = self.subscribe();
        if self.inbox.send(Input::Wish(node, is_out)).await.is_err() {
            return false;
        }
        let seen = changes.wait_for(|()| self.snapshot().nodes[node].cordons.fleet == is_out);
        timeout(SNAPSHOT_TIMEOUT, seen).await.is_ok_and(|seen| seen.is_ok())
    }
}
