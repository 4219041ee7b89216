//! The contract of every store. A test that fails here tells of a store on which the cluster's
//! promises do not hold.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::{
    copies::{Told, next, next_news, until_synced},
    world::{TIMEOUT, World},
};
use crate::cluster::store::{Entry, Event, Key, MAX_VALUE, Prefix, ReadError, Revision, Store, Ttl, WriteError};

/// Clients of a race.
const RACERS: usize = 8;

fn key(names: &[&str]) -> Key {
    Key::of(names).expect("names of a test")
}

fn prefix(names: &[&str]) -> Prefix {
    Prefix::of(names).expect("names of a test")
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn racers(world: &impl World) -> Vec<Arc<dyn Store>> {
    let names: Vec<String> = (0..RACERS).map(|racer| format!("racer-{racer}")).collect();
    join_all(names.iter().map(|name| world.client(name))).await
}

/// One has won, and each other was told of a conflict. Returns the winner's revision.
fn only_winner<T: Copy + std::fmt::Debug>(results: &[Result<T, WriteError>]) -> T {
    let winners: Vec<T> = results.iter().filter_map(|result| result.as_ref().ok().copied()).collect();
    assert_eq!(winners.len(), 1, "one winner: {results:?}");
    let is_told = |result: &Result<T, WriteError>| matches!(result, Ok(_) | Err(WriteError::Conflict { .. }));
    assert!(results.iter().all(is_told), "conflicts: {results:?}");
    winners[0]
}

async fn entry(store: &Arc<dyn Store>, key: &Key) -> Entry {
    store.read(key).await.expect("a read").expect("an entry")
}

pub(super) async fn create_has_one_winner_of_many(world: &impl World) {
    let stores = racers(world).await;
    for round in 0..10 {
        let key = key(&["race", &round.to_string()]);
        let creates = stores
            .iter()
            .enumerate()
            .map(|(racer, store)| store.create(&key, Bytes::from(vec![b'a' + racer as u8]), None));
        let results = join_all(creates).await;
        let revision = only_winner(&results);
        let racer = results.iter().position(Result::is_ok).expect("a winner");
        let entry = entry(&stores[0], &key).await;
        assert_eq!((entry.revision, entry.value[0]), (revision, b'a' + racer as u8));
    }
}

pub(super) async fn compare_and_set_has_one_winner_of_many(world: &impl World) {
    let stores = racers(world).await;
    let key = key(&["lease"]);
    let mut seen = stores[0].create(&key, bytes("0"), None).await.expect("created");
    for _ in 0..10 {
        let sets = stores
            .iter()
            .enumerate()
            .map(|(racer, store)| store.compare_and_set(&key, seen, Bytes::from(vec![b'a' + racer as u8]), None));
        let results = join_all(sets).await;
        let revision = only_winner(&results);
        assert!(revision > seen, "{revision} follows {seen}");
        let racer = results.iter().position(Result::is_ok).expect("a winner");
        let entry = entry(&stores[1], &key).await;
        assert_eq!((entry.revision, entry.value[0]), (revision, b'a' + racer as u8));
        seen = revision;
    }
}

pub(super) async fn compare_and_delete_has_one_winner_of_many(world: &impl World) {
    let stores = racers(world).await;
    let key = key(&["lease"]);
    let seen = stores[0].create(&key, bytes("0"), None).await.expect("created");
    let deletes = stores.iter().map(|store| store.compare_and_delete(&key, seen));
    only_winner(&join_all(deletes).await);
    assert_eq!(stores[1].read(&key).await, Ok(None));
}

pub(super) async fn stale_revision_conflicts_and_changes_nothing(world: &impl World) {
    let store = world.client("a").await;
    let key = key(&["k"]);
    let old = store.create(&key, bytes("1"), None).await.expect("created");
    let new = store.compare_and_set(&key, old, bytes("2"), None).await.expect("set");
    let conflict = Err(WriteError::Conflict { found: Some(new) });
    assert_eq!(store.compare_and_set(&key, old, bytes("3"), None).await, conflict);
    assert_eq!(store.create(&key, bytes("3"), None).await, conflict);
    let deleted = store.compare_and_delete(&key, old).await;
    assert_eq!(deleted, Err(WriteError::Conflict { found: Some(new) }));
    let after = entry(&store, &key).await;
    assert_eq!((after.revision, after.value), (new, bytes("2")));
}

pub(super) async fn absent_key_conflicts(world: &impl World) {
    let store = world.client("a").await;
    let key = key(&["k"]);
    let seen = Revision::new(7);
    let conflict = Err(WriteError::Conflict { found: None });
    assert_eq!(store.compare_and_set(&key, seen, bytes("1"), None).await, conflict);
    let conflict = Err(WriteError::Conflict { found: None });
    assert_eq!(store.compare_and_delete(&key, seen).await, conflict);
    assert_eq!(store.read(&key).await, Ok(None));
}

pub(super) async fn deleted_key_can_be_created_again(world: &impl World) {
    let store = world.client("a").await;
    let key = key(&["k"]);
    let first = store.create(&key, bytes("1"), None).await.expect("created");
    store.compare_and_delete(&key, first).await.expect("deleted");
    let set = store.compare_and_set(&key, first, bytes("2"), None).await;
    assert!(matches!(set, Err(WriteError::Conflict { .. })), "{set:?}");
    let second = store.create(&key, bytes("3"), None).await.expect("created again");
    assert!(second > first);
    assert_eq!(entry(&store, &key).await.value, bytes("3"));
    let third = store.create(&key, bytes("4"), None).await;
    assert_eq!(third, Err(WriteError::Conflict { found: Some(second) }));
}

pub(super) async fn entry_has_the_stores_revision_and_time(world: &impl World) {
    let (one, other) = (world.client("a").await, world.client("b").await);
    let key = key(&["k"]);
    let first = one.create(&key, bytes("1"), None).await.expect("created");
    let created = entry(&other, &key).await;
    assert_eq!((&created.key, created.revision), (&key, first));
    sleep(Duration::from_millis(300)).await;
    let second = one.compare_and_set(&key, first, bytes("2"), None).await.expect("set");
    let set = entry(&other, &key).await;
    assert_eq!(set.revision, second);
    let between = set.created.since(created.created);
    let expected = Duration::from_millis(290)..Duration::from_secs(5);
    assert!(expected.contains(&between), "{between:?}");
    let incarnation = one.incarnation().await.expect("a bucket");
    assert!(incarnation.created() <= created.created);
    assert_eq!(other.incarnation().await, Ok(incarnation));
}

pub(super) async fn listing_holds_the_keys_under_its_prefix_alone(world: &impl World) {
    let store = world.client("a").await;
    let all = [&["a"][..], &["a", "b"], &["a", "b", "c"], &["a", "bc"], &["ab", "b"], &["b"]];
    for names in all {
        store.create(&key(names), bytes("x"), None).await.expect("created");
    }
    for (names, wanted) in [
        (&[][..], &["a", "a.b", "a.b.c", "a.bc", "ab.b", "b"][..]),
        (&["a"], &["a.b", "a.b.c", "a.bc"]),
        (&["a", "b"], &["a.b.c"]),
        (&["c"], &[]),
    ] {
        let listing = store.list(&prefix(names)).await.expect("a listing");
        let keys: Vec<&str> = listing.entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, wanted, "{names:?}");
        assert!(listing.entries.iter().all(|entry| entry.revision <= listing.upto));
        assert_eq!(Ok(listing.incarnation), store.incarnation().await);
    }
}

