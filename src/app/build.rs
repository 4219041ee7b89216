//! From settings to what serves them.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{error, warn};

use super::{World, descriptors::Share};
use crate::{
    call::{Calls, rest::Rest},
    config::{self, Config},
    domain::verdict::Layer,
    door::site::{Served, Site},
    events::{self, Events},
    memory::Budget,
    metrics::{Metrics, NodeLabels},
    pool::{
        Pool,
        node::{Node, Reach},
    },
    view::{self, Couriers, Views},
};

/// How long a connection to a node may take to come about. A node that is there answers at once; one that is not is known by its
/// silence.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a call waits for a connection to a node that takes no more, where there are others.
const FULL: Duration = Duration::from_secs(1);
/// Bytes of events that may wait for one client: some seconds of every attestation there is.
const MAX_EVENTS: usize = 4 << 20;

/// How long replaced nodes are watched at most, for requests that began with them: states may take that long.
const LONGEST_RETIREMENT: Duration = Duration::from_secs(15 * 60);
/// How often it is looked whether any is left.
const RETIREMENT_ROUND: Duration = Duration::from_secs(1);

/// The networks that run, and the settings that they run by.
pub(super) struct Parts {
    config: Config,
    share: Share,
    networks: Vec<Part>,
    /// What was replaced and may still have calls.
    retired: JoinSet<()>,
}

struct Part {
    settings: config::Network,
    served: Arc<str>,
    calls: Option<Arc<Calls>>,
    beacon: Option<Arc<Rest>>,
    events: Option<Told>,
    views: Option<Viewed>,
    /// Watches over the pools' tasks, and ends them with itself.
    _watch: JoinSet<()>,
}

/// A network's events, which outlive what a reload replaces.
struct Told {
    events: Arc<Events>,
    _watch: JoinSet<()>,
}

/// A network's subscriptions, likewise.
struct Viewed {
    views: Arc<Views>,
    _watch: JoinSet<()>,
}

/// What networks are built with.
pub(super) struct Tools<'a> {
    pub(super) world: &'a World,
    pub(super) metrics: &'a Arc<Metrics>,
    /// What clients make the proxy hold.
    pub(super) memory: &'a Arc<Budget>,
    /// The ways to the workers.
    pub(super) couriers: &'a Couriers,
    /// Told when something has ended that should not.
    pub(super) broken: &'a Arc<watch::Sender<bool>>,
}

impl Tools<'_> {
    /// Shares out the descriptors, and says where that is less than `config` would have.
    fn share(&self, config: &Config) -> Share {
        let share = Share::of(self.world.descriptors, self.world.threads.unwrap_or(1), config);
        let wanted = (config.max_connections.get(), config.ws.max_connections.get());
        if (share.http, share.ws) != wanted {
            warn!(
                limit = self.world.descriptors,
                "the limit on open files is too low: max_connections is {} instead of {}, ws.max_connections is {} instead of {}, \
                 and the rest is for nodes and the admin side",
                share.http,
                wanted.0,
                share.ws,
                wanted.1,
            );
        }
        share
    }
}

/// Builds everything anew.
pub(super) fn build(config: Config, tools: &Tools<'_>) -> Result<(Site, Parts), String> {
    let share = tools.share(&config);
    let networks = config.networks.iter().map(|network| Part::build(network, &config, None, share, tools));
    let networks: Vec<Part> = networks.collect::<Result<_, _>>()?;
    let parts = Parts { config, share, networks, retired: JoinSet::new() };
    parts.keep_filters();
    Ok((parts.site(), parts))
}

impl Parts {
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Has calls about filters answered by the views, which outlive what a reload replaces.
    fn keep_filters(&self) {
        for part in &self.networks {
            if let (Some(calls), Some(viewed)) = (&part.calls, &part.views) {
                viewed.views.filters().allow(&self.config.filters);
                calls.keep(viewed.views.filters().clone());
            }
        }
    }

