//! Any sequence of calls on the store in memory has the outcome that a plain map has.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::{runtime::Builder, time::sleep};

use super::copies::{Told, until_synced};
use crate::cluster::store::{
    Key, Prefix, Revision, Store, Ttl, WriteError,
    memory::{Fault, Memory, Settings},
};

#[derive(Clone, Debug)]
enum Step {
    Create(u8, Option<u64>),
    /// The second number says how many revisions before the last one the call names.
    Set(u8, u64, Option<u64>),
    Delete(u8, u64),
    Read(u8),
    Fault(Fault),
    Wait(u64),
    Empty,
    LoseMessages(u32),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![Just(Fault::AppliedAmbiguous), Just(Fault::LostAmbiguous), Just(Fault::Unavailable),]
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..3_u8;
    let ttl = prop::option::weighted(0.3, 1..20_u64);
    prop_oneof![
        4 => (key.clone(), ttl.clone()).prop_map(|(key, ttl)| Step::Create(key, ttl)),
        6 => (key.clone(), 0..2_u64, ttl).prop_map(|(key, back, ttl)| Step::Set(key, back, ttl)),
        3 => (key.clone(), 0..2_u64).prop_map(|(key, back)| Step::Delete(key, back)),
        2 => key.prop_map(Step::Read),
        2 => fault().prop_map(Step::Fault),
        2 => (1..12_u64).prop_map(Step::Wait),
        1 => Just(Step::Empty),
        1 => (1..3_u32).prop_map(Step::LoseMessages),
    ]
}

/// A key's last write: its revision, and the value with the second of its expiry, if an entry.
type Row = (u64, Option<(Bytes, Option<u64>)>);

/// The model: a map, the last revision, and seconds that have passed.
#[derive(Default)]
struct Model {
    rows: BTreeMap<Key, Row>,
    last: u64,
    now: u64,
}

impl Model {
    fn write(&mut self, key: &Key, seen: Option<u64>, row: Option<(Bytes, Option<u64>)>) -> Result<u64, Option<u64>> {
        let found = self.rows.get(key).map(|row| row.0);
        let is_entry = self.rows.get(key).is_some_and(|row| row.1.is_some());
        let may = match seen {
            None => !is_entry,
            Some(seen) => found == Some(seen),
        };
        if !may {
            return Err(found);
        }
        self.last += 1;
        self.rows.insert(key.clone(), (self.last, row));
        Ok(self.last)
    }

    /// Each expiry is a deletion, in the order of time and then of keys.
    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1;
            for row in self.rows.values_mut() {
                if row.1.as_ref().is_some_and(|(_, expiry)| *expiry == Some(self.now)) {
                    self.last += 1;
                    *row = (self.last, None);
                }
            }
        }
    }

    fn entries(&self) -> BTreeMap<Key, Revision> {
        let is_entry = |row: &Row| row.1.is_some();
        let rows = self.rows.iter().filter(|(_, row)| is_entry(row));
        rows.map(|(key, row)| (key.clone(), Revision::new(row.0))).collect()
    }
}

/// The model's outcome as the store tells of an outcome.
fn expected(result: Result<u64, Option<u64>>) -> Result<Revision, WriteError> {
    let conflict = |found: Option<u64>| WriteError::Conflict { found: found.map(Revision::new) };
    result.map(Revision::new).map_err(conflict)
}

async fn run(steps: Vec<Step>) {
    // Calls without an answer take whole seconds, so that the model's seconds are the store's.
    let timeout = Duration::from_secs(1);
    let memory = Memory::new(Settings { timeout, ..Settings::default() });
    let store = memory.client("a");
    let mut watch = store.watch(&Prefix::ALL);
    let mut told = Told::default();
    let mut model = Model::default();
    let mut fault = None;
    for step in steps {
        let (key, seen, row) = match step {
            Step::Create(key, ttl) => (key, None, Some(ttl)),
            Step::Set(key, back, ttl) => (key, Some(back), Some(ttl)),
            Step::Delete(key, back) => (key, Some(back), None),
            Step::Read(key) => {
                let key = Key::of(&["k", &key.to_string()]).expect("names");
                let entry = store.read(&key).await.expect("a read");
                let row = model.rows.get(&key).and_then(|row| Some((row.0, row.1.clone()?.0)));
                assert_eq!(entry.map(|entry| (entry.revision.get(), entry.value)), row);
                continue;
            }
            Step::Fault(next) => {
                if fault.is_none() {
                    memory.inject("a", next);
                    fault = Some(next);
                }
                continue;
            }
            Step::Wait(seconds) => {
                sleep(Duration::from_secs(seconds)).await;
                model.wait(seconds);
                continue;
            }
            Step::Empty => {
                memory.empty();
                model.rows.clear();
                continue;
            }
            Step::LoseMessages(count) => {
                memory.lose_messages("a", count);
                continue;
            }
        };
        let key = Key::of(&["k", &key.to_string()]).expect("names");
        let last = model.rows.get(&key).map_or(1, |row| row.0);
        let seen = seen.map(|back| last.saturating_sub(back));
        let value = Bytes::from(model.last.to_string());
        let ttl = row.flatten().map(|seconds| Ttl::at_least(Duration::from_secs(seconds)));
        let result = match (seen.map(Revision::new), row) {
            (None, _) => store.create(&key, value.clone(), ttl).await,
            (Some(seen), Some(_)) => store.compare_and_set(&key, seen, value.clone(), ttl).await,
            (Some(seen), None) => {
                let result = store.compare_and_delete(&key, seen).await;
                result.map(|()| Revision::new(model.last + 1))
            }
        };
        let row = row.map(|ttl| (value, ttl.map(|ttl| model.now + ttl)));
        match fault.take() {
            None => assert_eq!(result, expected(model.write(&key, seen, row))),
            Some(Fault::Unavailable) => {
                assert!(matches!(result, Err(WriteError::Unavailable(_))), "{result:?}");
            }
            Some(fault) => {
                if fault == Fault::AppliedAmbiguous {
                    let _ = model.write(&key, seen, row);
                }
                model.wait(1);
                assert!(matches!(result, Err(WriteError::Ambiguous(_))), "{result:?}");
            }
        }
    }
    let listing = store.list(&Prefix::ALL).await.expect("a listing");
    let listed: BTreeMap<Key, Revision> =
        listing.entries.iter().map(|entry| (entry.key.clone(), entry.revision)).collect();
    assert_eq!(listed, model.entries());
    told.until_equal(&mut watch, &listing).await;
    until_synced(&mut watch).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_calls_on_memory_equal_a_map(steps in prop::collection::vec(step(), 0..40)) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(run(steps));
    }
}
