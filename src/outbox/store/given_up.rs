//! The transactions that were given up and are kept: a block may have one of them nonetheless.

use std::ops::Bound::{self, Excluded, Included};

use alloy_primitives::B256;

use crate::outbox::record::{Network, Record, TenantName, TxId};

use super::{
    error::StoreError,
    reader::{Reader, tenant_of},
    tables::{GIVEN_UP, behind},
};

/// Behind the names of all tenants.
const LAST: &str = "\u{10ffff}";

/// A transaction among those of a network that were given up, which are in the order of hash and
/// tenant.
pub type GivenUpPlace = (B256, TenantName);

impl Reader {
    /// Whether transactions of a network were given up.
    pub fn has_given_up(&self, network: &Network) -> Result<bool, StoreError> {
        Ok(!self.given_up(network, None, None, 1)?.is_empty())
    }

    /// The records of those of these transactions that were given up: a look for each hash.
    pub fn given_up_among(&self, network: &Network, hashes: &[B256]) -> Result<Vec<Record>, StoreError> {
        let rows = self.transaction().open_table(GIVEN_UP)?;
        let mut found = Vec::new();
        for hash in hashes {
            let of = network.as_str();
            for row in rows.range((of, &hash.0, "")..(of, &hash.0, LAST))? {
                let tenant = tenant_of(row?.0.value().2)?;
                found.extend(self.record(&TxId { tenant, network: network.clone(), hash: *hash })?);
            }
        }
        Ok(found)
    }

    /// The transactions of a network that were given up, behind `after`, up to `end` and that one
    /// included, or all up to the last one; at most `limit`.
    pub fn given_up(
        &self,
        network: &Network,
        after: Option<&GivenUpPlace>,
        end: Option<&GivenUpPlace>,
        limit: usize,
    ) -> Result<Vec<GivenUpPlace>, StoreError> {
        let (of, behind) = (network.as_str(), behind(network.as_str()));
        let key = |(hash, tenant): &'_ GivenUpPlace| (of, hash.0, tenant.as_str().to_owned());
        let (after, end) = (after.map(key), end.map(key));
        let first: Bound<(&str, &[u8; 32], &str)> = match &after {
            Some((of, hash, tenant)) => Excluded((of, hash, tenant)),
            None => Included((of, &[0; 32], "")),
        };
        let last = match &end {
            Some((of, hash, tenant)) => Included((*of, hash, &**tenant)),
            None => Excluded((&*behind, &[0; 32], "")),
        };
        if after.is_some() && end.is_some() && after >= end {
            return Ok(Vec::new());
        }
        let rows = self.transaction().open_table(GIVEN_UP)?.range((first, last))?.take(limit);
        rows.map(|row| {
            let (row, _) = row?;
            let (_, hash, tenant) = row.value();
            Ok((hash.into(), tenant_of(tenant)?))
        })
        .collect()
    }
}
