//! Several replicas as a whole: members and leader, agreed through a store that all share.
//!
//! Calls never ask this module. A replica that cannot reach the store serves its clients as before,
//! and stops the work of a leader before another replica begins.
//!
//! - [`store`]: entries under keys, written by compare-and-set alone, in NATS or in memory.
//! - [`membership`] and [`lease`]: the rules, as values without I/O and without a clock.
//! - `driver`: a single task that feeds the rules with the news of the store, and carries out the
//!   effects. A single watch over the whole bucket feeds all rules, in the order of revisions.
//!
//! The payloads are those of [`domain::fleet`](crate::domain::fleet). `docs/CLUSTER.md` has the
//! promises and the settings.

mod connect;
mod driver;
mod epoch_file;
mod fleet;
mod hook;
pub mod lease;
pub mod membership;
pub mod moment;
mod snapshot;
pub mod store;
mod wishes;
#[cfg(test)]
mod world;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{error, warn};

use self::{
    connect::{Connecting, Plan},
    driver::{Command, Driver, wishing::Asked},
    epoch_file::EpochFile,
    hook::Hooks,
    moment::{Clock, Moment},
};
pub use self::{
    connect::{OpenStore, open_nats, open_nats_outbox},
    driver::wishing::{NotWished, Outcome},
    fleet::{Change, Fleet, Seen, Verdicts, counts},
    hook::{ConnectHook, connect_hook},
    snapshot::{Heights, Leader, Peer, Snapshot},
    wishes::{Progress, Reached, Standing, Wishes, progress},
};
use crate::{
    config,
    domain::{
        duration::millis,
        fleet::{Applied, Epoch, NodeVerdict, Role, ServedHead, ServingNode, Term, WishKey, WishWord},
    },
    metrics::Metrics,
};

/// Requests to the driver that wait.
const COMMANDS: usize = 8;

/// The part of a heartbeat that only the rest of the proxy knows.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// The heights that clients were shown.
    pub heads: Vec<ServedHead>,
    /// The nodes that serve.
    pub serving: Vec<ServingNode>,
    /// The verdicts on all nodes.
    pub verdicts: Vec<NodeVerdict>,
    /// The operator's wishes that were taken up.
    pub wishes: Vec<Applied>,
    /// The shards of the outbox that are seen through here; none while none can be taken.
    pub shards: Option<u8>,
}

