//! Three proxies that share their outbox: a transaction that any of them has accepted outlives each
//! of them. Over stores in memory, in simulated time; each replica has a disk of its own.

mod absence;
mod chains;
mod clocks;
mod disks;
mod faults;
mod untold;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use alloy_primitives::B256;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use steadfast::{
    app::{App, Source, World},
    cluster::{
        OpenStore,
        store::{
            Prefix, Store, StoreTime,
            memory::{Memory, Settings},
        },
    },
    devnet::{Devnet, Fault, Node, Options},
    net::{
        BoxFuture,
        post::{Answer, Post, PostError},
    },
    outbox::store::pretend_disk::PretendDisk,
};
use tokio::time::{Instant, sleep};

use crate::common::{
    client::call,
    proxy::{config, two_primaries_and_a_backup},
    signed,
    sim::{Net, Proxy},
    simulation::run_simulated,
};

const START_UNIX: u64 = 1_800_000_000;
const SEND: &str = "eth_sendRawTransaction";
const STATUS: &str = "steadfast_getTransactionStatus";
/// The usual `failover_timeout`.
const FAILOVER: Duration = Duration::from_secs(12);
/// `heartbeat * failure_threshold`.
const LEASE: Duration = Duration::from_secs(3);
/// Far longer than any step takes.
const PATIENCE: Duration = Duration::from_secs(120);
const REPLICAS: usize = 3;

/// A delivery: the replica that made it, its id, the event, and the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    replica: usize,
    id: String,
    kind: String,
    hash: String,
}

/// The endpoint, as one replica reaches it.
struct Endpoint {
    replica: usize,
    got: Arc<Mutex<Vec<Got>>>,
    is_down: Arc<Mutex<bool>>,
}

impl Post for Endpoint {
    fn post(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<Answer, PostError>> {
        let is_down = *self.is_down.lock().unwrap();
        if !is_down {
            let body: Value = serde_json::from_slice(&body).unwrap();
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            self.got.lock().unwrap().push(Got {
                replica: self.replica,
                id: headers["webhook-id"].to_str().unwrap().to_owned(),
                kind: word(&body["type"]),
                hash: word(&body["data"]["hash"]),
            });
        }
        let status = if is_down { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NO_CONTENT };
        Box::pin(async move { Ok(Answer { status, retry_after: None }) })
    }
}

/// The replicas before three nodes.
struct Fleet {
    net: Net,
    devnet: Devnet,
    members: Memory,
    bucket: Memory,
    start: Instant,
    disks: Vec<PretendDisk>,
    /// By how many seconds each replica's wall clock is ahead.
    skews: [u64; REPLICAS],
    replicas: Vec<Option<Proxy>>,
    got: Arc<Mutex<Vec<Got>>>,
    /// The endpoint fails.
    is_down: Arc<Mutex<bool>>,
    more: String,
}

fn opens(memory: &Memory) -> OpenStore {
    let memory = memory.clone();
    Arc::new(move |settings| {
        let store: Arc<dyn Store> = Arc::new(memory.client(settings.replica.as_str()));
        Box::pin(async move { Ok(store) })
    })
}

/// The transaction of the sender with this key, and its hash.
fn transaction(key: u8, nonce: u64) -> (String, B256) {
    signed::transaction(1337, key, nonce, 1)
}

impl Fleet {
    /// A fleet without replicas yet. `more` comes behind `[outbox]`.
    async fn prepare(more: &str) -> Self {
        let net = Net::default();
        let options = Options { execution: 3, own_mempools: true, now_unix: Some(START_UNIX), ..Options::default() };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let dawn = StoreTime::from_nanos(START_UNIX * 1_000_000_000);
        Self {
            net,
            devnet,
            members: Memory::new(Settings::default()),
            bucket: Memory::new(Settings { dawn, ..Settings::default() }),
            skews: [0; REPLICAS],
            start: Instant::now(),
            disks: (0..REPLICAS).map(|_| PretendDisk::default()).collect(),
            replicas: (0..REPLICAS).map(|_| None).collect(),
            got: Arc::default(),
            is_down: Arc::default(),
            more: more.to_owned(),
        }
    }

    /// Three replicas that have shared out all shards.
    async fn start(more: &str) -> Self {
        let mut fleet = Self::prepare(more).await;
        for place in 0..REPLICAS {
            fleet.launch(place).await;
        }
        fleet.until_shared().await;
        fleet
    }

    fn settings(&self, place: usize) -> String {
        let hook = "[[outbox.webhook]]\nname = \"billing\"\nurl = \"https://hooks.example/tx\"\n\
            events = [\"tx.accepted\", \"tx.mined\", \"tx.confirmed\", \"tx.final\", \"tx.reorged\", \"node.down\"]\n\
            secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n";
        let cluster = format!("[cluster]\nname = \"eu\"\nreplica = \"r{place}\"\nnats = \"nats://unused\"\n");
        let own = format!("[calls]\nhold = \"3s\"\n[outbox]\nconfirmations = 2\n{}{hook}", self.more);
        two_primaries_and_a_backup(&self.devnet, &[&*own, &*cluster].concat())
    }

