//! Three proxies that share their outbox, before pretend nodes and clients, in simulated time: they
//! die, end, start again, lose the store and their answers, find a bucket made anew and disks that
//! fail. Each run is known by its seed; the same seed gives the same run.
//!
//! - What was acknowledged by any of them is in a block once in the end, and each of its events was
//!   told. What is told twice has one id.
//! - An endpoint is told by a replica only while the shard's row names that replica.
//!
//! `STEADFAST_SEEDS=FROM..TO` chooses other seeds than the usual ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use alloy_primitives::{Address, B256};
use bytes::Bytes;
use fastrand::Rng;
use futures_util::FutureExt as _;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use steadfast::{
    app::{App, World},
    cluster::{
        OpenStore,
        store::{
            Key, Store, StoreTime,
            memory::{Chances, Fault as StoreFault, Memory, Settings},
        },
    },
    devnet::{Devnet, Fault, Options},
    net::{
        BoxFuture,
        post::{Answer, Post, PostError},
    },
    outbox::{shard::Shard, store::pretend_disk::PretendDisk},
};
use tokio::{
    io::AsyncWriteExt,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::common::{
    client::{Client, call, post},
    proxy,
    seeds::{each, seeds},
    signed,
    sim::Net,
    simulation::run_simulated,
};

/// Unix time at the start.
const START_UNIX: u64 = 1_800_000_000;
/// By how many seconds each replica's wall clock is ahead.
const SKEWS: [u64; REPLICAS] = [0, 20, 7];
const NODES: usize = 3;
const REPLICAS: usize = 3;
const SENDERS: u8 = 4;
/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(90);
/// How long the replicas may take to bring all to an end.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Type and hash of the events that an endpoint took, by their ids.
type Told = Arc<Mutex<BTreeMap<String, (String, String)>>>;

/// What happened, in the order in which it was seen, and the first rule that was broken.
#[derive(Clone, Default)]
struct Trace(Arc<Mutex<(Vec<String>, Option<String>)>>);

impl Trace {
    fn note(&self, line: String) {
        self.0.lock().unwrap().0.push(line);
    }

    /// A panic within a task of a proxy would be taken for the proxy's own.
    fn fail(&self, why: String) {
        let mut state = self.0.lock().unwrap();
        state.0.push(format!("BROKEN: {why}"));
        state.1.get_or_insert(why);
    }

    fn check(&self, seed: u64, dump: impl FnOnce() -> String) {
        let state = self.0.lock().unwrap();
        let Some(why) = &state.1 else { return };
        if let Ok(path) = std::env::var("STEADFAST_TRACE") {
            std::fs::write(path, state.0.join("\n")).unwrap();
        }
        let tail = state.0[state.0.len().saturating_sub(60)..].join("\n");
        panic!("seed {seed}: {why}\n{tail}\n{}", dump());
    }
}

/// The endpoint as one life of a replica reaches it.
struct Endpoint {
    place: usize,
    told: Told,
    trace: Trace,
    bucket: Memory,
    rng: Mutex<Rng>,
}

impl Endpoint {
    /// R22: the row of the shard names this replica at the moment at which the effect begins.
    fn check_owner(&self, sender: &str, what: &str) {
        let Ok(sender) = sender.parse::<Address>() else { return };
        let key = Key::of(&["shard", &Shard::of(&sender).to_string()]).unwrap();
        let row = self.bucket.client("observer").read(&key).now_or_never().unwrap().unwrap();
        let row = row.map(|row| serde_json::from_slice::<Value>(&row.value).unwrap()).unwrap_or_default();
        // A bucket that was made anew has no row yet, and no other replica owns the shard.
        let is_own = row.is_null() || (row["replica"] == format!("r{}", self.place) && row["released"].is_null());
        if !is_own {
            self.trace.fail(format!("r{} tells {what}, and the shard's row is {row}", self.place));
        }
    }
}

impl Post for Endpoint {
    fn post(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<Answer, PostError>> {
        let id = headers["webhook-id"].to_str().unwrap().to_owned();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let event = (word(&body["type"]), word(&body["data"]["hash"]));
        self.check_owner(&word(&body["data"]["sender"]), &format!("{event:?}"));
        let (is_lost, pause) = {
            let mut rng = self.rng.lock().unwrap();
            (rng.u8(..8) == 0, rng.u64(..50))
        };
        Box::pin(async move {
            sleep(Duration::from_millis(pause)).await;
            self.trace.note(format!("r{} tells {} {} {id} {is_lost}", self.place, event.0, event.1));
            // The event arrives, and its answer may be lost.
            let known = self.told.lock().unwrap().insert(id.clone(), event.clone());
            if known.is_some_and(|known| known != event) {
                self.trace.fail(format!("{id} was told of two events"));
            }
            let status = if is_lost { StatusCode::BAD_GATEWAY } else { StatusCode::NO_CONTENT };
            Ok(Answer { status, retry_after: None })
        })
    }
}

/// A replica's place.
#[derive(Default)]
struct Place {
    app: Option<App>,
    disk: PretendDisk,
    lives: u64,
    /// When a process starts again.
    again: Option<Instant>,
}

struct Run {
    net: Net,
    devnet: Devnet,
    start: Instant,
    seed: u64,
    rng: Rng,
    trace: Trace,
    told: Told,
    members: Memory,
    bucket: Memory,
    places: Vec<Place>,
    /// The ports of clients, of the replicas that run.
    doors: Arc<Mutex<[Option<u16>; REPLICAS]>>,
    settings: String,
}

fn opens(memory: &Memory) -> OpenStore {
    let memory = memory.clone();
    Arc::new(move |settings| {
        let store: Arc<dyn Store> = Arc::new(memory.client(settings.replica.as_str()));
        Box::pin(async move { Ok(store) })
    })
}

impl Run {
    async fn start(seed: u64) -> Self {
        let (net, start, mut rng) = (Net::default(), Instant::now(), Rng::with_seed(seed));
        let options = Options {
            execution: NODES,
            own_mempools: true,
            block_time: Some(Duration::from_secs(2)),
            seed,
            now_unix: Some(START_UNIX),
            ..Options::default()
        };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let urls: Vec<String> = devnet.nodes().map(|node| node.http_url()).collect();
        let ack = if rng.bool() { "node" } else { "disk" };
        let settings = format!(
            "[calls]\nhold = \"{}s\"\n[outbox]\nack = \"{ack}\"\nconfirmations = 2\nresend_blocks = {}\n\
             [[outbox.webhook]]\nname = \"all\"\nurl = \"https://hooks.example\"\nevents = [\"tx.accepted\", \"tx.mined\"]\n\
             secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n{}",
            rng.u8(1..6),
            rng.u8(1..4),
            proxy::nodes(urls.iter().map(String::as_str))
        );
        let dawn = StoreTime::from_nanos(START_UNIX * 1_000_000_000);
        let store = |seed| Memory::new(Settings { seed, timeout: Duration::from_secs(1), dawn, ..Settings::default() });
        let mut run = Self {
            net,
            devnet,
            start,
            seed,
            rng,
            trace: Trace::default(),
            told: Told::default(),
            members: store(seed),
            bucket: store(seed ^ 1),
            places: (0..REPLICAS).map(|_| Place::default()).collect(),
            doors: Arc::default(),
            settings,
        };
        for place in 0..REPLICAS {
            run.launch(place).await;
        }
        run
    }

    fn note(&self, line: String) {
        self.trace.note(format!("{:?} {line}", self.start.elapsed()));
    }

    /// Starts a replica on what its disk has.
    async fn launch(&mut self, place: usize) {
        let of = &mut self.places[place];
        (of.again, of.lives) = (None, of.lives + 1);
        let net = self.net.with_disk(of.disk.clone());
        let rng = Mutex::new(Rng::with_seed(self.seed << 8 | of.lives << 2 | place as u64));
        let (told, trace, bucket) = (self.told.clone(), self.trace.clone(), self.bucket.clone());
        let endpoint = Arc::new(Endpoint { place, told, trace, bucket, rng });
        let world = World {
            open_cluster: opens(&self.members),
            open_outbox_bucket: opens(&self.bucket),
            connect: Arc::new(move |_| Ok(endpoint.clone())),
            ..net.world(START_UNIX + SKEWS[place], self.start)
        };
        let cluster = format!("[cluster]\nname = \"eu\"\nreplica = \"r{place}\"\nnats = \"nats://unused\"\n");
        let app = App::start(proxy::config(&(self.settings.clone() + &cluster)), world, None).await.unwrap();
        self.doors.lock().unwrap()[place] = Some(app.addr().port());
        self.places[place].app = Some(app);
        self.note(format!("r{place} starts"));
    }

    /// Something goes wrong.
    async fn disturb(&mut self) {
        let (place, drawn) = (self.rng.usize(..REPLICAS), self.rng.u8(..26));
        let name = format!("r{place}");
        self.note(format!("trouble {drawn} of {name}"));
        let is_running = self.places[place].app.is_some();
        let again = Some(Instant::now() + Duration::from_millis(self.rng.u64(10..25_000)));
        match drawn {
            0..=2 if is_running => {
                self.doors.lock().unwrap()[place] = None;
                if self.rng.bool() {
                    self.places[place].disk.cut_power(self.rng.u64(..));
                }
                drop(self.places[place].app.take());
                sleep(Duration::from_millis(1)).await;
                self.places[place].disk.mend();
                self.places[place].again = again;
            }
            3 if is_running => {
                self.doors.lock().unwrap()[place] = None;
                if let Some(app) = self.places[place].app.take() {
                    app.shutdown().await;
                }
                self.places[place].again = again;
            }
            4..=6 => {
                self.members.cut(&name);
                self.bucket.cut(&name);
            }
            7 => self.bucket.cut(&name),
            8 => self.members.refuse(&name),
            9..=11 => {
                for _ in 0..self.rng.u8(1..5) {
                    let late = Duration::from_millis(self.rng.u64(100..9_000));
                    let faults = [
                        StoreFault::AppliedAmbiguous,
                        StoreFault::LostAmbiguous,
                        StoreFault::LateAmbiguous(late),
                        StoreFault::Unavailable,
                    ];
                    let store = if self.rng.u8(..4) == 0 { &self.members } else { &self.bucket };
                    store.inject(&name, faults[self.rng.usize(..4)]);
                }
            }
            12..=13 => {
                let chances = Chances {
                    applied_ambiguous: 0.1,
                    lost_ambiguous: 0.1,
                    late_ambiguous: 0.1,
                    unavailable: 0.1,
                    lost_message: 0.1,
                    late: Duration::from_secs(8),
                    delay: Duration::from_millis(self.rng.u64(10..500)),
                };
                self.bucket.set_chances(&name, chances);
            }
            14 => self.bucket.lose_messages(&name, self.rng.u32(1..8)),
            15 if self.rng.u8(..4) == 0 => {
                // A transaction that no disk has is lost with the bucket.
                self.mend();
                sleep(Duration::from_secs(12)).await;
                self.bucket.recreate();
            }
            16 => self.places[place].disk.fail_after(self.rng.u64(..30), ErrorKind::Other, self.rng.u64(..)),
            17 => self.places[place].disk.fail_syncs(ErrorKind::Other, self.rng.u64(..)),
            18..=21 => {
                let node = self.devnet.el(self.rng.usize(..NODES));
                let faults = [
                    Fault::Down,
                    Fault::Forgetful,
                    Fault::slow_over(self.rng.u64(100..9_000), &["eth_sendRawTransaction"]),
                    Fault::refuse(&["eth_sendRawTransaction"]),
                ];
                node.set_fault(faults[self.rng.usize(..4)].clone());
            }
            22 => _ = self.devnet.chain().reorg(self.rng.u64(1..4)),
            _ => self.mend(),
        }
    }

    fn mend(&mut self) {
        for place in 0..REPLICAS {
            let name = format!("r{place}");
            for store in [&self.members, &self.bucket] {
                store.heal(&name);
                store.spare(&name);
                store.set_chances(&name, Chances::default());
            }
            self.places[place].disk.mend();
        }
        (0..NODES).for_each(|index| self.devnet.el(index).clear_faults());
    }

    /// Starts those whose time has come.
    async fn start_again(&mut self, is_over: bool) {
        for place in 0..REPLICAS {
            let is_due = |again: Option<Instant>| again.is_some_and(|again| again <= Instant::now());
            if self.places[place].app.is_none() && (is_over || is_due(self.places[place].again)) {
                self.launch(place).await;
            }
        }
    }

    /// Those of these transactions that are not in the canonical chain just once, or whose events
    /// an endpoint lacks.
    fn lacking(&self, acknowledged: &BTreeSet<B256>) -> Vec<B256> {
        let mut mined = BTreeMap::<B256, usize>::new();
        for number in 0..=self.devnet.chain().head().number {
            for one in &self.devnet.chain().block(number).unwrap().transactions {
                *mined.entry(one.transaction.hash).or_default() += 1;
            }
        }
        let events: BTreeSet<_> = self.told.lock().unwrap().values().cloned().collect();
        let has = |kind: &str, hash: &B256| events.contains(&(kind.to_owned(), hash.to_string()));
        let lacks = |hash: &&B256| mined.get(*hash) != Some(&1) || !has("tx.accepted", hash) || !has("tx.mined", hash);
        acknowledged.iter().filter(lacks).copied().collect()
    }
}

/// Sends a sender's transactions one after the other, each to any replica, until that is over.
async fn sender(
    net: Net,
    doors: Arc<Mutex<[Option<u16>; REPLICAS]>>,
    key: u8,
    end: Instant,
    trace: Trace,
    mut rng: Rng,
) -> Vec<B256> {
    let (mut acknowledged, mut nonce) = (Vec::new(), 0);
    while Instant::now() < end {
        sleep(Duration::from_millis(rng.u64(50..2_000))).await;
        let place = rng.usize(..REPLICAS);
        let Some(port) = doors.lock().unwrap()[place] else { continue };
        let Ok(io) = net.connect(port).await else { continue };
        let mut client = Client::over(io);
        let (raw, hash) = signed::transaction(1337, key, nonce, 1);
        let body = call(nonce, "eth_sendRawTransaction", &format!("[\"{raw}\"]"));
        if client.io.write_all(&post("/", body.as_bytes())).await.is_err() {
            continue;
        }
        let Ok(Ok(response)) = timeout(Duration::from_secs(60), client.try_response()).await else { continue };
        let answer = response.json();
        trace.note(format!("{key} {nonce} at r{place}: {answer}"));
        if answer["result"] == json!(hash) {
            acknowledged.push(hash);
            nonce += 1;
            continue;
        }
        let code = answer["error"]["code"].as_i64().unwrap_or_default();
        if ![-32005, -32002, -32603].contains(&code) {
            trace.fail(format!("{key} {nonce} at r{place}: {answer}"));
        }
    }
    acknowledged
}

fn run(seed: u64) -> (Vec<String>, usize) {
    run_simulated(seed, async {
        let mut run = Run::start(seed).await;
        sleep(Duration::from_secs(5)).await;
        let end = Instant::now() + TROUBLE;
        let mut senders = JoinSet::new();
        for key in 0..SENDERS {
            let rng = Rng::with_seed(seed << 16 | u64::from(key));
            senders.spawn(sender(run.net.clone(), run.doors.clone(), key + 1, end, run.trace.clone(), rng));
        }
        while Instant::now() < end {
            let pause = run.rng.u64(50..4_000);
            sleep(Duration::from_millis(pause)).await;
            run.disturb().await;
            run.start_again(false).await;
            run.trace.check(seed, || run.bucket.dump());
        }
        run.mend();
        run.start_again(true).await;
        let mut acknowledged = BTreeSet::new();
        while let Some(sent) = senders.join_next().await {
            acknowledged.extend(sent.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
        }
        let calm = Instant::now();
        loop {
            run.trace.check(seed, || run.bucket.dump());
            let lacking = run.lacking(&acknowledged);
            if lacking.is_empty() {
                break;
            }
            if calm.elapsed() > TIMEOUT {
                let count = acknowledged.len();
                run.trace.fail(format!("{lacking:?} of {count} lack a block or an event"));
            }
            sleep(Duration::from_secs(10)).await;
        }
        run.note("all is mined and told".to_owned());
        for place in &mut run.places {
            if let Some(app) = place.app.take() {
                app.shutdown().await;
            }
        }
        run.trace.check(seed, || run.bucket.dump());
        let lines = std::mem::take(&mut run.trace.0.lock().unwrap().0);
        (lines, acknowledged.len())
    })
}

/// R20, R22, U21, U33, U53: whatever fails, what any replica has acknowledged is mined once, its
/// events are told, and no two replicas act for one shard.
#[test]
fn no_replica_loses_what_it_has_acknowledged() {
    let acknowledged = AtomicU64::new(0);
    let seeds = seeds(0..12);
    let runs = seeds.end - seeds.start;
    each(seeds, run, |(_, sent)| _ = acknowledged.fetch_add(sent as u64, Relaxed));
    let acknowledged = acknowledged.into_inner();
    println!("{acknowledged} transactions in {runs} runs");
    assert!(acknowledged > 20 * runs, "only {acknowledged} transactions in {runs} runs show nothing");
}

/// R25: the same seed gives the same run.
#[test]
fn replicas_with_the_same_seed_live_the_same_life() {
    for seed in [3, 8] {
        let (one, other) = (run(seed).0, run(seed).0);
        for (line, (one, other)) in one.iter().zip(&other).enumerate() {
            assert_eq!(one, other, "seed {seed}, line {line}");
        }
        assert_eq!(one.len(), other.len());
    }
}
