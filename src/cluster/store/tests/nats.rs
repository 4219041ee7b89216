//! The store in NATS, on real servers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::jetstream;
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{sleep, timeout},
};

use super::{
    copies::{Told, next, next_news, until_synced},
    proxy::Proxy,
    servers::Servers,
    world::{RELIST, TIMEOUT, World},
};
use crate::cluster::store::{
    ClusterName, Event, Incarnation, Key, Prefix, Store, WriteError,
    nats::{NatsStore, OpenError, Options},
};

/// A bucket on real servers. Each client has a relay of its own to the first of them.
pub(super) struct OnNats<'a> {
    servers: &'a Servers,
    cluster: ClusterName,
    admin: NatsStore,
    context: jetstream::Context,
    clients: Mutex<BTreeMap<String, Arc<Client>>>,
}

struct Client {
    proxy: Proxy,
    store: NatsStore,
}

impl<'a> OnNats<'a> {
    pub(super) async fn new(servers: &'a Servers, bucket: &str) -> Self {
        let cluster = ClusterName::new(bucket).expect("a name");
        let urls: Vec<String> =
            (0..servers.count()).map(|place| servers.address(place).to_string()).collect();
        let admin = NatsStore::open(options(&cluster, urls.clone())).await.expect("a store");
        let client = async_nats::connect(urls).await.expect("a connection");
        let context = jetstream::new(client);
        Self { servers, cluster, admin, context, clients: Mutex::default() }
    }

    fn stream(&self) -> String {
        format!("KV_{}", self.cluster.bucket())
    }

    fn known(&self, name: &str) -> Option<Arc<Client>> {
        self.clients.lock().expect("a lock").get(name).cloned()
    }

    fn proxy(&self, name: &str) -> Arc<Client> {
        self.known(name).expect("a client of that name")
    }
}

fn options(cluster: &ClusterName, servers: Vec<String>) -> Options {
    let seed = fastrand::u64(..);
    Options { timeout: TIMEOUT, relist: RELIST, ..Options::new(cluster.clone(), servers, seed) }
}

