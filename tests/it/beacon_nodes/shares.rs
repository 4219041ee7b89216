//! One client's answers, messages and waits take nothing of another's share.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep, timeout},
};

use super::publishing::ATTESTATIONS;
use crate::common::{
    proxy::Proxy,
    rest::{Exchange, Node, ask, json, over, request, response, send, status},
    until,
};

const PREPARE: &str = "/eth/v1/validator/prepare_beacon_proposer";
const EXITS: &str = "/eth/v1/beacon/pool/voluntary_exits";
const BLOCK: &str = "/eth/v2/beacon/blocks/head";
const DATA: &str = "/eth/v1/validator/attestation_data?slot=1&committee_index=0";

/// The status for a message from that loopback address.
async fn from(proxy: &Proxy, host: u8, path: &str, body: &[u8]) -> u16 {
    let mut client = proxy.client_at(host).await;
    client.send(request("POST", path, "", body)).await;
    client.response().await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_leaves_the_room_for_bodies() {
    let block = response("200 OK", "", vec![b'x'; 7_700_000]);
    let node = Node::start(move |mut exchange: Exchange| {
        let block = block.clone();
        async move {
            exchange.body().await;
            let is_block = exchange.asked.target == BLOCK;
            exchange.reply(if is_block { block } else { json("200 OK", "") }).await
        }
    })
    .await;
    let proxy = over(&[&node], "[calls]\nmax_held_bytes = \"17MiB\"\n").await;
    let body = vec![b'x'; 300_000];
    let mut readers = Vec::new();
    for count in 1..=8 {
        let mut client = proxy.client_at(9).await;
        client.send(request("GET", BLOCK, "", "")).await;
        readers.push(client);
        until("the node has sent the block", async || node.count() == count).await;
        sleep(Duration::from_millis(100)).await;
    }
    for host in [1, 9] {
        assert_eq!(from(&proxy, host, PREPARE, &body).await, 200, "127.0.0.{host}");
    }
}

#[tokio::test]
async fn one_address_leaves_places_for_the_messages_of_others() {
    let node = Node::start(|mut exchange: Exchange| async move {
        exchange.body().await;
        if exchange.asked.target == EXITS { exchange.hang().await } else { exchange.reply(json("200 OK", "")).await }
    })
    .await;
    let proxy = over(&[&node], "[calls]\nmax_held = 16\n").await;
    for count in 1..=20 {
        let mut client = proxy.client_at(9).await;
        client.send(request("POST", EXITS, "", "[1]")).await;
        if count <= 14 {
            until("the node has the message", async || node.count() == count).await;
        } else {
            assert_eq!(client.response().await.status, 503, "{count}");
        }
        // The message goes on without the client.
        drop(client);
    }
    assert_eq!(node.count(), 14);
    for path in [ATTESTATIONS, PREPARE] {
        assert_eq!(from(&proxy, 1, path, b"[1]").await, 200, "{path}");
    }
}

#[tokio::test]
async fn a_read_ends_some_seconds_after_its_client_has_left() {
    for path in [DATA, "/eth/v2/debug/beacon/states/head", "/eth/v1/node/peers"] {
        let node = Node::start(Exchange::hang).await;
        let proxy = over(&[&node], "").await;
        let mut client = proxy.client().await;
        client.send(request("GET", path, "", "")).await;
        until("the node has the request", async || node.count() == 1).await;
        client.io.shutdown().await.unwrap();
        let start = Instant::now();
        let ends = async {
            while status(&proxy, "cl-1").await["in_flight"] != 0 {
                sleep(Duration::from_millis(50)).await
            }
        };
        timeout(Duration::from_secs(9), ends).await.unwrap_or_else(|_| panic!("{path} goes on"));
        assert!(start.elapsed() > Duration::from_secs(3), "{path}: {:?}", start.elapsed());
    }
    // A script that closes its side and waits has its answer.
    let node = Node::start(|exchange: Exchange| async {
        sleep(Duration::from_secs(2)).await;
        exchange.reply(json("200 OK", r#"{"data":1}"#)).await
    })
    .await;
    let proxy = over(&[&node], "").await;
    let mut client = proxy.client().await;
    client.send(request("GET", "/eth/v1/node/peers", "", "")).await;
    client.io.shutdown().await.unwrap();
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn a_message_for_all_has_an_answer_in_time() {
    let (first, second) = (Node::paced(12, Exchange::hang).await, Node::paced(12, Exchange::hang).await);
    let proxy = over(&[&first, &second], "[calls]\ntimeout = \"2s\"\n").await;
    let start = Instant::now();
    let answer = timeout(Duration::from_secs(6), send(&proxy, request("POST", PREPARE, "", "[1]"))).await;
    let answer = answer.expect("an answer within calls.timeout");
    assert_eq!((answer.status, first.count(), second.count()), (504, 1, 1));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(ask(&proxy, "GET", "/eth/v1/node/health").await.status, 504);
}
