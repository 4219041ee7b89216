//! `x-steadfast-node` in answers, and callers that pick the node that is asked. On a network of
//! memory under a simulated clock.

use std::time::Duration;

use serde_json::json;
use steadfast::devnet::{Devnet, Fault, Options};
use tokio::time::Instant;

use crate::common::{
    client::{Response, call},
    signed::transaction,
    sim::{Net, Proxy},
    until,
    ws::Ws,
};

const BALANCE: &str = r#"["0x0000000000000000000000000000000000000000","latest"]"#;
const ALLOWED: &str = "calls = { allow_picking = true }\n";

/// Two execution nodes, `geth` as a primary and `reth` as a backup, and two consensus nodes.
struct Scene {
    devnet: Devnet,
    proxy: Proxy,
}

impl Scene {
    async fn start(more: &str) -> Self {
        let net = Net::default();
        let options = Options { execution: 2, consensus: 2, ..Options::default() };
        let devnet = Devnet::start(options, std::sync::Arc::new(net.clone())).await.unwrap();
        let node = |kind: &str, name: &str, url: String| format!("[[{kind}]]\nname = \"{name}\"\nhttp = \"{url}\"\n");
        let settings = [
            more.to_owned(),
            node("el.primary", "geth", devnet.el(0).http_url()),
            node("el.backup", "reth", devnet.el(1).http_url()),
            node("cl.primary", "lighthouse", devnet.cl(0).http_url()),
            node("cl.primary", "teku", devnet.cl(1).http_url()),
        ];
        let proxy = Proxy::launch(&net, &settings.concat()).await;
        until("all are up", async || proxy.verdicts().await.iter().all(|verdict| verdict == "up")).await;
        Self { devnet, proxy }
    }

    async fn send(&self, path: &str, headers: &str, body: &str) -> Response {
        let mut client = self.proxy.client().await;
        let length = body.len();
        client
            .send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}content-length: {length}\r\n\r\n{body}"))
            .await;
        client.response().await
    }

    /// A read of a balance, with these headers.
    async fn ask(&self, path: &str, headers: &str) -> Response {
        self.send(path, headers, &call(1, "eth_getBalance", BALANCE)).await
    }

    async fn get(&self, path: &str, headers: &str) -> Response {
        let mut client = self.proxy.client().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await;
        client.response().await
    }
}

fn giver(response: &Response) -> Option<&str> {
    assert!(response.headers.iter().filter(|(name, _)| name == "x-steadfast-node").count() <= 1);
    response.header("x-steadfast-node")
}

#[tokio::test(start_paused = true)]
async fn an_answer_names_its_node_unless_the_operator_hides_it() {
    let scene = Scene::start("").await;
    assert_eq!(giver(&scene.ask("/", "").await), Some("geth"));
    // By way of hyper, and with an error of the node's.
    assert_eq!(giver(&scene.ask("/", "transfer-encoding: gzip\r\n").await), None, "a refusal");
    let error = scene.send("/", "origin: http://localhost\r\n", &call(1, "eth_getBalance", "[1]")).await;
    assert!(error.json()["error"].is_object() || error.status == 403, "{error:?}");
    let error = scene.send("/", "", &call(1, "eth_getBalance", "[1]")).await;
    assert!(error.json()["error"].is_object(), "{error:?}");
    assert_eq!(giver(&error), Some("geth"));
    // The proxy's own words, and those of many nodes.
    assert_eq!(giver(&scene.send("/", "", &call(1, "admin_peers", "[]")).await), None);
    let batch = format!("[{}]", call(1, "eth_getBalance", BALANCE));
    assert_eq!(giver(&scene.send("/", "", &batch).await), None);
    assert_eq!(giver(&scene.get("/eth/v1/beacon/headers/head", "").await), Some("lighthouse"));
    // A switch.
    scene.devnet.el(0).set_fault(Fault::Down);
    assert_eq!(giver(&scene.ask("/", "").await), Some("reth"));
    scene.devnet.cl(0).set_fault(Fault::Down);
    assert_eq!(giver(&scene.get("/eth/v1/beacon/headers/head", "").await), Some("teku"));

    let hidden = Scene::start("calls = { name_nodes = false }\n").await;
    assert_eq!(giver(&hidden.ask("/", "").await), None);
    assert_eq!(giver(&hidden.get("/eth/v1/beacon/headers/head", "").await), None);
}