    pub(super) fn site(&self) -> Site {
        let served = |part: &Part| Served {
            name: part.served.clone(),
            is_default: part.settings.name.is_default(),
            calls: part.calls.clone(),
            beacon: part.beacon.clone(),
            events: part.events.as_ref().map(|told| told.events.clone()),
            views: part.views.as_ref().map(|viewed| viewed.views.clone()),
        };
        Site {
            networks: self.networks.iter().map(served).collect(),
            hosts: self.config.hosts.for_clients(self.config.listen),
            admin_hosts: self.config.admin.hosts.for_operator(self.config.admin.listen),
            ready: self.config.health.ready,
            origins: self.config.cors.origins.clone(),
            rules: self.config.beacon.clone(),
            forward: self.config.calls.forward_headers.clone(),
            max_body: self.config.calls.max_body,
            max_connections: self.share.http,
            shared_addresses: self.config.shared_addresses.clone(),
            ws: config::Ws {
                max_connections: NonZeroUsize::new(self.share.ws).unwrap_or(NonZeroUsize::MIN),
                ..self.config.ws.clone()
            },
            shutdown_grace: self.config.shutdown_grace,
        }
    }

    /// Changes to `config`: networks that are the same go on as they are, others are built anew and take over when their nodes are
    /// known. Tells what changed.
    pub(super) async fn replace(&mut self, config: Config, tools: &Tools<'_>) -> Result<String, String> {
        // What is said to load balancers is nothing to the nodes.
        let health = config::Health { ready: config.health.ready, ..self.config.health.clone() };
        let same_rules = health == config.health
            && self.config.calls == config.calls
            && self.config.beacon.publish_to == config.beacon.publish_to;
        let kept =
            |network: &config::Network| self.networks.iter().position(|part| same_rules && part.settings == *network);
        let share = tools.share(&config);
        // Everything that can fail comes first.
        let mut fresh = Vec::new();
        for network in &config.networks {
            fresh.push(match kept(network) {
                Some(_) => None,
                None => {
                    let earlier = self.networks.iter().find(|earlier| earlier.settings.name == network.name);
                    Some(Part::build(network, &config, earlier, share, tools)?)
                }
            });
        }
        let changed: Vec<String> = fresh.iter().flatten().map(|part| format!("network {}", part.served)).collect();
        let gone = self.networks.iter().filter(|part| !config.networks.iter().any(|n| n.name == part.settings.name));
        let gone: Vec<String> = gone.map(|part| format!("network {} removed", part.served)).collect();
        let others = self.config != config;
        for part in fresh.iter().flatten() {
            let earlier = self.networks.iter().find(|earlier| earlier.settings.name == part.settings.name);
            for pool in part.pools() {
                let of_the_same_side = |earlier: &&Arc<Pool>| earlier.layer == pool.layer;
                if let Some(earlier) = earlier.into_iter().flat_map(Part::pools).find(of_the_same_side) {
                    pool.inherit(earlier).await;
                }
            }
            part.settle(config.health.timeout).await;
        }
        let mut networks = Vec::new();
        for (part, network) in fresh.into_iter().zip(&config.networks) {
            networks.push(match (part, self.networks.iter().position(|part| part.settings == *network)) {
                (Some(part), _) => part,
                (None, Some(place)) => {
                    let kept = self.networks.swap_remove(place);
                    for node in kept.pools().flat_map(|pool| pool.nodes.iter()) {
                        node.set_max_connections(max_connections(node.settings(), &config, share));
                    }
                    kept
                }
                (None, None) => return Err("a network was lost while reloading".to_owned()),
            });
        }
        for earlier in &self.networks {
            let successor = networks.iter().find(|part: &&Part| part.settings.name == earlier.settings.name);
            if let (Some(calls), Some(next)) = (&earlier.calls, successor.and_then(|part| part.calls.clone())) {
                calls.move_to(next);
            }
            if let (Some(rest), Some(next)) = (&earlier.beacon, successor.and_then(|part| part.beacon.clone())) {
                next.inherit(rest);
                rest.move_to(next);
            }
        }
        for pool in self.networks.iter().flat_map(Part::pools) {
            pool.retire();
            let is_there = |node: &str| {
                let pools = networks.iter().flat_map(Part::pools);
                let mut same = pools.filter(|other| other.network == pool.network && other.layer == pool.layer);
                same.any(|other| other.nodes.iter().any(|other| *other.name == *node))
            };
            for node in pool.nodes.iter().filter(|node| !is_there(&node.name)) {
                let (network, layer) = (&*pool.network, pool.layer.as_str());
                tools.metrics.forget_node(NodeLabels { network, layer, node: &node.name });
            }
        }
        for earlier in &mut self.networks {
            let successor = networks.iter_mut().find(|part| part.settings.name == earlier.settings.name);
            let Some(next) = successor else { continue };
            if let Some(rest) = &next.beacon
                && let Some(told) = earlier.events.take()
            {
                told.events.move_to(rest.pool().clone(), config.calls.hold);
                next.events = Some(told);
            }
            if let Some(calls) = &next.calls
                && let Some(viewed) = earlier.views.take()
            {
                viewed.views.move_to(calls.pool().clone(), config.calls.timeout);
                next.views = Some(viewed);
            }
        }
        let names: Vec<&str> = networks.iter().map(|part: &Part| &*part.served).collect();
        tools.metrics.serve(&names);
        // Calls that are under way end by the rules they began with, and their nodes are watched until they have.
        let replaced = std::mem::replace(self, Self { config, share, networks, retired: JoinSet::new() });
        self.retired = replaced.retired;
        self.keep_filters();
        while self.retired.try_join_next().is_some() {}
        self.retired.spawn(async move {
            let until = Instant::now() + LONGEST_RETIREMENT;
            while Instant::now() < until && replaced.networks.iter().any(Part::is_used) {
                sleep(RETIREMENT_ROUND).await;
            }
            drop(replaced.networks);
        });
        Ok(match (changed.is_empty() && gone.is_empty(), others) {
            (true, false) => "nothing had changed".to_owned(),
            (true, true) => "settings".to_owned(),
            (false, _) => [changed, gone].concat().join(", "),
        })
    }
}

