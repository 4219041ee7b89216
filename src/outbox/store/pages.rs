//! Lists for operators and tenants: a tenant's records page by page, the tenants, and their sums.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::B256;
use redb::ReadableTableMetadata as _;

use crate::outbox::record::{Delivery, Millis, Network, Record, StateName, TenantName, TxId};

use super::{
    apply::read,
    error::StoreError,
    reader::{Due, Reader, tenant_of},
    tables::{DELIVERIES, Kind, QUARANTINE, SUMS, behind, key},
};

/// The most rows that one page looks at. Where few of them match, a page has fewer records than its
/// limit, and says where to go on.
pub const MOST_LOOKED_AT: usize = 10_000;

/// The records that a page shows. An empty list of states means all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this network's.
    pub network: Option<Network>,
    /// Only records in one of these states.
    pub states: Vec<StateName>,
}

/// Some of a tenant's records, in the order of network and hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The records.
    pub records: Vec<Record>,
    /// Where the next page begins: behind this one. `None`: there is no more.
    pub next: Option<TxId>,
}

/// A tenant's share of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Records whose life is not over.
    pub live: u64,
    /// Length of the raw bytes of these.
    pub live_bytes: u64,
    /// Records that are kept though their life is over.
    pub over: u64,
    /// Length of the raw bytes of these.
    pub over_bytes: u64,
}

impl Sums {
    pub(super) fn of_row((live, live_bytes, over, over_bytes): (u64, u64, u64, u64)) -> Self {
        Self { live, live_bytes, over, over_bytes }
    }

    pub(super) fn row(self) -> (u64, u64, u64, u64) {
        let Self { live, live_bytes, over, over_bytes } = self;
        (live, live_bytes, over, over_bytes)
    }

    /// Counts a record with raw bytes of this length.
    pub(super) fn add(&mut self, is_over: bool, length: u64) {
        let (count, bytes) = self.parts(is_over);
        (*count, *bytes) = (*count + 1, *bytes + length);
    }

    /// Counts a record no more.
    pub(super) fn remove(&mut self, is_over: bool, length: u64) {
        let (count, bytes) = self.parts(is_over);
        (*count, *bytes) = (count.saturating_sub(1), bytes.saturating_sub(length));
    }

    fn parts(&mut self, is_over: bool) -> (&mut u64, &mut u64) {
        if is_over { (&mut self.over, &mut self.over_bytes) } else { (&mut self.live, &mut self.live_bytes) }
    }
}

impl Reader {
    /// A page of a tenant's records: at most `limit`, those behind `after`. `after` must be the
    /// tenant's; of another tenant's nothing is shown.
    pub fn page(
        &self,
        tenant: &TenantName,
        filter: &Filter,
        after: Option<&TxId>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let mut page = Page { records: Vec::new(), next: None };
        let tenant_end = behind(tenant.as_str());
        let network_end = filter.network.as_ref().map(|network| behind(network.as_str()));
        let end = match &network_end {
            Some(end) => (tenant.as_str(), &**end, &[0; 32]),
            None => (&*tenant_end, "", &[0; 32]),
        };
        let first = (tenant.as_str(), filter.network.as_ref().map_or("", Network::as_str), &[0; 32]);
        let start = after.map_or(first, |after| first.max(key(after)));
        if start > end {
            return Ok(page);
        }
        let mut last = None;
        for (looked_at, row) in self.places().range(start..end)?.enumerate() {
            let (row, place) = row?;
            let (_, network, hash) = row.value();
            if Some(row.value()) == after.map(key) {
                continue;
            }
            if page.records.len() >= limit || looked_at > MOST_LOOKED_AT {
                page.next = last;
                break;
            }
            if let Some(found) = self.records().get(place.value())? {
                let (state, _, json) = found.value();
                if filter.states.is_empty() || filter.states.iter().any(|wanted| wanted.as_str() == state) {
                    page.records.push(read("records", json)?);
                }
            }
            last = Some(TxId { tenant: tenant.clone(), network: network.into(), hash: hash.into() });
        }
        Ok(page)
    }