    /// Starts the replica of this place, on its own disk.
    async fn launch(&mut self, place: usize) {
        let settings = self.settings(place);
        self.launch_with(place, settings).await;
    }

    async fn launch_with(&mut self, place: usize, settings: String) {
        let net = self.net.with_disk(self.disks[place].clone());
        let endpoint = Endpoint { replica: place, got: self.got.clone(), is_down: self.is_down.clone() };
        let endpoint = Arc::new(endpoint);
        let world = World {
            open_cluster: opens(&self.members),
            open_outbox_bucket: opens(&self.bucket),
            connect: Arc::new(move |_| Ok(endpoint.clone())),
            ..net.world(START_UNIX + self.skews[place], self.start)
        };
        let source: Source = Arc::new(move || Ok(config(&settings)));
        let app = App::start(source().unwrap(), world, Some(source)).await.unwrap();
        assert!(self.replicas[place].replace(Proxy::of(&net, app)).is_none(), "r{place} runs already");
    }

    fn at(&self, place: usize) -> &Proxy {
        self.replicas[place].as_ref().unwrap()
    }

    fn running(&self) -> Vec<usize> {
        (0..REPLICAS).filter(|place| self.replicas[*place].is_some()).collect()
    }

    /// Ends a replica at once, as a crash does. Its disk loses what it had not synced.
    async fn crash(&mut self, place: usize) {
        self.disks[place].cut_power(7);
        drop(self.replicas[place].take().unwrap());
        sleep(Duration::from_millis(1)).await;
    }

    /// The shards of each replica that runs.
    async fn shards(&self) -> Vec<u64> {
        let mut shards = Vec::new();
        for place in self.running() {
            let status = self.at(place).admin("/status").await.json();
            shards.push(status["outbox"]["shards"]["owned"].as_u64().unwrap_or_default());
        }
        shards
    }

