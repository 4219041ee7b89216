//! The start and the end of the outbox, and the tasks between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::{
    sync::{mpsc::error::TrySendError, oneshot},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::warn;

use super::{
    alone,
    calls::Keeper,
    clock,
    desk::ENTRY_BYTES,
    handle::{DELIVERY_BYTES, Outbox, Shared},
    measured,
    operator::MOST_TENANTS,
    ownership::Ownership,
    record::{Network, TxId},
    relay::{Nodes, Order, Relay, RelayHandle},
    replicas::{MAX_ROWS, OpenBucket, Replicas, Task},
    send_room::SendRoom,
    step::Step,
    store::{Health, Reader, Store, StoreError},
    told::Hub,
    webhook::{
        self, Clock, Connect, Duty, Prepared, Webhooks,
        nodes::{self, PoolMemory},
    },
};
use crate::{
    call::{Calls, outbox_calls::TransactionKeeper},
    chain::Interest,
    cluster::Cluster,
    config,
    domain::duration::millis,
    memory::Budget,
    metrics::Metrics,
    pool::Pool,
};

/// From one look for records that were kept long enough to the next.
const SWEEP: Duration = Duration::from_secs(60);
/// The pause before the next look where more is left.
const SWEEP_AGAIN: Duration = Duration::from_millis(200);
/// Records that go with one look.
const SWEPT: usize = 500;
/// Pending transactions may take this part of the clients' memory.
const PENDING_DIVISOR: usize = 4;
/// So many may be pending however little memory there is.
const LEAST_PENDING: usize = 64;
/// From one question whether the disk takes writes again to the next.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// A write that is under way for so many of these pauses makes the disk count as one that hangs.
const HUNG_PAUSES: u32 = 5;

/// What the outbox needs of the world.
pub struct Tools {
    /// The store.
    pub store: Store,
    /// Requests to endpoints.
    pub connect: Connect,
    /// The wall clock.
    pub clock: Clock,
    /// Decides the lengths of pauses.
    pub seed: u64,
    /// The memory that clients may make the proxy hold: sends count there.
    pub memory: Arc<Budget>,
    /// Networks that share the memory for pending transactions.
    pub networks: usize,
    /// Whether the proxy is one of several replicas. No transaction is taken then before
    /// [`Running::join`].
    pub is_replica: bool,
    /// Counts transitions and deliveries.
    pub metrics: Arc<Metrics>,
    /// Hears of a task that broke off, which is a bug, by its work.
    pub broken: Broken,
}

/// Hears of a task that broke off.
pub type Broken = Arc<dyn Fn(&'static str) + Send + Sync>;

/// Reports that its task broke off.
struct Guard(Broken, &'static str);

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            (self.0)(self.1);
        }
    }
}

/// A task whose breaking off is reported.
async fn guarded(broken: Broken, work: &'static str, task: impl Future<Output = ()>) {
    let _guard = Guard(broken, work);
    task.await;
}

/// The tasks of the outbox. They end with it.
pub struct Running {
    outbox: Outbox,
    broken: Broken,
    /// The relays, by network.
    relays: BTreeMap<Network, JoinSet<()>>,
    /// The pools in charge. Each has its changes told until its place here is given up.
    pools: Vec<(Arc<Pool>, oneshot::Sender<()>)>,
    /// Tell endpoints of the changes of pools.
    watching: JoinSet<()>,
    memory: PoolMemory,
    background: JoinSet<()>,
}

/// The most pending transactions of each of so many networks for which there is memory.
fn most_pending(limit: usize, networks: usize) -> usize {
    (limit / PENDING_DIVISOR / ENTRY_BYTES / networks.max(1)).max(LEAST_PENDING)
}

