//! Starts and ends the tasks of endpoints as the settings say, and sees to what waits for endpoints
//! that are not in the settings.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{Id, JoinError, JoinSet},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};
use tracing::{error, warn};

use super::{
    Prepared, Shared,
    attempt::Sender,
    commit,
    endpoint::{Endpoint, Order},
    queue::Key,
    state::EndpointState,
};
use crate::{
    config::Webhook,
    metrics::DeliveryOutcome,
    net::post::Post,
    outbox::{
        record::{Quarantined, reason},
        step::Step,
        store::StoreError,
    },
};

/// How long what is under way may take to end when an endpoint goes or changes.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// From one look at endpoints that are gone to the next.
const ROUND: Duration = Duration::from_secs(60);
/// Rounds from one reading of the store's schedule to the next.
const ROUNDS_TO_SCAN: u32 = 10;
/// Deliveries that come into quarantine with one write.
const BATCH: usize = 100;
/// Why deliveries of an endpoint that is gone are in quarantine.
const NO_ENDPOINT: &str = "the endpoint is not in the settings any more";

/// An order to the supervisor, and where to say that it is done.
pub(super) enum Command {
    Apply(Prepared, oneshot::Sender<()>),
    /// Read the schedule of the store anew.
    Scan,
    Shutdown(Duration, oneshot::Sender<()>),
}

/// Runs the endpoints' tasks. They end with it.
pub struct Supervisor {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Command>,
    endpoints: BTreeMap<Arc<str>, Running>,
    tasks: JoinSet<()>,
    names: HashMap<Id, Arc<str>>,
    /// Puts what waits for endpoints that are gone into quarantine.
    sweep: JoinSet<()>,
    rng: fastrand::Rng,
}

struct Running {
    webhook: Webhook,
    post: Arc<dyn Post>,
    orders: watch::Sender<Order>,
}

impl Supervisor {
    pub(super) fn new(shared: Arc<Shared>, inbox: mpsc::Receiver<Command>, prepared: Prepared) -> Self {
        let rng = fastrand::Rng::with_seed(shared.tools.seed);
        let endpoints = prepared.0.into_iter().map(|(webhook, post)| {
            (webhook.name.clone(), Running { webhook, post, orders: watch::Sender::new(Order::Run) })
        });
        let endpoints = endpoints.collect();
        let (tasks, sweep) = (JoinSet::new(), JoinSet::new());
        Self { shared, inbox, endpoints, tasks, names: HashMap::new(), sweep, rng }
    }

    /// Delivers, until [`Webhooks::shutdown`](super::Webhooks::shutdown) or the end of all handles.
    pub async fn run(mut self) {
        let mut is_scanned = self.scan().await;
        let names: Vec<_> = self.endpoints.keys().cloned().collect();
        names.iter().for_each(|name| self.start(name));
        let mut rounds = 0_u32;
        let mut ticks = interval(ROUND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // All arms are cancel-safe.
            tokio::select! {
                command = self.inbox.recv() => match command {
                    None => return,
                    Some(Command::Apply(prepared, done)) => {
                        self.apply(prepared).await;
                        let _ = done.send(());
                    }
                    Some(Command::Scan) => is_scanned = self.scan().await,
                    Some(Command::Shutdown(within, done)) => {
                        self.shutdown(within).await;
                        let _ = done.send(());
                        return;
                    }
                },
                _ = ticks.tick() => {
                    if !is_scanned || rounds.is_multiple_of(ROUNDS_TO_SCAN) && rounds > 0 {
                        is_scanned = self.scan().await;
                    }
                    rounds = rounds.wrapping_add(1);
                    self.sweep();
                }
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                Some(ended) = self.sweep.join_next() => if let Err(error) = ended {
                    error!(%error, "the quarantine of deliveries without an endpoint broke off: a bug");
                },
            }
        }
    }

    async fn scan(&self) -> bool {
        let outcome = self.shared.scan().await;
        if let Err(error) = &outcome {
            warn!(%error, "the deliveries of the outbox cannot be read yet");
        }
        outcome.is_ok()
    }

