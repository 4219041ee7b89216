//! Nodes that stall in the middle, end their connection for an end, or answer a question with 400.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::common::rest::{Exchange, Node, ask, json, over, request, send};

const DATA: &str = "/eth/v1/validator/attestation_data?slot=1&committee_index=0";
const VOTES: &str = "/eth/v2/beacon/pool/attestations";

/// A node that sends this beginning of an answer and no more.
async fn stalling(beginning: &'static str) -> Node {
    Node::paced(1, move |mut exchange: Exchange| async move {
        exchange.body().await;
        exchange.send(beginning).await;
        sleep(Duration::from_secs(300)).await;
        None
    })
    .await
}

async fn well() -> Node {
    Node::paced(1, |exchange: Exchange| exchange.reply(json("200 OK", r#"{"data":"well"}"#))).await
}

const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{\"data\":";

#[tokio::test]
async fn another_node_is_asked_beside_one_that_stalls_over_a_read() {
    for beginning in ["", HALF] {
        let (first, second) = (stalling(beginning).await, well().await);
        let proxy = over(&[&first, &second], "[calls]\nattempt_timeout = \"30s\"\n").await;
        for (method, path) in [
            ("GET", "/eth/v1/beacon/states/head/validators?id=1"),
            ("POST", "/eth/v1/beacon/states/head/validators"),
            ("POST", "/eth/v1/beacon/states/head/validator_balances"),
            ("GET", "/eth/v1/beacon/states/head/committees"),
            ("GET", "/eth/v1/beacon/states/head/sync_committees"),
            ("GET", "/eth/v1/config/spec"),
            ("GET", "/eth/v1/config/deposit_contract"),
            ("GET", DATA),
        ] {
            let asked = Instant::now();
            let answer = send(&proxy, request(method, path, "", "{}")).await;
            assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#), "{path}");
            assert!(asked.elapsed() < Duration::from_secs(25), "{path}: {:?}", asked.elapsed());
        }
    }
}

#[tokio::test]
async fn a_read_that_stalls_at_the_only_node_ends_in_time() {
    for beginning in ["", HALF] {
        let node = stalling(beginning).await;
        let proxy = over(&[&node], "[calls]\ntimeout = \"3s\"\nattempt_timeout = \"2s\"\nhold = \"1s\"\n").await;
        let asked = Instant::now();
        let answer = ask(&proxy, "GET", DATA).await;
        assert!(answer.status >= 500, "{}", answer.status);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
}

#[tokio::test]
async fn a_client_hears_of_a_message_in_time() {
    let node = stalling("").await;
    let proxy = over(&[&node], "[calls]\ntimeout = \"3s\"\nattempt_timeout = \"2s\"\nhold = \"1s\"\n").await;
    let asked = Instant::now();
    let answer = send(&proxy, request("POST", VOTES, "", "[]")).await;
    assert_eq!((answer.status, node.count()), (502, 1));
    assert!(asked.elapsed() < Duration::from_secs(25), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn the_status_is_the_verdict_where_the_body_never_ends() {
    let endless = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n \r\n";
    for beginning in [HALF, endless] {
        let node = stalling(beginning).await;
        let proxy = over(&[&node], "").await;
        let asked = Instant::now();
        let answer = send(&proxy, request("POST", VOTES, "", "[]")).await;
        assert_eq!((answer.status, &*answer.text(), node.count()), (200, "", 1));
        assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    }
}

#[tokio::test]
async fn a_block_that_is_cut_short_with_its_connection_is_none() {
    let cut = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"data\":{\"x\":\"aaa";
    let ssz = "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\nconnection: close\r\n\r\nxxxx";
    for (answer, by_first) in [(cut.to_owned(), false), (ssz.to_owned(), false), (format!("{cut}\"}}}}"), true)] {
        let bytes = answer.clone();
        let first = Node::paced(1, move |mut exchange: Exchange| {
            let bytes = bytes.clone();
            async move {
                exchange.body().await;
                exchange.send(bytes).await;
                None
            }
        })
        .await;
        let second = well().await;
        let proxy = over(&[&first, &second], "").await;
        for path in ["/eth/v3/validator/blocks/1?randao_reveal=0x00", "/eth/v2/beacon/blocks/7"] {
            let heard = ask(&proxy, "GET", path).await;
            assert_eq!((heard.status, heard.text() != r#"{"data":"well"}"#), (200, by_first), "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_400_to_a_question_is_asked_of_the_other_nodes_too() {
    let says = |word: &'static str| {
        Node::paced(1, move |exchange: Exchange| {
            exchange.reply(json("400 Bad Request", &format!(r#"{{"code":400,"message":"{word}"}}"#)))
        })
    };
    for (method, path) in [
        ("GET", "/eth/v2/validator/aggregate_attestation?slot=1&committee_index=0&attestation_data_root=0x00"),
        ("GET", "/eth/v1/validator/sync_committee_contribution?slot=1"),
        ("GET", DATA),
        ("GET", "/eth/v3/validator/blocks/1?randao_reveal=0x00"),
        ("POST", "/eth/v1/validator/duties/attester/7"),
        ("GET", "/eth/v1/beacon/states/7/validators"),
        ("GET", "/eth/v1/beacon/headers/0xab"),
    ] {
        let (first, second, third) = (says("first").await, says("second").await, well().await);
        let proxy = over(&[&first, &second, &third], "").await;
        assert_eq!(send(&proxy, request(method, path, "", "[]")).await.text(), r#"{"data":"well"}"#, "{path}");
        let proxy = over(&[&first, &second], "").await;
        let answer = send(&proxy, request(method, path, "", "[]")).await;
        assert_eq!((answer.status, answer.json()["message"].as_str()), (400, Some("first")), "{path}");
    }
}
