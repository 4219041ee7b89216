//! The production code on a network of memory, under a clock that only moves when nothing else can: minutes of faults in a moment.
//!
//! The runtime here has no I/O at all, so whatever dialled, listened or told the time past the traits would fail.

use std::{sync::Arc, time::Duration};

use crate::common::{client::Client, client::call, proxy, seeds::seeds, sim::Net, witness::GAS_PRICE};
use fastrand::Rng;
use steadfast::{
    app::App,
    devnet::{Devnet, Fault, History, Options, Program},
};
use tokio::{
    runtime,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

const NODES: usize = 3;
const CLIENTS: usize = 4;
const LENGTH: Duration = Duration::from_secs(90);
/// Unix time at the start.
const START_UNIX: u64 = 1_800_000_000;
/// Blocks that every node has, however far it lags.
const OLD_BLOCKS: u64 = 30;
/// A call meets at most two hanging nodes, each known within about two seconds.
const DEADLINE: Duration = Duration::from_secs(6);

/// One answered call: who asked, when it was answered (virtual), and the answer.
type Line = (usize, Duration, String);

/// Runs one seed to its end; returns the answers in the order in which they came.
fn run(seed: u64) -> Vec<Line> {
    let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(simulate(seed))
}

async fn simulate(seed: u64) -> Vec<Line> {
    let start = Instant::now();
    let net = Net::default();
    let options = Options {
        execution: NODES,
        block_time: Some(Duration::from_secs(2)),
        initial_blocks: 50,
        seed,
        now_unix: Some(START_UNIX),
        ..Options::default()
    };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let urls: Vec<String> = devnet.nodes().map(|node| node.http_url()).collect();
    let world = net.world(START_UNIX, start);
    let config = proxy::config(&proxy::nodes(urls.iter().map(String::as_str)));
    let app = App::start(config, world, None).await.unwrap();
    sleep(Duration::from_secs(2)).await;

    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let client = Client::over(net.connect(app.addr().port()).await.unwrap());
        let rng = Rng::with_seed(seed ^ (0xc11e << 8) ^ number as u64);
        clients.spawn(make_calls(client, number, rng, start + LENGTH, devnet.chain().clone()));
    }
    // The last in the list is spared, so that there is always someone to answer; the others suffer.
    let mut rng = Rng::with_seed(seed);
    while start.elapsed() < LENGTH {
        sleep(Duration::from_millis(rng.u64(100..4000))).await;
        let node = devnet.el(rng.usize(..NODES - 1));
        node.clear_faults();
        match rng.u8(..20) {
            0 => node.set_fault(Fault::Down),
            1 => node.set_fault(Fault::Hang),
            2 => node.set_fault(Fault::slow(rng.u64(10..1500))),
            3 => node.set_fault(Fault::lag(rng.u64(1..20))),
            4 => node.set_fault(Fault::lie(rng.u64(1..100_000))),
            5 => node.set_fault(Fault::CutMidBody),
            6 => node.set_fault(Fault::rate_limited(rng.u64(1..6))),
            7 => node.set_fault(Fault::quota(&[])),
            8 => node.set_fault(Fault::quota(&["eth_getBlockByNumber", "eth_getBalance"])),
            9 => node.set_fault(Fault::http_status(503, &[])),
            10 => node.set_fault(Fault::not_offered(&["eth_syncing"])),
            11 => node.set_fault(Fault::late(rng.u64(50..4_000))),
            12 => node.set_fault(Fault::alien_id(&[])),
            13 => node.set_fault(Fault::no_id(&[])),
            14 => node.set_fault(Fault::nulls(rng.u64(1..5))),
            15 => node.set_fault(Fault::max_connections(rng.u64(1..6))),
            16 => node.set_fault(Fault::Gzip),
            17 => node.set_fault(Fault::branch(rng.u64(1..10))),
            // Of a transaction that two nodes do not know nothing is asked of a third.
            // Nor of a node that lags behind two that lie.
            18 => {
                devnet.el(0).clear_faults();
                devnet.el(0).set_fault(depth(&mut rng));
            }
            _ => {}
        }
        node.settled().await;
    }
    let mut answers = Vec::new();
    while let Some(client) = clients.join_next().await {
        answers.extend(client.unwrap());
    }
    answers.sort_by_key(|(client, at, _)| (*at, *client));
    // Each node is probed by three methods.
    let called = (0..NODES).filter(|node| devnet.el(*node).counts().len() > 3).count();
    assert!(called > 1, "seed {seed}: all calls went to {called} node");
    assert!(net.dialled() > NODES as u64);
    app.shutdown().await;
    answers
}

