//! The replica in its place: started with the networks, told of reloads, and left at the end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tracing::{error, warn};

use super::{
    StartError, World,
    wishes::{Applier, Outcomes},
};
use crate::{
    cluster::{FirstAttempt, Local, Prepared, Running, Tools},
    config::Config,
    domain::fleet::{LayerWord, NetworkName, NodeName, NodeRef, NodeVerdict, ReplicaName, ServedHead, ServingNode},
    door::site::{Served, Site},
    metrics::Metrics,
    pool::{Pool, node::Node, snapshot::Facts},
};

/// How long the start waits to hear that a setting is wrong, while clients are served already.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// The longest time that the end of the proxy waits for the store, beside the hook's own time.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The least time between two lines of the log on heights that are not believed.
const DOUBTS_TOLD: Duration = Duration::from_secs(60);

/// A replica that runs, and the store's first word.
pub(super) struct Started {
    running: Arc<Running>,
    first: FirstAttempt,
    wishes: Arc<Applier>,
}

impl Started {
    pub(super) fn running(&self) -> Arc<Running> {
        self.running.clone()
    }

    pub(super) fn wishes(&self) -> Arc<Applier> {
        self.wishes.clone()
    }
}

/// Starts the replica that the settings ask for.
///
/// # Errors
/// A hook or the folder cannot be used: names the key.
pub(super) fn start(
    config: &Config,
    world: &World,
    site: &Arc<ArcSwap<Site>>,
    metrics: &Arc<Metrics>,
    draining: watch::Receiver<bool>,
    (must_end, broken): (&Arc<watch::Sender<bool>>, &Arc<watch::Sender<bool>>),
) -> Result<Option<Started>, StartError> {
    let Some(settings) = &config.cluster else { return Ok(None) };
    let (must_end, broken) = (must_end.clone(), broken.clone());
    let (pools, outcomes) = (site.clone(), Outcomes::default());
    let told = outcomes.clone();
    let tools = Tools {
        open: world.open_cluster.clone(),
        connect_hook: world.connect_hook.clone(),
        run_task: world.run_cluster.clone(),
        clock: world.uptime.clone(),
        seed: world.secret()[..8].iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte)),
        local: Arc::new(move || local(&pools.load(), &told)),
        is_drained: Arc::new(move || *draining.borrow()),
        metrics: metrics.clone(),
        exit: Arc::new(move |why| {
            error!("{why}");
            must_end.send_replace(true);
        }),
        broken: Arc::new(move || {
            broken.send_replace(true);
        }),
    };
    let (running, first) = Running::start(settings, tools).map_err(StartError::Cluster)?;
    let running = Arc::new(running);
    let wishes = Applier::new(running.clone(), site.clone(), world.set_log.clone(), outcomes);
    Ok(Some(Started { running, first, wishes: Arc::new(wishes) }))
}

/// Waits a moment for the outcome of the first attempt at the store.
///
/// # Errors
/// A setting is wrong.
pub(super) async fn heard(started: Option<Started>) -> Result<(), StartError> {
    match started {
        Some(Started { first, .. }) => first.outcome(FIRST_WORD).await.map_err(StartError::Cluster),
        None => Ok(()),
    }
}

/// Leaves the cluster, as far as the store lets a replica.
pub(super) async fn leave(running: Option<&Running>) {
    if let Some(running) = running {
        running.leave(LEAVE_TIMEOUT).await;
    }
}

/// Prepares the settings that a reload brings.
///
/// # Errors
/// A hook cannot be used: names the key.
pub(super) fn prepare(config: &Config, world: &World) -> Result<Option<Prepared>, String> {
    config.cluster.as_ref().map(|settings| Running::prepare(settings, &world.connect_hook)).transpose()
}

/// Shares the heights that clients are shown with the other replicas, for as long as the networks
/// of `site` stay; a reload begins anew.
pub(super) async fn share_heights(
    running: Arc<Running>,
    site: Arc<ArcSwap<Site>>,
    metrics: Arc<Metrics>,
    mut reloaded: watch::Receiver<u64>,
) {
    loop {
        let mut sharing = JoinSet::new();
        for pool in site.load().networks.iter().flat_map(Served::pools) {
            sharing.spawn(share(pool.clone(), running.clone(), metrics.clone()));
        }
        if reloaded.changed().await.is_err() {
            return;
        }
    }
}

