//! Tests of the store, over a pretend disk wherever a disk's faults matter.

mod crash;
mod failure;
mod opening;
mod rows;
mod writing;

use std::fmt::Debug;

use alloy_primitives::{Address, B256, U128};
use fastrand::Rng;
use futures_util::FutureExt as _;
use redb::{Key, ReadableTable as _, ReadableTableMetadata as _, TableDefinition, Value};

use super::{
    Kind, Store, StoreError,
    pretend_disk::PretendDisk,
    tables::{BYTES, CHECKPOINT, DEDUPE, DELIVERIES, GIVEN_UP, LIVE, META, QUARANTINE, RECORDS, SUMS},
};
use crate::outbox::{
    record::{
        BlockId, Delivery, EventId, EventIds, EventKind, Fees, Millis, Quarantined, Record, State, TenantName,
        Transition, TxId, WorkId,
    },
    step::Step,
};

fn tenant(name: &str) -> TenantName {
    name.parse().unwrap()
}

fn tx(tenant_name: &str, network: &str, hash: u8) -> TxId {
    TxId { tenant: tenant(tenant_name), network: network.into(), hash: B256::repeat_byte(hash) }
}

fn block(number: u64) -> BlockId {
    BlockId { number, hash: B256::with_last_byte(number as u8) }
}

/// A record that was accepted at 100 and is given up at 1000.
fn record(id: TxId) -> Record {
    let mut record = Record {
        sender: Address::repeat_byte(id.hash[0] % 2),
        nonce: u64::from(id.hash[0]),
        id,
        chain_id: Some(1),
        kind: 2,
        fees: Fees { max_fee: U128::from(7), max_priority_fee: None, max_blob_fee: None },
        blobs: 0,
        bytes: 100,
        accepted_at: Millis(100),
        deadline: Millis(1000),
        request_id: Some("request".to_owned()),
        traceparent: None,
        state: State::Accepted,
        stopped: None,
        seq: 0,
        refusals: Vec::new(),
        history: Vec::new(),
        keep_until: None,
        event_ids: EventIds::Numbered,
    };
    go(&mut record, State::Accepted, 100);
    record
}

/// Makes the transition, at that time. A life that is over is kept for 500.
fn go(record: &mut Record, state: State, at: u64) {
    let (to, block) = (state.name(), state.block());
    record.state = state;
    record.keep_until = record.state.is_over().then_some(Millis(at + 500));
    let (seq, at, refusals) = (record.seq + 1, Millis(at), Vec::new());
    let mut next = Transition { seq, at, to, block, node: None, reason: None, refusals, repeat: 0 };
    next.repeat = record.repeats(&next);
    record.note(next);
}

fn delivery(tenant: &TenantName, event: EventId, endpoint: &str, due: u64) -> Delivery {
    Delivery {
        id: WorkId::of_delivery(&event, endpoint),
        event,
        kind: EventKind::TxAccepted,
        tenant: tenant.clone(),
        endpoint: endpoint.to_owned(),
        body: "{}".to_owned(),
        attempt: 0,
        first_at: Millis(100),
        due: Millis(due),
        request_id: None,
        traceparent: None,
        of: None,
    }
}

/// The step that accepts a transaction of 100 bytes, with one delivery that is due at once.
fn accepting(id: TxId) -> Step {
    let record = record(id);
    let told = delivery(&record.id.tenant, record.event(1), "billing", 100);
    Step::new().accept(record, vec![7; 100].into(), vec![told]).take()
}

fn memory() -> (PretendDisk, Store) {
    let disk = PretendDisk::new();
    let store = Store::inline(Box::new(disk.clone())).unwrap();
    (disk, store)
}

/// Commits a step to an inline store.
fn commit(store: &Store, step: Step) -> Result<(), StoreError> {
    store.commit(step).now_or_never().expect("an inline store commits at once")
}

