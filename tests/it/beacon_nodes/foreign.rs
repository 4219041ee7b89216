//! Successes that are no node's, and ways to elsewhere: a gateway's page tells nobody that something was done.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use super::publishing::{ATTESTATIONS, well};
use crate::common::{
    rest::{Exchange, Node, ask, json, over, request, response, send, status},
    until,
};

const BLOCKS: &str = "/eth/v2/beacon/blocks";
const PREPARE: &str = "/eth/v1/validator/prepare_beacon_proposer";
const REGISTER: &str = "/eth/v1/validator/register_validator";
const SHORTLY: &str = "[calls]\nhold = \"1s\"\n";

fn page() -> Vec<u8> {
    response("200 OK", "content-type: text/html\r\n", "<html>Maintenance</html>")
}

fn foreign() -> [Vec<u8>; 13] {
    let page = "\n<!doctype html><html>Service starting</html>";
    let chunked =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{page}\r\n0\r\n\r\n", page.len());
    [
        self::page(),
        response("200 OK", "content-type: text/plain\r\n", "accepted"),
        response("202 Accepted", "content-type: text/html; charset=utf-8\r\n", "<html>"),
        response("302 Found", "location: https://login.example/\r\n", ""),
        response("200 OK", "", page),
        response("200 OK", "content-type: application/json\r\n", page),
        response("200 OK", "", "<?xml version=\"1.0\"?><html/>"),
        chunked.into(),
        response("200 OK", "content-type: application/octet-stream\r\n", "<!DOCTYPE html><html>Bad gateway</html>"),
        json("200 OK", "Service Unavailable"),
        json("200 OK", r#"{"error":{"code":-32000,"message":"upstream timeout"}}"#),
        json("200 OK", r#"{"code":500,"message":"internal error"}"#),
        json("200 OK", r#"{"message":"no Route matched with those values"}"#),
    ]
}

#[tokio::test]
async fn a_success_that_is_no_nodes_is_no_answer() {
    for answer in foreign() {
        let (first, second) = (Node::always(answer.clone()).await, Node::always(answer.clone()).await);
        let proxy = over(&[&first, &second], SHORTLY).await;
        for (method, path) in [
            ("POST", BLOCKS),
            ("POST", ATTESTATIONS),
            ("POST", "/eth/v1/validator/contribution_and_proofs"),
            ("POST", PREPARE),
            ("POST", REGISTER),
            ("POST", "/eth/v1/validator/beacon_committee_subscriptions"),
            ("POST", "/eth/v1/validator/duties/attester/7"),
            ("GET", "/eth/v1/validator/attestation_data?slot=1&committee_index=0"),
            ("GET", "/eth/v2/debug/beacon/states/head"),
            ("GET", "/eth/v1/node/version"),
        ] {
            let heard = send(&proxy, request(method, path, "", "[]")).await;
            let case = format!("{path}: {} {}", String::from_utf8_lossy(&answer), heard.text());
            assert_eq!((heard.status, heard.header("location")), (502, None), "{case}");
            assert_eq!(heard.json()["code"], 502, "{case}");
            for node in [&first, &second] {
                assert!(node.asked().iter().any(|asked| asked.target == path), "{case}");
            }
        }
        // Its probes are answered well.
        assert_eq!(status(&proxy, "cl-1").await["verdict"], "up");
    }
}

#[tokio::test]
async fn an_empty_success_to_a_message_is_one_of_any_type() {
    for answer in [
        response("200 OK", "content-type: text/html; charset=utf-8\r\n", ""),
        response("202 Accepted", "content-type: text/plain\r\n", ""),
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
    ] {
        let node = Node::always(answer.clone()).await;
        let proxy = over(&[&node], SHORTLY).await;
        for path in [BLOCKS, ATTESTATIONS, PREPARE, REGISTER, "/eth/v1/validator/beacon_committee_subscriptions"] {
            let heard = send(&proxy, request("POST", path, "", "[]")).await;
            assert!(matches!(heard.status, 200 | 202), "{path}: {} {}", String::from_utf8_lossy(&answer), heard.text());
        }
        // An answer that says nothing of the request is none to a question.
        if answer.starts_with(b"HTTP/1.1 200") {
            for (method, path) in
                [("POST", "/eth/v1/validator/duties/attester/7"), ("GET", "/eth/v2/debug/beacon/states/head")]
            {
                assert_eq!(send(&proxy, request(method, path, "", "[]")).await.status, 502, "{path}");
            }
        }
    }
}

#[tokio::test]
async fn bytes_are_no_success_of_a_message() {
    let first = Node::always(response("200 OK", "content-type: application/octet-stream\r\n", [7; 500])).await;
    let second = Node::always(json("200 OK", " \n")).await;
    let proxy = over(&[&first, &second], SHORTLY).await;
    let answer = send(&proxy, request("POST", ATTESTATIONS, "", "[]")).await;
    assert_eq!((answer.status, second.count()), (200, 1));
}

#[tokio::test]
async fn an_answer_without_data_is_none_to_a_question() {
    for none in [
        json("200 OK", ""),
        b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        json("200 OK", r#"{"data":null}"#),
        json("200 OK", "null"),
    ] {
        let (first, second) =
            (Node::always(none.clone()).await, Node::always(json("200 OK", r#"{"data":"well"}"#)).await);
        let proxy = over(&[&first, &second], SHORTLY).await;
        for (method, path) in [
            ("POST", "/eth/v1/validator/duties/attester/7"),
            ("GET", "/eth/v1/validator/attestation_data?slot=1&committee_index=0"),
            ("GET", "/eth/v2/validator/aggregate_attestation?slot=1"),
            ("GET", "/eth/v1/beacon/headers/head"),
        ] {
            let answer = send(&proxy, request(method, path, "", "[]")).await;
            let case = format!("{path}: {}", String::from_utf8_lossy(&none));
            assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#), "{case}");
        }
    }
}

#[tokio::test]
async fn where_no_node_has_data_an_empty_success_is_the_answer() {
    const SELECTIONS: &str = "/eth/v1/validator/beacon_committee_selections";
    let syncing = json("503 Service Unavailable", r#"{"code":503,"message":"syncing"}"#);
    let unknown = json("400 Bad Request", r#"{"code":400,"message":"unknown validator"}"#);
    let page = response("200 OK", "content-type: text/html\r\n", "<html>");
    for empty in [json("200 OK", ""), response("200 OK", "", "")] {
        for (other, status) in [(&empty, 200), (&syncing, 200), (&page, 200), (&unknown, 400)] {
            let (first, second) = (Node::always(other.clone()).await, Node::always(empty.clone()).await);
            let proxy = over(&[&first, &second], SHORTLY).await;
            let answer = send(&proxy, request("POST", SELECTIONS, "", "[]")).await;
            assert_eq!(answer.status, status, "{}: {}", String::from_utf8_lossy(other), answer.text());
        }
    }
}

#[tokio::test]
async fn a_page_that_comes_after_its_head_is_no_success() {
    let node = Node::start(|mut exchange: Exchange| async move {
        exchange.body().await;
        exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        // Longer than an answer of unknown length is held.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        exchange.send("6\r\n<html>\r\n0\r\n\r\n").await;
        Some(exchange)
    })
    .await;
    let proxy = over(&[&node], SHORTLY).await;
    for path in [BLOCKS, ATTESTATIONS, PREPARE, REGISTER] {
        assert_eq!(ask(&proxy, "POST", path).await.status, 502, "{path}");
    }
}

#[tokio::test]
async fn a_healthy_node_may_say_so_in_any_form() {
    let node = Node::always(response("200 OK", "content-type: text/html\r\n", "")).await;
    let proxy = over(&[&node], SHORTLY).await;
    assert_eq!(ask(&proxy, "GET", "/eth/v1/node/health").await.status, 200);
}

#[tokio::test]
async fn a_body_that_streams_past_a_page_has_no_success_either() {
    let node = Node::always(page()).await;
    let proxy = over(&[&node], "[calls]\nmax_body = \"100KiB\"\nmax_held_bytes = \"100KiB\"\n").await;
    let answer = send(&proxy, request("POST", BLOCKS, "", [7; 200_000])).await;
    assert_eq!((answer.status, node.count()), (502, 1));
}

#[tokio::test]
async fn a_nodes_error_is_better_than_a_page() {
    let error = json("500 Internal Server Error", r#"{"data":"broken"}"#);
    for pages_first in [true, false] {
        for path in [BLOCKS, PREPARE] {
            let (page, node) = (Node::always(page()).await, Node::always(error.clone()).await);
            let nodes = if pages_first { [&page, &node] } else { [&node, &page] };
            let proxy = over(&nodes, SHORTLY).await;
            let answer = send(&proxy, request("POST", path, "", "[]")).await;
            assert_eq!((answer.status, &*answer.text()), (500, r#"{"data":"broken"}"#), "{path}");
        }
    }
}

/// Pages of a gateway whose node is away for a moment.
fn passing() -> [Vec<u8>; 5] {
    let html = "content-type: text/html\r\n";
    [
        page(),
        response("404 Not Found", html, "<html>nginx</html>"),
        response("502 Bad Gateway", html, "<html>nginx</html>"),
        response("503 Service Unavailable", "content-type: text/plain\r\n", "upstream connect error"),
        response("522 Odd", html, "<html>"),
    ]
}

#[tokio::test]
async fn a_message_is_held_until_the_page_is_gone() {
    for page in passing() {
        let pages = Arc::new(AtomicUsize::new(3));
        let case = String::from_utf8_lossy(&page).into_owned();
        let node = Node::paced(1, move |exchange: Exchange| {
            let has_page = pages.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            exchange.reply(if has_page { page.clone() } else { json("200 OK", r#"{"data":"taken"}"#) })
        })
        .await;
        let proxy = over(&[&node], "").await;
        let answer = send(&proxy, request("POST", ATTESTATIONS, "", "[]")).await;
        assert_eq!((answer.status, &*answer.text(), node.count()), (200, r#"{"data":"taken"}"#, 4), "{case}");
    }
}

#[tokio::test]
async fn message_for_all_is_repeated_where_a_page_answered() {
    let has_page = Arc::new(AtomicUsize::new(1));
    let first = Node::paced(1, move |exchange: Exchange| {
        let has_page = has_page.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        exchange.reply(if has_page { page() } else { json("200 OK", "") })
    })
    .await;
    let second = well().await;
    second.set_pace(1);
    let proxy = over(&[&first, &second], "").await;
    let answer = send(&proxy, request("POST", PREPARE, "", "[1]")).await;
    assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#));
    until("it is told again", async || first.count() == 2).await;
    assert_eq!(second.count(), 1);
}

#[tokio::test]
async fn pages_are_evidence_against_their_node() {
    for page in passing() {
        // A page with a 4xx may be due to the request.
        let is_evidence = !page.starts_with(b"HTTP/1.1 4");
        let (first, second) = (Node::always(page.clone()).await, well().await);
        let proxy = over(&[&first, &second], "[health]\nfall = 3\ninterval = \"60s\"\n").await;
        for path in ["/eth/v1/beacon/headers/head", ATTESTATIONS] {
            let before = first.count();
            for _ in 0..6 {
                let method = if path == ATTESTATIONS { "POST" } else { "GET" };
                assert_eq!(ask(&proxy, method, path).await.text(), r#"{"data":"well"}"#, "{path}");
            }
            let case = String::from_utf8_lossy(&page);
            assert_eq!(first.count() - before, if is_evidence { 3 } else { 6 }, "{path} {case}");
        }
    }
}