impl Outbox {
    /// Starts the outbox, without networks yet.
    ///
    /// # Errors
    /// When the settings of an endpoint cannot be used: names the endpoint.
    pub fn start(settings: &config::Outbox, tools: Tools) -> Result<(Self, Running), String> {
        let Tools { store, connect, clock: wall, seed, memory, networks, is_replica, metrics, broken } = tools;
        let ownership = if is_replica { Ownership::of_replica() } else { Ownership::alone() };
        let replicas = is_replica.then(|| Arc::new(Replicas::new(ownership.clone(), metrics.clone())));
        let clock = clock::steady(wall.clone());
        let prepared = Webhooks::prepare(&connect, &settings.webhooks)?;
        let tools = webhook::Tools {
            deliveries: Arc::new(store.clone()),
            connect: connect.clone(),
            clock: clock.clone(),
            wall,
            seed,
            metrics: metrics.clone(),
            duty: duty(ownership.clone(), replicas.clone(), store.clone()),
        };
        let (webhooks, supervisor) = Webhooks::new(tools, prepared);
        let most_pending = most_pending(memory.limit(), networks);
        if settings.max_pending.get() > most_pending {
            warn!(
                memory = memory.limit(),
                "memory is too little: outbox.max_pending is {most_pending} instead of {}; a quarter of \
                 max_client_memory holds no more for each network",
                settings.max_pending
            );
        }
        let shared = Arc::new(Shared {
            store,
            webhooks,
            clock,
            connect,
            settings: ArcSwap::from_pointee(settings.clone()),
            relays: Mutex::default(),
            // Each pending transaction of replicas has a row.
            most_pending: if is_replica { most_pending.min(MAX_ROWS) } else { most_pending },
            hub: Hub::new(),
            ownership,
            replicas,
            send_room: SendRoom::new(memory),
            is_closing: AtomicBool::new(false),
        });
        let outbox = Self { shared: shared.clone() };
        let mut background = JoinSet::new();
        background.spawn(guarded(broken.clone(), "webhooks are no longer delivered", supervisor.run()));
        background.spawn(guarded(broken.clone(), "old records are no longer dropped", sweep(shared.clone())));
        if !is_replica {
            let work = "events of other replicas' transactions are not delivered";
            background.spawn(guarded(broken.clone(), work, alone::tell_untold(shared.clone())));
        }
        background.spawn(guarded(broken.clone(), "the disk is no longer watched", watch_disk(shared.clone())));
        background.spawn(guarded(broken.clone(), "the disk is no longer watched", watch_writes(shared)));
        let counting = measured::measure(outbox.transitions(), metrics);
        background.spawn(guarded(broken.clone(), "transitions of the outbox are no longer counted", counting));
        Ok((
            outbox.clone(),
            Running {
                outbox,
                broken,
                relays: BTreeMap::new(),
                pools: Vec::new(),
                watching: JoinSet::new(),
                memory: PoolMemory::default(),
                background,
            },
        ))
    }
}

/// The part of this replica in the deliveries.
fn duty(ownership: Ownership, replicas: Option<Arc<Replicas>>, store: Store) -> Duty {
    let Some(replicas) = replicas else { return Duty::alone() };
    let (leader, rows) = (replicas.clone(), replicas.clone());
    // Of a record that was dropped there is nothing to be shared.
    let is_dropped =
        move |id: &TxId| store.read().and_then(|reader| reader.record(id)).is_ok_and(|found| found.is_none());
    Duty {
        ownership,
        done: Arc::new(move |id| replicas.publish([id])),
        is_shared: Arc::new(move |id| rows.is_shared(&id) || is_dropped(&id)),
        tells_of_nodes: Arc::new(move || leader.leads()),
    }
}

impl Outbox {
    /// Prepares the endpoints of new settings.
    ///
    /// # Errors
    /// When an endpoint's settings cannot be used: names the endpoint.
    pub fn prepare(&self, settings: &config::Outbox) -> Result<Prepared, String> {
        Webhooks::prepare(&self.shared.connect, &settings.webhooks)
    }

    /// Takes up new settings: webhooks and bounds.
    pub async fn apply(&self, settings: &config::Outbox, prepared: Prepared) {
        let shared = &self.shared;
        shared.settings.store(Arc::new(settings.clone()));
        shared.webhooks.apply(prepared).await;
        let relays: Vec<_> = shared.relays().values().cloned().collect();
        relays.into_iter().for_each(|relay| hand_in(relay, Order::Reload));
    }
}

impl Outbox {
    /// Takes nothing new, and has nothing begin any more. Each client that waits for a node gets
    /// its hash.
    pub fn drain(&self) {
        self.shared.is_closing.store(true, SeqCst);
        let relays: Vec<_> = self.shared.relays().values().cloned().collect();
        // The end is not waited for here.
        relays.into_iter().for_each(|relay| hand_in(relay, Order::Drain(oneshot::channel().0)));
    }
}

