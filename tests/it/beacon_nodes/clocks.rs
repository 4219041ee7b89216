//! What a validator waits for is not left to one node, and what is of use only whole is waited for whole.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use crate::common::{
    rest::{Exchange, Node, chunked, json, over, request, response, send, status},
    until,
};

const BLOCK: &str = "/eth/v3/validator/blocks/9?randao_reveal=0x00";

/// What answers with this when it has waited for so long.
async fn after(millis: u64, answer: Vec<u8>) -> Node {
    Node::start(move |mut exchange: Exchange| {
        let answer = answer.clone();
        async move {
            exchange.body().await;
            sleep(Duration::from_millis(millis)).await;
            exchange.send(answer).await.then_some(exchange)
        }
    })
    .await
}

/// A proxy before these nodes, whose slots take a second.
async fn quick(nodes: &[&Node]) -> crate::common::proxy::Proxy {
    nodes.iter().for_each(|node| node.set_pace(1));
    over(nodes, "[calls]\nattempt_timeout = \"20s\"\n").await
}

#[tokio::test]
async fn hung_request_goes_to_another_node_within_the_slot() {
    for (method, path) in [
        ("GET", BLOCK),
        ("GET", "/eth/v1/validator/attestation_data?slot=1&committee_index=0"),
        ("GET", "/eth/v2/validator/aggregate_attestation?slot=1"),
        ("POST", "/eth/v1/validator/duties/attester/1"),
        ("GET", "/eth/v1/beacon/blocks/head/root"),
        ("GET", "/eth/v1/beacon/headers/head"),
    ] {
        let (first, second) =
            (Node::start(Exchange::hang).await, Node::always(json("200 OK", r#"{"data":"well"}"#)).await);
        let proxy = quick(&[&first, &second]).await;
        let body = if method == "POST" { "[\"1\"]" } else { "" };
        let answer = send(&proxy, request(method, path, "", body)).await;
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#), "{path}");
        assert_eq!((first.count(), second.count()), (1, 1), "{path}");
        assert_eq!(second.asked()[0].body, body.as_bytes());
        until("the first is given up", async || status(&proxy, "cl-1").await["in_flight"] == 0).await;
    }
}

#[tokio::test]
async fn the_first_good_answer_wins_and_a_slow_node_is_not_given_up() {
    let (first, second) = (after(1500, json("200 OK", r#"{"data":"slow"}"#)).await, Node::start(Exchange::hang).await);
    let proxy = quick(&[&first, &second]).await;
    assert_eq!(send(&proxy, request("GET", BLOCK, "", "")).await.text(), r#"{"data":"slow"}"#);
    assert_eq!((first.count(), second.count()), (1, 1));
    let failing = after(600, json("500 Oops", r#"{"data":"no"}"#)).await;
    let proxy = quick(&[&first, &failing]).await;
    assert_eq!(send(&proxy, request("GET", BLOCK, "", "")).await.text(), r#"{"data":"slow"}"#);
    assert_eq!((first.count(), failing.count()), (2, 1));
}

#[tokio::test]
async fn a_third_node_is_asked_as_soon_as_the_second_has_failed() {
    let first = Node::start(Exchange::hang).await;
    let (failing, well) =
        (Node::always(json("503 Busy", "{}")).await, Node::always(json("200 OK", r#"{"data":"well"}"#)).await);
    let nodes = [&first, &failing, &well];
    // A fifth of a slot is four seconds, after which the second is asked.
    nodes.iter().for_each(|node| node.set_pace(20));
    let proxy = over(&nodes, "").await;
    let asked = Instant::now();
    assert_eq!(send(&proxy, request("GET", BLOCK, "", "")).await.text(), r#"{"data":"well"}"#);
    assert!(asked.elapsed() < Duration::from_secs(7), "{:?}", asked.elapsed());
    assert_eq!(nodes.map(Node::count), [1, 1, 1]);
}

/// A node that fails with this the first time, or is lost, and answers well from then on.
async fn fails_once(failure: Option<Vec<u8>>) -> Node {
    let count = AtomicUsize::new(0);
    Node::start(move |exchange: Exchange| {
        let fails = count.fetch_add(1, SeqCst) == 0;
        let answer = if fails { failure.clone() } else { Some(json("200 OK", r#"{"data":"well"}"#)) };
        async move {
            match answer {
                Some(answer) => exchange.reply(answer).await,
                None => {
                    // Longer than it takes to find a connection closed that was used before.
                    sleep(Duration::from_millis(300)).await;
                    None
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_busy_node_is_asked_again_while_another_hangs() {
    for failure in [
        Some(json("503 Busy", "{}")),
        Some(response("429 Many", "retry-after: 1\r\n", "")),
        Some(response("200 OK", "content-type: text/html\r\n", "<html>")),
        None,
    ] {
        for hangs_first in [true, false] {
            let (hangs, busy) = (Node::start(Exchange::hang).await, fails_once(failure.clone()).await);
            let nodes = if hangs_first { [&hangs, &busy] } else { [&busy, &hangs] };
            let proxy = quick(&nodes).await;
            let answer = timeout(Duration::from_secs(15), send(&proxy, request("GET", BLOCK, "", ""))).await.unwrap();
            let case = format!("{hangs_first} {:?}", failure.as_deref().map(String::from_utf8_lossy));
            assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#), "{case}");
            assert_eq!((hangs.count(), busy.count()), (1, 2), "{case}");
        }
    }
}

#[tokio::test]
async fn busy_nodes_are_asked_again_only_while_requests_are_held() {
    let busy = || after(500, json("503 Busy", r#"{"data":"busy"}"#));
    let (first, second) = (busy().await, busy().await);
    [&first, &second].iter().for_each(|node| node.set_pace(1));
    // The second is asked before the first has failed, and so on.
    let proxy = over(&[&first, &second], "[calls]\nhold = \"1s\"\n").await;
    let answer = timeout(Duration::from_secs(9), send(&proxy, request("GET", BLOCK, "", ""))).await.unwrap();
    assert_eq!((answer.status, &*answer.text()), (503, r#"{"data":"busy"}"#));
    assert!(first.count() > 1 && first.count() + second.count() < 9, "{} {}", first.count(), second.count());
}

#[tokio::test]
async fn a_request_that_fells_a_node_is_given_to_it_a_few_times() {
    let slow = after(3000, json("200 OK", r#"{"data":"slow"}"#)).await;
    let lost = Node::start(|mut exchange: Exchange| async move {
        exchange.body().await;
        None
    })
    .await;
    let proxy = quick(&[&slow, &lost]).await;
    assert_eq!(send(&proxy, request("GET", BLOCK, "", "")).await.text(), r#"{"data":"slow"}"#);
    // Each of three attempts may be two: a node may close a new connection for want of room.
    assert!((2..=6).contains(&lost.count()), "{}", lost.count());
}

#[tokio::test]
async fn a_node_that_is_alone_is_waited_for() {
    let only = after(1500, json("200 OK", r#"{"data":"slow"}"#)).await;
    let proxy = quick(&[&only]).await;
    assert_eq!(send(&proxy, request("GET", BLOCK, "", "")).await.text(), r#"{"data":"slow"}"#);
    assert_eq!(only.count(), 1);
}

#[tokio::test]
async fn half_a_block_is_made_good_by_another_node_however_long_it_is() {
    for (path, length) in [
        (BLOCK, 1_500_000),
        ("/eth/v2/beacon/blocks/9", 1_500_000),
        ("/eth/v1/beacon/blobs/head", 1_500_000),
        // A block with many blobs, in JSON.
        (BLOCK, 40_000_000),
    ] {
        let whole = vec![b'x'; length];
        for in_chunks in [false, true] {
            let answer = if in_chunks { chunked("200 OK", "", &whole, 10_000) } else { response("200 OK", "", &whole) };
            let half = answer[..length / 2].to_vec();
            let first = Node::start(move |mut exchange: Exchange| {
                let half = half.clone();
                async move {
                    exchange.send(half).await;
                    sleep(Duration::from_millis(100)).await;
                    None
                }
            })
            .await;
            let second = Node::always(answer).await;
            let proxy = over(&[&first, &second], "").await;
            let answer = send(&proxy, request("GET", path, "", "")).await;
            assert_eq!((answer.status, answer.body.len()), (200, whole.len()), "{path}");
            assert!(answer.body == whole, "{path}");
            assert_eq!(second.count(), 1);
        }
    }
}

#[tokio::test]
async fn where_there_is_no_room_a_block_streams_as_any_answer() {
    let whole = vec![b'x'; 1_500_000];
    let node = Node::always(response("200 OK", "", &whole)).await;
    let proxy = over(&[&node], "[calls]\nmax_held_bytes = \"400kB\"\nmax_body = \"100kB\"\n").await;
    for _ in 0..3 {
        let answer = send(&proxy, request("GET", BLOCK, "", "")).await;
        assert!(answer.status == 200 && answer.body == whole);
    }
}

#[tokio::test]
async fn a_connection_lost_after_a_silence_was_not_just_closing() {
    let first = Node::start(|exchange: Exchange| async {
        match exchange.asked.turn {
            0 => exchange.reply(json("200 OK", r#"{"data":"first"}"#)).await,
            _ => {
                sleep(Duration::from_millis(600)).await;
                None
            }
        }
    })
    .await;
    let second = Node::always(json("200 OK", r#"{"data":"second"}"#)).await;
    let proxy = over(&[&first, &second], "[health]\ninterval = \"60s\"\n").await;
    const PATH: &str = "/eth/v2/beacon/pool/attestations";
    while first.asked().iter().all(|asked| asked.turn == 0) {
        send(&proxy, request("GET", PATH, "", "")).await;
    }
    let late = first.asked().iter().filter(|asked| asked.turn > 0).count();
    // It was asked once over the connection that had been used before, and not again.
    assert_eq!((late, first.count(), second.count()), (1, first.count(), 1));
}
