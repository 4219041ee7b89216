//! Calls that had to wait for a node reach it in the order in which they came, however their connections come about.

use std::{future::pending, sync::Arc, time::Duration};

use crate::common::{
    client::{call, post},
    origin::{Origin, Reply, Seen, response},
    proxy,
    sim::{Net, Proxy},
    until,
};
use tokio::{task::JoinSet, time::Instant};

const CALLS: usize = 8;

/// Sends calls of `method`, numbered in the order of their arrival, to a proxy that has no node to send them to.
async fn send(proxy: &Arc<Proxy>, method: &'static str) -> JoinSet<String> {
    let mut calls = JoinSet::new();
    for number in 1..=CALLS {
        let calling = proxy.clone();
        calls.spawn(async move { calling.post(call(number, method, &format!("[{number}]"))).await.text() });
        until("it is held", async || proxy.metric("steadfast_held_calls", "").await >= number as f64).await;
    }
    calls
}

/// A node that is not well.
async fn ailing(net: &Net) -> Origin {
    let origin = Origin::within(net, well).await;
    origin.ail(Some(response("503 Service Unavailable", "", "not yet")));
    origin
}

/// A node that does as `script` says and is not well yet, and calls of `method` that wait for it, numbered in the order of their
/// arrival. The next dials, a few of probes and then those of the calls, take as long as `delays` say.
async fn held(
    net: &Net,
    method: &'static str,
    script: fn(&Seen) -> Reply,
    delays: impl IntoIterator<Item = u64>,
) -> (Origin, JoinSet<String>) {
    let origin = Origin::within(net, script).await;
    origin.ail(Some(response("503 Service Unavailable", "", "not yet")));
    let proxy = Arc::new(Proxy::launch(net, &proxy::nodes([origin.url()])).await);
    let calls = send(&proxy, method).await;
    net.delay(delays.into_iter().map(Duration::from_millis));
    origin.ail(None);
    (origin, calls)
}

fn well(seen: &Seen) -> Reply {
    Reply::result(seen, "\"well\"")
}

async fn arrived(origin: &Origin) -> Vec<String> {
    until("all have come", async || origin.seen().len() == CALLS).await;
    origin.seen().iter().map(|seen| seen.params().trim_matches(|c| "[]".contains(c)).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_go_in_order_though_later_ones_connect_first() {
    // The one opens a connection for each call, the other takes idle ones that probes leave as well.
    for method in ["eth_sendTransaction", "eth_call"] {
        let net = Net::default();
        let (origin, mut calls) = held(&net, method, well, (1..45).rev().map(|n| n * 20)).await;
        let expected: Vec<String> = (1..=CALLS).map(|number| number.to_string()).collect();
        assert_eq!(arrived(&origin).await, expected, "{method}");
        while let Some(answer) = calls.join_next().await {
            assert!(answer.unwrap().contains("well"), "{method}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_connection_holds_others_up_for_a_second() {
    let net = Net::default();
    // The first two are a probe's.
    let (origin, _calls) = held(&net, "eth_sendTransaction", well, [0, 0, 1900]).await;
    until("one has come", async || !origin.seen().is_empty()).await;
    let start = Instant::now();
    assert_eq!(arrived(&origin).await.last().unwrap(), "1");
    let behind = start.elapsed().as_millis();
    assert!((800..1000).contains(&behind), "the others came {behind} ms before it");
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_earlier_ones_to_be_written_not_answered() {
    let net = Net::default();
    let never = |_: &Seen| Reply::act(async |io| (pending::<()>().await, Some(io)).1);
    let (origin, _calls) = held(&net, "eth_sendTransaction", never, []).await;
    until("one has come", async || !origin.seen().is_empty()).await;
    let start = Instant::now();
    arrived(&origin).await;
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn calls_that_waited_go_in_order_to_the_nodes_of_reloads() {
    for method in ["eth_sendTransaction", "eth_call"] {
        let net = Net::default();
        let (first, second, third) = (ailing(&net).await, ailing(&net).await, Origin::within(&net, well).await);
        let proxy = Arc::new(Proxy::launch(&net, &proxy::nodes([first.url()])).await);
        let mut calls = send(&proxy, method).await;
        proxy.reload(&proxy::nodes([second.url()])).await;
        // The next dials are the probes', and then those of the calls, of which later ones come about sooner.
        net.delay((1..45).rev().map(|n| Duration::from_millis(n * 20)));
        proxy.reload(&proxy::nodes([third.url()])).await;
        let expected: Vec<String> = (1..=CALLS).map(|number| number.to_string()).collect();
        assert_eq!(arrived(&third).await, expected, "{method}");
        while let Some(answer) = calls.join_next().await {
            assert!(answer.unwrap().contains("well"), "{method}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_leaves_calls_that_wait_no_more_time_than_they_had() {
    let net = Net::default();
    let (first, second) = (ailing(&net).await, ailing(&net).await);
    let settings = |node: &Origin| proxy::nodes([node.url()]) + "[calls]\nhold = \"9s\"\n";
    let proxy = Arc::new(Proxy::launch(&net, &settings(&first)).await);
    let start = Instant::now();
    let mut calls = send(&proxy, "eth_call").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    proxy.reload(&settings(&second)).await;
    while let Some(answer) = calls.join_next().await {
        assert!(answer.unwrap().contains("no_node"));
    }
    let waited = start.elapsed().as_millis();
    assert!((9000..9900).contains(&waited), "they waited for {waited} ms");
}

#[tokio::test(start_paused = true)]
async fn attempts_lost_before_a_reload_count_for_the_call() {
    let net = Net::default();
    // The node is gone before its answer is whole.
    let deadly = Origin::within(&net, |seen| match seen.method().as_str() {
        "eth_call" => Reply::Last(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec()),
        _ => Reply::result(seen, "\"well\""),
    })
    .await;
    let settings = |hold: &str| format!("{}[calls]\nattempts = 3\nhold = \"{hold}\"\n", proxy::nodes([deadly.url()]));
    let proxy = Proxy::launch(&net, &settings("20s")).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let mut client = proxy.client().await;
    client.send(post("/", call(1, "eth_call", "[]").as_bytes())).await;
    until("it was tried", async || deadly.count("eth_call") > 0).await;
    proxy.reload(&settings("19s")).await;
    assert_eq!(client.response().await.json()["error"]["data"]["reason"], "attempts_failed");
    assert_eq!(deadly.count("eth_call"), 3);
}
