//! The outbox under random faults of nodes, of the chain and of the disk, and through deaths of the
//! proxy, in simulated time. Each run is known by its seed; the same seed gives the same run.
//!
//! `STEADFAST_SEEDS=FROM..TO` chooses others than the usual ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use alloy_primitives::B256;
use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use steadfast::{
    app::{App, World},
    devnet::{Devnet, Fault, Options},
    net::{
        BoxFuture,
        post::{Answer, Post, PostError},
    },
    outbox::webhook::Connect,
};
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
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
const NODES: usize = 3;
const SENDERS: u8 = 2;
/// Lives of the proxy before the last.
const LIVES: usize = 5;
/// How long the last life may take to bring all to an end.
const TIMEOUT: Duration = Duration::from_secs(900);

/// What happened, in the order in which it was seen.
type Trace = Arc<Mutex<Vec<String>>>;
/// Type and hash of the events that an endpoint took, by their ids.
type Told = Arc<Mutex<BTreeMap<String, (String, String)>>>;

/// An endpoint that fails now and then.
struct Endpoint {
    told: Told,
    trace: Trace,
    rng: Mutex<Rng>,
}

impl Post for Endpoint {
    fn post(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<Answer, PostError>> {
        let id = headers["webhook-id"].to_str().unwrap().to_owned();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let event = (word(&body["type"]), word(&body["data"]["hash"]));
        let (is_lost, pause) = {
            let mut rng = self.rng.lock().unwrap();
            (rng.u8(..8) == 0, rng.u64(..50))
        };
        Box::pin(async move {
            sleep(Duration::from_millis(pause)).await;
            self.trace.lock().unwrap().push(format!("told {} {} {id} {is_lost}", event.0, event.1));
            // The event arrives, and its answer may be lost.
            let known = self.told.lock().unwrap().insert(id.clone(), event.clone());
            assert!(known.is_none_or(|known| known == event), "{id} was told of two events");
            let status = if is_lost { StatusCode::BAD_GATEWAY } else { StatusCode::NO_CONTENT };
            Ok(Answer { status, retry_after: None })
        })
    }
}

struct Run {
    net: Net,
    devnet: Devnet,
    start: Instant,
    settings: String,
    trace: Trace,
    told: Told,
    seed: u64,
}

impl Run {
    async fn start(seed: u64, rng: &mut Rng) -> Self {
        let (net, start) = (Net::default(), Instant::now());
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
        let (trace, told) = (Trace::default(), Told::default());
        Self { net, devnet, start, settings, trace, told, seed }
    }

    /// Starts a proxy on what the disk has.
    async fn launch(&self, life: usize) -> App {
        let rng = Mutex::new(Rng::with_seed(self.seed << 8 | life as u64));
        let endpoint = Arc::new(Endpoint { told: self.told.clone(), trace: self.trace.clone(), rng });
        let connect: Connect = Arc::new(move |_| Ok(endpoint.clone()));
        let world = World { connect, ..self.net.world(START_UNIX, self.start) };
        App::start(proxy::config(&self.settings), world, None).await.unwrap()
    }

    fn note(&self, line: String) {
        self.trace.lock().unwrap().push(format!("{:?} {line}", self.start.elapsed()));
    }

    /// A fault of a node, of the disk, or of the chain.
    fn disturb(&self, rng: &mut Rng) {
        let (node, fault) = (self.devnet.el(rng.usize(..NODES)), rng.u8(..12));
        self.note(format!("fault {fault} at {}", node.name()));
        match fault {
            0 | 1 => node.set_fault(Fault::Down),
            2 | 3 => node.set_fault(Fault::Forgetful),
            4 => node.set_fault(Fault::slow_over(rng.u64(100..9000), &["eth_sendRawTransaction"])),
            5 => node.set_fault(Fault::refuse(&["eth_sendRawTransaction"])),
            6 => {
                let kinds = [ErrorKind::StorageFull, ErrorKind::Other];
                self.net.1.fail_after(rng.u64(..30), kinds[rng.usize(..2)], rng.u64(..));
            }
            7 => self.net.1.fail_syncs(ErrorKind::Other, rng.u64(..)),
            8 => _ = self.devnet.chain().reorg(rng.u64(1..4)),
            9 => self.net.1.fail_once(ErrorKind::Other),
            _ => self.mend(),
        }
    }

