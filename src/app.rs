//! Builds the proxy from its settings, wires the floors, and ends the proxy again. The only module
//! that sees all floors.

mod accounts;
mod aside;
mod build;
mod cluster;
mod descriptors;
pub(crate) mod dns;
mod doors;
mod file_watch;
mod networks;
mod outbox;
mod reload;
mod spans;
mod start_error;
mod watchdog;
mod wishes;
mod worker;

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::warn;

use self::{
    accounts::Accounts, build::Deps, cluster::Started, dns::Followed, networks::Runtime, outbox::SharedOutbox,
    spans::Export, wishes::Applier, worker::Workers,
};
pub use self::{file_watch::FileWatch, outbox::OpenStore, start_error::StartError};
use crate::domain::duration::millis;
use crate::{
    cluster::{
        Cluster, ConnectHook, OpenStore as OpenCluster, RunTask, Running as RunningCluster, connect_hook,
        moment::{Clock as Uptime, boot_time},
        open_nats, open_nats_outbox,
    },
    config::{self, Config},
    domain::address::Address,
    door::{
        admin::{Admin, Faults, Reload},
        beacon,
        http::Service,
        readiness::Readiness,
        site::Site,
        ws::Sockets,
    },
    memory::{self, Budget},
    metrics::Metrics,
    net::{
        Dial, Listen, Listeners,
        elsewhere::{Elsewhere, OwnAddresses},
        names::Names,
        post::{HttpPost, Post, Server},
        system::{self, System},
        systemd::Supervisor,
    },
    outbox::{
        record::Millis,
        store::Store,
        webhook::{Clock, Connect},
    },
    pool::Wall,
    spans::Spans,
    view::WorkerJobs,
};

/// How often the log says that clients are refused for want of memory.
const REFUSALS_TOLD: Duration = Duration::from_secs(10);

/// Reads the settings anew for a reload.
pub type Source = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// Gives the log this level, or without one the level of the settings, or says why that fails.
pub type SetLog = Arc<dyn Fn(Option<&str>) -> Result<(), String> + Send + Sync>;

/// The proxy's means: network, clock, threads and descriptors.
#[derive(Clone)]
pub struct World {
    /// Opens connections to nodes.
    pub dial: Arc<dyn Dial>,
    /// Listens for clients and operators.
    pub listen: Arc<dyn Listen>,
    /// Looks up the names of which every address is a node.
    pub names: Arc<Names>,
    /// The wall clock.
    pub wall: Wall,
    /// Opens the store of the outbox.
    pub open_store: OpenStore,
    /// Prepares requests to the endpoints of webhooks.
    pub connect: Connect,
    /// Opens the store that replicas share.
    pub open_cluster: OpenCluster,
    /// Opens the bucket in which replicas share the outbox.
    pub open_outbox_bucket: OpenCluster,
    /// Prepares requests to the hooks of the cluster that are URLs.
    pub connect_hook: ConnectHook,
    /// Runs the task of the cluster.
    pub run_cluster: RunTask,
    /// The clock of leases, which runs on while the machine sleeps.
    pub uptime: Uptime,
    /// Threads that serve clients, each with a runtime of its own; `None`: everything runs on the
    /// runtime that starts the proxy.
    pub threads: Option<usize>,
    /// File descriptors that the process may have; `None`: no bound.
    pub descriptors: Option<usize>,
    /// Switches faults of the nodes, where they are pretend ones.
    pub faults: Option<Faults>,
    /// The file that the settings are read from, which may be watched for changes; `None`: there is
    /// none.
    pub file: Option<FileWatch>,
    /// The supervisor of the process, which is told of reloads, and that the process is alive.
    pub supervisor: Arc<Supervisor>,
    /// Changes the level of the log; `None`: the log has a fixed level.
    pub set_log: Option<SetLog>,
}

impl World {
    /// The operating system's network and clock. `threads` serve clients.
    pub fn real(threads: usize) -> Self {
        Self {
            dial: Arc::new(System),
            listen: Arc::new(System),
            names: system::names(),
            wall: Arc::new(unix_seconds),
            open_store: Arc::new(|settings| Store::open(&settings.dir)),
            connect: Arc::new(connect),
            open_cluster: Arc::new(|settings| open_nats(settings, RandomState::new().hash_one(0))),
            open_outbox_bucket: Arc::new(|settings| open_nats_outbox(settings, RandomState::new().hash_one(0))),
            connect_hook: Arc::new(connect_hook),
            run_cluster: Arc::new(|task| task),
            uptime: Arc::new(boot_time),
            threads: Some(threads),
            descriptors: None,
            faults: None,
            file: None,
            supervisor: Arc::default(),
            set_log: None,
        }
    }

