//! The share of one client in connections and waiting time.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use super::{answer, well};
use crate::common::{
    client::{Client, ROUNDABOUT, call, with_headers},
    origin::{Origin, Reply, ok},
    proxy::nodes,
    sim::{Net, Proxy},
    until,
    ws::{frame, upgrade},
};

#[tokio::test(start_paused = true)]
async fn where_there_are_as_many_as_may_be_the_longest_idle_goes() {
    const ENDED: &str = "steadfast_client_connections_ended_total";
    let net = Net::default();
    let origin = well(&net).await;
    let settings = format!("max_connections = 3\n{}", nodes([origin.url()]));
    let proxy = Proxy::launch(&net, &settings).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let ask = async |client: &mut Client<_>, headers: &str| {
        client.send(with_headers("/", headers, call(1, "eth_call", "[]").as_bytes())).await;
        assert_eq!(client.response().await.text(), answer(1, "\"well\""));
        sleep(Duration::from_secs(1)).await;
    };
    let (mut first, mut second) = (proxy.client().await, proxy.client().await);
    ask(&mut first, "").await;
    ask(&mut second, ROUNDABOUT).await;
    ask(&mut first, ROUNDABOUT).await;
    // Part of a body is nothing that is under way.
    let mut dripping = proxy.client().await;
    dripping.send("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9000\r\n\r\n{").await;
    sleep(Duration::from_secs(1)).await;
    let mut third = proxy.client().await;
    ask(&mut third, "").await;
    assert!(second.is_closed().await);
    ask(&mut first, "").await;
    dripping.send(" ").await;
    let mut fourth = proxy.client().await;
    ask(&mut fourth, "").await;
    assert!(dripping.is_closed().await);
    ask(&mut first, "").await;
    ask(&mut third, "").await;
    let count = proxy.metric(ENDED, "reason=\"crowded\"").await;
    assert!((count - 2.0).abs() < 0.5, "{count}");
}

