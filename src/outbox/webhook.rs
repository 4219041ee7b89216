//! Webhooks: endpoints of others that are told of events, at least once and each with one id.
//!
//! A delivery is a row of the store, written with the transition that it tells of. Each endpoint
//! has a task and a queue of what waits for it; [`Webhooks`] starts and ends these tasks as the
//! settings say. An attempt ends with a write: the row goes (2xx), moves to a later time (a
//! failure), or moves to quarantine (too many failures, or no such endpoint any more).
//!
//! What is chosen not to be promised: the order of events. A receiver has `seq` and the time.

mod attempt;
pub mod body;
mod breaker;
mod commit;
mod deliveries;
mod endpoint;
mod judgement;
pub mod nodes;
mod queue;
mod signature;
mod state;
mod supervisor;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
};

pub use self::{
    deliveries::Deliveries,
    state::EndpointStatus,
    supervisor::Supervisor,
    table::{Event, Table},
};
use self::{deliveries::endpoint_of, queue::Key, state::EndpointState, supervisor::Command};
use crate::{
    config::Webhook,
    domain::redact::Secrets,
    metrics::Metrics,
    net::post::Post,
    outbox::{
        ownership::Ownership,
        record::{Delivery, Millis, TenantName, TxId, WorkId},
        step::Step,
        store::{Due, StoreError},
    },
};

/// Commands that may wait for the supervisor.
const COMMANDS: usize = 16;
/// Rows of the schedule that are read at once.
const SCAN_PAGE: usize = 500;

/// A clock: the wall clock, or the outbox's own.
pub type Clock = Arc<dyn Fn() -> Millis + Send + Sync>;
/// Prepares requests to an endpoint; fails where its certificates or its host cannot be used.
pub type Connect = Arc<dyn Fn(&Webhook) -> io::Result<Arc<dyn Post>> + Send + Sync>;

/// What webhooks need of the world.
#[derive(Clone)]
pub struct Tools {
    /// The store.
    pub deliveries: Arc<dyn Deliveries>,
    /// Requests to endpoints.
    pub connect: Connect,
    /// The clock of the outbox: when deliveries are due.
    pub clock: Clock,
    /// The wall clock: the time in signatures.
    pub wall: Clock,
    /// Decides the lengths of pauses.
    pub seed: u64,
    /// Counts deliveries.
    pub metrics: Arc<Metrics>,
    /// The part of this replica among others.
    pub duty: Duty,
}

