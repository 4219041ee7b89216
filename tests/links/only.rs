//! Nodes that have nothing but their WebSocket.

use std::{sync::Arc, time::Duration};

use steadfast::devnet::{Devnet, Fault, Options};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::common::{
    client::call,
    sim::{Net, Proxy},
    until,
};

const SEND: &str = "eth_sendRawTransaction";
/// Tells which node answers.
const WHO: &str = "web3_clientVersion";

/// Nodes that are reached by WebSocket alone, the first `primaries` of them primaries, and a proxy before them.
async fn before(net: &Net, primaries: usize, nodes: usize) -> (Devnet, Arc<Proxy>) {
    let options = Options { execution: nodes, ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let settings: String = devnet
        .nodes()
        .enumerate()
        .map(|(index, node)| {
            let tier = if index < primaries { "primary" } else { "backup" };
            format!("[[el.{tier}]]\nname = \"{}\"\nws = \"{}\"\n", node.name(), node.ws_url())
        })
        .collect();
    let proxy = Proxy::launch(net, &settings).await;
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
async fn they_are_probed_and_called_over_their_links_with_ids_and_answers_byte_for_byte() {
    let net = Net::default();
    let (devnet, proxy) = before(&net, 1, 1).await;
    for id in ["1", "\"a\\\"}\"", "1.50e400", "123456789012345678901234567890", "-0", "null", "\"\""] {
        let answer = proxy.post(call(id, "eth_chainId", "[]")).await;
        assert_eq!((answer.status, answer.text()), (200, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"0x539"}}"#)));
        let error = proxy.post(call(id, "eth_getBlockByNumber", "[]")).await.text();
        assert!(error.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{id},"error":"#)), "{error}");
    }
    let batch = format!("[{},{}]", call(1, "eth_chainId", "[]"), call("\"x\"", "net_version", "[]"));
    let expected = r#"[{"jsonrpc":"2.0","id":1,"result":"0x539"},{"jsonrpc":"2.0","id":"x","result":"1337"}]"#;
    assert_eq!(proxy.post(batch).await.text(), expected);
    // A notification has no answer.
    let notification = r#"{"jsonrpc":"2.0","method":"eth_chainId","params":[]}"#;
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
}

#[tokio::test(start_paused = true)]
async fn a_raw_transaction_whose_answer_is_lost_with_the_link_is_sent_again_and_the_client_has_its_hash() {
    let net = Net::default();
    let (devnet, proxy) = before(&net, 2, 2).await;
    devnet.el(0).set_fault(Fault::cut_answer(&[SEND]));
    let raw = [2, 0xc2, 1, 0x80];
    let (text, hash) = (steadfast::domain::hex::encode(&raw), steadfast::domain::hex::keccak256(&raw));
    let answer = proxy.post(call(2, SEND, &format!("[\"{text}\"]"))).await.json();
    assert_eq!(answer["result"], steadfast::domain::hex::encode(&hash), "{answer}");
    assert_eq!((devnet.el(0).count(SEND), devnet.el(1).count(SEND)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_whose_answer_is_lost_with_the_link_is_never_sent_twice() {
    const UNSAFE: &str = "eth_sendTransaction";
    let net = Net::default();
    let (devnet, proxy) = before(&net, 2, 2).await;
    devnet.el(0).set_fault(Fault::cut_answer(&[UNSAFE]));
    let answer = proxy.post(call(1, UNSAFE, r#"[{"value":"0x1"}]"#)).await.json();
    assert_eq!(answer["error"]["data"]["reason"], "outcome_unknown", "{answer}");
    sleep(Duration::from_secs(5)).await;
    assert_eq!((devnet.el(0).count(UNSAFE), devnet.el(1).count(UNSAFE)), (1, 0));
    // One that cannot have left goes elsewhere.
    devnet.el(0).set_fault(Fault::Down);
    let answer = proxy.post(call(1, UNSAFE, r#"[{"value":"0x1"}]"#)).await.json();
    assert!(answer["result"].is_string(), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_one_owes_answers_and_is_left_by_the_calls_that_may_move() {
    let net = Net::default();
    let (devnet, proxy) = before(&net, 1, 2).await;
    devnet.el(0).set_fault(Fault::Hang);
    let start = Instant::now();
    assert!(asks(&proxy).await.contains("el-2"));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(proxy.verdicts().await, ["down", "up"]);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_cut_is_out_at_once_and_has_its_calls_again_soon_after_it_is_back() {
    let net = Net::default();
    let (devnet, proxy) = before(&net, 1, 2).await;
    assert!(asks(&proxy).await.contains("el-1"));
    for round in 0..3 {
        let cut = Instant::now();
        devnet.el(0).set_fault(Fault::Down);
        until("it is out", async || proxy.verdicts().await[0] == "down").await;
        assert!(cut.elapsed() < Duration::from_millis(50), "round {round}: out after {:?}", cut.elapsed());
        let side = proxy.side().await;
        assert!(side["nodes"][0]["last_error"]["message"].as_str().unwrap().contains("link"), "{side}");
        assert!(asks(&proxy).await.contains("el-2"), "round {round}");
        // Longer than flapping is held against it.
        sleep(Duration::from_secs(700)).await;
        devnet.el(0).clear_faults();
        let back = Instant::now();
        until("it serves", async || asks(&proxy).await.contains("el-1")).await;
        assert!(back.elapsed() < Duration::from_secs(3), "round {round}: back after {:?}", back.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_waited_for_one_reach_it_in_the_order_of_their_arrival() {
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
    devnet.el(0).clear_faults();
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap();
        assert!(answer["result"].is_string(), "{answer}");
    }
    let seen = devnet.el(0).requests().into_iter().filter(|request| request.method == "eth_getBalance");
    let seen: Vec<String> = seen.map(|request| request.params).collect();
    assert_eq!(seen, (1..=20).map(params).collect::<Vec<_>>());
}
