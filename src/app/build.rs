//! Builds a network's nodes, calls, events and subscriptions from the settings, and starts their
//! tasks.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tracing::{error, warn};

use super::{World, accounts::Accounts, descriptors::DescriptorLimits, wishes::Applier};
use crate::{
    beacon::Requests,
    call::Calls,
    config::{self, Config},
    domain::layer::Layer,
    events::{self, Events},
    memory::Budget,
    metrics::Metrics,
    pool::{
        Pool,
        node::{Node, Reach},
    },
    view::{self, Views, WorkerJobs},
};

/// How long a connection to a node may take to come about. A node that runs accepts at once; a node
/// that does not is known by its silence.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a call waits for a connection to a node that takes no more, where there are others.
const FULL: Duration = Duration::from_secs(1);
/// Bytes of events that may wait for one client: some seconds of every attestation there is.
const MAX_EVENTS: usize = 4 << 20;

/// The parts of the proxy that every network is built with.
pub(super) struct Deps<'a> {
    pub(super) world: &'a World,
    pub(super) metrics: &'a Arc<Metrics>,
    /// The memory that clients make the proxy hold.
    pub(super) memory: &'a Arc<Budget>,
    /// The channels to the workers.
    pub(super) worker_jobs: &'a WorkerJobs,
    /// The accounts of nodes.
    pub(super) accounts: &'a Accounts,
    /// Set to true when a task has ended that must run for ever.
    pub(super) broken: &'a Arc<watch::Sender<bool>>,
    /// The operator's wishes for all replicas; none before the start of the replica.
    pub(super) wishes: Option<&'a Applier>,
}

impl Deps<'_> {
    /// Divides the file descriptors between the uses, and warns where one gets less than `config`
    /// asks for, unless the `earlier` settings and limits gave the same warning.
    pub(super) fn descriptor_limits(
        &self,
        config: &Config,
        earlier: Option<(&Config, DescriptorLimits)>,
    ) -> DescriptorLimits {
        let limits = DescriptorLimits::of(self.world.descriptors, self.world.threads.unwrap_or(1), config);
        let cuts = limits.cuts(config);
        if !cuts.is_empty() && earlier.is_none_or(|(config, limits)| limits.cuts(config) != cuts) {
            warn!(
                limit = self.world.descriptors,
                "the limit on open files is too low: {cuts}, and the rest is for nodes and the admin side"
            );
        }
        limits
    }

    /// Has `tasks` report the end of `running`, which must run for ever: with an error in the log
    /// that names the consequence for the network, and with the flag for `/livez`.
    fn supervise<R>(&self, tasks: &mut JoinSet<()>, network: &Arc<str>, consequence: &'static str, running: R)
    where
        R: Future<Output = String> + Send + 'static,
    {
        let (network, broken) = (network.clone(), self.broken.clone());
        tasks.spawn(async move {
            let how = running.await;
            error!(network = &*network, how, "{consequence}");
            broken.send_replace(true);
        });
    }
}

/// A network that runs, and its settings.
pub(super) struct NetworkRuntime {
    pub(super) settings: config::Network,
    pub(super) name: Arc<str>,
    pub(super) calls: Option<Arc<Calls>>,
    pub(super) beacon: Option<Arc<Requests>>,
    pub(super) events: Option<EventsTask>,
    pub(super) views: Option<ViewsTask>,
    /// Supervises the pools' tasks. Dropping the set ends them.
    _tasks: JoinSet<()>,
}

/// A network's events. A reload that replaces the network's nodes keeps them.
pub(super) struct EventsTask {
    pub(super) events: Arc<Events>,
    _tasks: JoinSet<()>,
}

/// A network's subscriptions. A reload that replaces the network's nodes keeps them.
pub(super) struct ViewsTask {
    pub(super) views: Arc<Views>,
    _tasks: JoinSet<()>,
}

