//! Old blocks: full nodes and archives.

use cucumber::{given, then, when};
use serde_json::{Value, json};
use steadfast::devnet::{Fault, History};

use crate::{
    nodes::befalls,
    world::{Proxy, eventually, soon},
};

/// An account that no step but these asks for.
const ACCOUNT: &str = "0x00000000000000000000000000000000000000aa";

#[given(regex = r"^(\S+) is an? (\w+) that keeps the (state|receipt)s of (\d+) blocks$")]
async fn keeps(proxy: &mut Proxy, name: String, program: String, what: String, blocks: u64) {
    let program = serde_json::from_value(json!(program)).expect("a program");
    let what = if what == "state" { History::State } else { History::Receipts };
    befalls(proxy, &name, Fault::Depth { blocks, program, what: vec![what] }).await;
}

async fn balance(proxy: &mut Proxy, height: u64) {
    let reply = proxy.call("eth_getBalance", &json!([ACCOUNT, format!("0x{height:x}")])).await;
    proxy.answers.push(reply.json());
}

#[when(expr = "a client asks for the balance at block {int}")]
async fn one_balance(proxy: &mut Proxy, height: u64) {
    balance(proxy, height).await;
}

#[when(expr = "a client asks for the balances at blocks {int} to {int}")]
async fn balances(proxy: &mut Proxy, first: u64, last: u64) {
    for height in first..=last {
        balance(proxy, height).await;
    }
}

#[when(expr = "a client asks for the receipts of the transactions in blocks {int} to {int}")]
async fn receipts(proxy: &mut Proxy, first: u64, last: u64) {
    let snapshot = proxy.chain().snapshot();
    let blocks = (first..=last).filter_map(|number| snapshot.block(number).cloned());
    let hashes: Vec<String> = blocks
        .flat_map(|block| block.transactions.iter().map(|mined| mined.transaction.hash.to_string()).collect::<Vec<_>>())
        .collect();
    assert!(!hashes.is_empty(), "these blocks have no transaction");
    for hash in hashes {
        let reply = proxy.call("eth_getTransactionReceipt", &json!([hash])).await;
        proxy.answers.push(reply.json());
    }
}

fn assert_all(proxy: &Proxy, is_there: impl Fn(&Value) -> bool) {
    for answer in &proxy.answers {
        assert!(is_there(&answer["result"]), "{answer}");
    }
}

#[then(expr = "every balance came, and {int} of these calls reached {word}")]
async fn came(proxy: &mut Proxy, calls: usize, name: String) {
    assert_all(proxy, Value::is_string);
    let requests = proxy.node(&name).requests();
    let reached = requests.iter().filter(|request| request.params.contains(ACCOUNT)).count();
    assert_eq!(reached, calls, "calls for old state that reached {name}");
}

#[then("every receipt came")]
async fn receipts_came(proxy: &mut Proxy) {
    assert_all(proxy, Value::is_object);
}

#[then(expr = "{word} is known to have the states of its last {int} blocks")]
async fn known(proxy: &mut Proxy, name: String, blocks: u64) {
    let proxy = &*proxy;
    let oldest = proxy.chain().head().number + 1 - blocks;
    eventually(&format!("{name} is known to have the states from {oldest} on"), soon(), async || {
        let node = proxy.status_of(&name).await;
        if node["oldest"]["state"] == oldest { Ok(()) } else { Err(format!("{node:#}")) }
    })
    .await;
}