pub(super) async fn any_name_is_a_key(world: &impl World) {
    let store = world.client("a").await;
    let names = ["geth.1", "*", ">", "a b", "ü\n", "=", "a=2E", "$JS.API", &"x".repeat(253)];
    for name in names {
        let key = key(&["node", name]);
        let revision = store.create(&key, Bytes::from(name.to_owned()), None).await;
        assert_eq!(entry(&store, &key).await.revision, revision.expect("created"));
    }
    let listing = store.list(&prefix(&["node"])).await.expect("a listing");
    assert_eq!(listing.entries.len(), names.len());
    for entry in listing.entries {
        assert_eq!(entry.key.names()[1].as_bytes(), entry.value);
    }
}

pub(super) async fn too_long_value_is_malformed(world: &impl World) {
    let store = world.client("a").await;
    let key = key(&["k"]);
    let longest = Bytes::from(vec![0xFF; MAX_VALUE]);
    let seen = store.create(&key, longest.clone(), None).await.expect("created");
    assert_eq!(entry(&store, &key).await.value, longest);
    let longer = Bytes::from(vec![0; MAX_VALUE + 1]);
    let result = store.compare_and_set(&key, seen, longer, None).await;
    assert!(matches!(result, Err(WriteError::Malformed(_))), "{result:?}");
    let empty = store.compare_and_set(&key, seen, Bytes::new(), None).await.expect("set");
    assert_eq!(entry(&store, &key).await.revision, empty);
}

