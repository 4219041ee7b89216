//! Makes the writes of a step in a transaction of the database, with all rows that follow from
//! them. Nothing else writes rows.

use std::collections::BTreeMap;

use redb::{ReadableTable as _, Table, WriteTransaction};
use serde::{Serialize, de::DeserializeOwned};

use crate::outbox::{
    record::{Delivery, Quarantined, Record, TenantName, TxId, WorkId},
    step::{Step, Write},
};

use super::{
    error::StoreError,
    pages::Sums,
    tables::{
        CHECKPOINT, DEDUPE, DELIVERIES, DueKey, GIVEN_UP, GivenUpKey, Kind, LIVE, LiveKey, META, QUARANTINE, RAW,
        STATE, SUMS, TxKey, WorkKey, due_of, given_up_key, key, live_key,
    },
};

/// All tables, open for writing.
pub(super) struct Tables<'t> {
    meta: Table<'t, &'static str, u64>,
    raw: Table<'t, TxKey, &'static [u8]>,
    state: Table<'t, TxKey, (&'static str, &'static [u8])>,
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
            raw: txn.open_table(RAW)?,
            state: txn.open_table(STATE)?,
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

    /// Makes the tables that the first format had not, from all records.
    pub(super) fn make_sums(&mut self) -> Result<(), StoreError> {
        let mut all = BTreeMap::<_, Sums>::new();
        for row in self.state.iter()? {
            let record: Record = read("state", row?.1.value().1)?;
            if record.state.is_given_up() {
                self.given_up.insert(given_up_key(&record.id), ())?;
            }
            let sums = all.entry((record.id.network.clone(), record.id.tenant.clone())).or_default();
            sums.add(record.state.is_over(), record.bytes as u64);
        }
        for ((network, tenant), sums) in all {
            self.sums.insert((network.as_str(), tenant.as_str()), sums.row())?;
        }
        Ok(())
    }

    /// Makes all writes of `step`. After an error the transaction must be given up.
    pub(super) fn apply(&mut self, step: &Step) -> Result<(), StoreError> {
        for write in step.writes() {
            match write {
                Write::Raw { id, bytes } => _ = self.raw.insert(key(id), &bytes[..])?,
                Write::Record(record) => self.put_record(record)?,
                Write::Event { tenant, event, deliveries } if !deliveries.is_empty() => {
                    let is_new = self.dedupe.insert((tenant.as_str(), event.as_str()), ())?.is_none();
                    for delivery in deliveries.iter().filter(|_| is_new) {
                        self.put_delivery(delivery)?;
                    }
                }
                Write::Event { .. } => {}
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
            }
        }
        Ok(())
    }

    fn due(&mut self, kind: Kind) -> &mut Table<'t, DueKey, u64> {
        &mut self.due[kind as usize]
    }

    fn put_record(&mut self, record: &Record) -> Result<(), StoreError> {
        let id = &record.id;
        let old = self.state.insert(key(id), (record.state.name().as_str(), &json(record)[..]))?;
        let old = old.map(|old| read::<Record>("state", old.value().1)).transpose()?;
        self.count(old.as_ref(), Some(record))?;
        match &old {
            // A row that stays is not touched: each page that changes is written to the disk.
            Some(old) if have_the_same_rows(old, record) => return Ok(()),
            Some(old) => self.remove_rows_of(old)?,
            None => {}
        }
        let length = record.bytes as u64;
        if !record.state.is_over() {
            self.live.insert(live_key(record), length)?;
        }
        if record.state.is_given_up() {
            self.given_up.insert(given_up_key(id), ())?;
        }
        if let Some((kind, at)) = due_of(record) {
            self.due(kind).insert((at, id.tenant.as_str(), WorkId::of_transaction(id).as_str()), length)?;
        }
        Ok(())
    }

    fn remove_record(&mut self, id: &TxId) -> Result<(), StoreError> {
        self.raw.remove(key(id))?;
        let old = self.state.remove(key(id))?.map(|old| read::<Record>("state", old.value().1)).transpose()?;
        let Some(old) = old else { return Ok(()) };
        self.count(Some(&old), None)?;
        self.remove_rows_of(&old)?;
        for event in old.events() {
            self.dedupe.remove((id.tenant.as_str(), event.as_str()))?;
        }
        Ok(())
    }

    /// Removes the rows that followed from a record.
    fn remove_rows_of(&mut self, record: &Record) -> Result<(), StoreError> {
        self.live.remove(live_key(record))?;
        self.given_up.remove(given_up_key(&record.id))?;
        if let Some((kind, at)) = due_of(record) {
            let work = WorkId::of_transaction(&record.id);
            self.due(kind).remove((at, record.id.tenant.as_str(), work.as_str()))?;
        }
        Ok(())
    }

    /// Counts a record in the place of another one of the same transaction.
    fn count(&mut self, old: Option<&Record>, new: Option<&Record>) -> Result<(), StoreError> {
        let part = |record: &Record| (record.state.is_over(), record.bytes as u64);
        let (was, is) = (old.map(part), new.map(part));
        let Some(TxId { tenant, network, .. }) = new.or(old).map(|record| &record.id).filter(|_| was != is) else {
            return Ok(());
        };
        let key = (network.as_str(), tenant.as_str());
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

/// Whether the same rows follow from both records. The schedule also tells whether a life is over.
fn have_the_same_rows(one: &Record, other: &Record) -> bool {
    live_key(one) == live_key(other)
        && due_of(one) == due_of(other)
        && one.bytes == other.bytes
        && one.state.is_given_up() == other.state.is_given_up()
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("a row has no map and no number that JSON lacks")
}

/// Reads a value of `table`.
pub(super) fn read<T: DeserializeOwned>(table: &str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|error| StoreError::Malformed(format!("{table}: {error}")))
}
