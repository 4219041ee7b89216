//! Whose place a newcomer gets where there are as many WebSockets as may be.

use std::time::Duration;

use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep},
};

use super::string;
use crate::common::{
    client::{Client, call},
    origin::{Origin, Reply},
    proxy::nodes,
    sim::{Net, Proxy},
    until,
    ws::{frame, upgrade},
};

type Raw = Client<tokio::io::DuplexStream>;

/// A node whose results are strings as long as the params say, and a proxy that lets so many WebSockets in.
async fn full(most: usize) -> (Net, Origin, Proxy) {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| {
        let length = seen.params().trim_matches(['[', ']']).parse().unwrap();
        Reply::result(seen, &string(length))
    })
    .await;
    let proxy = Proxy::launch(&net, &format!("{}[ws]\nmax_connections = {most}\n", nodes([origin.url()]))).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    (net, origin, proxy)
}

async fn raw(proxy: &Proxy) -> Raw {
    proxy.client().await.upgraded("/").await
}

/// So many who come at the same time; each gets a WebSocket, and none of them has to wait.
async fn come(proxy: &Proxy, count: usize) -> Vec<Raw> {
    let start = Instant::now();
    let mut all = Vec::new();
    for _ in 0..count {
        let mut client = proxy.client().await;
        client.send(upgrade("/", "")).await;
        all.push(client);
    }
    for (place, client) in all.iter_mut().enumerate() {
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{place}: {head}");
    }
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    all
}

/// Reads to the end of the connection.
async fn rest(client: &mut Raw) -> Vec<u8> {
    let mut rest = std::mem::take(&mut client.read);
    client.io.read_to_end(&mut rest).await.unwrap();
    rest
}

#[tokio::test(start_paused = true)]
async fn an_upload_at_a_fair_rate_keeps_its_place_and_drops_do_not() {
    let (_net, _origin, proxy) = full(3).await;
    let mut text = call(1, "eth_call", "[1]");
    text.push_str(&" ".repeat(40_000));
    let message = frame(0x81, text.as_bytes());
    let pieces = [frame(0x01, &text.as_bytes()[..20_000]), frame(0x80, &text.as_bytes()[20_000..])].concat();
    for message in [message, pieces] {
        let mut honest = raw(&proxy).await;
        let mut drips = raw(&proxy).await;
        drips.send(&message[..1000]).await;
        let mut newcomers = Vec::new();
        for piece in message.chunks(2000) {
            honest.send(piece).await;
            if newcomers.len() < 2 {
                drips.send("a").await;
            }
            sleep(Duration::from_secs(1)).await;
            newcomers.push(raw(&proxy).await);
        }
        let (first, answer) = honest.frame().await;
        assert!(first == 0x81 && answer.ends_with(b"\"x\"}"), "{answer:?}");
        assert_eq!(drips.close_code().await, 1013);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_at_a_fair_rate_keeps_its_place() {
    // What is on its way lasts for some seconds.
    let (_net, _origin, proxy) = full(8).await;
    let mut reads = raw(&proxy).await;
    reads.send(frame(0x81, call(1, "eth_call", "[500000]").as_bytes())).await;
    let mut newcomers = Vec::new();
    let mut taken = 0;
    while taken < 490_000 {
        taken += reads.bytes(20_000).await.len();
        sleep(Duration::from_secs(1)).await;
        newcomers.push(raw(&proxy).await);
    }
    assert!(newcomers.len() > 20);
}

#[tokio::test(start_paused = true)]
async fn idle_clients_that_do_not_read_keep_nobody_waiting() {
    const MANY: usize = 80;
    let (_net, _origin, proxy) = full(MANY).await;
    let mut hogs = Vec::new();
    for _ in 0..MANY {
        let mut hog = raw(&proxy).await;
        hog.send(frame(0x81, call(1, "eth_call", "[150000]").as_bytes())).await;
        hogs.push(hog);
    }
    sleep(Duration::from_secs(3)).await;
    let newcomers = come(&proxy, MANY).await;
    // A few may still take what waits for them, and hear why they had to go.
    let mut told = 0;
    for hog in &mut hogs {
        let rest = rest(hog).await;
        if rest.len() > 150_000 {
            told += 1;
            let reason = b"ws.max_connections is reached";
            assert!(rest[150_000..].windows(reason.len()).any(|part| part == reason));
        }
    }
    assert_eq!(told, 16);
    // Those who come next find none in their way that was not told in time.
    drop(newcomers);
    until("all have left", async || proxy.metric("steadfast_ws_connections", "").await == 0.0).await;
}

#[tokio::test(start_paused = true)]
async fn clients_that_do_not_take_leave_keep_nobody_waiting() {
    const MANY: usize = 80;
    let (_net, _origin, proxy) = full(MANY).await;
    let mut broken = Vec::new();
    for _ in 0..MANY {
        let mut client = raw(&proxy).await;
        // A frame that no client may send: the close frame is written, and the client's is awaited.
        client.send([0xf1, 0x80]).await;
        assert_eq!(client.close_code().await, 1002);
        broken.push(client);
    }
    let _newcomers = come(&proxy, MANY).await;
    let count = proxy.metric("steadfast_client_connections_ended_total", "reason=\"crowded\"").await;
    assert!((count - MANY as f64).abs() < 0.5, "{count}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_on_its_way_comes_before_the_farewell() {
    let (_net, _origin, proxy) = full(1).await;
    let mut first = raw(&proxy).await;
    for id in 0..10 {
        first.send(frame(0x81, call(id, "eth_call", "[100000]").as_bytes())).await;
    }
    sleep(Duration::from_secs(1)).await;
    let _next = come(&proxy, 1).await;
    for _ in 0..10 {
        assert_eq!(first.frame().await.1.len(), super::answer(1, &string(100_000)).len());
    }
    assert_eq!(first.close_code().await, 1013);
}

#[tokio::test(start_paused = true)]
async fn websocket_leaves_its_place_among_http_at_once() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| Reply::result(seen, "[]")).await;
    let settings = format!("max_connections = 1\n{}[ws]\nmax_connections = 10\n", nodes([origin.url()]));
    let proxy = Proxy::launch(&net, &settings).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let mut all = Vec::new();
    for _ in 0..10 {
        all.push(proxy.ws().await);
    }
    for ws in &mut all {
        assert_eq!(ws.call("eth_call", "[]").await.to_string(), "[]");
    }
    drop(all);
    // Also while its handshake is on the way to it.
    let mut slow = Client::over(proxy.connect_through(16).await);
    slow.send(upgrade("/", "")).await;
    until("the WebSocket has its place", async || proxy.metric("steadfast_ws_connections", "").await == 1.0).await;
    assert_eq!(proxy.post(call(1, "eth_call", "[]")).await.status, 200);
    assert!(slow.head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(proxy.metric("steadfast_client_connections_ended_total", "reason=\"crowded\"").await, 0.0);
}
