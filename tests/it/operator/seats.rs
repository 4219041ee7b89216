//! Which client makes room for others: a client that sends at a fair rate is not idle.

use std::time::Duration;

use tokio::time::sleep;

use super::{answer, well};
use crate::common::{
    client::{Client, ROUNDABOUT, call, with_headers},
    proxy::nodes,
    sim::{Net, Proxy},
    until,
};

async fn small_door(most: usize) -> (Net, crate::common::origin::Origin, Proxy) {
    let net = Net::default();
    let origin = well(&net).await;
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
