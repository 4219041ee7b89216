//! Calls that change something, and answers that are lost.

use cucumber::{given, then, when};
use serde_json::json;
use steadfast::devnet::Hash;
use tokio::time::timeout;

use crate::world::{Proxy, SOON, eventually};

const RAW: &[u8] = &[0x02, 0xf8, 0x70, 0x12, 0x34, 0x56];

fn raw() -> String {
    format!("0x{}", RAW.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

#[given("a client sends a signed transaction")]
#[when("a client sends a signed transaction")]
async fn signed(proxy: &mut Proxy) {
    proxy.last = Some(proxy.call("eth_sendRawTransaction", &json!([raw()])).await);
}

#[when("a client has a node sign and send a transaction")]
async fn unlocked(proxy: &mut Proxy) {
    proxy.last = Some(proxy.call("eth_sendTransaction", &json!([{"value": "0x1"}])).await);
}

#[when(expr = "a client has a node sign and send a transaction, and it has reached {word}")]
async fn unlocked_under_way(proxy: &mut Proxy, name: String) {
    proxy.waiting.push(tokio::spawn(proxy.call("eth_sendTransaction", &json!([{"value": "0x1"}]))));
    let proxy = &*proxy;
    eventually(&format!("it reaches {name}"), SOON, async || {
        if proxy.node(&name).count("eth_sendTransaction") > 0 { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
}

#[when("the client waits for the outcome")]
async fn outcome(proxy: &mut Proxy) {
    let call = proxy.waiting.pop().expect("a call waits");
    proxy.last = Some(timeout(SOON, call).await.expect("an outcome in time").unwrap());
}

#[then("the client gets the transaction's hash")]
async fn hash(proxy: &mut Proxy) {
    let reply = proxy.last.as_ref().expect("a reply");
    assert_eq!(reply.json()["result"], Hash::of(RAW).to_string(), "{reply:?}");
    assert_eq!(reply.json()["id"], 1);
}

#[then("the transaction waits for a block exactly once")]
async fn waits(proxy: &mut Proxy) {
    let chain = proxy.net.as_ref().unwrap().chain();
    assert_eq!(chain.mempool(), [Hash::of(RAW)]);
}

#[then(expr = "{int} transaction was made for the client")]
async fn made(proxy: &mut Proxy, count: usize) {
    let chain = proxy.net.as_ref().unwrap().chain();
    assert_eq!(chain.unlocked_transactions().len(), count);
}

#[then(expr = "no node was asked twice for {word}")]
async fn not_twice(proxy: &mut Proxy, method: String) {
    let nodes = proxy.net.as_ref().unwrap().nodes();
    let asked: u64 = nodes.map(|node| node.count(&method)).sum();
    assert_eq!(asked, 1, "{method} was sent {asked} times in all");
}
