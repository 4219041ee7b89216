//! What may have an effect is sent once: only a node that had nothing of it, or says that it did nothing, is followed by another.

use super::{
    ALL_METHODS,
    common::{
        rest::{Exchange, Node, chunks, json, over, request, response, send, status},
        until,
    },
};

const BLOCKS: &str = "/eth/v2/beacon/blocks?broadcast_validation=consensus";

async fn well() -> Node {
    Node::always(json("200 OK", "\"well\"")).await
}

#[tokio::test]
async fn a_publication_is_final_by_its_code_unless_the_node_says_that_it_cannot_now() {
    let paths = [
        BLOCKS,
        "/eth/v1/beacon/blinded_blocks",
        "/eth/v1/beacon/pool/voluntary_exits",
        "/eth/v2/validator/aggregate_and_proofs",
    ];
    for path in paths {
        for (code, is_final) in [
            ("200 OK", true),
            ("202 Accepted", true),
            ("400 Bad", true),
            ("415 Type", true),
            ("500 Oops", true),
            ("503 Syncing", false),
        ] {
            let (first, second) = (Node::always(json(code, "\"first\"")).await, well().await);
            let proxy = over(&[&first, &second], "").await;
            let answer = send(&proxy, request("POST", path, "eth-consensus-version: electra\r\n", "the block")).await;
            let expected = if is_final { (&code[..3], "\"first\"", 0) } else { ("200", "\"well\"", 1) };
            assert_eq!((&*answer.status.to_string(), &*answer.text(), second.count()), expected, "{path} {code}");
            for asked in second.asked() {
                assert_eq!((&*asked.target, &*asked.body), (path, &b"the block"[..]));
                assert_eq!(asked.header("eth-consensus-version"), ["electra"]);
            }
        }
    }
}

#[tokio::test]
async fn when_no_node_can_publish_the_client_hears_it_from_one() {
    let node = |text: &'static str| Node::always(json("503 Service Unavailable", text));
    let (first, second) = (node("\"first\"").await, node("\"second\"").await);
    let proxy = over(&[&first, &second], "").await;
    let answer = send(&proxy, request("POST", BLOCKS, "", "the block")).await;
    assert_eq!((answer.status, &*answer.text()), (503, "\"first\""));
    assert_eq!((first.count(), second.count()), (1, 1));
}

#[tokio::test]
async fn what_may_have_arrived_is_not_sent_again() {
    for (method, path) in [
        ("POST", BLOCKS),
        ("POST", "/eth/v1/beacon/pool/attestations"),
        ("POST", "/eth/v1/validator/beacon_committee_selections"),
        ("PUT", "/eth/v1/some/thing"),
        ("DELETE", "/eth/v1/some/thing"),
    ] {
        let first = Node::start(|mut exchange: Exchange| async move {
            exchange.body().await;
            None
        })
        .await;
        let second = well().await;
        let proxy = over(&[&first, &second], ALL_METHODS).await;
        let answer = send(&proxy, request(method, path, "", "the body")).await;
        let error = answer.json();
        assert_eq!((answer.status, &error["code"]), (502, &502.into()), "{method} {path}");
        assert!(error["message"].as_str().unwrap().contains("may or may not have taken effect"), "{error}");
        assert_eq!((first.count(), second.count()), (1, 0), "{method} {path}");
    }
}

#[tokio::test]
async fn a_publication_may_take_its_time_and_a_short_question_may_not() {
    let first = Node::start(|exchange: Exchange| async {
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        exchange.reply(json("200 OK", "\"first\"")).await
    })
    .await;
    let second = well().await;
    let patience = "[calls]\nattempt_timeout = \"500ms\"\n[health]\nfall = 100\n";
    let proxy = over(&[&first, &second], patience).await;
    for (method, path, text) in [
        ("POST", BLOCKS, "\"first\""),
        ("GET", "/eth/v2/debug/beacon/states/head", "\"first\""),
        ("GET", "/eth/v2/beacon/blocks/head", "\"first\""),
        ("POST", "/eth/v1/beacon/states/head/validators", "\"first\""),
        ("POST", "/eth/v1/beacon/rewards/attestations/7", "\"first\""),
        ("GET", "/eth/v1/beacon/headers/head", "\"well\""),
        ("GET", "/eth/v1/node/version", "\"well\""),
        ("GET", "/eth/v1/validator/attestation_data", "\"well\""),
        ("POST", "/eth/v1/validator/duties/attester/7", "\"well\""),
    ] {
        let answer = send(&proxy, request(method, path, "", "")).await;
        assert_eq!((answer.status, &*answer.text()), (200, text), "{method} {path}");
    }
}

