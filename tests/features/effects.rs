//! Calls that change something, and answers that are lost.

use cucumber::{given, then, when};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    network::{anvil, here},
    world::{Proxy, eventually, soon},
};

/// A signed transaction.
#[derive(Clone)]
pub struct Signed {
    raw: String,
    hash: String,
}

#[given("a client sends a signed transaction")]
#[when("a client sends a signed transaction")]
async fn signed(proxy: &mut Proxy) {
    let raw = transaction(proxy).await.raw;
    proxy.last = Some(proxy.call("eth_sendRawTransaction", &json!([raw])).await);
}

/// The client's transaction: it is signed once, however often it is sent.
async fn transaction(proxy: &mut Proxy) -> Signed {
    if proxy.signed.is_none() {
        let raw = here(proxy.net().signed().await);
        proxy.signed = Some(Signed { hash: anvil::hash(&raw), raw });
    }
    proxy.signed.clone().unwrap()
}

#[given("a client has a signed transaction")]
async fn has_signed(proxy: &mut Proxy) {
    transaction(proxy).await;
}

#[when("a client sends the signed transaction, and does not wait for the answer")]
async fn signed_under_way(proxy: &mut Proxy) {
    let raw = transaction(proxy).await.raw;
    proxy.waiting.push(tokio::spawn(proxy.call("eth_sendRawTransaction", &json!([raw]))));
}

#[when("a client has a node sign and send a transaction")]
async fn unlocked(proxy: &mut Proxy) {
    proxy.last = Some(proxy.call("eth_sendTransaction", &json!([{"value": "0x1"}])).await);
}

#[when(expr = "a client has a node sign and send a transaction, and it has reached {word}")]
async fn unlocked_under_way(proxy: &mut Proxy, name: String) {
    proxy.waiting.push(tokio::spawn(proxy.call("eth_sendTransaction", &json!([{"value": "0x1"}]))));
    let proxy = &*proxy;
    eventually(&format!("it reaches {name}"), soon(), async || {
        if proxy.node(&name).count("eth_sendTransaction") > 0 { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
}

#[when("the client waits for the outcome")]
async fn outcome(proxy: &mut Proxy) {
    let call = proxy.waiting.pop().expect("a call waits");
    proxy.last = Some(timeout(soon(), call).await.expect("an outcome in time").unwrap());
}

#[then("the client gets the transaction's hash")]
async fn hash(proxy: &mut Proxy) {
    let reply = proxy.last.as_ref().expect("a reply");
    assert_eq!(reply.json()["result"], proxy.signed.as_ref().unwrap().hash, "{reply:?}");
    assert_eq!(reply.json()["id"], 1);
}

#[then("the transaction waits for a block exactly once")]
async fn waits(proxy: &mut Proxy) {
    let waiting = here(proxy.net().waiting().await);
    assert_eq!(waiting, [proxy.signed.as_ref().unwrap().hash.as_str()]);
}

#[then("the transaction is in the chain exactly once")]
async fn in_chain(proxy: &mut Proxy) {
    let chain = here(proxy.net().canonical(0).await);
    let hash = &proxy.signed.as_ref().unwrap().hash;
    let blocks = chain.blocks.iter().filter(|block| block.transactions.contains(hash));
    assert_eq!(blocks.count(), 1, "{chain:?}");
    assert_eq!(here(proxy.net().waiting().await), [] as [String; 0]);
}

#[then("its receipt says in which block")]
async fn receipt(proxy: &mut Proxy) {
    let hash = proxy.signed.as_ref().unwrap().hash.clone();
    let reply = proxy.call("eth_getTransactionReceipt", &json!([hash])).await.json();
    let chain = here(proxy.net().canonical(0).await);
    let block = chain.blocks.iter().find(|block| block.transactions.contains(&hash)).expect("it is in the chain");
    assert_eq!(reply["result"]["blockHash"], *block.hash, "{reply}");
}

#[then(expr = "{int} transaction was made for the client")]
async fn made(proxy: &mut Proxy, count: usize) {
    let chain = proxy.chain();
    assert_eq!(chain.unlocked_transactions().len(), count);
}

#[then(expr = "no node was asked twice for {word}")]
async fn not_twice(proxy: &mut Proxy, method: String) {
    let nodes = proxy.pretend().nodes();
    let asked: u64 = nodes.map(|node| node.count(&method)).sum();
    assert_eq!(asked, 1, "{method} was sent {asked} times in all");
}
