//! Clients that go before they have their answer, over real sockets.

use std::time::Duration;

use serde_json::{Value, json};
use steadfast::devnet::{Fault, Options};
use tokio::time::sleep;

use super::stage::POLL;
use crate::common::{
    client::{call, post},
    devnet,
    proxy::Proxy,
};

#[tokio::test]
async fn a_client_that_gives_up_on_a_poll_is_told_by_the_next() {
    let net = devnet(Options { execution: 1, block_time: None, ..Options::default() }).await;
    let proxy = Proxy::over([net.el(0).http_url().as_str()], "").await;
    let ask = async |method: &str, params: Value| -> Value {
        let mut answer: Value = proxy.post(call(1, method, &params.to_string())).await.json();
        answer["result"].take()
    };
    let filter = ask("eth_newFilter", json!([{}])).await;
    let before = net.chain().head().number;
    net.el(0).set_fault(Fault::slow_over(500, &["eth_getLogs"]));
    net.chain().mine(1);
    // The head is known, and its logs are on their way: the poll waits for them, and its client
    // does not.
    sleep(Duration::from_millis(200)).await;
    let mut client = proxy.client().await;
    client.send(post("/", call(2, POLL, &json!([filter]).to_string()).as_bytes())).await;
    sleep(Duration::from_millis(100)).await;
    drop(client);
    sleep(Duration::from_millis(1000)).await;
    net.el(0).clear_faults();
    let from = format!("{:#x}", before + 1);
    let logs = ask("eth_getLogs", json!([{"fromBlock": from}])).await;
    assert!(logs.as_array().is_some_and(|logs| !logs.is_empty()), "{logs}");
    assert_eq!(ask(POLL, json!([filter])).await, logs);
    assert_eq!(ask(POLL, json!([filter])).await, json!([]));
}

#[tokio::test]
async fn a_client_that_closes_its_side_alone_has_its_answer_once() {
    let net = devnet(Options { execution: 1, block_time: None, ..Options::default() }).await;
    let proxy = Proxy::over([net.el(0).http_url().as_str()], "").await;
    let filter: Value = proxy.post(call(1, "eth_newBlockFilter", "[]")).await.json();
    let poll = call(2, POLL, &json!([filter["result"]]).to_string());
    net.el(0).set_fault(Fault::slow_over(300, &["eth_getBlockByHash", "eth_getBlockByNumber"]));
    net.chain().mine(2);
    let mut client = proxy.client().await;
    client.send(post("/", poll.as_bytes())).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.io).await.unwrap();
    let told: Value = client.response().await.json();
    net.el(0).clear_faults();
    sleep(Duration::from_millis(1500)).await;
    let rest: Value = proxy.post(&poll).await.json();
    let all: Vec<&Value> = [&told, &rest].iter().flat_map(|answer| answer["result"].as_array().unwrap()).collect();
    let head = net.chain().head().number;
    let hashes = [head - 1, head].map(|number| json!(net.chain().block(number).unwrap().hash.to_string()));
    assert_eq!(all, hashes.iter().collect::<Vec<_>>(), "{told} {rest}");
}
