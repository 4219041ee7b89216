//! The replicas of the proxy in this process: one, or several over a store in memory.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};

use crate::{
    app::{App, World},
    cluster::{
        OpenStore,
        store::{
            Store, StoreTime,
            memory::{Memory, Settings},
        },
    },
    config::Config,
    devnet::Replicas,
    net::{BoxFuture, BoxIo, Dial, Endpoint, system::System},
};

/// How long a replica that was killed may hold its ports and its folder yet.
const RELEASE: Duration = Duration::from_secs(5);
/// The time between two attempts to start again.
const RETRY: Duration = Duration::from_millis(50);

/// The replicas, in the order of their ports.
pub(super) struct Fleet {
    replicas: Vec<Replica>,
    world: World,
}

/// A replica, which runs or was killed.
pub(super) struct Replica {
    name: String,
    /// With the real addresses.
    config: Config,
    app: Mutex<Option<App>>,
    /// Lets switches through, each after the last; closed when the process ends.
    turn: Semaphore,
}

impl Replica {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Where clients connect, on this machine.
    pub(super) fn clients(&self) -> SocketAddr {
        self.config.listen.iter().find_map(|address| address.ip()).map_or_else(|| here(self.admin()), here)
    }

    /// Where the operator connects.
    pub(super) fn admin(&self) -> SocketAddr {
        self.config.admin.listen
    }

    /// The proxy, if it runs.
    fn app(&self) -> MutexGuard<'_, Option<App>> {
        self.app.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, String> {
        self.turn.acquire().await.map_err(|_| "the process ends".to_owned())
    }
}

/// An address that can be dialled, of one that listens everywhere.
fn here(addr: SocketAddr) -> SocketAddr {
    let ip = if addr.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { addr.ip() };
    SocketAddr::new(ip, addr.port())
}

/// Opens a bucket in this process's memory, the same for all replicas.
fn in_memory(now: Duration) -> OpenStore {
    let dawn = StoreTime::from_nanos(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
    let memory = Memory::new(Settings { dawn, ..Settings::default() });
    Arc::new(move |settings| {
        let store: Arc<dyn Store> = Arc::new(memory.client(settings.replica.as_str()));
        Box::pin(async move { Ok(store) })
    })
}

impl Fleet {
    /// Starts a replica with each of these settings.
    ///
    /// # Errors
    /// Says which replica does not start, and why.
    pub(super) async fn start(configs: Vec<Config>, world: World) -> Result<Self, String> {
        let now = Duration::from_secs((world.wall)());
        let (open_cluster, open_outbox_bucket) = (in_memory(now), in_memory(now));
        let mut fleet = Self { replicas: Vec::new(), world: World { open_cluster, open_outbox_bucket, ..world } };
        for mut config in configs {
            let name = config.cluster.as_ref().map(|cluster| cluster.replica.to_string());
            let app = App::start(config.clone(), fleet.world.clone(), None).await;
            let app = app.map_err(|why| name.as_ref().map_or(why.to_string(), |name| format!("{name}: {why}")))?;
            config.listen = app.addresses().to_vec();
            config.admin.listen = app.admin_addr();
            let (name, app, turn) = (name.unwrap_or_default(), Mutex::new(Some(app)), Semaphore::new(1));
            fleet.replicas.push(Replica { name, config, app, turn });
        }
        Ok(fleet)
    }

    pub(super) fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// How long a leader is silent before another takes over.
    pub(super) fn failover(&self) -> Duration {
        let cluster = self.replicas.first().and_then(|replica| replica.config.cluster.as_ref());
        cluster.map_or(Duration::ZERO, |cluster| cluster.failover_timeout)
    }

    /// Takes out the proxies that run, to end them. None starts any more.
    pub(super) async fn take(&self) -> Vec<App> {
        let mut apps = Vec::new();
        for replica in &self.replicas {
            let turn = replica.turn().await;
            replica.turn.close();
            apps.extend(replica.app().take());
            drop(turn);
        }
        apps
    }

    /// Dials the first replica that can be reached.
    pub(super) fn dial(&self) -> AnyReplica {
        AnyReplica(self.replicas.iter().map(Replica::clients).collect())
    }

    fn find(&self, name: &str) -> Result<&Replica, String> {
        let names = || self.replicas.iter().map(Replica::name).collect::<Vec<_>>().join(", ");
        let found = self.replicas.iter().find(|replica| replica.name == name);
        found.ok_or_else(|| format!("no replica {name:?}: there are {}", names()))
    }
}

impl Replicas for Fleet {
    fn describe(&self) -> BoxFuture<'_, Value> {
        Box::pin(async move {
            let mut all = Vec::new();
            for replica in &self.replicas {
                let app = replica.app();
                let leads = app.as_ref().and_then(App::cluster).is_some_and(|cluster| cluster.leads().is_some());
                all.push(json!({
                    "name": replica.name,
                    "http": format!("http://{}", replica.clients()),
                    "admin": format!("http://{}", replica.admin()),
                    "runs": app.is_some(),
                    "leads": leads,
                }));
            }
            Value::Array(all)
        })
    }

    fn kill<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            // Dropped, the proxy has no time for a farewell.
            let replica = self.find(name)?;
            let _turn = replica.turn().await?;
            let app = replica.app().take();
            drop(app);
            tracing::warn!(replica = name, "killed");
            Ok(())
        })
    }

    fn start<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let replica = self.find(name)?;
            let (_turn, begun) = (replica.turn().await?, Instant::now());
            while replica.app().is_none() {
                match App::start(replica.config.clone(), self.world.clone(), None).await {
                    Ok(started) => *replica.app() = Some(started),
                    Err(why) if begun.elapsed() > RELEASE => return Err(format!("{name}: {why}")),
                    Err(_) => sleep(RETRY).await,
                }
            }
            tracing::info!(replica = name, "runs again");
            Ok(())
        })
    }
}

/// The way to the first replica that can be reached.
pub(super) struct AnyReplica(Vec<SocketAddr>);

impl Dial for AnyReplica {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let mut last = Err(io::ErrorKind::ConnectionRefused.into());
            for addr in &self.0 {
                let endpoint = Endpoint::Tcp { host: addr.ip().to_string().into(), port: addr.port() };
                last = System.dial(&endpoint).await;
                if last.is_ok() {
                    break;
                }
            }
            last
        })
    }
}
