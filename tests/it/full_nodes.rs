//! Nodes that take so many connections and no more: they are full, not lost, and calls wait for a
//! connection.

use std::{sync::Arc, time::Duration};

use crate::common::{
    client::{call, post},
    origin::{Origin, Reply},
    proxy,
    sim::{Net, Proxy},
    until,
};
use serde_json::Value;
use steadfast::devnet::{Devnet, Fault, Node, Options};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const CAP: u64 = 8;
/// How long a node takes over each request.
const WORK: u64 = 150;

/// A network with a node of each side.
async fn devnet(net: &Net) -> Devnet {
    Devnet::start(Options { consensus: 1, ..Options::default() }, Arc::new(net.clone())).await.unwrap()
}

fn fill_up(node: &Node, cap: u64) {
    node.set_fault(Fault::slow(WORK));
    node.set_fault(Fault::max_connections(cap));
}

fn request(id: usize, method: &str) -> String {
    call(id, method, if method == "dev_sleep" { "[1]" } else { "[]" })
}

/// Whether it is the answer of a node that is well.
fn is_well(answer: &Value) -> bool {
    answer["result"] == 1 || answer["result"].is_string()
}

/// `clients` that each make `calls` one after the other; all answers.
async fn calls(proxy: &Arc<Proxy>, clients: usize, calls: usize, method: &'static str) -> Vec<Value> {
    let mut running = JoinSet::new();
    for number in 0..clients {
        let proxy = proxy.clone();
        running.spawn(async move {
            let mut client = proxy.client().await;
            let mut answers = Vec::new();
            for id in 0..calls {
                answers.push(client.post(request(number * 1000 + id, method)).await.json());
            }
            answers
        });
    }
    running.join_all().await.concat()
}

/// Watches the verdicts for as long as it is held.
fn watch(proxy: &Arc<Proxy>) -> JoinSet<()> {
    let proxy = proxy.clone();
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            assert_eq!(proxy.verdicts().await, ["up"]);
            sleep(Duration::from_millis(100)).await;
        }
    });
    task
}