    fn start(&mut self, name: &Arc<str>) {
        let Some(Running { webhook, post, orders }) = self.endpoints.get(name) else { return };
        let tools = &self.shared.tools;
        let sender = Sender {
            webhook: webhook.clone(),
            secrets: webhook.secret_texts().into_iter().collect(),
            post: post.clone(),
            deliveries: tools.deliveries.clone(),
            clock: tools.clock.clone(),
            wall: tools.wall.clone(),
            metrics: tools.metrics.clone(),
            duty: tools.duty.clone(),
        };
        let endpoint = Endpoint::new(sender, self.shared.state(name), orders.subscribe(), self.rng.fork());
        let task = self.tasks.spawn(endpoint.run());
        self.names.insert(task.id(), name.clone());
    }

    /// A task ended. One that was not told to has failed, and is started anew.
    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        let Some(name) = self.names.remove(&id) else { return };
        if self.endpoints.get(&name).is_some_and(|running| *running.orders.borrow() == Order::Run) {
            error!(endpoint = &*name, "the task of an endpoint broke off: a bug");
            self.shared.state(&name).queue().give_back();
            self.start(&name);
        }
    }

    /// Ends the tasks of endpoints that go or change, begins those that come or changed.
    async fn apply(&mut self, prepared: Prepared) {
        self.shared.take_up(&prepared);
        let stays = |running: &Running| prepared.0.iter().any(|(webhook, _)| *webhook == running.webhook);
        let until = Instant::now() + STOP_TIMEOUT;
        let stopped: Vec<_> =
            self.endpoints.iter().filter(|(_, running)| !stays(running)).map(|(name, _)| name.clone()).collect();
        for name in &stopped {
            if let Some(running) = self.endpoints.get(name) {
                running.orders.send_replace(Order::Stop(until));
            }
        }
        // A new task may begin with the queue only when the old one has left it.
        while self.names.values().any(|name| stopped.contains(name)) {
            match self.tasks.join_next_with_id().await {
                Some(ended) => self.ended(ended),
                None => break,
            }
        }
        stopped.iter().for_each(|name| _ = self.endpoints.remove(name));
        for (webhook, post) in prepared.0 {
            if !self.endpoints.contains_key(&webhook.name) {
                let name = webhook.name.clone();
                let orders = watch::Sender::new(Order::Run);
                self.endpoints.insert(name.clone(), Running { webhook, post, orders });
                self.start(&name);
            }
        }
        self.sweep();
    }

    async fn shutdown(&mut self, within: Duration) {
        let until = Instant::now() + within;
        for running in self.endpoints.values() {
            running.orders.send_replace(Order::Flush(until));
        }
        while let Ok(Some(_)) = timeout_at(until + STOP_TIMEOUT, self.tasks.join_next()).await {}
    }

    /// Begins to put what waits for endpoints that are gone into quarantine.
    fn sweep(&mut self) {
        if self.sweep.is_empty() {
            let (shared, seed) = (self.shared.clone(), self.rng.u64(..));
            self.sweep.spawn(async move {
                for (name, state) in shared.all_states() {
                    if let Err(error) = sweep(&shared, &name, &state, seed).await {
                        warn!(endpoint = &*name, %error, "deliveries of an endpoint that is gone wait");
                    }
                }
                shared.forget_gone();
            });
        }
    }
}

/// Puts all that waits for the endpoint `name` into quarantine, for as long as it is gone.
async fn sweep(shared: &Shared, name: &str, state: &EndpointState, seed: u64) -> Result<(), StoreError> {
    let tools = &shared.tools;
    let mut count = 0;
    while !shared.table.load().has(name) {
        let keys = state.queue().some(BATCH);
        if keys.is_empty() {
            break;
        }
        let at = (tools.clock)();
        let (mut step, mut given_up) = (Step::new(), 0);
        for Key { tenant, work } in &keys {
            if let Some(delivery) = tools.deliveries.delivery(tenant, work)? {
                step.quarantine(Quarantined { delivery, at, reason: reason(NO_ENDPOINT) });
                given_up += 1;
            }
        }
        commit::until_written(&*tools.deliveries, step, seed).await?;
        state.count(&tools.metrics, name, DeliveryOutcome::GivenUp, given_up);
        count += given_up;
        let mut queue = state.queue();
        keys.iter().for_each(|key| queue.remove(key));
    }
    if count > 0 {
        warn!(endpoint = name, count, "deliveries are in quarantine: {NO_ENDPOINT}");
    }
    Ok(())
}
