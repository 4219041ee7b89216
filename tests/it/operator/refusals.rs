//! Which reason a call is given that no node answered: the true one.

use std::{sync::Arc, time::Duration};

use steadfast::devnet::{Devnet, Fault, Options};
use tokio::{io::AsyncWriteExt, time::sleep};

use super::answer;
use crate::common::{
    client::{Response, call, post},
    origin::{Origin, Reply, ok},
    proxy::nodes,
    sim::{Net, Proxy},
    until,
};

/// So that the call is held for a moment only.
const HASTY: &str = "[calls]\nhold = \"1s\"\ntimeout = \"5s\"\n";

async fn devnet(net: &Net, consensus: usize) -> Devnet {
    Devnet::start(Options { consensus, ..Options::default() }, Arc::new(net.clone())).await.unwrap()
}

/// The reason that a call gets when no node answers it.
async fn reason(proxy: &Proxy) -> String {
    let refused: Response = proxy.post(call(1, "eth_gasPrice", "[]")).await;
    let error = refused.json()["error"].take();
    assert_eq!((refused.status, &error["code"]), (503, &(-32002).into()), "{error}");
    assert!(refused.header("retry-after").is_some());
    error["data"]["reason"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn no_node_is_said_where_there_is_none() {
    let net = Net::default();
    let devnet = devnet(&net, 0).await;
    let settings = format!("{HASTY}{}", nodes([&*devnet.el(0).http_url(), &*devnet.el(1).http_url()]));
    let proxy = Proxy::launch(&net, &settings).await;
    until("both are up", async || proxy.verdicts().await == ["up", "up"]).await;
    devnet.nodes().for_each(|node| node.set_fault(Fault::Down));
    until("both are down", async || proxy.verdicts().await == ["down", "down"]).await;
    assert_eq!(reason(&proxy).await, "no_node");
    assert!((proxy.metric("steadfast_calls_total", "outcome=\"no_node\"").await - 1.0).abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn nodes_of_another_chain_are_named_as_the_reason() {
    let net = Net::default();
    let devnet = devnet(&net, 0).await;
    let settings = format!("chain_id = 1\n{HASTY}{}", nodes([&*devnet.el(0).http_url(), &*devnet.el(1).http_url()]));
    let proxy = Proxy::launch(&net, &settings).await;
    until("both are found out", async || proxy.verdicts().await == ["wrong_chain", "wrong_chain"]).await;
    assert_eq!(reason(&proxy).await, "other_chain");
    // A second node that is down changes nothing, and a node that is all there is does.
    devnet.el(0).set_fault(Fault::Down);
    until("one is down", async || proxy.verdicts().await == ["down", "wrong_chain"]).await;
    assert_eq!(reason(&proxy).await, "other_chain");
    devnet.el(1).set_fault(Fault::Down);
    until("both are down", async || proxy.verdicts().await == ["down", "down"]).await;
    assert_eq!(reason(&proxy).await, "no_node");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_well_and_fail_a_call_are_not_called_absent() {
    let net = Net::default();
    // The node breaks off at this call, and passes its probes.
    let origin = Origin::within(&net, |_| Reply::Last(Vec::new())).await;
    let proxy = Proxy::over(&net, [origin.url()], HASTY).await;
    assert_eq!(reason(&proxy).await, "attempts_failed");
    assert_eq!(proxy.verdicts().await, ["up"]);
    assert!((proxy.metric("steadfast_calls_total", "outcome=\"attempts_failed\"").await - 1.0).abs() < 0.1);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_take_no_more_connections_are_said_to_be_full() {
    let net = Net::default();
    // Each has one place for calls, and answers none.
    let [one, two] = [super::stuck(&net).await, super::stuck(&net).await];
    let node =
        |name: &str, url: &str| format!("[[el.primary]]\nname = \"{name}\"\nhttp = \"{url}\"\nmax_connections = 3\n");
    let settings = [HASTY, &node("el-1", one.url()), &node("el-2", two.url())].concat();
    let proxy = Arc::new(Proxy::launch(&net, &settings).await);
    until("both are up", async || proxy.verdicts().await == ["up", "up"]).await;
    let mut busy = tokio::task::JoinSet::new();
    for id in 0..8 {
        let proxy = proxy.clone();
        busy.spawn(async move { proxy.post(call(id, "eth_gasPrice", "[]")).await.json() });
    }
    let answers = busy.join_all().await;
    let reasons: Vec<_> = answers.iter().filter_map(|answer| answer["error"]["data"]["reason"].as_str()).collect();
    assert!(reasons.contains(&"nodes_full"), "{answers:?}");
    assert!(!reasons.contains(&"no_node"), "{answers:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_to_consensus_nodes_are_told_the_reason_too() {
    let net = Net::default();
    let devnet = devnet(&net, 1).await;
    let settings = format!("{HASTY}[[cl.primary]]\nname = \"cl-1\"\nhttp = \"{}\"\n", devnet.cl(0).http_url());
    let proxy = Proxy::launch(&net, &settings).await;
    let told = async || {
        let mut client = proxy.client().await;
        client.send("GET /eth/v1/beacon/headers/head HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        client.response().await
    };
    until("it serves", async || told().await.status == 200).await;
    assert_eq!(proxy.operate("/nodes/cl-1/cordon").await.status, 200);
    let refused = told().await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("the operator has taken out those that could"), "{}", refused.text());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_client_left_is_no_fault_of_a_full_node() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| {
        let answer = ok(answer(seen.id(), "1"));
        Reply::act(async move |mut io| {
            sleep(Duration::from_millis(1500)).await;
            io.write_all(&answer).await.ok()?;
            Some(io)
        })
    })
    .await;
    // Few places for calls, which slow ones have.
    let node = format!("[[el.primary]]\nname = \"el-1\"\nhttp = \"{}\"\nmax_connections = 3\n", origin.url());
    let proxy = Arc::new(Proxy::launch(&net, &node).await);
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let counts = async || {
        let of = async |outcome| proxy.metric("steadfast_attempts_total", &format!("outcome=\"{outcome}\"")).await;
        [of("abandoned").await, of("unreachable").await]
    };
    let before = counts().await;
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let proxy = proxy.clone();
        slow.spawn(async move { proxy.post(call(1, "eth_gasPrice", "[]")).await.json() });
    }
    sleep(Duration::from_millis(100)).await;
    let mut leaves = proxy.client().await;
    leaves.send(post("/", call(2, "eth_sendTransaction", "[{}]").as_bytes())).await;
    leaves.io.shutdown().await.unwrap();
    let told = leaves.response().await.json();
    assert_eq!(told["error"]["data"]["reason"], "attempts_failed", "{told}");
    assert_eq!(origin.count("eth_sendTransaction"), 0, "it was sent for a client that had left");
    assert_eq!(counts().await, [before[0] + 1.0, before[1]]);
    assert!(slow.join_all().await.iter().all(|answer| answer["result"] == 1));
    assert_eq!(proxy.verdicts().await, ["up"]);
}
