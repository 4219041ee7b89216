//! What operators ask of the outbox: lists, quarantine, replay, and how it fares. No tenant may see
//! the answers.

use std::{collections::BTreeMap, time::Duration};

use alloy_primitives::B256;

use super::{
    desk::{Sum, replay},
    handle::Outbox,
    record::{Delivery, Millis, Network, Quarantined, Record, StateName, TenantName, TxId, WorkId},
    relay::Question,
    step::Step,
    store::{self, Filter, Reader, StoreError},
    webhook::{EndpointStatus, RetryError},
};
use crate::domain::fleet::ReplicaName;

/// The most tenants that one answer looks at.
pub const MOST_TENANTS: usize = 10_000;
/// The most deliveries of one replay.
pub const MOST_REPLAYED: usize = 10_000;
/// Records that a replay reads at once.
const REPLAY_PAGE: usize = 500;
/// Deliveries that a replay writes with one step.
const REPLAY_STEP: usize = 100;

/// Which records a list shows. Empty fields let all through.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Only this tenant's.
    pub tenant: Option<TenantName>,
    /// Only this network's.
    pub network: Option<Network>,
    /// Only records in one of these states.
    pub states: Vec<StateName>,
}

/// A page of a list: in the order of tenant, network and hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The records.
    pub records: Vec<Record>,
    /// Where the next page begins: behind this one. `None`: there is no more.
    pub next: Option<TxId>,
}

/// A replay of events to endpoints that lost them.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The network.
    pub network: Network,
    /// Only this tenant's transactions.
    pub tenant: Option<TenantName>,
    /// Events that speak of blocks of this height or above.
    pub from: u64,
    /// To this endpoint alone.
    pub endpoint: Option<String>,
    /// Behind this place of the list of all transactions; `None`: from the first on.
    pub after: Option<TxId>,
    /// At most so many deliveries; never more than [`MOST_REPLAYED`]. All deliveries of one
    /// transaction go together, so the first transaction may have more.
    pub limit: usize,
    /// Whether the deliveries are only counted.
    pub is_dry: bool,
}

/// What a replay did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// The deliveries.
    pub deliveries: usize,
    /// The records that were looked at.
    pub records: usize,
    /// Where the next replay goes on, because the limit was reached: behind this transaction.
    pub next: Option<TxId>,
}

/// Why a replay did not begin or broke off.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// No network of this name has an outbox.
    #[error("there is no network `{0}` with execution nodes")]
    NoNetwork(Network),
    /// No endpoint has this name.
    #[error("there is no endpoint `{0}` in the settings")]
    NoEndpoint(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How the outbox fares.
#[derive(Clone, Debug)]
pub struct Health {
    /// Whether the store takes transactions.
    pub store: store::Health,
    /// The networks, in the order of their names.
    pub networks: Vec<NetworkHealth>,
    /// The endpoints.
    pub endpoints: Vec<EndpointStatus>,
    /// Deliveries on their way.
    pub deliveries: u64,
    /// Deliveries that were given up.
    pub quarantined: u64,
}

/// How the outbox of a network fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkHealth {
    /// The network.
    pub network: Network,
    /// Transactions whose life is not over.
    pub depth: u64,
    /// Length of their raw bytes.
    pub bytes: u64,
    /// Records that are kept though their life is over.
    pub kept: u64,
    /// Transactions on their way to nodes.
    pub in_flight: u64,
    /// When the oldest of those whose life is not over was accepted.
    pub oldest: Option<Millis>,
}