async fn make_calls<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut client: Client<S>,
    number: usize,
    mut rng: Rng,
    end: Instant,
    chain: Arc<steadfast::devnet::Chain>,
) -> Vec<Line> {
    let start = Instant::now();
    let mut answers = Vec::new();
    for count in 0.. {
        let pause = Duration::from_millis(rng.u64(5..200));
        sleep(pause).await;
        if Instant::now() >= end {
            break;
        }
        let id = format!("\"{number}/{count}\"");
        let height = rng.u64(1..=OLD_BLOCKS);
        let kind = rng.u8(..6);
        let snapshot = chain.snapshot();
        let transaction = (1..=OLD_BLOCKS).find_map(|number| {
            let block = snapshot.block((height + number) % OLD_BLOCKS + 1)?;
            Some((block.hash.to_string(), block.transactions.first()?.transaction.hash.to_string()))
        });
        let (block, transaction) = transaction.expect("an old block with a transaction");
        let request = match kind {
            0 => call(&id, "eth_getBlockByNumber", &format!("[\"0x{height:x}\",false]")),
            1 => call(&id, "eth_gasPrice", "[]"),
            2 => call(&id, "web3_clientVersion", "[]"),
            3 => call(&id, "eth_getBalance", &format!("[\"0x{}\",\"0x{height:x}\"]", "aa".repeat(20))),
            4 => call(&id, "eth_getTransactionReceipt", &format!("[\"{transaction}\"]")),
            _ => format!("[{},{}]", call(&id, "eth_gasPrice", "[]"), call(1.5, "net_version", "[]")),
        };
        let asked = Instant::now();
        let answer = client.post(&request).await.text();
        let took = asked.elapsed();
        assert!(took < DEADLINE, "{request} took {took:?}: {answer}");
        let ours = |id: &str, result: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
        match kind {
            0 => {
                let hash = chain.snapshot().block(height).unwrap().hash.to_string();
                let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
                assert_eq!(value["id"].to_string(), id, "{answer}");
                assert_eq!(value["result"]["hash"], hash, "{request}: {answer}");
                assert_eq!(value["result"]["number"], format!("0x{height:x}"));
            }
            1 => assert_eq!(parsed(&answer), parsed(&ours(&id, &format!("\"{GAS_PRICE}\"")))),
            2 => {
                let value = parsed(&answer);
                assert_eq!(value["id"].to_string(), id, "{answer}");
                assert!(value["result"].as_str().is_some_and(|name| name.starts_with("Steadfast")), "{answer}");
            }
            3 => assert!(parsed(&answer)["result"].is_string(), "{request}: {answer}"),
            4 => assert_eq!(parsed(&answer)["result"]["blockHash"], block, "{request}: {answer}"),
            _ => {
                let expected = format!("[{},{}]", ours(&id, &format!("\"{GAS_PRICE}\"")), ours("1.5", "\"1337\""));
                assert_eq!(parsed(&answer), parsed(&expected));
            }
        }
        answers.push((number, start.elapsed(), answer));
    }
    sleep_until(end).await;
    assert!(client.read.is_empty());
    answers
}

/// A node that dropped old data of some kinds.
fn depth(rng: &mut Rng) -> Fault {
    let programs = [Program::Geth, Program::Erigon, Program::Nethermind, Program::Besu, Program::Reth];
    let what = [History::State, History::Blocks, History::Receipts].into_iter().filter(|_| rng.bool()).collect();
    Fault::Depth { blocks: rng.u64(1..60), program: programs[rng.usize(..programs.len())], what }
}

/// A node that writes no id does not decide where it stands.
fn parsed(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn with_one_good_node_every_call_is_answered_right_and_in_time() {
    for seed in seeds(1..7) {
        println!("seed {seed}");
        let answers = run(seed);
        println!("seed {seed}: {} answers", answers.len());
        assert!(answers.len() > 500, "seed {seed}: only {} answers", answers.len());
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let seed = 21;
    println!("seed {seed}");
    let (first, second) = (run(seed), run(seed));
    let differs = first.iter().zip(&second).position(|(a, b)| a != b);
    assert!(differs.is_none(), "{:?}", differs.map(|at| (&first[at], &second[at])));
    assert_eq!(first.len(), second.len());
    assert!(run(seed + 1) != first, "the seed changes nothing");
}
