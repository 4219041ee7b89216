//! The rows of the store, as they were at one moment. Each method reads the file: a few pages for
//! one row, and no more rows than its limit says.

use std::{fmt, sync::Arc};

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase as _, ReadableTable as _};

use crate::outbox::record::{
    BlockId, Delivery, EventId, Millis, Network, Quarantined, Record, TenantName, TxId, WorkId,
};

use super::{
    apply::read,
    error::StoreError,
    tables::{
        BYTES, CHECKPOINT, DEDUPE, DELIVERIES, DueKey, Kind, LIVE, META, PLACES, QUARANTINE, RECORDS, RecordRow,
        SHARED_KEY, TxKey, behind, key, work_of,
    },
};

/// A view of the store at one moment. While a view is there, the file keeps the pages of that
/// moment: hold none for long.
#[derive(Debug)]
pub struct Reader(Arc<View>);

/// A moment of the store, with those tables open that are looked at for each transaction.
pub(super) struct View {
    txn: ReadTransaction,
    places: ReadOnlyTable<TxKey, u64>,
    records: ReadOnlyTable<u64, RecordRow>,
    bytes: ReadOnlyTable<u64, &'static [u8]>,
}

impl View {
    /// The rows of the newest commit.
    pub(super) fn of(database: &Database) -> Result<Self, StoreError> {
        let txn = database.begin_read()?;
        let (places, records, bytes) = (txn.open_table(PLACES)?, txn.open_table(RECORDS)?, txn.open_table(BYTES)?);
        Ok(Self { txn, places, records, bytes })
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("View").field(&self.txn).finish()
    }
}

/// A row of the schedule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// The due time.
    pub at: Millis,
    /// Whose work.
    pub tenant: TenantName,
    /// The work: a transaction's or a delivery.
    pub work: WorkId,
    /// Length of the transaction's raw bytes; 0 for deliveries.
    pub bytes: u64,
}

impl Due {
    /// The transaction, where the work is one's.
    pub fn transaction(&self) -> Option<TxId> {
        let (network, hash) = self.work.transaction()?;
        Some(TxId { tenant: self.tenant.clone(), network, hash })
    }
}