impl Outbox {
    /// A page of records, those behind `after`; at most `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn list(&self, filter: &ListFilter, after: Option<&TxId>, limit: usize) -> Result<List, StoreError> {
        let (filter, after) = (filter.clone(), after.cloned());
        self.shared.store.read_long(move |reader| list(reader, filter, after.as_ref(), limit)).await
    }

    /// The tenants that have a transaction of this hash on the network.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn owners(&self, network: &Network, hash: &B256) -> Result<Vec<TenantName>, StoreError> {
        let (network, hash) = (network.clone(), *hash);
        self.shared.store.read_long(move |reader| reader.owners(&network, &hash, MOST_TENANTS)).await
    }

    /// The networks that have an outbox, in the order of their names.
    pub fn networks(&self) -> Vec<Network> {
        self.shared.relays().keys().cloned().collect()
    }

    /// Deliveries that were given up, behind `after`, in the order of tenant and delivery; at most
    /// `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn quarantine(
        &self,
        tenant: Option<TenantName>,
        after: Option<(TenantName, WorkId)>,
        limit: usize,
    ) -> Result<Vec<Quarantined>, StoreError> {
        self.shared.store.read_long(move |reader| quarantine(reader, tenant, after.as_ref(), limit)).await
    }

    /// Takes a delivery out of quarantine: it has all its attempts again, the first at once.
    ///
    /// # Errors
    /// When there is no such delivery, its endpoint is gone, or the store fails.
    pub async fn retry(&self, tenant: &TenantName, work: &WorkId) -> Result<(), RetryError> {
        self.shared.webhooks.retry(tenant, work).await
    }

    /// Sends endpoints the events of transactions in blocks from a height on once more, with their
    /// old ids.
    ///
    /// # Errors
    /// When network or endpoint are unknown, or the store fails. What was written until then is
    /// sent.
    pub async fn replay(&self, wish: &Replay) -> Result<Replayed, ReplayError> {
        if self.relay(&wish.network).is_none() {
            return Err(ReplayError::NoNetwork(wish.network.clone()));
        }
        let table = self.shared.webhooks.table();
        if let Some(endpoint) = wish.endpoint.as_deref().filter(|endpoint| !table.has(endpoint)) {
            return Err(ReplayError::NoEndpoint(endpoint.to_owned()));
        }
        let limit = wish.limit.min(MOST_REPLAYED);
        let filter =
            ListFilter { tenant: wish.tenant.clone(), network: Some(wish.network.clone()), states: Vec::new() };
        let (mut done, mut after) = (Replayed::default(), wish.after.clone());
        loop {
            let page = self.list(&filter, after.as_ref(), REPLAY_PAGE).await?;
            let mut all = Vec::new();
            for record in &page.records {
                let made = replay(&*table, record, wish.from, wish.endpoint.as_deref(), self.now());
                if done.deliveries > 0 && done.deliveries + made.len() > limit {
                    done.next = after.clone();
                    break;
                }
                done.deliveries += made.len();
                done.records += 1;
                after = Some(record.id.clone());
                all.extend(made);
            }
            if !wish.is_dry {
                self.deliver(&all).await?;
            }
            if done.next.is_some() || page.next.is_none() {
                break;
            }
            after = page.next;
        }
        let Replay { network, from, endpoint, is_dry, .. } = wish;
        let (deliveries, records) = (done.deliveries, done.records);
        tracing::info!(%network, from, endpoint, is_dry, deliveries, records, "events were replayed to endpoints");
        Ok(done)
    }

    async fn deliver(&self, deliveries: &[Delivery]) -> Result<(), StoreError> {
        for some in deliveries.chunks(REPLAY_STEP) {
            let mut step = Step::new();
            some.iter().for_each(|delivery| _ = step.deliver(delivery.clone()));
            self.shared.store.commit(step).await?;
            self.shared.webhooks.urge(some);
            self.shared.webhooks.added(some);
        }
        Ok(())
    }

    /// How the outbox fares.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn health(&self) -> Result<Health, StoreError> {
        let relays: Vec<_> = self.shared.relays().iter().map(|(name, relay)| (name.clone(), relay.clone())).collect();
        let names = self.networks();
        let rows = move |reader: &Reader| {
            let mut oldest = BTreeMap::new();
            for network in names {
                // Rows of lives that are not over stand in the order of their acceptance.
                let first = reader.live(&network)?.next().transpose()?;
                oldest.insert(network, first.map(|record| record.accepted_at));
            }
            Ok((oldest, reader.delivery_count()?, reader.quarantine_count()?))
        };
        let (oldest, deliveries, quarantined) = self.shared.store.read_long(rows).await?;
        let networks = relays.into_iter().map(|(network, relay)| {
            let [depth, bytes, kept, in_flight] = relay.totals.read();
            let oldest = oldest.get(&network).copied().flatten();
            NetworkHealth { network, depth, bytes, kept, in_flight, oldest }
        });
        Ok(Health {
            store: self.shared.store.health().borrow().clone(),
            networks: networks.collect(),
            endpoints: self.shared.webhooks.status(),
            deliveries,
            quarantined,
        })
    }

    /// Why the outbox takes no transactions; `None` where it does.
    pub fn why_closed(&self) -> Option<String> {
        match &*self.shared.store.health().borrow() {
            store::Health::Writable => {
                let replicas = self.shared.replicas.as_ref()?;
                replicas.why_closed().map(|why| why.to_string())
            }
            store::Health::Full(why) => Some(format!("the outbox is full: {why}")),
            store::Health::Unwritable(why) => Some(format!("the outbox cannot be written: {why}")),
        }
    }

    /// The shards that this replica sees through, and the rows that wait for the bucket; `None`:
    /// the proxy is alone.
    pub fn shares(&self) -> Option<(Option<u8>, usize)> {
        self.shared.replicas.as_ref().map(|replicas| (replicas.shards(), replicas.waiting()))
    }

    /// The replica that sees a transaction through, as far as this one knows; `None`: none does at
    /// this moment, or the proxy is alone.
    pub fn owner(&self, record: &Record) -> Option<ReplicaName> {
        self.shared.replicas.as_ref()?.owner(record.shard())
    }

    /// Gives all shards to other replicas, as far as that goes within this time.
    pub async fn hand_over(&self, within: Duration) {
        if let Some(replicas) = &self.shared.replicas {
            replicas.hand_over(within).await;
        }
    }

    /// What each tenant has on each network.
    pub async fn tenants(&self) -> Vec<(Network, TenantName, Sum)> {
        let relays: Vec<_> = self.shared.relays().iter().map(|(name, relay)| (name.clone(), relay.clone())).collect();
        let mut found = Vec::new();
        for (network, relay) in relays {
            let sums = relay.tell(Question::Sums).await.unwrap_or_default();
            found.extend(sums.into_iter().map(|(tenant, sum)| (network.clone(), tenant, sum)));
        }
        found
    }
}

