//! The rules that every request has to keep, whichever of the two ways through the door it takes.

use std::time::Duration;

use tokio::time::sleep;

use super::{PAGE, answer, echo};
use crate::common::{
    client::{ROUNDABOUT, Response, call, with_headers},
    origin::Origin,
    proxy::{Proxy, nodes},
    rest,
};

/// A node that echoes params, and a proxy before it that may be asked for by these names.
async fn named(hosts: &str) -> (Origin, Proxy) {
    let origin = Origin::echo().await;
    let proxy = Proxy::start(&format!("hosts = {hosts}\n{}", nodes([origin.url()]))).await;
    (origin, proxy)
}

/// What a request of these fields and this body gets, by the plain way and by the other, which must
/// be the same.
async fn both_ways(proxy: &Proxy, line: &str, fields: &str, body: &str) -> Response {
    let length = body.len();
    let mut client = proxy.client().await;
    client.send(format!("{line}\r\n{fields}Content-Length: {length}\r\n\r\n{body}")).await;
    let plain = client.response().await;
    let mut client = proxy.client().await;
    client.send(format!("{line}\r\n{fields}{ROUNDABOUT}Content-Length: {length}\r\n\r\n{body}")).await;
    let mut other = client.response().await;
    // Hyper tells the time.
    let date = |response: &Response| {
        let mut headers = response.headers.clone();
        headers.retain(|(name, _)| name != "date");
        headers.sort();
        headers
    };
    assert_eq!(date(&plain), date(&other), "{line} {fields}");
    other.headers = plain.headers.clone();
    assert_eq!(plain, other, "{line} {fields}");
    plain
}

#[tokio::test]
async fn both_ways_through_the_door_keep_the_same_rules() {
    let (origin, proxy) = named("[\"rpc.example\"]").await;
    let (post, host) = ("POST / HTTP/1.1", "Host: localhost\r\n");
    let read = call(1, "eth_call", "[]");
    let no_request = -32600;
    for (line, fields, body, status, code) in [
        (post, host, &*read, 200, 0),
        (post, "Host: 127.0.0.1:8545\r\n", &read, 200, 0),
        (post, "HOST: [::1]:8545\r\n", &read, 200, 0),
        (post, "Host: proxy\r\n", &read, 200, 0),
        (post, "Host: rpc.example:8545\r\n", &read, 200, 0),
        (post, "Host:\r\n", &read, 200, 0),
        (post, "", &read, 400, no_request),
        (post, "Host: localhost\r\nHost: localhost\r\n", &read, 400, no_request),
        (post, "Host: localhost\r\nHost: evil.example\r\n", &read, 400, no_request),
        (post, "Host: evil.example\r\n", &read, 403, no_request),
        (post, "Host: evil.example:8545\r\n", &read, 403, no_request),
        (post, "Host: localhost.evil.example\r\n", &read, 403, no_request),
        ("POST http://evil.example/ HTTP/1.1", host, &read, 403, no_request),
        ("POST http://localhost/ HTTP/1.1", host, &read, 200, 0),
        (
            post,
            "Host: localhost\r\nOrigin: https://evil.example\r\nContent-Type: application/json\r\n",
            &read,
            403,
            no_request,
        ),
        (post, "Host: localhost\r\nOrigin: null\r\nContent-Type: text/plain\r\n", &read, 403, no_request),
        (post, "Host: localhost\r\nOrigin: http://localhost\r\n", &read, 403, no_request),
        (post, "Host: localhost\r\nContent-Encoding: gzip\r\n", &read, 415, no_request),
        (post, "Host: localhost\r\nContent-Encoding: identity, BR\r\n", &read, 415, no_request),
        (post, "Host: localhost\r\nContent-Encoding: Identity\r\n", &read, 200, 0),
        ("POST /nowhere HTTP/1.1", host, &read, 404, no_request),
        (post, host, "[]", 400, no_request),
        (post, host, "{", 400, -32700),
        (post, host, &call(1, "admin_peers", "[]"), 200, -32601),
        (post, host, &call(1, "debug_setHead", "[]"), 200, -32601),
    ] {
        let before = origin.seen().len();
        let response = both_ways(&proxy, line, fields, body).await;
        let error = &response.json()["error"]["code"];
        assert_eq!((response.status, error.as_i64().unwrap_or(0)), (status, code), "{line} {fields}: {response:?}");
        assert_eq!(response.header("content-type"), Some("application/json"), "{line} {fields}");
        assert_eq!(response.header("accept-encoding"), (status == 415).then_some("identity"), "{line} {fields}");
        assert_eq!(origin.seen().len() - before, if code == 0 { 2 } else { 0 }, "{line} {fields}");
        let message = response.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        let setting = if fields.contains("Origin") { "cors.origins" } else { "hosts" };
        assert!(status != 403 || message.contains(setting), "{line} {fields}: {message}");
        assert!(code != -32601 || message.ends_with(" does not exist/is not available"), "{message}");
    }
}