/// The part of a replica in the deliveries.
#[derive(Clone)]
pub struct Duty {
    /// Whose deliveries this replica makes.
    pub ownership: Ownership,
    /// Hears of a transaction of which a delivery is done, or given up.
    pub done: Arc<dyn Fn(TxId) + Send + Sync>,
    /// Whether the other replicas know of the transaction, so that its owner delivers the event. If
    /// not, the transaction is shared with them.
    pub is_shared: Arc<dyn Fn(TxId) -> bool + Send + Sync>,
    /// Whether this replica tells of nodes and switches.
    pub tells_of_nodes: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Duty {
    /// The part of a proxy that is alone.
    pub fn alone() -> Self {
        Self {
            ownership: Ownership::alone(),
            done: Arc::new(|_| {}),
            is_shared: Arc::new(|_| false),
            tells_of_nodes: Arc::new(|| true),
        }
    }
}

/// The webhooks. Clones are the same webhooks.
#[derive(Clone)]
pub struct Webhooks {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// Endpoints whose settings can be used.
pub struct Prepared(Vec<(Webhook, Arc<dyn Post>)>);

/// Why a delivery is not taken out of quarantine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetryError {
    /// The tenant has no such delivery in quarantine.
    #[error("no such delivery is in quarantine")]
    NotThere,
    /// The delivery's endpoint is not in the settings.
    #[error("its endpoint `{0}` is not in the settings")]
    NoEndpoint(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Shared {
    tools: Tools,
    states: Mutex<BTreeMap<Arc<str>, Arc<EndpointState>>>,
    table: ArcSwap<Table>,
}

impl Webhooks {
    /// Webhooks for the `prepared` endpoints. Nothing is sent before the supervisor runs.
    pub fn new(tools: Tools, prepared: Prepared) -> (Self, Supervisor) {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared { tools, states: Mutex::default(), table: ArcSwap::default() });
        shared.take_up(&prepared);
        (Self { shared: shared.clone(), commands }, Supervisor::new(shared, inbox, prepared))
    }

    /// Prepares the endpoints of new settings.
    ///
    /// # Errors
    /// When an endpoint's settings cannot be used: names the endpoint.
    pub fn prepare(connect: &Connect, webhooks: &[Webhook]) -> Result<Prepared, String> {
        let prepare = |webhook: &Webhook| match connect(webhook) {
            Ok(post) => Ok((webhook.clone(), post)),
            Err(error) => Err(format!("outbox.webhook `{}`: {}", webhook.name, redacted(webhook, &error.to_string()))),
        };
        webhooks.iter().map(prepare).collect::<Result<_, _>>().map(Prepared)
    }

    /// The endpoints as they are now, for whoever makes deliveries.
    pub fn table(&self) -> Arc<Table> {
        self.shared.table.load_full()
    }

    /// Deliveries were committed, and their endpoints' tasks may begin.
    pub fn added(&self, deliveries: &[Delivery]) {
        for delivery in deliveries {
            let key = Key { tenant: delivery.tenant.clone(), work: delivery.id.clone() };
            self.shared.state(&delivery.endpoint).add(key, delivery.due);
        }
    }

    /// Has the schedule of the store read anew: a disk that returned may have deliveries that no
    /// queue has.
    pub async fn look_again(&self) {
        // Without a supervisor nothing is delivered.
        _ = self.commands.send(Command::Scan).await;
    }

    /// How many deliveries wait, and how many of them are the tenant's.
    pub fn waiting(&self, tenant: &TenantName) -> (usize, usize) {
        let states = self.shared.all_states();
        states.iter().fold((0, 0), |(all, theirs), (_, state)| {
            let queue = state.queue();
            (all + queue.waiting(), theirs + queue.waiting_of(tenant))
        })
    }

    /// Takes up other settings. What waits for an endpoint that stays goes on to wait; what waits
    /// for one that is gone comes into quarantine. Ends when the new settings hold.
    pub async fn apply(&self, prepared: Prepared) {
        let (done, end) = oneshot::channel();
        if self.commands.send(Command::Apply(prepared, done)).await.is_ok() {
            let _ = end.await;
        }
    }

    /// Delivers what is due for so long at most, and ends. Tells how many deliveries are left; they
    /// are on the disk.
    pub async fn shutdown(&self, within: Duration) -> usize {
        let (done, end) = oneshot::channel();
        if self.commands.send(Command::Shutdown(within, done)).await.is_ok() {
            let _ = end.await;
        }
        let states = self.shared.all_states();
        states.iter().map(|(_, state)| state.queue().waiting()).sum()
    }

    /// Takes a delivery out of quarantine: it has all its attempts again, the first at once.
    ///
    /// # Errors
    /// When there is no such delivery, its endpoint is gone, or the store fails.
    pub async fn retry(&self, tenant: &TenantName, work: &WorkId) -> Result<(), RetryError> {
        let tools = &self.shared.tools;
        let mut delivery = tools.deliveries.quarantined(tenant, work)?.ok_or(RetryError::NotThere)?.delivery;
        if !self.table().has(&delivery.endpoint) {
            return Err(RetryError::NoEndpoint(delivery.endpoint));
        }
        // An operator's order is this replica's affair.
        (delivery.attempt, delivery.due, delivery.of) = (0, (tools.clock)(), None);
        tools.deliveries.commit(Step::new().deliver(delivery.clone()).take()).await?;
        self.shared.state(&delivery.endpoint).urge();
        self.added(&[delivery]);
        Ok(())
    }

    /// Has these deliveries' endpoints asked with one attempt now, for an operator.
    pub fn urge(&self, deliveries: &[Delivery]) {
        deliveries.iter().for_each(|delivery| self.shared.state(&delivery.endpoint).urge());
    }

    /// How each endpoint of the settings fares, in their order, and then those that are gone and
    /// have deliveries left.
    pub fn status(&self) -> Vec<EndpointStatus> {
        let table = self.table();
        let mut states: BTreeMap<_, _> = self.shared.all_states().into_iter().collect();
        let known: Vec<_> = table.names().filter_map(|name| Some(states.remove(name)?.status(name))).collect();
        let gone = states.iter().map(|(name, state)| state.status(name)).filter(|status| status.waiting > 0);
        known.into_iter().chain(gone).collect()
    }

    /// The clock that times of events are taken from.
    fn now(&self) -> Millis {
        (self.shared.tools.clock)()
    }
}

impl Shared {
    /// The state of an endpoint, whether or not it is in the settings.
    fn state(&self, name: &str) -> Arc<EndpointState> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        match states.get(name) {
            Some(state) => state.clone(),
            None => states.entry(name.into()).or_default().clone(),
        }
    }

    fn all_states(&self) -> Vec<(Arc<str>, Arc<EndpointState>)> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.iter().map(|(name, state)| (name.clone(), state.clone())).collect()
    }

    /// Forgets the states of endpoints that are gone and have nothing left.
    fn forget_gone(&self) {
        let table = self.table.load_full();
        let has_some = |state: &EndpointState| {
            let queue = state.queue();
            queue.waiting() + queue.under_way() > 0
        };
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.retain(|name, state| table.has(name) || has_some(state));
    }

    fn take_up(&self, prepared: &Prepared) {
        let webhooks: Vec<_> = prepared.0.iter().map(|(webhook, _)| webhook.clone()).collect();
        for webhook in &webhooks {
            self.state(&webhook.name);
            self.tools.metrics.webhook_known(&webhook.name);
        }
        self.table.store(Arc::new(Table::new(&webhooks)));
    }

    /// Reads the schedule of the store anew, page by page: deliveries that no queue has are added.
    async fn scan(&self) -> Result<(), StoreError> {
        let mut last = None;
        loop {
            let rows = self.tools.deliveries.scheduled(last.as_ref(), SCAN_PAGE)?;
            for Due { at, tenant, work, .. } in &rows {
                self.state(endpoint_of(work)).add(Key { tenant: tenant.clone(), work: work.clone() }, *at);
            }
            if rows.len() < SCAN_PAGE {
                return Ok(());
            }
            last = rows.into_iter().next_back();
            yield_now().await;
        }
    }
}

/// An endpoint that wants these events.
#[cfg(test)]
pub(super) fn test_table(events: &[&str]) -> Table {
    Table::new(&[testing::webhook("all", "https://a.example", &format!("events = {events:?}"))])
}

/// `text` without the webhook's secrets.
fn redacted(webhook: &Webhook, text: &str) -> String {
    let secrets: Secrets = webhook.secret_texts().into_iter().collect();
    let clean = secrets.redact(text.as_bytes());
    clean.map_or_else(|| text.to_owned(), |clean| String::from_utf8_lossy(&clean).into_owned())
}
