//! The faults of the store in memory, and that the same seed gives the same run.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, future::join_all};
use tokio::time::{Instant, sleep, timeout};

use super::copies::{Told, next, next_news, until_synced};
use crate::cluster::store::{
    Event, Key, Prefix, Revision, Store, Ttl, WriteError,
    memory::{Chances, Fault, Memory, MemoryStore, Settings},
};

fn key(name: &str) -> Key {
    Key::of(&["k", name]).expect("names")
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn value(store: &MemoryStore, name: &str) -> Option<Bytes> {
    store.read(&key(name)).await.expect("a read").map(|entry| entry.value)
}

/// A call of the longest allowed silence ends in this error.
fn is_ambiguous<T>(result: &Result<T, WriteError>) -> bool {
    matches!(result, Err(WriteError::Ambiguous(_)))
}

#[tokio::test(start_paused = true)]
async fn call_without_fault_ends_at_its_first_poll() {
    let store = Memory::new(Settings::default()).client("a");
    let seen = store.create(&key("1"), bytes("x"), None).now_or_never();
    let seen = seen.expect("at once").expect("created");
    let set = store.compare_and_set(&key("1"), seen, bytes("y"), None).now_or_never();
    assert!(set.expect("at once").is_ok());
    assert!(store.list(&Prefix::ALL).now_or_never().is_some());
    let mut watch = store.watch(&Prefix::ALL);
    assert!(matches!(watch.next().now_or_never(), Some(Some(Event::Entry(_)))));
}

#[tokio::test(start_paused = true)]
async fn late_write_is_applied_after_the_answer() {
    let memory = Memory::new(Settings::default());
    let (store, other) = (memory.client("a"), memory.client("b"));
    let seen = store.create(&key("1"), bytes("x"), None).await.expect("created");
    let mut watch = other.watch(&Prefix::ALL);
    until_synced(&mut watch).await;
    memory.inject("a", Fault::LateAmbiguous(Duration::from_secs(9)));
    assert!(is_ambiguous(&store.compare_and_set(&key("1"), seen, bytes("late"), None).await));
    assert_eq!(value(&other, "1").await, Some(bytes("x")));
    let began = Instant::now();
    assert!(matches!(next_news(&mut watch).await, Event::Entry(entry) if entry.value == "late"));
    assert_eq!(began.elapsed(), Duration::from_secs(7), "two of nine had passed");
}

#[tokio::test(start_paused = true)]
async fn late_write_loses_to_a_write_before_it() {
    let memory = Memory::new(Settings::default());
    let (store, other) = (memory.client("a"), memory.client("b"));
    let seen = store.create(&key("1"), bytes("x"), None).await.expect("created");
    memory.inject("a", Fault::LateAmbiguous(Duration::from_secs(9)));
    assert!(is_ambiguous(&store.compare_and_set(&key("1"), seen, bytes("late"), None).await));
    other.compare_and_set(&key("1"), seen, bytes("first"), None).await.expect("set");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(value(&store, "1").await, Some(bytes("first")));
}

#[tokio::test(start_paused = true)]
async fn cut_client_hears_nothing_and_others_go_on() {
    let memory = Memory::new(Settings::default());
    let (store, other) = (memory.client("a"), memory.client("b"));
    let mut watch = store.watch(&Prefix::ALL);
    until_synced(&mut watch).await;
    memory.cut("a");
    let seen = other.create(&key("1"), bytes("x"), None).await.expect("created");
    assert!(is_ambiguous(&store.create(&key("2"), bytes("y"), None).await));
    assert_eq!(value(&other, "2").await, None);
    assert!(timeout(Duration::from_secs(60), watch.next()).await.is_err(), "not an event");
    memory.heal("a");
    assert!(matches!(next(&mut watch).await, Event::Entry(entry) if entry.revision == seen));
}

#[tokio::test(start_paused = true)]
async fn refused_client_is_told_at_once() {
    let memory = Memory::new(Settings::default());
    let store = memory.client("a");
    memory.refuse("a");
    let result = store.create(&key("1"), bytes("x"), None).now_or_never().expect("at once");
    assert!(matches!(result, Err(WriteError::Unavailable(_))), "{result:?}");
    assert!(store.read(&key("1")).now_or_never().expect("at once").is_err());
    memory.heal("a");
    assert!(store.create(&key("1"), bytes("x"), None).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn cut_while_a_write_is_under_way_loses_its_ack() {
    let memory = Memory::new(Settings::default());
    let (store, other) = (memory.client("a"), memory.client("b"));
    let second = Duration::from_secs(1);
    memory.inject("a", Fault::Delay(second, second));
    let key = key("1");
    let cut = async {
        sleep(second + second / 2).await;
        memory.cut("a");
    };
    let (result, ()) = tokio::join!(store.create(&key, bytes("x"), None), cut);
    assert!(is_ambiguous(&result));
    assert_eq!(value(&other, "1").await, Some(bytes("x")));
}

#[tokio::test(start_paused = true)]
async fn lost_messages_are_found_by_the_next_listing() {
    let memory = Memory::new(Settings::default());
    let store = memory.client("a");
    let seen = store.create(&key("gone"), bytes("x"), None).await.expect("created");
    let mut watch = store.watch(&Prefix::ALL);
    let mut told = Told::default();
    for event in until_synced(&mut watch).await {
        told.take(&event);
    }
    memory.lose_messages("a", 2);
    store.compare_and_delete(&key("gone"), seen).await.expect("deleted");
    store.create(&key("new"), bytes("x"), None).await.expect("created");
    assert!(timeout(Duration::from_millis(4_999), watch.next()).await.is_err(), "before the listing");
    assert_eq!(next(&mut watch).await, Event::Deleted { key: key("gone"), revision: seen });
    assert!(matches!(next(&mut watch).await, Event::Entry(entry) if entry.key == key("new")));
}

#[tokio::test(start_paused = true)]
async fn expiry_that_is_not_told_is_found_by_a_listing() {
    let memory = Memory::new(Settings { tells_expiry: false, ..Settings::default() });
    let store = memory.client("a");
    let mut watch = store.watch(&Prefix::ALL);
    until_synced(&mut watch).await;
    let ttl = Some(Ttl::at_least(Duration::from_millis(1_200)));
    let seen = store.create(&key("1"), bytes("x"), ttl).await.expect("created");
    assert!(matches!(next(&mut watch).await, Event::Entry(_)));
    let began = Instant::now();
    assert_eq!(next(&mut watch).await, Event::Deleted { key: key("1"), revision: seen });
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    let set = store.compare_and_set(&key("1"), seen, bytes("y"), None).await;
    assert_eq!(set, Err(WriteError::Conflict { found: None }));
}

#[tokio::test(start_paused = true)]
async fn told_expiry_comes_on_time() {
    let store = Memory::new(Settings::default()).client("a");
    let mut watch = store.watch(&Prefix::ALL);
    until_synced(&mut watch).await;
    let ttl = Some(Ttl::at_least(Duration::from_millis(1_200)));
    let seen = store.create(&key("1"), bytes("x"), ttl).await.expect("created");
    assert!(matches!(next(&mut watch).await, Event::Entry(_)));
    let began = Instant::now();
    let Event::Deleted { revision, .. } = next(&mut watch).await else { panic!("a deletion") };
    assert_eq!(began.elapsed(), Duration::from_secs(2), "whole seconds, rounded up");
    assert!(revision > seen);
}

#[tokio::test(start_paused = true)]
async fn watcher_that_fell_far_behind_lists_anew() {
    let store = Memory::new(Settings::default()).client("a");
    let mut watch = store.watch(&Prefix::ALL);
    until_synced(&mut watch).await;
    let mut seen = store.create(&key("1"), bytes("x"), None).await.expect("created");
    for _ in 0..5_000 {
        seen = store.compare_and_set(&key("1"), seen, bytes("y"), None).await.expect("set");
    }
    assert!(matches!(next(&mut watch).await, Event::Entry(entry) if entry.revision == seen));
    assert!(matches!(next(&mut watch).await, Event::Synced { .. }));
}

#[tokio::test(start_paused = true)]
async fn watch_that_is_dropped_and_waited_for_again_loses_nothing() {
    let store = Memory::new(Settings::default()).client("a");
    let mut watch = store.watch(&Prefix::ALL);
    until_synced(&mut watch).await;
    for number in 0..20 {
        let waited = timeout(Duration::from_millis(10), watch.next()).await;
        assert!(waited.is_err(), "{waited:?}");
        let created = store.create(&key(&number.to_string()), bytes("x"), None).await;
        let Event::Entry(entry) = next_news(&mut watch).await else { panic!("an entry") };
        assert_eq!(Ok(entry.revision), created);
    }
}

#[tokio::test(start_paused = true)]
async fn dump_shows_entries_and_deletions() {
    let memory = Memory::new(Settings::default());
    let store = memory.client("a");
    store.create(&key("1"), bytes("x"), None).await.expect("created");
    let seen = store.create(&key("2"), bytes("y"), None).await.expect("created");
    store.compare_and_delete(&key("2"), seen).await.expect("deleted");
    let dump = memory.dump();
    assert!(dump.contains("at revision 3\n") && dump.contains("k.1 1 "), "{dump}");
    assert!(dump.contains("k.2 3 deleted\n"), "{dump}");
}

/// Five clients with every fault write the same keys. Returns all that they were told, by time.
async fn faulty_run(seed: u64) -> String {
    let chances = Chances {
        applied_ambiguous: 0.1,
        lost_ambiguous: 0.1,
        late_ambiguous: 0.1,
        unavailable: 0.1,
        lost_message: 0.2,
        late: Duration::from_secs(10),
        delay: Duration::from_millis(50),
    };
    let began = Instant::now();
    let memory = Memory::new(Settings { seed, ..Settings::default() });
    let work = (0..5).map(|number| {
        let name = format!("client-{number}");
        memory.set_chances(&name, chances);
        let (memory, store) = (memory.clone(), memory.client(&name));
        async move {
            let mut lines = String::new();
            let mut watch = store.watch(&Prefix::ALL);
            let mut told = Told::default();
            let mut rng = fastrand::Rng::with_seed(number);
            let mut seen = Revision::new(0);
            for round in 0..60 {
                let key = key(&rng.u8(..3).to_string());
                let result = match rng.u8(..3) {
                    0 => store.create(&key, bytes("x"), None).await,
                    1 => store.compare_and_set(&key, seen, bytes("y"), None).await,
                    _ => store.compare_and_delete(&key, seen).await.map(|()| seen),
                };
                match store.read(&key).await {
                    Ok(entry) => seen = entry.map_or(seen, |entry| entry.revision),
                    Err(error) => lines.push_str(&format!("{error}\n")),
                }
                while let Ok(event) = timeout(Duration::from_millis(5), watch.next()).await {
                    let event = event.expect("the watch goes on");
                    told.take(&event);
                    lines.push_str(&format!("{:?} {event:?}\n", began.elapsed()));
                }
                lines.push_str(&format!("{:?} {key} {result:?}\n", began.elapsed()));
                if number == 0 && round == 30 {
                    memory.recreate();
                }
            }
            memory.set_chances(&name, Chances::default());
            (lines, watch, told)
        }
    });
    let ends = join_all(work).await;
    sleep(Duration::from_secs(20)).await;
    let listing = memory.client("judge").list(&Prefix::ALL).await.expect("a listing");
    let mut trace = memory.dump();
    for (lines, mut watch, mut told) in ends {
        told.until_equal(&mut watch, &listing).await;
        trace.push_str(&lines);
    }
    trace
}

#[tokio::test(start_paused = true)]
async fn same_seed_gives_the_same_run() {
    for seed in 0..8 {
        let trace = faulty_run(seed).await;
        assert!(trace == faulty_run(seed).await, "seed {seed} gave two runs");
        for part in ["Ambiguous", "Unavailable", "Conflict", "Reset", "Deleted", "Synced"] {
            assert!(trace.contains(part), "seed {seed} has no {part}");
        }
    }
    assert!(faulty_run(1).await != faulty_run(2).await);
}