#[tokio::test]
async fn every_name_is_served_where_the_operator_says_so() {
    let (_origin, proxy) = named("[\"*\"]").await;
    let body = call(1, "eth_call", "[]");
    let response = both_ways(&proxy, "POST / HTTP/1.1", "Host: any.example\r\n", &body).await;
    assert_eq!(response.text(), answer(1, "[]"));
    // HTTP/1.0 knows no Host.
    let (_origin, proxy) = echo("").await;
    let mut client = proxy.client().await;
    client.send(format!("POST / HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    assert_eq!(client.response().await.text(), answer(1, "[]"));
}

#[tokio::test]
async fn a_web_page_by_another_name_gets_nothing_at_any_door() {
    let node = rest::Node::always(rest::json("200 OK", "{}")).await;
    let (origin, proxy) = echo(&rest::nodes(&[node.url()])).await;
    let upgrade = "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (line, more) in [
        ("GET / HTTP/1.1", ""),
        ("GET /health HTTP/1.1", ""),
        ("GET / HTTP/1.1", upgrade),
        ("GET /eth/v1/node/version HTTP/1.1", ""),
        ("GET /eth/v1/events?topics=head HTTP/1.1", ""),
        ("OPTIONS / HTTP/1.1", "Access-Control-Request-Method: POST\r\n"),
    ] {
        let own = "Host: evil.example\r\n";
        for fields in
            [own.to_owned(), format!("{own}Origin: http://evil.example\r\n"), format!("Host: p\r\nOrigin: {PAGE}\r\n")]
        {
            let mut client = proxy.client().await;
            client.send(format!("{line}\r\n{fields}{more}\r\n")).await;
            let response = client.response().await;
            let is_beacon = line.contains("/eth/");
            let json = response.json();
            let code = if is_beacon { &json["code"] } else { &json["error"]["code"] };
            assert_eq!(
                (response.status, code.as_i64()),
                (403, Some(if is_beacon { 403 } else { -32600 })),
                "{line} {fields}"
            );
        }
    }
    assert_eq!((origin.seen().len(), node.count()), (0, 0));
}

#[tokio::test]
async fn text_that_is_no_http_is_refused_in_the_same_form() {
    let (origin, proxy) = echo("").await;
    let many = format!("POST / HTTP/1.1\r\nHost: p\r\n{}\r\n", "A: b\r\n".repeat(200));
    let long = format!("POST / HTTP/1.1\r\nHost: p\r\nA: {}\r\n\r\n", "b".repeat(400_000));
    let path = |path: &str, length| format!("GET {path}{} HTTP/1.1\r\nHost: p\r\n\r\n", "b".repeat(length));
    for (request, status, is_beacon) in [
        ("\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03".to_owned(), 400, false),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400, false),
        ("GET / HTTP/3.7\r\nHost: p\r\n\r\n".to_owned(), 400, false),
        ("GET\r\n\r\n".to_owned(), 400, false),
        ("POST / HTTP/1.1\r\nHost: p\r\nno colon\r\n\r\n".to_owned(), 400, false),
        ("POST / HTTP/1.1\r\nHost: p\r\nContent-Length: x\r\n\r\n".to_owned(), 400, false),
        ("GET /eth/v1/x HTTP/1.1\r\nHost: p\r\nno colon\r\n\r\n".to_owned(), 400, true),
        (many, 431, false),
        (long, 431, false),
        (path("/a", 10_000), 414, false),
        (path("/?", 400_000), 414, false),
        (path("/eth/v1/", 10_000), 414, true),
        (path("/eth/v1/", 400_000), 414, true),
        (path("/eth/v1/?", 400_000), 414, true),
    ] {
        for is_first in [true, false] {
            let mut client = proxy.client().await;
            if !is_first {
                client.send("GET /health HTTP/1.1\r\nHost: p\r\n\r\n").await;
                assert_eq!(client.response().await.status, 200);
            }
            let name = &request[..request.len().min(40)];
            // All of it first, though the refusal comes meanwhile: that must not be lost for it.
            client.send(&request).await;
            sleep(Duration::from_millis(if request.len() > 10_000 { 20 } else { 0 })).await;
            let response =
                client.try_response().await.unwrap_or_else(|broken| panic!("{name}, first: {is_first}: {broken:?}"));
            assert_eq!(response.status, status, "{name}, first: {is_first}: {response:?}");
            assert_eq!(response.header("content-type"), Some("application/json"), "{name}");
            assert_eq!(response.header("connection"), Some("close"), "{name}");
            let json = response.json();
            let (code, message) = if is_beacon {
                (&json["code"], &json["message"])
            } else {
                (&json["error"]["code"], &json["error"]["message"])
            };
            let expected = if is_beacon { i64::from(status) } else { -32600 };
            assert_eq!(code.as_i64(), Some(expected), "{name}: {json}");
            assert!(message.is_string(), "{name}: {json}");
        }
    }
    assert_eq!(origin.seen().len(), 0);
}

