//! Heights that clients see: on chains that are faster than probes, where calls are spread, and
//! after outages of all nodes. In simulated time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{
    client::{Client, call, post},
    heights::{active, millis, pollers, side, switches, well},
    sim::{Net, Proxy},
    simulation::{Reach, Simulation, run_simulated},
    until,
    ws::Ws,
};
use steadfast::devnet::{Devnet, Fault, Node, Options};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const SEED: u64 = 5;

/// The node that answered each of many calls, and when.
type Answers = Arc<Mutex<Vec<(Instant, String)>>>;

/// Clients that call without a pause, and note which node answers.
async fn crowd(simulation: &Simulation, count: usize) -> (JoinSet<()>, Answers) {
    let (mut tasks, answers) = (JoinSet::new(), Answers::default());
    for _ in 0..count {
        let mut client = Client::over(simulation.net.connect(simulation.app.addr().port()).await.unwrap());
        let answers = answers.clone();
        tasks.spawn(async move {
            loop {
                let answer = client.post(call(1, "web3_clientVersion", "[]")).await.json();
                let who = answer["result"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
                answers.lock().unwrap().push((Instant::now(), who));
            }
        });
    }
    (tasks, answers)
}

/// Has the second node probed at other moments than the first, as it is when nodes were away once.
async fn out_of_phase(simulation: &Simulation) {
    simulation.at(3_000).await;
    simulation.node(1).set_fault(Fault::Down);
    simulation.at(4_370).await;
    simulation.node(1).clear_faults();
    simulation.at(9_000).await;
}

#[test]
fn calls_are_spread_evenly_however_fast_the_chain_is() {
    for block in [100, 250, 1_000, 2_000, 12_000] {
        println!("a block each {block} ms");
        run_simulated(SEED, async {
            let reaches = [Reach::Http, Reach::Http];
            let spread = "[calls]\npolicy = \"spread\"\n";
            let mut simulation = Simulation::with(SEED, &reaches, |_| "primary", spread).await;
            let begin = (8 * block).max(10_000);
            let end = begin + (2 * block).max(20_000);
            let _miner = simulation.mine(millis(block), end + 5_000);
            out_of_phase(&simulation).await;
            for node in 0..2 {
                simulation.node(node).set_fault(Fault::slow(10));
            }
            for number in 0..2 {
                let mut plan = simulation.plan(number, end, end + 10_000);
                plan.fetches = true;
                simulation.admit(plan).await;
            }
            simulation.at(begin).await;
            let (mut asking, _) = pollers(&simulation, 2).await;
            let (mut tasks, answers) = crowd(&simulation, 8).await;
            simulation.at(end).await;
            well(&mut asking);
            well(&mut tasks);
            drop((asking, tasks));
            let answers = std::mem::take(&mut *answers.lock().unwrap());
            let mut moments: BTreeMap<u128, [usize; 2]> = BTreeMap::new();
            let mut total = [0, 0];
            for (at, who) in &answers {
                let node = usize::from(!who.ends_with("el-1"));
                total[node] += 1;
                moments.entry((*at - simulation.start).as_millis() / 100).or_default()[node] += 1;
            }
            let lopsided =
                moments.values().filter(|count| count[0].min(count[1]) * 10 < count[0].max(count[1])).count();
            println!("  {total:?}, nearly all at one node in {lopsided} of {} tenths of a second", moments.len());
            let share = total[0] * 100 / (total[0] + total[1]);
            assert!((40..=60).contains(&share), "{share} of 100 at the first node");
            assert!(lopsided * 10 < moments.len(), "{lopsided} of {} moments", moments.len());
            for node in 0..2 {
                simulation.node(node).clear_faults();
            }
            simulation.settle().await;
            simulation.app.shutdown().await;
        });
    }
}

#[test]
fn calls_stay_with_the_primary_of_a_fast_chain() {
    for block in [100, 250] {
        for late in [0, 1] {
            println!("a block each {block} ms, node {late} late by 400 ms");
            run_simulated(SEED, async {
                let simulation = Simulation::start(SEED, &[Reach::Http, Reach::Http], "").await;
                simulation.node(late).set_fault(Fault::late(400));
                let _miner = simulation.mine(millis(block), 40_000);
                simulation.at(3_000).await;
                // Probed at another moment than the first from now on.
                simulation.node(1).set_fault(Fault::Down);
                simulation.at(4_370).await;
                simulation.node(1).clear_faults();
                if late == 1 {
                    simulation.node(1).set_fault(Fault::late(400));
                }
                simulation.at(9_000).await;
                let (mut asking, _) = pollers(&simulation, 2).await;
                let before = switches(&simulation).await;
                while simulation.start.elapsed() < Duration::from_secs(39) {
                    let side = side(&simulation).await;
                    for node in side["nodes"].as_array().unwrap() {
                        assert_eq!(node["verdict"], "up", "{side:#}");
                    }
                    assert_eq!(side["active"], "el-1");
                    sleep(millis(50)).await;
                }
                assert_eq!(switches(&simulation).await, before);
                well(&mut asking);
                simulation.app.shutdown().await;
            });
        }
    }
}

/// Takes the first node out, and has it come back `behind` blocks behind while calls wait: they are
/// not held for the blocks that it lacks.
async fn serves_at_once_when_back(simulation: &Simulation, behind: u64, what: &str) {
    simulation.node(0).set_fault(Fault::Down);
    while active(simulation).await.is_some() {
        sleep(millis(10)).await;
    }
    let mut calls = waiting(simulation).await;
    sleep(millis(2_000)).await;
    let back = Instant::now();
    simulation.node(0).clear_faults();
    simulation.node(0).set_fault(Fault::lag(behind));
    while let Some(answer) = calls.join_next().await {
        let (door, at, _) = answer.unwrap();
        assert!(at - back < millis(2_000), "{what}, {door}: {:?}", at - back);
    }
}

/// A call that waits on each door, and when it was answered with which height.
async fn waiting(simulation: &Simulation) -> JoinSet<(&'static str, Instant, u64)> {
    let mut tasks = JoinSet::new();
    let height = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        let first = value.as_array().and_then(|batch| batch.first()).unwrap_or(&value).clone();
        let height = first["result"].as_str().unwrap_or_else(|| panic!("{text}")).trim_start_matches("0x").to_owned();
        u64::from_str_radix(&height, 16).unwrap()
    };
    let ask = call(1, "eth_blockNumber", "[]");
    for (door, body) in [("HTTP", ask.clone()), ("batch", format!("[{ask}]"))] {
        let mut client = Client::over(simulation.net.connect(simulation.app.addr().port()).await.unwrap());
        tasks.spawn(async move {
            let text = client.post(body).await.text();
            (door, Instant::now(), height(&text))
        });
    }
    let io = simulation.net.connect(simulation.app.addr().port()).await.unwrap();
    tasks.spawn(async move {
        let mut ws = Ws::open(io, "/").await;
        ws.send(ask).await;
        let text = ws.text().await;
        ("WebSocket", Instant::now(), height(&text))
    });
    tasks
}

