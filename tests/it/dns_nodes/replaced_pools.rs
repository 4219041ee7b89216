//! Nodes of pools that were replaced, for as long as those have calls.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{NAME, node_at, settings, until_up};
use crate::common::{
    client::call,
    origin::{Origin, Reply, ok},
    sim::{Net, Proxy},
};

/// The node at 10.0.0.1, whose logs take so long.
async fn slow_node(net: &Net, takes: Duration) -> Origin {
    let node = Origin::within(net, move |seen| {
        if seen.method() != "eth_getLogs" {
            return Reply::result(seen, "\"at 1\"");
        }
        let answer = ok(format!(r#"{{"jsonrpc":"2.0","id":{},"result":"late"}}"#, seen.id()));
        Reply::act(async move |mut io| {
            sleep(takes).await;
            let _ = io.write_all(&answer).await;
            Some(io)
        })
    })
    .await;
    net.put("10.0.0.1", node.port());
    node
}

fn probes(node: &Origin) -> usize {
    let bytes = node.bytes();
    bytes.windows(11).filter(|window| window == b"eth_syncing").count()
}

const LONG: &str = "[calls]\ntimeout = \"90s\"\nattempt_timeout = \"90s\"\n[health]\ndns_interval = \"1s\"\n";

#[tokio::test(start_paused = true)]
async fn a_node_of_many_replaced_pools_is_probed_once() {
    let net = Net::default();
    let one = slow_node(&net, Duration::from_secs(36)).await;
    let _others = [node_at(&net, 2).await, node_at(&net, 3).await];
    net.name(NAME, &["10.0.0.1"]);
    let proxy = Arc::new(Proxy::launch(&net, &settings(LONG)).await);
    until_up(&proxy, &["geth-10.0.0.1"]).await;
    let mut calls = JoinSet::new();
    for round in 0..10 {
        let caller = proxy.clone();
        calls.spawn(async move { caller.post(call(1, "eth_getLogs", "[]")).await.json()["result"].clone() });
        sleep(Duration::from_millis(100)).await;
        let other = if round % 2 == 0 { "10.0.0.2" } else { "10.0.0.3" };
        net.name(NAME, &["10.0.0.1", other]);
        sleep(Duration::from_secs(2)).await;
    }
    let before = probes(&one);
    sleep(Duration::from_secs(10)).await;
    let asked = probes(&one) - before;
    // A second probe a second is for the calls that wait without a byte.
    assert!((8..=30).contains(&asked), "{asked} probes in 10 s");
    while let Some(answer) = calls.join_next().await {
        assert_eq!(answer.unwrap(), "late");
    }
}

/// A call is under way at the first of two nodes when the nodes become `after`, and then the first
/// node hangs: the call goes to the other.
async fn hangs_in_a_replaced_pool(after: &[&str]) {
    let net = Net::default();
    let one = slow_node(&net, Duration::from_secs(60)).await;
    let _others = [node_at(&net, 2).await, node_at(&net, 3).await];
    net.name(NAME, &["10.0.0.1", "10.0.0.2"]);
    let proxy = Arc::new(Proxy::launch(&net, &settings(LONG)).await);
    until_up(&proxy, &["geth-10.0.0.1", "geth-10.0.0.2"]).await;
    let caller = proxy.clone();
    let answer = tokio::spawn(async move { caller.post(call(1, "eth_getLogs", "[]")).await.json() });
    sleep(Duration::from_millis(100)).await;
    net.name(NAME, after);
    sleep(Duration::from_secs(10)).await;
    assert!(!answer.is_finished());
    one.mute();
    let start = Instant::now();
    let answer = answer.await.unwrap();
    assert_eq!(answer["result"], "at 2", "{answer}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_of_a_replaced_pool_leaves_a_node_that_hangs() {
    hangs_in_a_replaced_pool(&["10.0.0.1", "10.0.0.3"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_at_a_removed_node_that_hangs_leaves_it() {
    hangs_in_a_replaced_pool(&["10.0.0.3"]).await;
}
