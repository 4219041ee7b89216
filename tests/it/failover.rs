//! Clients feel nothing when nodes die, hang, lie and return. With the default health settings
//! throughout.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::common::{
    SOON,
    client::call,
    devnet,
    origin::{Origin, Reply, response},
    proxy::{Proxy, nodes},
    until,
};
use steadfast::devnet::{Devnet, Fault, Node, Options};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// A read whose answer names the node that gave it.
const WHO: &str = "web3_clientVersion";
const CLIENTS: usize = 8;

/// An answered call.
#[derive(Clone, Debug)]
struct Call {
    started: Instant,
    took: Duration,
    /// The node that answered.
    node: String,
}

/// Clients that call without pause until they are told to stop.
struct Crowd {
    stop: Arc<AtomicBool>,
    clients: JoinSet<Vec<Call>>,
}

impl Crowd {
    async fn start(proxy: &Proxy) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let mut client = proxy.client().await;
            let stop = stop.clone();
            clients.spawn(async move {
                let mut calls = Vec::new();
                while !stop.load(SeqCst) {
                    let id = format!("\"client {number}, call {}\"", calls.len());
                    let started = Instant::now();
                    let response = client.post(call(&id, WHO, "[]")).await;
                    let took = started.elapsed();
                    // The whole answer: its own id, a result, nothing else.
                    let text = response.text();
                    let node = text
                        .strip_prefix(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"SteadfastDevnet/v1/"#))
                        .and_then(|rest| rest.strip_suffix("\"}"))
                        .unwrap_or_else(|| panic!("{id}: {} {text}", response.status));
                    calls.push(Call { started, took, node: node.to_owned() });
                    // Small machines have the pretend nodes and all clients on one thread.
                    sleep(Duration::from_millis(2)).await;
                }
                assert!(client.is_silent().await, "client {number} got more answers than it made calls");
                calls
            });
        }
        Self { stop, clients }
    }

    async fn stop(mut self) -> Vec<Call> {
        self.stop.store(true, SeqCst);
        let mut calls = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            let made = client.unwrap();
            assert!(made.len() > 10, "a client made only {} calls", made.len());
            calls.extend(made);
        }
        calls.sort_by_key(|call| call.started);
        calls
    }
}

fn to<'a>(calls: &'a [Call], node: &'a str) -> impl Iterator<Item = &'a Call> {
    calls.iter().filter(move |call| call.node == node)
}

async fn two_nodes(block_time: Option<Duration>) -> Devnet {
    devnet(Options { block_time, ..Options::default() }).await
}

async fn before(net: &Devnet) -> Proxy {
    before_with(net, "").await
}

async fn before_with(net: &Devnet, more: &str) -> Proxy {
    let proxy = Proxy::over([net.el(0).http_url().as_str(), &net.el(1).http_url()], more).await;
    for node in ["el-1", "el-2"] {
        proxy.until_node(node, "up").await;
    }
    proxy
}

async fn settle(node: &Node, fault: Option<Fault>) -> Instant {
    match fault {
        Some(fault) => node.set_fault(fault),
        None => node.clear_faults(),
    }
    node.settled().await;
    Instant::now()
}

#[tokio::test]
async fn no_call_fails_while_the_primary_is_cut_and_comes_back() {
    let net = two_nodes(Some(Duration::from_millis(500))).await;
    let proxy = before(&net).await;
    let crowd = Crowd::start(&proxy).await;
    sleep(Duration::from_millis(500)).await;
    let cut = settle(net.el(0), Some(Fault::Down)).await;
    sleep(Duration::from_millis(1500)).await;
    let back = settle(net.el(0), None).await;
    until("the primary serves again", async || net.el(0).count(WHO) > 0 && proxy.side().await["active"] == "el-1")
        .await;
    sleep(Duration::from_millis(500)).await;
    let calls = crowd.stop().await;

    let home = to(&calls, "el-1").find(|call| call.started > back).expect("traffic went home").started;
    assert!(home - back < Duration::from_secs(3), "home only after {:?}", home - back);
    assert!(to(&calls, "el-1").any(|call| call.started < cut));
    assert!(to(&calls, "el-2").any(|call| call.started > cut));
    assert!(to(&calls, "el-1").all(|call| call.started < cut || call.started > back));
    // Once home, it stays there.
    let stays = home + Duration::from_millis(100);
    assert!(calls.iter().any(|call| call.started > stays));
    assert!(calls.iter().filter(|call| call.started > stays).all(|call| call.node == "el-1"));
}

