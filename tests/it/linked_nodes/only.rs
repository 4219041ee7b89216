//! Nodes that have nothing but their WebSocket.

use std::{sync::Arc, time::Duration};

use steadfast::devnet::{Devnet, Fault, Options};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::common::{
    client::call,
    sim::{Net, Proxy},
    until,
    witness::GAS_PRICE,
};

const SEND: &str = "eth_sendRawTransaction";
/// Tells which node answers.
const WHO: &str = "web3_clientVersion";

/// Nodes that are reached by WebSocket alone, the first `primaries` of them primaries, and a proxy
/// before them.
async fn before(net: &Net, primaries: usize, nodes: usize) -> (Devnet, Arc<Proxy>) {
    with(net, primaries, Options { execution: nodes, ..Options::default() }).await
}

async fn with(net: &Net, primaries: usize, options: Options) -> (Devnet, Arc<Proxy>) {
    with_settings(net, primaries, options, "").await
}

async fn with_settings(net: &Net, primaries: usize, options: Options, more: &str) -> (Devnet, Arc<Proxy>) {
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let settings: String = devnet
        .nodes()
        .enumerate()
        .map(|(index, node)| {
            let tier = if index < primaries { "primary" } else { "backup" };
            format!("[[el.{tier}]]\nname = \"{}\"\nws = \"{}\"\n", node.name(), node.ws_url())
        })
        .collect();
    let proxy = Proxy::launch(net, &(more.to_owned() + &settings)).await;
    let start = Instant::now();
    until("all are up", async || proxy.verdicts().await.iter().all(|verdict| verdict == "up")).await;
    assert!(start.elapsed() < Duration::from_millis(500), "up after {:?}", start.elapsed());
    (devnet, Arc::new(proxy))
}