pub(super) async fn lost_ack_is_ambiguous_and_applied(world: &impl World) {
    let (store, other) = (world.client("a").await, world.client("b").await);
    let key = key(&["k"]);
    let seen = store.create(&key, bytes("1"), None).await.expect("created");
    world.lose_next_answer("a");
    let began = Instant::now();
    let result = store.compare_and_set(&key, seen, bytes("2"), None).await;
    assert!(matches!(result, Err(WriteError::Ambiguous(_))), "{result:?}");
    assert!(result.is_err_and(|error| error.may_apply()));
    assert!(began.elapsed() < TIMEOUT * 2, "{:?}", began.elapsed());
    assert_eq!(entry(&other, &key).await.value, bytes("2"));
    world.heal("a").await;
    let after = entry(&store, &key).await;
    assert_eq!(after.value, bytes("2"));
    // The next write, with the old revision, meets the client's own earlier one.
    let again = store.compare_and_set(&key, seen, bytes("3"), None).await;
    assert_eq!(again, Err(WriteError::Conflict { found: Some(after.revision) }));
}

pub(super) async fn lost_write_is_ambiguous_and_not_applied(world: &impl World) {
    let (store, other) = (world.client("a").await, world.client("b").await);
    let key = key(&["k"]);
    let seen = store.create(&key, bytes("1"), None).await.expect("created");
    world.lose_next_call("a");
    let result = store.compare_and_set(&key, seen, bytes("2"), None).await;
    assert!(matches!(result, Err(WriteError::Ambiguous(_))), "{result:?}");
    assert_eq!(entry(&other, &key).await.revision, seen);
    world.heal("a").await;
    let set = store.compare_and_set(&key, seen, bytes("3"), None).await.expect("set");
    assert!(set > seen);
}

pub(super) async fn lost_answer_makes_a_read_unavailable(world: &impl World) {
    let store = world.client("a").await;
    let key = key(&["k"]);
    store.create(&key, bytes("1"), None).await.expect("created");
    world.cut("a");
    let began = Instant::now();
    let read = store.read(&key).await;
    assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
    let listing = store.list(&Prefix::ALL).await;
    assert!(matches!(listing, Err(ReadError::Unavailable(_))), "{listing:?}");
    assert!(began.elapsed() < TIMEOUT * 4, "{:?}", began.elapsed());
    world.heal("a").await;
    assert_eq!(entry(&store, &key).await.value, bytes("1"));
}

pub(super) async fn watch_tells_entries_then_synced_then_changes(world: &impl World) {
    let (store, other) = (world.client("a").await, world.client("b").await);
    let keys = [key(&["p", "1"]), key(&["p", "2"]), key(&["q", "1"])];
    for key in &keys {
        other.create(key, bytes("x"), None).await.expect("created");
    }
    let mut watch = store.watch(&prefix(&["p"]));
    let incarnation = store.incarnation().await.expect("a bucket");
    let (first, second) = (entry(&store, &keys[0]).await, entry(&store, &keys[1]).await);
    let events = until_synced(&mut watch).await;
    let wanted = [Event::Entry(first.clone()), Event::Entry(second), Event::Synced { incarnation }];
    assert_eq!(events, wanted);
    let seen = first.revision;
    let revision = other.compare_and_set(&keys[0], seen, bytes("y"), None).await.expect("set");
    let Event::Entry(told) = next_news(&mut watch).await else { panic!("an entry") };
    assert_eq!((told.revision, told.value), (revision, bytes("y")));
    other.compare_and_delete(&keys[0], revision).await.expect("deleted");
    let Event::Deleted { key, revision: deletion } = next_news(&mut watch).await else { panic!("a deletion") };
    assert!(key == keys[0] && deletion > revision);
}

