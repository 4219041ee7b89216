//! The transactions that were given up and are kept: a block may have one of them nonetheless.

use std::collections::HashMap;

use alloy_primitives::B256;

use crate::outbox::{
    record::{Network, Record, State, TenantName, TxId},
    step::{Step, Write},
};

/// Who has given up a transaction of this hash.
#[derive(Debug, Default)]
pub(super) struct GivenUp(HashMap<B256, Vec<TenantName>>);

impl GivenUp {
    pub(super) fn new(found: Vec<(B256, TenantName)>) -> Self {
        let mut all = Self::default();
        for (hash, tenant) in found {
            all.0.entry(hash).or_default().push(tenant);
        }
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The life of a transaction is over.
    pub(super) fn ended(&mut self, record: &Record) {
        if matches!(record.state, State::Refused { .. } | State::Expired | State::Cancelled) {
            let tenants = self.0.entry(record.id.hash).or_default();
            if !tenants.contains(&record.id.tenant) {
                tenants.push(record.id.tenant.clone());
            }
        }
    }

    /// Takes the records that a step removes off the list.
    pub(super) fn removed(&mut self, step: &Step) {
        for write in step.writes() {
            if let Write::Remove(id) = write
                && let Some(tenants) = self.0.get_mut(&id.hash)
            {
                tenants.retain(|tenant| *tenant != id.tenant);
                if tenants.is_empty() {
                    self.0.remove(&id.hash);
                }
            }
        }
    }

    /// The transactions of this hash that were given up.
    pub(super) fn of<'a>(&'a self, network: &'a Network, hash: &'a B256) -> impl Iterator<Item = TxId> + 'a {
        let tenants = self.0.get(hash).into_iter().flatten();
        tenants.map(|tenant| TxId { tenant: tenant.clone(), network: network.clone(), hash: *hash })
    }
}
