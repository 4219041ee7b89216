//! The settings of a desk.

use std::collections::BTreeMap;

use crate::{
    config::Ack,
    outbox::{id::Network, record::TenantName},
};

/// The settings of one network's desk. A reload replaces them as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The network.
    pub network: Network,
    /// What a client waits for before it gets the hash.
    pub ack: Ack,
    /// How long a client waits for a node's word before it gets the hash all the same, in
    /// milliseconds.
    pub hold: u64,
    /// Blocks, its own included, that make a transaction confirmed.
    pub confirmations: u64,
    /// Blocks after which the nodes are asked whether they still know a transaction.
    pub resend_blocks: u64,
    /// How long a transaction may wait for a block before it is given up, in milliseconds.
    pub deadline: u64,
    /// How long the record of a life that is over is kept, in milliseconds.
    pub keep: u64,
    /// How much is held.
    pub bounds: Bounds,
    /// Tenants with rules of their own.
    pub tenants: BTreeMap<TenantName, TenantTerms>,
    /// Transactions of one tenant on their way to nodes at once, at most.
    pub in_flight: usize,
}

/// What a tenant has in the place of what holds for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantTerms {
    /// See [`Terms::confirmations`].
    pub confirmations: Option<u64>,
    /// See [`Terms::resend_blocks`].
    pub resend_blocks: Option<u64>,
    /// See [`Terms::deadline`].
    pub deadline: Option<u64>,
    /// See [`Bounds::tenant_pending`].
    pub pending: Option<usize>,
}

impl Terms {
    fn own(&self, tenant: &TenantName) -> TenantTerms {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }

    /// Blocks, its own included, that make a transaction of the tenant's confirmed; at least 1.
    pub(super) fn confirmations_of(&self, tenant: &TenantName) -> u64 {
        self.own(tenant).confirmations.unwrap_or(self.confirmations).max(1)
    }

    /// The fewest blocks, its own included, that make a transaction confirmed, whoever's it is.
    pub(super) fn least_confirmations(&self) -> u64 {
        let own = self.tenants.values().filter_map(|own| own.confirmations);
        own.fold(self.confirmations, u64::min).max(1)
    }

    /// Blocks after which the nodes are asked for a transaction of the tenant's; at least 1.
    pub(super) fn resend_blocks_of(&self, tenant: &TenantName) -> u64 {
        self.own(tenant).resend_blocks.unwrap_or(self.resend_blocks).max(1)
    }

    /// How long a transaction of the tenant's may wait for a block, in milliseconds.
    pub(super) fn deadline_of(&self, tenant: &TenantName) -> u64 {
        self.own(tenant).deadline.unwrap_or(self.deadline)
    }

    /// Transactions of the tenant whose life is not over, at most, and the setting that says so.
    pub(super) fn pending_of(&self, tenant: &TenantName) -> (&'static str, usize) {
        match self.own(tenant).pending {
            Some(own) => ("outbox.tenant.max_pending", own),
            None => ("outbox.max_pending_per_tenant", self.bounds.tenant_pending),
        }
    }
}

/// How much a desk holds, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Transactions whose life is not over.
    pub pending: usize,
    /// The same of one tenant.
    pub tenant_pending: usize,
    /// Bytes of all records with their raw transactions.
    pub bytes: usize,
    /// The same of one tenant.
    pub tenant_bytes: usize,
}