pub(super) async fn watch_of_nothing_is_synced(world: &impl World) {
    let store = world.client("a").await;
    let mut watch = store.watch(&prefix(&["nothing"]));
    let incarnation = store.incarnation().await.expect("a bucket");
    assert_eq!(next(&mut watch).await, Event::Synced { incarnation });
}

pub(super) async fn watch_tells_changes_in_their_order(world: &impl World) {
    let (store, other) = (world.client("a").await, world.client("b").await);
    let mut watch = store.watch(&Prefix::ALL);
    until_synced(&mut watch).await;
    let mut wanted = Vec::new();
    for number in 0..50 {
        let key = key(&["k", &number.to_string()]);
        wanted.push(other.create(&key, bytes("x"), None).await.expect("created"));
    }
    let mut told = Vec::new();
    while told.len() < wanted.len() {
        let Event::Entry(entry) = next_news(&mut watch).await else { panic!("an entry") };
        told.push(entry.revision);
    }
    assert_eq!(told, wanted);
}

pub(super) async fn watch_after_an_outage_tells_the_changes_meanwhile(world: &impl World) {
    let (store, other) = (world.client("a").await, world.client("b").await);
    let keys = [key(&["stays"]), key(&["changes"]), key(&["goes"]), key(&["comes"])];
    let mut seen = Vec::new();
    for key in &keys[..3] {
        seen.push(other.create(key, bytes("x"), None).await.expect("created"));
    }
    let mut watch = store.watch(&Prefix::ALL);
    let mut told = Told::default();
    told.until_equal(&mut watch, &other.list(&Prefix::ALL).await.expect("a listing")).await;
    world.cut("a");
    other.compare_and_set(&keys[1], seen[1], bytes("y"), None).await.expect("set");
    other.compare_and_delete(&keys[2], seen[2]).await.expect("deleted");
    other.create(&keys[3], bytes("x"), None).await.expect("created");
    world.heal("a").await;
    told.until_equal(&mut watch, &other.list(&Prefix::ALL).await.expect("a listing")).await;
    assert_eq!(told.resets, 0);
}

pub(super) async fn watch_syncs_again_and_again(world: &impl World) {
    let store = world.client("a").await;
    let mut watch = store.watch(&Prefix::ALL);
    for _ in 0..4 {
        assert!(matches!(next(&mut watch).await, Event::Synced { .. }));
    }
}

pub(super) async fn emptied_bucket_is_told_as_deletions(world: &impl World) {
    let store = world.client("a").await;
    let key = key(&["k"]);
    let seen = store.create(&key, bytes("1"), None).await.expect("created");
    let mut watch = store.watch(&Prefix::ALL);
    until_synced(&mut watch).await;
    world.empty().await;
    let Event::Deleted { key: deleted, .. } = next_news(&mut watch).await else { panic!("a deletion") };
    assert_eq!(deleted, key);
    assert_eq!(store.read(&key).await, Ok(None));
    let again = store.create(&key, bytes("2"), None).await.expect("created again");
    assert!(again > seen, "{again} follows {seen}");
}

pub(super) async fn recreated_bucket_is_told_as_reset(world: &impl World) {
    let store = world.client("a").await;
    let (old, new) = (key(&["old"]), key(&["new"]));
    store.create(&old, bytes("1"), None).await.expect("created");
    let before = store.incarnation().await.expect("a bucket");
    let mut watch = store.watch(&Prefix::ALL);
    let mut told = Told::default();
    for event in until_synced(&mut watch).await {
        told.take(&event);
    }
    world.recreate().await;
    let after = store.incarnation().await.expect("a bucket");
    assert!(after > before, "{after} follows {before}");
    store.create(&new, bytes("1"), None).await.expect("created");
    assert_eq!(next_news(&mut watch).await, Event::Reset { incarnation: after });
    told.take(&Event::Reset { incarnation: after });
    told.until_equal(&mut watch, &store.list(&Prefix::ALL).await.expect("a listing")).await;
    assert_eq!(told.resets, 1);
    assert!(told.entries.contains_key(&new) && !told.entries.contains_key(&old));
}