    /// Nanoseconds since 1970; in a simulation as its clock has them.
    #[cfg(feature = "otlp")]
    fn nanos(&self) -> crate::spans::export::NanoClock {
        if self.threads.is_some() {
            return Arc::new(|| u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX));
        }
        let wall = self.wall.clone();
        Arc::new(move || wall().saturating_mul(1_000_000_000))
    }

    /// Milliseconds since 1970; in a simulation as its clock has them.
    fn millis(&self) -> Clock {
        if self.threads.is_some() {
            return Arc::new(|| Millis(millis(since_1970())));
        }
        let (wall, start, since) = (self.wall.clone(), (self.wall)(), tokio::time::Instant::now());
        // The simulated wall clock has seconds; the runtime's clock has the rest.
        Arc::new(move || {
            let passed = millis(since.elapsed());
            Millis((start.saturating_mul(1000).saturating_add(passed)).max(wall().saturating_mul(1000)))
        })
    }

    /// A secret that cannot be guessed. In a simulation the secret follows from the clock, so that
    /// a run can be repeated.
    fn secret(&self) -> [u8; 32] {
        let mut secret = [0; 32];
        for part in secret.chunks_exact_mut(8) {
            // The hasher's keys come from the operating system.
            let bits = if self.threads.is_some() { RandomState::new().hash_one(0) } else { (self.wall)() };
            part.copy_from_slice(&bits.to_be_bytes());
        }
        secret
    }
}

/// Requests to an endpoint of a webhook over the operating system's network.
fn connect(webhook: &config::Webhook) -> io::Result<Arc<dyn Post>> {
    let config::Webhook { url, allow_private, ca_file, .. } = webhook;
    let server = Server { url, allow_private: *allow_private, ca_file: ca_file.as_ref() };
    Ok(Arc::new(HttpPost::new(server, system::names())?))
}

fn unix_seconds() -> u64 {
    since_1970().as_secs()
}

#[expect(clippy::disallowed_methods, reason = "the only place where the wall clock comes in")]
fn since_1970() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// A running proxy. Dropping an `App` ends the proxy at once; [`App::shutdown`] lets calls finish.
pub struct App {
    addresses: Vec<Address>,
    admin_addr: SocketAddr,
    shared: Arc<Shared>,
    closing: watch::Sender<bool>,
    workers: Workers,
    reload: mpsc::Sender<Reload>,
    acceptor: JoinSet<()>,
    background: JoinSet<()>,
    export: Export,
    outbox: Option<SharedOutbox>,
    must_end: Arc<watch::Sender<bool>>,
}

/// The parts that a reload needs.
struct Shared {
    site: Arc<ArcSwap<Site>>,
    metrics: Arc<Metrics>,
    world: World,
    worker_jobs: WorkerJobs,
    broken: Arc<watch::Sender<bool>>,
    /// The memory that clients make the proxy hold.
    memory: Arc<Budget>,
    /// Counts reloads.
    reloaded: watch::Sender<u64>,
    /// The accounts of nodes.
    accounts: Accounts,
    /// Where the spans of requests go, if requests have spans.
    spans: Option<Arc<Spans>>,
    /// This proxy as one of several replicas.
    cluster: Option<Arc<RunningCluster>>,
    /// Applies the operator's wishes for all replicas.
    wishes: Option<Arc<Applier>>,
}

