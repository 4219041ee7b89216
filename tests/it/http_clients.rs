//! The door, by raw sockets: however a request is cut, framed or forged, it is one request, and the node sees it in one form.

mod ends;
mod memory;
mod rules;

use std::time::Duration;

use crate::common::{
    client::{Broken, Client, call, chunked, post, with_headers},
    origin::{Origin, Reply, Seen, with_id},
    proxy::Proxy,
    until,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::sleep};

/// A node that echoes params, and a proxy before it.
async fn echo(settings: &str) -> (Origin, Proxy) {
    let origin = Origin::echo().await;
    let proxy = Proxy::over([origin.url()], settings).await;
    (origin, proxy)
}

fn answer(id: impl std::fmt::Display, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{params}}}"#)
}

/// The bodies that reached the node.
/// The bodies that the node saw, with 1 for each id.
fn bodies(origin: &Origin) -> Vec<String> {
    origin.seen().iter().map(|seen| seen.sent_as("1")).collect()
}

#[tokio::test]
async fn a_request_cut_at_any_byte_is_the_same_request() {
    let (origin, proxy) = echo("").await;
    let body = call(1, "eth_call", r#"["x"]"#);
    let plain = post("/", body.as_bytes());
    let in_chunks = chunked("", body.as_bytes(), 30);
    // The second kind leaves the fast lane with whatever had come.
    for request in [plain, in_chunks] {
        let mut kept = proxy.client().await;
        for cut in 1..request.len() {
            // Every third on a connection of its own, so that the first bytes of a connection are cut, too.
            let mut own = None;
            let client = if cut % 3 == 0 { own.insert(proxy.client().await) } else { &mut kept };
            client.send(&request[..cut]).await;
            sleep(Duration::from_millis(1)).await;
            client.send(&request[cut..]).await;
            let response = client.response().await;
            assert_eq!((response.status, response.text()), (200, answer(1, r#"["x"]"#)), "cut at {cut}");
        }
        assert!(kept.is_silent().await);
    }
    assert!(bodies(&origin).iter().all(|seen| *seen == body));
}

#[tokio::test]
async fn a_slow_drip_of_single_bytes_is_a_request() {
    let (origin, proxy) = echo("").await;
    let mut client = proxy.client().await;
    for byte in post("/", call(5, "eth_call", "[1]").as_bytes()) {
        client.send([byte]).await;
        sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(client.response().await.text(), answer(5, "[1]"));
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    // The later a call comes, the sooner the node answers.
    let origin = Origin::start(|seen| {
        let reply = answer(seen.id(), &seen.params());
        let wait = Duration::from_millis(30u64.saturating_sub(seen.id().parse().unwrap()));
        Reply::act(async move |mut io| {
            sleep(wait).await;
            io.write_all(&crate::common::origin::ok(reply)).await.ok()?;
            Some(io)
        })
    })
    .await;
    let proxy = Proxy::over([origin.url()], "").await;
    let mut client = proxy.client().await;
    let one = |id: u32| call(id, "eth_call", &format!("[\"{id}\"]"));
    // The last shapes go to the general server: a chunked body, and whatever comes behind it.
    let requests: Vec<Vec<u8>> = (0..30)
        .map(|id| match id {
            25 => chunked("", one(id).as_bytes(), 7),
            _ => post("/", one(id).as_bytes()),
        })
        .collect();
    client.send(requests.concat()).await;
    for id in 0..30 {
        assert_eq!(client.response().await.text(), answer(id, &format!("[\"{id}\"]")));
    }
    assert!(client.is_silent().await);
    assert_eq!(bodies(&origin), (0..30).map(|id| with_id(&one(id), "1")).collect::<Vec<_>>());
}

#[tokio::test]
async fn both_connections_are_kept_over_many_calls() {
    let (origin, proxy) = echo("").await;
    let mut client = proxy.client().await;
    client.post(call(0, "eth_call", "[]")).await;
    let opened = origin.opened();
    for id in 1..200 {
        let response = client.post(call(id, "eth_call", "[]")).await;
        assert_eq!((response.text(), response.header("connection")), (answer(id, "[]"), None));
    }
    let of_calls: Vec<_> = origin.seen().iter().map(|seen| seen.connection).collect();
    assert!(of_calls.iter().all(|connection| *connection == of_calls[0]), "{of_calls:?}");
    // Probes may need a connection of their own.
    assert!(origin.opened() <= opened + 2);
}

#[tokio::test]
async fn client_that_asks_to_close_is_answered_and_closed() {
    let (_origin, proxy) = echo("").await;
    for value in ["close", "Close", "keep-alive, close"] {
        let mut client = proxy.client().await;
        let headers = format!("Connection: {value}\r\n");
        client.send(with_headers("/", &headers, call(1, "eth_call", "[]").as_bytes())).await;
        let response = client.response().await;
        assert_eq!((response.text(), response.header("connection")), (answer(1, "[]"), Some("close")), "{value}");
        assert!(client.is_closed().await, "{value}");
    }
}

#[tokio::test]
async fn http_1_0_gets_no_chunks_and_is_closed_unless_asked_not_to() {
    let origin = Origin::start(|seen| {
        // A length that is not known beforehand.
        let body = answer(seen.id(), &format!("\"{}\"", "x".repeat(400_000)));
        Reply::Last([&b"HTTP/1.1 200 OK\r\n\r\n"[..], body.as_bytes()].concat())
    })
    .await;
    let proxy = Proxy::over([origin.url()], "").await;
    let body = call(1, "eth_call", "[]");
    let request = |headers: &str| format!("POST / HTTP/1.0\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
    let mut client = proxy.client().await;
    client.send(request("")).await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("transfer-encoding")), (200, None));
    assert_eq!(response.json()["result"].as_str().unwrap().len(), 400_000);
    assert!(client.is_closed().await);
    let (_origin, proxy) = echo("").await;
    let mut client = proxy.client().await;
    for _ in 0..2 {
        client.send(request("Connection: keep-alive\r\n")).await;
        assert_eq!(client.response().await.text(), answer(1, "[]"));
    }
}

#[tokio::test]
async fn bodies_in_chunks_of_any_size_reach_the_node_with_one_length() {
    let (origin, proxy) = echo("").await;
    let mut client = proxy.client().await;
    let body = call(1, "eth_call", &format!("[\"{}\"]", "y".repeat(3000)));
    for size in [1, 2, 17, 1000, 10_000] {
        client.send(chunked("", body.as_bytes(), size)).await;
        assert_eq!(client.response().await.status, 200, "{size}");
    }
    // With extensions and trailers.
    let small = call(2, "eth_call", "[]");
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: Chunked\r\n\r\n{:x};a=b\r\n{small}\r\n0\r\nX-Request-Id: \
             smuggled\r\n\r\n",
            small.len()
        ))
        .await;
    assert_eq!(client.response().await.text(), answer(2, "[]"));
    let seen = origin.seen();
    assert_eq!(seen.len(), 6);
    assert!(seen[..5].iter().all(|seen| seen.sent_as("1") == body));
    assert_eq!(seen[5].header("x-request-id"), Vec::<&str>::new());
}

#[tokio::test]
async fn expect_100_continue_is_told_to_go_on_before_the_body() {
    let (_origin, proxy) = echo("[calls]\nmax_body = \"1KiB\"\nmax_held_bytes = \"1MiB\"\n").await;
    let mut client = proxy.client().await;
    let body = call(1, "eth_call", "[]");
    let whole = with_headers("/", "Expect: 100-continue\r\n", body.as_bytes());
    let (head, body) = whole.split_at(whole.len() - body.len());
    client.send(head).await;
    let mut interim = [0; 25];
    tokio::io::AsyncReadExt::read_exact(&mut client.io, &mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send(body).await;
    assert_eq!(client.response().await.text(), answer(1, "[]"));
    // What is too long is refused before it is sent.
    let mut client = proxy.client().await;
    client.send("POST / HTTP/1.1\r\nHost: p\r\nContent-Length: 2000\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.try_response().await.unwrap().status, 413);
}

/// A second request hidden behind the first, which no client ever meant to send.
fn smuggled() -> String {
    let body = call(666, "eth_sendTransaction", "[{}]");
    format!("POST / HTTP/1.1\r\nHost: p\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn ambiguous_framing_is_refused_and_does_not_reach_the_node() {
    let (origin, proxy) = echo("").await;
    let body = call(1, "eth_call", "[]");
    let length = body.len();
    let hidden = smuggled();
    let both = length + hidden.len();
    let heads = [
        ("two lengths", format!("Content-Length: {length}\r\nContent-Length: {both}\r\n")),
        ("two lengths, the other way", format!("Content-Length: {both}\r\nContent-Length: {length}\r\n")),
        ("a list of lengths", format!("Content-Length: {length}, {both}\r\n")),
        ("a signed length", format!("Content-Length: +{length}\r\n")),
        ("a negative length", "Content-Length: -1\r\n".to_owned()),
        ("a length in hex", "Content-Length: 0x10\r\n".to_owned()),
        ("a length beyond all numbers", "Content-Length: 99999999999999999999999\r\n".to_owned()),
        ("an empty length", "Content-Length: \r\n".to_owned()),
        ("a length in letters", "Content-Length: ten\r\n".to_owned()),
        ("a space before the colon", format!("Content-Length : {length}\r\n")),
        ("a folded line", format!("X-A: b\r\n Content-Length: {both}\r\nContent-Length: {length}\r\n")),
        ("a lone carriage return", format!("X-A: b\rContent-Length: {both}\r\nContent-Length: {length}\r\n")),
        ("chunked, but not last", "Transfer-Encoding: chunked, gzip\r\n".to_owned()),
        ("an unknown coding", "Transfer-Encoding: xchunked\r\n".to_owned()),
        ("a coding that only looks like it", "Transfer-Encoding: \x0bchunked\r\n".to_owned()),
        ("chunked and a length, as HTTP/1.0", String::new()),
    ];
    for (name, fields) in &heads {
        let mut client = proxy.client().await;
        let request = if fields.is_empty() {
            let fields = format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n");
            format!("POST / HTTP/1.0\r\nHost: p\r\n{fields}\r\n{body}{hidden}")
        } else {
            format!("POST / HTTP/1.1\r\nHost: p\r\n{fields}\r\n{body}{hidden}")
        };
        client.send(request).await;
        match client.try_response().await {
            Ok(response) => {
                assert!((400..500).contains(&response.status), "{name}: {response:?}");
                assert!(client.is_closed().await, "{name}: the connection goes on behind a request of unknown length");
            }
            Err(Broken::Closed(0) | Broken::Reset) => {}
            Err(other) => panic!("{name}: {other:?}"),
        }
        assert_eq!(bodies(&origin), Vec::<String>::new(), "{name}");
    }
}

#[tokio::test]
async fn chunked_beside_a_length_is_one_request_and_the_last() {
    let body = call(1, "eth_call", "[]");
    let hidden = smuggled();
    let in_chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for fields in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", in_chunks.len() + hidden.len()),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n", in_chunks.len() + hidden.len()),
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n".to_owned(),
    ] {
        let (origin, proxy) = echo("").await;
        let mut client = proxy.client().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: p\r\n{fields}\r\n{in_chunks}{hidden}")).await;
        match client.try_response().await {
            Ok(response) if response.status == 200 => assert_eq!(response.text(), answer(1, "[]"), "{fields}"),
            Ok(response) => assert_eq!(response.status, 400, "{fields}"),
            Err(Broken::Closed(0) | Broken::Reset) => {}
            Err(other) => panic!("{fields}: {other:?}"),
        }
        // A front proxy that went by the length took what is behind for a part of the body: RFC 9112, 6.3.
        assert!(client.is_closed().await, "{fields}: the connection goes on");
        assert!(bodies(&origin).iter().all(|seen| *seen == body), "{fields}: {:?}", bodies(&origin));
    }
}

#[tokio::test]
async fn a_body_shorter_than_its_length_is_never_sent_on() {
    let (origin, proxy) = echo("").await;
    let body = call(1, "eth_call", "[]");
    let mut client = proxy.client().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: p\r\nContent-Length: {}\r\n\r\n{body}", body.len() + 1)).await;
    client.io.shutdown().await.unwrap();
    assert_eq!(client.response().await.status, 400);
    let mut client = proxy.client().await;
    client
        .send(format!("POST / HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len()))
        .await;
    client.io.shutdown().await.unwrap();
    assert!(!matches!(client.try_response().await, Ok(response) if response.status == 200));
    // And one that is longer is cut at its length; what is left is no request.
    let mut client = proxy.client().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: p\r\nContent-Length: {}\r\n\r\n{body}XYZ\r\n\r\n", body.len())).await;
    assert_eq!(client.response().await.text(), answer(1, "[]"));
    assert!(client.try_response().await.is_ok_and(|response| response.status == 400));
    assert_eq!(bodies(&origin), [body]);
}

#[tokio::test]
async fn a_header_of_100_kb_is_served_or_refused_and_not_sent_on() {
    let (origin, proxy) = echo("").await;
    for (name, count) in [("X-Long", 1), ("X-Many", 100)] {
        let mut client = proxy.client().await;
        let line = format!("{name}: {}\r\n", "h".repeat(100_000 / count));
        client.send(with_headers("/", &line.repeat(count), call(1, "eth_call", "[]").as_bytes())).await;
        let response = client.response().await;
        assert!(response.status == 200 || response.status == 431, "{name}: {response:?}");
    }
    assert!(origin.seen().iter().all(|seen| seen.head.len() < 1000));
}

#[tokio::test]
async fn a_body_of_the_limit_passes_and_one_byte_more_does_not() {
    let limit = 100 * 1024;
    let (origin, proxy) = echo("[calls]\nmax_body = \"100KiB\"\nmax_held_bytes = \"1MiB\"\n").await;
    let sized = |length: usize| {
        let empty = call(1, "eth_call", r#"[""]"#);
        call(1, "eth_call", &format!("[\"{}\"]", "z".repeat(length - empty.len())))
    };
    for (length, fits) in [(limit, true), (limit + 1, false), (limit * 40, false)] {
        let body = sized(length);
        assert_eq!(body.len(), length);
        for request in [post("/", body.as_bytes()), chunked("", body.as_bytes(), 10_000)] {
            let mut client = proxy.client().await;
            let mut io = client.io;
            let (read, mut write) = io.split();
            // The refusal comes while the body is still on its way, and must not be lost for that.
            let mut reader = Client::over(tokio::io::join(read, tokio::io::sink()));
            let send = async { write.write_all(&request).await };
            let (_, response) = tokio::join!(send, reader.try_response());
            let response = response.unwrap_or_else(|broken| panic!("{length}: {broken:?}"));
            if fits {
                assert_eq!(response.status, 200);
                assert_eq!(origin.seen().last().unwrap().body.len(), limit);
            } else {
                assert_eq!(response.status, 413);
                assert_eq!(response.json()["error"]["data"]["reason"], "max_body");
            }
            client = Client::over(io);
            assert_eq!(client.is_silent().await, fits, "{length}");
        }
    }
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn every_shape_of_request_can_follow_another_on_one_connection() {
    let (origin, proxy) = echo("").await;
    let mut client = proxy.client().await;
    assert_eq!(client.post(call(1, "eth_call", "[1]")).await.text(), answer(1, "[1]"));
    client.send("GET /health HTTP/1.1\r\nHost: p\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    client.send(chunked("", call(2, "eth_call", "[2]").as_bytes(), 5)).await;
    assert_eq!(client.response().await.text(), answer(2, "[2]"));
    assert_eq!(client.post(call(3, "eth_call", "[3]")).await.text(), answer(3, "[3]"));
    // The same, sent at once.
    let mut client = proxy.client().await;
    let all = [
        post("/", call(4, "eth_call", "[]").as_bytes()),
        b"GET /health HTTP/1.1\r\nHost: p\r\n\r\n".to_vec(),
        chunked("", call(5, "eth_call", "[]").as_bytes(), 9),
        post("/el", call(6, "eth_call", "[]").as_bytes()),
    ];
    client.send(all.concat()).await;
    assert_eq!(client.response().await.text(), answer(4, "[]"));
    assert_eq!(client.response().await.json()["ready"], true);
    assert_eq!(client.response().await.text(), answer(5, "[]"));
    assert_eq!(client.response().await.text(), answer(6, "[]"));
    assert_eq!(origin.seen().len(), 6);
}

#[tokio::test]
async fn other_methods_and_paths_are_refused_in_words() {
    let (origin, proxy) = echo("").await;
    let body = call(1, "eth_call", "[]");
    for (line, status) in [
        ("PUT /", 405),
        ("DELETE /el", 405),
        ("OPTIONS /", 405),
        ("POST /nowhere", 404),
        ("GET /nowhere", 404),
        ("POST /el/more", 404),
        ("GET /status", 404),
        ("GET /metrics", 404),
    ] {
        let mut client = proxy.client().await;
        client.send(format!("{line} HTTP/1.1\r\nHost: p\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        let response = client.response().await;
        assert_eq!(response.status, status, "{line}: {}", response.text());
        assert_eq!(response.header("allow"), (status == 405).then_some("GET, HEAD, POST"), "{line}");
    }
    assert_eq!(origin.seen().len(), 0);
    for path in ["/", "/el", "/el/", "/?x=1", "http://proxy/el"] {
        let mut client = proxy.client().await;
        client.send(post(path, body.as_bytes())).await;
        assert_eq!(client.response().await.status, 200, "{path}");
    }
}

const PAGE: &str = "https://page.example";

fn from_page(method: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("{method} / HTTP/1.1\r\nHost: p\r\nOrigin: {PAGE}\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
}

#[tokio::test]
async fn a_web_page_may_read_nothing_unless_its_origin_is_configured() {
    let (origin, proxy) = echo("").await;
    let mut client = proxy.client().await;
    let ask = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n";
    client.send(from_page("OPTIONS", ask, "")).await;
    let preflight = client.response().await;
    assert!(preflight.status >= 400, "{preflight:?}");
    let body = call(1, "eth_sendTransaction", "[{}]");
    // A page can send this without asking first.
    client.send(from_page("POST", "Content-Type: text/plain\r\n", &body)).await;
    let simple = client.response().await;
    assert_eq!(simple.status, 403);
    for response in [preflight, simple] {
        assert!(!response.headers.iter().any(|(name, _)| name.starts_with("access-control")), "{response:?}");
    }
    assert_eq!(origin.seen().len(), 0);
}

#[tokio::test]
async fn parts_of_a_page_that_send_no_origin_reach_no_node() {
    for (origins, site, status) in [
        ("[]", "cross-site", 403),
        ("[]", "same-site", 403),
        ("[\"https://app.example\"]", "cross-site", 403),
        ("[\"*\"]", "cross-site", 200),
        ("[]", "none", 200),
        ("[]", "same-origin", 200),
    ] {
        let (origin, proxy) = echo(&format!("[cors]\norigins = {origins}\n")).await;
        let mut client = proxy.client().await;
        let headers = format!("Sec-Fetch-Site: {site}\r\n");
        client.send(with_headers("/", &headers, call(1, "eth_call", "[]").as_bytes())).await;
        assert_eq!(client.response().await.status, status, "{origins} {site}");
        assert_eq!(origin.count("eth_call"), usize::from(status == 200), "{origins} {site}");
        client.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).await;
        assert_eq!(client.response().await.status, status, "{origins} {site}");
    }
}

#[tokio::test]
async fn a_configured_origin_may_ask_and_read_and_no_other() {
    for (origins, sent) in [(format!("[\"{PAGE}\"]"), PAGE), ("[\"*\"]".to_owned(), PAGE)] {
        let (_origin, proxy) = echo(&format!("[cors]\norigins = {origins}\n")).await;
        let mut client = proxy.client().await;
        let ask = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type, x-own\r\n";
        client.send(from_page("OPTIONS", ask, "")).await;
        let preflight = client.response().await;
        assert_eq!(preflight.status, 204);
        assert_eq!(preflight.header("access-control-allow-origin"), Some(sent));
        assert_eq!(preflight.header("access-control-allow-methods"), Some("POST"));
        assert_eq!(preflight.header("access-control-allow-headers"), Some("content-type, x-own"));
        client.send(from_page("POST", "Content-Type: application/json\r\n", &call(1, "eth_call", "[]"))).await;
        let response = client.response().await;
        assert_eq!(response.text(), answer(1, "[]"));
        assert_eq!(response.header("access-control-allow-origin"), Some(sent));
        assert_eq!(response.header("vary"), Some("origin"));
    }
    let (origin, proxy) = echo("[cors]\norigins = [\"https://other.example\"]\n").await;
    let mut client = proxy.client().await;
    client.send(from_page("POST", "Content-Type: text/plain\r\n", &call(1, "eth_call", "[]"))).await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("access-control-allow-origin")), (403, None));
    assert_eq!(origin.seen().len(), 0);
}

/// What the node saw of a request with these fields, by either of the door's ways.
async fn forwarded(origin: &Origin, proxy: &Proxy, fields: &str) -> [Seen; 2] {
    let before = origin.seen().len();
    let body = call(1, "eth_call", "[]");
    let mut client = proxy.client().await;
    client.send(with_headers("/", fields, body.as_bytes())).await;
    assert_eq!(client.response().await.status, 200);
    client.send(chunked(fields, body.as_bytes(), 10)).await;
    assert_eq!(client.response().await.status, 200);
    let seen = origin.seen();
    [seen[before].clone(), seen[before + 1].clone()]
}

#[tokio::test]
async fn tracing_headers_go_to_the_node_credentials_never() {
    let (origin, proxy) = echo("").await;
    let fields = "Authorization: Bearer client-secret\r\nCookie: session=client-secret\r\nX-Api-Key: client-secret\r\n\
        Proxy-Authorization: Basic client-secret\r\nX-Request-Id: request-1\r\nTraceparent: 00-abc-def-01\r\n\
        Tracestate: a=b\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nForwarded: for=10.0.0.1\r\nAccept-Encoding: gzip\r\n\
        User-Agent: client-secret\r\nX-Custom: client-secret\r\n";
    for seen in forwarded(&origin, &proxy, fields).await {
        assert_eq!(seen.header("x-request-id"), ["request-1"]);
        assert_eq!(seen.header("traceparent"), ["00-abc-def-01"]);
        assert_eq!(seen.header("tracestate"), ["a=b"]);
        assert_eq!(seen.header("host"), [format!("127.0.0.1:{}", origin.port())]);
        assert_eq!(seen.header("content-type"), ["application/json"]);
        for name in ["authorization", "cookie", "te", "keep-alive", "connection", "forwarded"] {
            assert_eq!(seen.header(name), Vec::<&str>::new(), "{name}");
        }
        // The proxy's own wish, since the answer is looked at.
        assert_eq!(seen.header("accept-encoding"), ["identity"]);
        assert!(!seen.head.contains("client-secret"), "{}", seen.head);
    }
    assert!(!String::from_utf8_lossy(&origin.bytes()).contains("client-secret"));
}

#[tokio::test]
async fn a_header_that_connection_names_ends_at_the_door() {
    let (origin, proxy) = echo("[calls]\nforward_headers = [\"x-hop\"]\n").await;
    for seen in forwarded(&origin, &proxy, "X-Hop: h\r\nX-Request-Id: r\r\n").await {
        assert_eq!((seen.header("x-hop"), seen.header("x-request-id")), (vec!["h"], vec!["r"]));
    }
    for seen in
        forwarded(&origin, &proxy, "Connection: keep-alive, X-HOP,x-request-id\r\nX-Hop: h\r\nX-Request-Id: r\r\n")
            .await
    {
        assert_eq!((seen.header("x-hop"), seen.header("x-request-id")), (vec![], vec![]), "{}", seen.head);
    }
}

#[tokio::test]
async fn a_nodes_own_headers_go_along_and_win_over_a_clients() {
    let origin = Origin::echo().await;
    let settings = format!(
        "[calls]\nforward_headers = [\"authorization\", \"x-tenant\"]\n[[el.primary]]\nname = \"el-1\"\nhttp = \
         \"{}/v2/key?a=b\"\nheaders = {{ Authorization = \"Bearer node\", X-Node = \"1\" }}\n",
        origin.url()
    );
    let proxy = Proxy::start(&settings).await;
    for seen in forwarded(&origin, &proxy, "Authorization: Bearer client\r\nX-Tenant: t\r\n").await {
        assert!(seen.head.starts_with("POST /v2/key?a=b HTTP/1.1\r\n"), "{}", seen.head);
        assert_eq!(seen.header("x-node"), ["1"]);
        assert_eq!(seen.header("x-tenant"), ["t"]);
        assert_eq!(seen.header("authorization"), ["Bearer node"], "{}", seen.head);
    }
    // Probes carry them as well.
    let bytes = String::from_utf8_lossy(&origin.bytes()).into_owned();
    assert_eq!(bytes.matches("x-node: 1").count(), bytes.matches("POST /v2/key?a=b HTTP/1.1").count());
}

#[tokio::test]
async fn no_text_of_a_client_or_node_ends_a_header_early() {
    let origin = Origin::start(|seen| {
        let fields = "content-type: text/html\r\nset-cookie: from=node\r\nx-own: a\r\nserver: n\r\n";
        Reply::Bytes(crate::common::origin::response("200 Fine", fields, answer(seen.id(), &seen.params())))
    })
    .await;
    let proxy = Proxy::over([origin.url()], "[cors]\norigins = [\"*\"]\n").await;
    for fields in [
        "X-Request-Id: a\nInjected: 1\r\n",
        "X-Request-Id: a\rInjected: 1\r\n",
        "X-Request-Id: a\r\n Injected: 1\r\n",
        "Origin: http://a\rInjected: 1\r\n",
        "X-Request-Id: a\0b\r\n",
    ] {
        let mut client = proxy.client().await;
        client.send(with_headers("/", fields, call(1, "eth_call", "[]").as_bytes())).await;
        if let Ok(response) = client.try_response().await {
            assert_eq!(response.header("injected"), None, "{fields:?}");
            assert!(response.status == 200 || response.status == 400, "{fields:?} {response:?}");
        }
    }
    for seen in origin.seen() {
        assert_eq!(seen.header("injected"), Vec::<&str>::new());
        assert!(!seen.head.replace("\r\n", "").contains(['\r', '\n', '\0']), "{:?}", seen.head);
    }
    // Ids and method names go into bodies only, and the node's fields nowhere.
    let mut client = proxy.client().await;
    for body in [call(r#""\r\nInjected: 1""#, "eth_call", "[]"), call(1, r"admin_\r\nInjected: 1", "[]")] {
        let response = client.post(body).await;
        let names: Vec<&str> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
        let is_own = names.iter().all(|name| ["content-type", "content-length", "x-steadfast-node"].contains(name));
        assert!(is_own, "{names:?}");
        assert_eq!(response.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn notifications_go_out_once_and_an_empty_answer_is_no_fault() {
    // As real nodes do: what has no id has no answer.
    let origin = Origin::start(|_| Reply::body("")).await;
    let proxy = Proxy::over([origin.url()], "").await;
    let mut client = proxy.client().await;
    for round in 1..=5 {
        for body in [r#"{"method":"eth_call"}"#, r#"[{"method":"eth_call"},{"method":"eth_gasPrice"}]"#] {
            let response = client.post(body).await;
            assert_eq!((response.status, response.body.len()), (200, 0));
        }
        assert_eq!(origin.seen().len(), 3 * round, "a notification was sent again");
    }
    let node = proxy.node("el-1").await;
    assert_eq!((&node["verdict"], &node["last_error"]), (&"up".into(), &serde_json::Value::Null), "{node}");
}

#[tokio::test]
async fn a_client_that_resets_and_one_that_says_nothing_hurt_nobody() {
    let (_origin, proxy) = echo("").await;
    for cut in [0, 10, 100] {
        let mut io = TcpStream::connect(proxy.addr()).await.unwrap();
        io.write_all(&post("/", call(1, "eth_call", "[]").as_bytes())[..cut]).await.unwrap();
        io.set_zero_linger().unwrap();
        drop(io);
    }
    let _silent = proxy.client().await;
    assert_eq!(proxy.post(call(1, "eth_call", "[]")).await.text(), answer(1, "[]"));
    until("nothing is left over", async || proxy.in_flight().await == 0).await;
}
