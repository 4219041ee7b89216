//! Makes the writes of a step in a transaction of the database, with all rows that follow from
//! them. Nothing else writes rows.

use redb::{ReadableTable as _, Table, WriteTransaction};
use serde::{Serialize, de::DeserializeOwned};

use crate::outbox::{
    record::{Delivery, Quarantined, Record, TenantName, TxId, WorkId},
    step::{Step, Write},
};

use super::{
    error::StoreError,
    pages::Sums,
    reader::tenant_of,
    tables::{
        BYTES, CHECKPOINT, DEDUPE, DELIVERIES, DueKey, GIVEN_UP, GivenUpKey, Kind, LIVE, LiveKey, META, OLD_RAW,
        OLD_STATE, PLACES, QUARANTINE, RECORDS, ROW_KEY, RecordRow, SHARED_KEY, SUMS, TxKey, WorkKey, given_up_key,
        key,
    },
    traces::Traces,
};

/// All tables, open for writing.
pub(super) struct Tables<'t> {
    meta: Table<'t, &'static str, u64>,
    places: Table<'t, TxKey, u64>,
    records: Table<'t, u64, RecordRow>,
    bytes: Table<'t, u64, &'static [u8]>,
    live: Table<'t, LiveKey, u64>,
    sums: Table<'t, (&'static str, &'static str), (u64, u64, u64, u64)>,
    given_up: Table<'t, GivenUpKey, ()>,
    deliveries: Table<'t, WorkKey, &'static [u8]>,
    dedupe: Table<'t, (&'static str, &'static str), ()>,
    quarantine: Table<'t, WorkKey, &'static [u8]>,
    checkpoint: Table<'t, &'static str, &'static [u8]>,
    due: [Table<'t, DueKey, u64>; Kind::ALL.len()],
}

impl<'t> Tables<'t> {
    /// Opens the tables, and makes those that are missing.
    pub(super) fn open(txn: &'t WriteTransaction) -> Result<Self, StoreError> {
        let [deadline, retention, delivery, quarantine] = Kind::ALL.map(|kind| txn.open_table(kind.table()));
        Ok(Self {
            meta: txn.open_table(META)?,
            places: txn.open_table(PLACES)?,
            records: txn.open_table(RECORDS)?,
            bytes: txn.open_table(BYTES)?,
            live: txn.open_table(LIVE)?,
            sums: txn.open_table(SUMS)?,
            given_up: txn.open_table(GIVEN_UP)?,
            deliveries: txn.open_table(DELIVERIES)?,
            dedupe: txn.open_table(DEDUPE)?,
            quarantine: txn.open_table(QUARANTINE)?,
            checkpoint: txn.open_table(CHECKPOINT)?,
            due: [deadline?, retention?, delivery?, quarantine?],
        })
    }

    /// Sets a number of the store's own.
    pub(super) fn set_meta(&mut self, name: &str, value: u64) -> Result<(), StoreError> {
        self.meta.insert(name, value)?;
        Ok(())
    }

    /// Moves all records and raw bytes of a file up to format
    /// [`LAST_BY_HASH`](super::tables::LAST_BY_HASH) into the tables of this format, with all rows
    /// that follow: first those whose life is not over, in the order of their acceptance. The old
    /// tables can go then.
    pub(super) fn take_over(&mut self, txn: &'t WriteTransaction) -> Result<(), StoreError> {
        self.sums.retain(|_, _| false)?;
        let (records, bytes) = (txn.open_table(OLD_STATE)?, txn.open_table(OLD_RAW)?);
        let live = self.live.iter()?.map(|row| {
            let (row, _) = row?;
            let (network, _, tenant, hash) = row.value();
            Ok(TxId { tenant: tenant_of(tenant)?, network: network.into(), hash: hash.into() })
        });
        for id in live.collect::<Result<Vec<_>, StoreError>>()? {
            if let Some(record) = records.get(key(&id))? {
                self.take_over_one(&read("state", record.value().1)?, &bytes)?;
            }
        }
        for row in records.iter()? {
            let (id, record) = row?;
            if self.places.get(id.value())?.is_none() {
                self.take_over_one(&read("state", record.value().1)?, &bytes)?;
            }
        }
        Ok(())
    }