/// Runs the task of a replica. A simulation lets the task stand still, as a process does that is
/// stopped.
pub type RunTask = Arc<dyn Fn(BoxFuture<'static, ()>) -> BoxFuture<'static, ()> + Send + Sync>;

/// The means of a replica.
#[derive(Clone)]
pub struct Tools {
    /// Opens the store.
    pub open: OpenStore,
    /// Prepares the requests of hooks.
    pub connect_hook: ConnectHook,
    /// Runs the replica's task.
    pub run_task: RunTask,
    /// The replica's clock.
    pub clock: Clock,
    /// A number that no other process has.
    pub seed: u64,
    /// Tells the rest of a heartbeat.
    pub local: Arc<dyn Fn() -> Local + Send + Sync>,
    /// Whether the operator has drained the proxy.
    pub is_drained: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The instruments.
    pub metrics: Arc<Metrics>,
    /// Called when the process must end, since the work cannot be stopped otherwise.
    pub exit: Arc<dyn Fn(&'static str) + Send + Sync>,
    /// Called when the task of the cluster has failed, so that only another process takes part.
    pub broken: Arc<dyn Fn() + Send + Sync>,
}

/// The cluster as this replica knows it. Clones are the same.
#[derive(Clone)]
pub struct Cluster {
    snapshot: Arc<ArcSwap<Snapshot>>,
    heights: watch::Receiver<Heights>,
    wishes: watch::Receiver<Wishes>,
    commands: mpsc::Sender<Command>,
    clock: Clock,
}

impl Cluster {
    /// The newest knowledge.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The term, if this replica leads at this moment. The lease's end is looked at anew, so a
    /// process that was frozen does not say yes from memory.
    pub fn leads(&self) -> Option<Term> {
        let (term, until) = self.snapshot.load().lease?;
        (self.now() < until).then_some(term)
    }

    /// Whether this replica is a member beyond doubt, in that life, at this moment: others may fail
    /// it only later. A process that was frozen does not say yes from memory.
    pub fn is_sure_of(&self, life: Epoch) -> bool {
        let snapshot = self.snapshot.load();
        snapshot.epoch == Some(life) && snapshot.sure_until.is_some_and(|until| self.now() < until)
    }

    /// The heights that clients of other replicas were shown, and every change of them.
    pub fn heights(&self) -> watch::Receiver<Heights> {
        self.heights.clone()
    }

    /// The operator's wishes for all replicas, and every change of them.
    pub fn wishes(&self) -> watch::Receiver<Wishes> {
        self.wishes.clone()
    }

    /// Writes the operator's wish for all replicas; without a `state`, ends the wish.
    ///
    /// # Errors
    /// The store did not take the wish, or may not have.
    pub async fn wish(&self, key: WishKey, state: Option<WishWord>) -> Result<Outcome, NotWished> {
        let (answer, outcome) = oneshot::channel();
        let asked = Asked { key, state, answer };
        self.commands.send(Command::Wish(asked)).await.map_err(|_| NotWished::Leaving)?;
        // The task ended during the write.
        outcome.await.unwrap_or(Err(NotWished::Unknown))
    }

    /// This moment, by the clock of the snapshot's moments.
    pub fn now(&self) -> Moment {
        (self.clock)()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

/// The outcome of the first attempt at the store.
pub struct FirstAttempt(oneshot::Receiver<Result<(), String>>);

impl FirstAttempt {
    /// Waits for the outcome, no longer than `patience`. A store that is not reached is no error.
    ///
    /// # Errors
    /// A setting is wrong, so that no later attempt can succeed.
    pub async fn outcome(self, patience: Duration) -> Result<(), String> {
        timeout(patience, self.0).await.ok().and_then(Result::ok).unwrap_or(Ok(()))
    }
}

/// Settings that were prepared for a reload.
pub struct Prepared(Box<Plan>);

/// A replica's task. Dropped, the replica falls silent, and others find it failed.
pub struct Running {
    cluster: Cluster,
    commands: mpsc::Sender<Command>,
    /// The time of a hook in milliseconds, by the newest settings.
    hook_timeout: AtomicU64,
    _task: JoinSet<()>,
}

impl Running {
    /// Starts a replica, and waits for nothing.
    ///
    /// # Errors
    /// A hook's settings cannot be used, or another process uses `cluster.dir`.
    pub fn start(settings: &config::Cluster, tools: Tools) -> Result<(Self, FirstAttempt), String> {
        let Prepared(plan) = Self::prepare(settings, &tools.connect_hook)?;
        let epoch_file = match &settings.dir {
            Some(dir) => Some(EpochFile::open(dir).map_err(|why| format!("cluster.dir: {why}"))?),
            None => None,
        };
        tools.metrics.begin_cluster();
        let now = (tools.clock)();
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::new(settings, now)));
        let (tell_heights, heights) = watch::channel(Heights::new());
        let (tell_wishes, wishes) = watch::channel(Wishes::default());
        let (commands, received) = mpsc::channel(COMMANDS);
        let (snapshot_of, clock, sender) = (snapshot.clone(), tools.clock.clone(), commands.clone());
        let cluster = Cluster { snapshot: snapshot_of, heights, wishes, commands: sender, clock };
        let (tell_first, first) = oneshot::channel();
        let failed = (cluster.clone(), tools.exit.clone(), tools.broken.clone());
        let run_task = tools.run_task.clone();
        let connecting = Connecting::new(*plan, tools, (snapshot, tell_heights, tell_wishes), received, tell_first);
        let mut work = JoinSet::new();
        work.spawn(run_task(Box::pin(async move {
            if let Some((connected, epoch_file)) = connecting.run(epoch_file).await {
                Driver::new(connected, epoch_file).run().await;
            }
        })));
        let mut task = JoinSet::new();
        // Dropping the task ends the work.
        task.spawn(async move {
            if let Some(Err(why)) = work.join_next().await {
                let (cluster, exit, broken) = failed;
                error!(%why, "the task of the cluster failed: this replica takes no part until a restart");
                broken();
                if cluster.snapshot().role != Role::Watching {
                    exit("this replica may have led, and nothing is left that would run on_fence: the process ends");
                }
            }
        });
        let hook_timeout = AtomicU64::new(millis(settings.on_hook_timeout));
        Ok((Self { cluster, commands, hook_timeout, _task: task }, FirstAttempt(first)))
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Prepares the settings that a reload brings.
    ///
    /// # Errors
    /// A hook's settings cannot be used.
    pub fn prepare(settings: &config::Cluster, connect: &ConnectHook) -> Result<Prepared, String> {
        let hooks = Hooks::new(settings, connect)?;
        Ok(Prepared(Box::new(Plan { settings: settings.clone(), hooks })))
    }

    /// There is news for the other replicas: the next heartbeat goes out sooner.
    pub fn beat(&self) {
        // With the channel full, a heartbeat is due anyhow.
        let _ = self.commands.try_send(Command::Beat);
    }

    /// Takes up other times, hooks and wishes for the lease.
    pub async fn reload(&self, Prepared(plan): Prepared) {
        self.hook_timeout.store(millis(plan.settings.on_hook_timeout), Relaxed);
        // The task ends with the proxy alone.
        let _ = self.commands.send(Command::Reload(plan)).await;
    }

    fn hook_timeout(&self) -> Duration {
        Duration::from_millis(self.hook_timeout.load(Relaxed))
    }

    /// Gives the lease away, if this replica has it, and leaves the cluster. The store has
    /// `patience`, beside the time of `on_fence`; others find a replica that was slower failed.
    pub async fn leave(&self, patience: Duration) {
        let (left, done) = oneshot::channel();
        let leaving = async {
            let _ = self.commands.send(Command::Leave(left)).await;
            let _ = done.await;
        };
        if timeout(patience + self.hook_timeout(), leaving).await.is_err() {
            warn!("the cluster was not left in time: others take over after cluster.failover_timeout");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    };

    use tokio::time::sleep;

    use super::{
        store::{
            Store,
            memory::{Memory, Settings},
            nats::OpenError,
        },
        *,
    };
    use crate::config::Config;

    /// A21: a fault in the task is told, and ends the process of a leader, whose hooks run no more.
    #[tokio::test(start_paused = true)]
    async fn a_task_that_fails_is_told_and_ends_a_leader() {
        let cluster = "[cluster]\nname = \"eu\"\nreplica = \"r1\"\nnats = \"nats://a\"\n";
        let text = format!("{cluster}[[el.primary]]\nhttp = \"http://a\"\n");
        let settings = Config::parse(&text, &|_| None).unwrap().cluster.unwrap();
        for leads in [false, true] {
            let (fails, is_broken) = (Arc::new(AtomicBool::new(!leads)), Arc::new(AtomicBool::new(false)));
            let exits = Arc::new(Mutex::new(Vec::new()));
            let store = Memory::new(Settings::default());
            let start = tokio::time::Instant::now();
            let (failing, breaking, exiting) = (fails.clone(), is_broken.clone(), exits.clone());
            let tools = Tools {
                is_drained: Arc::new(|| false),
                open: Arc::new(move |_| {
                    let store = Arc::new(store.client("r1")) as Arc<dyn Store>;
                    Box::pin(async move { Ok(store) })
                }),
                connect_hook: Arc::new(connect_hook),
                run_task: Arc::new(|task| task),
                clock: Arc::new(move || Moment(start.elapsed().as_millis() as u64)),
                seed: 1,
                local: Arc::new(move || match failing.load(SeqCst) {
                    true => panic!("a fault of the test"),
                    false => Local::default(),
                }),
                metrics: Arc::new(Metrics::new()),
                exit: Arc::new(move |why| exiting.lock().unwrap().push(why)),
                broken: Arc::new(move || breaking.store(true, SeqCst)),
            };
            let (running, _) = Running::start(&settings, tools).unwrap();
            assert_eq!(running.hook_timeout(), settings.on_hook_timeout);
            let settings = config::Cluster { on_hook_timeout: Duration::from_secs(60), ..settings.clone() };
            let connect: ConnectHook = Arc::new(connect_hook);
            running.reload(Running::prepare(&settings, &connect).unwrap()).await;
            assert_eq!(running.hook_timeout(), settings.on_hook_timeout);
            sleep(Duration::from_secs(30)).await;
            assert_eq!((running.cluster().leads().is_some(), is_broken.load(SeqCst)), (leads, !leads));
            fails.store(true, SeqCst);
            sleep(Duration::from_secs(30)).await;
            assert!(is_broken.load(SeqCst) && running.cluster().leads().is_none());
            assert_eq!(exits.lock().unwrap().len(), usize::from(leads));
        }
    }

    /// A replica over a store in memory, which cannot be opened while there is an error.
    fn running(store: &Memory, error: &Arc<Mutex<Option<OpenError>>>) -> (Running, FirstAttempt) {
        let cluster = "[cluster]\nname = \"eu\"\nreplica = \"r1\"\nnats = \"nats://a\"\n";
        let text = format!("{cluster}[[el.primary]]\nhttp = \"http://a\"\n");
        let settings = Config::parse(&text, &|_| None).unwrap().cluster.unwrap();
        let (store, error, start) = (store.clone(), error.clone(), tokio::time::Instant::now());
        let tools = Tools {
            open: Arc::new(move |_| {
                let store = Arc::new(store.client("r1")) as Arc<dyn Store>;
                let outcome = error.lock().unwrap().clone().map_or(Ok(store), Err);
                Box::pin(async move { outcome })
            }),
            connect_hook: Arc::new(connect_hook),
            run_task: Arc::new(|task| task),
            clock: Arc::new(move || Moment(start.elapsed().as_millis() as u64)),
            seed: 1,
            local: Arc::new(Local::default),
            is_drained: Arc::new(|| false),
            metrics: Arc::new(Metrics::new()),
            exit: Arc::new(|_| {}),
            broken: Arc::new(|| {}),
        };
        Running::start(&settings, tools).unwrap()
    }

    /// Knowledge that has not changed costs nothing anew, however many replicas there were: parts
    /// of two snapshots are one.
    #[tokio::test(start_paused = true)]
    async fn knowledge_that_is_the_same_is_made_once() {
        let store = Memory::new(Settings::default());
        let (running, _) = running(&store, &Arc::default());
        sleep(Duration::from_secs(30)).await;
        let cluster = running.cluster();
        let one = cluster.snapshot();
        sleep(Duration::from_secs(5)).await;
        let two = cluster.snapshot();
        assert!(two.peers[0].seen > one.peers[0].seen && Arc::ptr_eq(&one.fleet, &two.fleet));
        let (before, after) = (one.view.as_ref().unwrap(), two.view.as_ref().unwrap());
        assert!(before.0 == after.0 && Arc::ptr_eq(&before.1, &after.1));
        store.cut("r1");
        sleep(Duration::from_millis(10)).await;
        let one = cluster.snapshot();
        sleep(Duration::from_secs(10)).await;
        let two = cluster.snapshot();
        assert!(one.lease.is_some() && two.lease.is_none() && Arc::ptr_eq(&one.peers, &two.peers));
    }

    /// A wrong setting ends the start. A refusal ends nothing, is told, and is tried again.
    #[tokio::test(start_paused = true)]
    async fn a_wrong_setting_alone_ends_the_start() {
        let too_old = OpenError::TooOld { server: "n1".to_owned(), version: "2.9.0".to_owned() };
        let refused = OpenError::Refused("authorization violation".to_owned());
        let setting = OpenError::Setting("no such file".to_owned());
        for (error, ends) in [(too_old, false), (refused, false), (setting, true)] {
            let refusal = Arc::new(Mutex::new(Some(error.clone())));
            let (running, first) = running(&Memory::new(Settings::default()), &refusal);
            assert_eq!(first.outcome(Duration::from_secs(1)).await.is_err(), ends, "{error}");
            sleep(Duration::from_secs(10)).await;
            assert_eq!(running.cluster().snapshot().fault, Some(error.to_string()));
            *refusal.lock().unwrap() = None;
            sleep(Duration::from_secs(30)).await;
            assert!(running.cluster().leads().is_some());
        }
    }
}
