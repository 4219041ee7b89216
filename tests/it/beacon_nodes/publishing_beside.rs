//! What is signed while a node hangs: another's word, pause or lateness loses nothing, and the limit of what goes on is no endless loop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{sleep, timeout};

use crate::common::{
    client::Response,
    proxy::Proxy,
    rest::{Exchange, Node, json, over, request, response, send},
};

const BLOCKS: &str = "/eth/v2/beacon/blocks";
const EXITS: &str = "/eth/v1/beacon/pool/voluntary_exits";
const REPEATED: &str = r#"{"code":400,"message":"BLOCK_ERROR_REPEAT_PROPOSAL"}"#;

/// Slots of one second: a second node has a message after a quarter of that.
async fn hangs() -> Node {
    Node::paced(1, |mut exchange: Exchange| async {
        exchange.body().await;
        exchange.hang().await
    })
    .await
}

async fn after(millis: u64, answer: Vec<u8>) -> Node {
    Node::paced(1, move |exchange: Exchange| {
        let answer = answer.clone();
        async move {
            sleep(Duration::from_millis(millis)).await;
            exchange.reply(answer).await
        }
    })
    .await
}

/// Long before a node that hangs is given up.
async fn soon(proxy: &Proxy, path: &str) -> Response {
    timeout(Duration::from_secs(20), send(proxy, request("POST", path, "", "{}"))).await.unwrap()
}

