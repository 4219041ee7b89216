//! Polled filters: what becomes of a poll when its node goes, and what it costs when nothing happens.
#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{
    client::call,
    sim::{Net, Proxy},
    until,
};
use serde_json::Value;
use steadfast::devnet::{Devnet, Fault, Options};
use tokio::time::{Instant, sleep};

const POLL: &str = "eth_getFilterChanges";

/// How nodes are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Http,
    Link,
}

/// A primary and so many backups, and a proxy before them.
async fn network(backups: usize, way: Way) -> (Net, Devnet, Proxy) {
    let net = Net::default();
    let options = Options { execution: 1 + backups, consensus: 0, ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let nodes = devnet.nodes().enumerate().map(|(index, node)| {
        let tier = if index == 0 { "primary" } else { "backup" };
        let url = if way == Way::Http { node.http_url() } else { node.ws_url() };
        let key = if way == Way::Http { "http" } else { "ws" };
        format!("[[el.{tier}]]\nname = \"{}\"\n{key} = \"{url}\"\n", node.name())
    });
    let proxy = Proxy::launch(&net, &nodes.collect::<String>()).await;
    until("every node is up", async || proxy.verdicts().await.iter().all(|verdict| verdict == "up")).await;
    (net, devnet, proxy)
}

async fn ask(proxy: &Proxy, method: &str, params: &str) -> Value {
    proxy.post(call(1, method, params)).await.json()
}

/// A new filter, as its polls name it.
async fn filter(proxy: &Proxy) -> String {
    let answer = ask(proxy, "eth_newBlockFilter", "[]").await;
    assert!(answer["result"].is_string(), "{answer}");
    format!("[{}]", answer["result"])
}

fn is_not_found(answer: &Value) -> bool {
    answer["error"]["message"].as_str().is_some_and(|message| message.contains("filter not found"))
}

#[tokio::test(start_paused = true)]
async fn a_poll_whose_node_hangs_moves_to_another_which_tells_the_client_to_make_a_new_filter() {
    for way in [Way::Http, Way::Link] {
        let (_net, devnet, proxy) = network(1, way).await;
        let params = filter(&proxy).await;
        devnet.chain().mine(1);
        assert_eq!(ask(&proxy, POLL, &params).await["result"].as_array().unwrap().len(), 1);
        devnet.el(0).set_fault(Fault::Hang);
        let began = Instant::now();
        let answer = ask(&proxy, POLL, &params).await;
        assert!(is_not_found(&answer), "{way:?}: {answer}");
        assert!(began.elapsed() < Duration::from_secs(5), "{way:?}: {:?}", began.elapsed());
        let params = filter(&proxy).await;
        devnet.chain().mine(2);
        assert_eq!(ask(&proxy, POLL, &params).await["result"].as_array().unwrap().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_poll_took_is_not_passed_over_in_silence() {
    for way in [Way::Http, Way::Link] {
        for backups in [1, 0] {
            let (_net, devnet, proxy) = network(backups, way).await;
            let params = filter(&proxy).await;
            devnet.chain().mine(1);
            devnet.el(0).set_fault(Fault::cut_answer(&[POLL]));
            let began = Instant::now();
            let answer = ask(&proxy, POLL, &params).await;
            assert_eq!(devnet.el(0).count(POLL), 1, "{way:?}: the node has it once");
            if backups == 0 {
                assert_eq!(answer["error"]["data"]["reason"], "outcome_unknown", "{way:?}: {answer}");
            } else {
                assert!(is_not_found(&answer), "{way:?}: {answer}");
            }
            assert!(began.elapsed() < Duration::from_millis(100), "{way:?}: {:?}", began.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_filters_beside_polls_may_be_said_again() {
    let (_net, devnet, proxy) = network(1, Way::Http).await;
    let params = filter(&proxy).await;
    devnet.el(0).set_fault(Fault::cut_answer(&["eth_newBlockFilter", "eth_uninstallFilter"]));
    assert_eq!(ask(&proxy, "eth_uninstallFilter", &params).await["result"], false, "by the other node's word");
    filter(&proxy).await;
    devnet.el(0).clear_faults();
    // An error that the filter's own node gives goes back, and no other is asked of a filter that it cannot know.
    until("the node is back", async || proxy.side().await["active"] == "el-1").await;
    let params = filter(&proxy).await;
    devnet.el(0).set_fault(Fault::rpc_error(-32603, "internal error"));
    let polls = devnet.el(1).count(POLL);
    let answer = ask(&proxy, POLL, &params).await;
    assert_eq!((&answer["error"]["code"], devnet.el(1).count(POLL)), (&(-32603).into(), polls), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn polls_keep_their_connections() {
    let (net, devnet, proxy) = network(1, Way::Http).await;
    let params = filter(&proxy).await;
    let mut client = proxy.client().await;
    client.post(call(1, POLL, &params)).await;
    let dialled = net.dialled();
    let opened = devnet.el(0).connections_total();
    for id in 0..50 {
        let answer = client.post(call(id, POLL, &params)).await.json();
        assert!(answer["result"].is_array(), "{answer}");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(net.dialled() - dialled <= 5, "{} dials for 50 polls", net.dialled() - dialled);
    assert!(devnet.el(0).connections_total() - opened <= 2, "but for what probes open");
}