async fn open(cluster: &str, servers: Vec<String>) -> Result<NatsStore, OpenError> {
    NatsStore::open(options(&ClusterName::new(cluster).expect("a name"), servers)).await
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

fn key(names: &[&str]) -> Key {
    Key::of(names).expect("names of a test")
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

impl World for OnNats<'_> {
    async fn client(&self, name: &str) -> Arc<dyn Store> {
        if let Some(client) = self.known(name) {
            return Arc::new(client.store.clone());
        }
        let proxy = Proxy::start(self.servers.address(0)).await;
        let mut options = options(&self.cluster, vec![proxy.address.to_string()]);
        options.only_named = true;
        let store = NatsStore::open(options).await.expect("a store");
        let client = Arc::new(Client { proxy, store: store.clone() });
        self.clients.lock().expect("a lock").insert(name.to_owned(), client);
        Arc::new(store)
    }

    fn lose_next_answer(&self, client: &str) {
        self.proxy(client).proxy.hold(false, true);
    }

    fn lose_next_call(&self, client: &str) {
        self.proxy(client).proxy.hold(true, false);
    }

    fn cut(&self, client: &str) {
        self.proxy(client).proxy.hold(true, true);
    }

    async fn heal(&self, client: &str) {
        let client = self.proxy(client);
        let before = client.proxy.accepted();
        client.proxy.restart();
        until("a new connection", async || {
            client.proxy.accepted() > before && client.store.is_connected()
        })
        .await;
    }

    async fn empty(&self) {
        let stream = self.context.get_stream(self.stream()).await.expect("a stream");
        stream.purge().await.expect("a purge");
    }

    async fn recreate(&self) {
        self.context.delete_stream(self.stream()).await.expect("a stream");
        self.admin.incarnation().await.expect("a bucket");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server, which tests/install.sh brings"]
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
    world.proxy("a").proxy.release();
    until("the late write", async || {
        other.read(&key).await.is_ok_and(|entry| entry.is_some_and(|entry| entry.value == "2"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server, which tests/install.sh brings"]
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
#[ignore = "needs nats-server, which tests/install.sh brings"]
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server, which tests/install.sh brings"]
async fn cluster_goes_on_when_one_of_three_is_killed() {
    let servers = Servers::three().await;
    let urls = (0..3).map(|place| servers.address(place).to_string()).collect();
    let store = open("three", urls).await.expect("a store");
    let context = jetstream::new(
        async_nats::connect(servers.address(0).to_string()).await.expect("a connection"),
    );
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
    until("writes with all three", async || {
        store.create(&self::key(&["after"]), bytes("1"), None).await.is_ok()
    })
    .await;
    told.until_equal(&mut watch, &store.list(&Prefix::ALL).await.expect("a listing")).await;
    assert_eq!(told.resets, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server, which tests/install.sh brings"]
async fn openers_in_a_race_share_one_bucket() {
    let servers = Servers::one().await;
    let url = servers.address(0).to_string();
    let opens = (0..6).map(|_| open("race", vec![url.clone()]));
    let stores = futures_util::future::join_all(opens).await;
    let mut found: Vec<Incarnation> = Vec::new();
    for store in stores {
        found.push(store.expect("a store").incarnation().await.expect("a bucket"));
    }
    found.dedup();
    assert_eq!(found.len(), 1, "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server, which tests/install.sh brings"]
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
#[ignore = "needs nats-server, which tests/install.sh brings"]
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
#[ignore = "needs nats-server, which tests/install.sh brings"]
async fn foreign_bucket_is_refused_by_name() {
    let servers = Servers::one().await;
    let world = OnNats::new(&servers, "made").await;
    let mut config = jetstream::stream::Config {
        name: "KV_steadfast-by-hand".to_owned(),
        subjects: vec!["$KV.steadfast-by-hand.>".to_owned()],
        ..Default::default()
    };
    config.max_messages_per_subject = 1;
    world.context.create_stream(config).await.expect("a stream");
    let refused = open("by-hand", vec![servers.address(0).to_string()]).await;
    let Err(error @ OpenError::Bucket { .. }) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("nats kv del steadfast-by-hand"), "{error}");
}

#[tokio::test]
async fn server_older_than_2_10_is_refused_by_version() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = async {
        let (mut connection, _) = listener.accept().await.expect("a client");
        let info = r#"{"server_id":"x","server_name":"old-one","version":"2.9.10","host":"h","#;
        let info = format!("INFO {info}\"port\":1,\"headers\":true,\"max_payload\":1048576}}\r\n");
        connection.write_all(info.as_bytes()).await.expect("sent");
        let mut bytes = [0; 4096];
        while let Ok(1..) = connection.read(&mut bytes).await {
            connection.write_all(b"PONG\r\n").await.expect("sent");
        }
    };
    let opened = tokio::select! {
        () = server => panic!("the client hung up"),
        opened = open("old", vec![address.to_string()]) => opened,
    };
    let Err(error) = opened else { panic!("{opened:?}") };
    assert_eq!(
        error.to_string(),
        "the NATS server old-one is version 2.9.10, and Steadfast needs 2.10 or later"
    );
    assert!(!error.may_pass());
}

#[tokio::test]
async fn absent_server_is_unreachable_for_now() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let refused = open("none", vec![address.to_string()]).await.expect_err("no server");
    assert!(matches!(refused, OpenError::Unreachable(_)) && refused.may_pass(), "{refused:?}");
}

#[tokio::test]
async fn silent_server_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let opened = timeout(TIMEOUT * 4, open("mute", vec![address.to_string()])).await;
    let refused = opened.expect("an end in time").expect_err("no greeting");
    assert!(matches!(refused, OpenError::Unreachable(_)), "{refused:?}");
}

#[tokio::test]
async fn url_without_meaning_is_a_setting() {
    for servers in [vec![], vec!["nats://user:secret@[".to_owned()]] {
        let refused = open("urls", servers).await.expect_err("no URL");
        assert!(matches!(refused, OpenError::Setting(_)) && !refused.may_pass(), "{refused:?}");
        assert!(!refused.to_string().contains("secret"));
    }
}
