//! The changes that lookups bring, and those that no lookup brings.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::{NAME, asks, names, node_at, settings, until_up};
use crate::common::{
    log::Log,
    sim::{Net, Proxy},
};

/// Three nodes, and a proxy whose name had the address of the third before that of the first, so
/// that the nodes stand in this order.
async fn in_order(net: &Net) -> (Proxy, [crate::common::origin::Origin; 3]) {
    let nodes = [node_at(net, 1).await, node_at(net, 2).await, node_at(net, 3).await];
    net.name(NAME, &["10.0.0.3"]);
    let proxy = Proxy::launch(net, &settings("")).await;
    until_up(&proxy, &["geth-10.0.0.3"]).await;
    net.name(NAME, &["10.0.0.1", "10.0.0.3"]);
    sleep(Duration::from_secs(11)).await;
    until_up(&proxy, &["geth-10.0.0.3", "geth-10.0.0.1"]).await;
    (proxy, nodes)
}

const OTHER: &str = "[[el.primary]]\nname = \"other\"\nhttp = \"http://10.0.0.2:8545\"\n";

#[tokio::test(start_paused = true)]
async fn a_question_about_a_reload_changes_no_node() {
    let net = Net::default();
    let (proxy, _nodes) = in_order(&net).await;
    proxy.rewrite(OTHER);
    assert_eq!(proxy.operate("/reload?dry=1").await.status, 200);
    sleep(Duration::from_secs(25)).await;
    assert_eq!(names(&proxy).await, ["geth-10.0.0.3", "geth-10.0.0.1"]);
    assert_eq!(asks(&proxy).await, "at 3");
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_is_refused_changes_no_node() {
    let net = Net::default();
    let (proxy, _nodes) = in_order(&net).await;
    proxy.rewrite(&format!("workers = 7\n{OTHER}"));
    assert!(proxy.app.reload().await.is_err());
    sleep(Duration::from_secs(25)).await;
    assert_eq!(names(&proxy).await, ["geth-10.0.0.3", "geth-10.0.0.1"]);
}

#[tokio::test(start_paused = true)]
async fn lookups_that_fail_are_told_soon_and_not_often() {
    let (net, log) = (Net::default(), Log::start());
    let _one = node_at(&net, 1).await;
    net.name(NAME, &["10.0.0.1"]);
    let proxy = Proxy::launch(&net, &settings("")).await;
    until_up(&proxy, &["geth-10.0.0.1"]).await;
    assert!(proxy.metric("steadfast_dns_lookups_total", "found").await > 0.5);
    assert!(proxy.metric("steadfast_dns_lookups_total", "failed").await < 0.5);
    let told = || log.saying("the nodes of a name cannot be looked up; those that are known stay");
    net.name(NAME, &[]);
    sleep(Duration::from_secs(25)).await;
    assert!(proxy.metric("steadfast_dns_lookups_total", "failed").await > 1.5);
    let [line] = &told()[..] else { panic!("{:?}", told()) };
    assert_eq!((&line["name"], &line["kept"]), (&Value::from(NAME), &Value::from(1)));
    sleep(Duration::from_secs(30 * 60)).await;
    assert!((3..=4).contains(&told().len()), "{:?}", told());
    net.name(NAME, &["10.0.0.1"]);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(log.saying("a name is found again").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_changes_each_second_does_not_fill_the_log() {
    for nodes in [2, 0] {
        let (net, log) = (Net::default(), Log::start());
        let mut there = Vec::new();
        for last in 1..=nodes {
            there.push(node_at(&net, last).await);
        }
        net.name(NAME, &["10.0.0.1"]);
        let proxy = Proxy::launch(&net, &settings("[health]\ndns_interval = \"1s\"\n")).await;
        let mut before = 0;
        // A burst of changes has a line each. After that the lines are few.
        for most in [140, 70] {
            for second in 0..300 {
                net.name(NAME, &[["10.0.0.2", "10.0.0.1"][second % 2]]);
                sleep(Duration::from_secs(1)).await;
            }
            let lines = log.lines();
            assert!(lines.len() - before <= most, "{} lines with {nodes} nodes: {lines:#?}", lines.len() - before);
            before = lines.len();
        }
        assert!(log.saying("the addresses of a name have changed").len() >= 30);
        let summed_up = log.saying("names change too often for a line each");
        assert!(summed_up.len() >= 5, "{summed_up:?}");
        assert!(summed_up[0]["addresses"].as_str().unwrap().starts_with(&format!("{NAME}: 10.0.0.")), "{summed_up:?}");
        drop(proxy);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cordon_outlives_an_answer_without_the_address() {
    let net = Net::default();
    let _nodes = [node_at(&net, 1).await, node_at(&net, 2).await];
    net.name(NAME, &["10.0.0.1", "10.0.0.2"]);
    let proxy = Proxy::launch(&net, &settings("")).await;
    until_up(&proxy, &["geth-10.0.0.1", "geth-10.0.0.2"]).await;
    assert_eq!(proxy.operate("/nodes/geth-10.0.0.1/cordon").await.status, 200);
    let blinks = async || {
        net.name(NAME, &["10.0.0.2"]);
        sleep(Duration::from_secs(11)).await;
        until_up(&proxy, &["geth-10.0.0.2"]).await;
    };
    let is_back = async || {
        net.name(NAME, &["10.0.0.1", "10.0.0.2"]);
        sleep(Duration::from_secs(11)).await;
        until_up(&proxy, &["geth-10.0.0.2", "geth-10.0.0.1"]).await;
        proxy.node("geth-10.0.0.1").await["cordoned"] == true
    };
    // Pools come and go in the meantime.
    blinks().await;
    let more = settings("[health]\nfall = 4\n");
    proxy.reload(&more).await;
    assert!(is_back().await, "the node is in again");
    // A cordon can be lifted while the node is away.
    blinks().await;
    assert_eq!(proxy.operate("/nodes/geth-10.0.0.1/uncordon").await.status, 200);
    assert!(!is_back().await, "the node is still out");
}
