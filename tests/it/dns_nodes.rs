//! Nodes from DNS: every address of a name is a node, as the addresses change.

mod lookups;
mod own_addresses;
mod replaced_pools;

use std::{net::IpAddr, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{
    io::AsyncWriteExt,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::unix_sockets::Folder;
use crate::common::{
    client::call,
    origin::{Origin, Reply, ok},
    sim::{Net, Proxy},
    until,
};

const NAME: &str = "geth-headless";

/// The node at 10.0.0.`last`, which says so.
async fn node_at(net: &Net, last: u8) -> Origin {
    let node = Origin::within(net, move |seen| Reply::result(seen, &format!("\"at {last}\""))).await;
    net.put(&IpAddr::from([10, 0, 0, last]).to_string(), node.port());
    node
}

fn settings(more: &str) -> String {
    format!("[[el.primary]]\nname = \"geth\"\nhttp = \"dns+http://{NAME}:8545\"\n{more}")
}

async fn names(proxy: &Proxy) -> Vec<String> {
    let side = proxy.side().await;
    let nodes = side["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    nodes.iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect()
}

async fn asks(proxy: &Proxy) -> String {
    let answer = proxy.post(call(1, "eth_gasPrice", "[]")).await.json();
    answer["result"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Waits until these are the nodes, and all are up.
async fn until_up(proxy: &Proxy, nodes: &[&str]) {
    let all_up = async || proxy.verdicts().await.iter().all(|verdict| verdict == "up");
    until(&format!("{nodes:?} are up"), async || names(proxy).await == nodes && all_up().await).await;
}

#[tokio::test(start_paused = true)]
async fn calls_go_on_while_a_name_has_one_node_then_two_then_others() {
    let net = Net::default();
    let (one, two, three) = (node_at(&net, 1).await, node_at(&net, 2).await, node_at(&net, 3).await);
    net.name(NAME, &["10.0.0.1"]);
    let proxy = Arc::new(Proxy::launch(&net, &settings("")).await);
    until_up(&proxy, &["geth-10.0.0.1"]).await;
    assert_eq!(asks(&proxy).await, "at 1");
    assert_eq!(one.seen().last().unwrap().header("host"), [format!("{NAME}:8545")]);
    let mut calls = JoinSet::new();
    let caller = proxy.clone();
    calls.spawn(async move {
        loop {
            asks(&caller).await;
            sleep(Duration::from_millis(50)).await;
        }
    });
    // A second address: the first goes on.
    net.name(NAME, &["10.0.0.2", "10.0.0.1"]);
    sleep(Duration::from_secs(11)).await;
    until_up(&proxy, &["geth-10.0.0.1", "geth-10.0.0.2"]).await;
    assert_eq!(asks(&proxy).await, "at 1", "a new node takes no traffic");
    assert!(proxy.metric("steadfast_node_usable", "geth-10.0.0.1").await > 0.5);
    // Lookups that fail change nothing, for longer than the resolver's answers are kept.
    net.name(NAME, &[]);
    sleep(Duration::from_secs(2 * 60 * 60)).await;
    until_up(&proxy, &["geth-10.0.0.1", "geth-10.0.0.2"]).await;
    // The first goes, another comes.
    net.name(NAME, &["10.0.0.2", "10.0.0.3"]);
    sleep(Duration::from_secs(11)).await;
    until_up(&proxy, &["geth-10.0.0.2", "geth-10.0.0.3"]).await;
    assert_eq!(asks(&proxy).await, "at 2");
    let metrics = proxy.admin("/metrics").await.text();
    assert!(!metrics.contains("10.0.0.1\""), "the removed node has series:\n{metrics}");
    let left = one.bytes().len();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(one.bytes().len(), left, "the removed node is probed");
    // The calls in the background were all answered.
    assert!(calls.try_join_next().is_none());
    drop((calls, two, three));
}

#[tokio::test(start_paused = true)]
async fn a_call_at_a_node_whose_address_goes_ends_there() {
    let net = Net::default();
    let slow = Origin::within(&net, |seen| match seen.method().as_str() {
        "eth_getLogs" => {
            let answer = ok(format!(r#"{{"jsonrpc":"2.0","id":{},"result":"late"}}"#, seen.id()));
            Reply::act(async move |mut io| {
                sleep(Duration::from_secs(20)).await;
                io.write_all(&answer).await.unwrap();
                Some(io)
            })
        }
        _ => Reply::result(seen, "\"at 1\""),
    })
    .await;
    net.put("10.0.0.1", slow.port());
    let _two = node_at(&net, 2).await;
    net.name(NAME, &["10.0.0.1"]);
    let proxy =
        Arc::new(Proxy::launch(&net, &settings("[calls]\ntimeout = \"60s\"\nattempt_timeout = \"60s\"\n")).await);
    until_up(&proxy, &["geth-10.0.0.1"]).await;
    let (caller, start) = (proxy.clone(), Instant::now());
    let late = tokio::spawn(async move { caller.post(call(7, "eth_getLogs", "[]")).await.json() });
    sleep(Duration::from_secs(1)).await;
    net.name(NAME, &["10.0.0.2"]);
    sleep(Duration::from_secs(11)).await;
    until_up(&proxy, &["geth-10.0.0.2"]).await;
    assert_eq!(asks(&proxy).await, "at 2");
    let answer: Value = late.await.unwrap();
    assert_eq!(answer["result"], "late", "{answer}");
    assert!(start.elapsed() < Duration::from_secs(25));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_found_late_becomes_its_nodes() {
    let net = Net::default();
    let _one = node_at(&net, 1).await;
    let proxy = Proxy::launch(&net, &settings("[health]\ndns_interval = \"2s\"\n")).await;
    assert_eq!(names(&proxy).await, ["geth"]);
    net.name(NAME, &["10.0.0.1"]);
    sleep(Duration::from_secs(3)).await;
    until_up(&proxy, &["geth-10.0.0.1"]).await;
    // A reload keeps what is known, and looks a new name up at once.
    net.name("other", &["10.0.0.1"]);
    let other = "[[el.backup]]\nname = \"b\"\nhttp = \"dns+http://other\"\n";
    net.name(NAME, &[]);
    proxy.reload(&settings(other)).await;
    assert_eq!(names(&proxy).await, ["geth-10.0.0.1", "b-10.0.0.1"]);
}

#[tokio::test]
async fn check_tells_each_address_of_a_name() {
    let node = Origin::start(|seen| Reply::result(seen, "\"0x1\"")).await;
    let folder = Folder::new();
    let file = folder.path("steadfast.toml");
    std::fs::write(&file, format!("[[el.primary]]\nhttp = \"dns+http://localhost:{}\"\n", node.port())).unwrap();
    let (_, table, _) = super::operator::process::command(&["check", "--config", file.to_str().unwrap()]).await;
    assert!(table.contains("el-1-127.0.0.1") && table.contains("at 127.0.0.1"), "{table}");
}