/// The nodes after an outage of all: when each is back, in milliseconds since the outage, and how
/// many blocks it is behind.
struct Return {
    back: [Option<(u64, u64)>; 2],
    /// Calls are answered between these moments, in milliseconds since the outage.
    answered: std::ops::Range<u64>,
    /// So many blocks below what clients were shown, at most.
    below: u64,
}

#[test]
fn after_an_outage_calls_wait_for_the_height_clients_were_shown() {
    let far = 20;
    for case in [
        // Far behind, and the other comes up soon.
        Return { back: [Some((3_000, far)), Some((5_000, 0))], answered: 5_000..8_000, below: 0 },
        Return { back: [Some((5_000, 0)), Some((3_000, far))], answered: 5_000..8_000, below: 0 },
        // The other never comes: then the least bad node serves before the calls are given up.
        Return { back: [Some((3_000, far)), None], answered: 9_000..10_500, below: far },
        // Both are back, and none has it: there is nothing to wait for.
        Return { back: [Some((3_000, far)), Some((4_000, far))], answered: 3_000..6_500, below: far },
        // A little behind, and the other never comes.
        Return { back: [Some((3_000, 2)), None], answered: 3_000..7_500, below: 2 },
        Return { back: [Some((3_000, 0)), None], answered: 3_000..5_500, below: 0 },
    ] {
        let Return { back, answered, below } = case;
        println!("{back:?}");
        run_simulated(SEED, async {
            let simulation = Simulation::start(SEED, &[Reach::Http, Reach::Http], "").await;
            let miner = simulation.mine(millis(1_000), 12_500);
            simulation.at(12_000).await;
            let (asking, seen) = pollers(&simulation, 1).await;
            sleep(millis(700)).await;
            drop(asking);
            let shown = seen.lock().unwrap().last().unwrap().2;
            // The chain stands while all are away.
            drop(miner);
            let out = Instant::now();
            for node in 0..2 {
                simulation.node(node).set_fault(Fault::Down);
            }
            while active(&simulation).await.is_some() {
                sleep(millis(10)).await;
            }
            let mut calls = waiting(&simulation).await;
            let mut returns: Vec<(usize, (u64, u64))> =
                back.iter().enumerate().filter_map(|(node, back)| Some((node, (*back)?))).collect();
            returns.sort_by_key(|(_, (at, _))| *at);
            for (node, (at, behind)) in returns {
                tokio::time::sleep_until(out + millis(at)).await;
                simulation.node(node).clear_faults();
                if behind > 0 {
                    simulation.node(node).set_fault(Fault::lag(behind));
                }
            }
            while let Some(answer) = calls.join_next().await {
                let (door, at, height) = answer.unwrap();
                let took = u64::try_from((at - out).as_millis()).unwrap();
                assert!(answered.contains(&took), "{door}: answered after {took} ms");
                assert!(height + below >= shown, "{door}: {height} after {shown}");
            }
            // A later call does not wait again.
            let asked = Instant::now();
            for answer in waiting(&simulation).await.join_all().await {
                assert!(answer.1 - asked < millis(100), "{answer:?}");
            }
            simulation.app.shutdown().await;
        });
    }
}