#[tokio::test]
async fn a_hanging_primary_costs_no_call_four_seconds() {
    let net = two_nodes(None).await;
    let proxy = before(&net).await;
    let crowd = Crowd::start(&proxy).await;
    sleep(Duration::from_millis(300)).await;
    let hung = settle(net.el(0), Some(Fault::Hang)).await;
    until("the hang is known", async || proxy.node("el-1").await["usable"] == false).await;
    let known = Instant::now();
    sleep(Duration::from_secs(2)).await;
    let calls = crowd.stop().await;

    let slowest = calls.iter().max_by_key(|call| call.took).unwrap();
    assert!(slowest.took < Duration::from_secs(4), "{slowest:?}");
    assert!(slowest.started < known && slowest.took > Duration::from_secs(1), "nobody noticed the hang: {slowest:?}");
    assert!(to(&calls, "el-1").all(|call| call.started < hung));
    let later: Vec<_> = calls.iter().filter(|call| call.started > known).collect();
    assert!(later.len() > 100, "{}", later.len());
    // The attempt at a hanging node would take two seconds and more.
    assert!(later.iter().all(|call| call.took < Duration::from_secs(1)), "{:?}", later.iter().max_by_key(|c| c.took));
}

/// Probes come faster than by default here, so that more of them fit into a test; what is judged is
/// the same.
const OFTEN: &str = "health.interval = \"200ms\"\n";

async fn before_a_fast_chain(settled: bool) -> (Devnet, Proxy) {
    let net = two_nodes(Some(Duration::from_millis(100))).await;
    let proxy = Proxy::start(&[OFTEN, &nodes([net.el(0).http_url().as_str(), &net.el(1).http_url()])].concat()).await;
    for node in ["el-1", "el-2"] {
        proxy.until_node(node, "up").await;
    }
    if settled {
        probed(net.el(0), 8).await;
    }
    (net, proxy)
}

#[tokio::test]
async fn a_liar_among_two_draws_no_call_from_the_honest_primary() {
    let (net, proxy) = before_a_fast_chain(true).await;
    let crowd = Crowd::start(&proxy).await;
    for blocks in [1_000_000, 1000, 20] {
        net.el(1).set_fault(Fault::lie(blocks));
        probed(net.el(1), 4).await;
        let side = proxy.side().await;
        assert_eq!((&side["active"], &side["nodes"][0]["usable"]), (&"el-1".into(), &true.into()), "{side}");
        net.el(1).clear_faults();
        probed(net.el(1), 3).await;
    }
    net.el(1).set_fault(Fault::lie(1000));
    probed(net.el(1), 4).await;
    settle(net.el(1), Some(Fault::Down)).await;
    proxy.until_node("el-2", "down").await;
    sleep(Duration::from_millis(1000)).await;
    let calls = crowd.stop().await;
    assert!(calls.iter().all(|call| call.node == "el-1"));
    assert_eq!(net.el(1).count(WHO), 0);
    let side = proxy.side().await;
    let head = net.chain().head().number;
    assert!(side["head"].as_u64().unwrap() <= head && side["served_head"].as_u64().unwrap() <= head, "{side}");
}

#[tokio::test]
async fn a_node_that_lies_right_after_the_start_evicts_none() {
    let lies = async |blocks| {
        let net = two_nodes(Some(Duration::from_millis(500))).await;
        let proxy = before(&net).await;
        // They have agreed: the honest one was there first.
        probed(net.el(0), 1).await;
        let crowd = Crowd::start(&proxy).await;
        net.el(1).set_fault(Fault::lie(blocks));
        probed(net.el(1), 3).await;
        let side = proxy.side().await;
        assert!(crowd.stop().await.iter().all(|call| call.node == "el-1"), "{blocks}: {side}");
    };
    tokio::join!(lies(20), lies(1000));
}