#[tokio::test(start_paused = true)]
async fn a_caller_picks_a_node_by_header_or_path() {
    let scene = Scene::start(ALLOWED).await;
    for (path, headers, node) in [
        ("/", "x-steadfast-node: reth\r\n", "reth"),
        ("/", "X-Steadfast-Node: geth\r\n", "geth"),
        ("/", "x-steadfast-tier: backup\r\n", "reth"),
        ("/", "x-steadfast-tier: primary\r\n", "geth"),
        ("/", "x-steadfast-tier: backup\r\nx-steadfast-node: reth\r\n", "reth"),
        ("/node/reth", "", "reth"),
        ("/node/reth/", "", "reth"),
        ("/node/geth", "x-steadfast-node: reth\r\n", "geth"),
    ] {
        let response = scene.ask(path, headers).await;
        assert!(response.json()["result"].is_string(), "{path} {headers}: {response:?}");
        assert_eq!(giver(&response), Some(node), "{path} {headers}");
    }
    // What the proxy could answer by itself is asked of the node too, and so is each call of a batch.
    let before = scene.devnet.el(1).count("eth_chainId");
    let response = scene.send("/node/reth", "", &call(1, "eth_chainId", "[]")).await;
    assert_eq!((giver(&response), scene.devnet.el(1).count("eth_chainId")), (Some("reth"), before + 1));
    let before = scene.devnet.el(1).count("eth_getBalance");
    let batch = format!("[{0},{0}]", call(1, "eth_getBalance", BALANCE));
    scene.send("/node/reth", "", &batch).await;
    assert_eq!(scene.devnet.el(1).count("eth_getBalance"), before + 2);
    for (path, headers) in [
        ("/eth/v1/beacon/headers/head", "x-steadfast-node: teku\r\n"),
        ("/node/teku/eth/v1/beacon/headers/head", ""),
        ("/node/teku/eth/v1/node/version", ""),
    ] {
        let response = scene.get(path, headers).await;
        assert_eq!((response.status, giver(&response)), (200, Some("teku")), "{path} {headers}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_websocket_keeps_the_pick_of_its_opening() {
    let scene = Scene::start(ALLOWED).await;
    let mut ws = Ws::open(scene.proxy.client().await.io, "/node/reth/ws").await;
    let before = scene.devnet.el(1).count("eth_getBalance");
    for _ in 0..3 {
        let answer = ws.call("eth_getBalance", BALANCE).await;
        assert!(answer["result"].is_string() || answer.is_string(), "{answer}");
    }
    assert_eq!(scene.devnet.el(1).count("eth_getBalance"), before + 3);
}

#[tokio::test(start_paused = true)]
async fn a_pick_goes_to_no_other_node() {
    let scene = Scene::start(ALLOWED).await;
    for (headers, words) in [
        ("x-steadfast-node: besu\r\n", "there is no node \"besu\""),
        ("x-steadfast-tier: third\r\n", "x-steadfast-tier must be primary or backup, not \"third\""),
        ("x-steadfast-tier: primary\r\nx-steadfast-node: reth\r\n", "the node \"reth\" is a backup"),
    ] {
        let response = scene.ask("/", headers).await;
        let error = response.json()["error"].take();
        assert_eq!(
            (response.status, &error["code"], &error["data"]["reason"]),
            (400, &json!(-32602), &json!("no_such_node"))
        );
        assert!(error["message"].as_str().unwrap().starts_with(words), "{error}");
    }
    let response = scene.get("/node/besu/eth/v1/node/version", "").await;
    assert_eq!((response.status, &response.json()["message"]), (400, &json!("there is no node \"besu\"")));
    // It waits for the node, and is refused then.
    scene.devnet.el(1).set_fault(Fault::Down);
    until("the backup is out", async || scene.proxy.verdicts().await[1] != "up").await;
    let (began, before) = (Instant::now(), scene.devnet.el(0).count("eth_getBalance"));
    let response = scene.ask("/node/reth", "").await;
    assert_eq!((response.status, response.header("retry-after")), (503, Some("1")), "{response:?}");
    assert!(began.elapsed() >= Duration::from_secs(10), "the hold time is for such calls too");
    assert_eq!(scene.devnet.el(0).count("eth_getBalance"), before);
    let waiting = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        scene.devnet.el(1).clear_faults();
    };
    let (response, ()) = tokio::join!(scene.ask("/node/reth", ""), waiting);
    assert_eq!(giver(&response), Some("reth"), "{response:?}");
}

#[tokio::test(start_paused = true)]
async fn neither_second_attempts_nor_transactions_leave_the_pick() {
    let scene = Scene::start(ALLOWED).await;
    let before = scene.devnet.el(0).count("eth_getBalance");
    // After 20 of 30 seconds another node would be asked beside.
    scene.devnet.el(1).set_fault(Fault::slow_over(25_000, &["eth_getBalance"]));
    let response = scene.ask("/node/reth", "").await;
    assert_eq!((giver(&response), scene.devnet.el(0).count("eth_getBalance")), (Some("reth"), before), "{response:?}");
    assert!(scene.ask("/", "x-steadfast-tier: primary\r\n").await.json()["result"].is_string());
    let (raw, hash) = transaction(Options::default().chain_id, 3, 0, 1);
    let send = call(1, "eth_sendRawTransaction", &format!("[\"{raw}\"]"));
    let response = scene.send("/node/reth", "", &send).await;
    assert_eq!((response.json()["result"].as_str(), giver(&response)), (Some(&*hash.to_string()), Some("reth")));
    let sends = [0, 1].map(|node| scene.devnet.el(node).count("eth_sendRawTransaction"));
    assert_eq!(sends, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn picks_mean_nothing_unless_allowed() {
    let scene = Scene::start("").await;
    assert_eq!(giver(&scene.ask("/", "x-steadfast-node: reth\r\n").await), Some("geth"));
    assert_eq!(giver(&scene.ask("/", "x-steadfast-node: besu\r\n").await), Some("geth"));
    assert_eq!(scene.ask("/node/reth", "").await.status, 404);
    assert_eq!(scene.get("/node/teku/eth/v1/node/version", "").await.status, 404);
}
