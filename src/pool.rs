//! Floor 3, knowledge: what is known of the nodes of one side of a network, published as snapshots.
//!
//! Every node is probed by a task of its own, so a hanging one delays no other. One task, the pool's mind, takes what probes and
//! calls find, in order, and publishes a new [`Snapshot`] each time. Readers never wait.

mod announced;
pub mod ask;
pub mod board;
pub mod bounds;
mod claims;
pub mod clock;
mod ear;
mod effects;
pub mod evidence;
pub mod head;
pub mod health;
mod home;
mod identity;
mod inherit;
pub mod listen;
pub mod node;
mod outage;
pub mod pair;
pub mod probe;
pub mod resting;
mod running;
mod scout;
pub mod snapshot;
mod tend;
pub mod view;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::{
    sync::{Notify, broadcast, mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at},
};

use self::{
    announced::Announced,
    ask::Refused,
    board::{Board, Effect, Input, Served, Trouble},
    health::Fault,
    listen::{Listener, Pushed},
    node::Node,
    probe::Prober,
    resting::Kind,
    snapshot::Snapshot,
    view::Tied,
};
pub use self::{running::Running, scout::Scout};
use crate::{
    config::Health,
    domain::{
        block::BlockRef,
        hash::Hash,
        method::Method,
        verdict::{Layer, Verdict},
    },
    metrics::Metrics,
};