/// A folder of the test's own, removed at the end.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("outbox-{}-{:016x}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// All rows of all tables, as text.
fn dump(store: &Store) -> Vec<String> {
    fn rows<K: Key + 'static, V: Value + 'static>(store: &Store, table: TableDefinition<K, V>, into: &mut Vec<String>)
    where
        for<'a> K::SelfType<'a>: Debug,
        for<'a> V::SelfType<'a>: Debug,
    {
        for row in store.read().unwrap().transaction().open_table(table).unwrap().iter().unwrap() {
            let (key, value) = row.unwrap();
            into.push(format!("{table} {:?} {:?}", key.value(), value.value()));
        }
    }

    /// Records and raw bytes under their keys, since an upgrade gives them other numbers.
    fn records(store: &Store, into: &mut Vec<String>) {
        let reader = store.read().unwrap();
        let (places, records) = (reader.places(), reader.records());
        let bytes = reader.transaction().open_table(BYTES).unwrap();
        for row in places.iter().unwrap() {
            let (key, place) = row.unwrap();
            let record = records.get(place.value()).unwrap().expect("a record");
            let bytes = bytes.get(place.value()).unwrap().expect("raw bytes");
            into.push(format!("{:?} {:?} {:?}", key.value(), record.value(), bytes.value()));
        }
        let lengths = [places.len(), records.len(), bytes.len()].map(|length| length.unwrap());
        assert!(lengths.iter().all(|length| *length == lengths[0]), "rows that no key leads to: {lengths:?}");
    }

    let mut all = Vec::new();
    rows(store, META, &mut all);
    records(store, &mut all);
    rows(store, LIVE, &mut all);
    rows(store, SUMS, &mut all);
    rows(store, GIVEN_UP, &mut all);
    rows(store, DELIVERIES, &mut all);
    rows(store, DEDUPE, &mut all);
    rows(store, QUARANTINE, &mut all);
    rows(store, CHECKPOINT, &mut all);
    Kind::ALL.into_iter().for_each(|kind| rows(store, kind.table(), &mut all));
    all
}

/// Random steps over a few transactions of two tenants, as a desk and webhooks make them.
struct Steps {
    rng: Rng,
    records: std::collections::BTreeMap<TxId, Record>,
    deliveries: Vec<Delivery>,
    now: u64,
}

impl Steps {
    fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), records: [].into(), deliveries: Vec::new(), now: 100 }
    }

    fn next(&mut self) -> Step {
        let mut step = Step::new();
        for _ in 0..self.rng.usize(1..=3) {
            self.write(&mut step);
        }
        step
    }

    fn write(&mut self, step: &mut Step) {
        self.now += 1;
        let id =
            tx(self.rng.choice(["a", "ab"]).unwrap(), self.rng.choice(["main", "test"]).unwrap(), self.rng.u8(0..4));
        match (self.rng.u8(0..10), self.records.get_mut(&id)) {
            (0..=5, None) => {
                let record = record(id.clone());
                let told = delivery(&id.tenant, record.event(1), "billing", self.now);
                let length = if self.rng.u8(0..10) == 0 { 20_000 } else { self.rng.usize(50..300) };
                step.accept(record.clone(), vec![self.rng.u8(..); length].into(), vec![told.clone()]);
                self.deliveries.push(told);
                self.records.insert(id, record);
            }
            (0..=4, Some(record)) => {
                let block = block(self.now);
                let states = [State::Sent, State::Mined { block }, State::Final { block }, State::Expired];
                go(record, self.rng.choice(states).unwrap(), self.now);
                let told = delivery(&id.tenant, record.event(record.seq), "billing", self.now);
                step.transition(record.clone(), vec![told.clone()]);
                self.deliveries.push(told);
            }
            (5, Some(record)) => {
                record.deadline = Millis(self.now + 1000);
                step.update(record.clone());
            }
            (6, Some(_)) => {
                self.records.remove(&id);
                step.remove(id);
            }
            (7, _) => _ = step.checkpoint(id.network, block(self.now)),
            _ if self.deliveries.is_empty() => {}
            _ => {
                let at = self.rng.usize(0..self.deliveries.len());
                let told = &mut self.deliveries[at];
                match self.rng.u8(0..4) {
                    0 => _ = step.delivered(told.tenant.clone(), told.id.clone()),
                    1 => {
                        told.due = Millis(self.now + 50);
                        step.deliver(told.clone());
                    }
                    2 => {
                        let reason = "500".to_owned();
                        step.quarantine(Quarantined { delivery: told.clone(), at: Millis(self.now), reason });
                    }
                    _ => _ = step.unquarantine(told.tenant.clone(), told.id.clone()),
                }
            }
        }
    }
}
