//! Calls that wait, and for how long, on a network of memory under a clock that only moves when
//! nothing else can.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::common::{
    client::{Broken, ROUNDABOUT, call, chunked, post, with_headers},
    origin::{Origin, Reply, Seen, ok, response},
    proxy::nodes,
    sim::{Net, Proxy},
    until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep},
};

/// A request in the shapes that take different ways through the door.
fn shapes(body: &str) -> [(&'static str, Vec<u8>); 3] {
    [
        ("plain", post("/", body.as_bytes())),
        ("roundabout", with_headers("/", ROUNDABOUT, body.as_bytes())),
        ("in chunks", chunked("", body.as_bytes(), 50)),
    ]
}

fn answer(id: impl std::fmt::Display, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// The beginning and the end of a response that is too long to be held back as a whole.
fn long(seen: &Seen) -> (Vec<u8>, Vec<u8>) {
    let mut head = ok(answer(seen.id(), &format!("\"{}\"", "s".repeat(1_000_000))));
    let tail = head.split_off(500_000);
    (head, tail)
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_stops_in_the_middle_ends_for_any_request() {
    let net = Net::default();
    let left = Arc::new(AtomicUsize::new(0));
    let count = left.clone();
    let origin = Origin::within(&net, move |seen| {
        let ((head, _), count) = (long(seen), count.clone());
        Reply::act(async move |mut io| {
            io.write_all(&head).await.ok()?;
            let rest = io.read(&mut [0]).await;
            assert!(matches!(rest, Ok(0) | Err(_)), "the proxy sent more");
            count.fetch_add(1, SeqCst);
            None
        })
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    let mut ended = 0;
    let single = call(1, "eth_call", "[]");
    for body in [single.clone(), format!("[{single}]")] {
        for (shape, request) in shapes(&body) {
            let mut client = proxy.client().await;
            let asked = Instant::now();
            client.send(request).await;
            let broken = client.try_response().await;
            let took = asked.elapsed();
            assert!(matches!(broken, Err(Broken::Closed(_) | Broken::Reset)), "{shape}: {body}");
            assert!((seconds(29.0)..seconds(32.0)).contains(&took), "{shape}: {body}: ended after {took:?}");
            ended += 1;
            until("the node's connection is closed", async || left.load(SeqCst) == ended).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_slowly_is_not_cut_however_long_it_takes() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| {
        let (head, tail) = long(seen);
        Reply::act(async move |mut io| {
            io.write_all(&head).await.ok()?;
            for piece in tail.chunks(tail.len().div_ceil(2)) {
                sleep(seconds(19.0)).await;
                io.write_all(piece).await.ok()?;
            }
            Some(io)
        })
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    let single = call(1, "eth_call", "[]");
    for body in [single.clone(), format!("[{single}]")] {
        for (shape, request) in shapes(&body) {
            let mut client = proxy.client().await;
            client.send(request).await;
            let length = client.try_response().await.map(|response| response.body.len());
            assert!(length.as_ref().is_ok_and(|length| *length > 1_000_000), "{shape}: {length:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_may_take_as_long_as_the_settings_say_in_a_batch_too() {
    const SETTINGS: &str = "[calls]\ntimeout = \"90s\"\nattempt_timeout = \"60s\"\n";
    let net = Net::default();
    let origin = Origin::within(&net, |seen| {
        let bytes = ok(answer(seen.id(), "1"));
        Reply::act(async move |mut io| {
            sleep(seconds(36.0)).await;
            io.write_all(&bytes).await.ok()?;
            Some(io)
        })
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], SETTINGS).await;
    let calls = [1, 2].map(|id| call(id, "eth_call", "[]"));
    let answers = [1, 2].map(|id| answer(id, "1"));
    for (body, expected) in
        [(calls[0].clone(), answers[0].clone()), (format!("[{}]", calls.join(",")), format!("[{}]", answers.join(",")))]
    {
        for (shape, request) in shapes(&body) {
            let mut client = proxy.client().await;
            let asked = Instant::now();
            client.send(request).await;
            let got = client.try_response().await.map(|response| response.text());
            assert_eq!(got, Ok(expected.clone()), "{shape}, after {:?}", asked.elapsed());
        }
    }
}

/// A gateway's answer for a node that is not there yet.
fn starting() -> Vec<u8> {
    response("503 Service Unavailable", "", "starting")
}

#[tokio::test(start_paused = true)]
async fn a_call_outlasts_nodes_that_start_behind_their_gateways() {
    for (count, for_all) in [(1, true), (1, false), (2, true), (2, false), (4, true), (4, false)] {
        let net = Net::default();
        let dawn = Instant::now();
        let mut origins = Vec::new();
        for _ in 0..count {
            origins.push(
                Origin::within(&net, move |seen| match dawn.elapsed() < seconds(8.0) {
                    true => Reply::Bytes(starting()),
                    false => Reply::result(seen, "\"well\""),
                })
                .await,
            );
        }
        let proxy = Proxy::over(&net, origins.iter().map(Origin::url), "").await;
        sleep(seconds(3.0)).await;
        // The gateway says the same to probes, or lets those through.
        origins.iter().filter(|_| for_all).for_each(|origin| origin.ail(Some(starting())));
        let asked = Instant::now();
        let answered = async { (proxy.post(call(1, "eth_call", "[]")).await.text(), asked.elapsed()) };
        let recovers = async {
            sleep(seconds(5.0)).await;
            origins.iter().for_each(|origin| origin.ail(None));
        };
        let ((text, took), ()) = tokio::join!(answered, recovers);
        assert_eq!(text, answer(1, "\"well\""), "{count} nodes, probes too: {for_all}, after {took:?}");
        assert!((seconds(4.9)..seconds(9.0)).contains(&took), "{count} nodes, probes too: {for_all}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_no_gateway_lets_through_ends_after_the_hold_time() {
    let net = Net::default();
    let origin = Origin::within(&net, |_| Reply::Bytes(starting())).await;
    let proxy = Proxy::over(&net, [origin.url()], "[calls]\nhold = \"6s\"\n").await;
    let asked = Instant::now();
    let refused = proxy.post(call(1, "eth_call", "[]")).await;
    let took = asked.elapsed();
    assert_eq!((refused.status, &refused.json()["error"]["data"]["reason"]), (503, &"attempts_failed".into()));
    assert!((seconds(5.9)..seconds(7.0)).contains(&took), "{took:?}");
    let asks = origin.count("eth_call");
    assert!((5..60).contains(&asks), "{asks} attempts in six seconds");
}

#[tokio::test(start_paused = true)]
async fn the_hold_time_begins_when_a_call_begins_to_wait() {
    let net = Net::default();
    let (first, dawn) = (AtomicUsize::new(0), Instant::now());
    let origin = Origin::within(&net, move |seen| {
        if dawn.elapsed() >= seconds(8.0) {
            return Reply::result(seen, "\"well\"");
        }
        // The first attempt alone takes most of the hold time.
        let pause = if first.fetch_add(1, SeqCst) == 0 { seconds(5.0) } else { Duration::ZERO };
        Reply::act(async move |mut io| {
            sleep(pause).await;
            io.write_all(&starting()).await.ok()?;
            Some(io)
        })
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], "[calls]\nhold = \"6s\"\n").await;
    let answered = proxy.post(call(1, "eth_call", "[]")).await;
    assert_eq!(answered.text(), answer(1, "\"well\""), "after {:?}", dawn.elapsed());
}

const SEND: &str = "eth_sendTransaction";

/// Sends `body` while no node serves, from a client that leaves before one does and from one that
/// stays. In which shapes the transaction in it was sent for the one that had left.
async fn sent_for_who_left(body: &str) -> Vec<&'static str> {
    let mut sent = Vec::new();
    for (shape, request) in shapes(body) {
        let net = Net::default();
        let origin = Origin::within(&net, |seen| Reply::result(seen, "\"0x5e\"")).await;
        origin.ail(Some(starting()));
        let proxy = Proxy::launch(&net, &nodes([origin.url()])).await;
        sleep(seconds(1.0)).await;
        let (mut leaves, mut stays) = (proxy.client().await, proxy.client().await);
        leaves.send(&request).await;
        stays.send(&request).await;
        until("both wait", async || proxy.metric("steadfast_held_calls", "").await >= 2.0).await;
        drop(leaves);
        sleep(seconds(1.0)).await;
        assert_eq!(origin.count(SEND), 0);
        origin.ail(None);
        assert!(stays.response().await.text().contains("\"0x5e\""), "{shape}: {body}");
        sleep(seconds(5.0)).await;
        // The calls of both are counted, whatever became of them.
        let counted = proxy.metric("steadfast_calls_total", &format!("method=\"{SEND}\"")).await;
        assert!((counted - 2.0).abs() < 0.5, "{shape}: {body}: {counted} calls were counted");
        if origin.count(SEND) != 1 {
            sent.push(shape);
        }
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_is_never_sent_once_its_client_has_left() {
    assert_eq!(sent_for_who_left(&call(1, SEND, "[{}]")).await, Vec::<&str>::new());
}

#[tokio::test(start_paused = true)]
async fn a_call_waiting_in_a_batch_dies_with_its_client() {
    let (read, transaction) = (call(0, "eth_call", "[]"), call(1, SEND, "[{}]"));
    for body in [format!("[{transaction}]"), format!("[{read},{transaction}]")] {
        assert_eq!(sent_for_who_left(&body).await, Vec::<&str>::new(), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closed_its_side_has_half_a_minute() {
    for (shape, request) in shapes(&call(1, "eth_call", "[]")) {
        let net = Net::default();
        let origin = Origin::within(&net, |seen| {
            let bytes = ok(answer(seen.id(), "\"late\""));
            Reply::act(async move |mut io| {
                sleep(seconds(25.0)).await;
                io.write_all(&bytes).await.ok()?;
                Some(io)
            })
        })
        .await;
        let settings = "[calls]\ntimeout = \"5m\"\nattempt_timeout = \"5m\"\nhold = \"1s\"\n";
        let proxy = Proxy::over(&net, [origin.url()], settings).await;
        let gone = async || proxy.metric("steadfast_calls_total", "outcome=\"client_gone\"").await;
        let mut client = proxy.client().await;
        client.send(&request).await;
        client.io.shutdown().await.unwrap();
        assert_eq!(client.response().await.text(), answer(1, "\"late\""), "{shape}");
        assert!(gone().await < 0.5, "{shape}");
        // A node that answers no more.
        let origin = Origin::within(&net, |_| Reply::act(async |_io| std::future::pending().await)).await;
        let proxy = Proxy::over(&net, [origin.url()], settings).await;
        let gone = async || proxy.metric("steadfast_calls_total", "outcome=\"client_gone\"").await;
        let mut client = proxy.client().await;
        client.send(&request).await;
        client.io.shutdown().await.unwrap();
        sleep(seconds(29.0)).await;
        assert!(gone().await < 0.5, "{shape}");
        sleep(seconds(2.0)).await;
        assert!(gone().await > 0.5, "{shape}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_may_send_all_and_reads_why() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| Reply::result(seen, "[]")).await;
    let small = "[calls]\nmax_body = \"1KiB\"\nmax_held_bytes = \"1MiB\"\n";
    let proxy = Proxy::over(&net, [origin.url()], small).await;
    let body = call(1, "eth_call", &format!("[\"{}\"]", "x".repeat(400_000)));
    let long = format!("GET /{} HTTP/1.1\r\nHost: p\r\n\r\n", "x".repeat(400_000));
    for (request, status) in
        [(long.into_bytes(), 414), (chunked("", body.as_bytes(), 9_000), 413), (post("/", body.as_bytes()), 413)]
    {
        let mut client = proxy.client().await;
        // A client that writes before it reads, and gives up when it cannot.
        client.send(&request).await;
        assert_eq!(client.response().await.status, status);
        assert!(client.is_closed().await);
    }
    assert_eq!(origin.count("eth_call"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closed_its_side_is_told_all_of_a_slow_answer() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| {
        let (head, tail) = long(seen);
        Reply::act(async move |mut io| {
            io.write_all(&head).await.ok()?;
            for piece in tail.chunks(50_000) {
                sleep(seconds(9.0)).await;
                io.write_all(piece).await.ok()?;
            }
            Some(io)
        })
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    for (shape, request) in shapes(&call(1, "eth_call", "[]")) {
        let mut client = proxy.client().await;
        client.send(request).await;
        client.io.shutdown().await.unwrap();
        let mut all = Vec::new();
        client.io.read_to_end(&mut all).await.unwrap();
        let count = all.iter().filter(|byte| **byte == b's').count();
        assert!(count >= 1_000_000, "{shape}: {count}");
    }
}

/// Settings under which no long answer finds room.
const NO_ROOM: &str = "max_client_memory = \"64KiB\"\n";

#[tokio::test(start_paused = true)]
async fn a_long_answer_without_room_is_an_answer_of_its_node() {
    let net = Net::default();
    let long = format!("\"{}\"", "a".repeat(250_000));
    let text = long.clone();
    let first = Origin::within(&net, move |seen| {
        let bytes = ok(answer(seen.id(), &text));
        Reply::act(async move |mut io| {
            sleep(seconds(23.0)).await;
            io.write_all(&bytes).await.ok()?;
            Some(io)
        })
    })
    .await;
    let second = Origin::within(&net, |seen| {
        let bytes = ok(answer(seen.id(), "1"));
        Reply::act(async move |mut io| {
            sleep(seconds(6.0)).await;
            io.write_all(&bytes).await.ok()?;
            Some(io)
        })
    })
    .await;
    let proxy = Proxy::launch(&net, &[NO_ROOM, &nodes([first.url(), second.url()])].concat()).await;
    until("both are up", async || proxy.verdicts().await == ["up", "up"]).await;
    let refused = proxy.post(call(1, "eth_call", "[]")).await;
    assert_eq!(refused.json()["error"]["data"]["reason"], "max_client_memory", "{}", refused.text());
    assert_eq!((first.seen().len(), second.seen().len()), (1, 1), "the second was asked beside the first");
    let attempts = async |labels: &str| proxy.metric("steadfast_attempts_total", labels).await;
    assert!(attempts("node=\"el-1\",outcome=\"answered\"").await > 0.5);
    assert!(attempts("node=\"el-1\",outcome=\"timeout\"").await < 0.5);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_may_be_sent_stays_so_without_room() {
    let net = Net::default();
    let first = Origin::within(&net, |_| Reply::act(async |_io| None)).await;
    let long = format!("\"{}\"", "a".repeat(250_000));
    let second = Origin::within(&net, move |seen| Reply::result(seen, &long)).await;
    let proxy = Proxy::launch(&net, &[NO_ROOM, &nodes([first.url(), second.url()])].concat()).await;
    until("both are up", async || proxy.verdicts().await == ["up", "up"]).await;
    let refused = proxy.post(call(1, "eth_sendRawTransaction", "[\"0x02\"]")).await;
    assert_eq!(refused.json()["error"]["data"]["reason"], "outcome_unknown", "{}", refused.text());
}
