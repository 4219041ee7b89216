//! A client that polls filters over HTTP, and what it is told.

use std::time::Duration;

use cucumber::{given, then, when};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    network::here,
    world::{Proxy, eventually, soon},
};

/// Those by which a node would have a filter.
const METHODS: [&str; 6] = [
    "eth_newBlockFilter",
    "eth_newFilter",
    "eth_newPendingTransactionFilter",
    "eth_getFilterChanges",
    "eth_getFilterLogs",
    "eth_uninstallFilter",
];

/// Two filters, and what stands after all that their polls told.
#[derive(Debug)]
pub struct Polled {
    filters: [Value; 2],
    /// The head when they were made.
    since: u64,
    /// Hashes of blocks, each as often as it was told.
    blocks: Vec<Value>,
    /// Hash and index of logs.
    logs: Vec<(Value, Value)>,
}

async fn ask(proxy: &Proxy, method: &str, params: Value) -> Value {
    let reply = proxy.call(method, &params).await;
    let mut answer = reply.json();
    assert!(answer.get("result").is_some(), "{method} {params}: {answer}");
    answer["result"].take()
}

#[given("the client polls a filter of blocks and one of logs")]
async fn polls(proxy: &mut Proxy) {
    let blocks = ask(proxy, "eth_newBlockFilter", json!([])).await;
    let logs = ask(proxy, "eth_newFilter", json!([{}])).await;
    let since = proxy.net().tip()();
    proxy.polled = Some(Polled { filters: [blocks, logs], since, blocks: Vec::new(), logs: Vec::new() });
}

/// Polls once, and holds what it tells against what it told before.
async fn poll(proxy: &mut Proxy) {
    let filters = proxy.polled.as_ref().expect("the client polls").filters.clone();
    let mut told = Vec::new();
    for filter in filters {
        told.push(ask(proxy, "eth_getFilterChanges", json!([filter])).await.as_array().unwrap().clone());
    }
    let polled = proxy.polled.as_mut().unwrap();
    for log in told.pop().unwrap() {
        let name = (log["blockHash"].clone(), log["logIndex"].clone());
        if log["removed"] == true {
            assert_eq!(polled.logs.pop(), Some(name), "the newest goes first");
        } else {
            assert!(!polled.logs.contains(&name), "told twice: {log}");
            polled.logs.push(name);
        }
    }
    for hash in told.pop().unwrap() {
        assert!(!polled.blocks.contains(&hash), "told twice: {hash}");
        polled.blocks.push(hash);
    }
}

#[then("the polls tell every block and log since then once")]
async fn tell_all(proxy: &mut Proxy) {
    let since = proxy.polled.as_ref().expect("the client polls").since;
    let network = proxy.net().clone();
    eventually("the polls tell all", soon(), async || {
        let blocks = here(network.canonical(since + 1).await).blocks;
        poll(proxy).await;
        let hashes: Vec<Value> = blocks.iter().map(|block| block.hash.clone().into()).collect();
        let logs: usize = blocks.iter().map(|block| block.logs.len()).sum();
        let polled = proxy.polled.as_ref().unwrap();
        // The hashes of blocks that went are told too, before.
        let is_whole = polled.blocks.ends_with(&hashes[hashes.len().saturating_sub(1)..])
            && hashes.iter().all(|hash| polled.blocks.contains(hash))
            && polled.logs.len() == logs
            && polled.logs.iter().all(|(hash, _)| hashes.contains(hash));
        if is_whole { Ok(()) } else { Err(format!("{polled:?}, of {hashes:?}")) }
    })
    .await;
    sleep(Duration::from_millis(300)).await;
    poll(proxy).await;
}

#[when(expr = "the chain is reorganised {int} blocks deep behind the polls")]
async fn reorganised(proxy: &mut Proxy, depth: u64) {
    here(proxy.net().reorganise(depth, depth + 2).await);
}

#[then("no node was asked for a filter")]
async fn unasked(proxy: &mut Proxy) {
    for name in proxy.names() {
        for method in METHODS {
            assert_eq!(here(proxy.net().asked(proxy.at(&name), method)), 0, "{method} at {name}");
        }
    }
}
