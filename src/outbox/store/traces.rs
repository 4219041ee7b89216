//! The rows that follow from a record, in tables besides its own. A record's row keeps them too, so
//! that a new record can take the place of an old one without a look into the old one's JSON.

use crate::outbox::record::{Record, TxId};

use super::{
    error::StoreError,
    tables::{Kind, LiveKey, TracesRow},
};

/// What other tables have of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traces {
    /// Its acceptance, in Unix milliseconds: the place among those whose life is not over.
    pub(super) accepted_at: u64,
    /// Its row in the schedule: kind, and time in Unix milliseconds. `None` while a block has the
    /// transaction.
    pub(super) due: Option<(Kind, u64)>,
    /// Length of the raw bytes.
    pub(super) length: u64,
    /// Whether the transaction was given up.
    pub(super) is_given_up: bool,
}

impl Traces {
    pub(super) fn of(record: &Record) -> Self {
        let due = if record.state.is_over() {
            Some((Kind::Retention, record.keep_until.map_or(u64::MAX, |at| at.0)))
        } else {
            record.state.is_pending().then_some((Kind::Deadline, record.deadline.0))
        };
        let is_given_up = record.state.is_given_up();
        Self { accepted_at: record.accepted_at.0, due, length: record.bytes as u64, is_given_up }
    }

    pub(super) fn of_row(row: <TracesRow as redb::Value>::SelfType<'_>) -> Result<Self, StoreError> {
        let (accepted_at, due, length, is_given_up) = row;
        let due = match due {
            Some((kind, at)) => {
                let found = Kind::ALL.get(usize::from(kind));
                let kind =
                    *found.ok_or_else(|| StoreError::Malformed(format!("records: no schedule has number {kind}")))?;
                Some((kind, at))
            }
            None => None,
        };
        Ok(Self { accepted_at, due, length, is_given_up })
    }

    pub(super) fn row(self) -> <TracesRow as redb::Value>::SelfType<'static> {
        (self.accepted_at, self.due.map(|(kind, at)| (kind as u8, at)), self.length, self.is_given_up)
    }

    /// Whether the life of the transaction is over.
    pub(super) fn is_over(&self) -> bool {
        self.due.is_some_and(|(kind, _)| kind == Kind::Retention)
    }

    /// The row among those whose life is not over.
    pub(super) fn live_key<'a>(&self, id: &'a TxId) -> <LiveKey as redb::Value>::SelfType<'a> {
        (id.network.as_str(), self.accepted_at, id.tenant.as_str(), &id.hash.0)
    }
}
