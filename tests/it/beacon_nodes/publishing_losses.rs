//! What is signed where nodes are lost over it: they may have passed on what they had, and no more.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use tokio::time::sleep;

use super::publishing::ATTESTATIONS;
use crate::common::rest::{Exchange, Node, json, over, request, response, send};

/// The second word of what both kinds of lists fail with.
const PRIOR: &str = "PriorAttestationKnown { validator_index: 7 }";

/// A node that is lost over the first so many messages, later than a stale connection is.
async fn lost(times: usize) -> Node {
    let count = AtomicUsize::new(0);
    Node::paced(1, move |mut exchange: Exchange| {
        let is_lost = count.fetch_add(1, SeqCst) < times;
        async move {
            exchange.body().await;
            if is_lost {
                sleep(Duration::from_millis(300)).await;
                return None;
            }
            exchange.reply(json("200 OK", r#"{"data":"taken"}"#)).await
        }
    })
    .await
}

async fn says(answer: Vec<u8>) -> Node {
    Node::paced(1, move |exchange: Exchange| exchange.reply(answer.clone())).await
}

fn error(message: &str) -> Vec<u8> {
    json("400 Bad", &serde_json::json!({ "code": 400, "message": message }).to_string())
}

fn failures(list: &[(u64, &str)]) -> Vec<u8> {
    let list: Vec<_> = list.iter().map(|(at, text)| serde_json::json!({ "index": at, "message": text })).collect();
    json("400 Bad", &serde_json::json!({ "code": 400, "message": "some failed", "failures": list }).to_string())
}

#[tokio::test]
async fn a_node_that_was_lost_has_the_message_again() {
    for other in [
        json("503 Syncing", "{}"),
        json("500 Oops", "{}"),
        response("200 OK", "content-type: text/html\r\n", "<html>"),
        error("queue is full"),
        error("BLOCK_ERROR_PARENT_UNKNOWN"),
        failures(&[(0, "UnknownHeadBlock")]),
        error("words that no node is known to say"),
    ] {
        for path in [ATTESTATIONS, "/eth/v2/beacon/blocks"] {
            // The second time may be over a fresh connection, for the same attempt.
            let (first, second) = (lost(2).await, says(other.clone()).await);
            // So that the node is lost twice within the time for which words are doubted.
            [&first, &second].iter().for_each(|node| node.set_pace(8));
            let proxy = over(&[&first, &second], "").await;
            let answer = send(&proxy, request("POST", path, "", "[1]")).await;
            let case = String::from_utf8_lossy(&other);
            assert_eq!(
                (answer.status, &*answer.text(), first.count()),
                (200, r#"{"data":"taken"}"#, 3),
                "{path} {case}"
            );
        }
    }
}

#[tokio::test]
async fn a_message_that_fells_a_node_again_and_again_ends() {
    let (first, second) = (lost(usize::MAX).await, says(json("503 Syncing", "{}")).await);
    let proxy = over(&[&first, &second], "[calls]\nhold = \"4s\"\n").await;
    let answer = send(&proxy, request("POST", ATTESTATIONS, "", "[1]")).await;
    // Three times, each of them perhaps over a second connection.
    assert!(answer.status == 502 && (3..=6).contains(&first.count()), "{} {}", first.count(), answer.text());
}

#[tokio::test]
async fn a_lost_node_may_have_only_what_it_was_given() {
    let hangs = || {
        Node::paced(1, |mut exchange: Exchange| async {
            exchange.body().await;
            exchange.hang().await
        })
    };
    for second in [
        lost(usize::MAX).await,
        says(response("502 Bad Gateway", "content-type: text/html\r\n", "<html>")).await,
        hangs().await,
    ] {
        for (list, left) in [
            (&[(0, PRIOR), (1, "UnknownHeadBlock")][..], &[0][..]),
            (&[(1, "UnknownHeadBlock"), (2, "queue is full")], &[]),
        ] {
            let (first, third) = (says(failures(list)).await, says(json("200 OK", "")).await);
            let proxy = over(&[&first, &second, &third], "").await;
            let answer = send(&proxy, request("POST", ATTESTATIONS, "", r#"["a","b","c"]"#)).await;
            let case = format!("{list:?} {}", answer.text());
            assert_eq!(answer.status, if left.is_empty() { 200 } else { 400 }, "{case}");
            if !left.is_empty() {
                let failures = answer.json()["failures"].as_array().unwrap().clone();
                let failed: Vec<_> = failures.iter().map(|failure| failure["index"].as_u64().unwrap()).collect();
                assert_eq!(failed, left, "{case}");
            }
        }
    }
    // A node that was lost over the whole list may have passed on each message.
    let (first, second) = (lost(usize::MAX).await, says(failures(&[(0, PRIOR), (2, PRIOR)])).await);
    let proxy = over(&[&first, &second], "").await;
    assert_eq!(send(&proxy, request("POST", ATTESTATIONS, "", r#"["a","b","c"]"#)).await.status, 200);
}

#[tokio::test]
async fn signed_messages_go_over_connections_that_are_there() {
    let node = says(json("200 OK", "")).await;
    let proxy = over(&[&node], "").await;
    for _ in 0..20 {
        assert_eq!(send(&proxy, request("POST", ATTESTATIONS, "", "[1]")).await.status, 200);
    }
    let firsts = node.asked().iter().filter(|asked| asked.turn == 0).count();
    assert!(firsts < 3, "{firsts} new connections");
}

#[tokio::test]
async fn a_message_sent_again_over_a_fresh_connection_may_be_repeated() {
    // The node takes the message, and closes the used connection without a word.
    let count = AtomicUsize::new(0);
    let node = Node::paced(1, move |mut exchange: Exchange| {
        let turn = count.fetch_add(1, SeqCst);
        async move {
            exchange.body().await;
            match turn {
                0 => exchange.reply(json("200 OK", "")).await,
                1 => None,
                _ => exchange.reply(error("BLOCK_ERROR_REPEAT_PROPOSAL")).await,
            }
        }
    })
    .await;
    let proxy = over(&[&node], "").await;
    for _ in 0..2 {
        let answer = send(&proxy, request("POST", "/eth/v2/beacon/blocks", "", "{}")).await;
        assert_eq!((answer.status, &*answer.text()), (200, ""));
    }
    assert_eq!(node.count(), 3);
}
