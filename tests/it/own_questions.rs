//! Questions of the proxy's own beside clients' long calls, at nodes that take few connections:
//! heads, logs and events come all the same, and clients are served.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Fault, Options};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::common::{
    client::call,
    sim::{Net, Proxy},
    until,
};

/// How long a client's call takes: as a rule, and where it has the only connection, since a node
/// that sends nothing for a second over any is probed, and has none for probes then.
const LONG: u64 = 3000;
const LONG_ALONE: u64 = 900;
const CLIENTS: usize = 8;

async fn devnet(net: &Net, execution: usize, consensus: usize) -> Devnet {
    let options = Options { execution, consensus, initial_blocks: 30, ..Options::default() };
    Devnet::start(options, Arc::new(net.clone())).await.unwrap()
}

/// Clients that send one request after the other, and the number of answers.
fn busy(proxy: &Arc<Proxy>, request: String) -> (JoinSet<()>, Arc<AtomicUsize>) {
    let (mut clients, answers) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
    for _ in 0..CLIENTS {
        let (proxy, request, answers) = (proxy.clone(), request.clone(), answers.clone());
        clients.spawn(async move {
            let mut client = proxy.client().await;
            loop {
                client.send(&request).await;
                let answer = client.response().await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                answers.fetch_add(1, SeqCst);
            }
        });
    }
    (clients, answers)
}

#[tokio::test(start_paused = true)]
async fn long_calls_are_answered_over_the_only_connection() {
    let net = Net::default();
    let devnet = devnet(&net, 1, 0).await;
    let node = devnet.el(0);
    node.set_fault(Fault::slow_over(LONG, &["eth_call"]));
    let settings = "[calls]\nmax_node_connections = 1\n";
    let proxy = Arc::new(Proxy::over(&net, [&*node.http_url()], settings).await);
    let ask = async || proxy.post(call(1, "eth_call", "[{},\"latest\"]")).await.json();
    for answer in join_all((0..4).map(|_| ask())).await {
        assert!(answer["error"]["data"]["reason"].is_null(), "{answer}");
    }
    assert_eq!(node.count("eth_call"), 4, "no call was sent twice");
    assert_eq!(proxy.verdicts().await, ["up"]);
}

/// The hashes of the blocks, and the number within the block, of logs.
fn of_logs<'l>(logs: impl IntoIterator<Item = &'l Value>) -> Vec<(Value, Value)> {
    let name = |log: &Value| (log["blockHash"].clone(), log["logIndex"].clone());
    logs.into_iter().map(name).collect()
}

