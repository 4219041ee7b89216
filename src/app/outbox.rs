//! The outbox in its place: opened at the start, fed with the networks, drained at the end.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::{error, info};

use super::{World, build::Deps, networks::Runtime};
use crate::{
    cluster::{Cluster, Running},
    config::{self, Config},
    outbox::{
        self,
        store::{OpenError, Store},
        webhook::Prepared,
    },
};

/// The shortest and the longest time that the outbox has for its end.
const LAST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// The longest time that the end of the proxy waits for other replicas to take the outbox over.
const HAND_OVER: Duration = Duration::from_secs(10);

/// The outbox's tasks, for the networks while they run, and for the end of the proxy.
pub(super) type SharedOutbox = Arc<Mutex<Option<outbox::Running>>>;

/// Opens the store of an outbox.
pub type OpenStore = Arc<dyn Fn(&config::Outbox) -> Result<Store, OpenError> + Send + Sync>;

/// Starts the outbox that the settings ask for.
///
/// # Errors
/// When the store cannot be opened, or an endpoint's settings cannot be used; names the key.
pub(super) fn start(config: &Config, deps: &Deps<'_>) -> Result<Option<SharedOutbox>, String> {
    let Some(settings) = &config.outbox else { return Ok(None) };
    let World { open_store, connect, .. } = deps.world;
    let store = open_store(settings).map_err(|why| format!("outbox.dir: {why}"))?;
    let broken = deps.broken.clone();
    let tools = outbox::Tools {
        store,
        connect: connect.clone(),
        clock: deps.world.millis(),
        seed: (deps.world.wall)(),
        memory: deps.memory.clone(),
        networks: config.networks.iter().filter(|network| !network.el.is_empty()).count(),
        is_replica: config.cluster.is_some(),
        metrics: deps.metrics.clone(),
        broken: Arc::new(move |consequence| {
            error!("{consequence}");
            broken.send_replace(true);
        }),
    };
    let (_, running) = outbox::Outbox::start(settings, tools)?;
    info!(dir = %settings.dir.display(), "the outbox is open");
    Ok(Some(Arc::new(Mutex::new(Some(running)))))
}

/// Has the outbox take part among the replicas of a cluster.
pub(super) fn join(outbox: Option<&SharedOutbox>, cluster: &Cluster, settings: &config::Cluster, world: &World) {
    let Some(outbox) = outbox else { return };
    if let Some(running) = &mut *lock(outbox) {
        let (open, settings, failover) =
            (world.open_outbox_bucket.clone(), settings.clone(), settings.failover_timeout);
        running.join(cluster, failover, Arc::new(move || open(&settings)), (world.wall)());
    }
}

/// Gives the shards of the outbox to other replicas, before this one leaves the cluster.
pub(super) async fn hand_over(outbox: Option<&SharedOutbox>, replica: Option<&Running>) {
    let outbox = outbox.and_then(|outbox| lock(outbox).as_ref().map(|running| running.outbox().clone()));
    if let (Some(outbox), Some(replica)) = (outbox, replica) {
        // The news that this replica takes part no more goes out at once.
        let handing = outbox.hand_over(HAND_OVER);
        let told = async {
            tokio::task::yield_now().await;
            replica.beat();
        };
        tokio::join!(handing, told);
    }
}

/// Has the outbox begin nothing any more, and answer clients that wait for a node.
pub(super) async fn drain(outbox: Option<&SharedOutbox>) {
    let outbox = outbox.and_then(|outbox| lock(outbox).as_ref().map(|running| running.outbox().clone()));
    if let Some(outbox) = outbox {
        outbox.drain();
    }
}

/// Ends the outbox, if there is one, and logs how much stays on the disk.
pub(super) async fn shut(outbox: Option<SharedOutbox>, within: Duration) {
    let running = outbox.and_then(|outbox| lock(&outbox).take());
    let Some(running) = running else { return };
    let (least, most) = LAST;
    let (transactions, deliveries) = running.shutdown(within.clamp(least, most)).await;
    info!(transactions, deliveries, "the outbox is closed, and the rest is on the disk");
}

/// Each change is whole, so a panic elsewhere cannot have spoilt the tasks.
fn lock(outbox: &SharedOutbox) -> MutexGuard<'_, Option<outbox::Running>> {
    outbox.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runtime {
    /// Has the outbox keep the transactions of all networks with execution nodes, and report their
    /// nodes.
    ///
    /// # Errors
    /// When the store cannot be read for a network. The network's transactions are refused then.
    pub(super) fn keep_transactions(&mut self) -> Result<(), String> {
        let Some(outbox) = &self.outbox else { return Ok(()) };
        let mut outbox = lock(outbox);
        let Some(outbox) = &mut *outbox else { return Ok(()) };
        let mut outcome = Ok(());
        let mut names = Vec::new();
        for network in &self.networks {
            let (Some(calls), Some(task)) = (&network.calls, &network.views) else { continue };
            let (keeper, kept) = outbox.serve(&network.name, calls, task.views.interest());
            calls.keep_transactions(keeper.clone());
            task.views.keep_transactions(keeper);
            if let Err(why) = kept {
                outcome = Err(format!("network {}: its transactions cannot be read: {why}", network.name));
            }
            names.push(&*network.name);
        }
        if let Err(why) = outbox.retain(&names) {
            outcome = Err(format!("transactions of networks that are not in the settings cannot be read: {why}"));
        }
        outbox.watch_pools(self.networks.iter().flat_map(super::build::NetworkRuntime::pools));
        outcome
    }

    /// Prepares the endpoints that `config` asks for.
    ///
    /// # Errors
    /// When an endpoint's settings cannot be used: names the endpoint.
    pub(super) fn prepare_outbox(&self, config: &Config) -> Result<Option<Prepared>, String> {
        let (Some(outbox), Some(settings)) = (self.outbox(), &config.outbox) else { return Ok(None) };
        outbox.prepare(settings).map(Some)
    }

    /// Takes up the outbox's settings, with the endpoints that were prepared for them.
    pub(super) async fn apply_outbox(&self, prepared: Option<Prepared>) {
        if let (Some(outbox), Some(settings), Some(prepared)) = (self.outbox(), &self.config().outbox, prepared) {
            outbox.apply(settings, prepared).await;
        }
    }

    /// The outbox, if there is one.
    pub(super) fn outbox(&self) -> Option<outbox::Outbox> {
        lock(self.outbox.as_ref()?).as_ref().map(|running| running.outbox().clone())
    }
}