/// Hands an order in, at once or when there is room: a relay whose disk hangs takes none. A relay
/// that has ended needs none.
fn hand_in(relay: Arc<RelayHandle>, order: Order) {
    if let Err(TrySendError::Full(order)) = relay.orders.try_send(order) {
        tokio::spawn(async move { _ = relay.orders.send(order).await });
    }
}

impl Running {
    /// The outbox.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Takes part among the replicas of `cluster`, by the bucket that `open` opens. `failover` is
    /// how long a replica is silent before others take over.
    pub fn join(&mut self, cluster: &Cluster, failover: Duration, open: OpenBucket, seed: u64) {
        let shared = &self.outbox.shared;
        let Some(replicas) = shared.replicas.clone() else { return };
        let task = Task::new(shared.clone(), replicas, cluster.clone(), millis(failover), open);
        let work = "the outbox takes no more part among the replicas";
        self.background.spawn(guarded(self.broken.clone(), work, task.run(seed)));
    }

    /// Keeps the transactions of a network whose calls go by `calls` from now on. Tells who answers
    /// calls about transactions there, and whether the network's rows could be read; without them
    /// each transaction is refused.
    pub fn serve(
        &mut self,
        network: &str,
        calls: &Arc<Calls>,
        interest: &Arc<Interest>,
    ) -> (Arc<dyn TransactionKeeper>, Result<(), StoreError>) {
        let network = Network::from(network);
        let shared = &self.outbox.shared;
        let nodes = Nodes { calls: calls.clone(), interest: interest.clone() };
        let known = shared.relays().get(&network).cloned();
        let outcome = match known {
            Some(relay) => {
                if !relay.calls().is_some_and(|known| Arc::ptr_eq(&known, calls)) {
                    relay.nodes.send_replace(Some(nodes));
                }
                Ok(())
            }
            None => self.begin(&network, Some(nodes)),
        };
        (Arc::new(Keeper::new(self.outbox.clone(), network)), outcome)
    }

    /// Reports the changes of these pools to endpoints. These pools are in charge from now on. Of
    /// others, what was seen by now is told to the end.
    pub fn watch_pools<'p>(&mut self, pools: impl Iterator<Item = &'p Arc<Pool>>) {
        while self.watching.try_join_next().is_some() {}
        let mut before = std::mem::take(&mut self.pools);
        for pool in pools {
            if let Some(at) = before.iter().position(|(known, _)| Arc::ptr_eq(known, pool)) {
                self.pools.push(before.swap_remove(at));
                continue;
            }
            let (in_charge, end) = oneshot::channel();
            let (memory, webhooks) = (self.memory.clone(), self.outbox.webhooks().clone());
            let watching = nodes::watch(pool.clone(), memory, webhooks, end);
            self.watching.spawn(guarded(self.broken.clone(), "webhooks no longer hear of changes of nodes", watching));
            self.pools.push((pool.clone(), in_charge));
        }
    }

    /// Begins the relay of a network.
    fn begin(&mut self, network: &Network, nodes: Option<Nodes>) -> Result<(), StoreError> {
        let shared = &self.outbox.shared;
        let (handle, relay) = Relay::new(shared, network, nodes)?;
        shared.relays().insert(network.clone(), handle);
        if let Some(replicas) = &shared.replicas {
            replicas.list_anew();
        }
        let mut task = JoinSet::new();
        let work = "the transactions of a network are no longer sent";
        task.spawn(guarded(self.broken.clone(), work, relay.run()));
        self.relays.insert(network.clone(), task);
        Ok(())
    }

    /// Has only these networks be served. The relay of another network that has records goes on
    /// without nodes: nothing is sent, and operators, deadlines and the end of records go on.
    ///
    /// # Errors
    /// When the store cannot be read for a network without nodes.
    pub fn retain(&mut self, networks: &[&str]) -> Result<(), StoreError> {
        let shared = self.outbox.shared.clone();
        let others: Vec<_> = shared.relays().iter().map(|(name, relay)| (name.clone(), relay.clone())).collect();
        for (name, relay) in others.into_iter().filter(|(name, _)| !networks.contains(&name.as_str())) {
            let [live, _, over, _] = relay.totals.read();
            if live + over == 0 {
                shared.relays().remove(&name);
                self.relays.remove(&name);
            } else if relay.calls().is_some() {
                relay.nodes.send_replace(None);
            }
        }
        for name in shared.store.read()?.networks(MOST_TENANTS)? {
            if !shared.relays().contains_key(&name) {
                self.begin(&name, None)?;
            }
        }
        Ok(())
    }

    /// Takes nothing new, waits for what was begun, and closes the store. Tells how many
    /// transactions and how many deliveries are left on the disk.
    pub async fn shutdown(mut self, within: Duration) -> (u64, usize) {
        let shared = self.outbox.shared.clone();
        shared.is_closing.store(true, SeqCst);
        let relays: Vec<_> = shared.relays().values().cloned().collect();
        // All at once: a network whose node hangs leaves no other one sending.
        let drain = join_all(relays.iter().map(|relay| relay.ask(Order::Drain)));
        let live = match timeout(within / 2, drain).await {
            Ok(left) => left.into_iter().flatten().sum(),
            Err(_) => relays.iter().map(|relay| relay.totals.read()[0]).sum(),
        };
        let deliveries = shared.webhooks.shutdown(within / 2).await;
        self.relays.clear();
        self.watching.shutdown().await;
        self.background.shutdown().await;
        if timeout(within / 2, shared.store.clone().close()).await.is_err() {
            warn!("the outbox's file is not closed: its disk hangs, and the next start looks the file over");
        }
        (live, deliveries)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Relays hold the calls of their networks, and these hold the outbox.
        self.outbox.shared.relays().clear();
    }
}