impl App {
    /// Starts to listen, to probe and to serve. Settings are read anew from `source`, if there is
    /// one.
    ///
    /// # Errors
    /// When an address cannot be listened on or a node cannot be set up; nothing runs then.
    pub async fn start(config: Config, mut world: World, source: Option<Source>) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let memory = Budget::new(config.max_client_memory.unwrap_or_else(memory::quarter));
        let measured = memory.clone();
        metrics.measure_memory(move || [measured.held(), measured.limit(), measured.refused() as usize]);
        let listener = listen(&world, "listen", &config.listen).await?;
        let admin_listener = listen(&world, "admin.listen", &[config.admin.listen.into()]).await?;
        let addresses = listener.addresses();
        let admin_addr = first_ip(&admin_listener.addresses());
        if !admin_addr.ip().is_loopback() {
            warn!(addr = %admin_addr, "the admin side is not on loopback and asks for no password: let only operators reach it");
        }
        let listening = addresses.iter().filter_map(Address::ip).chain([admin_addr]);
        let own = OwnAddresses::new(listening, world.listen.clone());
        world.dial = Arc::new(Elsewhere::new(world.dial.clone(), world.names.clone(), own.clone()));
        let broken = Arc::new(watch::Sender::new(false));
        let (worker_jobs, jobs) = WorkerJobs::new(world.threads.unwrap_or(1));
        let accounts = Accounts::default();
        let deps = Deps {
            world: &world,
            metrics: &metrics,
            memory: &memory,
            worker_jobs: &worker_jobs,
            broken: &broken,
            accounts: &accounts,
            wishes: None,
        };
        let mut dns = Followed::new(world.names.clone(), own, metrics.clone());
        dns.adopt(dns.looked_up(&config).await);
        let export = Export::start(&config, &world, &metrics).map_err(StartError::Node)?;
        let outbox = outbox::start(&config, &deps).map_err(StartError::Outbox)?;
        let mut runtime = Runtime::build(dns.expand(&config), outbox.clone(), &deps).map_err(StartError::Node)?;
        runtime.keep_transactions().map_err(StartError::Outbox)?;
        let site = Arc::new(ArcSwap::from_pointee(runtime.site(export.spans())));
        let closing = watch::Sender::new(false);
        let reloaded = watch::Sender::new(0);
        let sockets =
            Sockets::new(site.clone(), metrics.clone(), memory.clone(), closing.subscribe(), reloaded.subscribe());
        let sockets = Arc::new(sockets);
        let draining = watch::Sender::new(false);
        let readiness = Readiness::new(site.clone(), closing.subscribe(), draining.subscribe());
        let service = Service::new(
            site.clone(),
            metrics.clone(),
            memory.clone(),
            closing.subscribe(),
            readiness.clone(),
            beacon::answer,
            sockets,
        );
        let workers = Workers::start(world.threads.is_some(), jobs, &service).map_err(StartError::Thread)?;
        let (reload, reloads) = mpsc::channel(8);
        let must_end = Arc::new(watch::Sender::new(false));
        let drains = draining.subscribe();
        let started = cluster::start(&config, &world, &site, &metrics, drains, (&must_end, &broken));
        let replica = started?;
        let running = replica.as_ref().map(Started::running);
        let wishes = replica.as_ref().map(Started::wishes);
        let admin = Admin::new(
            site.clone(),
            metrics.clone(),
            draining,
            readiness,
            broken.subscribe(),
            reload.clone(),
            world.faults.clone(),
        );
        let admin = admin.of_cluster(running.as_ref().map(|running| running.cluster().clone()));
        let spans = export.spans().cloned();
        if let Some(wishes) = &wishes {
            wishes.take_up().await;
        }
        if let (Some(running), Some(settings)) = (&running, &config.cluster) {
            outbox::join(outbox.as_ref(), running.cluster(), settings, &world);
        }
        let cluster = running;
        let shared =
            Shared { site, metrics, world, worker_jobs, broken, memory, reloaded, accounts, spans, cluster, wishes };
        let shared = Arc::new(shared);
        let mut acceptor = JoinSet::new();
        acceptor.spawn(doors::clients(listener, workers.dispatcher(), shared.clone()));
        let mut background = JoinSet::new();
        background.spawn(tell_of_refusals(shared.memory.clone()));
        background.spawn(doors::admin(admin_listener, admin, shared.clone()));
        let file = shared.world.file.clone();
        let written = reload::Written { config, dns, source, file };
        if let Some(replica) = &shared.cluster {
            let reloaded = shared.reloaded.subscribe();
            background.spawn(cluster::share_heights(
                replica.clone(),
                shared.site.clone(),
                shared.metrics.clone(),
                reloaded,
            ));
        }
        if let Some(wishes) = shared.wishes.clone() {
            background.spawn(wishes.keep_applying(shared.reloaded.subscribe()));
        }
        background.spawn(reload::keep_reloading(shared.clone(), runtime, written, reloads));
        let (alive, ends) = (shared.clone(), closing.subscribe());
        background.spawn(async move { watchdog::beat(&alive.world.supervisor, &alive.worker_jobs, ends).await });
        // Clients are served meanwhile: calls never wait for the store of replicas.
        cluster::heard(replica).await?;
        Ok(Self {
            addresses,
            admin_addr,
            shared,
            closing,
            workers,
            reload,
            acceptor,
            background,
            export,
            outbox,
            must_end,
        })
    }

    /// Where clients connect.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The first address of the network where clients connect. Port 0 of the unspecified address
    /// where there are Unix sockets only.
    pub fn addr(&self) -> SocketAddr {
        first_ip(&self.addresses)
    }

    /// Where the operator connects.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// This proxy as one of several replicas, if the settings have `[cluster]`.
    pub fn cluster(&self) -> Option<&Cluster> {
        Some(self.shared.cluster.as_ref()?.cluster())
    }

    /// Begins to read the settings anew and returns at once; the outcome is logged.
    pub fn ask_for_reload(&self) {
        let (answer, _) = oneshot::channel();
        if self.reload.try_send(Reload::Apply(answer)).is_err() {
            warn!("too many reloads are waiting already");
        }
    }

    /// Reads the settings anew and applies them, or changes nothing.
    ///
    /// # Errors
    /// Says why nothing was changed.
    pub async fn reload(&self) -> Result<String, String> {
        let (answer, outcome) = oneshot::channel();
        let gone = || "the proxy is shutting down".to_owned();
        self.reload.send(Reload::Apply(answer)).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// Waits until the process must end at once: this replica led, and cannot be sure that all work
    /// of a leader has ended. For ever, where all is well.
    pub fn must_end(&self) -> impl Future<Output = ()> + use<> {
        let mut must_end = self.must_end.subscribe();
        async move {
            if must_end.wait_for(|must| *must).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// Stops accepting, lets calls in flight finish until the grace time is over, and ends the
    /// proxy.
    pub async fn shutdown(mut self) {
        let began = Instant::now();
        self.closing.send_replace(true);
        self.acceptor.shutdown().await;
        // Another replica leads while calls finish here.
        let shared = self.shared.clone();
        let kept = self.outbox.clone();
        let leaving = async {
            outbox::hand_over(kept.as_ref(), shared.cluster.as_deref()).await;
            cluster::leave(shared.cluster.as_deref()).await;
        };
        tokio::join!(leaving, self.let_finish());
        let grace = self.shared.site.load().shutdown_grace;
        outbox::shut(self.outbox.take(), grace.saturating_sub(began.elapsed())).await;
        self.background.shutdown().await;
        self.export.finish().await;
    }

    /// Lets calls in flight finish until the grace time is over.
    async fn let_finish(&mut self) {
        // Streams of events would never finish by themselves.
        for network in &self.shared.site.load().networks {
            network.events.iter().for_each(|events| events.close());
        }
        let grace = self.shared.site.load().shutdown_grace;
        let last_call = grace.mul_f64(0.9);
        let done = self.workers.finish();
        tokio::pin!(done);
        if timeout(last_call, &mut done).await.is_err() {
            // Calls that still wait for a node are answered or refused while there is time.
            outbox::drain(self.outbox.as_ref()).await;
            for network in &self.shared.site.load().networks {
                network.calls.iter().for_each(|calls| calls.close());
                network.beacon.iter().for_each(|rest| rest.close());
            }
            if timeout(grace - last_call, &mut done).await.is_err() {
                warn!("the grace time is over; some connections are cut");
            }
        }
    }
}

/// Binds all `addresses` of the setting `key`.
async fn listen(world: &World, key: &'static str, addresses: &[Address]) -> Result<Listeners, StartError> {
    let mut sockets = Vec::new();
    for address in addresses {
        let bound = world.listen.bind(address.clone()).await;
        sockets.push(bound.map_err(|error| StartError::Listen { key, address: address.clone(), error })?);
    }
    Ok(Listeners::new(sockets))
}

/// The first of the addresses that is of the network; unspecified if none is.
fn first_ip(addresses: &[Address]) -> SocketAddr {
    addresses.iter().find_map(Address::ip).unwrap_or(SocketAddr::from(([0; 4], 0)))
}

/// Says that clients are refused for want of memory, once in a while for as long as that goes on.
async fn tell_of_refusals(memory: Arc<Budget>) {
    let mut told = 0;
    loop {
        sleep(REFUSALS_TOLD).await;
        let refused = memory.refused();
        if refused > told {
            let (held, limit) = (memory.held(), memory.limit());
            warn!(held, limit, times = refused - told, "clients were refused: max_client_memory is reached");
            told = refused;
        }
    }
}
