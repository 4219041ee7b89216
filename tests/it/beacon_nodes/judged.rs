//! Answers that come compressed, late, or end with their connection, are judged as all others are.

use std::{io::Write, time::Duration};

use flate2::{Compression, write::GzEncoder};
use tokio::time::sleep;

use crate::common::rest::{Exchange, Node, ask, json, over, request, response, send};

const DATA: &str = "/eth/v1/validator/attestation_data?slot=1&committee_index=0";
const PREPARE: &str = "/eth/v1/validator/prepare_beacon_proposer";
const WELL: &str = r#"{"data":"well"}"#;
const ZIPS: &str = "accept-encoding: gzip\r\n";
/// Texts that are no answer to a question.
const NONE: [&str; 6] = [
    r#"{"data":null}"#,
    "{}",
    "[]",
    r#"{"code":500,"message":"internal error"}"#,
    r#"{"data":[{"pubkey":"0xab","#,
    "<html><h1>502 Bad Gateway</h1></html>",
];
/// Reads whose answers are judged by all of their text.
const JUDGED: [(&str, &str); 9] = [
    ("GET", DATA),
    ("GET", "/eth/v3/validator/blocks/1?randao_reveal=0x00"),
    ("POST", "/eth/v1/validator/duties/attester/7"),
    ("GET", "/eth/v1/beacon/blocks/head/root"),
    ("GET", "/eth/v1/beacon/headers/head"),
    ("GET", "/eth/v1/beacon/states/head/fork"),
    ("GET", "/eth/v1/beacon/states/head/validators?id=7"),
    ("POST", "/eth/v1/beacon/states/head/validators"),
    ("GET", "/eth/v1/config/spec"),
];

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

async fn well() -> Node {
    Node::paced(3, |exchange: Exchange| exchange.reply(json("200 OK", WELL))).await
}

#[tokio::test]
async fn answers_for_clients_that_take_gzip_are_judged() {
    for text in NONE {
        let first = Node::paced(3, move |exchange: Exchange| {
            let zips = exchange.asked.header("accept-encoding").iter().any(|codes| codes.contains("gzip"));
            let zipped = "content-type: application/json\r\ncontent-encoding: gzip\r\n";
            exchange.reply(if zips { response("200 OK", zipped, gzip(text)) } else { json("200 OK", text) })
        })
        .await;
        let second = well().await;
        let proxy = over(&[&first, &second], "").await;
        for (method, path) in JUDGED {
            let answer = send(&proxy, request(method, path, ZIPS, "[]")).await;
            assert_eq!((answer.status, &*answer.text()), (200, WELL), "{path}: {text}");
        }
        assert!(first.count() > 0);
    }
}

#[tokio::test]
async fn whole_states_may_be_compressed_by_the_node() {
    let node = well().await;
    let proxy = over(&[&node], "").await;
    for path in ["/eth/v2/debug/beacon/states/head", "/eth/v1/beacon/states/head/validators"] {
        send(&proxy, request("GET", path, ZIPS, "")).await;
    }
    assert!(node.asked().iter().all(|asked| asked.header("accept-encoding") == ["gzip"]));
}

#[tokio::test]
async fn a_body_that_comes_behind_its_head_is_judged() {
    for text in NONE {
        let first = Node::paced(3, move |mut exchange: Exchange| async move {
            exchange.body().await;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
            exchange.send(head).await;
            sleep(Duration::from_millis(150)).await;
            exchange.send(format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len())).await.then_some(exchange)
        })
        .await;
        let second = well().await;
        let proxy = over(&[&first, &second], "").await;
        for (method, path) in JUDGED {
            let answer = send(&proxy, request(method, path, "", "[]")).await;
            assert_eq!((answer.status, &*answer.text()), (200, WELL), "{path}: {text}");
        }
    }
}

/// A node whose answers of this type end with their connection.
async fn closes(kind: &'static str, body: &'static str) -> Node {
    Node::paced(3, move |mut exchange: Exchange| async move {
        exchange.body().await;
        exchange.send(format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n{body}")).await;
        None
    })
    .await
}

#[tokio::test]
async fn data_that_end_with_the_connection_are_the_last_resort() {
    let ssz = "application/octet-stream";
    for path in ["/eth/v3/validator/blocks/1?randao_reveal=0x00", DATA] {
        let (first, second) = (closes(ssz, "first").await, closes(ssz, "second").await);
        let proxy = over(&[&first, &second], "").await;
        let answer = ask(&proxy, "GET", path).await;
        assert_eq!((answer.status, &*answer.text(), second.count()), (200, "first", 1), "{path}");
        let well = well().await;
        let proxy = over(&[&first, &second, &well], "").await;
        assert_eq!(ask(&proxy, "GET", path).await.text(), WELL, "{path}");
    }
    // Half a text in JSON is none.
    let half = closes("application/json", r#"{"data":"#).await;
    let proxy = over(&[&half], "[calls]\nhold = \"1s\"\n").await;
    assert!(ask(&proxy, "GET", DATA).await.status >= 500);
}

#[tokio::test]
async fn an_error_that_stalls_is_no_success_of_a_message() {
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{ \"code\":500,";
    let first = Node::start(move |mut exchange: Exchange| async move {
        exchange.body().await;
        exchange.send(half).await;
        exchange.hang().await
    })
    .await;
    let second = Node::start(|exchange: Exchange| exchange.reply(json("200 OK", WELL))).await;
    let proxy = over(&[&first, &second], "").await;
    let answer = send(&proxy, request("POST", "/eth/v2/beacon/pool/attestations", "", "[]")).await;
    assert_eq!((answer.status, second.count()), (200, 1));
}

#[tokio::test]
async fn a_path_with_two_slashes_is_the_same_route() {
    let (first, second) = (well().await, well().await);
    let proxy = over(&[&first, &second], "").await;
    let paths = [
        "/eth/v1//validator/prepare_beacon_proposer",
        "/eth/v1/validator//prepare_beacon_proposer",
        "/eth/v1/validator/prepare%5fbeacon_proposer",
        PREPARE,
    ];
    for (count, path) in paths.into_iter().enumerate() {
        send(&proxy, request("POST", path, "", "[1]")).await;
        crate::common::until("both nodes are told", async || first.count() == count + 1 && second.count() == count + 1)
            .await;
    }
}

#[tokio::test]
async fn few_places_are_enough_to_tell_all_nodes() {
    let nodes = [well().await, well().await, well().await];
    let proxy = over(&nodes.each_ref(), "[calls]\nmax_held = 2\n").await;
    assert_eq!(send(&proxy, request("POST", PREPARE, "", "[1]")).await.status, 200);
    crate::common::until("all are told", async || nodes.iter().all(|node| node.count() == 1)).await;
}