/// Sends `begins`, and then `drop` each second; tells after how long the connection is ended, or
/// the client is told that it will be.
async fn drip(net: &Net, proxy: &Proxy, before: &[u8], begins: &[u8], drop: &[u8]) -> Duration {
    let mut io = net.connect(proxy.app.addr().port()).await.unwrap();
    let mut space = [0; 4096];
    if !before.is_empty() {
        io.write_all(before).await.unwrap();
        assert!(io.read(&mut space).await.unwrap() > 0);
    }
    let start = Instant::now();
    io.write_all(begins).await.unwrap();
    while start.elapsed() < Duration::from_secs(200) {
        if timeout(Duration::from_secs(1), io.read(&mut space)).await.is_ok() {
            break;
        }
        io.write_all(drop).await.unwrap();
    }
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn request_that_drips_is_ended() {
    let net = Net::default();
    let origin = well(&net).await;
    let proxy = Proxy::launch(&net, &nodes([origin.url()])).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let head = "POST / HTTP/1.1\r\nhost: localhost\r\n";
    let roundabout = with_headers("/", ROUNDABOUT, call(1, "eth_call", "[]").as_bytes());
    let text = |text: String| text.into_bytes();
    for (what, before, begins, drop) in [
        ("silence", vec![], vec![], &b""[..]),
        ("a head", vec![], text(format!("{head}x: ")), b"a"),
        ("a body", vec![], text(format!("{head}content-length: 9000\r\n\r\n")), b" "),
        ("a line beside the lane", roundabout.clone(), text("GET /".to_owned()), b"a"),
        ("a head beside the lane", roundabout, text(format!("{head}x: ")), b"a"),
        ("a body beside the lane", vec![], text(format!("{head}{ROUNDABOUT}content-length: 9000\r\n\r\n")), b" "),
        ("a body in chunks", vec![], text(format!("{head}transfer-encoding: chunked\r\n\r\n")), b"1\r\n \r\n"),
        ("a message", upgrade("/", "").into_bytes(), vec![0x81, 0xfe, 0x20, 0, 1, 2, 3, 4], b"a"),
        ("fragments", upgrade("/", "").into_bytes(), frame(0x01, b"["), &frame(0x00, b" ")),
        (
            "the end of a long message",
            upgrade("/", "").into_bytes(),
            frame(0x81, &[b' '; 1_000_000])[..900_000].to_vec(),
            b"",
        ),
    ] {
        let took = drip(&net, &proxy, &before, &begins, drop).await;
        assert!((Duration::from_secs(19)..Duration::from_secs(45)).contains(&took), "{what}: {took:?}");
    }
    let slow = proxy.metric("steadfast_client_connections_ended_total", "reason=\"slow_request\"").await;
    assert!(slow > 3.5, "{slow}");
}

#[tokio::test(start_paused = true)]
async fn a_ping_in_two_parts_does_not_hide_the_message_behind_it() {
    let net = Net::default();
    let origin = well(&net).await;
    let proxy = Proxy::launch(&net, &nodes([origin.url()])).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let ping = frame(0x89, b"ping");
    for wait in [18, 22] {
        let mut client = proxy.client().await.upgraded("/").await;
        client.send(&ping[..3]).await;
        sleep(Duration::from_secs(1)).await;
        client.send(&ping[3..]).await;
        sleep(Duration::from_secs(wait)).await;
        let start = Instant::now();
        client.send(&frame(0x81, &[b' '; 9000])[..10]).await;
        assert_eq!(client.close_code().await, 1008);
        let took = start.elapsed();
        assert!((Duration::from_secs(19)..Duration::from_secs(25)).contains(&took), "{took:?} after {wait} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_drops_of_its_answer_is_closed() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| Reply::result(seen, &format!("\"{}\"", "x".repeat(3_000_000)))).await;
    let proxy = Proxy::launch(&net, &nodes([origin.url()])).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    for headers in ["", ROUNDABOUT] {
        let mut io = net.connect(proxy.app.addr().port()).await.unwrap();
        io.write_all(&with_headers("/", headers, call(1, "eth_call", "[]").as_bytes())).await.unwrap();
        let (start, mut space) = (Instant::now(), [0; 10]);
        let mut taken = 0;
        while let Ok(Ok(count @ 1..)) = timeout(Duration::from_secs(1), io.read(&mut space)).await {
            taken += count;
            // Once it was closed, what is on its way is taken at once.
            let is_over = start.elapsed() > Duration::from_secs(200);
            sleep(if is_over { Duration::ZERO } else { Duration::from_secs(1) }).await;
        }
        assert!(taken < 200_000, "{headers:?}: {taken}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_never_sent_on_does_not_hold_its_connection() {
    let net = Net::default();
    let origin = well(&net).await;
    let proxy = Proxy::launch(&net, &nodes([origin.url()])).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let port = proxy.app.addr().port();
    let mut clients = Vec::new();
    net.stick();
    for headers in ["", "Connection: close\r\n", ROUNDABOUT] {
        let mut io = net.connect(port).await.unwrap();
        io.write_all(&with_headers("/", headers, call(1, "eth_call", "[]").as_bytes())).await.unwrap();
        clients.push((headers, io));
    }
    for (headers, mut io) in clients {
        let mut answer = Vec::new();
        let ended = timeout(Duration::from_secs(100), io.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{headers}: the connection is held");
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{headers}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_a_batch_end_while_its_client_takes_nothing() {
    for headers in ["", ROUNDABOUT] {
        let net = Net::default();
        let origin = Origin::within(&net, |seen| match seen.method().as_str() {
            "eth_getLogs" => Reply::result(seen, &format!("\"{}\"", "a".repeat(100_000))),
            _ => {
                let answer = ok(answer(seen.id(), "\"late\""));
                Reply::act(async move |mut io| {
                    sleep(Duration::from_secs(2)).await;
                    io.write_all(&answer).await.ok()?;
                    Some(io)
                })
            }
        })
        .await;
        let proxy = Proxy::launch(&net, &nodes([origin.url()])).await;
        until("the node is up", async || proxy.verdicts().await == ["up"]).await;
        let late = |id: usize| call(id, "eth_call", "[]");
        let calls: Vec<_> = std::iter::once(call(0, "eth_getLogs", "[]")).chain((1..40).map(late)).collect();
        let batch = format!("[{}]", calls.join(","));
        let mut client = Client::over(proxy.connect_through(1000).await);
        client.send(with_headers("/", headers, batch.as_bytes())).await;
        until("the calls are under way", async || proxy.in_flight().await >= 15).await;
        let begun = Instant::now();
        until("the calls have ended", async || proxy.in_flight().await == 0).await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        // Those whose turn has not come have not begun.
        assert_eq!(origin.count("eth_call"), 16, "{headers:?}");
        let response = client.response().await;
        assert_eq!(response.json().as_array().map(Vec::len), Some(40), "{headers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_who_come_at_once_find_the_places_of_the_idle() {
    const OLD: usize = 80;
    const NEW: usize = 60;
    let net = Net::default();
    let origin = well(&net).await;
    let settings = format!("max_connections = {OLD}\n{}[ws]\nmax_connections = {OLD}\n", nodes([origin.url()]));
    let proxy = Proxy::launch(&net, &settings).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let read = call(1, "eth_call", "[]");
    let mut idle = Vec::new();
    for _ in 0..OLD {
        let mut client = proxy.client().await;
        assert_eq!(client.post(&read).await.status, 200);
        idle.push(client);
    }
    sleep(Duration::from_secs(1)).await;
    let mut new = Vec::new();
    for _ in 0..NEW {
        new.push(proxy.client().await);
    }
    for client in &mut new {
        client.send(with_headers("/", "", read.as_bytes())).await;
    }
    for (place, client) in new.iter_mut().enumerate() {
        assert_eq!(client.try_response().await.map(|response| response.status), Ok(200), "{place}");
    }
    drop((idle, new));
    // WebSockets are no different.
    let mut idle = Vec::new();
    for _ in 0..OLD {
        idle.push(proxy.ws().await);
    }
    sleep(Duration::from_secs(1)).await;
    let mut new = Vec::new();
    for _ in 0..NEW {
        let mut client = proxy.client().await;
        client.send(upgrade("/", "")).await;
        new.push(client);
    }
    for (place, client) in new.iter_mut().enumerate() {
        assert!(client.head().await.starts_with("HTTP/1.1 101 "), "{place}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_readers_and_slow_heads_are_counted_on_every_path() {
    const ENDED: &str = "steadfast_client_connections_ended_total";
    let net = Net::default();
    let origin = Origin::within(&net, |seen| Reply::result(seen, &format!("\"{}\"", "a".repeat(100_000)))).await;
    let proxy = Proxy::launch(&net, &nodes([origin.url()])).await;
    let counted = async |reason: &str| proxy.metric(ENDED, &format!("reason=\"{reason}\"")).await;
    for (headers, expected) in [("", 1.0), (ROUNDABOUT, 2.0)] {
        let mut client = Client::over(proxy.connect_through(1000).await);
        client.send(with_headers("/", headers, call(1, "eth_call", "[]").as_bytes())).await;
        sleep(Duration::from_secs(60)).await;
        assert!((counted("slow_reader").await - expected).abs() < 0.5, "{headers:?}");
    }
    for (headers, expected) in [("", 1.0), (ROUNDABOUT, 2.0)] {
        let mut client = proxy.client().await;
        client.send(with_headers("/", headers, call(1, "web3_sha3", "[\"0x00\"]").as_bytes())).await;
        client.response().await;
        client.send("POST / HTTP/1.1\r\nhost: local").await;
        sleep(Duration::from_secs(60)).await;
        assert!((counted("slow_request").await - expected).abs() < 0.5, "{headers:?}");
    }
}