#[tokio::test]
async fn a_liar_that_comes_after_the_honest_node_evicts_nobody() {
    let net = two_nodes(Some(Duration::from_millis(500))).await;
    settle(net.el(1), Some(Fault::Down)).await;
    let proxy = Proxy::over([net.el(0).http_url().as_str(), &net.el(1).http_url()], "").await;
    proxy.until_node("el-1", "up").await;
    let crowd = Crowd::start(&proxy).await;
    probed(net.el(0), 1).await;
    net.el(1).set_fault(Fault::lie(500));
    net.el(1).clear_fault("down");
    probed(net.el(1), 4).await;
    let side = proxy.side().await;
    assert!(crowd.stop().await.iter().all(|call| call.node == "el-1"), "{side}");
    assert_eq!(net.el(1).count(WHO), 0);
}

#[tokio::test]
async fn a_lying_node_is_suspect_and_loses_its_calls_to_an_honest_one() {
    for liar in [0, 1] {
        let (net, proxy) = before_a_fast_chain(true).await;
        let name = net.el(liar).name();
        net.el(liar).set_fault(Fault::lie(100_000));
        probed(net.el(liar), 3).await;
        let crowd = Crowd::start(&proxy).await;
        for _ in 0..15 {
            let node = proxy.node(name).await;
            assert_eq!(node["verdict"], "suspect", "{node}");
            sleep(Duration::from_millis(50)).await;
        }
        assert!(crowd.stop().await.iter().all(|call| call.node != name));
        net.el(liar).clear_faults();
        proxy.until_node(name, "up").await;
        assert!(proxy.post(call(1, WHO, "[]")).await.text().contains("el-1"));
    }
}

/// Waits until the proxy has probed the node `times` more.
async fn probed(node: &Node, times: u64) {
    let goal = node.count("eth_syncing") + times + 1;
    until("the node is probed", async || node.count("eth_syncing") >= goal).await;
}

/// Raw transactions go to one node after the other, and not to all at once.
const ONE_BY_ONE: &str = "[calls]\nsend_to = \"first\"\n";

/// A transaction, as raw bytes that the pretend chain takes, and its hash.
fn transaction(number: u8) -> (String, String) {
    let raw = format!("0x02c2{number:02x}80");
    let hash = alloy_primitives::keccak256([2, 0xc2, number, 0x80]);
    (raw, hash.to_string())
}

