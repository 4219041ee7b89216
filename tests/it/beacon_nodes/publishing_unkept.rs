//! Signed messages that find no room, or are too long to be kept.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::publishing::ATTESTATIONS;
use crate::common::{
    proxy::Proxy,
    rest::{Exchange, Node, json, over, request},
    until,
};

const BLOCKS: &str = "/eth/v2/beacon/blocks";
const PREPARE: &str = "/eth/v1/validator/prepare_beacon_proposer";
const MIB: usize = 1 << 20;
/// The least room that may be set.
const ROOM: &str = "max_held_bytes = \"17MiB\"\n";

async fn well() -> Node {
    Node::start(|exchange: Exchange| exchange.reply(json("200 OK", ""))).await
}

/// The answer to a block of 16 MiB, which has no room.
async fn long_block(proxy: &Proxy) -> (u16, String) {
    let mut client = proxy.client().await;
    client.send(request("POST", BLOCKS, "", vec![b'x'; 16 * MIB])).await;
    let answer = client.response().await;
    (answer.status, answer.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_without_room_is_lost_by_no_single_node() {
    let dies = Node::start(|mut exchange: Exchange| async move {
        exchange.piece().await;
        None
    })
    .await;
    let takes_nothing = Node::start(|_| async {
        sleep(Duration::from_secs(300)).await;
        None
    })
    .await;
    let hangs = Node::start(|mut exchange: Exchange| async move {
        exchange.body().await;
        exchange.hang().await
    })
    .await;
    let busy =
        Node::start(|exchange: Exchange| exchange.reply(json("503 Busy", r#"{"code":503,"message":"busy"}"#))).await;
    for first in [dies, takes_nothing, hangs, busy] {
        let second = well().await;
        let proxy = over(&[&first, &second], &format!("[calls]\n{ROOM}")).await;
        let answer = timeout(Duration::from_secs(15), long_block(&proxy)).await.expect("an answer in time");
        assert_eq!(answer.0, 200, "{}", answer.1);
        assert_eq!((first.count(), second.asked()[0].body.len()), (1, 16 * MIB));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_on_a_block_without_room_are_understood() {
    let says = |word: &'static str| {
        Node::start(move |exchange: Exchange| {
            exchange.reply(json("400 Bad Request", &format!(r#"{{"code":400,"message":"{word}"}}"#)))
        })
    };
    for (words, status) in [
        (["block is already known", "oops"], 200),
        (["unknown parent", "invalid signature"], 400),
        (["oops", "unknown parent"], 400),
    ] {
        let (first, second) = (says(words[0]).await, says(words[1]).await);
        let proxy = over(&[&first, &second], &format!("[calls]\n{ROOM}")).await;
        let answer = long_block(&proxy).await;
        assert_eq!(answer.0, status, "{words:?}: {}", answer.1);
        assert_eq!((first.count(), second.count()), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_without_room_is_answered_in_time() {
    let node = Node::start(|mut exchange: Exchange| async move {
        exchange.body().await;
        exchange.hang().await
    })
    .await;
    let times = "timeout = \"3s\"\nattempt_timeout = \"2s\"\nhold = \"1s\"\n";
    let proxy = over(&[&node], &format!("[calls]\n{ROOM}{times}")).await;
    let start = Instant::now();
    let answer = timeout(Duration::from_secs(20), long_block(&proxy)).await.expect("an answer in time");
    assert_eq!((answer.0, node.count()), (502, 1));
    assert!(start.elapsed() > Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upload_makes_room_for_another() {
    for host in [9, 1] {
        let node = well().await;
        let proxy = over(&[&node], &format!("[calls]\n{ROOM}")).await;
        let mut slow = proxy.client_at(9).await;
        let whole = request("POST", ATTESTATIONS, "", vec![b'x'; 16 * MIB]);
        slow.send(&whole[..14 * MIB]).await;
        sleep(Duration::from_secs(4)).await;
        let mut client = proxy.client_at(host).await;
        client.send(request("POST", PREPARE, "", vec![b'x'; 5 * MIB / 2])).await;
        let answer = client.response().await;
        assert_eq!(answer.status, 200, "127.0.0.{host}: {}", answer.text());
        assert_eq!(slow.response().await.status, 408);
        until("the node has the other body", async || node.count() == 1).await;
    }
}
