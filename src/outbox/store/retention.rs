//! Rows that were kept long enough: records whose life is over, and quarantine records.

use std::collections::BTreeMap;

use crate::outbox::{
    record::{Millis, Network, TxId},
    step::Step,
};

use super::{error::StoreError, reader::Reader, tables::Kind};

/// A batch of rows that may go. Where a batch is full, another may follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overdue {
    /// Transactions of networks that have a desk, with the length of their raw bytes. The desk
    /// drops them, and alone knows whether one of them has begun a new life meanwhile.
    pub of_desks: BTreeMap<Network, Vec<(TxId, usize)>>,
    /// Drops all others: transactions of networks that are no longer configured, and quarantine
    /// records.
    pub step: Step,
    /// Whether there may be more.
    pub is_full: bool,
}

impl Reader {
    /// The records that may be dropped at `now`, and the quarantine records that were made until
    /// `quarantined_until`; at most `limit` of each.
    pub fn overdue(
        &self,
        now: Millis,
        quarantined_until: Millis,
        has_desk: impl Fn(&Network) -> bool,
        limit: usize,
    ) -> Result<Overdue, StoreError> {
        let mut overdue = Overdue::default();
        let records = self.due(Kind::Retention, now, limit)?;
        let given_up = self.due(Kind::Quarantine, quarantined_until, limit)?;
        overdue.is_full = records.len() == limit || given_up.len() == limit;
        for row in records {
            let Some(id) = row.transaction() else {
                return Err(StoreError::Malformed(format!("due_retention: {} is no transaction", row.work)));
            };
            if has_desk(&id.network) {
                let bytes = usize::try_from(row.bytes).unwrap_or(usize::MAX);
                overdue.of_desks.entry(id.network.clone()).or_default().push((id, bytes));
            } else {
                overdue.step.remove(id);
            }
        }
        for row in given_up {
            overdue.step.unquarantine(row.tenant, row.work);
        }
        Ok(overdue)
    }
}
