//! What the proxy itself says.

use crate::common::{
    proxy::Proxy,
    rest::{Node, ask, json, over, request, send},
};

/// An error of ours in the API's own form.
fn assert_error(answer: &crate::common::client::Response, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("retry-after"), (status == 503).then_some("1"));
    let error = answer.json();
    assert_eq!(error["code"], status);
    assert!(error["message"].as_str().unwrap().contains(words), "{error}");
    assert_eq!(error.as_object().unwrap().len(), 2, "{error}");
}

#[tokio::test]
async fn errors_have_the_form_of_the_api() {
    let node = Node::always(json("200 OK", "{}")).await;
    let more = "[[networks.dead.cl.primary]]\nname = \"d\"\nhttp = \"http://127.0.0.1:9\"\n\
                [[networks.bare.el.primary]]\nname = \"e\"\nhttp = \"http://127.0.0.1:9\"\n[calls]\nhold = \"200ms\"\n";
    let proxy = over(&[&node], more).await;
    for (method, path, status, words) in [
        ("GET", "/dead/eth/v1/node/version", 503, "no node can serve"),
        ("POST", "/dead/eth/v2/beacon/blocks", 503, "no node can serve"),
        ("POST", "/dead/eth/v1/validator/register_validator", 503, "no node can serve"),
        ("GET", "/unknown/eth/v1/node/version", 404, "no such network"),
        ("GET", "/bare/eth/v1/node/version", 404, "no consensus nodes"),
        ("GET", "/eth/v1/events", 400, "topics"),
        ("TRACE", "/eth/v1/node/version", 405, "TRACE"),
        ("GET", "/eth/v1/../../metrics", 400, ".."),
        ("GET", "/eth/v1/%2e%2E/metrics", 400, ".."),
    ] {
        assert_error(&ask(&proxy, method, path).await, status, words);
    }
    for (length, words) in [(131_060, "longer than"), (140_000, "too long"), (400_000, "too long")] {
        let long = format!("/eth/v1/beacon/states/head/validators?id={}", "1".repeat(length));
        assert_error(&ask(&proxy, "GET", &long).await, 414, words);
    }
    assert_eq!(node.count(), 0);
}

#[tokio::test]
async fn calls_and_requests_share_a_port_and_a_connection() {
    let node = Node::always(json("200 OK", r#"{"data":"beacon"}"#)).await;
    let proxy = over(&[&node], "").await;
    let mut client = proxy.client().await;
    for _ in 0..2 {
        client.send(request("POST", "/", "content-type: application/json\r\n", r#"{"id":1}"#)).await;
        // There are no execution nodes.
        assert_eq!(client.response().await.status, 404);
        client.send(request("POST", "/eth/v1/some/thing", "", "body")).await;
        assert_eq!(client.response().await.text(), r#"{"data":"beacon"}"#);
        client.send(request("GET", "/health", "", "")).await;
        assert_eq!(client.response().await.status, 200);
    }
}

#[tokio::test]
async fn web_pages_that_are_allowed_see_answers_and_others_do_nothing() {
    let node = Node::always(crate::common::rest::response(
        "200 OK",
        "vary: accept\r\naccess-control-allow-origin: *\r\neth-consensus-version: electra\r\n",
        "{}",
    ))
    .await;
    let settings = crate::common::rest::nodes(&[node.url()]);
    let proxy = Proxy::launch(&format!("cors.origins = [\"https://app.example\"]\n{settings}")).await;
    let from = |method: &str, origin: &str, more: &str| {
        request(method, "/eth/v1/beacon/pool/attestations", &format!("origin: {origin}\r\n{more}"), "")
    };
    let answer = send(&proxy, from("GET", "https://app.example", "")).await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("https://app.example")));
    assert_eq!(answer.header("access-control-expose-headers"), Some("*"));
    let vary: Vec<&str> = answer.headers.iter().filter(|(name, _)| name == "vary").map(|(_, value)| &**value).collect();
    assert_eq!(vary, ["accept", "origin"]);
    let answer = send(&proxy, from("OPTIONS", "https://app.example", "access-control-request-method: POST\r\n")).await;
    assert_eq!(answer.status, 204);
    assert!(answer.header("access-control-allow-methods").unwrap().contains("GET"));
    let asked = node.count();
    assert_error(
        &send(&proxy, from("POST", "https://evil.example", "content-type: text/plain\r\n")).await,
        403,
        "origin",
    );
    assert_eq!(node.count(), asked);
    // Whatever it asks for, of whatever kind.
    for (method, kind) in [
        ("POST", "application/json"),
        ("POST", "application/octet-stream"),
        ("GET", "application/json"),
        ("HEAD", "application/json"),
        ("OPTIONS", "application/json"),
    ] {
        let more = format!("content-type: {kind}\r\naccess-control-request-method: POST\r\n");
        let mut client = proxy.client().await;
        client.send(from(method, "https://evil.example", &more)).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 403 ") && !head.contains("access-control"), "{method} {kind}: {head}");
    }
    assert!(node.asked().iter().all(|asked| asked.header("origin").is_empty()));
    assert_eq!(node.count(), asked);
}