async fn connections(proxy: &Proxy) -> Value {
    proxy.side().await["nodes"][0]["connections"].take()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_closes_one_connection_too_many_stays_in() {
    for (clients, cap) in [(40, CAP), (200, 80), (8, 3), (6, 2)] {
        let net = Net::default();
        let devnet = devnet(&net).await;
        let node = devnet.el(0).clone();
        let proxy = Arc::new(Proxy::over(&net, [&*node.http_url()], "").await);
        fill_up(&node, cap);
        let mut watched = watch(&proxy);
        let started = Instant::now();
        for answer in calls(&proxy, clients, 6, "eth_gasPrice").await {
            assert!(is_well(&answer), "{cap}: {answer}");
        }
        let rounds = u32::try_from(clients * 6).unwrap() / u32::try_from(cap - 2).unwrap().max(1);
        let ideal = Duration::from_millis(WORK) * rounds;
        assert!(started.elapsed() < ideal * 2 + Duration::from_secs(1), "{cap}: {:?}", started.elapsed());
        let refused = node.connections_refused();
        assert!(refused > 0 && refused <= clients as u64 + 6, "{cap}: {refused} connections were closed at once");
        let learnt = connections(&proxy).await;
        assert_eq!((learnt["bound"].as_u64(), &learnt["bound_is_learnt"]), (Some(cap), &true.into()), "{learnt}");
        assert!(watched.try_join_next().is_none(), "{cap}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_bound_in_the_settings_no_connection_is_one_too_many() {
    for more in
        ["calls.max_node_connections = 8\n", "calls.max_node_connections = 3\n[[el.primary]]\nmax_connections = 8\n"]
    {
        let net = Net::default();
        let devnet = devnet(&net).await;
        let node = devnet.el(0);
        fill_up(node, CAP);
        let url = format!("http = \"{}\"\nname = \"el-1\"\n", node.http_url());
        let own = more.contains("[[el");
        let settings = if own { format!("{more}{url}") } else { format!("{more}[[el.primary]]\n{url}") };
        let proxy = Arc::new(Proxy::launch(&net, &settings).await);
        until("it is up", async || proxy.verdicts().await == ["up"]).await;
        let _watched = watch(&proxy);
        let mut busy = JoinSet::new();
        for (method, clients) in [("eth_gasPrice", 30), ("dev_sleep", 10)] {
            let proxy = proxy.clone();
            busy.spawn(async move { calls(&proxy, clients, 5, method).await });
        }
        sleep(Duration::from_millis(500)).await;
        let waiting = connections(&proxy).await;
        assert_eq!((waiting["bound"].as_u64(), &waiting["bound_is_learnt"]), (Some(8), &false.into()), "{waiting}");
        assert!(waiting["waiting"].as_u64().unwrap() >= 30 && waiting["open"].as_u64().unwrap() <= 8, "{waiting}");
        assert!(proxy.metric("steadfast_node_waiting", "el-1").await >= 30.0);
        assert!(proxy.metric("steadfast_node_connections", "el-1").await >= 6.0);
        for answers in busy.join_all().await {
            for answer in answers {
                assert!(is_well(&answer), "{answer}");
            }
        }
        assert_eq!(node.connections_refused(), 0);
        assert_eq!(node.count("dev_sleep"), 50);
        assert_eq!(connections(&proxy).await["waiting"], 0);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_must_not_be_repeated_reach_a_full_node_once() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let node = devnet.el(0);
    let proxy = Arc::new(Proxy::over(&net, [&*node.http_url()], "").await);
    fill_up(node, CAP);
    let _watched = watch(&proxy);
    calls(&proxy, 20, 1, "eth_gasPrice").await;
    let answers = calls(&proxy, 30, 4, "dev_sleep").await;
    assert!(answers.iter().all(|answer| answer["result"] == 1), "{answers:?}");
    assert_eq!(node.count("dev_sleep"), 120);
    // The node takes fewer connections than it has shown: that is seen before anything is written.
    fill_up(node, CAP / 2);
    let answers = calls(&proxy, 30, 2, "dev_sleep").await;
    assert!(answers.iter().all(|answer| answer["result"] == 1), "{answers:?}");
    assert_eq!(node.count("dev_sleep"), 180);
}

#[tokio::test(start_paused = true)]
async fn a_full_node_is_not_silent_however_long_calls_wait() {
    let net = Net::default();
    // Each call takes longer than a node may be silent, but a byte comes now and then on another.
    let node = Origin::within(&net, |seen| {
        let answer = crate::common::origin::ok(format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":7}}", seen.id()));
        Reply::act(async move |mut io| {
            sleep(Duration::from_millis(900)).await;
            tokio::io::AsyncWriteExt::write_all(&mut io, &answer).await.ok()?;
            Some(io)
        })
    })
    .await;
    let proxy = Arc::new(Proxy::over(&net, [node.url()], "[calls]\nmax_node_connections = 4\n").await);
    let mut watched = watch(&proxy);
    let answers = calls(&proxy, 24, 1, "eth_call").await;
    assert!(answers.iter().all(|answer| answer["result"] == 7), "{answers:?}");
    assert!(watched.try_join_next().is_none());
}

#[tokio::test(start_paused = true)]
async fn batches_and_websockets_wait_for_a_connection_too() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let node = devnet.el(0);
    let both = format!("[[el.primary]]\nname = \"el-1\"\nhttp = \"{}\"\nws = \"{}\"\n", node.http_url(), node.ws_url());
    let proxy = Arc::new(Proxy::launch(&net, &both).await);
    until("it is up", async || proxy.verdicts().await == ["up"]).await;
    until("it has its link", async || node.websockets_open() == 1).await;
    fill_up(node, CAP);
    let _watched = watch(&proxy);
    let mut running = JoinSet::new();
    for number in 0..10 {
        let batching = proxy.clone();
        running.spawn(async move {
            let list: Vec<String> = (0..10).map(|id| request(number * 100 + id, "eth_gasPrice")).collect();
            let answers = batching.post(format!("[{}]", list.join(","))).await.json();
            answers.as_array().unwrap().clone()
        });
        let mut ws = proxy.ws().await;
        running.spawn(async move {
            for id in 0..10 {
                ws.send(request(id, "eth_gasPrice")).await;
            }
            let mut answers = Vec::new();
            for _ in 0..10 {
                answers.push(serde_json::from_str(&ws.answer().await).unwrap());
            }
            answers
        });
    }
    let answers = running.join_all().await.concat();
    assert_eq!(answers.len(), 200);
    assert!(answers.iter().all(is_well), "{answers:?}");
    assert_eq!(node.websockets_open(), 1, "the link was lost");
}

#[tokio::test(start_paused = true)]
async fn requests_to_the_beacon_api_wait_for_a_connection_too() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let node = devnet.cl(0);
    let proxy = Arc::new(
        Proxy::launch(&net, &format!("[[cl.primary]]\nname = \"cl-1\"\nhttp = \"{}\"\n", node.http_url())).await,
    );
    let up = async || proxy.admin("/status").await.json()["networks"][0]["cl"]["nodes"][0]["verdict"] == "up";
    until("it is up", up).await;
    // A client's stream of events has the hub's own at the node.
    let mut listening = proxy.client().await;
    listening.send("GET /eth/v1/events?topics=head HTTP/1.1\r\nHost: x\r\n\r\n").await;
    until("events are told", async || node.subscriptions() == 1).await;
    fill_up(node, CAP);
    let mut running = JoinSet::new();
    for number in 0..30 {
        let proxy = proxy.clone();
        running.spawn(async move {
            let mut client = proxy.client().await;
            let mut statuses = Vec::new();
            for _ in 0..4 {
                client.send("GET /eth/v1/node/version HTTP/1.1\r\nHost: x\r\n\r\n").await;
                statuses.push((200, client.response().await.status));
                if number % 3 == 0 {
                    // More than is kept to be sent again, so it streams.
                    let body = format!("[{}]", "0,".repeat(40_000));
                    let head =
                        "POST /eth/v1/beacon/pool/attestations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json";
                    client.send(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
                    statuses.push((400, client.response().await.status));
                }
            }
            statuses
        });
    }
    for (expected, status) in running.join_all().await.concat() {
        assert_eq!(status, expected);
    }
    assert!(up().await);
    assert_eq!(node.subscriptions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_learnt_bound_is_raised_when_the_node_takes_more() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let node = devnet.el(0);
    let proxy = Arc::new(Proxy::over(&net, [&*node.http_url()], "").await);
    fill_up(node, 3);
    calls(&proxy, 20, 4, "eth_gasPrice").await;
    assert_eq!(connections(&proxy).await["bound"], 3);
    node.clear_fault("max_connections");
    let _busy = {
        let proxy = proxy.clone();
        let mut task = JoinSet::new();
        task.spawn(async move { _ = calls(&proxy, 40, 1000, "eth_gasPrice").await });
        task
    };
    sleep(Duration::from_secs(30)).await;
    let now = connections(&proxy).await;
    assert!(now["bound"].as_u64().is_none_or(|bound| bound > 40) && now["waiting"] == 0, "{now}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_loses_each_answer_teaches_no_bound() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let node = devnet.el(0);
    let proxy = Arc::new(Proxy::over(&net, [&*node.http_url()], "").await);
    node.set_fault(Fault::cut_answer(&["eth_gasPrice"]));
    let answers = calls(&proxy, 4, 1, "eth_gasPrice").await;
    assert!(answers.iter().all(|answer| answer["error"]["data"]["reason"] == "attempts_failed"), "{answers:?}");
    assert_eq!(connections(&proxy).await["bound"], Value::Null);
    assert!(node.count("eth_gasPrice") <= 4 * 3 * 3, "{} were made", node.count("eth_gasPrice"));
}

#[tokio::test]
async fn workers_share_the_connections_of_a_full_node_and_idle_ones() {
    for (setting, cap) in [("", CAP), ("max_connections = 4\n", 4), ("max_connections = 1\n", 1)] {
        let devnet = crate::common::devnet(Options::default()).await;
        let node = devnet.el(0);
        // World::real(2): two workers.
        let settings = format!("[[el.primary]]\nname = \"el-1\"\nhttp = \"{}\"\n{setting}", node.http_url());
        let proxy = proxy::Proxy::start(&settings).await;
        node.set_fault(Fault::slow(2));
        node.set_fault(Fault::max_connections(cap));
        for method in ["eth_gasPrice", "dev_ping", "eth_gasPrice"] {
            let mut running = JoinSet::new();
            for _ in 0..20 {
                let mut client = proxy.client().await;
                running.spawn(async move {
                    for id in 0..10 {
                        let answer = client.post(call(id, method, "[]")).await.json();
                        assert!(answer["result"].is_string() || answer["error"]["code"] == -32601, "{cap}: {answer}");
                    }
                });
            }
            while let Some(done) = running.join_next().await {
                done.unwrap();
            }
        }
        assert_eq!(node.count("dev_ping"), 200);
        assert_eq!(proxy.node("el-1").await["verdict"], "up");
        assert!(setting.is_empty() || node.connections_refused() <= 20, "{}", node.connections_refused());
    }
}

#[tokio::test(start_paused = true)]
async fn calls_without_a_connection_go_to_another_node() {
    let net = Net::default();
    let devnet = Devnet::start(Options { execution: 2, ..Options::default() }, Arc::new(net.clone())).await.unwrap();
    let (full, other) = (devnet.el(0), devnet.el(1));
    // Its link keeps the node in while a call has the only other connection.
    let settings = format!(
        "health.timeout = \"5s\"\n[[el.primary]]\nname = \"el-1\"\nmax_connections = 2\nhttp = \"{}\"\nws = \"{}\"\n[[el.backup]]\nname = \"el-2\"\nhttp = \"{}\"\n",
        full.http_url(),
        full.ws_url(),
        other.http_url()
    );
    let proxy = Arc::new(Proxy::launch(&net, &settings).await);
    until("both are up", async || proxy.verdicts().await == ["up", "up"]).await;
    until("it has its link", async || full.websockets_open() == 1).await;
    full.set_fault(Fault::slow_over(20_000, &["eth_call"]));
    let holds = proxy.clone();
    let mut long = JoinSet::new();
    long.spawn(async move { holds.post(call(1, "eth_call", "[{},\"latest\"]")).await });
    until("a call has the connection", async || full.count("eth_call") == 1).await;
    let started = Instant::now();
    let answers = calls(&proxy, 20, 3, "eth_gasPrice").await;
    assert!(answers.iter().all(is_well), "{answers:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // A call that waits for a connection is owed nothing, so the node is not silent.
    let waits = proxy.clone();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { calls(&waits, 5, 20, "eth_gasPrice").await });
    for _ in 0..50 {
        sleep(Duration::from_millis(100)).await;
        assert_eq!(proxy.verdicts().await, ["up", "up"]);
    }
}

#[tokio::test(start_paused = true)]
async fn calls_wait_in_line_where_all_nodes_are_full() {
    let net = Net::default();
    let devnet = Devnet::start(Options { execution: 2, ..Options::default() }, Arc::new(net.clone())).await.unwrap();
    let nodes = [devnet.el(0), devnet.el(1)];
    let settings = nodes.map(|node| format!("[[el.primary]]\nhttp = \"{}\"\nmax_connections = 3\n", node.http_url()));
    let proxy = Arc::new(Proxy::launch(&net, &settings.concat()).await);
    until("both are up", async || proxy.verdicts().await == ["up", "up"]).await;
    nodes.iter().for_each(|node| node.set_fault(Fault::slow_over(2000, &["eth_gasPrice"])));
    // Longer than calls are held, and shorter than their deadline.
    let started = Instant::now();
    let answers = calls(&proxy, 22, 1, "eth_gasPrice").await;
    assert!(answers.iter().all(is_well), "{answers:?}");
    assert!(started.elapsed() < Duration::from_secs(27), "{:?}", started.elapsed());
    assert!(nodes.iter().all(|node| node.count("eth_gasPrice") >= 9));
}

#[tokio::test(start_paused = true)]
async fn one_client_with_slow_calls_leaves_a_full_node_to_others() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| match seen.method().as_str() {
        "eth_getLogs" => Reply::act(async |_io| std::future::pending().await),
        _ => Reply::result(seen, "1"),
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], "max_connections = 42\n").await;
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let mut ws = proxy.ws().await;
        for id in 0..64 {
            ws.send(request(id, "eth_getLogs")).await;
        }
        sockets.push(ws);
    }
    // A batch is no way around it.
    let mut batch = proxy.client().await;
    let calls: Vec<_> = (0..16).map(|id| request(id, "eth_getLogs")).collect();
    batch.send(post("/", format!("[{}]", calls.join(",")).as_bytes())).await;
    sleep(Duration::from_secs(2)).await;
    for id in 0..20 {
        let start = Instant::now();
        let answer = proxy.post(request(id, "eth_call")).await.json();
        assert!(is_well(&answer) && start.elapsed() < Duration::from_secs(1), "{answer}, {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_learnt_bound_is_forgotten_when_its_node_comes_back() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let node = devnet.el(0);
    // Fast enough that the node is back before the bound would be raised.
    let health = "[health]\ninterval = \"100ms\"\ntimeout = \"500ms\"\nfall = 2\nrise = 1\n";
    let proxy = Arc::new(Proxy::over(&net, [&*node.http_url()], health).await);
    fill_up(node, 3);
    calls(&proxy, 20, 4, "eth_gasPrice").await;
    assert_eq!(connections(&proxy).await["bound"], 3);
    node.clear_faults();
    node.set_fault(Fault::Failing);
    until("the node is out", async || proxy.verdicts().await != ["up"]).await;
    node.clear_faults();
    until("the node is up again", async || proxy.verdicts().await == ["up"]).await;
    let seen = connections(&proxy).await;
    assert_eq!(seen["bound_is_learnt"], false, "{seen}");
}

#[tokio::test(start_paused = true)]
async fn a_bound_that_a_lost_node_taught_is_forgotten_on_its_return() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let node = devnet.el(0);
    let settings = format!(
        "[health]\ninterval = \"100ms\"\ntimeout = \"500ms\"\nfall = 2\nrise = 1\n[[el.primary]]\nname = \"el-1\"\nhttp = \"{}\"\nws = \"{}\"\n",
        node.http_url(),
        node.ws_url()
    );
    let proxy = Arc::new(Proxy::launch(&net, &settings).await);
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    node.set_fault(Fault::Down);
    until("the node is out", async || proxy.verdicts().await == ["down"]).await;
    // Probes hang, and so the link is one connection too many.
    node.clear_faults();
    node.set_fault(Fault::Hang);
    node.set_fault(Fault::max_connections(2));
    until("the lost node teaches a bound", async || connections(&proxy).await["bound_is_learnt"] == true).await;
    assert_eq!(proxy.verdicts().await, ["down"]);
    node.clear_faults();
    until("the node is up again", async || proxy.verdicts().await == ["up"]).await;
    let seen = connections(&proxy).await;
    assert_eq!(seen["bound_is_learnt"], false, "{seen}");
}

#[tokio::test(start_paused = true)]
async fn exchanges_wait_for_full_nodes_as_long_as_they_are_held() {
    const STATES: &str = "GET /eth/v2/debug/beacon/states/head HTTP/1.1\r\nHost: x\r\n\r\n";
    const EXIT: &str = "POST /eth/v1/beacon/pool/voluntary_exits HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    const DATA: &str = "GET /eth/v1/validator/attestation_data?slot=1&committee_index=0 HTTP/1.1\r\nHost: x\r\n\r\n";
    let net = Net::default();
    let devnet = Devnet::start(Options { consensus: 2, ..Options::default() }, Arc::new(net.clone())).await.unwrap();
    let nodes = [devnet.cl(0), devnet.cl(1)];
    let name = |node: &Arc<Node>| format!("[[cl.primary]]\nhttp = \"{}\"\nmax_connections = 4\n", node.http_url());
    let settings = format!("calls.hold = \"4s\"\n{}", nodes.map(name).concat());
    let proxy = Arc::new(Proxy::launch(&net, &settings).await);
    let side = async || proxy.admin("/status").await.json()["networks"][0]["cl"].take();
    let are = async |what: &str, value: Value| {
        side().await["nodes"].as_array().unwrap().iter().all(|node| *node.pointer(what).unwrap() == value)
    };
    until("both are up", async || are("/verdict", "up".into()).await).await;
    nodes.iter().for_each(|node| node.set_fault(Fault::hang_over(&["GET /eth/v2/debug/beacon/states/head"])));
    let mut states = Vec::new();
    for _ in 0..12 {
        let mut client = proxy.client().await;
        client.send(STATES).await;
        states.push(client);
    }
    // Those that find no connection are told so at last.
    sleep(Duration::from_secs(30)).await;
    for request in [EXIT, DATA] {
        let mut client = proxy.client().await;
        let start = Instant::now();
        client.send(request).await;
        let answer = client.response().await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        let waited = start.elapsed();
        assert!((Duration::from_millis(3500)..Duration::from_millis(5500)).contains(&waited), "{waited:?}");
    }
    assert!(are("/verdict", "up".into()).await);
}