#[tokio::test]
async fn a_raw_transaction_whose_answer_is_lost_returns_its_hash() {
    const SEND: &str = "eth_sendRawTransaction";
    for reused in [false, true] {
        let net = two_nodes(None).await;
        let proxy = before_with(&net, ONE_BY_ONE).await;
        let mut client = proxy.client().await;
        if reused {
            // The worker keeps this connection to the node and takes it for the next call.
            assert!(client.post(call(1, WHO, "[]")).await.text().contains("el-1"));
        }
        let opened = net.el(0).connections_total();
        net.el(0).set_fault(Fault::cut_answer(&[SEND]));
        let (raw, hash) = transaction(u8::from(reused) + 1);
        let answer = client.post(call(2, SEND, &format!("[\"{raw}\"]"))).await.text();
        assert_eq!(answer, format!(r#"{{"jsonrpc":"2.0","id":2,"result":"{hash}"}}"#), "reused: {reused}");
        let on = |index: usize| net.el(index).raw_transactions().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!((on(0), on(1)), (vec![hash.clone()], vec![]), "reused: {reused}");
        // On a reused connection the loss says less, and on a fresh one that is closed at once the
        // node may only be full: so another fresh one is tried first.
        assert_eq!(net.el(0).count(SEND), 2);
        assert_eq!(net.el(1).count(SEND), 1);
        assert!(net.el(0).connections_total() > opened);
        assert_eq!(net.chain().mempool().len(), 1);
    }
}

#[tokio::test]
async fn a_raw_transaction_mined_before_the_second_attempt_succeeds() {
    let (raw, hash) = transaction(7);
    let sends = Arc::new(AtomicBool::new(false));
    let first = Origin::start(|_| Reply::Last(Vec::new())).await;
    let known = hash.clone();
    let asked = sends.clone();
    let second = Origin::start(move |seen| match seen.method().as_str() {
        "eth_sendRawTransaction" => {
            asked.store(true, SeqCst);
            Reply::error(seen, -32000, "nonce too low: next nonce 8, tx nonce 7")
        }
        "eth_getTransactionByHash" => {
            assert_eq!(seen.params(), format!("[\"{known}\"]"));
            Reply::result(seen, &format!(r#"{{"hash":"{known}","blockNumber":"0x64"}}"#))
        }
        other => panic!("{other}"),
    })
    .await;
    let proxy = Proxy::over([first.url(), second.url()], ONE_BY_ONE).await;
    let answer = proxy.post(call("\"x\"", "eth_sendRawTransaction", &format!("[\"{raw}\"]"))).await.text();
    assert_eq!(answer, format!(r#"{{"jsonrpc":"2.0","id":"x","result":"{hash}"}}"#));
    assert!(sends.load(SeqCst));
}

/// A client's answer for a transaction that one node takes and answers by `first`, when another
/// then refuses it with this error.
async fn said_after(first: fn() -> Reply, code: i64, message: &'static str) -> serde_json::Value {
    let first = Origin::start(move |_| first()).await;
    let second = Origin::start(move |seen| match seen.method().as_str() {
        "eth_getTransactionByHash" => Reply::result(seen, "null"),
        _ => Reply::error(seen, code, message),
    })
    .await;
    let proxy = Proxy::over([first.url(), second.url()], ONE_BY_ONE).await;
    proxy.until_node("el-2", "up").await;
    let answer = proxy.post(call(1, "eth_sendRawTransaction", "[\"0x02c28080\"]")).await.json();
    assert_eq!((first.seen().is_empty(), second.count("eth_sendRawTransaction")), (false, 1), "{message}");
    answer
}

#[tokio::test]
async fn after_a_lost_answer_trouble_does_not_decide_a_transaction() {
    for (code, message) in [(-32005, "rate limit"), (-32000, "txpool is full"), (-32603, "internal error")] {
        let answer = said_after(|| Reply::Last(Vec::new()), code, message).await;
        assert_eq!(answer["error"]["data"]["reason"], "outcome_unknown", "{message}: {answer}");
    }
}

#[tokio::test]
async fn after_a_lost_answer_already_known_succeeds_with_any_code() {
    let hash = alloy_primitives::keccak256([2, 0xc2, 0x80, 0x80]).to_string();
    for code in [-32603, -32000, -32010] {
        let answer = said_after(|| Reply::Last(Vec::new()), code, "already known").await;
        assert_eq!(answer["result"], *hash, "{code}: {answer}");
    }
}

#[tokio::test]
async fn after_a_gateways_timeout_trouble_does_not_decide_either() {
    let timeout = || Reply::Bytes(response("504 Gateway Timeout", "", "<html>"));
    for (code, message) in [(-32005, "rate limit"), (-32000, "txpool is full")] {
        let answer = said_after(timeout, code, message).await;
        assert_eq!(answer["error"]["data"]["reason"], "outcome_unknown", "{message}: {answer}");
    }
}

#[tokio::test]
async fn after_a_lost_answer_one_nodes_limits_do_not_decide() {
    for message in [
        "transaction underpriced: gas tip cap 1, minimum needed 1000000",
        "tx fee (1.20 ether) exceeds the configured cap (1.00 ether)",
    ] {
        let answer = said_after(|| Reply::Last(Vec::new()), -32000, message).await;
        assert_eq!(answer["error"]["data"]["reason"], "outcome_unknown", "{message}: {answer}");
    }
}

#[tokio::test]
async fn already_known_goes_back_as_it_is_after_no_earlier_attempt() {
    let node = Origin::start(|seen| Reply::error(seen, -32000, "already known")).await;
    let other = Origin::start(|seen| panic!("asked for {}", seen.method())).await;
    let proxy = Proxy::over([node.url(), other.url()], ONE_BY_ONE).await;
    let answer = proxy.post(call(1, "eth_sendRawTransaction", "[\"0x02c28080\"]")).await.json();
    assert_eq!(answer["error"]["message"], "already known");
    assert_eq!(node.methods(), ["eth_sendRawTransaction"]);
}

#[tokio::test]
async fn a_transaction_whose_answer_is_lost_has_an_unknown_outcome() {
    const SEND: &str = "eth_sendTransaction";
    for reused in [false, true] {
        let net = two_nodes(None).await;
        let proxy = before(&net).await;
        let mut client = proxy.client().await;
        if reused {
            assert!(client.post(call(1, WHO, "[]")).await.text().contains("el-1"));
        }
        net.el(0).set_fault(Fault::cut_answer(&[SEND]));
        let response = client.post(call("\"mine\"", SEND, r#"[{"value":"0x1"}]"#)).await;
        let answer = response.json();
        // Some clients repeat a request by themselves on a 5xx.
        assert_eq!(response.status, 200);
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&(-32002).into(), &"mine".into()), "{answer}");
        assert_eq!(answer["error"]["data"]["reason"], "outcome_unknown");
        assert!(answer.get("result").is_none());
        sleep(Duration::from_millis(200)).await;
        assert_eq!((net.el(0).count(SEND), net.el(1).count(SEND)), (1, 0), "reused: {reused}");
        // The call had its effect: sent twice, it would have had two.
        assert_eq!(net.chain().mempool().len(), 1);
    }
}

#[tokio::test]
async fn a_transaction_on_a_hanging_node_is_not_moved_as_reads_are() {
    let net = two_nodes(None).await;
    let settings = "[calls]\ntimeout = \"4s\"\n";
    let proxy = Proxy::over([net.el(0).http_url().as_str(), &net.el(1).http_url()], settings).await;
    for node in ["el-1", "el-2"] {
        proxy.until_node(node, "up").await;
    }
    net.el(0).set_fault(Fault::Hang);
    let start = Instant::now();
    let mut sender = proxy.client().await;
    let send = async { sender.post(call(1, "eth_sendTransaction", r#"[{"value":"0x1"}]"#)).await.json() };
    let mut reader = proxy.client().await;
    let read = async {
        let answer = reader.post(call(2, WHO, "[]")).await.text();
        (answer, start.elapsed())
    };
    let (sent, (answer, took)) = tokio::join!(send, read);
    assert!(answer.contains("el-2") && took < Duration::from_secs(4), "{answer} after {took:?}");
    assert_eq!(sent["error"]["data"]["reason"], "outcome_unknown", "{sent}");
    assert_eq!(net.el(1).count("eth_sendTransaction"), 0);
    assert!(start.elapsed() < SOON);
}

#[tokio::test]
async fn calls_wait_while_every_node_is_down_until_one_returns() {
    let net = two_nodes(None).await;
    let proxy = before(&net).await;
    settle(net.el(0), Some(Fault::Down)).await;
    settle(net.el(1), Some(Fault::Down)).await;
    let mut calls = JoinSet::new();
    for number in 0..CLIENTS {
        let mut client = proxy.client().await;
        calls.spawn(async move { client.post(call(number, WHO, "[]")).await.text() });
    }
    sleep(Duration::from_millis(1500)).await;
    assert!(calls.try_join_next().is_none(), "a call did not wait");
    settle(net.el(1), None).await;
    let mut answered = 0;
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap();
        assert!(answer.contains("el-2"), "{answer}");
        answered += 1;
    }
    assert_eq!(answered, CLIENTS);
}