/// A node that owes answers and has been silent for this long is probed at once.
const SUSPICION: Duration = Duration::from_millis(500);
/// And has this long to send a byte. Both together are two seconds, and leave most of them to a node that is slow with probes.
const TRIAL: Duration = Duration::from_millis(1500);
/// A node may be silent to a probe for half its time, but for this long at least, before another is sent, and for as long again.
const SILENCE: Duration = Duration::from_secs(1);
/// How often silence is looked for.
const WATCH: Duration = Duration::from_millis(100);
/// The least time between two probes of a node.
const PROBE_GAP: Duration = Duration::from_millis(20);
/// How many findings may wait for the pool's mind. More come only from a flood of failing calls, which all say the same.
const INBOX: usize = 1024;
/// How many pushed headers a slow reader may have waiting before it misses some.
const HEADERS: usize = 256;

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
    board: Mutex<Board>,
    /// Whether another pool has taken this one's place.
    is_retired: AtomicBool,
    changed: watch::Sender<()>,
    /// The highest block that clients have been shown.
    served: AtomicU64,
    /// The node that showed it.
    served_by: AtomicUsize,
    /// The chain whose `net_version` is its id, as a node has told.
    version: AtomicU64,
    /// When nodes that are passed over were last asked where they are.
    caught_up: Mutex<Vec<Option<Instant>>>,
    /// Rung when a rest may have ended.
    stirred: Notify,
    /// What ties clients to a node.
    tied: Tied,
    wall: Wall,
    /// What clients were told of by its hash.
    announced: Mutex<Announced>,
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
        let board = Board::new(nodes.len(), layer, settings, expected_chain);
        let pool = Arc::new(Self {
            network: network.into(),
            layer,
            snapshot: ArcSwap::from_pointee(board.snapshot(&nodes, Instant::now())),
            board: Mutex::new(board),
            is_retired: AtomicBool::new(false),
            nodes: nodes.into(),
            settings: settings.clone(),
            changed: watch::Sender::new(()),
            served: AtomicU64::new(0),
            served_by: AtomicUsize::new(NOBODY),
            version: AtomicU64::new(0),
            caught_up: Mutex::new(vec![None; count]),
            stirred: Notify::new(),
            tied: Tied::new(),
            wall: wall.clone(),
            announced: Mutex::default(),
            inbox,
            headers: broadcast::Sender::new(HEADERS),
            headers_wanted: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(think(pool.clone(), findings, metrics, wall));
        for node in 0..pool.nodes.len() {
            tasks.spawn(keep_probing(pool.clone(), node));
        }
        for link in links {
            tasks.spawn(link);
        }
        for (index, node) in pool.nodes.iter().enumerate() {
            if let Some(link) = &node.link {
                tasks.spawn(Listener { pool: pool.clone(), index, link: link.clone() }.run());
            }
        }
        tasks.spawn(watch_silence(pool.clone()));
        tasks.spawn(tend::tend(pool.clone()));
        tasks.spawn(outage::watch(pool.clone()));
        (pool, Running::new(tasks))
    }

    /// What is known now.
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Hears of every new snapshot from now on.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The highest block that clients have been shown.
    pub fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }

    /// Clients are told of these, by their hashes.
    pub fn announce(&self, hashes: impl IntoIterator<Item = Hash>) {
        let mut announced = self.announced();
        hashes.into_iter().for_each(|hash| announced.add(hash));
    }

    /// Whether clients were told of a block or a transaction, as far back as is remembered.
    pub fn is_announced(&self, hash: &Hash) -> bool {
        self.announced().has(hash)
    }

    fn announced(&self) -> MutexGuard<'_, Announced> {
        // The hashes are whole at every moment, so a panic elsewhere cannot have spoilt them.
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the rules find `node` usable, and the operator left it in.
    pub fn is_usable(&self, node: usize) -> bool {
        let known = &self.snapshot().nodes[node];
        known.verdict.is_usable() && !known.cordoned
    }

    /// Whether `node` is usable and owes no byte to a probe for as long as would be silence.
    pub fn answers_probes(&self, node: usize) -> bool {
        self.is_usable(node) && self.nodes[node].traffic.unheard(Instant::now()) < SILENCE
    }

    /// Whether `node` is usable and a little below what clients were shown, by another node.
    pub fn owes_head(&self, node: usize) -> bool {
        let snapshot = self.snapshot();
        let rank = snapshot.nodes[node].rank(self.nodes[node].traffic.told(), self.served());
        let is_a_little_below =
            rank.is_some_and(|rank| rank.badness == 0 && (1..=snapshot.near).contains(&rank.below_served));
        is_a_little_below && self.served_by() != Some(node)
    }

    /// `node` showed a client the block at `height`. Believed within the limit of what is known, so that a lying node cannot raise it.
    pub fn shown(&self, node: usize, height: u64) {
        let snapshot = self.snapshot();
        let believed = snapshot.head.unwrap_or(0).saturating_add(snapshot.near);
        if height <= believed && snapshot.nodes[node].verdict != Verdict::Suspect {
            self.nodes[node].traffic.tell(height);
            self.raise(node, height);
        }
    }

    fn raise(&self, node: usize, height: u64) {
        if self.served.fetch_max(height, Relaxed) < height {
            self.served_by.store(node, Relaxed);
        }
    }

    fn served_by(&self) -> Option<usize> {
        Some(self.served_by.load(Relaxed)).filter(|node| *node < self.nodes.len())
    }

    /// The time between two probes of a node when nothing calls for one sooner.
    pub fn interval(&self) -> Duration {
        self.settings.interval
    }

    /// A call that waited for a height could not wait any longer: no other needs to.
    pub fn waited_in_vain(&self) {
        if self.snapshot().wait.is_some() {
            // A full inbox has more of the same.
            let _ = self.inbox.try_send(Input::Impatient);
        }
    }

    /// Has `node` probed now.
    pub fn doubt(&self, node: usize) {
        self.nodes[node].poke.notify_one();
    }

    /// Hears of every header that a node pushes from now on. It is knowledge that saves asking: a reader that is too slow misses some
    /// and loses nothing. Each comes before the snapshot that has it as the node's head.
    pub fn headers(&self) -> broadcast::Receiver<Pushed> {
        self.headers.subscribe()
    }

    /// `node` told of a new block by itself: it is the node's head as of now, unless it is below the one that is known.
    pub async fn pushed(&self, node: usize, block: BlockRef, json: Bytes) {
        // Nobody may be listening.
        let _ = self.headers.send(Pushed { node, block: block.clone(), json, is_whole: false });
        if self.nodes[node].upstream.is_none() {
            // What comes over the link says nothing of an HTTP side that hangs.
            self.nodes[node].traffic.touch(Instant::now());
        }
        // The pool's mind lives as long as the pool's tasks do.
        let _ = self.inbox.send(Input::Told(node, block, Instant::now())).await;
    }

    /// Whether `node` tells of its heads by itself now: it has done so since its feed of heads last began. Where it does not, they are
    /// known from probes only.
    pub fn is_pushing(&self, node: usize) -> bool {
        self.snapshot().nodes[node].pushing
    }

    /// Calls `method` at `node` on our own account, with `params`, a JSON array: see [`ask::ask`].
    ///
    /// # Errors
    /// When no JSON-RPC response of at most `max_bytes` came within `limit`.
    pub async fn ask_in_time(
        &self,
        node: usize,
        method: &str,
        params: &str,
        max_bytes: usize,
        limit: Duration,
    ) -> Result<Result<Bytes, Refused>, Trouble> {
        let kind = Kind::of_method(Method::of(method).place, method);
        let answer = timeout(limit, ask::ask(&self.nodes[node], method, params, max_bytes)).await;
        match &answer {
            Ok(Ok(Ok(_))) if self.nodes[node].resting.answered(kind, Instant::now()) => self.rest_changed(node),
            Ok(Err(Trouble { fault: Fault::Resting(wait), .. })) => self.call_refused(node, kind, *wait),
            _ => {}
        }
        answer.unwrap_or_else(|_| {
            Err(Trouble { fault: Fault::Silent, text: format!("{method}: no answer within {limit:?}") })
        })
    }

    /// The operator takes a node out, or lets it back in. It has taken effect when this returns. `false` when there is none of that name.
    pub async fn cordon(&self, name: &str, cordoned: bool) -> bool {
        let Some(node) = self.nodes.iter().position(|node| *node.name == *name) else { return false };
        let mut changes = self.subscribe();
        if self.inbox.send(Input::Cordon(node, cordoned)).await.is_err() {
            return false;
        }
        let seen = changes.wait_for(|()| self.snapshot().nodes[node].cordoned == cordoned);
        // The pool's mind takes its inputs in order, and none takes it long.
        timeout(SILENCE, seen).await.is_ok()
    }
}

