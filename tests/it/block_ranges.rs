//! Nodes that lack blocks, or data of old blocks: pruned ones, and those that are behind.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Fault, History, Options, Program};
use tokio::{io::AsyncWriteExt, time::sleep};

use crate::common::{
    client::{call, post},
    origin::{Origin, Reply, Seen, ok},
    sim::{Net, Proxy},
    until,
};

/// Blocks that a full node keeps the states of.
const KEPT: u64 = 128;
/// Blocks of the pretend chain.
const BLOCKS: u64 = 400;
/// An account of clients.
const ACCOUNT: &str = "0x00000000000000000000000000000000000000aa";
const PROGRAMS: [Program; 5] = [Program::Geth, Program::Erigon, Program::Nethermind, Program::Besu, Program::Reth];

fn depth(program: Program, what: &[History]) -> Fault {
    Fault::Depth { blocks: KEPT, program, what: what.to_vec() }
}

/// A full node, an archive behind it, and a proxy before both.
async fn full_and_archive(net: &Net, fault: Fault, more: &str) -> (Devnet, Proxy) {
    let options = Options { initial_blocks: BLOCKS, ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    devnet.el(0).set_fault(fault);
    let urls: Vec<String> = devnet.nodes().map(|node| node.http_url()).collect();
    let proxy = Proxy::over(net, urls.iter().map(String::as_str), more).await;
    (devnet, proxy)
}

fn balance_at(height: u64) -> String {
    call(height, "eth_getBalance", &json!([ACCOUNT, format!("0x{height:x}")]).to_string())
}

/// Calls of clients for balances that have reached a node.
fn balances(devnet: &Devnet, node: usize) -> usize {
    let requests = devnet.el(node).requests();
    requests.iter().filter(|request| request.method == "eth_getBalance" && request.params.contains(ACCOUNT)).count()
}

async fn oldest(proxy: &Proxy, node: &str, data: &str) -> Value {
    proxy.node(node).await["oldest"][data].clone()
}

#[tokio::test(start_paused = true)]
async fn calls_for_old_state_go_to_the_archive_without_a_failure() {
    for program in PROGRAMS {
        let net = Net::default();
        let (devnet, proxy) = full_and_archive(&net, depth(program, &[]), "").await;
        let mut client = proxy.client().await;
        let answer = client.post(balance_at(1)).await.json();
        assert!(answer["result"].is_string(), "{program:?}: {answer}");
        assert_eq!((balances(&devnet, 0), balances(&devnet, 1)), (1, 1), "{program:?}");
        // The bound is found by a few questions.
        let bound = BLOCKS - KEPT + 1;
        until("the bound is known", async || oldest(&proxy, "el-1", "state").await == bound).await;
        let asked = devnet.el(0).count("eth_getBalance");
        assert!(asked <= 12, "{program:?}: {asked} questions");
        for height in (1..bound).step_by(30) {
            let answer = client.post(balance_at(height)).await.json();
            assert!(answer["result"].is_string(), "{program:?}: {answer}");
        }
        assert_eq!(balances(&devnet, 0), 1, "{program:?}: a call for old state reached the full node");
        // All else goes where it went.
        for height in [bound, BLOCKS] {
            assert!(client.post(balance_at(height)).await.json()["result"].is_string());
        }
        let latest = call(1, "eth_getBalance", &json!([ACCOUNT, "latest"]).to_string());
        assert!(client.post(latest).await.json()["result"].is_string());
        assert_eq!(balances(&devnet, 0), 4, "{program:?}");
        let metrics = proxy.admin("/metrics").await.text();
        assert!(metrics.contains(r#"node="el-1",outcome="lacking"} 1"#), "{program:?}: {metrics}");
        assert_eq!(
            (oldest(&proxy, "el-2", "state").await, oldest(&proxy, "el-1", "blocks").await),
            (Value::Null, Value::Null)
        );
        assert_eq!(proxy.verdicts().await, ["up", "up"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bound_moves_with_the_chain() {
    let net = Net::default();
    let (devnet, proxy) = full_and_archive(&net, depth(Program::Geth, &[]), "").await;
    proxy.post(balance_at(1)).await;
    let bound = BLOCKS - KEPT + 1;
    until("the bound is known", async || oldest(&proxy, "el-1", "state").await == bound).await;
    // After one look at the bound; all within the ten minutes for which the bound counts.
    for seconds in [61, 2, 2, 61, 2, 61] {
        let head = devnet.chain().mine(20).number;
        sleep(Duration::from_secs(seconds)).await;
        let kept = head + 1 - oldest(&proxy, "el-1", "state").await.as_u64().unwrap();
        assert!((KEPT - 6..=KEPT).contains(&kept), "{kept} blocks below {head}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_archive_may_be_the_last_of_many_nodes() {
    let net = Net::default();
    let (nodes, proxy) = origins(&net, [pruned, pruned, pruned, pruned, pruned, there]).await;
    nodes.iter().for_each(|node| node.set_head(1000));
    until("the heads are known", async || proxy.side().await["head"] == 1000).await;
    for reached in [1, 1] {
        assert_eq!(proxy.post(balance_at(40)).await.json()["result"], json!([{}]));
        let first = nodes[0].seen().iter().filter(|seen| seen.params().contains(ACCOUNT)).count();
        assert_eq!(first, reached);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lack_of_new_blocks_is_no_lack_of_old_ones() {
    let net = Net::default();
    let behind: fn(&Seen) -> Reply = |seen| Reply::error(seen, -32602, "block range extends beyond current head block");
    let (nodes, proxy) = origins(&net, [behind, there]).await;
    nodes.iter().for_each(|node| node.set_head(1000));
    until("the heads are known", async || proxy.side().await["head"] == 1000).await;
    // The first node is not as far as its probe said.
    let logs = call(1, "eth_getLogs", r#"[{"fromBlock":"0x1","toBlock":"0x3e8"}]"#);
    assert_eq!(proxy.post(logs).await.json()["result"], json!([{}]));
    assert_eq!(counts(&nodes, "eth_getLogs"), [1, 1]);
    assert_eq!(oldest(&proxy, "el-1", "receipts").await, Value::Null);
}

#[tokio::test(start_paused = true)]
async fn without_the_search_each_lack_is_learnt_from_a_call() {
    let net = Net::default();
    let off = "[health]\nfind_oldest_blocks = false\n";
    let (devnet, proxy) = full_and_archive(&net, depth(Program::Geth, &[]), off).await;
    for (height, reached) in [(9, 1), (9, 1), (5, 1), (40, 2), (17, 2)] {
        let answer = proxy.post(balance_at(height)).await.json();
        assert!(answer["result"].is_string(), "{answer}");
        assert_eq!(balances(&devnet, 0), reached, "at {height}");
    }
    sleep(Duration::from_secs(180)).await;
    assert_eq!(oldest(&proxy, "el-1", "state").await, 41);
    assert_eq!(devnet.el(0).count("eth_getBalance"), 2);
    // The knowledge does not last for ever: the node may have been given the data.
    sleep(Duration::from_secs(600)).await;
    proxy.post(balance_at(40)).await;
    assert_eq!(balances(&devnet, 0), 3);
}

#[tokio::test(start_paused = true)]
async fn data_that_one_node_dropped_are_had_from_another() {
    for program in PROGRAMS {
        let net = Net::default();
        let (devnet, proxy) = full_and_archive(&net, depth(program, &[History::Blocks, History::Receipts]), "").await;
        let snapshot = devnet.chain().snapshot();
        let mut old = (1..BLOCKS - KEPT).filter_map(|number| snapshot.block(number));
        let block = old.find(|block| !block.transactions.is_empty()).expect("an old block with a transaction");
        let (number, transaction) =
            (format!("0x{:x}", block.number), block.transactions[0].transaction.hash.to_string());
        for (method, params) in [
            ("eth_getBlockByNumber", json!([number, false])),
            ("eth_getBlockByHash", json!([block.hash.to_string(), false])),
            ("eth_getBlockReceipts", json!([number])),
            ("eth_getLogs", json!([{ "fromBlock": number, "toBlock": number }])),
            ("eth_getTransactionByHash", json!([transaction])),
            ("eth_getTransactionReceipt", json!([transaction])),
        ] {
            let answer = proxy.post(call(1, method, &params.to_string())).await.json();
            assert!(answer["result"].is_object() || answer["result"].is_array(), "{program:?} {method}: {answer}");
        }
        assert_eq!(proxy.verdicts().await, ["up", "up"]);
    }
}

/// Nodes on a network of memory, in the order of the file, and a proxy before them.
async fn origins<const N: usize>(net: &Net, scripts: [fn(&Seen) -> Reply; N]) -> ([Origin; N], Proxy) {
    let mut origins = Vec::new();
    for script in scripts {
        origins.push(Origin::within(net, script).await);
    }
    let proxy = Proxy::over(net, origins.iter().map(Origin::url), "").await;
    (origins.try_into().unwrap_or_else(|_| panic!("as many as there are scripts")), proxy)
}

fn counts<const N: usize>(origins: &[Origin; N], method: &str) -> [usize; N] {
    origins.each_ref().map(|origin| origin.count(method))
}

fn null(seen: &Seen) -> Reply {
    Reply::result(seen, "null")
}

fn empty(seen: &Seen) -> Reply {
    Reply::result(seen, "[]")
}

fn there(seen: &Seen) -> Reply {
    Reply::result(seen, "[{}]")
}

fn pruned(seen: &Seen) -> Reply {
    Reply::error(seen, -32000, "missing trie node 12ab (path )")
}

#[tokio::test(start_paused = true)]
async fn a_true_null_costs_one_more_call_and_a_false_one_is_not_given() {
    let hash = format!("0x{}", "ab".repeat(32));
    for method in ["eth_getTransactionReceipt", "eth_getTransactionByHash", "eth_getBlockByHash"] {
        let params = json!([hash]).to_string();
        let net = Net::default();
        let (nodes, proxy) = origins(&net, [null, null, there]).await;
        assert_eq!(proxy.post(call(1, method, &params)).await.json()["result"], Value::Null, "{method}");
        assert_eq!(counts(&nodes, method), [1, 1, 0], "{method}");
        let (nodes, proxy) = origins(&net, [null, there]).await;
        assert_eq!(proxy.post(call(1, method, &params)).await.json()["result"], json!([{}]), "{method}");
        assert_eq!(counts(&nodes, method), [1, 1], "{method}");
        let (nodes, proxy) = origins(&net, [there, null]).await;
        assert_eq!(proxy.post(call(1, method, &params)).await.json()["result"], json!([{}]), "{method}");
        assert_eq!(counts(&nodes, method), [1, 0], "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_opinion_is_asked_of_a_node_with_all_blocks() {
    let net = Net::default();
    let receipt = json!([format!("0x{}", "ab".repeat(32))]).to_string();
    let lacks_old: fn(&Seen) -> Reply = |seen| match &*seen.method() {
        "eth_getBlockReceipts" => Reply::error(seen, 4444, "pruned history unavailable"),
        _ => Reply::result(seen, "null"),
    };
    let (nodes, proxy) = origins(&net, [null, lacks_old, there]).await;
    nodes.iter().for_each(|node| node.set_head(1000));
    until("the heads are known", async || proxy.side().await["head"] == 1000).await;
    // The first says null, the second has dropped the receipts, and the third has them.
    let receipts = proxy.post(call(1, "eth_getBlockReceipts", r#"["0x5"]"#)).await.json();
    assert_eq!(receipts["result"], json!([{}]));
    assert_eq!(oldest(&proxy, "el-2", "receipts").await, 6);
    assert_eq!(proxy.post(call(1, "eth_getTransactionReceipt", &receipt)).await.json()["result"], json!([{}]));
    assert_eq!(counts(&nodes, "eth_getTransactionReceipt"), [1, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_block_above_a_nodes_head_is_asked_of_a_node_that_has_it() {
    let net = Net::default();
    for (method, params) in [
        ("eth_getLogs", r#"[{"fromBlock":"0x60","toBlock":"0x65"}]"#),
        ("eth_getBalance", r#"["0xaa","0x65"]"#),
        ("trace_block", r#"["0x65"]"#),
    ] {
        let (nodes, proxy) = origins(&net, [empty, there]).await;
        nodes[1].set_head(0x65);
        until("the head is known", async || proxy.node("el-2").await["head"] == 0x65).await;
        assert_eq!(proxy.post(call(1, method, params)).await.json()["result"], json!([{}]), "{method}");
        assert_eq!(counts(&nodes, method), [0, 1], "{method}");
    }
    // Where no node has come so far, the first is asked, and its word is believed.
    let (nodes, proxy) = origins(&net, [empty, there]).await;
    let future = call(1, "eth_getLogs", r#"[{"fromBlock":"0x1000","toBlock":"0x1000"}]"#);
    assert_eq!(proxy.post(future).await.json()["result"], json!([]));
    assert_eq!(counts(&nodes, "eth_getLogs"), [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn polls_for_the_next_block_have_no_calls_follow_the_node_ahead() {
    let net = Net::default();
    let (nodes, proxy) = origins(&net, [null, there]).await;
    nodes[1].set_head(0x65);
    until("the head is known", async || proxy.node("el-2").await["head"] == 0x65).await;
    for _ in 0..5 {
        let answer = proxy.post(call(1, "eth_getBlockByNumber", r#"["0x65",false]"#)).await.json();
        assert_eq!(answer["result"], Value::Null);
    }
    assert_eq!(counts(&nodes, "eth_getBlockByNumber"), [5, 0]);
    assert_eq!((&proxy.side().await["active"], &proxy.side().await["served_head"]), (&json!("el-1"), &json!(0x64)));
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_of_a_node_without_the_blocks_is_not_given() {
    for (method, params) in
        [("eth_getLogs", r#"[{"fromBlock":"0x60","toBlock":"0x65"}]"#), ("trace_block", r#"["0x65"]"#)]
    {
        let net = Net::default();
        let slow = Origin::within(&net, |seen| {
            let bytes = ok(format!(r#"{{"jsonrpc":"2.0","id":{},"result":[]}}"#, seen.id()));
            Reply::act(async move |mut io| {
                sleep(Duration::from_secs(3)).await;
                io.write_all(&bytes).await.ok()?;
                Some(io)
            })
        })
        .await;
        let other = Origin::within(&net, there).await;
        let proxy = Proxy::over(&net, [slow.url(), other.url()], "").await;
        let mut client = proxy.client().await;
        // No node has the last block yet; the second has it when the first answers.
        client.send(post("/", call(1, method, params).as_bytes())).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!([slow.count(method), other.count(method)], [1, 0]);
        other.set_head(0x65);
        assert_eq!(client.response().await.json()["result"], json!([{}]), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_that_no_node_has_teach_nothing() {
    let net = Net::default();
    let (nodes, proxy) = origins(&net, [pruned, pruned]).await;
    nodes.iter().for_each(|node| node.set_head(1000));
    until("the heads are known", async || proxy.side().await["head"] == 1000).await;
    for _ in 0..3 {
        let answer = proxy.post(balance_at(900)).await.json();
        assert_eq!(answer["error"]["message"], "missing trie node 12ab (path )");
    }
    assert_eq!(counts(&nodes, "eth_getBalance"), [3, 3]);
    for node in ["el-1", "el-2"] {
        assert_eq!(oldest(&proxy, node, "state").await, Value::Null);
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_answer_and_a_return_open_old_blocks_again() {
    let net = Net::default();
    let has = Arc::new(AtomicBool::new(false));
    let (state, other) = (has.clone(), has.clone());
    let first = Origin::within(&net, move |seen| if state.load(SeqCst) { there(seen) } else { pruned(seen) }).await;
    let second = Origin::within(&net, move |seen| if other.load(SeqCst) { pruned(seen) } else { there(seen) }).await;
    let proxy = Proxy::over(&net, [first.url(), second.url()], "").await;
    for node in [&first, &second] {
        node.set_head(1000);
    }
    until("the heads are known", async || proxy.side().await["head"] == 1000).await;
    proxy.post(balance_at(40)).await;
    until("the bound is known", async || oldest(&proxy, "el-1", "state").await.as_u64() >= Some(41)).await;
    // Now the first has what the second lacks.
    has.store(true, SeqCst);
    assert_eq!(proxy.post(balance_at(40)).await.json()["result"], json!([{}]));
    assert_eq!(oldest(&proxy, "el-1", "state").await, 40);
    assert!(oldest(&proxy, "el-2", "state").await.as_u64() >= Some(41));
    second.ail(Some(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_vec()));
    until("it is out", async || proxy.node("el-2").await["verdict"] == "down").await;
    second.ail(None);
    until("it is back", async || proxy.node("el-2").await["verdict"] == "up").await;
    assert_eq!(oldest(&proxy, "el-2", "state").await, Value::Null);
}
