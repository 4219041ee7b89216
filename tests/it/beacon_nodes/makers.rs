//! Signed blocks, of which one node may have the payload: the node that made the block.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use tokio::time::sleep;

use crate::common::rest::{Exchange, Node, ask, json, over, request, send};

const MAKE: &str = "/eth/v3/validator/blocks/7?randao_reveal=0x00";
const BLINDED: &str = "/eth/v2/beacon/blinded_blocks";
const BLOCKS: &str = "/eth/v2/beacon/blocks";
const NO_PAYLOAD: (&str, &str) = ("400 Bad", r#"{"code":400,"message":"no builder URL"}"#);
const TAKEN: (&str, &str) = ("200 OK", "");
const BUSY: (&str, &str) = ("503 Busy", "{}");

/// A node that makes a block after `millis`, or fails to, and gives these answers to signed blocks,
/// the last one ever again.
async fn node(millis: u64, block: &'static str, signed: &'static [(&'static str, &'static str)]) -> Node {
    let turn = AtomicUsize::new(0);
    Node::paced(3, move |exchange: Exchange| {
        let (status, body) = if exchange.asked.method == "POST" {
            signed[turn.fetch_add(1, SeqCst).min(signed.len() - 1)]
        } else {
            (block, "{}")
        };
        async move {
            if exchange.asked.method == "GET" {
                sleep(Duration::from_millis(millis)).await;
            }
            exchange.reply(json(status, body)).await
        }
    })
    .await
}

fn posts(node: &Node) -> usize {
    node.asked().iter().filter(|asked| asked.method == "POST").count()
}

#[tokio::test]
async fn a_signed_block_goes_to_the_node_that_made_it() {
    // The node of the view fails over the block, or is slower than the other.
    for (millis, block) in [(0, "500 Oops"), (2000, "200 OK")] {
        for path in [BLINDED, BLOCKS, "/eth/v1/beacon/execution_payload_envelopes"] {
            let (a, b) = (node(millis, block, &[NO_PAYLOAD]).await, node(0, "200 OK", &[TAKEN]).await);
            let proxy = over(&[&a, &b], "").await;
            assert_eq!(ask(&proxy, "GET", MAKE).await.status, 200);
            let answer = send(&proxy, request("POST", path, "", "{}")).await;
            assert_eq!((answer.status, posts(&a), posts(&b)), (200, 0, 1), "{block} {path}");
            // All else stays where it was.
            assert_eq!(
                send(&proxy, request("POST", "/eth/v1/beacon/pool/voluntary_exits", "", "{}")).await.status,
                400
            );
            assert_eq!((posts(&a), posts(&b)), (1, 1));
        }
    }
}

#[tokio::test]
async fn only_the_maker_refuses_a_blinded_block_for_good() {
    for (path, maker, status) in [
        // The maker takes the block the second time.
        (BLINDED, &[BUSY, TAKEN][..], 200),
        (BLINDED, &[BUSY], 400),
        (BLINDED, &[NO_PAYLOAD], 400),
        // Another node can judge a whole block.
        (BLOCKS, &[BUSY, TAKEN], 400),
    ] {
        let (a, b) = (node(0, "500 Oops", &[NO_PAYLOAD]).await, node(0, "200 OK", maker).await);
        let proxy = over(&[&a, &b], "[calls]\nhold = \"2s\"\n").await;
        assert_eq!(ask(&proxy, "GET", MAKE).await.status, 200);
        let answer = send(&proxy, request("POST", path, "", "{}")).await;
        assert_eq!(answer.status, status, "{path} {maker:?}: {}", answer.text());
        if status == 400 {
            assert_eq!(answer.text(), NO_PAYLOAD.1, "{path} {maker:?}");
        }
        assert_eq!(posts(&a), usize::from(maker[0] == BUSY), "{path} {maker:?}");
    }
}