/// How many connections to a node there may be; 0: as many as it takes.
fn max_connections(node: &config::Node, config: &Config, share: Share) -> usize {
    let wanted = node.max_connections.unwrap_or(config.calls.max_node_connections);
    let bounds = [Some(wanted).filter(|most| *most > 0), share.per_node];
    bounds.into_iter().flatten().min().unwrap_or(0)
}

impl Part {
    /// Whether a call or request of an earlier configuration is still under way.
    fn is_used(&self) -> bool {
        self.calls.as_ref().is_some_and(|calls| Arc::strong_count(calls) > 1)
            || self.beacon.as_ref().is_some_and(|beacon| Arc::strong_count(beacon) > 1)
    }

    /// `earlier` is the network of this name that runs, if any: its nodes that stay as they are keep their connections.
    fn build(
        settings: &config::Network,
        config: &Config,
        earlier: Option<&Self>,
        share: Share,
        tools: &Tools<'_>,
    ) -> Result<Self, String> {
        let Tools { world, metrics, broken, .. } = *tools;
        let name: Arc<str> = settings.name.as_str().into();
        let mut watch = JoinSet::new();
        let mut start = |layer, nodes: &[config::Node]| -> Result<Option<Arc<Pool>>, String> {
            if nodes.is_empty() {
                return Ok(None);
            }
            let build = |node: &config::Node| {
                let connect = CONNECT.min(config.calls.attempt_timeout);
                let patience = (nodes.len() > 1).then_some(FULL);
                let reach = Reach { connect, max_connections: max_connections(node, config, share), patience };
                let pools = earlier.into_iter().flat_map(Self::pools).filter(|pool| pool.layer == layer);
                let same_name = |old: &&Node| *old.name == *node.name.as_str();
                let old = pools.flat_map(|pool| pool.nodes.iter()).find(same_name);
                if let Some(again) = old.and_then(|old| old.again(node, reach)) {
                    return Ok(again);
                }
                let (of, seed) = ((&*name, layer), (world.wall)());
                let built = Node::new(node, of, &world.dial, reach, world.threads.unwrap_or(0), metrics, seed);
                built.map_err(|why| format!("network {name}, node {}: {why}", node.name))
            };
            let nodes = nodes.iter().map(build).collect::<Result<Vec<_>, _>>()?;
            let wall = world.wall.clone();
            let (pool, mut running) =
                Pool::start(&name, layer, nodes, &config.health, settings.chain_id, metrics.clone(), wall);
            let how = async move { running.broken().await };
            watch.spawn(mourn(name.clone(), "nodes are no longer watched", how, broken.clone()));
            Ok(Some(pool))
        };
        let calls = start(Layer::El, &settings.el)?.map(|pool| Arc::new(Calls::new(pool, &config.calls, metrics)));
        let beacon = start(Layer::Cl, &settings.cl)?
            .map(|pool| Arc::new(Rest::new(pool, &config.calls, config.beacon.publish_to, metrics)));
        let events = beacon.as_ref().map(|rest| Told::start(rest.pool(), config, tools));
        let views = calls.as_ref().map(|calls| Viewed::start(calls.pool(), config, tools));
        Ok(Self { settings: settings.clone(), served: name, calls, beacon, events, views, _watch: watch })
    }

    fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.calls.iter().map(|calls| calls.pool()).chain(self.beacon.iter().map(|rest| rest.pool()))
    }

    /// Waits until a node of each side may serve, but no longer than `patience`.
    async fn settle(&self, patience: Duration) {
        let served = join_all(self.pools().map(|pool| async {
            let mut changes = pool.subscribe();
            while !pool.snapshot().serves() && changes.changed().await.is_ok() {}
        }));
        // Nodes that are down now may come later, like at any start.
        let _ = timeout(patience, served).await;
    }
}

impl Told {
    fn start(pool: &Arc<Pool>, config: &Config, tools: &Tools<'_>) -> Self {
        let seed = (tools.world.wall)();
        let settings = events::Settings { max_waiting: MAX_EVENTS, hold: config.calls.hold, seed };
        let (events, mut running) = Events::start(pool.clone(), &settings, tools.metrics.clone());
        let mut watch = JoinSet::new();
        let how = async move { running.broken().await };
        watch.spawn(mourn(pool.network.clone(), "events are no longer told", how, tools.broken.clone()));
        Self { events, _watch: watch }
    }
}

impl Viewed {
    fn start(pool: &Arc<Pool>, config: &Config, tools: &Tools<'_>) -> Self {
        let seed = (tools.world.wall)();
        let settings = view::Settings {
            chain: config.chain.clone(),
            timeout: config.calls.timeout,
            filters: config.filters.clone(),
            memory: tools.memory.clone(),
            seed,
            secret: tools.world.secret(),
        };
        let (views, mut running) = Views::start(pool.clone(), &settings, tools.couriers.clone(), tools.metrics.clone());
        let mut watch = JoinSet::new();
        let how = async move { running.broken().await };
        watch.spawn(mourn(pool.network.clone(), "subscriptions are no longer served", how, tools.broken.clone()));
        Self { views, _watch: watch }
    }
}

/// Waits for what should not end, and says so: `how` tells how it came about, once it has, and `what` follows from it.
async fn mourn(
    network: Arc<str>,
    what: &'static str,
    how: impl Future<Output = String>,
    broken: Arc<watch::Sender<bool>>,
) {
    let how = how.await;
    error!(network = &*network, how, "{what}");
    broken.send_replace(true);
}