/// The pool's mind.
async fn think(pool: Arc<Pool>, mut findings: mpsc::Receiver<Input>, metrics: Arc<Metrics>, wall: Wall) {
    // The pool holds a sender of its own, so this ends by being dropped.
    while let Some(input) = findings.recv().await {
        let now = Instant::now();
        let mut board = pool.board();
        if let Some(height) = board.forget_served(now) {
            pool.served.store(height, Relaxed);
            pool.served_by.store(board.active().unwrap_or(NOBODY), Relaxed);
        }
        let served = Served { height: pool.served(), by: pool.served_by() };
        board.ties = pool.tied.ties(pool.snapshot().chain.as_ref(), now);
        let effects = board.step(input, &pool.nodes, served, now, wall());
        if let (Some(node), Some(height)) = (board.active(), board.active_height()) {
            pool.raise(node, height);
        }
        // A node that is back may be chosen as soon as the snapshot says so.
        for effect in &effects {
            match effect {
                Effect::CameBack(node) => pool.mark(*node, false, &board),
                Effect::WentOut(node) => pool.mark(*node, true, &board),
                _ => {}
            }
        }
        pool.snapshot.store(Arc::new(board.snapshot(&pool.nodes, now)));
        drop(board);
        for effect in effects {
            pool.perform(effect, &metrics);
        }
        pool.changed.send_replace(());
    }
}

