//! Servers and buckets that go away, freeze, come back, or hold what is not Steadfast's.

use std::time::Duration;

use async_nats::jetstream;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, timeout};

use super::{
    copies::{Told, next, next_news, until_synced},
    nats::{OnNats, bytes, key, open, until},
    servers::Servers,
    world::{TIMEOUT, World},
};
use crate::cluster::store::{Event, Prefix, ReadError, Store, WriteError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_write_is_applied_late() {
    let servers = Servers::one().await;
    let world = OnNats::new(&servers, "late").await;
    let (store, other) = (world.client("a").await, world.client("b").await);
    let key = key(&["k"]);
    let seen = store.create(&key, bytes("1"), None).await.expect("created");
    world.cut("a");
    let result = store.compare_and_set(&key, seen, bytes("2"), None).await;
    assert!(matches!(result, Err(WriteError::Ambiguous(_))), "{result:?}");
    let read = other.read(&key).await.expect("a read").expect("an entry");
    assert_eq!(read.revision, seen, "a read after an ambiguous write shows the old value");
    world.client_and_proxy("a").proxy.release();
    until("the late write", async || {
        other.read(&key).await.is_ok_and(|entry| entry.is_some_and(|entry| entry.value == "2"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_server_comes_back_with_the_bucket() {
    let servers = Servers::one().await;
    let store = open("kill", vec![servers.address(0).to_string()]).await.expect("a store");
    let (kept, later) = (key(&["kept"]), key(&["later"]));
    let seen = store.create(&kept, bytes("1"), None).await.expect("created");
    let incarnation = store.incarnation().await.expect("a bucket");
    let mut watch = store.watch(&Prefix::ALL);
    let mut told = Told::default();
    told.until_equal(&mut watch, &store.list(&Prefix::ALL).await.expect("a listing")).await;
    servers.kill(0);
    until("the loss is noticed", async || !store.is_connected()).await;
    let refused = store.compare_and_set(&kept, seen, bytes("2"), None).await;
    assert!(matches!(refused, Err(WriteError::Unavailable(_))), "{refused:?}");
    assert!(store.read(&kept).await.is_err() && store.list(&Prefix::ALL).await.is_err());
    servers.start(0);
    servers.answer().await;
    until("a connection", async || store.is_connected()).await;
    assert_eq!(store.incarnation().await, Ok(incarnation));
    let set = store.compare_and_set(&kept, seen, bytes("2"), None).await.expect("set");
    assert!(set > seen);
    store.create(&later, bytes("1"), None).await.expect("created");
    told.until_equal(&mut watch, &store.list(&Prefix::ALL).await.expect("a listing")).await;
    assert_eq!(told.resets, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_lost_its_files_is_told_as_reset() {
    let servers = Servers::one().await;
    let store = open("lost", vec![servers.address(0).to_string()]).await.expect("a store");
    store.create(&key(&["k"]), bytes("1"), None).await.expect("created");
    let before = store.incarnation().await.expect("a bucket");
    let mut watch = store.watch(&Prefix::ALL);
    until_synced(&mut watch).await;
    servers.kill(0);
    servers.forget(0);
    servers.start(0);
    let Event::Reset { incarnation } = next_news(&mut watch).await else { panic!("a reset") };
    assert_ne!(incarnation, before);
    assert_eq!(next(&mut watch).await, Event::Synced { incarnation });
    assert_eq!(store.read(&key(&["k"])).await, Ok(None));
}

/// The files of the server come back as they were: revisions and entries are older, and nothing is
/// written from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_was_set_back_is_told_as_reset() {
    let servers = Servers::one().await;
    let store = open("set-back", vec![servers.address(0).to_string()]).await.expect("a store");
    let one = store.create(&key(&["one"]), bytes("1"), None).await.expect("created");
    servers.kill(0);
    servers.keep(0);
    servers.start(0);
    until("a connection", async || store.read(&key(&["one"])).await.is_ok()).await;
    let mut watch = store.watch(&Prefix::ALL);
    let two = store.compare_and_set(&key(&["one"]), one, bytes("2"), None).await.expect("set");
    until_synced(&mut watch).await;
    servers.kill(0);
    servers.forget(0);
    servers.put_back(0);
    servers.start(0);
    until("a connection", async || store.read(&key(&["one"])).await.is_ok()).await;
    let is_reset = async { while !matches!(next(&mut watch).await, Event::Reset { .. }) {} };
    timeout(Duration::from_secs(60), is_reset).await.expect("a reset");
    let Event::Entry(entry) = next(&mut watch).await else { panic!("an entry") };
    assert!(entry.revision == one && one < two, "{entry:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_goes_on_when_one_of_three_is_killed() {
    let servers = Servers::three().await;
    let urls = (0..3).map(|place| servers.address(place).to_string()).collect();
    let store = open("three", urls).await.expect("a store");
    let context = jetstream::new(async_nats::connect(servers.address(0).to_string()).await.expect("a connection"));
    let stream = context.get_stream("KV_steadfast-three").await.expect("a stream");
    assert_eq!(stream.cached_info().config.num_replicas, 3);
    let leader = stream.cached_info().cluster.as_ref().and_then(|info| info.leader.clone());
    let leader: usize = leader.expect("a leader")[1..].parse().expect("a server's number");
    let key = key(&["lease"]);
    let mut seen = store.create(&key, bytes("0"), None).await.expect("created");
    let mut watch = store.watch(&Prefix::ALL);
    until_synced(&mut watch).await;
    servers.kill(leader);
    // As a leader does: after an ambiguous write, read; after a refusal, try again.
    let mut written = 0;
    until("ten writes", async || {
        match store.compare_and_set(&key, seen, bytes("1"), None).await {
            Ok(revision) => (seen, written) = (revision, written + 1),
            Err(WriteError::Unavailable(_)) => {}
            Err(WriteError::Ambiguous(_) | WriteError::Conflict { .. }) => {
                if let Ok(Some(entry)) = store.read(&key).await {
                    seen = seen.max(entry.revision);
                }
            }
            Err(error) => panic!("{error}"),
        }
        written == 10
    })
    .await;
    let mut told = Told::default();
    told.until_equal(&mut watch, &store.list(&Prefix::ALL).await.expect("a listing")).await;
    servers.start(leader);
    until("writes with all three", async || store.create(&self::key(&["after"]), bytes("1"), None).await.is_ok()).await;
    told.until_equal(&mut watch, &store.list(&Prefix::ALL).await.expect("a listing")).await;
    assert_eq!(told.resets, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_of_two_names_never_meet() {
    let servers = Servers::one().await;
    let url = servers.address(0).to_string();
    let one = open("eu", vec![url.clone()]).await.expect("a store");
    let other = open("us", vec![url]).await.expect("a store");
    one.create(&key(&["k"]), bytes("1"), None).await.expect("created");
    assert_eq!(other.read(&key(&["k"])).await, Ok(None));
    other.create(&key(&["k"]), bytes("2"), None).await.expect("created");
    assert_eq!(one.list(&Prefix::ALL).await.expect("a listing").entries[0].value, bytes("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_key_is_told_and_stops_nothing() {
    let servers = Servers::one().await;
    let world = OnNats::new(&servers, "foreign").await;
    let store = world.client("a").await;
    let mut watch = store.watch(&Prefix::ALL);
    until_synced(&mut watch).await;
    let subject = format!("$KV.{}.not=escaped", world.cluster.bucket());
    let ack = world.context.publish(subject, bytes("x")).await.expect("sent");
    let revision = ack.await.expect("stored").sequence;
    let Event::Malformed(told) = next_news(&mut watch).await else { panic!("a malformed entry") };
    assert_eq!((told.key.as_str(), told.revision.get()), ("not=escaped", revision));
    store.create(&key(&["k"]), bytes("1"), None).await.expect("created");
    assert!(matches!(next_news(&mut watch).await, Event::Entry(_)));
    let listing = store.list(&Prefix::ALL).await.expect("a listing");
    assert_eq!((listing.entries.len(), listing.malformed), (1, vec![told]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_server_holds_no_call_for_long() {
    let servers = Servers::one().await;
    let store = open("frozen", vec![servers.address(0).to_string()]).await.expect("a store");
    let key = key(&["k"]);
    let seen = store.create(&key, bytes("1"), None).await.expect("created");
    let mut watch = store.watch(&Prefix::ALL);
    let mut told = Told::default();
    told.until_equal(&mut watch, &store.list(&Prefix::ALL).await.expect("a listing")).await;
    servers.freeze(0, true);
    let began = Instant::now();
    let written = store.compare_and_set(&key, seen, bytes("2"), None).await;
    assert!(matches!(written, Err(WriteError::Ambiguous(_))), "{written:?}");
    let read = store.read(&key).await;
    assert!(matches!(read, Err(ReadError::Unavailable(_))), "{read:?}");
    assert!(store.list(&Prefix::ALL).await.is_err());
    assert!(store.incarnation().await.is_err());
    assert!(began.elapsed() < TIMEOUT * 6, "{:?}", began.elapsed());
    servers.freeze(0, false);
    until("a read", async || store.read(&key).await.is_ok()).await;
    store.create(&self::key(&["after"]), bytes("1"), None).await.expect("created");
    told.until_equal(&mut watch, &store.list(&Prefix::ALL).await.expect("a listing")).await;
    assert_eq!(told.resets, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_bucket_is_made_anew_by_a_watch() {
    let servers = Servers::one().await;
    let world = OnNats::new(&servers, "removed").await;
    let store = world.client("a").await;
    let key = key(&["k"]);
    let seen = store.create(&key, bytes("1"), None).await.expect("created");
    let mut watch = store.watch(&Prefix::ALL);
    until_synced(&mut watch).await;
    world.context.delete_stream(world.stream()).await.expect("a stream");
    let written = store.compare_and_set(&key, seen, bytes("2"), None).await;
    // The watch may have been faster.
    let is_refused = matches!(written, Err(WriteError::Unavailable(_) | WriteError::Conflict { found: None }));
    assert!(is_refused, "{written:?}");
    let Event::Reset { incarnation } = next_news(&mut watch).await else { panic!("a reset") };
    assert_eq!(store.incarnation().await, Ok(incarnation));
    assert!(store.create(&key, bytes("1"), None).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_says_that_its_bucket_was_made_by_another_program() {
    let servers = Servers::one().await;
    let world = OnNats::new(&servers, "replaced").await;
    let store = world.client("a").await;
    let mut watch = store.watch(&Prefix::ALL);
    until_synced(&mut watch).await;
    let foreign = jetstream::stream::Config {
        name: world.stream(),
        subjects: vec![format!("$KV.{}.>", world.cluster.bucket())],
        max_messages_per_subject: 1,
        ..Default::default()
    };
    // The watch makes the bucket anew where that is removed: until the other program is faster.
    until("the bucket is another program's", async || {
        let _ = world.context.delete_stream(world.stream()).await;
        world.context.create_stream(foreign.clone()).await.is_ok()
    })
    .await;
    let said = async {
        loop {
            match next(&mut watch).await {
                Event::Failed(why) if why.contains("was not made by this version of Steadfast") => return,
                _ => {}
            }
        }
    };
    timeout(Duration::from_secs(30), said).await.expect("the reason");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_revision_of_a_bucket_is_taken_by_no_entry() {
    let servers = Servers::one().await;
    let world = OnNats::new(&servers, "first").await;
    let stream = world.context.get_stream(world.stream()).await.expect("a stream");
    let info = stream.cached_info();
    assert!(info.config.first_sequence.is_some_and(|first| first < info.state.first_sequence));
    assert!(
        world
            .client("a")
            .await
            .list(&Prefix::ALL)
            .await
            .is_ok_and(|listing| { listing.entries.is_empty() && listing.malformed.is_empty() })
    );
}

/// A question for each entry would take a while over a long way, and others write meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listing_of_many_entries_takes_few_questions() {
    const ENTRIES: usize = 300;
    let servers = Servers::one().await;
    let world = OnNats::new(&servers, "many").await;
    let store = world.client("a").await;
    for number in 0..ENTRIES {
        store.create(&key(&["k", &number.to_string()]), bytes("1"), None).await.expect("created");
    }
    let client = async_nats::connect(servers.address(0).to_string()).await.expect("a connection");
    let mut questions = client.subscribe("$JS.API.>").await.expect("a subscription");
    client.flush().await.expect("subscribed");
    let listing = store.list(&Prefix::of(&["k"]).expect("a prefix")).await.expect("a listing");
    assert_eq!(listing.entries.len(), ENTRIES);
    client.flush().await.expect("all are there");
    let mut count = 0;
    while questions.next().now_or_never().flatten().is_some() {
        count += 1;
    }
    assert!((1..20).contains(&count), "{count}");
}