    fn mend(&self) {
        self.net.1.mend();
        (0..NODES).for_each(|index| self.devnet.el(index).clear_faults());
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

/// Sends a sender's transactions one after the other until the proxy is gone; tells how many were
/// acknowledged in a row.
async fn sender(io: DuplexStream, key: u8, from: u64, trace: Trace, mut rng: Rng) -> (u8, Vec<B256>) {
    let (mut client, mut acknowledged, mut nonce) = (Client::over(io), Vec::new(), from);
    loop {
        let (raw, hash) = signed::transaction(1337, key, nonce, 1);
        let body = call(nonce, "eth_sendRawTransaction", &format!("[\"{raw}\"]"));
        if client.io.write_all(&post("/", body.as_bytes())).await.is_err() {
            break;
        }
        let Ok(Ok(response)) = timeout(Duration::from_secs(60), client.try_response()).await else { break };
        let answer = response.json();
        trace.lock().unwrap().push(format!("{key} {nonce} {answer}"));
        if answer["result"] == json!(hash) {
            acknowledged.push(hash);
            nonce += 1;
        } else {
            let code = answer["error"]["code"].as_i64().unwrap();
            assert!([-32005, -32002].contains(&code), "{answer}");
        }
        sleep(Duration::from_millis(rng.u64(50..1500))).await;
    }
    (key, acknowledged)
}

fn run(seed: u64) -> (Vec<String>, usize) {
    run_simulated(seed, async {
        let mut rng = Rng::with_seed(seed);
        let run = Run::start(seed, &mut rng).await;
        let (mut acknowledged, mut next) = (BTreeSet::new(), [0_u64; SENDERS as usize]);
        for life in 0..LIVES {
            let app = run.launch(life).await;
            let mut senders = JoinSet::new();
            for key in 0..SENDERS {
                let io = run.net.connect(app.addr().port()).await.unwrap();
                let rng = Rng::with_seed(seed << 16 | (life as u64) << 4 | u64::from(key));
                senders.spawn(sender(io, key + 1, next[usize::from(key)], run.trace.clone(), rng));
            }
            let end = Instant::now() + Duration::from_millis(rng.u64(10..20_000));
            while Instant::now() < end {
                sleep(Duration::from_millis(rng.u64(5..3_000))).await;
                run.disturb(&mut rng);
            }
            let death = rng.u8(..3);
            run.note(format!("death {death}"));
            match death {
                0 => app.shutdown().await,
                1 => drop(app),
                _ => {
                    run.net.1.cut_power(rng.u64(..));
                    drop(app);
                }
            }
            // Tasks of the proxy that is gone end with their sockets.
            sleep(Duration::from_millis(1)).await;
            while let Some(sent) = senders.join_next().await {
                let (key, sent) = sent.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
                next[usize::from(key - 1)] += sent.len() as u64;
                acknowledged.extend(sent);
            }
            run.net.1.mend();
        }
        run.mend();
        let app = run.launch(LIVES).await;
        let last = Instant::now();
        loop {
            let lacking = run.lacking(&acknowledged);
            if lacking.is_empty() {
                break;
            }
            assert!(
                last.elapsed() < TIMEOUT,
                "seed {seed}: {lacking:?} of {} lack a block or an event",
                acknowledged.len()
            );
            sleep(Duration::from_secs(10)).await;
        }
        run.note("all is mined and told".to_owned());
        app.shutdown().await;
        let trace = std::mem::take(&mut *run.trace.lock().unwrap());
        (trace, acknowledged.len())
    })
}

/// U18, U33, U60: whatever fails, what was acknowledged is mined once, and each event is told.
#[test]
fn an_acknowledged_transaction_is_never_lost() {
    let acknowledged = AtomicU64::new(0);
    let seeds = seeds(0..20);
    let runs = seeds.end - seeds.start;
    each(seeds, run, |(_, sent)| _ = acknowledged.fetch_add(sent as u64, Relaxed));
    let acknowledged = acknowledged.into_inner();
    assert!(acknowledged > 10 * runs, "only {acknowledged} transactions in {runs} runs show nothing");
}

/// U18: the same seed gives the same run.
#[test]
fn an_outbox_with_the_same_seed_lives_the_same_life() {
    for seed in [3, 8] {
        let (one, other) = (run(seed).0, run(seed).0);
        for (line, (one, other)) in one.iter().zip(&other).enumerate() {
            assert_eq!(one, other, "seed {seed}, line {line}");
        }
        assert_eq!(one.len(), other.len());
    }
}