    fn take_over_one(&mut self, record: &Record, bytes: &Table<'_, TxKey, &'static [u8]>) -> Result<(), StoreError> {
        let place = self.place(&record.id)?;
        if let Some(bytes) = bytes.get(key(&record.id))? {
            self.bytes.insert(place, bytes.value())?;
        }
        self.put_record(record)
    }

    /// Makes all writes of `step`. After an error the transaction must be given up.
    pub(super) fn apply(&mut self, step: &Step) -> Result<(), StoreError> {
        for write in step.writes() {
            match write {
                Write::Raw { id, bytes } => {
                    let place = self.place(id)?;
                    self.bytes.insert(place, &bytes[..])?;
                }
                Write::Record(record) => self.put_record(record)?,
                Write::Event { tenant, event, deliveries } if !deliveries.is_empty() => {
                    let is_new = self.dedupe.insert((tenant.as_str(), event.as_str()), ())?.is_none();
                    for delivery in deliveries.iter().filter(|_| is_new) {
                        self.put_delivery(delivery)?;
                    }
                }
                Write::Event { .. } => {}
                Write::Told { tenant, event } => _ = self.dedupe.insert((tenant.as_str(), event.as_str()), ())?,
                Write::Remove(id) => self.remove_record(id)?,
                Write::Delivery(delivery) => {
                    self.remove_quarantined(&delivery.tenant, &delivery.id)?;
                    self.put_delivery(delivery)?;
                }
                Write::Delivered { tenant, work } => self.remove_delivery(tenant, work)?,
                Write::Disowned { tenant, work, event } => {
                    self.remove_delivery(tenant, work)?;
                    self.dedupe.remove((tenant.as_str(), event.as_str()))?;
                }
                Write::Quarantine(given_up) => {
                    self.remove_delivery(&given_up.delivery.tenant, &given_up.delivery.id)?;
                    self.put_quarantined(given_up)?;
                }
                Write::Unquarantine { tenant, work } => self.remove_quarantined(tenant, work)?,
                Write::Checkpoint { network, block } => {
                    self.checkpoint.insert(network.as_str(), &json(block)[..])?;
                }
                Write::Shared(is_shared) => self.set_meta(SHARED_KEY, u64::from(*is_shared))?,
            }
        }
        Ok(())
    }

