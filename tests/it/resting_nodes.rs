//! Nodes that refuse calls for quota: they rest, are not hammered, and are back soon. On a network
//! of memory under a simulated clock.

use std::{sync::Arc, time::Duration};

use crate::common::{
    client::{Response, call},
    origin::{Origin, Reply, chain, response},
    proxy, rest,
    sim::{Net, Proxy},
    until,
};
use serde_json::Value;
use steadfast::devnet::{Devnet, Fault, Node, Options};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Both sides of a network, with two nodes each, and a proxy before them.
struct Scene {
    devnet: Devnet,
    proxy: Proxy,
}

impl Scene {
    async fn start(settings: &str) -> Self {
        let net = Net::default();
        let options = Options { execution: 2, consensus: 2, ..Options::default() };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let url = |node: &Arc<Node>| node.http_url();
        let el: Vec<String> = [devnet.el(0), devnet.el(1)].map(url).into();
        let cl: Vec<String> = [devnet.cl(0), devnet.cl(1)].map(url).into();
        let nodes = proxy::nodes(el.iter().map(String::as_str)) + &rest::nodes(&cl);
        let proxy = Proxy::launch(&net, &(settings.to_owned() + &nodes)).await;
        let scene = Self { devnet, proxy };
        for side in ["el", "cl"] {
            until("all are up", async || scene.verdicts(side).await == ["up", "up"]).await;
        }
        scene
    }

    async fn side(&self, side: &str) -> Value {
        self.proxy.admin("/status").await.json()["networks"][0][side].take()
    }

    async fn verdicts(&self, side: &str) -> Vec<String> {
        let side = self.side(side).await;
        let nodes = side["nodes"].as_array().unwrap().iter();
        nodes.map(|node| node["verdict"].as_str().unwrap().to_owned()).collect()
    }

    fn node(&self, side: &str, index: usize) -> &Arc<Node> {
        if side == "el" { self.devnet.el(index) } else { self.devnet.cl(index) }
    }

    /// Asks for something of this kind, 0 to 3.
    async fn ask(&self, side: &str, kind: usize) -> Response {
        let mut client = self.proxy.client().await;
        if side == "el" {
            return client.post(call(kind, EL[kind].0, EL[kind].1)).await;
        }
        client.send(rest::request("GET", CL[kind], "", "")).await;
        client.response().await
    }

    /// How often a node was asked for that.
    fn count(&self, side: &str, index: usize, kind: usize) -> u64 {
        let name = if side == "el" { EL[kind].0.to_owned() } else { format!("GET {}", CL[kind]) };
        self.node(side, index).count(&name)
    }
}

const ADDRESS: &str = r#"["0x0000000000000000000000000000000000000000","latest"]"#;
const EL: [(&str, &str); 4] =
    [("eth_gasPrice", "[]"), ("eth_getBalance", ADDRESS), ("eth_getCode", ADDRESS), ("eth_accounts", "[]")];
/// Of four groups.
const CL: [&str; 4] = [
    "/eth/v1/beacon/states/head/finality_checkpoints",
    "/eth/v1/beacon/blocks/head/root",
    "/eth/v1/node/version",
    "/eth/v2/debug/beacon/states/head",
];

