//! The nonces of transactions that other replicas see through, so that a client that asks here for
//! its next nonce gets the one behind them, and one that uses a nonce of a block again hears that.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};

use crate::outbox::record::{Record, State, TenantName};

/// Transactions that wait, or are in a block that is not final: tenant, sender, nonce, hash;
/// and the one of this nonce that a block has.
#[derive(Debug, Default)]
pub(super) struct Foreign(BTreeMap<(TenantName, Address, u64, B256), Option<B256>>);

impl Foreign {
    /// A record has taken the place of `old`.
    pub(super) fn change(&mut self, old: Option<&Record>, new: &Record) {
        let place = |record: &Record| (record.id.tenant.clone(), record.sender, record.nonce, record.id.hash);
        if let Some(old) = old {
            self.0.remove(&place(old));
        }
        if !new.state.is_over() {
            let in_block = match &new.state {
                State::Replaced { by, .. } => Some(*by),
                state => state.is_in_block().then_some(new.id.hash),
            };
            self.0.insert(place(new), in_block);
        }
    }

    /// The first nonce from `count` on for which the tenant has no transaction of this sender.
    pub(super) fn next_nonce(&self, tenant: &TenantName, sender: Address, count: u64) -> u64 {
        let [first, last] = [(count, B256::ZERO), (u64::MAX, B256::repeat_byte(0xff))];
        let [first, last] = [first, last].map(|(nonce, hash)| (tenant.clone(), sender, nonce, hash));
        let used = self.0.range(first..=last).map(|((_, _, nonce, _), _)| *nonce);
        used.fold(count, |next, nonce| if nonce == next { next.saturating_add(1) } else { next })
    }

    /// The transaction with which a block has used this nonce.
    pub(super) fn used_by(&self, tenant: &TenantName, sender: Address, nonce: u64) -> Option<B256> {
        let [first, last] = [B256::ZERO, B256::repeat_byte(0xff)].map(|hash| (tenant.clone(), sender, nonce, hash));
        self.0.range(first..=last).find_map(|(_, in_block)| *in_block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{record::BlockId, relay::test_record};

    #[test]
    fn the_next_nonce_is_behind_those_of_other_replicas() {
        let records: Vec<Record> = [5, 6, 8].map(|nonce| test_record(nonce, State::Sent)).into();
        let mut foreign = Foreign::default();
        records.iter().for_each(|record| foreign.change(None, record));
        let (tenant, sender) = (records[0].id.tenant.clone(), records[0].sender);
        assert_eq!([4, 5, 6, 8].map(|count| foreign.next_nonce(&tenant, sender, count)), [4, 7, 7, 9]);
        assert_eq!(foreign.used_by(&tenant, sender, 6), None);
        let mined = test_record(6, State::Mined { block: BlockId { number: 1, hash: B256::ZERO } });
        foreign.change(Some(&records[1]), &mined);
        assert_eq!([5, 6, 7].map(|nonce| foreign.used_by(&tenant, sender, nonce)), [None, Some(mined.id.hash), None]);
        assert_eq!(foreign.used_by(&tenant, Address::ZERO, 6), None);
        let over = Record { state: State::Expired, ..records[1].clone() };
        foreign.change(Some(&records[1]), &over);
        assert_eq!(foreign.next_nonce(&tenant, sender, 5), 6);
        assert_eq!(foreign.next_nonce(&"b".parse().unwrap(), sender, 5), 5, "of another tenant");
        assert_eq!(foreign.next_nonce(&tenant, Address::ZERO, 5), 5, "of another sender");
    }
}