#[tokio::test]
async fn at_the_limit_a_doubtful_node_is_waited_for() {
    let count = Arc::new(AtomicUsize::new(0));
    let first = Node::paced(1, move |exchange: Exchange| {
        let turn = count.fetch_add(1, SeqCst);
        async move {
            if turn == 0 {
                return exchange.reply(response("429 Many", "retry-after: 1\r\n", "")).await;
            }
            sleep(Duration::from_secs(2)).await;
            exchange.reply(json("200 OK", r#"{"data":"first"}"#)).await
        }
    })
    .await;
    let second = after(0, json("200 OK", r#"{"data":"second"}"#)).await;
    let proxy = over(&[&first, &second], "[calls]\nmax_held = 1\n").await;
    // Once it has rested, it is tried by a message; the other cannot have that too.
    while soon(&proxy, EXITS).await.text() != r#"{"data":"first"}"# {
        sleep(Duration::from_millis(100)).await;
    }
    let metrics = proxy.admin("GET /metrics").await.text();
    let again = |reason: &str| !metrics.contains(&format!("network=\"default\",reason=\"{reason}\"}} 0\n"));
    assert!(again("refused") && !again("doubtful") && !again("late"), "{metrics}");
}

#[tokio::test]
async fn message_that_all_nodes_know_otherwise_is_no_success() {
    for more in ["", "[beacon]\npublish_to = \"all\"\n"] {
        for list in [false, true] {
            let error = if list {
                r#"{"code":400,"message":"x","failures":[{"index":0,"message":"PriorAttestationKnown"}]}"#
            } else {
                REPEATED
            };
            let (first, second) = (after(0, json("400 Bad", error)).await, after(100, json("400 Bad", error)).await);
            let proxy = over(&[&first, &second], more).await;
            let answer = soon(&proxy, BLOCKS).await;
            assert_eq!((answer.status, &*answer.text()), (400, error), "{more}");
        }
    }
}

#[tokio::test]
async fn a_repeated_message_is_one_that_another_node_may_have() {
    let lost = Node::paced(1, |mut exchange: Exchange| async move {
        exchange.body().await;
        sleep(Duration::from_millis(400)).await;
        None
    })
    .await;
    for first in [lost, hangs().await, after(400, json("200 OK", "")).await] {
        let second = after(0, json("400 Bad", REPEATED)).await;
        let proxy = over(&[&first, &second], "").await;
        let answer = soon(&proxy, BLOCKS).await;
        assert_eq!((answer.status, &*answer.text()), (200, ""));
    }
    let refuses = after(400, json("400 Bad", r#"{"code":400,"message":"InvalidSignature"}"#)).await;
    let second = after(0, json("400 Bad", REPEATED)).await;
    let proxy = over(&[&refuses, &second], "").await;
    assert_eq!(soon(&proxy, BLOCKS).await.status, 400);
}

#[tokio::test]
async fn a_failed_node_may_have_passed_a_repeated_message_on() {
    const LIST: &str = r#"{"code":400,"message":"x","failures":[{"index":0,"message":"PriorAttestationKnown"}]}"#;
    const PAGE: &str = "content-type: text/html\r\n";
    for (first, status) in [
        (response("504 Gateway Timeout", PAGE, "<html>"), 200),
        (response("502 Bad Gateway", PAGE, "<html>"), 200),
        (response("200 OK", PAGE, "<html>"), 200),
        (response("503 Service Unavailable", "content-type: text/plain\r\n", "upstream connect error"), 200),
        (response("503 Busy", "", ""), 200),
        (response("520 Odd", PAGE, "<html>"), 200),
        (response("522 Odd", "", ""), 200),
        (response("529 Odd", PAGE, "<html>"), 200),
        (response("561 Odd", PAGE, "<html>"), 200),
        (response("599 Odd", "content-type: text/plain\r\n", "odd"), 200),
        (response("499 Gone", PAGE, "<html>"), 200),
        (json("500 Oops", r#"{"code":500,"message":"internal"}"#), 200),
        (json("408 Late", "{}"), 200),
        // These nodes have taken nothing.
        (json("503 Busy", r#"{"code":503,"message":"busy"}"#), 400),
        (response("429 Many", "", ""), 400),
        (response("404 Not Found", PAGE, "<html>"), 400),
        (json("500 Oops", REPEATED), 400),
    ] {
        for word in [REPEATED, LIST] {
            // The failure may come after the word on the message, too.
            for millis in if status == 200 { &[0, 400][..] } else { &[0] } {
                let (first, second) = (after(*millis, first.clone()).await, after(0, json("400 Bad", word)).await);
                let proxy = over(&[&first, &second], "[calls]\nhold = \"1s\"\n").await;
                let answer = soon(&proxy, BLOCKS).await;
                assert_eq!(answer.status, status, "{millis} {word}: {}", answer.text());
            }
        }
    }
}

#[tokio::test]
async fn a_node_that_was_busy_is_asked_again_while_another_hangs() {
    let count = Arc::new(AtomicUsize::new(0));
    let first = hangs().await;
    let second = Node::paced(1, move |exchange: Exchange| {
        let is_busy = count.fetch_add(1, SeqCst) == 0;
        let answer =
            if is_busy { json("503 Busy", r#"{"data":"busy"}"#) } else { json("200 OK", r#"{"data":"well"}"#) };
        exchange.reply(answer)
    })
    .await;
    let proxy = over(&[&first, &second], "").await;
    let answer = soon(&proxy, EXITS).await;
    assert_eq!((answer.status, &*answer.text(), second.count()), (200, r#"{"data":"well"}"#, 2));
}

#[tokio::test]
async fn message_for_all_nodes_waits_for_none_that_hangs() {
    const PATH: &str = "/eth/v1/validator/register_validator";
    for (status, code) in [("400 Bad", 400), ("500 Oops", 500)] {
        let (first, second) = (after(0, json(status, r#"{"data":"no"}"#)).await, hangs().await);
        let proxy = over(&[&first, &second], "").await;
        let answer = soon(&proxy, PATH).await;
        assert_eq!((answer.status, &*answer.text(), second.count()), (code, r#"{"data":"no"}"#, 1));
    }
}

#[tokio::test]
async fn a_word_in_the_apis_form_is_final_under_any_name_of_it() {
    let word = r#"{"code":400,"message":"invalid signature"}"#;
    for (fields, body, status) in
        [("content-type: application/problem+json\r\n", word, 400), ("", word, 400), ("", "invalid signature", 200)]
    {
        let first = Node::always(response("400 Bad", fields, body)).await;
        let second = after(0, json("200 OK", "")).await;
        first.set_pace(1);
        let proxy = over(&[&first, &second], "").await;
        assert_eq!(soon(&proxy, EXITS).await.status, status, "{fields}{body}");
    }
}

#[tokio::test]
async fn briefly_refused_message_waits_for_the_nodes() {
    const BUSY: &str = "retry-after: 1\r\n";
    // Each node says these, one after the other, and takes the message then.
    for nodes in [
        vec![vec![response("503 Busy", "", "")]],
        vec![vec![response("429 Many", BUSY, "")]],
        vec![vec![response("503 Busy", "", ""), response("502 Bad Gateway", "", "")]],
        vec![vec![response("429 Many", BUSY, "")], vec![response("503 Busy", "", ""); 100]],
        vec![vec![response("429 Many", "retry-after: 90\r\n", "")], vec![response("503 Busy", "", "")]],
        vec![vec![response("404 Not Found", "", ""); 100], vec![response("503 Busy", "", "")]],
    ] {
        let mut list = Vec::new();
        for answers in &nodes {
            let (answers, turn) = (answers.clone(), AtomicUsize::new(0));
            let node = Node::paced(1, move |exchange: Exchange| {
                let answer = answers.get(turn.fetch_add(1, SeqCst)).cloned();
                exchange.reply(answer.unwrap_or_else(|| json("200 OK", r#"{"data":"taken"}"#)))
            });
            list.push(node.await);
        }
        let proxy = over(&list.iter().collect::<Vec<_>>(), "").await;
        let answer = soon(&proxy, EXITS).await;
        let case: Vec<_> = nodes.iter().map(|answers| String::from_utf8_lossy(&answers[0])).collect();
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"taken"}"#), "{case:?}");
    }
}

#[tokio::test]
async fn a_resting_node_gets_a_message_later_while_another_hangs() {
    let count = Arc::new(AtomicUsize::new(0));
    let second = Node::paced(1, move |exchange: Exchange| {
        let rests = count.fetch_add(1, SeqCst) == 0;
        exchange.reply(if rests {
            response("429 Many", "retry-after: 2\r\n", "")
        } else {
            json("200 OK", r#"{"data":"well"}"#)
        })
    })
    .await;
    let first = hangs().await;
    let proxy = over(&[&first, &second], "").await;
    let answer = soon(&proxy, EXITS).await;
    assert_eq!((answer.status, &*answer.text(), second.count()), (200, r#"{"data":"well"}"#, 2));
}

#[tokio::test]
async fn a_node_that_rests_may_know_the_block_that_another_does_not() {
    let unknown = json("400 Bad", r#"{"code":400,"message":"BLOCK_ERROR_PARENT_UNKNOWN"}"#);
    let count = Arc::new(AtomicUsize::new(0));
    let second = Node::paced(1, move |exchange: Exchange| {
        let rests = count.fetch_add(1, SeqCst) == 0;
        exchange.reply(if rests {
            response("429 Many", "retry-after: 3\r\n", "")
        } else {
            json("200 OK", r#"{"data":"well"}"#)
        })
    })
    .await;
    let first = after(0, unknown).await;
    let proxy = over(&[&first, &second], "").await;
    let both = async {
        let one = soon(&proxy, EXITS).await;
        one.text()
    };
    let other = async {
        // Its rest has begun.
        while second.count() == 0 {
            sleep(Duration::from_millis(10)).await;
        }
        sleep(Duration::from_millis(200)).await;
        soon(&proxy, EXITS).await.text()
    };
    let (one, other) = tokio::join!(both, other);
    assert_eq!((&*one, &*other, second.count()), (r#"{"data":"well"}"#, r#"{"data":"well"}"#, 3));
}