    /// Waits until the replicas that run have all shards among them, each of them some.
    async fn until_shared(&self) {
        let start = Instant::now();
        loop {
            let shards = self.shards().await;
            if shards.iter().sum::<u64>() == 64 && shards.iter().all(|share| *share > 0) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{shards:?}\n{}\n{}", self.members.dump(), self.bucket.dump());
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn node(&self, index: usize) -> &Arc<Node> {
        self.devnet.el(index)
    }

    fn set_faults(&self, fault: Option<&Fault>) {
        for index in 0..3 {
            match fault {
                Some(fault) => self.node(index).set_fault(fault.clone()),
                None => self.node(index).clear_faults(),
            }
        }
    }

    async fn send(&self, place: usize, key: u8, nonce: u64) -> Value {
        let raw = transaction(key, nonce).0;
        self.at(place).post(call(1, SEND, &format!("[\"{raw}\"]"))).await.json()
    }

    /// Sends a transaction at a replica, and expects the hash.
    async fn sent(&self, place: usize, key: u8, nonce: u64) -> B256 {
        let (answer, hash) = (self.send(place, key, nonce).await, transaction(key, nonce).1);
        assert_eq!(answer["result"], json!(hash), "{answer}");
        hash
    }

    async fn state(&self, place: usize, hash: B256) -> String {
        let status = self.at(place).post(call(2, STATUS, &format!("[\"{hash}\"]"))).await.json();
        status["result"]["state"].as_str().unwrap_or("none").to_owned()
    }

    /// Waits until all replicas that run know of this state.
    async fn until_state(&self, hash: B256, states: &[&str]) {
        let start = Instant::now();
        loop {
            let mut known = BTreeSet::new();
            for place in self.running() {
                known.insert(self.state(place, hash).await);
            }
            if known.iter().all(|state| states.contains(&&**state)) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{hash} is {known:?}, not {states:?}\n{}", self.bucket.dump());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Who signed a transaction, as the first replica that runs knows.
    async fn sender(&self, hash: B256) -> String {
        let status = self.at(self.running()[0]).post(call(2, STATUS, &format!("[\"{hash}\"]"))).await.json();
        status["result"]["from"].as_str().unwrap().to_owned()
    }

    async fn until_mempools(&self, hash: B256) {
        let start = Instant::now();
        while !(0..3).all(|index| self.node(index).mempool().contains(&hash)) {
            assert!(start.elapsed() < PATIENCE, "{hash} came to no node\n{}", self.bucket.dump());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The replica that sees a transaction through, and that runs.
    async fn owner(&self, hash: B256) -> usize {
        let start = Instant::now();
        loop {
            let first = self.running()[0];
            let shown = self.at(first).admin(&format!("/outbox/{hash}")).await.json();
            let name = shown["transactions"][0]["replica"].as_str();
            let owner = name.and_then(|name| name.strip_prefix('r')?.parse::<usize>().ok());
            if let Some(owner) = owner.filter(|owner| self.replicas[*owner].is_some()) {
                return owner;
            }
            assert!(start.elapsed() < PATIENCE, "nobody sees {hash} through: {shown}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn leader(&self) -> Option<usize> {
        for place in self.running() {
            if self.at(place).admin("/leader").await.status == 200 {
                return Some(place);
            }
        }
        None
    }

    async fn mine(&self, count: u64) {
        for _ in 0..count {
            self.devnet.chain().mine(1);
            sleep(Duration::from_millis(1500)).await;
        }
    }

    /// Waits until the endpoint was told of these events of a transaction.
    async fn until_told(&self, hash: B256, kinds: &[&str]) {
        let start = Instant::now();
        loop {
            let told = self.told(hash);
            if kinds.iter().all(|kind| told.contains_key(*kind)) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{told:?} of {kinds:?}\n{}", self.bucket.dump());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The ids under which the endpoint was told of each event of a transaction.
    fn told(&self, hash: B256) -> BTreeMap<String, BTreeSet<String>> {
        let mut told = BTreeMap::<_, BTreeSet<_>>::new();
        for got in self.got.lock().unwrap().iter().filter(|got| got.hash == hash.to_string()) {
            told.entry(got.kind.clone()).or_default().insert(got.id.clone());
        }
        told
    }

    /// Each event of a transaction was told under one id.
    fn each_has_one_id(&self, hash: B256) {
        for (kind, ids) in self.told(hash) {
            assert_eq!(ids.len(), 1, "{kind} of {hash} was told under {ids:?}");
        }
    }
}

/// U21, U53, R19: any replica takes a transaction, one of them sends it, and all know of it.
#[test]
fn a_transaction_is_accepted_at_any_replica() {
    run_simulated(1, async {
        let fleet = Fleet::start("").await;
        let shards = fleet.shards().await;
        assert!(shards.iter().all(|share| (12..=32).contains(share)), "{shards:?}");
        let mut hashes = Vec::new();
        for key in 1..=9 {
            hashes.push(fleet.sent(usize::from(key % 3), key, 0).await);
        }
        for hash in &hashes {
            fleet.until_mempools(*hash).await;
            fleet.until_state(*hash, &["sent", "seen"]).await;
        }
        // A replica that does not send them tells the next nonce all the same.
        for (place, at) in [(0, 0), (1, 0), (2, 0), (0, 4), (1, 4), (2, 4)] {
            let sender = fleet.sender(hashes[at]).await;
            let asked = call(3, "eth_getTransactionCount", &format!("[\"{sender}\",\"pending\"]"));
            let answer = fleet.at(place).post(asked).await.json();
            assert_eq!(answer["result"], "0x1", "r{place}: {answer}");
        }
        let counts = [0, 1, 2].map(|index| fleet.node(index).count(SEND));
        assert_eq!(counts, [9; 3], "a node was sent one by two replicas");
        fleet.mine(3).await;
        for hash in &hashes {
            fleet.until_state(*hash, &["confirmed", "final"]).await;
            fleet.until_told(*hash, &["tx.accepted", "tx.mined", "tx.confirmed"]).await;
            fleet.each_has_one_id(*hash);
        }
        let owners: BTreeSet<_> = fleet.got.lock().unwrap().iter().map(|got| got.replica).collect();
        assert!(owners.len() > 1, "one replica does all");
        // Once each, for nothing has failed.
        assert_eq!(fleet.got.lock().unwrap().iter().filter(|got| got.kind.starts_with("tx.")).count(), 9 * 3);
    });
}

/// U3: the same bytes at two replicas are one transaction.
#[test]
fn the_same_bytes_at_two_replicas_are_one_transaction() {
    run_simulated(2, async {
        let fleet = Fleet::start("").await;
        let (one, other) = tokio::join!(fleet.send(0, 1, 0), fleet.send(1, 1, 0));
        let hash = transaction(1, 0).1;
        assert_eq!((&one["result"], &other["result"]), (&json!(hash), &json!(hash)), "{one} {other}");
        fleet.until_mempools(hash).await;
        assert_eq!(fleet.sent(2, 1, 0).await, hash);
        fleet.until_told(hash, &["tx.accepted"]).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!([0, 1, 2].map(|index| fleet.node(index).count(SEND)), [1; 3]);
        assert_eq!(fleet.got.lock().unwrap().iter().filter(|got| got.kind == "tx.accepted").count(), 1);
    });
}

/// A nonce that a block has used is refused at any replica, and leaves no row.
#[test]
fn a_used_nonce_is_refused_at_any_replica() {
    run_simulated(4, async {
        let fleet = Fleet::start("").await;
        let hash = fleet.sent(0, 1, 0).await;
        fleet.until_mempools(hash).await;
        fleet.mine(1).await;
        fleet.until_state(hash, &["mined"]).await;
        for place in 0..REPLICAS {
            let raw = signed::transaction(1337, 1, 0, 2 + place as u128).0;
            let answer = fleet.at(place).post(call(1, SEND, &format!("[\"{raw}\"]"))).await.json();
            assert_eq!(answer["error"]["data"]["reason"], "nonce_used", "r{place}: {answer}");
        }
        let rows = fleet.bucket.client("observer").list(&Prefix::of(&["tx"]).unwrap()).await.unwrap().entries;
        assert_eq!(rows.len(), 1);
    });
}