/// A fault by which calls of these kinds are refused for quota.
fn quota(side: &str, kinds: &[usize]) -> Fault {
    let names: Vec<String> = kinds
        .iter()
        .map(|&kind| if side == "el" { EL[kind].0.to_owned() } else { format!("GET {}", CL[kind]) })
        .collect();
    Fault::quota(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

const SIDES: [&str; 2] = ["el", "cl"];

#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_probes_rests_for_as_long_as_it_asks() {
    for side in SIDES {
        let scene = Scene::start("").await;
        let node = scene.node(side, 0);
        node.set_fault(Fault::rate_limited(20));
        until("it rests", async || scene.verdicts(side).await == ["resting", "up"]).await;
        let start = Instant::now();
        node.clear_records();
        while start.elapsed() < Duration::from_secs(18) {
            assert_eq!(scene.ask(side, 0).await.status, 200);
            assert_eq!(scene.verdicts(side).await, ["resting", "up"]);
            sleep(Duration::from_millis(500)).await;
        }
        assert_eq!(node.counts().values().sum::<u64>(), 0, "{side}: {:?}", node.counts());
        let metric = scene.proxy.metric("steadfast_node_verdict", r#"verdict="resting""#).await;
        assert!((metric - 1.0).abs() < 0.1, "{metric}");
        node.clear_faults();
        until("it is up", async || scene.verdicts(side).await == ["up", "up"]).await;
        assert!(start.elapsed() < Duration::from_secs(22), "{side}: {:?}", start.elapsed());
        scene.ask(side, 0).await;
        assert_eq!(scene.count(side, 0, 0), 1, "{side}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_method_that_is_refused_moves_no_other_calls() {
    for side in SIDES {
        let scene = Scene::start("").await;
        scene.node(side, 0).set_fault(quota(side, &[0]));
        for _ in 0..40 {
            for kind in 0..2 {
                assert_eq!(scene.ask(side, kind).await.status, 200, "{side}");
            }
            assert_eq!(scene.verdicts(side).await, ["up", "up"], "{side}");
            sleep(Duration::from_millis(500)).await;
        }
        // At the start, and after 1, 2, 4, and 8 s: it is a scout each time.
        let refused = scene.count(side, 0, 0);
        assert!((4..=5).contains(&refused), "{side}: asked {refused} times");
        assert_eq!((scene.count(side, 0, 1), scene.count(side, 1, 1)), (40, 0), "{side}");
        let status = scene.side(side).await["nodes"][0]["resting"].take();
        let kind = if side == "el" { "eth_gasPrice" } else { "states" };
        assert_eq!(status, serde_json::json!({ "seconds": null, "methods": [kind] }), "{side}");
        scene.node(side, 0).clear_faults();
        sleep(Duration::from_secs(16)).await;
        let before = scene.count(side, 1, 0);
        for _ in 0..10 {
            scene.ask(side, 0).await;
        }
        assert_eq!(scene.count(side, 1, 0), before, "{side}: it is not back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_all_calls_gets_one_scout_at_a_time() {
    for side in SIDES {
        let scene = Scene::start("").await;
        let node = scene.node(side, 0);
        node.set_fault(quota(side, &[0, 1, 2, 3]));
        scene.ask(side, 0).await;
        scene.ask(side, 1).await;
        until("it rests", async || scene.verdicts(side).await == ["resting", "up"]).await;
        let error = scene.side(side).await["nodes"][0]["last_error"]["message"].take();
        assert_eq!(error, "calls were refused for quota");
        assert_eq!(scene.side(side).await["active"], format!("{side}-2"));
        for _ in 0..300 {
            // At the same time, so that more than one could be a scout.
            let [one, two, three, four] = [0, 1, 2, 3].map(|kind| scene.ask(side, kind));
            let answers = <[Response; 4]>::from(tokio::join!(one, two, three, four));
            assert!(answers.iter().all(|answer| answer.status == 200), "{side}");
            sleep(Duration::from_millis(100)).await;
        }
        let asked: u64 = (0..4).map(|kind| scene.count(side, 0, kind)).sum();
        assert!((6..=8).contains(&asked), "{side}: asked {asked} times in 30 s");
        node.clear_faults();
        let start = Instant::now();
        while scene.verdicts(side).await != ["up", "up"] {
            scene.ask(side, 2).await;
            sleep(Duration::from_millis(100)).await;
            assert!(start.elapsed() < Duration::from_secs(33), "{side}: it stays away");
        }
        sleep(Duration::from_secs(3)).await;
        assert_eq!(scene.side(side).await["active"], format!("{side}-1"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rest_that_nobody_puts_to_the_test_ends() {
    let scene = Scene::start("").await;
    scene.node("el", 0).set_fault(quota("el", &[0, 1]));
    scene.ask("el", 0).await;
    scene.ask("el", 1).await;
    until("it rests", async || scene.verdicts("el").await == ["resting", "up"]).await;
    sleep(Duration::from_secs(65)).await;
    assert_eq!(scene.verdicts("el").await, ["up", "up"]);
}

/// Two nodes whose probes are well, and which answer all else with these bytes.
async fn refusing(answer: Vec<u8>) -> ([Origin; 2], JoinSet<()>, Arc<Proxy>) {
    let net = Net::default();
    let (one, two) = (answer.clone(), answer);
    let origins = [
        Origin::within(&net, move |_| Reply::Bytes(one.clone())).await,
        Origin::within(&net, move |_| Reply::Bytes(two.clone())).await,
    ];
    let chain = chain(&origins);
    let proxy = Proxy::over(&net, origins.iter().map(Origin::url), "").await;
    (origins, chain, Arc::new(proxy))
}

#[tokio::test(start_paused = true)]
async fn when_all_nodes_rest_their_answer_goes_back_with_a_time() {
    // Without an id, so that it is the answer to whatever was asked.
    let quota = r#"{"jsonrpc":"2.0","error":{"code":-32005,"message":"daily request count exceeded"}}"#;
    for (status, body, expected) in [
        ("429 Too Many Requests", quota, (429, -32005)),
        ("429 Too Many Requests", "Too Many Requests", (429, -32005)),
        ("503 Service Unavailable", "busy", (429, -32005)),
    ] {
        let bytes = response(status, "retry-after: 30\r\n", body);
        let (origins, _chain, proxy) = refusing(bytes).await;
        let asked = Instant::now();
        for seconds in [30, 30, 29, 28] {
            let answer = proxy.post(call(1, "eth_call", "[]")).await;
            assert_eq!((answer.status, answer.json()["error"]["code"].as_i64().unwrap()), expected, "{body}");
            // The first one is the node's.
            let is_first = asked.elapsed() < Duration::from_millis(500);
            assert_eq!(answer.text().contains("daily request"), is_first && body == quota, "{}", answer.text());
            let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!(after.abs_diff(seconds) <= 1, "{body}: {after}");
            sleep(Duration::from_secs(1)).await;
        }
        assert!(asked.elapsed() < Duration::from_secs(6), "{body}: it waited for nothing");
        assert_eq!(origins.each_ref().map(|origin| origin.count("eth_call")), [1, 1], "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_a_short_rest_and_are_answered() {
    for side in SIDES {
        let scene = Arc::new(Scene::start("").await);
        for node in 0..2 {
            scene.node(side, node).set_fault(quota(side, &[0]));
        }
        let mut calls = JoinSet::new();
        for _ in 0..20 {
            let scene = scene.clone();
            calls.spawn(async move { scene.ask(side, 0).await });
        }
        sleep(Duration::from_millis(500)).await;
        for node in 0..2 {
            scene.node(side, node).clear_faults();
        }
        while let Some(answer) = calls.join_next().await {
            let answer = answer.unwrap();
            assert_eq!((answer.status, answer.json().get("error")), (200, None), "{side}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_refusal_makes_a_storm() {
    let page = "<html>no</html>";
    for (what, bytes, most) in [
        ("429", response("429 Too Many Requests", "", "error code: 1015"), 16),
        ("429 in JSON", response("429 Too Many Requests", "", r#"{"message":"Too many requests"}"#), 16),
        ("quota in plain words", response("200 OK", "", r#"{"error":"rate limit exceeded"}"#), 16),
        ("503", response("503 Service Unavailable", "", page), 20),
        ("500", response("500 Oops", "", page), 20),
        ("nothing", response("200 OK", "", ""), 20),
        ("401", response("401 Unauthorized", "", page), 2),
        ("403", response("403 Forbidden", "", page), 2),
        ("404", response("404 Not Found", "", page), 2),
        ("407", response("407 Proxy Authentication Required", "", page), 2),
        ("302", response("302 Found", "location: http://elsewhere/\r\n", page), 2),
    ] {
        let (origins, _chain, proxy) = refusing(bytes).await;
        let count = || origins.iter().map(|origin| origin.count("eth_call")).sum::<usize>();
        let answer = proxy.post(call(1, "eth_call", "[]")).await;
        assert_ne!(answer.status, 200, "{what}");
        assert!(count() <= most, "{what}: one call made {} requests", count());
        let before = count();
        let mut calls = JoinSet::new();
        for id in 0..20 {
            let proxy = proxy.clone();
            calls.spawn(async move { proxy.post(call(id, "eth_call", "[]")).await });
        }
        calls.join_all().await;
        let all = count() - before;
        // Each may try every node once; all that comes after that they share.
        assert!(all <= 20 * 2 + most, "{what}: 20 calls at once made {all} requests");
        assert_eq!(proxy.verdicts().await.iter().filter(|verdict| *verdict == "down").count(), 0, "{what}");
    }
}

/// A node that takes its time over `eth_call`, and one that does `other` with it. Both answer
/// probes.
async fn slow_and(
    net: &Net,
    seconds: u64,
    other: impl Fn(&crate::common::origin::Seen) -> Reply + Send + Sync + 'static,
) -> ([Origin; 2], JoinSet<()>, Arc<Proxy>) {
    let begun = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let slow = Origin::within(net, move |seen| {
        if !begun.swap(true, std::sync::atomic::Ordering::SeqCst) && seen.params() == r#"["first"]"# {
            return Reply::error(seen, -32000, "missing trie node 12ab");
        }
        let body = crate::common::origin::ok(format!(r#"{{"jsonrpc":"2.0","id":{},"result":"slow"}}"#, seen.id()));
        Reply::act(async move |mut io| {
            sleep(Duration::from_secs(seconds)).await;
            tokio::io::AsyncWriteExt::write_all(&mut io, &body).await.ok()?;
            Some(io)
        })
    });
    let origins = [slow.await, Origin::within(net, other).await];
    let chain = chain(&origins);
    let proxy = Proxy::over(net, origins.iter().map(Origin::url), "").await;
    (origins, chain, Arc::new(proxy))
}

#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_a_second_attempt_rests() {
    let net = Net::default();
    let refusal = response("429 Too Many Requests", "retry-after: 30\r\n", "");
    let (origins, _chain, proxy) = slow_and(&net, 25, move |_| Reply::Bytes(refusal.clone())).await;
    let text = proxy.post(call(1, "eth_call", "[]")).await.text();
    assert_eq!(text, r#"{"jsonrpc":"2.0","id":1,"result":"slow"}"#);
    assert_eq!(origins[1].count("eth_call"), 1, "the second attempt");
    let resting = proxy.side().await["nodes"][1]["resting"].take();
    assert_eq!(resting["methods"], serde_json::json!(["eth_call"]), "{resting}");
}

#[tokio::test(start_paused = true)]
async fn second_attempts_go_to_a_rested_node_as_one_scout_at_a_time() {
    let net = Net::default();
    let refused = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (origins, _chain, proxy) = slow_and(&net, 60, move |seen| {
        if !refused.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return Reply::Bytes(response("429 Too Many Requests", "retry-after: 5\r\n", ""));
        }
        let body = crate::common::origin::ok(format!(r#"{{"jsonrpc":"2.0","id":{},"result":"other"}}"#, seen.id()));
        Reply::act(async move |mut io| {
            sleep(Duration::from_secs(2)).await;
            tokio::io::AsyncWriteExt::write_all(&mut io, &body).await.ok()?;
            Some(io)
        })
    })
    .await;
    // The first node fails it, and the other refuses it.
    proxy.post(call(1, "eth_call", r#"["first"]"#)).await;
    assert_eq!(origins.each_ref().map(|origin| origin.count("eth_call")), [1, 1]);
    let mut calls = JoinSet::new();
    for id in 0..5 {
        let proxy = proxy.clone();
        calls.spawn(async move { proxy.post(call(id, "eth_call", "[]")).await.text() });
    }
    sleep(Duration::from_millis(21_500)).await;
    assert_eq!(origins.each_ref().map(|origin| origin.count("eth_call")), [6, 2], "one scout");
    while let Some(text) = calls.join_next().await {
        assert!(text.as_ref().unwrap().contains("\"other\""), "{text:?}");
    }
    assert_eq!(origins[1].count("eth_call"), 6);
}
