//! The way to the store: opened at the start, and tried again for as long as that fails.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep,
};
use tracing::{error, info, warn};

use super::{
    Tools,
    driver::{Command, wishing::NotWished},
    epoch_file::EpochFile,
    hook::Hooks,
    snapshot::{Heights, Snapshot},
    store::{
        Store,
        nats::{NatsStore, OpenError, Options},
    },
    wishes::Wishes,
};
use crate::{
    config,
    domain::{backoff::Backoff, fleet::Incarnation},
};

/// The first and the longest pause between two attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The shortest and the longest time that a request to the store has.
const REQUEST: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// Opens the store that settings name.
pub type OpenStore =
    Arc<dyn Fn(&config::Cluster) -> BoxFuture<'static, Result<Arc<dyn Store>, OpenError>> + Send + Sync>;

/// Opens the store in NATS. `seed` is the source of chance.
pub fn open_nats(settings: &config::Cluster, seed: u64) -> BoxFuture<'static, Result<Arc<dyn Store>, OpenError>> {
    open_bucket(settings, None, seed)
}

/// Opens the bucket in NATS in which replicas share the outbox.
pub fn open_nats_outbox(
    settings: &config::Cluster,
    seed: u64,
) -> BoxFuture<'static, Result<Arc<dyn Store>, OpenError>> {
    open_bucket(settings, Some("outbox"), seed)
}

fn open_bucket(
    settings: &config::Cluster,
    part: Option<&'static str>,
    seed: u64,
) -> BoxFuture<'static, Result<Arc<dyn Store>, OpenError>> {
    let servers = settings.nats.iter().map(|url| url.expose().to_owned()).collect();
    let mut options = Options::new(settings.name.clone(), servers, seed);
    options.credentials.clone_from(&settings.credentials);
    options.authorities = settings.ca_file.as_ref().map(|file| file.certificates.clone()).unwrap_or_default();
    options.requires_tls = settings.nats.iter().any(|url| url.expose().starts_with("tls://"));
    options.timeout = request_timeout(settings);
    options.part = part;
    Box::pin(async move { Ok(Arc::new(NatsStore::open(options).await?) as Arc<dyn Store>) })
}

/// The time that a request to the store has: a lease has room for more than one.
pub(super) fn request_timeout(settings: &config::Cluster) -> Duration {
    settings.heartbeat.clamp(REQUEST.0, REQUEST.1)
}

/// Settings, with hooks that are ready to run.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) settings: config::Cluster,
    pub(super) hooks: Hooks,
}

/// A replica that has reached the store.
pub(super) struct Connected {
    pub(super) plan: Plan,
    pub(super) tools: Tools,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) heights: watch::Sender<Heights>,
    pub(super) wishes: watch::Sender<Wishes>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) store: Arc<dyn Store>,
    pub(super) bucket: Incarnation,
}

/// A replica that has not reached the store yet.
pub(super) struct Connecting {
    plan: Plan,
    tools: Tools,
    snapshot: Arc<ArcSwap<Snapshot>>,
    heights: watch::Sender<Heights>,
    wishes: watch::Sender<Wishes>,
    commands: mpsc::Receiver<Command>,
    first: Option<oneshot::Sender<Result<(), String>>>,
}

impl Connecting {
    pub(super) fn new(
        plan: Plan,
        tools: Tools,
        (snapshot, heights, wishes): (Arc<ArcSwap<Snapshot>>, watch::Sender<Heights>, watch::Sender<Wishes>),
        commands: mpsc::Receiver<Command>,
        first: oneshot::Sender<Result<(), String>>,
    ) -> Self {
        Self { plan, tools, snapshot, heights, wishes, commands, first: Some(first) }
    }

    /// Waits until the store is reached; `None` if the proxy ends before.
    pub(super) async fn run(mut self, epoch_file: Option<EpochFile>) -> Option<(Connected, Option<EpochFile>)> {
        let mut pauses = Backoff::jittered(PAUSES.0, PAUSES.1, self.tools.seed);
        loop {
            let opening = open((self.tools.open)(&self.plan.settings));
            let outcome = self.beside_commands(opening).await?;
            match outcome {
                Ok((store, bucket)) => {
                    self.tell_first(Ok(()));
                    self.note(None);
                    let Self { plan, tools, snapshot, heights, wishes, commands, .. } = self;
                    let settings = &plan.settings;
                    info!(cluster = %settings.name, replica = %settings.replica, "the cluster's store is open");
                    let connected = Connected { plan, tools, snapshot, heights, wishes, commands, store, bucket };
                    return Some((connected, epoch_file));
                }
                Err(error) => {
                    self.tools.metrics.cluster_store_failed();
                    self.wishes.send_modify(|wishes| wishes.is_settled = true);
                    // Calls never depend on NATS: a wrong setting alone ends the start.
                    let told = if error.is_setting() { Err(format!("cluster: {error}")) } else { Ok(()) };
                    // A start that ends says why by itself.
                    if !(self.tell_first(told) && error.is_setting()) {
                        self.note(Some(&error));
                    }
                }
            }
            let pause = pauses.pause();
            self.beside_commands(sleep(pause)).await?;
        }
    }

    /// Tells the start the outcome of the first attempt. Whether the start still waits.
    fn tell_first(&mut self, outcome: Result<(), String>) -> bool {
        self.first.take().is_some_and(|first| first.send(outcome).is_ok())
    }

    /// Notes why there is no connection. A fault that goes on is logged once.
    fn note(&self, error: Option<&OpenError>) {
        let before = self.snapshot.load_full();
        let fault = error.map(ToString::to_string);
        if let Some(error) = error.filter(|_| before.fault != fault) {
            if error.is_refusal() || error.is_setting() {
                error!(why = %error, "the cluster's store refuses this replica: calls go on, and it takes no part");
            } else {
                warn!(why = %error, "the cluster's store is not reached: calls go on, and this replica takes no part");
            }
        }
        self.snapshot.store(Arc::new(Snapshot { fault, ..Snapshot::clone(&before) }));
    }

    /// Does `work`, and obeys commands meanwhile; `None` when the proxy ends.
    async fn beside_commands<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            // Both arms are cancel-safe.
            tokio::select! {
                biased;
                command = self.commands.recv() => match command? {
                    Command::Reload(plan) => self.plan = *plan,
                    Command::Beat => {}
                    Command::Wish(asked) => {
                        let fault = self.snapshot.load().fault.clone();
                        asked.refuse(NotWished::Away(fault.unwrap_or_else(|| "there is no connection yet".to_owned())));
                    }
                    Command::Leave(left) => {
                        let _ = left.send(());
                        return None;
                    }
                },
                done = &mut work => return Some(done),
            }
        }
    }
}

/// Opens the store, and asks for the bucket's identity.
async fn open(
    opening: BoxFuture<'static, Result<Arc<dyn Store>, OpenError>>,
) -> Result<(Arc<dyn Store>, Incarnation), OpenError> {
    let store = opening.await?;
    let bucket = store.incarnation().await.map_err(|error| OpenError::Unreachable(error.to_string()))?;
    Ok((store, incarnation(bucket)))
}

/// A bucket's identity, as payloads carry the identity.
pub(super) fn incarnation(of: super::store::Incarnation) -> Incarnation {
    Incarnation(of.created().as_nanos())
}