#[tokio::test]
async fn a_refusal_of_a_head_alone_has_no_body() {
    let (_origin, proxy) = echo("").await;
    for (line, status) in [("/a", 414), ("/eth/v1/", 414)] {
        let mut client = proxy.client().await;
        client.send(format!("HEAD {line}{} HTTP/1.1\r\nHost: p\r\n\r\n", "b".repeat(10_000))).await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(client.is_closed().await, "{line}");
    }
}

#[tokio::test]
async fn a_coding_of_transfer_other_than_chunks_alone_is_refused() {
    let node = rest::Node::always(rest::json("200 OK", "{}")).await;
    let (origin, proxy) = echo(&rest::nodes(&[node.url()])).await;
    let body = call(1, "eth_call", "[]");
    for (path, code) in [("/", -32600), ("/eth/v2/beacon/blocks", 501)] {
        for coding in ["gzip, chunked", "identity, chunked", "chunked, chunked", "gzip\r\nTransfer-Encoding: chunked"] {
            let mut client = proxy.client().await;
            let length = body.len();
            client
                .send(format!(
                    "POST {path} HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: {coding}\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
                ))
                .await;
            let response = client.response().await;
            let json = response.json();
            let told = if path == "/" { &json["error"]["code"] } else { &json["code"] };
            assert_eq!((response.status, told.as_i64()), (501, Some(code)), "{path} {coding}: {json}");
        }
    }
    assert_eq!((origin.seen().len(), node.count()), (0, 0));
    let mut client = proxy.client().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: CHUNKED\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        ))
        .await;
    assert_eq!(client.response().await.text(), answer(1, "[]"));
}

#[tokio::test]
async fn a_balancer_finds_somebody_at_home() {
    let more = "[[networks.base.cl.primary]]\nname = \"b\"\nhttp = \"http://127.0.0.1:9\"\n";
    let (origin, proxy) = echo(more).await;
    let mut client = proxy.client().await;
    for path in ["/", "/el", "/base", "/base/", "/?x"] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: p\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!(response.status, 200, "{path}");
        assert!(response.text().starts_with("Steadfast"), "{path}: {}", response.text());
    }
    client.send("HEAD / HTTP/1.1\r\nHost: p\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    assert!(client.is_silent().await, "HEAD has no body");
    client.send("GET /nowhere HTTP/1.1\r\nHost: p\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status, &response.json()["error"]["code"]), (404, &(-32600).into()));
    assert_eq!(origin.seen().len(), 0);
    let response = proxy.client().await;
    drop(response);
    let mut client = proxy.client().await;
    client.send(with_headers("/", "", call(1, "eth_call", "[]").as_bytes())).await;
    assert_eq!(client.response().await.text(), answer(1, "[]"));
}
