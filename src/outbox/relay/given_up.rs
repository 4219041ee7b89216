//! The transactions that were given up and are kept: a block may have one of them nonetheless.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Excluded, Unbounded},
};

use alloy_primitives::B256;

use crate::outbox::{
    record::{Network, Record, TenantName, TxId},
    step::{Step, Write},
};

/// The transactions that are asked for behind each block, while some are to be.
const ASKED_PER_BLOCK: usize = 32;

/// The transactions that were given up.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    /// The tenants that have given up a transaction of this hash.
    of: BTreeMap<B256, Vec<TenantName>>,
    /// Each tenant's name once, for all of its transactions.
    names: BTreeSet<TenantName>,
    /// Blocks came untold: so many hashes are still to be asked for, those behind `after` first.
    unasked: usize,
    after: B256,
}

impl GivenUp {
    pub(super) fn new(found: Vec<(B256, TenantName)>) -> Self {
        let mut all = Self::default();
        for (hash, tenant) in found {
            all.add(hash, &tenant);
        }
        all
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The life of a transaction is over.
    pub(super) fn ended(&mut self, record: &Record) {
        if record.state.is_given_up() {
            self.add(record.id.hash, &record.id.tenant);
        }
    }

    fn add(&mut self, hash: B256, tenant: &TenantName) {
        let tenants = self.of.entry(hash).or_default();
        if !tenants.contains(tenant) {
            let name = self.names.get(tenant).unwrap_or(tenant).clone();
            self.names.insert(name.clone());
            // A list that grows by itself takes room for four.
            tenants.reserve_exact(1);
            tenants.push(name);
        }
    }

    /// Blocks came untold, and each may have one of these.
    pub(super) fn ask_for_all(&mut self) {
        self.unasked = self.of.len();
    }

    /// The hashes that the nodes are to be asked for next, in turn.
    pub(super) fn next_asked(&mut self) -> Vec<B256> {
        let count = self.unasked.min(ASKED_PER_BLOCK).min(self.of.len());
        let behind = self.of.range((Excluded(self.after), Unbounded));
        let found: Vec<B256> = behind.chain(&self.of).take(count).map(|(hash, _)| *hash).collect();
        self.unasked = if self.of.is_empty() { 0 } else { self.unasked - count };
        self.after = found.last().copied().unwrap_or(self.after);
        found
    }

    /// Takes the records that a step removes off the list.
    pub(super) fn removed(&mut self, step: &Step) {
        for write in step.writes() {
            if let Write::Remove(id) = write
                && let Some(tenants) = self.of.get_mut(&id.hash)
            {
                tenants.retain(|tenant| *tenant != id.tenant);
                if tenants.is_empty() {
                    self.of.remove(&id.hash);
                }
            }
        }
    }

    /// The transactions of this hash that were given up.
    pub(super) fn of<'a>(&'a self, network: &'a Network, hash: &'a B256) -> impl Iterator<Item = TxId> + 'a {
        let tenants = self.of.get(hash).into_iter().flatten();
        tenants.map(|tenant| TxId { tenant: tenant.clone(), network: network.clone(), hash: *hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn one_that_was_given_up_takes_little_memory() {
        const COUNT: usize = 100_000;
        let test = "outbox::relay::given_up::tests::one_that_was_given_up_takes_little_memory";
        let all = || {
            let mut given_up = GivenUp::default();
            for number in 0..COUNT {
                given_up.add(B256::from(alloy_primitives::U256::from(number)), &TenantName::default());
            }
            given_up
        };
        let bytes = crate::outbox::weighing::bytes_of_each(test, COUNT, all);
        assert!(bytes <= 224, "{bytes}");
    }

    #[test]
    fn all_are_asked_for_in_turn_once() {
        let hash = |name: usize| B256::from(alloy_primitives::U256::from(name));
        let mut given_up = GivenUp::new((1..=70).map(|name| (hash(name), TenantName::default())).collect());
        assert!(given_up.next_asked().is_empty(), "no block came untold");
        given_up.ask_for_all();
        let asked: Vec<Vec<B256>> = (0..4).map(|_| given_up.next_asked()).collect();
        assert_eq!(asked.iter().map(Vec::len).collect::<Vec<_>>(), [32, 32, 6, 0]);
        let mut all = asked.concat();
        all.dedup();
        assert_eq!(all, (1..=70).map(hash).collect::<Vec<_>>());
        // Blocks that go on to come untold keep none from its turn.
        given_up.ask_for_all();
        let first = given_up.next_asked();
        given_up.ask_for_all();
        let second = given_up.next_asked();
        assert!(first.iter().all(|hash| !second.contains(hash)));
    }
}
