//! The health that load balancers and orchestrators are told.

use serde_json::Value;
use std::sync::Arc;
use steadfast::devnet::{Devnet, Fault, Options};

use super::answer;
use crate::common::{
    client::{Response, call},
    sim::{Net, Proxy},
    until,
};

async fn net_of(execution: usize, consensus: usize) -> (Net, Devnet) {
    let net = Net::default();
    let devnet = Devnet::start(Options { execution, consensus, ..Options::default() }, Arc::new(net.clone())).await;
    (net, devnet.unwrap())
}

/// The client port's answer.
async fn get(proxy: &Proxy, path: &str) -> Response {
    let mut client = proxy.client().await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
    client.response().await
}

async fn status(proxy: &Proxy, path: &str) -> u16 {
    get(proxy, path).await.status
}

/// Two networks: `default` with both sides, `base` with an execution side.
fn settings(devnet: &Devnet, more: &str) -> String {
    let [one, two, cl] = [devnet.el(0), devnet.el(1), devnet.cl(0)].map(|node| node.http_url());
    format!(
        "{more}[[el.primary]]\nname = \"geth-of-alice\"\nhttp = \"{one}\"\n[[cl.primary]]\nname = \"lighthouse-of-bob\"\nhttp = \"{cl}\"\n\
         [[networks.base.el.primary]]\nname = \"op-geth\"\nhttp = \"{two}\"\n"
    )
}

#[tokio::test(start_paused = true)]
async fn a_side_that_is_down_leaves_the_rest_in_rotation() {
    let (net, devnet) = net_of(2, 1).await;
    let proxy = Proxy::launch(&net, &settings(&devnet, "")).await;
    for path in ["/health", "/health/default?layer=cl", "/health/base", "/health?layer=el"] {
        until(path, async || status(&proxy, path).await == 200).await;
    }
    devnet.cl(0).set_fault(Fault::Down);
    until("the side is down", async || status(&proxy, "/health/default?layer=cl").await == 503).await;
    for (path, expected) in [
        ("/health", 200),
        ("/health/", 200),
        ("/health/default", 200),
        ("/health/default?layer=el", 200),
        ("/health/base", 200),
        ("/health/base?layer=el", 200),
        ("/health?layer=el", 200),
        ("/health?layer=cl", 503),
        ("/health/base?layer=cl", 404),
        ("/health/unknown", 404),
        ("/health/default?layer=x", 400),
        ("/health?layer=el&layer=cl", 400),
    ] {
        assert_eq!(status(&proxy, path).await, expected, "{path}");
        let ready = path.replacen("health", "readyz", 1);
        assert_eq!(proxy.admin(&ready).await.status, expected, "{ready}");
    }
    proxy.reload(&settings(&devnet, "health.ready = \"all\"\n")).await;
    for (path, expected) in
        [("/health", 503), ("/health/default", 503), ("/health/base", 200), ("/health?layer=el", 200)]
    {
        assert_eq!(status(&proxy, path).await, expected, "{path}, when all sides are wanted");
    }
    devnet.cl(0).clear_faults();
    until("all is well again", async || status(&proxy, "/health").await == 200).await;
}

#[tokio::test(start_paused = true)]
async fn the_body_says_why_and_names_nodes_to_the_operator_only() {
    let (net, devnet) = net_of(2, 1).await;
    let proxy = Proxy::launch(&net, &settings(&devnet, "health.ready = \"all\"\n")).await;
    until("all is well", async || status(&proxy, "/health").await == 200).await;
    assert_eq!(get(&proxy, "/health").await.json()["why"], Value::Null);
    devnet.cl(0).set_fault(Fault::Down);
    until("the side is down", async || status(&proxy, "/health").await == 503).await;
    let told = get(&proxy, "/health").await;
    let body = told.json();
    assert_eq!((&body["ready"], &body["why"]), (&false.into(), &"no node can serve: default cl".into()), "{body}");
    let sides = &body["networks"]["default"];
    assert_eq!((&sides["el"]["serves"], &sides["el"]["nodes"]), (&true.into(), &serde_json::json!(["up"])), "{body}");
    assert_eq!(sides["cl"]["nodes"], serde_json::json!(["down: unreachable"]), "{body}");
    for name in ["alice", "bob", "op-geth", "127.0.0.1"] {
        assert!(!told.text().contains(name), "{}", told.text());
    }
    let body = proxy.admin("/readyz").await.json();
    assert_eq!(body["networks"]["default"]["cl"]["nodes"]["lighthouse-of-bob"], "down: unreachable", "{body}");
    // A question about one network is answered for that network alone.
    let body = get(&proxy, "/health/base").await.json();
    assert_eq!(body["networks"].as_object().unwrap().len(), 1, "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_drains_serves_and_lives_and_is_not_ready() {
    let (net, devnet) = net_of(2, 1).await;
    let proxy = Proxy::launch(&net, &settings(&devnet, "")).await;
    until("it is ready", async || status(&proxy, "/health/default?layer=el").await == 200).await;
    let all = ["/health", "/health/default", "/health/base?layer=el"];
    assert_eq!(proxy.operate("/drain").await.status, 200);
    for path in all {
        let told = get(&proxy, path).await;
        assert_eq!((told.status, &told.json()["why"]), (503, &"the operator drains the proxy".into()), "{path}");
    }
    assert_eq!(proxy.admin("/readyz").await.status, 503);
    assert_eq!(proxy.admin("/livez").await.status, 200);
    assert_eq!(proxy.post(call(1, "eth_chainId", "[]")).await.text(), answer(1, "\"0x539\""));
    assert_eq!(proxy.operate("/undrain").await.status, 200);
    for path in all {
        assert_eq!(status(&proxy, path).await, 200, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_all_down_are_no_reason_to_restart_the_process() {
    let (net, devnet) = net_of(2, 1).await;
    let proxy = Proxy::launch(&net, &settings(&devnet, "")).await;
    until("it is ready", async || status(&proxy, "/health").await == 200).await;
    devnet.nodes().for_each(|node| node.set_fault(Fault::Down));
    until("nothing serves", async || status(&proxy, "/health").await == 503).await;
    assert_eq!(proxy.admin("/livez").await.status, 200);
}
