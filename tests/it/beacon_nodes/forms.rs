//! Answers in another form than the API's: whatever their status, they are no node's word.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::publishing::{ATTESTATIONS, well};
use crate::common::{
    rest::{Exchange, Node, ask, json, over, request, response, send},
    until,
};

const BLOCKS: &str = "/eth/v2/beacon/blocks";
const PREPARE: &str = "/eth/v1/validator/prepare_beacon_proposer";
const DUTIES: &str = "/eth/v1/validator/duties/attester/7";
const SELECTIONS: &str = "/eth/v1/validator/beacon_committee_selections";
const READS: [&str; 9] = [
    "/eth/v1/beacon/headers/head",
    "/eth/v1/beacon/headers/9",
    "/eth/v1/beacon/blocks/head/root",
    "/eth/v1/node/version",
    "/eth/v1/node/syncing",
    "/eth/v1/beacon/genesis",
    "/eth/v1/validator/attestation_data?slot=1&committee_index=0",
    "/eth/v1/validator/duties/proposer/1",
    "/eth/v2/debug/beacon/states/head",
];
const HTML: &str = "content-type: text/html\r\n";
const TEXT: &str = "content-type: text/plain\r\n";

/// An error with this status in each form that gateways use.
fn pages(status: &str) -> [Vec<u8>; 5] {
    [
        response(status, HTML, "<html><h1>Not Acceptable</h1></html>"),
        response(status, TEXT, "default backend - 404"),
        response(status, "", ""),
        json(status, "<html>"),
        json(status, r#"{"message":"no Route matched with those values"}"#),
    ]
}

/// A node that answers with the answer that is there at the moment.
async fn saying(now: &Arc<Mutex<Vec<u8>>>) -> Node {
    let now = now.clone();
    Node::start(move |exchange: Exchange| {
        let answer = now.lock().unwrap().clone();
        exchange.reply(answer)
    })
    .await
}

#[tokio::test]
async fn an_error_in_another_form_is_asked_elsewhere() {
    let now = Arc::new(Mutex::new(Vec::new()));
    let (first, second) = (saying(&now).await, well().await);
    let proxy = over(&[&first, &second], "").await;
    for status in [
        "400 Bad",
        "401 Who",
        "403 No",
        "404 None",
        "405 Not So",
        "406 Not Acceptable",
        "409 Conflict",
        "410 Gone",
        "413 Long",
        "414 Long",
        "415 Type",
        "421 Misdirected",
        "422 Odd",
        "431 Long",
        "451 Law",
    ] {
        for page in pages(status) {
            *now.lock().unwrap() = page.clone();
            let case = String::from_utf8_lossy(&page);
            for (method, path) in READS.map(|path| ("GET", path)).into_iter().chain([
                ("POST", DUTIES),
                ("POST", BLOCKS),
                ("POST", ATTESTATIONS),
                ("POST", PREPARE),
            ]) {
                let before = first.count();
                let answer = send(&proxy, request(method, path, "", "[1]")).await;
                assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#), "{path} {case}");
                assert!(first.count() > before, "{path} {case}");
            }
        }
    }
}

#[tokio::test]
async fn a_message_for_all_is_told_again_after_any_page() {
    for status in ["400 Bad", "403 No", "404 None", "410 Gone", "413 Long", "503 Busy"] {
        let firsts = pages(status).map(|page| {
            let turn = AtomicUsize::new(0);
            Node::paced(1, move |exchange: Exchange| {
                let is_first = turn.fetch_add(1, SeqCst) == 0;
                exchange.reply(if is_first { page.clone() } else { json("200 OK", "") })
            })
        });
        for first in firsts {
            let (first, second) = (first.await, well().await);
            second.set_pace(1);
            let proxy = over(&[&first, &second], "").await;
            assert_eq!(send(&proxy, request("POST", PREPARE, "", "[1]")).await.status, 200);
            until("the node is told again", async || first.count() == 2).await;
            assert_eq!(second.count(), 1);
        }
    }
}

#[tokio::test]
async fn a_demand_for_another_form_stays_the_clients_cue() {
    let demand = |status| json(status, r#"{"code":415,"message":"send JSON"}"#);
    let busy = || json("503 Busy", r#"{"code":503,"message":"busy"}"#);
    for status in ["406 Not Acceptable", "415 Type"] {
        for path in [BLOCKS, ATTESTATIONS] {
            let (first, second) = (Node::always(demand(status)).await, well().await);
            let proxy = over(&[&first, &second], "").await;
            assert_eq!(send(&proxy, request("POST", path, "", "x")).await.status, 200, "{path}");
            assert_eq!((first.count(), second.count()), (1, 1));
            for answers in [[demand(status), busy()], [busy(), demand(status)], [demand(status), demand(status)]] {
                let (first, second) = (Node::always(answers[0].clone()).await, Node::always(answers[1].clone()).await);
                let proxy = over(&[&first, &second], "[calls]\nhold = \"300ms\"\n").await;
                let answer = send(&proxy, request("POST", path, "", "x")).await;
                assert_eq!(
                    (answer.status, &*answer.json()["message"].to_string()),
                    (status[..3].parse().unwrap(), "\"send JSON\"")
                );
            }
        }
    }
}

#[tokio::test]
async fn a_success_that_no_node_gives_is_not_the_end() {
    for (body, alone) in [
        (r#"{"success":false}"#, 502),
        (r#"{"ok":false,"reason":"no upstream"}"#, 502),
        (r#"{"Message":"Endpoint request timed out"}"#, 502),
        (r#"{"detail":"upstream unavailable"}"#, 502),
        (r#"{"type":"about:blank","title":"Bad Gateway"}"#, 502),
        (r#"{"error_code":1020}"#, 502),
        (r#"{"fault":{"faultstring":"quota"}}"#, 502),
        (r#"{"result":"error"}"#, 200),
        (r#"{"status":"unavailable"}"#, 200),
        (r#"{"message":"no upstream","code":0}"#, 200),
        ("\"Service Unavailable\"", 200),
        ("false", 200),
        (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, 200),
    ] {
        let first = Node::always(json("200 OK", body)).await;
        let second = well().await;
        let proxy = over(&[&first, &second], "").await;
        for path in [BLOCKS, ATTESTATIONS, "/eth/v1/validator/contribution_and_proofs", PREPARE] {
            let before = second.count();
            let answer = send(&proxy, request("POST", path, "", "[1]")).await;
            assert_eq!(
                (answer.status, &*answer.text(), second.count() - before),
                (200, r#"{"data":"well"}"#, 1),
                "{body}"
            );
        }
        // Where no node has a better answer, words that are not known go back at once.
        let proxy = over(&[&first], "[calls]\nhold = \"3s\"\n").await;
        let start = Instant::now();
        let answer = send(&proxy, request("POST", ATTESTATIONS, "", "[1]")).await;
        assert_eq!(answer.status, alone, "{body}");
        if alone == 200 {
            assert_eq!(answer.text(), body);
            assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        }
    }
}

#[tokio::test]
async fn a_node_may_say_that_it_took_a_message_in_its_way() {
    for body in ["", " \n", "null", "{}", "[]", r#"{"data":null}"#, r#"{"code":202,"message":"broadcast"}"#] {
        let (first, second) = (Node::always(json("200 OK", body)).await, well().await);
        let proxy = over(&[&first, &second], "").await;
        let answer = send(&proxy, request("POST", ATTESTATIONS, "", "[1]")).await;
        assert_eq!((answer.status, &*answer.text(), second.count()), (200, body, 0));
    }
}

#[tokio::test]
async fn a_message_for_all_that_nodes_took_is_told_once() {
    let bodies = ["", "null", "{}", "[]", r#"{"code":200,"message":"ok"}"#];
    let mut told = Vec::new();
    for body in bodies {
        let node = Node::paced(1, move |exchange: Exchange| exchange.reply(json("200 OK", body))).await;
        let proxy = over(&[&node], "").await;
        let answer = send(&proxy, request("POST", PREPARE, "", "[1]")).await;
        assert_eq!((answer.status, &*answer.text()), (200, body));
        told.push((node, proxy));
    }
    // Slots take a second here: what a node did not take is sent again in the next.
    tokio::time::sleep(Duration::from_secs(4)).await;
    for ((node, _), body) in told.iter().zip(bodies) {
        assert_eq!(node.count(), 1, "{body}");
    }
}

/// Successes in JSON without `data`.
const WITHOUT_DATA: [&str; 6] =
    ["{}", r#"{"foo":1}"#, "[]", "\"x\"", "7", r#"{"jsonrpc":"2.0","id":1,"result":{"data":[]}}"#];

#[tokio::test]
async fn an_answer_without_data_is_asked_elsewhere() {
    for body in WITHOUT_DATA {
        let (first, second) = (Node::always(json("200 OK", body)).await, well().await);
        let proxy = over(&[&first, &second], "").await;
        for (method, path) in
            READS.map(|path| ("GET", path)).into_iter().chain([("POST", DUTIES), ("POST", SELECTIONS)])
        {
            let answer = send(&proxy, request(method, path, "", "[1]")).await;
            assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#), "{path} {body}");
        }
        assert!(first.count() > 0, "{body}");
        // Of a status nothing more is judged, and of an unknown route no data are known.
        let unknown = ["/eth/v1/node/custom", "/eth/v1/lodestar/peers", "/eth/v1/beacon/states/head/new"];
        let known = ["/eth/v1/node/health", "/eth/v1/debug/fork_choice", "/eth/v1/beacon/light_client/updates"];
        let proxy = over(&[&first, &second], "").await;
        for path in unknown.into_iter().chain(known) {
            assert_eq!(ask(&proxy, "GET", path).await.text(), body, "{path}");
        }
    }
}

#[tokio::test]
async fn where_no_node_has_data_the_nodes_words_go_back() {
    for none in [r#"{"data":null}"#, "null"].into_iter().chain(WITHOUT_DATA) {
        let (first, second) = (Node::always(json("200 OK", none)).await, Node::always(json("200 OK", none)).await);
        let proxy = over(&[&first, &second], "").await;
        for path in
            ["/eth/v1/beacon/rewards/blocks/head", "/eth/v1/node/custom", "/eth/v1/beacon/headers/head", READS[6]]
        {
            let answer = ask(&proxy, "GET", path).await;
            assert_eq!((answer.status, &*answer.text()), (200, none), "{path}");
        }
    }
}

#[tokio::test]
async fn where_all_answer_with_pages_a_page_goes_back() {
    let page = |status| response(status, HTML, "<html>none</html>");
    let (first, second) = (Node::always(page("404 None")).await, Node::always(page("413 Long")).await);
    let proxy = over(&[&first, &second], "[calls]\nhold = \"300ms\"\n").await;
    for (method, path) in [("GET", READS[0]), ("POST", ATTESTATIONS), ("POST", PREPARE)] {
        let answer = send(&proxy, request(method, path, "", "[1]")).await;
        assert_eq!((answer.status, &*answer.text()), (404, "<html>none</html>"), "{path}");
    }
    // A node's own error is the better one, in any order.
    let node = Node::always(json("500 Oops", r#"{"code":500,"message":"mine"}"#)).await;
    for nodes in [[&first, &node], [&node, &first]] {
        let proxy = over(&nodes, "[calls]\nhold = \"300ms\"\n").await;
        for (method, path) in [("GET", READS[0]), ("POST", ATTESTATIONS), ("POST", PREPARE)] {
            assert_eq!(send(&proxy, request(method, path, "", "[1]")).await.status, 500, "{path}");
        }
    }
}