    fn due(&mut self, kind: Kind) -> &mut Table<'t, DueKey, u64> {
        &mut self.due[kind as usize]
    }

    /// The number of a transaction's rows: a new one where the transaction has none.
    fn place(&mut self, id: &TxId) -> Result<u64, StoreError> {
        if let Some(place) = self.places.get(key(id))? {
            return Ok(place.value());
        }
        let place = self.meta.get(ROW_KEY)?.map_or(0, |row| row.value()) + 1;
        self.meta.insert(ROW_KEY, place)?;
        self.places.insert(key(id), place)?;
        Ok(place)
    }

    fn put_record(&mut self, record: &Record) -> Result<(), StoreError> {
        let (id, traces) = (&record.id, Traces::of(record));
        let place = self.place(id)?;
        let old = self.records.insert(place, (record.state.name().as_str(), traces.row(), &json(record)[..]))?;
        let old = old.map(|old| Traces::of_row(old.value().1)).transpose()?;
        self.count(id, old.as_ref(), Some(&traces))?;
        // A row that stays is not touched: each page that changes is written to the disk.
        if old == Some(traces) {
            return Ok(());
        }
        if let Some(old) = old {
            self.remove_rows_of(id, &old)?;
        }
        if !traces.is_over() {
            self.live.insert(traces.live_key(id), place)?;
        }
        if traces.is_given_up {
            self.given_up.insert(given_up_key(id), ())?;
        }
        if let Some((kind, at)) = traces.due {
            self.due(kind).insert((at, id.tenant.as_str(), WorkId::of_transaction(id).as_str()), traces.length)?;
        }
        Ok(())
    }

    fn remove_record(&mut self, id: &TxId) -> Result<(), StoreError> {
        let Some(place) = self.places.remove(key(id))?.map(|place| place.value()) else { return Ok(()) };
        self.bytes.remove(place)?;
        let Some(row) = self.records.remove(place)? else { return Ok(()) };
        let (_, traces, record) = row.value();
        let (old, record) = (Traces::of_row(traces)?, read::<Record>("records", record)?);
        drop(row);
        self.count(id, Some(&old), None)?;
        self.remove_rows_of(id, &old)?;
        for event in record.events() {
            self.dedupe.remove((id.tenant.as_str(), event.as_str()))?;
        }
        Ok(())
    }

    /// Removes the rows that followed from a record.
    fn remove_rows_of(&mut self, id: &TxId, old: &Traces) -> Result<(), StoreError> {
        if !old.is_over() {
            self.live.remove(old.live_key(id))?;
        }
        if old.is_given_up {
            self.given_up.remove(given_up_key(id))?;
        }
        if let Some((kind, at)) = old.due {
            let work = WorkId::of_transaction(id);
            self.due(kind).remove((at, id.tenant.as_str(), work.as_str()))?;
        }
        Ok(())
    }

    /// Counts a record in the place of another one of the same transaction.
    fn count(&mut self, id: &TxId, old: Option<&Traces>, new: Option<&Traces>) -> Result<(), StoreError> {
        let part = |traces: &Traces| (traces.is_over(), traces.length);
        let (was, is) = (old.map(part), new.map(part));
        if was == is {
            return Ok(());
        }
        let key = (id.network.as_str(), id.tenant.as_str());
        let mut sums = self.sums.get(key)?.map(|row| Sums::of_row(row.value())).unwrap_or_default();
        if let Some((is_over, bytes)) = was {
            sums.remove(is_over, bytes);
        }
        if let Some((is_over, bytes)) = is {
            sums.add(is_over, bytes);
        }
        if sums == Sums::default() {
            self.sums.remove(key)?;
        } else {
            self.sums.insert(key, sums.row())?;
        }
        Ok(())
    }

    fn put_delivery(&mut self, delivery: &Delivery) -> Result<(), StoreError> {
        let (tenant, work) = (delivery.tenant.as_str(), delivery.id.as_str());
        let old = self.deliveries.insert((tenant, work), &json(delivery)[..])?;
        let old = old.map(|old| read::<Delivery>("deliveries", old.value())).transpose()?;
        if let Some(old) = old {
            self.due(Kind::Delivery).remove((old.due.0, tenant, work))?;
        }
        self.due(Kind::Delivery).insert((delivery.due.0, tenant, work), 0)?;
        Ok(())
    }

    fn remove_delivery(&mut self, tenant: &TenantName, work: &WorkId) -> Result<(), StoreError> {
        let old = self.deliveries.remove((tenant.as_str(), work.as_str()))?;
        let old = old.map(|old| read::<Delivery>("deliveries", old.value())).transpose()?;
        if let Some(old) = old {
            self.due(Kind::Delivery).remove((old.due.0, tenant.as_str(), work.as_str()))?;
        }
        Ok(())
    }

    fn put_quarantined(&mut self, given_up: &Quarantined) -> Result<(), StoreError> {
        let Delivery { tenant, id, .. } = &given_up.delivery;
        self.remove_quarantined(tenant, id)?;
        self.quarantine.insert((tenant.as_str(), id.as_str()), &json(given_up)[..])?;
        self.due(Kind::Quarantine).insert((given_up.at.0, tenant.as_str(), id.as_str()), 0)?;
        Ok(())
    }

    fn remove_quarantined(&mut self, tenant: &TenantName, work: &WorkId) -> Result<(), StoreError> {
        let old = self.quarantine.remove((tenant.as_str(), work.as_str()))?;
        let old = old.map(|old| read::<Quarantined>("quarantine", old.value())).transpose()?;
        if let Some(old) = old {
            self.due(Kind::Quarantine).remove((old.at.0, tenant.as_str(), work.as_str()))?;
        }
        Ok(())
    }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("a row has no map and no number that JSON lacks")
}

/// Reads a value of `table`.
pub(super) fn read<T: DeserializeOwned>(table: &str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|error| StoreError::Malformed(format!("{table}: {error}")))
}
