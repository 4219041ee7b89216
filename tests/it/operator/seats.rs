//! Which client makes room for others: a client that sends at a fair rate is not idle.

use std::time::Duration;

use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    time::{Instant, sleep},
};

use super::answer;
use crate::common::{
    client::{Client, ROUNDABOUT, call, post, with_headers},
    origin::{Origin, Reply},
    proxy::nodes,
    sim::{Net, Proxy},
    until,
};

/// A node that never answers `eth_getLogs`, and a proxy that lets so many connections in.
async fn small_door(most: usize) -> (Net, Origin, Proxy) {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| match seen.method().as_str() {
        "eth_getLogs" => Reply::act(async |_io| std::future::pending().await),
        _ => Reply::result(seen, "\"well\""),
    })
    .await;
    let proxy = Proxy::launch(&net, &format!("max_connections = {most}\n{}", nodes([origin.url()]))).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    (net, origin, proxy)
}

fn long_call(headers: &str) -> Vec<u8> {
    let mut body = call(1, "eth_call", "[]");
    body.push_str(&" ".repeat(40_000));
    with_headers("/", headers, body.as_bytes())
}

#[tokio::test(start_paused = true)]
async fn an_upload_at_a_fair_rate_keeps_its_place_and_drops_do_not() {
    let (_net, _origin, proxy) = small_door(3).await;
    for headers in ["", ROUNDABOUT] {
        // The first request of a connection, and a later one.
        for before in [false, true] {
            let (mut honest, mut drips) = (proxy.client().await, proxy.client().await);
            if before {
                honest.post(call(1, "eth_call", "[]")).await;
            }
            let request = long_call(headers);
            drips.send(&request[..1000]).await;
            let mut newcomers = Vec::new();
            for piece in request.chunks(2000) {
                honest.send(piece).await;
                if newcomers.len() < 2 {
                    drips.send("a").await;
                }
                sleep(Duration::from_secs(1)).await;
                newcomers.push(proxy.client().await);
            }
            assert_eq!(honest.response().await.text(), answer(1, "\"well\""), "{headers:?} {before}");
            assert!(drips.is_closed().await, "{headers:?} {before}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_begins_after_a_pause_is_no_idle_one() {
    let (_net, _origin, proxy) = small_door(2).await;
    for headers in ["", ROUNDABOUT] {
        let ask = async || {
            let mut client = proxy.client().await;
            client.send(with_headers("/", headers, call(1, "eth_call", "[]").as_bytes())).await;
            assert_eq!(client.response().await.status, 200);
            sleep(Duration::from_secs(1)).await;
            client
        };
        let mut first = ask().await;
        let mut second = ask().await;
        let request = long_call(headers);
        let head = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let (begins, rest) = request.split_at(head);
        first.send(begins).await;
        sleep(Duration::from_secs(1)).await;
        let _third = proxy.client().await;
        assert!(second.is_closed().await, "{headers:?}");
        first.send(rest).await;
        assert_eq!(first.response().await.text(), answer(1, "\"well\""), "{headers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_to_the_beacon_api_keeps_its_place() {
    let net = Net::default();
    let devnet = steadfast::devnet::Devnet::start(
        steadfast::devnet::Options { consensus: 1, ..Default::default() },
        std::sync::Arc::new(net.clone()),
    )
    .await
    .unwrap();
    let url = devnet.cl(0).http_url();
    let settings = format!("max_connections = 3\n[[cl.primary]]\nname = \"cl-1\"\nhttp = \"{url}\"\n");
    let proxy = Proxy::launch(&net, &settings).await;
    let up = async || proxy.admin("/status").await.json()["networks"][0]["cl"]["nodes"][0]["verdict"] == "up";
    until("the node is up", up).await;
    let mut honest: Client<_> = proxy.client().await;
    let body = format!("[{}]", "0,".repeat(20_000));
    let head = "POST /eth/v1/beacon/pool/attestations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json";
    let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let mut newcomers = Vec::new();
    for piece in request.chunks(2000) {
        honest.send(piece).await;
        sleep(Duration::from_secs(1)).await;
        newcomers.push(proxy.client().await);
    }
    // The node's word on what is no list of attestations.
    assert_eq!(honest.response().await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn half_closed_connection_goes_before_idle_ones() {
    let (_net, origin, proxy) = small_door(2).await;
    for (round, headers) in [(1, ""), (2, ROUNDABOUT)] {
        let mut idle = proxy.client().await;
        assert_eq!(idle.post(call(1, "eth_call", "[]")).await.status, 200);
        sleep(Duration::from_secs(5)).await;
        let mut closed = proxy.client().await;
        closed.send(with_headers("/", headers, call(1, "eth_getLogs", "[]").as_bytes())).await;
        until("the node has the call", async || origin.count("eth_getLogs") == round).await;
        closed.io.shutdown().await.unwrap();
        sleep(Duration::from_secs(2)).await;
        assert_eq!(proxy.post(call(1, "eth_call", "[]")).await.status, 200, "{headers:?}");
        assert!(closed.is_closed().await, "{headers:?}");
        assert_eq!(idle.post(call(2, "eth_call", "[]")).await.status, 200, "{headers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_who_come_at_once_each_is_served_or_hears_why_not() {
    const MOST: usize = 20;
    let (_net, _origin, proxy) = small_door(MOST).await;
    let request = post("/", call(1, "eth_call", "[]").as_bytes());
    // The request comes with its connection, or some milliseconds later.
    for late in [0, 5] {
        sleep(Duration::from_secs(1)).await;
        let mut all = Vec::new();
        for place in 0..3 * MOST + late {
            if place < 3 * MOST {
                all.push(proxy.client().await);
            }
            if let Some(place) = place.checked_sub(late) {
                // Some are refused already.
                let _ = all[place].io.write_all(&request).await;
            }
            if late > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        }
        let mut served = 0;
        for (place, client) in all.iter_mut().enumerate() {
            match client.try_response().await.map(|response| response.status) {
                Ok(200) => served += 1,
                Ok(503) => {}
                other => panic!("{place}: {other:?}, {late} ms late"),
            }
        }
        assert!(served >= MOST, "{served}, {late} ms late");
    }
}

/// A door that has become smaller, full of connections that have calls under way and do not take
/// their last words: who comes has to wait.
async fn stuck_door(many: usize, now: usize) -> (Net, Origin, Proxy, Vec<Client<DuplexStream>>) {
    let (net, origin, proxy) = small_door(many).await;
    let mut stuck = Vec::new();
    for _ in 0..many {
        let mut client = Client::over(proxy.connect_through(16).await);
        client.send(with_headers("/", "", call(1, "eth_getLogs", "[]").as_bytes())).await;
        stuck.push(client);
    }
    until("the node has all calls", async || origin.count("eth_getLogs") == many).await;
    proxy.reload(&format!("max_connections = {now}\n{}", nodes([origin.url()]))).await;
    (net, origin, proxy, stuck)
}

#[tokio::test(start_paused = true)]
async fn connection_that_waits_for_a_place_holds_up_no_other() {
    let (_net, _origin, proxy, _stuck) = stuck_door(40, 2).await;
    let begun = Instant::now();
    // All but one have to go for this one, and none for that one.
    let mut waits = proxy.client_at(2).await;
    let mut refused = proxy.client().await;
    let told = refused.response().await;
    assert_eq!((told.status, told.header("retry-after")), (503, Some("1")));
    assert_eq!(told.json()["error"]["data"]["reason"], "max_connections");
    assert!(refused.is_closed().await);
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    assert_eq!(waits.post(call(1, "eth_call", "[]")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_full_waiting_room_closes_the_door_for_a_moment_only() {
    let (_net, _origin, proxy, _stuck) = stuck_door(100, 20).await;
    let begun = Instant::now();
    // They say nothing.
    let mut wait = Vec::new();
    for host in 2..=9 {
        wait.push(proxy.client_at(host).await);
    }
    let mut ninth = proxy.client_at(10).await;
    ninth.send(post("/", call(1, "eth_call", "[]").as_bytes())).await;
    assert!(ninth.is_silent().await && begun.elapsed() < Duration::from_millis(400), "nobody waits");
    assert_eq!(ninth.response().await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn connection_that_waits_for_a_place_hears_of_a_shutdown() {
    let (_net, _origin, proxy, _stuck) = stuck_door(40, 2).await;
    let mut waits = proxy.client_at(2).await;
    waits.send(post("/", call(1, "eth_call", "[]").as_bytes())).await;
    sleep(Duration::from_millis(100)).await;
    let (told, ()) = tokio::join!(waits.response(), proxy.app.shutdown());
    assert_eq!((told.status, &told.json()["error"]["data"]["reason"]), (503, &"shutting_down".into()));
}
