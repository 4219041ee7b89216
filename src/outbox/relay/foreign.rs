//! The nonces of transactions that other replicas see through, so that a client that asks here for
//! its next nonce gets the one behind them.

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256};

use crate::outbox::record::{Record, TenantName};

/// Transactions that wait, or are in a block that is not final: tenant, sender, nonce, hash.
#[derive(Debug, Default)]
pub(super) struct Foreign(BTreeSet<(TenantName, Address, u64, B256)>);

impl Foreign {
    /// A record has taken the place of `old`.
    pub(super) fn change(&mut self, old: Option<&Record>, new: &Record) {
        let place = |record: &Record| (record.id.tenant.clone(), record.sender, record.nonce, record.id.hash);
        if let Some(old) = old {
            self.0.remove(&place(old));
        }
        if !new.state.is_over() {
            self.0.insert(place(new));
        }
    }

    /// The first nonce from `count` on for which the tenant has no transaction of this sender.
    pub(super) fn next_nonce(&self, tenant: &TenantName, sender: Address, count: u64) -> u64 {
        let [first, last] = [(count, B256::ZERO), (u64::MAX, B256::repeat_byte(0xff))];
        let [first, last] = [first, last].map(|(nonce, hash)| (tenant.clone(), sender, nonce, hash));
        let used = self.0.range(first..=last).map(|(_, _, nonce, _)| *nonce);
        used.fold(count, |next, nonce| if nonce == next { next.saturating_add(1) } else { next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{record::State, relay::test_record};

    #[test]
    fn the_next_nonce_is_behind_those_of_other_replicas() {
        let records: Vec<Record> = [5, 6, 8].map(|nonce| test_record(nonce, State::Sent)).into();
        let mut foreign = Foreign::default();
        records.iter().for_each(|record| foreign.change(None, record));
        let (tenant, sender) = (records[0].id.tenant.clone(), records[0].sender);
        assert_eq!([4, 5, 6, 8].map(|count| foreign.next_nonce(&tenant, sender, count)), [4, 7, 7, 9]);
        let over = Record { state: State::Expired, ..records[1].clone() };
        foreign.change(Some(&records[1]), &over);
        assert_eq!(foreign.next_nonce(&tenant, sender, 5), 6);
        assert_eq!(foreign.next_nonce(&"b".parse().unwrap(), sender, 5), 5, "of another tenant");
        assert_eq!(foreign.next_nonce(&tenant, Address::ZERO, 5), 5, "of another sender");
    }
}
