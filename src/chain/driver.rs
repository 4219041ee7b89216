//! The task behind a follower: takes the pool's news to the follower, and carries out the effects.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::{
    ChainPosition, Demand, Pace,
    block::{Block, Change, Head},
    follow::{Effect, Fetch, Follow, Input, Others, What},
    interest::Listeners,
    window::Missing,
};
use crate::{
    domain::{
        block::BlockRef,
        node_id::{ByNode, NodeId},
        verdict::Verdict,
    },
    metrics::Metrics,
    pool::{
        Pool,
        health::{Fault, Trouble},
        listen::Pushed,
    },
};

/// How long a node may take to give a header.
const FETCH: Duration = Duration::from_secs(2);
/// The longest answer that is read for a header, in bytes: nodes send the header together with the
/// hashes of the block's transactions, and a block may be very full.
const MAX_ANSWER: usize = 4 << 20;
/// The least time between two probes that look for a new head.
const LEAST_POLL: Duration = Duration::from_millis(200);

pub(super) struct Driver {
    pool: Arc<Pool>,
    follow: Follow,
    demand: watch::Receiver<Demand>,
    is_wanted: bool,
    changes: mpsc::Sender<Change>,
    listeners: Listeners,
    metrics: Arc<Metrics>,
    pace: Pace,
    place: watch::Sender<ChainPosition>,
    /// The fetches that are under way.
    fetches: JoinSet<(Fetch, Option<Block>)>,
    polled: Instant,
}

/// The receiver of the changes is gone, or the [`Follower`](super::Follower) is.
struct Gone;

impl Driver {
    pub(super) fn new(
        pool: Arc<Pool>,
        follow: Follow,
        demand: watch::Receiver<Demand>,
        (changes, listeners): (mpsc::Sender<Change>, Listeners),
        metrics: Arc<Metrics>,
        pace: Pace,
        place: watch::Sender<ChainPosition>,
    ) -> Self {
        let (fetches, polled) = (JoinSet::new(), Instant::now());
        Self { pool, follow, demand, is_wanted: false, changes, listeners, metrics, pace, place, fetches, polled }
    }

    /// Runs until the receiver of the changes or the follower is gone.
    pub(super) async fn run(mut self, mut pools: watch::Receiver<Arc<Pool>>) {
        let (mut snapshots, mut headers) = (self.pool.subscribe(), self.pool.headers());
        loop {
            if self.look(&mut headers).await.is_err() {
                return;
            }
            let now = Instant::now();
            let (wake, poll) = (self.follow.wake_at(), self.poll_at());
            // All arms are cancel-safe. A set without fetches would be ready at once, so that arm
            // is off. The arm of pushed headers stands last, because headers come in floods and the
            // other events are rare.
            let done = tokio::select! {
                biased;
                Some(fetched) = self.fetches.join_next(), if !self.fetches.is_empty() => match fetched {
                    Ok((fetch, block)) => self.step(Input::Fetched(fetch, block)).await,
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => Ok(()),
                },
                changed = self.demand.changed() => {
                    // The next [`Driver::look`] takes the demand in its order with heads and
                    // headers.
                    self.demand.mark_changed();
                    changed.map_err(|_| Gone)
                }
                moved = pools.changed() => match moved {
                    Ok(()) => {
                        self.pool = pools.borrow_and_update().clone();
                        self.pool.want_headers(self.is_wanted);
                        (snapshots, headers) = (self.pool.subscribe(), self.pool.headers());
                        self.fetches.abort_all();
                        self.step(Input::Moved).await
                    }
                    Err(_) => Err(Gone),
                },
                // The pool is held here, so its senders are too.
                _ = snapshots.changed() => Ok(()),
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => self.step(Input::Woken).await,
                () = sleep_until(poll.unwrap_or(now)), if poll.is_some() => {
                    self.poll();
                    Ok(())
                }
                pushed = headers.recv() => match pushed {
                    Ok(pushed) => self.learn(pushed).await,
                    Err(_) => Ok(()),
                },
            };
            if done.is_err() {
                return;
            }
        }
    }

