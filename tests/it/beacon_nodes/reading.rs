//! Requests without effect are made good by another node, as long as the client has seen nothing of an answer.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::common::{
    client::Broken,
    rest::{Exchange, Node, ask, chunked, json, over, request, response, send, status, until_verdict},
    until,
};

const PATH: &str = "/eth/v1/beacon/headers/head";

async fn well() -> Node {
    Node::always(json("200 OK", r#"{"data":"well"}"#)).await
}

#[tokio::test]
async fn request_that_one_node_cannot_answer_goes_to_another() {
    let long = "x".repeat(20_000);
    let answers: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("half a head", b"HTTP/1.1 200 OK\r\nconten".to_vec()),
        ("no HTTP", b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()),
        ("half a body", json("200 OK", &long)[..10_000].to_vec()),
        ("half a chunked body", chunked("200 OK", "", long.as_bytes(), 4000)[..10_000].to_vec()),
        ("500", json("500 Internal Server Error", r#"{"code":500,"message":"oops"}"#)),
        ("501", json("501 Not Implemented", r#"{"code":501,"message":"not here"}"#)),
        ("502", response("502 Bad Gateway", "content-type: text/html\r\n", "<html>")),
        ("503", json("503 Service Unavailable", r#"{"code":503,"message":"syncing"}"#)),
        ("429", response("429 Too Many Requests", "retry-after: 1\r\n", "")),
        ("401", response("401 Unauthorized", "", "")),
    ];
    for (what, answer) in answers {
        let is_whole = answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.1 5");
        let first = Node::start(move |mut exchange: Exchange| {
            let answer = answer.clone();
            async move {
                exchange.body().await;
                exchange.send(answer).await;
                is_whole.then_some(exchange)
            }
        })
        .await;
        let second = well().await;
        let proxy = over(&[&first, &second], "").await;
        // Some POSTs only ask: their bodies go along.
        let duties = request("POST", "/eth/v1/validator/duties/attester/7", "", "[\"1\"]");
        for asked in [request("GET", PATH, "", ""), duties] {
            let answer = send(&proxy, asked).await;
            assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#), "{what}");
        }
        assert!(first.count() >= 2, "{what}");
        let bodies: Vec<Vec<u8>> = second.asked().into_iter().map(|asked| asked.body).collect();
        assert_eq!(bodies, [&b""[..], b"[\"1\"]"], "{what}");
    }
}

#[tokio::test]
async fn answers_that_speak_of_the_request_reach_the_client() {
    let error = r#"{"code":4,"message":"as it is"}"#;
    for (status, body) in [
        ("404 Not Found", error),
        ("406 Not Acceptable", error),
        ("414 URI Too Long", error),
        ("206 Partial Content", r#"{"data":[]}"#),
    ] {
        let (first, second) = (Node::always(json(status, body)).await, well().await);
        let proxy = over(&[&first, &second], "").await;
        let answer = ask(&proxy, "GET", PATH).await;
        assert_eq!(format!("{}", answer.status), status[..3]);
        assert_eq!(answer.text(), body);
        assert_eq!(second.count(), 0, "{status}");
    }
}

#[tokio::test]
async fn when_all_fail_the_client_has_a_nodes_own_words() {
    let first = Node::always(json("500 Internal Server Error", r#"{"code":500,"message":"the first"}"#)).await;
    let second = Node::start(|_| async { None }).await;
    let proxy = over(&[&first, &second], "").await;
    let answer = ask(&proxy, "GET", PATH).await;
    assert_eq!((answer.status, &*answer.text()), (500, r#"{"code":500,"message":"the first"}"#));
    // Its own words are no evidence: it goes on serving.
    for _ in 0..5 {
        ask(&proxy, "GET", PATH).await;
    }
    assert_eq!(status(&proxy, "cl-1").await["verdict"], "up");
}

#[tokio::test]
async fn a_request_goes_where_it_succeeds_and_a_nodes_words_stay() {
    let page = "<html>Bad Gateway</html>";
    for (answer, asked) in [
        (json("500 Internal Server Error", r#"{"code":500,"message":"no such state here"}"#), 6),
        (response("502 Bad Gateway", "content-type: text/html\r\n", page), 3),
    ] {
        let (first, second) = (Node::always(answer).await, well().await);
        let proxy = over(&[&first, &second], "[health]\nfall = 3\ninterval = \"60s\"\n").await;
        for _ in 0..6 {
            assert_eq!(ask(&proxy, "GET", PATH).await.text(), r#"{"data":"well"}"#);
        }
        assert_eq!(status(&proxy, "cl-1").await["verdict"], "up");
        assert_eq!(first.count(), asked);
    }
}

#[tokio::test]
async fn a_success_in_another_form_than_the_apis_is_asked_elsewhere() {
    let kind = |kind: &str, body| response("200 OK", &format!("content-type: {kind}\r\n"), body);
    for (answer, is_ours) in [
        (kind("text/plain", "down for maintenance"), false),
        (kind("text/html; charset=utf-8", "<html>"), false),
        (kind("text/plain", ""), false),
        (kind("Application/JSON; charset=utf-8", r#"{"data":{}}"#), true),
        (kind("application/octet-stream", "{}"), true),
        (response("200 OK", "", r#"{"data":{}}"#), true),
    ] {
        let (first, second) = (Node::always(answer.clone()).await, well().await);
        let proxy = over(&[&first, &second], "").await;
        let case = String::from_utf8_lossy(&answer);
        for (method, path) in [
            ("GET", "/eth/v1/validator/attestation_data?slot=1&committee_index=0"),
            ("GET", "/eth/v3/validator/blocks/7?randao_reveal=0x00"),
            ("POST", "/eth/v1/validator/duties/attester/7"),
            ("GET", "/eth/v1/beacon/blocks/head/root"),
            ("GET", PATH),
        ] {
            let answer = ask(&proxy, method, path).await;
            assert_eq!((answer.status, answer.text() != r#"{"data":"well"}"#), (200, is_ours), "{path} {case}");
        }
        assert_eq!(status(&proxy, "cl-1").await["verdict"], "up");
        // Where no node does better, that is said.
        let proxy = over(&[&first], "").await;
        assert_eq!(ask(&proxy, "GET", PATH).await.status, if is_ours { 200 } else { 502 });
    }
}

#[tokio::test]
async fn a_request_no_node_answers_is_tried_again_in_its_time() {
    let node = Node::start({
        let drops = std::sync::atomic::AtomicUsize::new(0);
        move |exchange: Exchange| {
            let drop = drops.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2;
            async move { if drop { None } else { exchange.reply(json("200 OK", r#"{"data":"at last"}"#)).await } }
        }
    })
    .await;
    let proxy = over(&[&node], "").await;
    assert_eq!(ask(&proxy, "GET", PATH).await.text(), r#"{"data":"at last"}"#);
}

#[tokio::test]
async fn a_connection_that_the_node_had_closed_is_no_attempt_at_it() {
    let node = Node::start(|exchange: Exchange| async {
        if exchange.asked.turn > 0 { None } else { exchange.reply(json("200 OK", r#"{"data":"well"}"#)).await }
    })
    .await;
    let proxy = over(&[&node], "[calls]\nattempts = 1\n").await;
    for _ in 0..20 {
        assert_eq!(ask(&proxy, "GET", PATH).await.text(), r#"{"data":"well"}"#);
    }
    assert_eq!(status(&proxy, "cl-1").await["verdict"], "up");
}

#[tokio::test]
async fn a_silent_node_loses_its_waiting_requests_to_another() {
    let (first, second) = (Node::start(Exchange::hang).await, well().await);
    let proxy = over(&[&first, &second], "").await;
    let mut client = proxy.client().await;
    client.send(request("GET", "/eth/v2/debug/beacon/states/head", "", "")).await;
    until("the node has the request", async || first.count() == 1).await;
    let started = Instant::now();
    first.set_dead(true);
    let answer = client.response().await;
    assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"well"}"#));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    until_verdict(&proxy, "cl-1", "down").await;
    until("the connection is given up", async || first.open() == 0).await;
}

#[tokio::test]
async fn a_slow_node_that_answers_probes_keeps_its_requests() {
    let first = Node::start(|exchange: Exchange| async {
        sleep(Duration::from_secs(4)).await;
        exchange.reply(json("200 OK", r#"{"data":"late"}"#)).await
    })
    .await;
    let second = well().await;
    let proxy = over(&[&first, &second], "[calls]\ntimeout = \"2s\"\n").await;
    let answer = ask(&proxy, "GET", "/eth/v2/debug/beacon/states/head").await;
    assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"late"}"#));
    assert_eq!(second.count(), 0);
    assert_eq!(status(&proxy, "cl-1").await["verdict"], "up");
}

#[tokio::test]
async fn half_an_answer_does_not_look_like_a_whole_one() {
    for in_chunks in [false, true] {
        let whole = vec![b'x'; 1_000_000];
        let half = match in_chunks {
            true => chunked("200 OK", "", &whole, 10_000)[..600_000].to_vec(),
            false => response("200 OK", "", &whole)[..600_000].to_vec(),
        };
        let first = Node::start(move |mut exchange: Exchange| {
            let half = half.clone();
            async move {
                exchange.send(half).await;
                None
            }
        })
        .await;
        let second = well().await;
        let proxy = over(&[&first, &second], "").await;
        let mut client = proxy.client().await;
        client.send(request("GET", "/eth/v2/debug/beacon/states/head", "", "")).await;
        let broken = client.try_response().await.unwrap_err();
        assert!(matches!(broken, Broken::Closed(_) | Broken::Reset), "{broken:?}");
        assert_eq!(second.count(), 0);
    }
}

#[tokio::test]
async fn a_client_that_is_lost_takes_its_request_with_it() {
    let node = Node::start(Exchange::hang).await;
    let proxy = over(&[&node], "").await;
    let mut client = proxy.client().await;
    client.send(request("GET", PATH, "", "")).await;
    until("the node has the request", async || node.count() == 1).await;
    client.io.set_zero_linger().unwrap();
    drop(client);
    until("it counts as left", async || {
        let line = r#"steadfast_calls_total{layer="cl",method="headers",network="default",outcome="client_gone"} 1"#;
        proxy.admin("GET /metrics").await.text().contains(line)
    })
    .await;
    until("nothing is owed", async || status(&proxy, "cl-1").await["in_flight"] == 0).await;
}

#[tokio::test]
async fn requests_wait_while_no_node_serves_and_go_when_one_does() {
    let node = well().await;
    let port = node.port();
    let proxy = over(&[&node], "").await;
    node.stop().await;
    until_verdict(&proxy, "cl-1", "down").await;
    let mut clients = Vec::new();
    for body in ["", "a block"] {
        let mut client = proxy.client().await;
        let (method, path) = if body.is_empty() { ("GET", PATH) } else { ("POST", "/eth/v2/beacon/blocks") };
        client.send(request(method, path, "", body)).await;
        clients.push(client);
    }
    sleep(Duration::from_millis(300)).await;
    let metrics = proxy.admin("GET /metrics").await.text();
    assert!(metrics.contains("steadfast_held_calls{layer=\"cl\",network=\"default\"} 2"), "{metrics}");
    let node = Node::on(port, |exchange: Exchange| exchange.reply(json("200 OK", r#"{"data":"back"}"#))).await;
    for client in &mut clients {
        let answer = client.response().await;
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"back"}"#));
    }
    let mut asked: Vec<(String, Vec<u8>)> = node.asked().into_iter().map(|asked| (asked.method, asked.body)).collect();
    // Each on a connection of its own.
    asked.sort();
    assert_eq!(asked, [("GET".to_owned(), vec![]), ("POST".to_owned(), b"a block".to_vec())]);
}
