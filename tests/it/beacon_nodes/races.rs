//! A node's word that a thing does not exist, while another node hangs over the question.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::common::rest::{Exchange, Node, json, over, request, send};

const NONE: &str = r#"{"code":404,"message":"no such thing"}"#;
const BAD: &str = r#"{"code":400,"message":"no such id"}"#;
const DATA: &str = r#"{"data":"here"}"#;

/// A node that gives this answer after `millis`.
async fn after(millis: u64, answer: Vec<u8>) -> Node {
    Node::paced(3, move |exchange: Exchange| {
        let answer = answer.clone();
        async move {
            sleep(Duration::from_millis(millis)).await;
            exchange.reply(answer).await
        }
    })
    .await
}

async fn hangs() -> Node {
    Node::paced(3, Exchange::hang).await
}

const PATHS: [(&str, &str); 6] = [
    ("GET", "/eth/v1/beacon/states/head/validators/0xabcd"),
    ("GET", "/eth/v2/beacon/blocks/99999999"),
    ("GET", "/eth/v1/beacon/headers/99999999"),
    ("GET", "/eth/v1/beacon/blobs/99999999"),
    ("POST", "/eth/v1/validator/duties/attester/1"),
    ("GET", "/eth/v1/validator/attestation_data?slot=1&committee_index=0"),
];

#[tokio::test]
async fn a_hanging_node_holds_up_no_word_of_another() {
    for answer in [json("404 None", NONE), json("400 Bad", BAD)] {
        for (method, path) in PATHS {
            let (first, second) = (hangs().await, after(0, answer.clone()).await);
            let proxy = over(&[&first, &second], "").await;
            let asked = send(&proxy, request(method, path, "", "[]"));
            let heard = timeout(Duration::from_secs(4), asked).await.unwrap_or_else(|_| panic!("{path}: no answer"));
            let text = heard.text();
            assert!(matches!((heard.status, &*text), (404, NONE) | (400, BAD)), "{path}: {heard:?}");
        }
    }
}

#[tokio::test]
async fn a_node_that_is_at_work_may_still_have_the_data() {
    for (method, path) in PATHS {
        // The second says no, and the third is asked at once.
        let nodes = [hangs().await, after(0, json("404 None", NONE)).await, after(150, json("200 OK", DATA)).await];
        let proxy = over(&nodes.each_ref(), "").await;
        let heard = timeout(Duration::from_secs(4), send(&proxy, request(method, path, "", "[]"))).await.unwrap();
        assert_eq!((heard.status, &*heard.text()), (200, DATA), "{path}");
        // The first has its part of the slot, and the same again.
        let millis = if path.contains("attestation_data") { 900 } else { 1500 };
        let nodes = [after(millis, json("200 OK", DATA)).await, after(0, json("404 None", NONE)).await];
        let proxy = over(&nodes.each_ref(), "").await;
        let heard = timeout(Duration::from_secs(4), send(&proxy, request(method, path, "", "[]"))).await.unwrap();
        assert_eq!((heard.status, &*heard.text()), (200, DATA), "{path}");
    }
}
