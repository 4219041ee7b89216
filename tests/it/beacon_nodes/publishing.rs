//! What is signed is given to nodes until one has it; what may have an effect is sent once otherwise: only a node that had nothing of
//! that, or says that it did nothing, is followed by another.

use super::ALL_METHODS;
use crate::common::{
    rest::{Exchange, Node, chunks, json, over, request, response, send, status},
    until,
};

const BLOCKS: &str = "/eth/v2/beacon/blocks?broadcast_validation=consensus";

pub(super) async fn well() -> Node {
    Node::always(json("200 OK", r#"{"data":"well"}"#)).await
}

/// One path of each kind of what is signed.
const SIGNED: [&str; 12] = [
    BLOCKS,
    "/eth/v2/beacon/blinded_blocks",
    "/eth/v1/beacon/execution_payload_envelopes",
    "/eth/v1/beacon/execution_payload_bids",
    ATTESTATIONS,
    "/eth/v1/beacon/pool/payload_attestations",
    "/eth/v1/beacon/pool/sync_committees",
    "/eth/v1/beacon/pool/voluntary_exits",
    "/eth/v1/beacon/pool/bls_to_execution_changes",
    "/eth/v1/beacon/pool/proposer_slashings",
    "/eth/v2/validator/aggregate_and_proofs",
    "/eth/v1/validator/contribution_and_proofs",
];
pub(super) const ATTESTATIONS: &str = "/eth/v2/beacon/pool/attestations";

/// A node that reads what is published and closes the connection.
async fn dies() -> Node {
    Node::start(|mut exchange: Exchange| async move {
        exchange.body().await;
        None
    })
    .await
}

#[tokio::test]
async fn a_nodes_word_on_a_signed_message_is_final() {
    for path in SIGNED {
        const WRONG: &str = r#"{"code":400,"message":"invalid signature"}"#;
        for (code, word) in [("200 OK", "{}"), ("202 Accepted", "{}"), ("400 Bad", WRONG)] {
            // Only its maker, which is not known here, refuses a block without its payload.
            if word == WRONG && (path.contains("blinded") || path.contains("envelopes")) {
                continue;
            }
            let (first, second) = (Node::always(json(code, word)).await, well().await);
            let proxy = over(&[&first, &second], "").await;
            let answer = send(&proxy, request("POST", path, "", "the block")).await;
            let got = (&*answer.status.to_string(), &*answer.text(), second.count());
            assert_eq!(got, (&code[..3], word, 0), "{path} {code}");
        }
    }
}

#[tokio::test]
async fn a_signed_message_goes_on_to_a_node_that_takes_it() {
    let page = |status| response(status, "content-type: text/html\r\n", "<html>");
    let cut = response("200 OK", "", r#"{"data":"first"}"#);
    let answers = [
        json("500 Oops", r#"{"data":"first"}"#),
        json("503 Syncing", r#"{"data":"first"}"#),
        json("429 Many", r#"{"data":"first"}"#),
        json("404 No", r#"{"data":"first"}"#),
        page("502 Bad Gateway"),
        page("504 Gateway Timeout"),
        page("400 Bad Request"),
        page("413 Payload Too Large"),
        page("200 OK"),
        response("200 OK", "content-type: text/plain\r\n", "down for maintenance"),
        cut[..cut.len() - 3].to_vec(),
        Vec::new(),
    ];
    for path in SIGNED {
        for answer in &answers {
            let answer = answer.clone();
            let first = Node::start(move |mut exchange: Exchange| {
                let answer = answer.clone();
                async move {
                    exchange.body().await;
                    exchange.send(answer).await;
                    None
                }
            })
            .await;
            let second = well().await;
            let proxy = over(&[&first, &second], "").await;
            let answer = send(&proxy, request("POST", path, "eth-consensus-version: electra\r\n", "the block")).await;
            assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#), "{path}");
            // A lost connection may only have been closed: the node is asked once more over a fresh one.
            assert!((1..=3).contains(&first.count()) && second.count() == 1, "{path} {}", first.count());
            let asked = &second.asked()[0];
            assert_eq!((&*asked.target, &*asked.body), (path, &b"the block"[..]));
            assert_eq!(asked.header("eth-consensus-version"), ["electra"]);
        }
    }
}

#[tokio::test]
async fn a_route_that_no_node_has_is_said_at_once() {
    let node = || Node::always(json("404 Not Found", r#"{"code":404,"message":"no such route"}"#));
    let (first, second) = (node().await, node().await);
    let proxy = over(&[&first, &second], "").await;
    let answer = send(&proxy, request("POST", ATTESTATIONS, "", "[]")).await;
    assert_eq!((answer.status, first.count(), second.count()), (404, 1, 1));
}

/// Nodes of a chain with short slots; the first reads a request and says nothing.
async fn one_that_hangs_and_one_that_is_well() -> (Node, Node) {
    let hangs = |mut exchange: Exchange| async {
        exchange.body().await;
        exchange.hang().await
    };
    let well = |exchange: Exchange| exchange.reply(json("200 OK", r#"{"data":"well"}"#));
    (Node::paced(1, hangs).await, Node::paced(1, well).await)
}

#[tokio::test]
async fn a_node_that_hangs_over_a_block_shares_it_with_another() {
    let (first, second) = one_that_hangs_and_one_that_is_well().await;
    let proxy = over(&[&first, &second], "").await;
    let answer = send(&proxy, request("POST", BLOCKS, "", "the block")).await;
    assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#));
    let metrics = proxy.admin("GET /metrics").await.text();
    let line = r#"steadfast_publications_again_total{network="default",reason="late"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
}

/// Nodes of a chain with short slots; the first hangs over what is signed, and over nothing else.
async fn one_that_hangs_over_publications() -> (Node, Node) {
    let hangs = |mut exchange: Exchange| async {
        exchange.body().await;
        if exchange.asked.method == "POST" {
            return exchange.hang().await;
        }
        exchange.reply(json("200 OK", r#"{"data":"first"}"#)).await
    };
    let well = |exchange: Exchange| exchange.reply(json("200 OK", r#"{"data":"well"}"#));
    (Node::paced(1, hangs).await, Node::paced(1, well).await)
}

fn posts(node: &Node) -> usize {
    node.asked().iter().filter(|asked| asked.method == "POST").count()
}

#[tokio::test]
async fn a_node_that_hangs_over_messages_is_passed_over_for_them() {
    let (first, second) = one_that_hangs_over_publications().await;
    let proxy = over(&[&first, &second], "").await;
    let publish = async || {
        let answer = send(&proxy, request("POST", ATTESTATIONS, "", "[]")).await;
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#));
    };
    for count in 1..=3 {
        publish().await;
        assert_eq!((posts(&first), posts(&second)), (count, count));
        // What is asked of the same group is answered, and excuses nothing.
        let asked = send(&proxy, request("GET", ATTESTATIONS, "", "")).await;
        assert_eq!(asked.text(), r#"{"data":"first"}"#);
    }
    publish().await;
    assert_eq!((posts(&first), posts(&second)), (3, 4), "it goes to the other at once");
    let line = |reason: &str| format!("steadfast_publications_again_total{{network=\"default\",reason=\"{reason}\"}}");
    let has = async |line: &str| proxy.admin("GET /metrics").await.text().contains(line);
    // After a while the first is tried again, and the other has it without a wait.
    until("it is tried again", async || {
        publish().await;
        has(&format!("{} 1\n", line("doubtful"))).await
    })
    .await;
    assert_eq!(posts(&first), 4);
    assert!(has(&format!("{} 3", line("late"))).await, "none has waited since");
    assert!(proxy.admin("GET /status").await.text().contains("publishing: pool"));
    assert_eq!(send(&proxy, request("GET", ATTESTATIONS, "", "")).await.text(), r#"{"data":"first"}"#);
}

#[tokio::test]
async fn a_block_goes_to_a_node_that_hung_and_to_another_at_once() {
    let (first, second) = one_that_hangs_over_publications().await;
    let proxy = over(&[&first, &second], "").await;
    for count in 1..=4 {
        assert_eq!(send(&proxy, request("POST", BLOCKS, "", "the block")).await.status, 200);
        // The first may be the only node that can do something with the block.
        until("both have the block", async || (posts(&first), posts(&second)) == (count, count)).await;
    }
    let metrics = proxy.admin("GET /metrics").await.text();
    for line in [r#"reason="doubtful"} 1"#, r#"reason="late"} 3"#] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn admitted_message_reaches_a_node_and_others_are_refused() {
    let hangs = Node::start(|mut exchange: Exchange| async {
        exchange.body().await;
        if exchange.asked.body == b"hang" { exchange.hang().await } else { exchange.reply(json("200 OK", "")).await }
    })
    .await;
    let proxy = over(&[&hangs], "[calls]\nmax_held = 1\n").await;
    let answer = send(&proxy, request("POST", ATTESTATIONS, "", "[]")).await;
    assert_eq!((answer.status, posts(&hangs)), (200, 1), "one is as many as may be");
    let mut client = proxy.client().await;
    client.send(request("POST", ATTESTATIONS, "", "hang")).await;
    until("the node has it", async || hangs.asked().iter().any(|asked| asked.body == b"hang")).await;
    let answer = send(&proxy, request("POST", ATTESTATIONS, "", "[]")).await;
    assert!(answer.status == 503 && answer.text().contains("max_held is 1"), "{}", answer.text());
    assert_eq!(posts(&hangs), 2);
}

#[tokio::test]
async fn a_block_goes_on_though_its_client_has_left() {
    let (first, second) = one_that_hangs_and_one_that_is_well().await;
    let proxy = over(&[&first, &second], "").await;
    let mut client = proxy.client().await;
    client.send(request("POST", BLOCKS, "", "the block")).await;
    until("the first node has it", async || first.asked().iter().any(|asked| asked.body == b"the block")).await;
    drop(client);
    until("the second has it too", async || second.asked().iter().any(|asked| asked.body == b"the block")).await;
}

#[tokio::test]
async fn when_no_node_answers_to_a_block_its_outcome_is_unknown() {
    let (first, second) = (dies().await, dies().await);
    let proxy = over(&[&first, &second], "").await;
    let answer = send(&proxy, request("POST", BLOCKS, "", "the block")).await;
    let error = answer.json();
    assert_eq!((answer.status, &error["code"]), (502, &502.into()));
    assert!(error["message"].as_str().unwrap().contains("may or may not have taken effect"), "{error}");
    assert!(first.count() > 0 && second.count() > 0);
}

#[tokio::test]
async fn message_that_the_network_has_already_is_a_success() {
    let error = |message: &str| format!(r#"{{"code":400,"message":"{message}"}}"#);
    for (message, is_known_alone) in [
        ("BAD_REQUEST: BlockIsAlreadyKnown(0x12)", true),
        ("BLOCK_ERROR_ALREADY_KNOWN", true),
        ("BLOCK_ERROR_REPEAT_PROPOSAL", false),
        ("RepeatProposal { proposer: 7 }", false),
        ("Exit is not the first one for validator 7.", false),
    ] {
        let knows = Node::always(json("400 Bad", &error(message))).await;
        let first = dies().await;
        let proxy = over(&[&first, &knows], "").await;
        let answer = send(&proxy, request("POST", BLOCKS, "", "the block")).await;
        assert_eq!((answer.status, &*answer.text()), (200, ""), "{message}");
        // Where nobody else had it, it may be another message that is known.
        let proxy = over(&[&knows], "").await;
        let answer = send(&proxy, request("POST", BLOCKS, "", "the block")).await;
        assert_eq!(answer.status, if is_known_alone { 200 } else { 400 }, "{message}");
    }
}

#[tokio::test]
async fn only_a_nodes_word_on_the_message_is_a_success() {
    const KNOWN: &str = r#"{"code":400,"message":"BLOCK_ERROR_ALREADY_KNOWN"}"#;
    let parent = r#"{"code":400,"message":"BlockError: ParentAlreadyKnownInvalid"}"#;
    let peer = r#"{"code":500,"message":"failed to publish: context deadline exceeded; peer already seen"}"#;
    let html = "content-type: text/html\r\n";
    for (answer, status) in [
        (json("500 Oops", KNOWN), 200),
        (json("409 Conflict", KNOWN), 200),
        (json("400 Bad", parent), 400),
        (json("500 Oops", peer), 500),
        (json("503 Syncing", KNOWN), 503),
        (json("502 Bad Gateway", KNOWN), 502),
        (json("404 No", KNOWN), 404),
        (response("400 Bad", html, KNOWN), 400),
    ] {
        let node = Node::always(answer.clone()).await;
        let proxy = over(&[&node], "[calls]\nhold = \"100ms\"\n").await;
        let heard = send(&proxy, request("POST", BLOCKS, "", "the block")).await;
        assert_eq!(heard.status, status, "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn a_block_that_its_node_cannot_place_is_given_to_another() {
    let message = r#"{"code":400,"message":"BLOCK_ERROR_PARENT_UNKNOWN"}"#;
    let (lags, also, second) =
        (Node::always(json("400 Bad", message)).await, Node::always(json("400 Bad", message)).await, well().await);
    let proxy = over(&[&lags, &second], "").await;
    assert_eq!(send(&proxy, request("POST", BLOCKS, "", "the block")).await.text(), r#"{"data":"well"}"#);
    // When no node can, the client has a node's words.
    let proxy = over(&[&lags, &also], "").await;
    let answer = send(&proxy, request("POST", BLOCKS, "", "the block")).await;
    assert_eq!((answer.status, &*answer.text()), (400, message));
}

#[tokio::test]
async fn all_nodes_have_it_at_once_where_the_operator_wants_that() {
    let slow = Node::start(|exchange: Exchange| async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        exchange.reply(json("200 OK", r#"{"data":"slow"}"#)).await
    })
    .await;
    let (bad, good) = (Node::always(json("400 Bad", r#"{"data":"bad"}"#)).await, well().await);
    let proxy = over(&[&slow, &good, &bad], "[beacon]\npublish_to = \"all\"\n").await;
    let answer = send(&proxy, request("POST", BLOCKS, "", "the block")).await;
    assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#));
    for node in [&slow, &good, &bad] {
        until("every node has it", async || node.asked().iter().any(|asked| asked.body == b"the block")).await;
        assert_eq!(node.count(), 1);
    }
}

#[tokio::test]
async fn when_no_node_can_publish_the_client_hears_it_from_one() {
    let node = |text: &'static str| Node::always(json("503 Service Unavailable", text));
    let (first, second) = (node(r#"{"data":"first"}"#).await, node(r#"{"data":"second"}"#).await);
    let proxy = over(&[&first, &second], "[calls]\nhold = \"2s\"\n").await;
    let answer = send(&proxy, request("POST", BLOCKS, "", "the block")).await;
    assert_eq!((answer.status, &*answer.text()), (503, r#"{"data":"first"}"#));
    // They are asked again meanwhile, after pauses that become longer.
    assert_eq!((first.count(), second.count()), (3, 3));
}

#[tokio::test]
async fn message_that_may_have_arrived_is_not_sent_again() {
    for (method, path) in [
        ("POST", "/eth/v1/beacon/some/thing"),
        ("POST", "/eth/v1/validator/something_new"),
        ("PUT", "/eth/v1/some/thing"),
        ("DELETE", "/eth/v1/some/thing"),
    ] {
        let (first, second) = (dies().await, well().await);
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
        exchange.reply(json("200 OK", r#"{"data":"first"}"#)).await
    })
    .await;
    let second = well().await;
    let time_limit = "[calls]\nattempt_timeout = \"500ms\"\n[health]\nfall = 100\n";
    let proxy = over(&[&first, &second], time_limit).await;
    for (method, path, text) in [
        ("POST", BLOCKS, r#"{"data":"first"}"#),
        ("GET", "/eth/v2/debug/beacon/states/head", r#"{"data":"first"}"#),
        ("GET", "/eth/v2/beacon/blocks/head", r#"{"data":"first"}"#),
        ("POST", "/eth/v1/beacon/states/head/validators", r#"{"data":"first"}"#),
        ("POST", "/eth/v1/beacon/rewards/attestations/7", r#"{"data":"first"}"#),
        ("GET", "/eth/v1/beacon/headers/head", r#"{"data":"well"}"#),
        ("GET", "/eth/v1/node/version", r#"{"data":"well"}"#),
        ("GET", "/eth/v1/validator/attestation_data", r#"{"data":"well"}"#),
        ("POST", "/eth/v1/validator/duties/attester/7", r#"{"data":"well"}"#),
    ] {
        let answer = send(&proxy, request(method, path, "", "")).await;
        assert_eq!((answer.status, &*answer.text()), (200, text), "{method} {path}");
    }
}

#[tokio::test]
async fn an_unseen_message_goes_elsewhere_on_a_sound_connection() {
    // It keeps connections open, and ends them when the next request comes: probes have used those that are there.
    let first = Node::start(|exchange: Exchange| async {
        if exchange.asked.turn > 0 { None } else { exchange.reply(json("200 OK", r#"{"data":"first"}"#)).await }
    })
    .await;
    let second = well().await;
    let proxy = over(&[&first, &second], "").await;
    for _ in 0..20 {
        let answer = send(&proxy, request("POST", BLOCKS, "", "the block")).await;
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"first"}"#));
    }
    first.stop().await;
    for (path, headers) in [(BLOCKS, ""), ("/eth/v1/some/thing", "")] {
        let answer = send(&proxy, request("POST", path, headers, "the block")).await;
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#), "{path}");
    }
    let bodies: Vec<Vec<u8>> = second.asked().into_iter().map(|asked| asked.body).collect();
    assert_eq!(bodies, [b"the block", b"the block"]);
}

#[tokio::test]
async fn a_body_too_long_to_be_kept_goes_to_all_nodes_at_once() {
    let (first, second) = (Node::always(json("503 Syncing", r#"{"data":"first"}"#)).await, well().await);
    let proxy = over(&[&first, &second], "").await;
    let body: Vec<u8> = (0..=255).cycle().take((48 << 20) + 1).collect();
    let head = format!("POST {BLOCKS} HTTP/1.1\r\nhost: p\r\ntransfer-encoding: chunked\r\n\r\n");
    for asked in [request("POST", BLOCKS, "", &body), [head.into_bytes(), chunks(&body, 50_000)].concat()] {
        let answer = send(&proxy, asked).await;
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#));
        for node in [&first, &second] {
            until("it has all", async || node.asked().last().is_some_and(|asked| asked.body == body)).await;
        }
    }
    // One byte less can be sent again.
    let answer = send(&proxy, request("POST", BLOCKS, "", &body[1..])).await;
    assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#));
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
async fn a_body_that_breaks_off_is_the_clients_fault_and_no_nodes() {
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
