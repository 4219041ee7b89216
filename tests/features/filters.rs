//! A client that polls filters over HTTP, and what it is told.

use std::time::Duration;

use cucumber::{given, then, when};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    network::{Canonical, Fact, here},
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

/// Filters, and what stands after all that their polls told.
#[derive(Debug)]
pub struct Polled {
    blocks: Value,
    logs: Option<Value>,
    /// The network's height when they were made: from the next block on, nothing may be missing.
    since: u64,
    /// Hashes of blocks, each as often as it was told.
    told_blocks: Vec<Value>,
    /// Hash and index of logs.
    told_logs: Vec<(Value, Value)>,
}

/// Blocks below `since` of which a filter may have told: as many as come while it is made.
const OLDER: u64 = 16;

impl Polled {
    /// Whether what stands adds up to the chain, whose facts begin some blocks before `since`.
    fn adds_up(&self, chain: &Canonical, is_ours: bool) -> Result<(), String> {
        let told = |block: &&Fact| self.told_blocks.iter().any(|hash| *hash == *block.hash);
        // By the time that a filter is made, a chain that goes on by itself may have a block that
        // the network's height does not count yet, or that was counted too early.
        let first = chain.blocks.iter().find(told).filter(|_| !is_ours);
        let first = first.map_or(self.since + 1, |block| block.number.min(self.since + 1));
        let blocks = chain.since(first);
        if let Some(missing) = blocks.iter().find(|block| !told(block)) {
            return Err(format!("block {} was not told", missing.number));
        }
        // The hashes of blocks that went are told too, before.
        if let Some(head) = blocks.last().filter(|head| self.told_blocks.last().is_none_or(|last| *last != *head.hash))
        {
            return Err(format!("block {} is the head, and not the last that was told", head.number));
        }
        if self.logs.is_none() {
            return Ok(());
        }
        let mut rest = self.told_logs.as_slice();
        for block in blocks {
            let hash = Value::from(block.hash.clone());
            let (told, after) = rest.split_at(rest.iter().take_while(|log| log.0 == hash).count());
            // The filter of logs is the younger one.
            let is_older = !is_ours && block.number <= self.since && told.is_empty();
            let indices = block.logs.iter().map(|(_, index)| Value::from(format!("{index:#x}")));
            if !is_older && !told.iter().map(|log| &log.1).eq(indices.collect::<Vec<_>>().iter()) {
                return Err(format!("of block {} the logs {told:?} were told", block.number));
            }
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { Err(format!("these logs are of no block that stands: {rest:?}")) }
    }
}

async fn ask(proxy: &Proxy, method: &str, params: Value) -> Value {
    let reply = proxy.call(method, &params).await;
    let mut answer = reply.json();
    assert!(answer.get("result").is_some(), "{method} {params}: {answer}");
    answer["result"].take()
}

#[given(regex = "^the client polls filters of blocks( and logs)?$")]
async fn polls(proxy: &mut Proxy, logs: String) {
    let blocks = ask(proxy, "eth_newBlockFilter", json!([])).await;
    let mut filter = None;
    if !logs.is_empty() {
        // Without contracts there is nothing to tell.
        here(proxy.net().contract(1));
        filter = Some(ask(proxy, "eth_newFilter", json!([{}])).await);
    }
    let since = proxy.net().tip()();
    proxy.polled = Some(Polled { blocks, logs: filter, since, told_blocks: Vec::new(), told_logs: Vec::new() });
}

/// Polls once, and holds what it tells against what it told before.
async fn poll(proxy: &mut Proxy) {
    let Polled { blocks, logs, .. } = proxy.polled.as_ref().expect("the client polls");
    let changes = async |filter: &Value| {
        let changes = ask(proxy, "eth_getFilterChanges", json!([filter])).await;
        changes.as_array().expect("a list of changes").clone()
    };
    let blocks = changes(blocks).await;
    let logs = if let Some(filter) = logs { changes(filter).await } else { Vec::new() };
    let polled = proxy.polled.as_mut().unwrap();
    for log in logs {
        let name = (log["blockHash"].clone(), log["logIndex"].clone());
        if log["removed"] == true {
            assert_eq!(polled.told_logs.pop(), Some(name), "the newest goes first");
        } else {
            assert!(!polled.told_logs.contains(&name), "told twice: {log}");
            polled.told_logs.push(name);
        }
    }
    for hash in blocks {
        assert!(!polled.told_blocks.contains(&hash), "told twice: {hash}");
        polled.told_blocks.push(hash);
    }
}

#[then(regex = "^the polls tell all blocks( and logs)? since then, each once$")]
async fn tell_all(proxy: &mut Proxy, logs: String) {
    let polled = proxy.polled.as_ref().expect("the client polls");
    assert_eq!(polled.logs.is_some(), !logs.is_empty(), "the filters are not the ones that the client has");
    let since = polled.since;
    let network = proxy.net().clone();
    eventually("the polls tell all", soon(), async || {
        let chain = here(network.canonical(since.saturating_sub(OLDER)).await);
        poll(proxy).await;
        let polled = proxy.polled.as_ref().unwrap();
        polled.adds_up(&chain, network.is_ours()).map_err(|why| format!("{why}: {polled:?}, of {chain:?}"))
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