    /// Gives the follower the pushed headers, the demand and the present head.
    async fn look(&mut self, headers: &mut broadcast::Receiver<Pushed>) -> Result<(), Gone> {
        let told = self.told();
        // The pool sends a header before the snapshot with that header as a head, and a listener's
        // demand comes before the head that the listener must not miss. So headers and demand are
        // read after the snapshot, and given to the follower before its head.
        while let Ok(pushed) = headers.try_recv() {
            self.learn(pushed).await?;
        }
        if self.demand.has_changed().map_err(|_| Gone)? {
            let Demand { is_wanted, since } = self.demand.borrow_and_update().clone();
            self.is_wanted = is_wanted;
            self.pool.want_headers(is_wanted);
            // The head may be of a pool to which the follower is about to move.
            let since = since.filter(|(node, _)| node.0 < self.pool.nodes.len());
            let since = since.and_then(|(node, block)| Some((node, Head::read(&block)?)));
            self.step(if is_wanted { Input::Wanted(since) } else { Input::Unwanted }).await?;
        }
        let others = self.others(told.map(|(node, _)| node));
        self.step(Input::Head(told, others)).await
    }

    /// Whether nodes besides the active one have the tip.
    fn others(&self, active: Option<NodeId>) -> Others {
        let Some(tip) = self.follow.tip().map(|tip| tip.number) else { return Others::Lack };
        let snapshot = self.pool.snapshot();
        if active.is_some_and(|active| snapshot.nodes[active].condition.syncing) {
            // A node that reports itself as syncing will come to the tip, also before probes have
            // proven the node.
            return Others::Hold;
        }
        let others = snapshot.nodes.by_node().filter(|(node, facts)| Some(*node) != active && !facts.cordoned);
        others.fold(Others::Lack, |so_far, (_, facts)| match facts.verdict {
            Verdict::WrongChain | Verdict::Suspect => so_far,
            Verdict::Down(_) if so_far == Others::Lack => Others::Away,
            Verdict::Down(_) => so_far,
            _ if facts.head.as_ref().is_some_and(|head| head.number >= tip) => Others::Hold,
            _ => so_far,
        })
    }

    fn told(&self) -> Option<(NodeId, Head)> {
        let (node, block) = active_head(&self.pool)?;
        Some((node, Head::read(&block)?))
    }

    async fn learn(&mut self, Pushed { node, block, json, is_whole }: Pushed) -> Result<(), Gone> {
        if block.hash.parse().is_ok_and(|hash| self.follow.knows(node, hash, block.number)) {
            return Ok(());
        }
        match if is_whole { Block::read_whole(&json) } else { Block::read(json) } {
            Some(block) => self.step(Input::Pushed(node, Arc::new(block))).await,
            None => Ok(()),
        }
    }

    async fn step(&mut self, input: Input) -> Result<(), Gone> {
        let effects = self.follow.step(input, Instant::now());
        self.pace.set(self.follow.block_time());
        let place = ChainPosition { tip: self.follow.tip().map_or(0, |tip| tip.number), seq: self.follow.seq() };
        for effect in effects {
            let network = &*self.pool.network;
            match effect {
                Effect::Fetch(fetch) => _ = self.fetches.spawn(carry_out(self.pool.clone(), fetch)),
                Effect::Drop => self.fetches.abort_all(),
                Effect::Filled => self.metrics.backfilled(network),
                Effect::Reorged(depth) => {
                    debug!(network, depth, "blocks were taken out");
                    self.metrics.reorged(network);
                    self.metrics.reorg_depth(depth);
                }
                Effect::Skipped { from, to, why } => {
                    warn!(network, from, to, why, "blocks are skipped");
                    self.metrics.gap_skipped(network);
                }
                Effect::Tell(change) => {
                    // A client that gets a block may ask for that block next: from here on no node
                    // below the block may answer such calls.
                    if let Some(tip) = change.added.last() {
                        self.pool.announce(change.added.iter().map(|block| block.hash));
                        self.pool.shown(change.node, tip.number);
                    }
                    self.listeners.tell(&change);
                    self.changes.send(change).await.map_err(|_| Gone)?;
                }
            }
        }
        self.place.send_if_modified(|known| std::mem::replace(known, place) != place);
        Ok(())
    }

