//! Patience by method: `[[calls.rules]]`, and a node that is slow at one method alone. On a network
//! of memory under a simulated clock.

use std::{sync::Arc, time::Duration};

use crate::common::{
    client::{Response, call},
    origin::{Origin, Reply, Seen, chain, ok, response},
    proxy,
    sim::{Net, Proxy},
    until,
};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    task::JoinSet,
    time::{Instant, sleep},
};

/// Two nodes, and a proxy with these settings before them.
struct Scene {
    nodes: [Origin; 2],
    proxy: Arc<Proxy>,
    _chain: JoinSet<()>,
}

impl Scene {
    async fn start(calls: &str, script: impl Fn(usize, &Seen) -> Reply + Clone + Send + Sync + 'static) -> Self {
        let net = Net::default();
        let other = script.clone();
        let nodes = [
            Origin::within(&net, move |seen| script(0, seen)).await,
            Origin::within(&net, move |seen| other(1, seen)).await,
        ];
        let chain = chain(&nodes);
        let settings = format!("[calls]\n{calls}\n{}", proxy::nodes(nodes.iter().map(Origin::url)));
        let proxy = Arc::new(Proxy::launch(&net, &settings).await);
        until("both are up", async || proxy.verdicts().await == ["up", "up"]).await;
        Self { nodes, proxy, _chain: chain }
    }

    /// Asks, and tells how long the answer took.
    async fn ask(&self, method: &str) -> (Response, Duration) {
        let began = Instant::now();
        let answer = self.proxy.post(call(1, method, "[]")).await;
        (answer, began.elapsed())
    }

    fn counts(&self, method: &str) -> [usize; 2] {
        [0, 1].map(|node| self.nodes[node].count(method))
    }
}

/// A result after this number of seconds.
fn late(seen: &Seen, seconds: u64) -> Reply {
    let body = ok(format!(r#"{{"jsonrpc":"2.0","id":{},"result":"late"}}"#, seen.id()));
    Reply::act(async move |mut io| {
        sleep(Duration::from_secs(seconds)).await;
        io.write_all(&body).await.ok()?;
        Some(io)
    })
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_long_trace_has_minutes_and_a_short_call_two_seconds() {
    let rules = r#"
        timeout = "5s"
        [[calls.rules]]
        methods = ["trace_*", "debug_trace*"]
        timeout = "3m"
        attempt_timeout = "2m"
        [[calls.rules]]
        methods = ["eth_gasPrice"]
        timeout = "2s"
    "#;
    let scene = Scene::start(rules, |_, seen| late(seen, if seen.method() == "trace_call" { 8 } else { 35 })).await;
    for (method, seconds) in [("trace_block", 35), ("debug_traceCall", 35), ("trace_call", 8)] {
        let (answer, took) = scene.ask(method).await;
        assert_eq!((answer.status, answer.json()["result"].take()), (200, json!("late")), "{method}");
        assert!((seconds * SECOND..(seconds + 2) * SECOND).contains(&took), "{method}: {took:?}");
        assert_eq!(scene.counts(method), [1, 0], "{method}");
    }
    let late = [("eth_gasPrice", 2, "deadline"), ("eth_call", 5, "deadline"), ("x_own", 5, "outcome_unknown")];
    for (method, seconds, reason) in late {
        let (answer, took) = scene.ask(method).await;
        assert_eq!(answer.json()["error"]["data"]["reason"], json!(reason), "{method}: {}", answer.text());
        assert!((seconds * SECOND..(seconds + 1) * SECOND).contains(&took), "{method}: {took:?}");
    }
    // The same over WebSocket, and in a batch.
    let mut client = scene.proxy.ws().await;
    let began = Instant::now();
    assert_eq!(client.call("trace_call", "[]").await, json!("late"));
    assert!(began.elapsed() >= 8 * SECOND);
    let batch = format!("[{},{}]", call(1, "eth_gasPrice", "[]"), call(2, "trace_call", "[]"));
    let began = Instant::now();
    let answers = scene.proxy.post(batch).await.json();
    assert!(answers[0]["error"].is_object() && answers[1]["result"] == json!("late"), "{answers}");
    assert!((8 * SECOND..10 * SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_rule_says_how_often_a_call_is_tried() {
    let rules = "hold = \"0s\"\n[[calls.rules]]\nmethods = [\"eth_getLogs\"]\nattempts = 1";
    let scene = Scene::start(rules, |_, _| Reply::Bytes(response("500 Oops", "", ""))).await;
    for (method, counts) in [("eth_getLogs", [1, 0]), ("eth_call", [1, 1])] {
        let (answer, _) = scene.ask(method).await;
        assert_ne!(answer.status, 200, "{method}");
        assert_eq!(scene.counts(method), counts, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_blocks_methods_and_opens_them_on_every_door() {
    let rules = "
        [[calls.rules]]
        methods = [\"trace_*\"]
        blocked = true
        [[calls.rules]]
        methods = [\"trace_block\", \"admin_peers\"]
        blocked = false
    ";
    let scene = Scene::start(rules, |_, seen| Reply::result(seen, "\"0x1\"")).await;
    let mut client = scene.proxy.ws().await;
    for (method, is_open) in [
        ("trace_filter", false),
        ("TRACE_block", false),
        ("trace_block", true),
        ("admin_peers", true),
        ("admin_x", false),
    ] {
        let over_http = scene.ask(method).await.0.json();
        let over_ws: serde_json::Value = serde_json::from_str(&client.ask(call(1, method, "[]")).await).unwrap();
        for answer in [over_http, over_ws] {
            let code = if is_open { json!(null) } else { json!(-32601) };
            assert_eq!(answer["error"]["code"], code, "{method}: {answer}");
        }
        assert_eq!(scene.counts(method)[0] > 0, is_open, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_says_which_nodes_a_transaction_goes_to() {
    for (to, counts) in [("all", [1, 1]), ("first", [1, 0])] {
        let rules = format!("[[calls.rules]]\nmethods = [\"eth_sendRaw*\"]\nsend_to = \"{to}\"");
        let scene = Scene::start(&rules, |_, seen| Reply::result(seen, "\"0x1\"")).await;
        let sent = call(1, "eth_sendRawTransaction", r#"["0x02f8"]"#);
        assert_eq!(scene.proxy.post(sent).await.status, 200, "{to}");
        sleep(SECOND).await;
        assert_eq!(scene.counts("eth_sendRawTransaction"), counts, "{to}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_slow_at_one_method_stays_for_the_others() {
    let rules = "
        [[calls.rules]]
        methods = [\"trace_*\"]
        timeout = \"10s\"
        attempt_timeout = \"2s\"
    ";
    // The first node is slow with traces; the second, with none.
    let scene = Scene::start(rules, |node, seen| match (node, &*seen.method()) {
        (0, "trace_block") => late(seen, 600),
        _ => Reply::result(seen, "\"0x1\""),
    })
    .await;
    for round in 0..20 {
        let (answer, _) = scene.ask("trace_block").await;
        assert_eq!((answer.status, answer.json()["result"].take()), (200, json!("0x1")), "{round}");
        let (answer, took) = scene.ask("eth_call").await;
        assert_eq!(answer.status, 200);
        assert!(took < SECOND, "{took:?}");
        assert_eq!(scene.proxy.verdicts().await, ["up", "up"], "{round}");
    }
    // All other calls stay at the first node, and soon it is asked for no more traces.
    assert_eq!(scene.counts("eth_call"), [20, 0]);
    let [slow, good] = scene.counts("trace_block");
    assert!((3..12).contains(&slow) && good == 20, "{slow} and {good}");
}
