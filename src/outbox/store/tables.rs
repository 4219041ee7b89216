//! The tables of the file: typed keys in the order of their scans, the tenant first wherever a
//! tenant may ask. Values are JSON, which later versions may add to; the raw bytes are as sent.

use std::ops::Range;

use redb::TableDefinition;

use crate::outbox::record::{Record, TenantName, TxId};

/// The format of the file. A change that this version's readers cannot read takes the next number.
pub const FORMAT: u64 = 2;

/// The format without [`SUMS`] and [`GIVEN_UP`].
pub(super) const FORMAT_WITHOUT_SUMS: u64 = 1;

/// Tenant, network, hash.
pub(super) type TxKey = (&'static str, &'static str, &'static [u8; 32]);

/// Tenant, delivery.
pub(super) type WorkKey = (&'static str, &'static str);

/// Network, time of acceptance in Unix milliseconds, tenant, hash.
pub(super) type LiveKey = (&'static str, u64, &'static str, &'static [u8; 32]);

/// Network, hash, tenant.
pub(super) type GivenUpKey = (&'static str, &'static [u8; 32], &'static str);

/// Due time in Unix milliseconds, tenant, work. The time comes first, so that all that is due is a
/// range.
pub(super) type DueKey = (u64, &'static str, &'static str);

/// Name: number. See [`FORMAT_KEY`] and [`GROUP_KEY`].
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Raw bytes.
pub(super) const RAW: TableDefinition<TxKey, &[u8]> = TableDefinition::new("raw");
/// The state's name, and the record as JSON.
pub(super) const STATE: TableDefinition<TxKey, (&str, &[u8])> = TableDefinition::new("state");
/// Network, time of acceptance, tenant, hash of a record whose life is not over: length of the raw
/// bytes. With the time before the hash, rows of new transactions lie side by side: a commit writes
/// few pages of them.
pub(super) const LIVE: TableDefinition<LiveKey, u64> = TableDefinition::new("live");
/// Network, tenant: see [`Sums`](super::Sums), in the order of its fields. The start of a relay
/// reads no other row of a record whose life is over.
pub(super) const SUMS: TableDefinition<(&str, &str), (u64, u64, u64, u64)> = TableDefinition::new("sums");
/// Network, hash, tenant of a record that was given up: a block may have the transaction
/// nonetheless. With the hash before the tenant, the transactions of a block are a look each.
pub(super) const GIVEN_UP: TableDefinition<GivenUpKey, ()> = TableDefinition::new("given_up");
/// Deliveries as JSON.
pub(super) const DELIVERIES: TableDefinition<WorkKey, &[u8]> = TableDefinition::new("deliveries");
/// Tenant, event: the dedupe mark.
pub(super) const DEDUPE: TableDefinition<(&str, &str), ()> = TableDefinition::new("dedupe");
/// Quarantine records as JSON.
pub(super) const QUARANTINE: TableDefinition<WorkKey, &[u8]> = TableDefinition::new("quarantine");
/// Network: block as JSON.
pub(super) const CHECKPOINT: TableDefinition<&str, &[u8]> = TableDefinition::new("checkpoint");

/// In [`META`]: the format.
pub(super) const FORMAT_KEY: &str = "format";
/// In [`META`]: the number of the last group of steps.
pub(super) const GROUP_KEY: &str = "group";

/// The work that a due time is for. Each kind has a table of its own: a backlog of one kind does
/// not stand before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A transaction that no block has is given up.
    Deadline,
    /// A record whose life is over is dropped.
    Retention,
    /// A delivery is tried.
    Delivery,
    /// A delivery was given up: the time is that of its quarantine record.
    Quarantine,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Deadline, Self::Retention, Self::Delivery, Self::Quarantine];

    /// The table. The value is the length of raw bytes, where there are some.
    pub(super) fn table(self) -> TableDefinition<'static, DueKey, u64> {
        TableDefinition::new(match self {
            Self::Deadline => "due_deadline",
            Self::Retention => "due_retention",
            Self::Delivery => "due_delivery",
            Self::Quarantine => "due_quarantine",
        })
    }
}

/// The key of a transaction.
pub(super) fn key(id: &TxId) -> (&str, &str, &[u8; 32]) {
    (id.tenant.as_str(), id.network.as_str(), &id.hash.0)
}

/// The row of a record whose life is not over.
pub(super) fn live_key(record: &Record) -> (&str, u64, &str, &[u8; 32]) {
    let TxId { tenant, network, hash } = &record.id;
    (network.as_str(), record.accepted_at.0, tenant.as_str(), &hash.0)
}

/// The row of a record that was given up.
pub(super) fn given_up_key(id: &TxId) -> (&str, &[u8; 32], &str) {
    (id.network.as_str(), &id.hash.0, id.tenant.as_str())
}

/// The row of a record in the schedule: kind and time. `None` while a block has the transaction.
pub(super) fn due_of(record: &Record) -> Option<(Kind, u64)> {
    if record.state.is_over() {
        Some((Kind::Retention, record.keep_until.map_or(u64::MAX, |at| at.0)))
    } else {
        record.state.is_pending().then_some((Kind::Deadline, record.deadline.0))
    }
}

/// The first key behind all that begin with `text`'s own. No name holds the byte 0.
pub(super) fn behind(text: &str) -> String {
    format!("{text}\0")
}

/// The keys of a tenant's work: those behind `after`.
pub(super) fn work_of<'a>(tenant: &'a TenantName, after: &'a str, end: &'a str) -> Range<(&'a str, &'a str)> {
    (tenant.as_str(), after)..(end, "")
}