impl Reader {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self(view)
    }

    /// The record of a transaction of a tenant's.
    pub fn record(&self, id: &TxId) -> Result<Option<Record>, StoreError> {
        let Some(place) = self.place(id)? else { return Ok(None) };
        self.record_at(place)
    }

    /// The record with this number.
    pub(super) fn record_at(&self, place: u64) -> Result<Option<Record>, StoreError> {
        let found = self.0.records.get(place)?;
        found.map(|row| read("records", row.value().2)).transpose()
    }

    fn place(&self, id: &TxId) -> Result<Option<u64>, StoreError> {
        Ok(self.0.places.get(key(id))?.map(|place| place.value()))
    }

    /// The raw bytes of a transaction.
    pub fn raw(&self, id: &TxId) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(place) = self.place(id)? else { return Ok(None) };
        let found = self.0.bytes.get(place)?;
        Ok(found.map(|bytes| bytes.value().to_vec()))
    }

    /// All records of a network whose life is not over, of all tenants, in the
    /// order of their acceptance: for the network's desk at the start. The raw bytes are not read.
    pub fn live(
        &self,
        network: &Network,
    ) -> Result<impl Iterator<Item = Result<Record, StoreError>> + use<>, StoreError> {
        let reader = Self(self.0.clone());
        let (start, end) = (network.as_str(), behind(network.as_str()));
        let rows = self.0.txn.open_table(LIVE)?.range((start, 0, "", &[0; 32])..(&*end, 0, "", &[0; 32]))?;
        Ok(rows.map(move |row| {
            let (row, place) = row?;
            let missing = || {
                let (network, _, _, hash) = row.value();
                StoreError::Malformed(format!("live: {network}/{hash:02x?} is missing"))
            };
            reader.record_at(place.value())?.ok_or_else(missing)
        }))
    }

    /// The rows that are due at `until`, of all tenants, the earliest first; at most `limit` rows.
    pub fn due(&self, kind: Kind, until: Millis, limit: usize) -> Result<Vec<Due>, StoreError> {
        let end = until.0.checked_add(1).map_or((u64::MAX, "\u{10ffff}", ""), |end| (end, "", ""));
        let rows = self.schedule(kind)?.range((0, "", "")..end)?.take(limit);
        rows.map(|row| {
            let (row, bytes) = row?;
            due(row.value(), bytes.value())
        })
        .collect()
    }

    /// The rows behind `after`, or from the first on, of all tenants, the earliest first; at most
    /// `limit` rows.
    pub fn due_behind(&self, kind: Kind, after: Option<&Due>, limit: usize) -> Result<Vec<Due>, StoreError> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let first =
            after.map_or(Included((0, "", "")), |row| Excluded((row.at.0, row.tenant.as_str(), row.work.as_str())));
        let rows = self.schedule(kind)?.range::<(u64, &str, &str)>((first, Unbounded))?.take(limit);
        rows.map(|row| {
            let (row, bytes) = row?;
            due(row.value(), bytes.value())
        })
        .collect()
    }

    /// The row that is due first.
    pub fn next_due(&self, kind: Kind) -> Result<Option<Due>, StoreError> {
        let rows = self.schedule(kind)?;
        let first = rows.first()?;
        first.map(|(row, bytes)| due(row.value(), bytes.value())).transpose()
    }

    /// A delivery of a tenant's.
    pub fn delivery(&self, tenant: &TenantName, work: &WorkId) -> Result<Option<Delivery>, StoreError> {
        let found = self.0.txn.open_table(DELIVERIES)?.get((tenant.as_str(), work.as_str()))?;
        found.map(|row| read("deliveries", row.value())).transpose()
    }

    /// A tenant's deliveries behind `after`, in the order of their ids; at most `limit`.
    pub fn deliveries(
        &self,
        tenant: &TenantName,
        after: Option<&WorkId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let (after, end) = (after.map(|work| behind(work.as_str())).unwrap_or_default(), behind(tenant.as_str()));
        let rows = self.0.txn.open_table(DELIVERIES)?.range(work_of(tenant, &after, &end))?.take(limit);
        rows.map(|row| read("deliveries", row?.1.value())).collect()
    }

    /// A quarantine record of a tenant's.
    pub fn quarantined(&self, tenant: &TenantName, work: &WorkId) -> Result<Option<Quarantined>, StoreError> {
        let found = self.0.txn.open_table(QUARANTINE)?.get((tenant.as_str(), work.as_str()))?;
        found.map(|row| read("quarantine", row.value())).transpose()
    }

    /// A tenant's quarantine records behind `after`, in the order of the deliveries' ids; at most
    /// `limit`.
    pub fn quarantine(
        &self,
        tenant: &TenantName,
        after: Option<&WorkId>,
        limit: usize,
    ) -> Result<Vec<Quarantined>, StoreError> {
        let (after, end) = (after.map(|work| behind(work.as_str())).unwrap_or_default(), behind(tenant.as_str()));
        let rows = self.0.txn.open_table(QUARANTINE)?.range(work_of(tenant, &after, &end))?.take(limit);
        rows.map(|row| read("quarantine", row?.1.value())).collect()
    }

    /// Whether an event of a tenant's has its dedupe mark.
    pub fn was_told(&self, tenant: &TenantName, event: &EventId) -> Result<bool, StoreError> {
        Ok(self.0.txn.open_table(DEDUPE)?.get((tenant.as_str(), event.as_str()))?.is_some())
    }

    /// Whether other replicas have seen transactions through.
    pub fn is_shared(&self) -> Result<bool, StoreError> {
        Ok(self.meta(SHARED_KEY)? == 1)
    }

    /// The newest block that a network's records reflect.
    pub fn checkpoint(&self, network: &Network) -> Result<Option<BlockId>, StoreError> {
        let found = self.0.txn.open_table(CHECKPOINT)?.get(network.as_str())?;
        found.map(|row| read("checkpoint", row.value())).transpose()
    }

    /// A number of the store's own; 0 where none was set.
    pub(super) fn meta(&self, name: &str) -> Result<u64, StoreError> {
        Ok(self.0.txn.open_table(META)?.get(name)?.map_or(0, |row| row.value()))
    }

    pub(super) fn places(&self) -> &ReadOnlyTable<TxKey, u64> {
        &self.0.places
    }

    pub(super) fn records(&self) -> &ReadOnlyTable<u64, RecordRow> {
        &self.0.records
    }

    pub(super) fn schedule(&self, kind: Kind) -> Result<ReadOnlyTable<DueKey, u64>, StoreError> {
        Ok(self.0.txn.open_table(kind.table())?)
    }

    pub(super) fn transaction(&self) -> &ReadTransaction {
        &self.0.txn
    }
}

fn due((at, tenant, work): (u64, &str, &str), bytes: u64) -> Result<Due, StoreError> {
    Ok(Due { at: Millis(at), tenant: tenant_of(tenant)?, work: work.into(), bytes })
}

/// A tenant's name out of a key.
pub(super) fn tenant_of(name: &str) -> Result<TenantName, StoreError> {
    name.parse().map_err(|_| StoreError::Malformed(format!("{name:?} is no tenant's name")))
}