#[test]
fn a_node_away_before_the_height_was_seen_is_not_waited_for() {
    for lies in [false, true] {
        run_simulated(SEED, async {
            let simulation = Simulation::start(SEED, &[Reach::Http, Reach::Http], "").await;
            let _miner = simulation.mine(millis(1_000), 25_000);
            simulation.at(3_000).await;
            if lies {
                // The node has never been where it says it is.
                simulation.node(1).set_fault(Fault::lie(1_000));
                sleep(millis(3_000)).await;
            }
            simulation.node(1).set_fault(Fault::Down);
            simulation.at(25_000).await;
            let (asking, _) = pollers(&simulation, 1).await;
            sleep(millis(700)).await;
            drop(asking);
            serves_at_once_when_back(&simulation, 8, &format!("lies: {lies}")).await;
            simulation.app.shutdown().await;
        });
    }
}

#[test]
fn a_single_node_that_begins_anew_is_not_waited_for() {
    run_simulated(SEED, async {
        let simulation = Simulation::start(SEED, &[Reach::Http], "").await;
        let (asking, _) = pollers(&simulation, 1).await;
        simulation.at(4_000).await;
        drop(asking);
        serves_at_once_when_back(&simulation, 40, "alone").await;
        simulation.app.shutdown().await;
    });
}

