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
const ENVELOPES: &str = "/eth/v1/beacon/execution_payload_envelopes";
const ENVELOPE: &str = "/eth/v1/validator/execution_payload_envelopes/7/0x12";
const WRONG: (&str, &str) = ("400 Bad", r#"{"code":400,"message":"invalid signature"}"#);
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
            (block, r#"{"data":{}}"#)
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
        for path in [BLINDED, BLOCKS, ENVELOPES] {
            let (a, b) = (node(millis, block, &[NO_PAYLOAD]).await, node(0, "200 OK", &[TAKEN]).await);
            let proxy = over(&[&a, &b], "").await;
            assert_eq!(ask(&proxy, "GET", MAKE).await.status, 200);
            let answer = send(&proxy, request("POST", path, "", "{}")).await;
            assert_eq!((answer.status, posts(&a), posts(&b)), (200, 0, 1), "{block} {path}");
            // All else stays where it was.
            send(&proxy, request("POST", "/eth/v1/beacon/pool/voluntary_exits", "", "{}")).await;
            assert_eq!(posts(&a), 1);
        }
    }
}

#[tokio::test]
async fn only_the_maker_refuses_a_blinded_block_for_good() {
    for (path, other, maker, status, word) in [
        // The maker takes the block the second time.
        (BLINDED, NO_PAYLOAD, &[BUSY, TAKEN][..], 200, ""),
        (ENVELOPES, NO_PAYLOAD, &[BUSY, TAKEN], 200, ""),
        (BLINDED, NO_PAYLOAD, &[BUSY], 400, NO_PAYLOAD.1),
        (BLINDED, NO_PAYLOAD, &[WRONG], 400, WRONG.1),
        (BLINDED, WRONG, &[BUSY, TAKEN], 200, ""),
        // Another node can judge a whole block.
        (BLOCKS, WRONG, &[BUSY, TAKEN], 400, WRONG.1),
    ] {
        let a = node(0, "500 Oops", if other == WRONG { &[WRONG] } else { &[NO_PAYLOAD] }).await;
        let b = node(0, "200 OK", maker).await;
        let proxy = over(&[&a, &b], "[calls]\nhold = \"2s\"\n").await;
        assert_eq!(ask(&proxy, "GET", MAKE).await.status, 200);
        let answer = send(&proxy, request("POST", path, "", "{}")).await;
        assert_eq!((answer.status, &*answer.text()), (status, word), "{path} {maker:?}");
        assert_eq!(posts(&a), usize::from(maker[0] == BUSY), "{path} {maker:?}");
    }
}

/// A node that fails over the first block that it is asked for, and makes each later one.
async fn makes_later_blocks(signed: (&'static str, &'static str)) -> Node {
    let asked = AtomicUsize::new(0);
    Node::paced(3, move |exchange: Exchange| {
        let is_first = exchange.asked.target == MAKE && asked.fetch_add(1, SeqCst) == 0;
        let (status, body) = match &*exchange.asked.method {
            "POST" => signed,
            _ if exchange.asked.target == ENVELOPE => ("404 Not Found", r#"{"code":404,"message":"no payload"}"#),
            _ if is_first => ("500 Oops", "{}"),
            _ => ("200 OK", r#"{"data":{}}"#),
        };
        exchange.reply(json(status, body))
    })
    .await
}

#[tokio::test]
async fn a_block_goes_to_its_maker_though_another_made_one_since() {
    for path in [BLINDED, ENVELOPES] {
        for word in [NO_PAYLOAD, WRONG] {
            let (a, b) = (makes_later_blocks(word).await, node(0, "200 OK", &[TAKEN]).await);
            let proxy = over(&[&a, &b], "").await;
            for _ in 0..2 {
                assert_eq!(ask(&proxy, "GET", MAKE).await.status, 200);
            }
            let made = |node: &Node| node.asked().iter().filter(|asked| asked.target == MAKE).count();
            assert_eq!((made(&a), made(&b)), (2, 1), "B made the first, and A the second");
            let answer = send(&proxy, request("POST", path, "", "{}")).await;
            assert_eq!((answer.status, posts(&a), posts(&b)), (200, 1, 1), "{path} {}", answer.text());
            // What only the maker has is asked of each.
            assert_eq!(ask(&proxy, "GET", ENVELOPE).await.status, 200);
        }
    }
}

#[tokio::test]
async fn a_block_of_an_unknown_maker_is_refused_by_all_or_none() {
    for path in [BLINDED, ENVELOPES] {
        for (third, status) in [(&[TAKEN][..], 200), (&[WRONG], 400)] {
            let a = node(0, "200 OK", &[NO_PAYLOAD]).await;
            let (b, c) = (node(0, "200 OK", &[NO_PAYLOAD]).await, node(0, "200 OK", third).await);
            let proxy = over(&[&a, &b, &c], "").await;
            let answer = send(&proxy, request("POST", path, "", "{}")).await;
            assert_eq!((answer.status, posts(&a), posts(&b), posts(&c)), (status, 1, 1, 1), "{path}");
            assert_eq!(answer.text(), if status == 200 { "" } else { NO_PAYLOAD.1 }, "{path}");
        }
    }
}

#[tokio::test]
async fn a_cordon_does_not_cost_the_maker_its_block() {
    for path in [BLINDED, ENVELOPES] {
        let (a, b) = (node(0, "200 OK", &[TAKEN]).await, node(0, "200 OK", &[NO_PAYLOAD]).await);
        let proxy = over(&[&a, &b], "").await;
        assert_eq!(ask(&proxy, "GET", MAKE).await.status, 200);
        assert_eq!(proxy.admin("POST /nodes/cl-1/cordon").await.status, 200);
        let answer = send(&proxy, request("POST", path, "", "{}")).await;
        assert_eq!((answer.status, posts(&a)), (200, 1), "{path}");
        // All else goes to the other.
        send(&proxy, request("POST", "/eth/v1/beacon/pool/voluntary_exits", "", "{}")).await;
        assert_eq!(posts(&a), 1);
    }
}