    /// The tenants that have records, in order, behind `after`; at most `limit`. For operators.
    pub fn tenants(&self, after: Option<&TenantName>, limit: usize) -> Result<Vec<TenantName>, StoreError> {
        let mut found = Vec::new();
        let mut from = after.map(|after| behind(after.as_str())).unwrap_or_default();
        while found.len() < limit {
            // One look for each tenant: the first row behind all of the last one's.
            let Some(row) = self.places().range((&*from, "", &[0; 32])..)?.next() else { break };
            let (row, _) = row?;
            let (tenant, ..) = row.value();
            from = behind(tenant);
            found.push(tenant_of(tenant)?);
        }
        Ok(found)
    }

    /// The networks that have records, of the first `limit` tenants, in order: a look for each
    /// network of a tenant.
    pub fn networks(&self, limit: usize) -> Result<Vec<Network>, StoreError> {
        let mut found = BTreeSet::new();
        for tenant in self.tenants(None, limit)? {
            let (tenant, end) = (tenant.as_str(), behind(tenant.as_str()));
            let mut from = String::new();
            while let Some(row) = self.places().range((tenant, &*from, &[0; 32])..(&*end, "", &[0; 32]))?.next() {
                let (row, _) = row?;
                let (_, network, _) = row.value();
                from = behind(network);
                found.insert(Network::from(network));
            }
        }
        Ok(found.into_iter().collect())
    }

    /// The quarantine records beyond the number `most`, the oldest first; at most `limit`.
    pub fn excess_quarantine(&self, most: usize, limit: usize) -> Result<Vec<Due>, StoreError> {
        let count = usize::try_from(self.quarantine_count()?).unwrap_or(usize::MAX);
        match count.saturating_sub(most).min(limit) {
            0 => Ok(Vec::new()),
            excess => self.due(Kind::Quarantine, Millis(u64::MAX), excess),
        }
    }

    /// The tenants that have a transaction with this hash, among the first `limit` tenants: a look
    /// for each. For operators: no tenant may see the answer.
    pub fn owners(&self, network: &Network, hash: &B256, limit: usize) -> Result<Vec<TenantName>, StoreError> {
        let mut owners = self.tenants(None, limit)?;
        let mut failure = None;
        owners.retain(|tenant| match self.places().get((tenant.as_str(), network.as_str(), &hash.0)) {
            Ok(found) => found.is_some(),
            Err(error) => {
                failure = Some(error);
                false
            }
        });
        failure.map_or(Ok(owners), |error| Err(error.into()))
    }

    /// All tenants' sums on a network.
    pub fn sums(&self, network: &Network) -> Result<BTreeMap<TenantName, Sums>, StoreError> {
        let (start, end) = (network.as_str(), behind(network.as_str()));
        let rows = self.transaction().open_table(SUMS)?.range((start, "")..(&*end, ""))?;
        rows.map(|row| {
            let (row, sums) = row?;
            Ok((tenant_of(row.value().1)?, Sums::of_row(sums.value())))
        })
        .collect()
    }

    /// The tenants that have deliveries in quarantine, in order; at most `limit`.
    pub fn quarantine_tenants(&self, limit: usize) -> Result<Vec<TenantName>, StoreError> {
        let rows = self.transaction().open_table(QUARANTINE)?;
        let mut found = Vec::new();
        let mut from = String::new();
        while found.len() < limit {
            let Some(row) = rows.range((&*from, "")..)?.next() else { break };
            let (row, _) = row?;
            let (tenant, _) = row.value();
            from = behind(tenant);
            found.push(tenant_of(tenant)?);
        }
        Ok(found)
    }

    /// The transactions of which deliveries are on their way.
    pub fn awaited(&self) -> Result<BTreeSet<TxId>, StoreError> {
        let mut found = BTreeSet::new();
        for row in self.transaction().open_table(DELIVERIES)?.range(("", "")..)? {
            let delivery: Delivery = read("deliveries", row?.1.value())?;
            found.extend(delivery.transaction());
        }
        Ok(found)
    }

    /// How many deliveries are on their way, of all tenants.
    pub fn delivery_count(&self) -> Result<u64, StoreError> {
        Ok(self.transaction().open_table(DELIVERIES)?.len()?)
    }

    /// How many quarantine records there are, of all tenants.
    pub fn quarantine_count(&self) -> Result<u64, StoreError> {
        Ok(self.transaction().open_table(QUARANTINE)?.len()?)
    }
}
