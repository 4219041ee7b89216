//! The tables of the file: typed keys in the order of their scans, the tenant first wherever a
//! tenant may ask. Values are JSON, which later versions may add to; the raw bytes are as sent.
//!
//! Records and raw bytes stand in the order of acceptance, under numbers that [`PLACES`] gives to
//! them. So the rows of transactions that are accepted, sent or mined together share pages, and a
//! commit writes few pages. Under their hashes each row would be a page of its own.

use std::ops::Range;

use redb::TableDefinition;

use crate::outbox::record::{TenantName, TxId};

/// The format of the file. A change that this version's readers cannot read takes the next number.
pub const FORMAT: u64 = 3;

/// The last format with records and raw bytes under the hashes of their transactions. Of those, the
/// first format had no [`SUMS`] and no [`GIVEN_UP`].
pub(super) const LAST_BY_HASH: u64 = 2;

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

/// The state's name, what other tables have of the record, and the record as JSON.
pub(super) type RecordRow = (&'static str, TracesRow, &'static [u8]);

/// See [`Traces`](super::traces::Traces).
pub(super) type TracesRow = (u64, Option<(u8, u64)>, u64, bool);

/// Name: number. See [`FORMAT_KEY`], [`GROUP_KEY`], [`ROW_KEY`] and
/// [`SHARED_KEY`].
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// The number of a transaction's rows in [`RECORDS`] and [`BYTES`].
pub(super) const PLACES: TableDefinition<TxKey, u64> = TableDefinition::new("places");
/// Records.
pub(super) const RECORDS: TableDefinition<u64, RecordRow> = TableDefinition::new("records");
/// Raw bytes.
pub(super) const BYTES: TableDefinition<u64, &[u8]> = TableDefinition::new("bytes");
/// Raw bytes, up to [`LAST_BY_HASH`].
pub(super) const OLD_RAW: TableDefinition<TxKey, &[u8]> = TableDefinition::new("raw");
/// The state's name and the record as JSON, up to [`LAST_BY_HASH`].
pub(super) const OLD_STATE: TableDefinition<TxKey, (&str, &[u8])> = TableDefinition::new("state");
/// Network, time of acceptance, tenant, hash of a record whose life is not over: the number of the
/// transaction's rows. With the time before the hash, rows of new transactions lie side by side: a
/// commit writes few pages of them.
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
/// In [`META`]: the highest number that a transaction's rows have had.
pub(super) const ROW_KEY: &str = "row";
/// In [`META`]: 1 where other replicas have seen transactions through.
pub(super) const SHARED_KEY: &str = "shared";

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

/// The row of a record that was given up.
pub(super) fn given_up_key(id: &TxId) -> (&str, &[u8; 32], &str) {
    (id.network.as_str(), &id.hash.0, id.tenant.as_str())
}

/// The first key behind all that begin with `text`'s own. No name holds the byte 0.
pub(super) fn behind(text: &str) -> String {
    format!("{text}\0")
}

/// The keys of a tenant's work: those behind `after`.
pub(super) fn work_of<'a>(tenant: &'a TenantName, after: &'a str, end: &'a str) -> Range<(&'a str, &'a str)> {
    (tenant.as_str(), after)..(end, "")
}