    /// When to probe the active node for its head out of turn, if the node does not push heads:
    /// three times in a block time, where the usual probes come less often.
    fn poll_at(&self) -> Option<Instant> {
        let active = self.pool.snapshot().active.filter(|&active| self.is_wanted && !self.pool.is_pushing(active));
        let every = (self.follow.block_time()? / 3).max(LEAST_POLL);
        active.filter(|&active| every < self.pool.interval(active)).map(|_| self.polled + every)
    }

    fn poll(&mut self) {
        self.polled = Instant::now();
        if let Some(active) = self.pool.snapshot().active {
            self.pool.probe_now(active);
        }
    }
}

/// The active node, with its head.
pub(super) fn active_head(pool: &Pool) -> Option<(NodeId, BlockRef)> {
    let snapshot = pool.snapshot();
    let active = snapshot.active?;
    Some((active, snapshot.nodes[active].head.clone()?))
}

/// Fetches a header from the node of `fetch`. A header by its hash is then asked of other usable
/// nodes that stand as high, too; a header by its height is not, because another node may have
/// another block there.
async fn carry_out(pool: Arc<Pool>, fetch: Fetch) -> (Fetch, Option<Block>) {
    let block = match fetch.what {
        What::Height(height) => at_height(&pool, fetch.node, height).await,
        What::Hash(missing) => match with_hash(&pool, fetch.node, missing).await {
            Some(block) => Some(block),
            None => {
                let mut block = None;
                let mut others = others_with(&pool, missing.number, fetch.node).into_iter();
                while block.is_none()
                    && let Some(node) = others.next()
                {
                    block = with_hash(&pool, node, missing).await;
                }
                block
            }
        },
    };
    (fetch, block)
}

/// The header with that hash; where the node does not give the header by its hash, the header at
/// its height, if the hash is right. Reason: a node may fail at one method alone, and on a fast
/// chain a header has little time.
async fn with_hash(pool: &Pool, node: NodeId, missing: Missing) -> Option<Block> {
    let is_it = |block: &Block| block.hash == missing.hash;
    let params = format!(r#"["{}",false]"#, missing.hash);
    match ask(pool, node, "eth_getBlockByHash", &params).await {
        Ok(block) if is_it(&block) => Some(block),
        Err(Fault::Full) => None,
        _ => at_height(pool, node, missing.number).await.filter(is_it),
    }
}

async fn at_height(pool: &Pool, node: NodeId, height: u64) -> Option<Block> {
    ask(pool, node, "eth_getBlockByNumber", &format!(r#"["{height:#x}",false]"#)).await.ok()
}

/// Nodes besides `active` that are well and stand at least at this height.
fn others_with(pool: &Pool, number: u64, active: NodeId) -> Vec<NodeId> {
    let snapshot = pool.snapshot();
    let others = snapshot.nodes.by_node().filter(|(node, facts)| {
        let has = facts.head.as_ref().is_some_and(|head| head.number >= number);
        *node != active && has && !facts.cordoned && facts.verdict.is_usable()
    });
    others.map(|(node, _)| node).collect()
}

/// A node that answers, and gives no block, is failing.
async fn ask(pool: &Pool, node: NodeId, method: &str, params: &str) -> Result<Block, Fault> {
    let Trouble { fault, text } = match pool.ask_in_time(node, method, params, MAX_ANSWER, FETCH).await {
        Ok(Ok(block)) => match Block::read_whole(&block) {
            Some(block) => return Ok(block),
            None => Trouble { fault: Fault::Failing, text: "the answer is no block".to_owned() },
        },
        Ok(Err(refused)) => Trouble { fault: Fault::Failing, text: refused.text },
        Err(trouble) => {
            pool.probe_now(node);
            trouble
        }
    };
    debug!(network = &*pool.network, node = &*pool.nodes[node].name, text, "no header");
    Err(fault)
}