pub(super) async fn revision_of_an_earlier_bucket_conflicts(world: &impl World) {
    let (store, other) = (world.client("a").await, world.client("b").await);
    let key = key(&["lease"]);
    let mut old = store.create(&key, bytes("old"), None).await.expect("created");
    for _ in 0..5 {
        old = store.compare_and_set(&key, old, bytes("old"), None).await.expect("set");
    }
    world.recreate().await;
    // As many writes as before, so that counts from one would meet.
    let mut new = other.create(&key, bytes("new"), None).await.expect("created");
    for _ in 0..5 {
        let result = store.compare_and_set(&key, old, bytes("old"), None).await;
        assert!(matches!(result, Err(WriteError::Conflict { .. })), "{result:?}");
        new = other.compare_and_set(&key, new, bytes("new"), None).await.expect("set");
    }
    let result = store.compare_and_set(&key, old, bytes("old"), None).await;
    assert_eq!(result, Err(WriteError::Conflict { found: Some(new) }));
}

pub(super) async fn entry_expires_and_watchers_are_told(world: &impl World) {
    let store = world.client("a").await;
    assert!(store.can_expire());
    let (short, lasting) = (key(&["short"]), key(&["lasting"]));
    let ttl = Some(Ttl::at_least(Duration::from_secs(1)));
    let seen = store.create(&short, bytes("1"), ttl).await.expect("created");
    store.create(&lasting, bytes("1"), None).await.expect("created");
    let mut watch = store.watch(&Prefix::ALL);
    until_synced(&mut watch).await;
    let Event::Deleted { key, .. } = next_news(&mut watch).await else { panic!("a deletion") };
    assert_eq!(key, short);
    assert_eq!(store.read(&short).await, Ok(None));
    assert!(store.read(&lasting).await.is_ok_and(|entry| entry.is_some()));
    let set = store.compare_and_set(&short, seen, bytes("2"), None).await;
    assert!(matches!(set, Err(WriteError::Conflict { .. })), "{set:?}");
    store.create(&short, bytes("3"), ttl).await.expect("created again");
}

pub(super) async fn rewritten_entry_lives_on(world: &impl World) {
    let store = world.client("a").await;
    let key = key(&["k"]);
    let ttl = Some(Ttl::at_least(Duration::from_secs(2)));
    let mut seen = store.create(&key, bytes("0"), ttl).await.expect("created");
    for _ in 0..4 {
        sleep(Duration::from_millis(900)).await;
        seen = store.compare_and_set(&key, seen, bytes("1"), ttl).await.expect("set");
    }
    let without = store.compare_and_set(&key, seen, bytes("2"), None).await.expect("set");
    sleep(Duration::from_secs(3)).await;
    assert_eq!(entry(&store, &key).await.revision, without);
}

pub(super) async fn every_copy_equals_the_bucket_in_the_end(world: &impl World) {
    let stores = racers(world).await;
    let keys: Vec<Key> = (0..4).map(|number| key(&["k", &number.to_string()])).collect();
    let mut watches: Vec<_> = stores.iter().map(|store| store.watch(&prefix(&["k"]))).collect();
    let work = stores.iter().enumerate().map(|(racer, store)| {
        let keys = &keys;
        async move {
            let mut rng = fastrand::Rng::with_seed(racer as u64);
            for _ in 0..40 {
                let key = &keys[rng.usize(..keys.len())];
                let _ = match store.read(key).await.expect("a read") {
                    None => store.create(key, bytes("x"), None).await.map(|_| ()),
                    Some(entry) if rng.u8(..4) == 0 => store.compare_and_delete(key, entry.revision).await,
                    Some(entry) => store.compare_and_set(key, entry.revision, bytes("y"), None).await.map(|_| ()),
                };
            }
        }
    });
    join_all(work).await;
    let listing = stores[0].list(&prefix(&["k"])).await.expect("a listing");
    for watch in &mut watches {
        Told::default().until_equal(watch, &listing).await;
    }
}