#[tokio::test(start_paused = true)]
async fn beacon_requests_wait_for_the_slot_that_clients_were_shown() {
    let net = Net::default();
    let options = Options { execution: 0, consensus: 2, initial_blocks: 100, ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let node = |node: &Node| format!("[[cl.primary]]\nname = \"{}\"\nhttp = \"{}\"\n", node.name(), node.http_url());
    let proxy = Proxy::launch(&net, &devnet.nodes().map(|n| node(n)).collect::<String>()).await;
    let side = async || proxy.admin("/status").await.json()["networks"][0]["cl"].take();
    until("both are up", async || side().await["nodes"].as_array().unwrap().iter().all(|n| n["verdict"] == "up")).await;
    devnet.nodes().for_each(|node| node.set_fault(Fault::Down));
    until("none serves", async || side().await["active"].is_null()).await;
    let out = Instant::now();
    let mut client = proxy.client().await;
    client.send("GET /eth/v1/beacon/headers/head HTTP/1.1\r\nHost: proxy\r\n\r\n").await;
    sleep(millis(2_000)).await;
    devnet.cl(0).clear_faults();
    devnet.cl(0).set_fault(Fault::lag(20));
    sleep(millis(2_000)).await;
    devnet.cl(1).clear_faults();
    let answer = client.response().await.json();
    assert_eq!(answer["data"]["header"]["message"]["slot"], "100", "{answer}");
    assert!((millis(4_000)..millis(8_000)).contains(&out.elapsed()), "{:?}", out.elapsed());
}

/// Two nodes with `max_held` calls in the queue, both out, and what one client has asked of them by
/// WebSocket: two reads.
async fn full_queue(net: &Net) -> (Devnet, Proxy, Ws<tokio::io::DuplexStream>) {
    let options = Options { execution: 2, initial_blocks: 100, ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let urls = [devnet.el(0).http_url(), devnet.el(1).http_url()];
    let proxy = Proxy::over(net, urls.iter().map(|url| &**url), "[calls]\nmax_held = 2\n").await;
    // Calls wait for the height that clients were shown.
    assert_eq!(proxy.post(call(0, "eth_blockNumber", "[]")).await.json()["result"], "0x64");
    devnet.nodes().for_each(|node| node.set_fault(Fault::Down));
    until("both are out", async || proxy.verdicts().await == ["down", "down"]).await;
    let mut greedy = proxy.ws().await;
    for id in [1, 2] {
        greedy.send(call(id, "eth_gasPrice", "[]")).await;
    }
    until("both wait", async || proxy.metric("steadfast_held_calls", "").await >= 2.0).await;
    (devnet, proxy, greedy)
}

#[tokio::test(start_paused = true)]
async fn a_call_that_loses_its_place_goes_to_a_node_that_serves() {
    let net = Net::default();
    let (devnet, proxy, mut greedy) = full_queue(&net).await;
    let asked = |node: usize| devnet.el(node).count("eth_gasPrice");
    devnet.el(0).clear_faults();
    devnet.el(0).set_fault(Fault::lag(20));
    until("it answers", async || proxy.verdicts().await[0] != "down").await;
    sleep(millis(500)).await;
    assert_eq!((asked(0), greedy.is_silent().await), (0, true), "calls do not wait for what clients were shown");
    let mut other = proxy.client().await;
    other.send(post("/", call(3, "eth_gasPrice", "[]").as_bytes())).await;
    // The newest of the client that has most is answered at once, by the node that there is.
    let lost: serde_json::Value = serde_json::from_str(&greedy.text().await).unwrap();
    assert!(lost["id"] == 2 && lost["result"].is_string(), "{lost}");
    assert_eq!((asked(0), asked(1), greedy.is_silent().await), (1, 0, true));
    devnet.el(1).clear_faults();
    let first: serde_json::Value = serde_json::from_str(&greedy.text().await).unwrap();
    assert!(first["id"] == 1 && first["result"].is_string(), "{first}");
    assert!(other.response().await.json()["result"].is_string());
    sleep(millis(5_000)).await;
    assert!(greedy.is_silent().await, "a call was answered twice");
    assert_eq!(asked(0) + asked(1), 3, "a call was made twice");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_loses_its_place_is_refused_once_without_a_node() {
    let net = Net::default();
    let (devnet, proxy, mut greedy) = full_queue(&net).await;
    let mut other = proxy.client().await;
    other.send(post("/", call(3, "eth_gasPrice", "[]").as_bytes())).await;
    let lost: serde_json::Value = serde_json::from_str(&greedy.text().await).unwrap();
    assert_eq!((&lost["id"], &lost["error"]["code"]), (&2.into(), &(-32005).into()), "{lost}");
    assert_eq!(lost["error"]["data"]["reason"], "max_held", "{lost}");
    devnet.nodes().for_each(|node| node.clear_faults());
    let first: serde_json::Value = serde_json::from_str(&greedy.text().await).unwrap();
    assert!(first["id"] == 1 && first["result"].is_string(), "{first}");
    assert!(other.response().await.json()["result"].is_string());
    sleep(millis(5_000)).await;
    assert!(greedy.is_silent().await, "a call was answered twice");
    assert_eq!(devnet.nodes().map(|node| node.count("eth_gasPrice")).sum::<u64>(), 2);
}