impl NetworkRuntime {
    /// Builds the network of `settings`. `earlier` is the running network of the same name, if any:
    /// nodes with unchanged settings keep their connections.
    pub(super) fn build(
        settings: &config::Network,
        config: &Config,
        earlier: Option<&Self>,
        limits: DescriptorLimits,
        deps: &Deps<'_>,
    ) -> Result<Self, String> {
        let name: Arc<str> = settings.name.as_str().into();
        let mut tasks = JoinSet::new();
        let mut start = |layer, nodes: &[config::Node]| -> Result<Option<Arc<Pool>>, String> {
            if nodes.is_empty() {
                return Ok(None);
            }
            let old = earlier.into_iter().flat_map(Self::pools).find(|pool| pool.layer == layer);
            let wait_limit = (nodes.len() > 1).then_some(FULL);
            let build = |node: &config::Node| {
                let connect = CONNECT.min(config.calls.attempt_timeout);
                let reach = Reach { connect, max_connections: max_connections(node, config, limits), wait_limit };
                if layer == Layer::Cl && reach.max_connections == 1 && old.is_none() {
                    let node = node.name.as_str();
                    warn!(
                        network = &*name,
                        node,
                        "max_connections is 1: a client's events take the only connection to the node, and requests wait for their end"
                    );
                }
                build_node(node, (&*name, layer), reach, old.map(|pool| &**pool), deps)
            };
            let nodes = nodes.iter().map(build).collect::<Result<Vec<_>, _>>()?;
            let (metrics, wall) = (deps.metrics.clone(), deps.world.wall.clone());
            let (pool, mut running) =
                Pool::start(&name, layer, nodes, &config.health, settings.chain_id, metrics, wall);
            if old.is_some() {
                pool.stand_by();
            }
            let ended = async move { running.broken().await };
            deps.supervise(&mut tasks, &name, "nodes are no longer watched", ended);
            Ok(Some(pool))
        };
        let metrics = deps.metrics;
        let calls = start(Layer::El, &settings.el)?.map(|pool| Arc::new(Calls::new(pool, &config.calls, metrics)));
        let beacon = start(Layer::Cl, &settings.cl)?
            .map(|pool| Arc::new(Requests::new(pool, &config.calls, config.beacon.publish_to, metrics)));
        let events = beacon.as_ref().map(|requests| EventsTask::start(requests.pool(), config, deps));
        let views = calls.as_ref().map(|calls| ViewsTask::start(calls.pool(), config, deps));
        Ok(Self { settings: settings.clone(), name, calls, beacon, events, views, _tasks: tasks })
    }

    pub(super) fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.calls.iter().map(|calls| calls.pool()).chain(self.beacon.iter().map(|requests| requests.pool()))
    }

    /// Waits until a node of each side may serve, but no longer than `time_limit`.
    pub(super) async fn settle(&self, time_limit: Duration) {
        let served = join_all(self.pools().map(|pool| async {
            let mut changes = pool.subscribe();
            while !pool.snapshot().serves() && changes.changed().await.is_ok() {}
        }));
        // A node that is down now may come up later, as at any start.
        let _ = timeout(time_limit, served).await;
    }

    /// Whether a call or request of an earlier configuration is still under way.
    pub(super) fn is_used(&self) -> bool {
        self.calls.as_ref().is_some_and(|calls| Arc::strong_count(calls) > 1)
            || self.beacon.as_ref().is_some_and(|beacon| Arc::strong_count(beacon) > 1)
    }
}

/// Builds a node. The node of the same name in the `old` pool hands over its connections if its
/// settings are unchanged.
fn build_node(
    settings: &config::Node,
    (network, layer): (&str, Layer),
    reach: Reach,
    old: Option<&Pool>,
    deps: &Deps<'_>,
) -> Result<Node, String> {
    let World { dial, wall, threads, .. } = deps.world;
    let same_name = |node: &&Node| *node.name == *settings.name.as_str();
    let old = old.and_then(|pool| pool.nodes.iter().find(same_name));
    let (of, metrics) = ((network, layer), deps.metrics);
    let account = &deps.accounts.of(settings, of, wall);
    if let Some(again) = old.and_then(|old| old.again(of, settings, reach, metrics, account)) {
        return Ok(again);
    }
    let built = Node::new(settings, of, dial, reach, threads.unwrap_or(0), metrics, account);
    built.map_err(|why| format!("network {network}, node {}: {why}", settings.name))
}

/// Connections to a node open at once, at most; 0: as many as the node takes.
pub(super) fn max_connections(node: &config::Node, config: &Config, limits: DescriptorLimits) -> usize {
    let wanted = node.max_connections.unwrap_or(config.calls.max_node_connections);
    let bounds = [Some(wanted).filter(|most| *most > 0), limits.per_node];
    bounds.into_iter().flatten().min().unwrap_or(0)
}

impl EventsTask {
    fn start(pool: &Arc<Pool>, config: &Config, deps: &Deps<'_>) -> Self {
        let seed = (deps.world.wall)();
        let settings = events::Settings { max_waiting: MAX_EVENTS, hold: config.calls.hold, seed };
        let (events, mut running) = Events::start(pool.clone(), &settings, deps.metrics.clone());
        let mut tasks = JoinSet::new();
        let ended = async move { running.broken().await };
        deps.supervise(&mut tasks, &pool.network, "event streams are no longer served", ended);
        Self { events, _tasks: tasks }
    }
}

impl ViewsTask {
    fn start(pool: &Arc<Pool>, config: &Config, deps: &Deps<'_>) -> Self {
        let settings = view::Settings {
            chain: config.chain.clone(),
            timeout: config.calls.timeout,
            filters: config.filters.clone(),
            memory: deps.memory.clone(),
            seed: (deps.world.wall)(),
            secret: deps.world.secret(),
        };
        let (views, mut running) =
            Views::start(pool.clone(), &settings, deps.worker_jobs.clone(), deps.metrics.clone());
        let mut tasks = JoinSet::new();
        let ended = async move { running.broken().await };
        deps.supervise(&mut tasks, &pool.network, "subscriptions are no longer served", ended);
        Self { views, _tasks: tasks }
    }
}