/// Shares the heights of one pool. Of the heights of others the highest that the pool believes is
/// taken over, now or once its own nodes have come near.
async fn share(pool: Arc<Pool>, running: Arc<Running>, metrics: Arc<Metrics>) {
    let (mut heights, mut changes) = (running.cluster().heights(), pool.subscribe());
    let place = (pool.network.to_string(), pool.layer.as_str().to_owned());
    let words = || pool.snapshot().nodes.iter().map(|known| known.verdict.as_str()).collect::<Vec<_>>();
    let (mut seen, mut doubts) = (words(), Doubts::default());
    loop {
        if let Some(shown) = heights.borrow_and_update().get(&place)
            && let Some(limit) = pool.shown_elsewhere(shown.values().copied())
        {
            doubts.note(&pool, shown, limit, &metrics);
        }
        // All arms are cancel-safe.
        tokio::select! {
            () = pool.shown_higher() => running.beat(),
            changed = heights.changed() => if changed.is_err() { return },
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                // A verdict is news.
                let now = words();
                if now != seen {
                    running.beat();
                }
                seen = now;
            }
        }
    }
}

/// The heights of other replicas that are not believed: each is counted once, and the log tells one
/// now and then.
#[derive(Default)]
struct Doubts {
    known: BTreeMap<ReplicaName, u64>,
    told: Option<Instant>,
}

impl Doubts {
    fn note(&mut self, pool: &Pool, shown: &BTreeMap<ReplicaName, u64>, limit: u64, metrics: &Metrics) {
        let doubted: BTreeMap<_, _> = shown.iter().filter(|(_, height)| **height > limit).collect();
        for (replica, height) in doubted.iter().filter(|(replica, height)| self.known.get(**replica) != Some(**height))
        {
            metrics.cluster_height_doubted();
            if self.told.is_none_or(|at| at.elapsed() >= DOUBTS_TOLD) {
                self.told = Some(Instant::now());
                let (network, layer) = (&*pool.network, pool.layer.as_str());
                warn!(network, layer, %replica, height, limit, "the height of another replica is not believed");
            }
        }
        self.known = doubted.into_iter().map(|(replica, height)| (replica.clone(), *height)).collect();
    }
}

/// The part of a heartbeat that the pools know, and the outcomes of wishes.
fn local(site: &Site, outcomes: &Outcomes) -> Local {
    let shards = site.outbox.as_ref().and_then(|outbox| outbox.shares()?.0);
    let mut local = Local { wishes: outcomes.load().to_vec(), shards, ..Local::default() };
    for pool in site.networks.iter().flat_map(Served::pools) {
        // Each network's name in the settings is a name in the cluster too, shorter and plainer.
        let Ok(network) = pool.network.parse::<NetworkName>() else { continue };
        let layer = LayerWord::from(pool.layer.as_str());
        local.verdicts.extend(verdicts(pool));
        if let served @ 1.. = pool.served() {
            local.heads.push(ServedHead { network: network.clone(), layer: layer.clone(), served });
        }
        if let Some(node) = serving(pool) {
            local.serving.push(ServingNode { network, layer, node });
        }
    }
    local
}

/// The verdicts on the nodes of a pool. The errors are clean: the pool keeps no other.
fn verdicts(pool: &Pool) -> Vec<NodeVerdict> {
    let (snapshot, layer) = (pool.snapshot(), LayerWord::from(pool.layer.as_str()));
    let verdict = |(node, known): (&Node, &Facts)| {
        let (network, name) = (pool.network.parse().ok()?, node.name.parse().ok()?);
        let node = NodeRef { network, layer: layer.clone(), node: name };
        let last_error = known.last_error.as_ref().filter(|_| !known.verdict.is_usable());
        let last_error = last_error.map(|(text, _)| text.clone());
        let cordoned = known.cordons.local;
        Some(NodeVerdict { node, verdict: known.verdict.as_str().into(), last_error, cordoned })
    };
    pool.nodes.iter().zip(&snapshot.nodes).filter_map(verdict).collect()
}

fn serving(pool: &Pool) -> Option<NodeName> {
    let active = pool.snapshot().active?;
    pool.nodes[active].name.parse().ok()
}