/// Probes one node for ever, each probe under its deadline.
async fn keep_probing(pool: Arc<Pool>, index: usize) {
    let node = &pool.nodes[index];
    let mut prober = Prober::default();
    loop {
        let started = Instant::now();
        node.traffic.asks(started);
        let mut outcome = prober.probe(&pool, index).await;
        if !matches!(outcome, Err(Trouble { fault: Fault::Silent, .. })) {
            node.traffic.hears();
        }
        node.metrics.probed(started.elapsed().as_secs_f64());
        outcome.as_ref().into_iter().for_each(|probe| pool.found(index, probe));
        if outcome.is_ok()
            && let Some(trouble) = evidence::examine_again(&pool, index).await
        {
            outcome = Err(trouble);
        }
        let is_well = outcome.is_ok();
        if pool.inbox.send(Input::Probed(index, outcome)).await.is_err() {
            return;
        }
        if is_well
            && let Some(trouble) = evidence::examine(&pool, index).await
            && pool.inbox.send(Input::Out(index, trouble)).await.is_err()
        {
            return;
        }
        if let Some(upstream) = &node.upstream {
            upstream.sweep();
        }
        sleep_until(Instant::now() + PROBE_GAP).await;
        // A node that asks to be left alone is, whoever would like to know.
        sleep_until(node.resting.probes_rest_until().unwrap_or(started)).await;
        // Both arms are cancel-safe.
        tokio::select! {
            () = sleep_until(started + pool.settings.interval) => {}
            () = node.poke.notified() => {}
        }
    }
}

/// Looks for nodes that owe answers and send nothing, or nothing to a probe, and puts each to the test. One that is known to be slow with
/// probes has as long as its last good one took.
async fn watch_silence(pool: Arc<Pool>) {
    let mut tests: JoinSet<(usize, Option<Input>)> = JoinSet::new();
    let mut under_test = vec![false; pool.nodes.len()];
    let patience = SILENCE.max(pool.settings.timeout / 2);
    let mut ticks = interval(WATCH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both arms are cancel-safe; an empty set is not a closed channel but nothing to wait for.
        tokio::select! {
            biased;
            Some(done) = tests.join_next(), if !tests.is_empty() => {
                let Ok((node, finding)) = done else { continue };
                under_test[node] = false;
                if let Some(finding) = finding && pool.inbox.send(finding).await.is_err() {
                    return;
                }
            }
            now = ticks.tick() => {
                for (index, node) in pool.nodes.iter().enumerate() {
                    let snapshot = pool.snapshot();
                    let known = &snapshot.nodes[index];
                    if under_test[index] || !known.verdict.answers() {
                        continue;
                    }
                    let owes = node.silence(now) > SUSPICION;
                    if owes || node.traffic.unheard(now) > patience {
                        under_test[index] = true;
                        let trial = TRIAL.max(known.latency.unwrap_or_default());
                        let (pool, limit) = (pool.clone(), if owes { trial } else { patience });
                        tests.spawn(async move { (index, put_to_the_test(&pool, index, owes, limit).await) });
                    }
                }
            }
        }
    }
}

/// Probes a node that is silent. Where calls that it hangs on hold all its connections, what they hear decides.
async fn put_to_the_test(pool: &Pool, index: usize, owes: bool, limit: Duration) -> Option<Input> {
    let node = &pool.nodes[index];
    let chain = pool.snapshot().nodes[index].chain.clone();
    let end = Instant::now() + limit;
    let mut probed = timeout_at(end, probe::probe(node, pool.layer, chain.as_ref())).await;
    if owes && matches!(probed, Ok(Err(Trouble { fault: Fault::Full, .. }))) {
        sleep_until(end).await;
        if node.silence(Instant::now()).is_zero() {
            return None;
        }
        probed = timeout_at(end, std::future::pending()).await;
    }
    match probed {
        Ok(Ok(_)) => {
            node.traffic.touch(Instant::now());
            None
        }
        Ok(Err(trouble)) => Some(Input::Probed(index, Err(trouble))),
        // The verdict is on what holds now: a byte may have come meanwhile, to a call or to another probe.
        Err(_) if owes && node.traffic.silence(Instant::now()) < limit => None,
        Err(_) if !owes && node.traffic.unheard(Instant::now()) < limit => None,
        Err(_) => {
            let (what, before) = if owes { ("answers", SUSPICION) } else { ("an answer to a probe", limit) };
            let text = format!("owes {what}, and has been silent for {:?}", before + limit);
            Some(Input::Out(index, Trouble { fault: Fault::Silent, text }))
        }
    }
}