fn list(reader: &Reader, filter: ListFilter, after: Option<&TxId>, limit: usize) -> Result<List, StoreError> {
    let ListFilter { tenant, network, states } = filter;
    let of_tenant = Filter { network, states };
    if let Some(tenant) = &tenant {
        let page = reader.page(tenant, &of_tenant, after.filter(|after| after.tenant == *tenant), limit)?;
        return Ok(List { records: page.records, next: page.next });
    }
    let mut list = List { records: Vec::new(), next: None };
    let first = after.map(|after| after.tenant.clone());
    let tenants = first.clone().into_iter().chain(reader.tenants(first.as_ref(), MOST_TENANTS)?);
    for tenant in tenants {
        let after = after.filter(|after| after.tenant == tenant);
        let page = reader.page(&tenant, &of_tenant, after, limit - list.records.len())?;
        list.records.extend(page.records);
        if page.next.is_some() || list.records.len() >= limit {
            let last = list.records.last().map(|record| record.id.clone());
            list.next = page.next.or(last);
            break;
        }
    }
    Ok(list)
}

fn quarantine(
    reader: &Reader,
    tenant: Option<TenantName>,
    after: Option<&(TenantName, WorkId)>,
    limit: usize,
) -> Result<Vec<Quarantined>, StoreError> {
    let tenants = match tenant {
        Some(tenant) => vec![tenant],
        // Deliveries of a tenant outlive its records, so the schedule tells the tenants.
        None => reader.quarantine_tenants(MOST_TENANTS)?,
    };
    let mut found = Vec::new();
    for tenant in tenants.into_iter().filter(|tenant| after.is_none_or(|(first, _)| tenant >= first)) {
        let after = after.filter(|(of, _)| *of == tenant).map(|(_, work)| work);
        found.extend(reader.quarantine(&tenant, after, limit - found.len())?);
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}