/// Drops what was kept long enough, again and again.
async fn sweep(shared: Arc<Shared>) {
    loop {
        let pause = match swept(&shared).await {
            Ok(true) => SWEEP_AGAIN,
            Ok(false) => SWEEP,
            Err(error) => {
                warn!(%error, "old records of the outbox stay for now");
                SWEEP
            }
        };
        sleep(pause).await;
    }
}

/// Drops a batch of what was kept long enough. Whether there may be more.
async fn swept(shared: &Shared) -> Result<bool, StoreError> {
    let now = (shared.clock)();
    let (keep, most) = {
        let settings = shared.settings.load();
        (settings.keep, settings.max_bytes / DELIVERY_BYTES)
    };
    let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
    let quarantined_until = super::record::Millis(now.0.saturating_sub(keep));
    let relays = shared.relays().clone();
    let networks: BTreeSet<Network> = relays.keys().cloned().collect();
    let rows = move |reader: &Reader| {
        let overdue = reader.overdue(now, quarantined_until, |network| networks.contains(network), SWEPT)?;
        Ok((overdue, reader.excess_quarantine(most, SWEPT)?))
    };
    let (mut overdue, excess) = shared.store.read_long(rows).await?;
    if !excess.is_empty() {
        warn!(count = excess.len(), "the oldest deliveries in quarantine are dropped: `outbox.max_bytes` is reached");
        overdue.is_full |= excess.len() == SWEPT;
        for row in excess {
            overdue.step.unquarantine(row.tenant, row.work);
        }
    }
    if !overdue.step.is_empty() {
        shared.store.commit(overdue.step).await?;
    }
    for (network, records) in overdue.of_desks {
        if let Some(relay) = relays.get(&network) {
            // A relay that has ended drops nothing; the next look finds the records again.
            _ = relay.orders.send(Order::Forget(records)).await;
        }
    }
    Ok(overdue.is_full)
}

/// Asks a disk that takes no writes again and again, since no transaction is handed in meanwhile
/// that would show its return.
async fn watch_disk(shared: Arc<Shared>) {
    let mut health = shared.store.health();
    loop {
        if health.wait_for(|health| *health != Health::Writable).await.is_err() {
            return;
        }
        sleep(DISK_PAUSE).await;
        // The outcome changes the health.
        _ = shared.store.commit(Step::new()).await;
        if *shared.store.health().borrow() == Health::Writable {
            // A step whose outcome was unsure may have written deliveries.
            shared.webhooks.look_again().await;
        }
    }
}

/// Notes a disk that hangs: no write fails there, so nothing else would tell.
async fn watch_writes(shared: Arc<Shared>) {
    let (mut last, mut pauses) = (None, 0);
    loop {
        sleep(DISK_PAUSE).await;
        let write = shared.store.write_under_way();
        pauses = if write.is_some() && write == last { pauses + 1 } else { 0 };
        last = write;
        if pauses >= HUNG_PAUSES {
            if pauses == HUNG_PAUSES {
                warn!("the disk of the outbox does not answer: no transaction is taken until it does");
            }
            shared.store.note_hang();
        }
    }
}

#[cfg(test)]
mod tests;