#[tokio::test]
async fn what_no_node_has_seen_goes_to_another_and_never_over_a_connection_that_may_be_closing() {
    // It keeps connections open, and ends them when the next request comes: probes have used those that are there.
    let first = Node::start(|exchange: Exchange| async {
        if exchange.asked.turn > 0 { None } else { exchange.reply(json("200 OK", "\"first\"")).await }
    })
    .await;
    let second = well().await;
    let proxy = over(&[&first, &second], "").await;
    for _ in 0..20 {
        let answer = send(&proxy, request("POST", BLOCKS, "", "the block")).await;
        assert_eq!((answer.status, &*answer.text()), (200, "\"first\""));
    }
    first.stop().await;
    for (path, headers) in [(BLOCKS, ""), ("/eth/v1/some/thing", "")] {
        let answer = send(&proxy, request("POST", path, headers, "the block")).await;
        assert_eq!((answer.status, &*answer.text()), (200, "\"well\""), "{path}");
    }
    let bodies: Vec<Vec<u8>> = second.asked().into_iter().map(|asked| asked.body).collect();
    assert_eq!(bodies, [b"the block", b"the block"]);
}

#[tokio::test]
async fn a_body_too_long_to_be_kept_is_passed_on_once() {
    let (first, second) = (Node::always(json("503 Syncing", "\"first\"")).await, well().await);
    let proxy = over(&[&first, &second], "").await;
    let body: Vec<u8> = (0..=255).cycle().take((16 << 20) + 1).collect();
    let head = format!("POST {BLOCKS} HTTP/1.1\r\nhost: p\r\ntransfer-encoding: chunked\r\n\r\n");
    for asked in [request("POST", BLOCKS, "", &body), [head.into_bytes(), chunks(&body, 50_000)].concat()] {
        let answer = send(&proxy, asked).await;
        assert_eq!((answer.status, &*answer.text()), (503, "\"first\""));
        assert!(first.asked().last().unwrap().body == body);
        assert_eq!(second.count(), 0);
    }
    // One byte less can be sent again.
    let answer = send(&proxy, request("POST", BLOCKS, "", &body[1..])).await;
    assert_eq!((answer.status, &*answer.text()), (200, "\"well\""));
    assert!(second.asked().last().unwrap().body == body[1..]);
}

#[tokio::test]
async fn a_node_may_answer_before_it_has_read_the_body() {
    let node = Node::start(|mut exchange: Exchange| async move {
        exchange.send(response("413 Payload Too Large", "connection: close\r\n", "too long")).await;
        // It reads on for a while, so that the answer is not lost to a reset.
        exchange.hang().await
    })
    .await;
    let proxy = over(&[&node], "").await;
    let mut client = proxy.client().await;
    let head = "POST /eth/v1/some/thing HTTP/1.1\r\nhost: p\r\ncontent-length: 100000000\r\n\r\n";
    client.send([head.as_bytes(), &[0; 1000]].concat()).await;
    let answer = client.response().await;
    assert_eq!((answer.status, &*answer.text()), (413, "too long"));
}

#[tokio::test]
async fn a_body_that_its_client_breaks_off_is_the_clients_fault_and_no_nodes() {
    let node = Node::start(|mut exchange: Exchange| async move {
        assert!(!exchange.body().await, "half a body was taken for a whole one");
        None
    })
    .await;
    let proxy = over(&[&node], "").await;
    for path in [BLOCKS, "/eth/v1/some/thing"] {
        for framing in ["content-length: 100", "transfer-encoding: chunked"] {
            for _ in 0..4 {
                let mut client = proxy.client().await;
                client.send(format!("POST {path} HTTP/1.1\r\nhost: p\r\n{framing}\r\n\r\n5\r\nhello\r\n")).await;
                tokio::io::AsyncWriteExt::shutdown(&mut client.io).await.unwrap();
                let _ = client.try_response().await;
            }
        }
    }
    assert_eq!(status(&proxy, "cl-1").await["verdict"], "up");
    // The block was never begun.
    assert!(node.asked().iter().all(|asked| asked.target != BLOCKS));
    until("nothing is owed", async || status(&proxy, "cl-1").await["in_flight"] == 0).await;
}