#[tokio::test(start_paused = true)]
async fn filters_and_subscriptions_live_beside_long_calls() {
    for (bound, is_learnt) in [(4, false), (3, false), (2, false), (1, false), (4, true)] {
        let long = if bound == 1 { LONG_ALONE } else { LONG };
        let net = Net::default();
        let devnet = devnet(&net, 1, 0).await;
        let node = devnet.el(0);
        node.set_fault(Fault::slow_over(long, &["eth_call"]));
        let setting = if is_learnt { 0 } else { bound };
        let settings = format!("[calls]\nmax_node_connections = {setting}\n");
        let proxy = Arc::new(Proxy::over(&net, [&*node.http_url()], &settings).await);
        let ask = async |method: &str, params: Value| proxy.post(call(1, method, &params.to_string())).await.json();
        let filter = ask("eth_newFilter", json!([{}])).await["result"].take();
        let mut subscriber = proxy.ws().await;
        subscriber.subscribe(r#"["logs",{}]"#).await;
        let (tell, mut pushed) = mpsc::channel(1000);
        let mut reader = JoinSet::new();
        reader.spawn(async move { while tell.send(subscriber.notification().await.1).await.is_ok() {} });
        // Until the pace is known, the logs of a block have more time.
        let mine = async |blocks: u32| {
            for _ in 0..blocks {
                devnet.chain().mine(1);
                sleep(Duration::from_millis(500)).await;
            }
        };
        let before = devnet.chain().head().number;
        mine(8).await;
        if is_learnt {
            node.set_fault(Fault::max_connections(bound));
            node.set_fault(Fault::slow(150));
            join_all((0..CLIENTS).map(|_| ask("eth_gasPrice", json!([])))).await;
            node.clear_fault("slow");
            assert_eq!(proxy.node("el-1").await["connections"]["bound_is_learnt"], true);
        }
        let body = call(1, "eth_call", "[{},\"latest\"]");
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        let (clients, answers) = busy(&proxy, head + &body);
        let mut polled = Vec::new();
        let mut poll = async || {
            let mut told = ask("eth_getFilterChanges", json!([filter])).await;
            assert!(told["error"].is_null(), "{bound}: {told}");
            polled.extend_from_slice(told["result"].as_array_mut().unwrap());
        };
        for _ in 0..40 {
            mine(1).await;
            poll().await;
        }
        let of_calls = answers.load(SeqCst);
        drop(clients);
        sleep(Duration::from_secs(6)).await;
        poll().await;
        let range = json!([{ "fromBlock": format!("{:#x}", before + 1), "toBlock": "latest" }]);
        let expected = ask("eth_getLogs", range).await["result"].take();
        let expected = of_logs(expected.as_array().unwrap());
        assert!(expected.len() >= 48, "{expected:?}");
        assert_eq!(of_logs(&polled), expected, "{bound}");
        let pushed: Vec<Value> = std::iter::from_fn(|| pushed.try_recv().ok()).collect();
        assert_eq!(of_logs(&pushed), expected, "{bound}");
        assert_eq!(proxy.verdicts().await, ["up"]);
        // Half of what the node could do over the connections that are for calls, at least.
        let for_calls = usize::try_from(bound).unwrap().saturating_sub(2).max(1);
        assert!(
            of_calls * 2 >= for_calls * 20_000 / usize::try_from(long).unwrap(),
            "{bound}: {of_calls} calls in 20 s"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_are_told_in_time_beside_long_calls() {
    let net = Net::default();
    let devnet = devnet(&net, 1, 0).await;
    let node = devnet.el(0);
    node.set_fault(Fault::slow_over(LONG, &["eth_call"]));
    let proxy = Arc::new(Proxy::over(&net, [&*node.http_url()], "[calls]\nmax_node_connections = 3\n").await);
    let mut subscriber = proxy.ws().await;
    subscriber.subscribe(r#"["newHeads"]"#).await;
    subscriber.subscribe(r#"["logs",{}]"#).await;
    let body = call(1, "eth_call", "[{},\"latest\"]");
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    let _busy = busy(&proxy, head + &body);
    for round in 0..12 {
        sleep(Duration::from_millis(700 + 370 * round)).await;
        devnet.chain().mine(2);
        let mined = Instant::now();
        for _ in 0..4 {
            subscriber.notification().await;
        }
        assert!(mined.elapsed() <= Duration::from_millis(1300), "{:?}", mined.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_events_leaves_connections_to_requests() {
    for bound in [2, 3, 4] {
        let net = Net::default();
        let devnet = devnet(&net, 0, 1).await;
        let node = devnet.cl(0);
        node.set_fault(Fault::slow_over(LONG_ALONE, &["GET /eth/v1/node/version"]));
        let settings = format!(
            "calls.max_node_connections = {bound}\n[[cl.primary]]\nname = \"cl-1\"\nhttp = \"{}\"\n",
            node.http_url()
        );
        let proxy = Arc::new(Proxy::launch(&net, &settings).await);
        let status = async || proxy.admin("/status").await.json()["networks"][0]["cl"]["nodes"][0].take();
        until("it is up", async || status().await["verdict"] == "up").await;
        let mut listener = proxy.client().await;
        listener.send("GET /eth/v1/events?topics=head HTTP/1.1\r\nHost: x\r\n\r\n").await;
        until("events are told", async || node.subscriptions() == 1).await;
        let (_clients, answers) = busy(&proxy, "GET /eth/v1/node/version HTTP/1.1\r\nHost: x\r\n\r\n".to_owned());
        for _ in 0..20 {
            devnet.chain().mine(1);
            sleep(Duration::from_secs(1)).await;
        }
        let answers = answers.load(SeqCst);
        assert!(answers >= 10, "{bound}: {answers} answers in 20 s");
        assert_eq!((node.subscriptions(), &status().await["verdict"]), (1, &"up".into()), "{bound}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_nodes_that_take_few_connections_are_probed() {
    for bound in [1, 2] {
        let net = Net::default();
        let devnet = devnet(&net, 1, 1).await;
        devnet.el(0).set_fault(Fault::slow(600));
        devnet.cl(0).set_fault(Fault::slow(600));
        let [el, cl] = [devnet.el(0).http_url(), devnet.cl(0).http_url()];
        let settings = format!(
            "calls.max_node_connections = {bound}\n[[el.primary]]\nhttp = \"{el}\"\n[[cl.primary]]\nhttp = \"{cl}\"\n"
        );
        let proxy = Proxy::launch(&net, &settings).await;
        let start = Instant::now();
        for layer in ["el", "cl"] {
            let verdict = || format!("/networks/0/{layer}/nodes/0/verdict");
            let up = async || proxy.admin("/status").await.json().pointer(&verdict()) == Some(&"up".into());
            until("the node is up", up).await;
        }
        assert!(start.elapsed() < Duration::from_secs(8), "{bound}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_node_at_its_bound_is_probed_in_time() {
    for (bound, is_learnt) in [(4, false), (4, true), (12, true)] {
        let net = Net::default();
        let devnet = devnet(&net, 1, 0).await;
        let node = devnet.el(0);
        let setting = if is_learnt { 0 } else { bound };
        let settings = format!("[calls]\nmax_node_connections = {setting}\n");
        let proxy = Arc::new(Proxy::over(&net, [&*node.http_url()], &settings).await);
        // The connection that is kept for other questions of our own is in use too.
        let mut subscriber = proxy.ws().await;
        subscriber.subscribe(r#"["logs",{}]"#).await;
        if is_learnt {
            node.set_fault(Fault::max_connections(bound));
            node.set_fault(Fault::slow(150));
            join_all((0..2 * bound).map(|_| proxy.post(call(1, "eth_gasPrice", "[]")))).await;
            assert_eq!(proxy.node("el-1").await["connections"]["bound_is_learnt"], true);
        }
        node.set_fault(Fault::slow(600));
        node.set_fault(Fault::slow_over(25_000, &["eth_call"]));
        let mut clients = JoinSet::new();
        for _ in 0..bound + 3 {
            let proxy = proxy.clone();
            clients.spawn(async move {
                let mut client = proxy.client().await;
                loop {
                    client.post(call(1, "eth_call", "[{},\"latest\"]")).await;
                }
            });
        }
        for second in 0..90 {
            devnet.chain().mine(1);
            sleep(Duration::from_secs(1)).await;
            let seen = proxy.node("el-1").await;
            let behind = devnet.chain().head().number - seen["head"].as_u64().unwrap_or(0);
            assert_eq!(seen["verdict"], "up", "{bound} {is_learnt} {second}: {seen}");
            assert!(second < 15 || behind <= 4, "{bound} {is_learnt} {second}: {behind} behind, {seen}");
        }
    }
}