async fn asks(proxy: &Proxy) -> String {
    let answer = proxy.post(call(1, WHO, "[]")).await.json();
    answer["result"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test(start_paused = true)]
async fn nodes_are_probed_and_called_over_links_byte_for_byte() {
    let net = Net::default();
    let (devnet, proxy) = before(&net, 1, 1).await;
    for id in ["1", "\"a\\\"}\"", "1.50e400", "123456789012345678901234567890", "-0", "null", "\"\""] {
        let answer = proxy.post(call(id, "eth_gasPrice", "[]")).await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{GAS_PRICE}"}}"#))
        );
        let error = proxy.post(call(id, "eth_getBlockByNumber", "[]")).await.text();
        assert!(error.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":"#)), "{error}");
    }
    let batch = format!("[{},{}]", call(1, "eth_gasPrice", "[]"), call("\"x\"", "net_version", "[]"));
    let expected =
        format!(r#"[{{"jsonrpc":"2.0","id":1,"result":"{GAS_PRICE}"}},{{"jsonrpc":"2.0","id":"x","result":"1337"}}]"#);
    assert_eq!(proxy.post(batch).await.text(), expected);
    // A notification has no answer.
    let notification = r#"{"jsonrpc":"2.0","method":"eth_gasPrice","params":[]}"#;
    assert_eq!(proxy.post(notification).await.text(), "");
    assert_eq!(devnet.el(0).connections_open(), devnet.el(0).websockets_open());
    assert_eq!(devnet.el(0).websockets_open(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_read_whose_link_is_lost_is_answered_by_another_node() {
    let net = Net::default();
    let (devnet, proxy) = before(&net, 2, 2).await;
    devnet.el(0).set_fault(Fault::cut_answer(&[WHO]));
    assert!(asks(&proxy).await.contains("el-2"));
    assert_eq!((devnet.el(0).count(WHO), devnet.el(1).count(WHO)), (1, 1));
    assert_eq!(proxy.verdicts().await, ["down", "up"]);
    let lost = Instant::now();
    until("it is in again", async || proxy.verdicts().await == ["up", "up"]).await;
    assert!(lost.elapsed() < Duration::from_millis(2100), "{:?}", lost.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_raw_transaction_lost_with_the_link_is_sent_again() {
    let net = Net::default();
    let (devnet, proxy) = with_settings(&net, 2, Options::default(), "calls.send_to = \"first\"\n").await;
    devnet.el(0).set_fault(Fault::cut_answer(&[SEND]));
    let raw = [2, 0xc2, 1, 0x80];
    let (text, hash) = (steadfast::domain::hex::encode(raw), alloy_primitives::keccak256(raw));
    let answer = proxy.post(call(2, SEND, &format!("[\"{text}\"]"))).await.json();
    assert_eq!(answer["result"], hash.to_string(), "{answer}");
    assert_eq!((devnet.el(0).count(SEND), devnet.el(1).count(SEND)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_raw_transaction_goes_to_all_nodes_over_their_links() {
    let net = Net::default();
    let (devnet, proxy) = before(&net, 1, 3).await;
    devnet.el(0).set_fault(Fault::slow_over(3_600_000, &[SEND]));
    let start = Instant::now();
    let answer = proxy.post(call(2, SEND, "[\"0x02c20180\"]")).await.json();
    assert!(answer["result"].is_string() && start.elapsed() < Duration::from_secs(1), "{answer}");
    until("all were sent it", async || devnet.nodes().all(|node| node.count(SEND) == 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_lost_with_the_link_is_never_sent_twice() {
    const UNSAFE: &str = "eth_sendTransaction";
    let net = Net::default();
    let (devnet, proxy) = before(&net, 2, 2).await;
    devnet.el(0).set_fault(Fault::cut_answer(&[UNSAFE]));
    let answer = proxy.post(call(1, UNSAFE, r#"[{"value":"0x1"}]"#)).await.json();
    assert_eq!(answer["error"]["data"]["reason"], "outcome_unknown", "{answer}");
    sleep(Duration::from_secs(5)).await;
    assert_eq!((devnet.el(0).count(UNSAFE), devnet.el(1).count(UNSAFE)), (1, 0));
    // A call that cannot have left goes elsewhere.
    devnet.el(0).set_fault(Fault::Down);
    let answer = proxy.post(call(1, UNSAFE, r#"[{"value":"0x1"}]"#)).await.json();
    assert!(answer["result"].is_string(), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_node_is_left_by_the_calls_that_may_move() {
    let net = Net::default();
    let (devnet, proxy) = before(&net, 1, 2).await;
    devnet.el(0).set_fault(Fault::Hang);
    let start = Instant::now();
    assert!(asks(&proxy).await.contains("el-2"));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(proxy.verdicts().await, ["down", "up"]);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_cut_is_out_at_once_and_soon_back() {
    let net = Net::default();
    let (devnet, proxy) = before(&net, 1, 2).await;
    assert!(asks(&proxy).await.contains("el-1"));
    for round in 0..6 {
        let cut = Instant::now();
        devnet.el(0).set_fault(Fault::Down);
        until("it is out", async || proxy.verdicts().await[0] == "down").await;
        assert!(cut.elapsed() < Duration::from_millis(50), "round {round}: out after {:?}", cut.elapsed());
        let side = proxy.side().await;
        assert!(side["nodes"][0]["last_error"]["message"].as_str().unwrap().contains("link"), "{side}");
        assert_eq!(side["nodes"][0]["link"]["up"], false, "{side}");
        assert_eq!(side["nodes"][1]["link"]["up"], true, "{side}");
        assert!(asks(&proxy).await.contains("el-2"), "round {round}");
        // Longer than flapping is held against it, and until it is between any two attempts to
        // connect.
        sleep(Duration::from_millis(700_000 + round * 160)).await;
        devnet.el(0).clear_faults();
        let back = Instant::now();
        until("it serves", async || asks(&proxy).await.contains("el-1")).await;
        // Two good probes, the first of which has the link opened.
        assert!(back.elapsed() < Duration::from_millis(2100), "round {round}: back after {:?}", back.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_mute_one_has_its_link_opened_anew_and_is_not_out_for_that() {
    let net = Net::default();
    let now_unix = Some(1_800_000_000);
    let options = Options { execution: 1, block_time: Some(Duration::from_secs(2)), now_unix, ..Options::default() };
    let (devnet, proxy) = with(&net, 1, options).await;
    devnet.el(0).set_fault(Fault::Mute);
    let start = Instant::now();
    while proxy.metric("steadfast_link_reconnects_total", "").await < 0.5 {
        assert_eq!(proxy.verdicts().await, ["up"], "after {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(10), "it was not cut");
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_secs(1)).await;
    assert!(asks(&proxy).await.contains("el-1"));
    assert_eq!(proxy.verdicts().await, ["up"]);
}

#[tokio::test(start_paused = true)]
async fn calls_that_waited_reach_the_node_in_their_order() {
    let net = Net::default();
    let (devnet, proxy) = before(&net, 1, 1).await;
    devnet.el(0).set_fault(Fault::Down);
    until("it is out", async || proxy.verdicts().await == ["down"]).await;
    let mut calls = JoinSet::new();
    let params = |number: usize| format!(r#"["0x{number:040x}","latest"]"#);
    for number in 1..=20 {
        let (calling, params) = (proxy.clone(), params(number));
        calls.spawn(async move { calling.post(call(number, "eth_getBalance", &params)).await.json() });
        until("it is held", async || proxy.metric("steadfast_held_calls", "").await >= number as f64).await;
    }
    // The node is slow to answer, and a little faster with a probe than the limit.
    devnet.el(0).set_fault(Fault::slow(900));
    devnet.el(0).clear_fault("down");
    let seen = || devnet.el(0).requests().into_iter().filter(|request| request.method == "eth_getBalance");
    until("one has come", async || seen().next().is_some()).await;
    let start = Instant::now();
    until("all have come", async || seen().count() == 20).await;
    assert!(start.elapsed() < Duration::from_millis(100), "the last came {:?} after the first", start.elapsed());
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap();
        assert!(answer["result"].is_string(), "{answer}");
    }
    let seen: Vec<String> = seen().map(|request| request.params).collect();
    assert_eq!(seen, (1..=20).map(params).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn long_answers_over_links_count_as_what_clients_make_us_hold() {
    let net = Net::default();
    let devnet = Devnet::start(Options::default(), Arc::new(net.clone())).await.unwrap();
    let node = devnet.el(0);
    let settings = |limit: &str| {
        format!("max_client_memory = \"{limit}\"\n[[el.primary]]\nname = \"el-1\"\nws = \"{}\"\n", node.ws_url())
    };
    // The method may have an effect or not.
    let body = call(1, "dev_blob", "[200000]");
    for (limit, is_refused) in [("64KiB", true), ("16MiB", false)] {
        let proxy = Proxy::launch(&net, &settings(limit)).await;
        until("the node is up", async || proxy.verdicts().await == ["up"]).await;
        for body in [body.clone(), format!("[{body}]")] {
            let text = proxy.post(&body).await.text();
            assert_eq!(text.contains("outcome_unknown"), is_refused, "{limit}: {} bytes", text.len());
            assert!(is_refused || text.len() > 200_000, "{} bytes", text.len());
        }
    }
}
