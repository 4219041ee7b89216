//! The networks that run, and their replacement by those of other settings.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::error;

use super::{
    build::{Deps, NetworkRuntime, max_connections},
    descriptors::DescriptorLimits,
    outbox::SharedOutbox,
};
use crate::{
    config::{self, Config, Difference},
    door::{
        access_log::Access,
        site::{Served, Site},
    },
    metrics::NodeLabels,
    net::tls::Tls,
    pool::Pool,
    spans::{Sampler, Spans},
};

/// Longest that replaced nodes are kept for requests that began with them: an answer with a whole
/// state may take that long.
const LONGEST_RETIREMENT: Duration = Duration::from_secs(15 * 60);
/// How often replaced nodes are looked at for requests that are left.
const RETIREMENT_ROUND: Duration = Duration::from_secs(1);

/// The networks that run, and their settings.
pub(super) struct Runtime {
    config: Config,
    limits: DescriptorLimits,
    pub(super) networks: Vec<NetworkRuntime>,
    /// The outbox, if there is one, which reloads keep.
    pub(super) outbox: Option<SharedOutbox>,
    /// Replaced networks that may still have calls.
    retired: JoinSet<()>,
}

impl Runtime {
    /// Builds every network.
    pub(super) fn build(config: Config, outbox: Option<SharedOutbox>, deps: &Deps<'_>) -> Result<Self, String> {
        let limits = deps.descriptor_limits(&config, None);
        let networks = config.networks.iter();
        let networks = networks.map(|network| NetworkRuntime::build(network, &config, None, limits, deps));
        let networks: Vec<NetworkRuntime> = networks.collect::<Result<_, _>>()?;
        let runtime = Self { config, limits, networks, outbox, retired: JoinSet::new() };
        runtime.keep_filters();
        runtime.begin_counts(deps);
        Ok(runtime)
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Has the counters of every side at 0 where nothing was counted yet.
    fn begin_counts(&self, deps: &Deps<'_>) {
        let pools = self.networks.iter().flat_map(NetworkRuntime::pools);
        pools.for_each(|pool| deps.metrics.begin_side(&pool.network, pool.layer));
    }

    /// Has calls about filters answered by the views, which a reload keeps.
    fn keep_filters(&self) {
        for network in &self.networks {
            if let (Some(calls), Some(task)) = (&network.calls, &network.views) {
                task.views.filters().allow(&self.config.filters);
                calls.keep(task.views.filters().clone());
            }
        }
    }

    /// The networks and settings as the doors need them, with `spans` for those of requests.
    pub(super) fn site(&self, spans: Option<&Arc<Spans>>) -> Site {
        let served = |network: &NetworkRuntime| Served {
            name: network.name.clone(),
            is_default: network.settings.name.is_default(),
            calls: network.calls.clone(),
            beacon: network.beacon.clone(),
            events: network.events.as_ref().map(|task| task.events.clone()),
            views: network.views.as_ref().map(|task| task.views.clone()),
        };
        let config = &self.config;
        let sampler = spans.map(|spans| Sampler::new(spans.clone(), config.tracing.sample));
        Site {
            networks: self.networks.iter().map(served).collect(),
            hosts: config.hosts.for_clients(&config.listen),
            admin_hosts: config.admin.hosts.for_operator(config.admin.listen),
            outbox: self.outbox(),
            ready: config.health.ready,
            origins: config.cors.origins.clone(),
            rules: config.beacon.clone(),
            forward: config.calls.forward_headers.clone(),
            allow_picking: config.calls.allow_picking,
            tenant_header: config.outbox.as_ref().and_then(|outbox| outbox.tenant_header.clone()),
            max_body: config.calls.max_body,
            max_connections: self.limits.http,
            shared_addresses: config.shared_addresses.clone(),
            compression: config.compression.clone(),
            access: Arc::new(Access::new(&config.log, sampler)),
            ws: config::Ws {
                max_connections: NonZeroUsize::new(self.limits.ws).unwrap_or(NonZeroUsize::MIN),
                ..config.ws.clone()
            },
            shutdown_grace: config.shutdown_grace,
        }
    }

    /// Changes to `config`. A network with unchanged settings runs on; any other is built anew, and
    /// takes over when its nodes are known. Returns a summary of the changes.
    ///
    /// # Errors
    /// When a network cannot be built; nothing is changed then.
    pub(super) async fn replace(&mut self, config: Config, deps: &Deps<'_>) -> Result<String, String> {
        let limits = deps.descriptor_limits(&config, Some((&self.config, self.limits)));
        // Only building can fail, so building comes first.
        let fresh = self.build_changed(&config, limits, deps)?;
        let prepared = self.prepare_outbox(&config)?;
        let summary = self.summary(&config);
        for network in fresh.iter().flatten() {
            let earlier = named(&self.networks, network);
            for pool in network.pools() {
                if let Some(earlier) = same_side(earlier, pool) {
                    pool.inherit(earlier).await;
                }
            }
            if let Some(wishes) = deps.wishes {
                wishes.apply_to(network.pools()).await;
            }
            network.settle(config.health.timeout).await;
        }
        let mut networks = self.join(fresh, &config, limits)?;
        self.move_calls(&networks);
        self.retire_pools(&networks, deps);
        self.move_clients(&mut networks, &config);
        let names: Vec<&str> = networks.iter().map(|network| &*network.name).collect();
        deps.metrics.serve(&names);
        let (retired, outbox) = (std::mem::take(&mut self.retired), self.outbox.take());
        let replaced = std::mem::replace(self, Self { config, limits, networks, outbox, retired });
        self.keep_filters();
        if let Err(why) = self.keep_transactions() {
            error!(why, "transactions are refused");
        }
        self.apply_outbox(prepared).await;
        self.begin_counts(deps);
        self.retire(replaced.networks);
        Ok(summary)
    }

    /// Why a change to `config` would be refused though its values are right: TLS to a node cannot
    /// be set up.
    pub(super) fn fault_of(&self, config: &Config) -> Option<String> {
        let nodes = config.networks.iter().flat_map(|network| {
            let name = &network.name;
            network.el.iter().chain(&network.cl).map(move |node| (name, node))
        });
        let mut faults = nodes.filter_map(|(network, node)| {
            let extra = node.ca_file.as_ref().map_or(&[][..], |file| &file.certificates);
            let mut urls = node.http.iter().chain(&node.ws).filter(|url| url.scheme().is_tls());
            let why = urls.find_map(|url| Tls::new(url.host(), extra).err())?;
            Some(format!("network {network}, node {}: {why}", node.name))
        });
        faults.next()
    }

    /// Builds those networks of `config` anew that are not the same as before; `None` stands for a
    /// network that goes on.
    fn build_changed(
        &self,
        config: &Config,
        limits: DescriptorLimits,
        deps: &Deps<'_>,
    ) -> Result<Vec<Option<NetworkRuntime>>, String> {
        // The rule for `/ready` and the pause between lookups do not concern nodes.
        let config::Health { ready, dns_interval, .. } = config.health;
        let health = config::Health { ready, dns_interval, ..self.config.health.clone() };
        let same_rules = health == config.health
            && self.config.calls == config.calls
            && self.config.beacon.publish_to == config.beacon.publish_to;
        let build = |settings: &config::Network| {
            if same_rules && self.networks.iter().any(|network| network.settings == *settings) {
                return Ok(None);
            }
            let earlier = self.networks.iter().find(|earlier| earlier.settings.name == settings.name);
            NetworkRuntime::build(settings, config, earlier, limits, deps).map(Some)
        };
        config.networks.iter().map(build).collect()
    }

    /// A summary of the changes that `config` brings.
    fn summary(&self, config: &Config) -> String {
        let difference = Difference::between(&self.config, config);
        match () {
            () if !difference.is_empty() => difference.summary(),
            () if self.config == *config => "nothing had changed".to_owned(),
            () => "settings".to_owned(),
        }
    }

    /// The `fresh` networks and those that go on, which are taken out of the present ones, in the
    /// order of the configuration.
    fn join(
        &mut self,
        fresh: Vec<Option<NetworkRuntime>>,
        config: &Config,
        limits: DescriptorLimits,
    ) -> Result<Vec<NetworkRuntime>, String> {
        let mut networks = Vec::new();
        for (network, settings) in fresh.into_iter().zip(&config.networks) {
            let same = self.networks.iter().position(|network| network.settings == *settings);
            networks.push(match (network, same) {
                (Some(network), _) => network,
                (None, Some(place)) => {
                    let kept = self.networks.swap_remove(place);
                    for node in kept.pools().flat_map(|pool| pool.nodes.iter()) {
                        node.set_max_connections(max_connections(node.settings(), config, limits));
                    }
                    kept
                }
                (None, None) => return Err("a network was lost while reloading".to_owned()),
            });
        }
        Ok(networks)
    }

    /// Has calls that wait go on at the nodes that take over.
    fn move_calls(&self, networks: &[NetworkRuntime]) {
        for earlier in &self.networks {
            let Some(next) = named(networks, earlier) else { continue };
            if let (Some(calls), Some(next)) = (&earlier.calls, &next.calls) {
                next.inherit(calls);
                calls.move_to(next.clone());
            }
            if let (Some(requests), Some(next)) = (&earlier.beacon, &next.beacon) {
                next.inherit(requests);
                requests.move_to(next.clone());
            }
        }
    }

    /// Retires the replaced pools, and takes the nodes that are gone off the metrics.
    fn retire_pools(&self, networks: &[NetworkRuntime], deps: &Deps<'_>) {
        for pool in self.networks.iter().flat_map(NetworkRuntime::pools) {
            pool.retire();
            let next = networks.iter().find(|network| *network.name == *pool.network);
            same_side(next, pool).inspect(|next| next.takes_charge(pool, deps.metrics));
            let is_there = |node: &str| {
                let pools = networks.iter().flat_map(NetworkRuntime::pools);
                let mut same = pools.filter(|other| other.network == pool.network && other.layer == pool.layer);
                same.any(|other| other.nodes.iter().any(|other| *other.name == *node))
            };
            for node in pool.nodes.iter().filter(|node| !is_there(&node.name)) {
                let (network, layer) = (&*pool.network, pool.layer.as_str());
                deps.metrics.forget_node(NodeLabels { network, layer, node: &node.name });
            }
        }
    }

    /// Has streams and subscriptions of clients go on at the nodes that take over.
    fn move_clients(&mut self, networks: &mut [NetworkRuntime], config: &Config) {
        for earlier in &mut self.networks {
            let successor = networks.iter_mut().find(|network| network.settings.name == earlier.settings.name);
            let Some(next) = successor else { continue };
            if let Some(requests) = &next.beacon
                && let Some(task) = earlier.events.take()
            {
                task.events.move_to(requests.pool().clone(), config.calls.hold);
                next.events = Some(task);
            }
            if let Some(calls) = &next.calls
                && let Some(task) = earlier.views.take()
            {
                task.views.move_to(calls.pool().clone(), config.calls.timeout);
                next.views = Some(task);
            }
        }
    }

    /// Keeps replaced networks until their calls have ended: a call under way ends by the rules of
    /// its beginning, and its nodes are watched until then.
    fn retire(&mut self, networks: Vec<NetworkRuntime>) {
        while self.retired.try_join_next().is_some() {}
        self.retired.spawn(async move {
            let until = Instant::now() + LONGEST_RETIREMENT;
            while Instant::now() < until && networks.iter().any(NetworkRuntime::is_used) {
                sleep(RETIREMENT_ROUND).await;
            }
            drop(networks);
        });
    }
}

/// The pool of `network` that has the side of `pool`.
fn same_side<'a>(network: Option<&'a NetworkRuntime>, pool: &Pool) -> Option<&'a Arc<Pool>> {
    network.into_iter().flat_map(NetworkRuntime::pools).find(|other| other.layer == pool.layer)
}

/// The one of `networks` that has the name of `network`.
fn named<'a>(networks: &'a [NetworkRuntime], network: &NetworkRuntime) -> Option<&'a NetworkRuntime> {
    networks.iter().find(|other| other.settings.name == network.settings.name)
}
