//! The beacon API at its edges: what is asked, refused, bounded and hidden there.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{
    SOON,
    client::Client,
    devnet,
    proxy::{Proxy, config},
    rest::{self, Node, ask, json, nodes, request, send},
    until,
};
use steadfast::{
    app::{App, Source, World},
    devnet::{Devnet, Fault, Options},
};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout},
};

async fn pretend(consensus: usize) -> Devnet {
    devnet(Options { execution: 0, consensus, initial_blocks: 30, ..Options::default() }).await
}

/// Settings of these consensus nodes, all of them primaries.
fn settings(net: &Devnet) -> String {
    net.nodes()
        .map(|node| format!("[[cl.primary]]\nname = \"{}\"\nhttp = \"{}\"\n", node.name(), node.http_url()))
        .collect()
}

async fn over(net: &Devnet) -> Proxy {
    let proxy = Proxy { app: App::start(config(&settings(net)), World::real(1), None).await.unwrap() };
    until("the network serves", async || {
        let mut client = proxy.client().await;
        client.send(request("GET", "/health", "", "")).await;
        client.response().await.status == 200
    })
    .await;
    proxy
}

/// The next response's lines up to its body, but for the date and how the body is framed, which HEAD need not tell.
async fn head(client: &mut Client) -> Vec<String> {
    let end = loop {
        if let Some(end) = client.read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        let count = timeout(SOON, client.io.read_buf(&mut client.read)).await.unwrap().unwrap();
        assert!(count > 0, "the connection ended");
    };
    let rest = client.read.split_off(end + 4);
    let head = String::from_utf8(std::mem::replace(&mut client.read, rest)).unwrap();
    let is_left_out = |line: &&str| line.starts_with("date:") || line.starts_with("transfer-encoding:");
    head.trim_end().lines().filter(|line| !is_left_out(line)).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_s_headers_may_be_asked_for_without_its_events() {
    let net = pretend(1).await;
    let proxy = over(&net).await;
    let mut client = proxy.client().await;
    for (target, status, kind) in [
        ("/eth/v1/events?topics=head", 200, "text/event-stream"),
        ("/eth/v1/events?topics=head,novelty", 400, "application/json"),
        ("/eth/v1/events", 400, "application/json"),
    ] {
        client.send(request("HEAD", target, "", "")).await;
        let head = head(&mut client).await;
        let mut other = proxy.client().await;
        other.send(request("GET", target, "", "")).await;
        assert_eq!(head, self::head(&mut other).await, "{target}");
        assert!(head[0].starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}");
        assert!(head.contains(&format!("content-type: {kind}")), "{head:?}");
    }
    // Nothing of a body came, so the connection is where the next response begins.
    client.send(request("GET", "/health", "", "")).await;
    let health = client.response().await;
    assert!(health.status == 200 && health.text().contains("\"ready\": true"), "{health:?}");
    client.send(request("POST", "/eth/v1/events?topics=head", "", "")).await;
    let refused = client.response().await;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_names_the_node_that_events_come_from() {
    let net = pretend(2).await;
    let proxy = over(&net).await;
    let source = async || proxy.admin("GET /status").await.json()["networks"][0]["events_from"].take();
    assert!(source().await.is_null(), "nobody wants them yet");
    let mut client = proxy.client().await;
    client.send(request("GET", "/eth/v1/events?topics=head", "", "")).await;
    head(&mut client).await;
    assert_eq!(source().await, net.cl(0).name());
    net.cl(0).set_fault(Fault::Down);
    until("events come from the other", async || source().await == net.cl(1).name()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_tells_newcomers_to_events_how_long_to_wait() {
    // Probes are answered, events are not.
    let node = Node::always(json("200 OK", "{}")).await;
    let text = |hold: &str| format!("calls.hold = \"{hold}\"\n{}", nodes(&[node.url()]));
    let now = Arc::new(Mutex::new(text("10s")));
    let read = now.clone();
    let source: Source = Arc::new(move || Ok(config(&read.lock().unwrap())));
    let app = App::start(source().unwrap(), World::real(1), Some(source)).await.unwrap();
    let proxy = Proxy { app };
    *now.lock().unwrap() = text("200ms");
    proxy.app.reload().await.unwrap();
    let start = Instant::now();
    assert_eq!(ask(&proxy, "GET", "/eth/v1/events?topics=head").await.status, 503);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

const REGISTER: &str = "/eth/v1/validator/register_validator";

#[tokio::test(flavor = "multi_thread")]
async fn message_for_all_nodes_reaches_all_or_is_refused() {
    let (a, b) = (Node::always(json("200 OK", "{}")).await, Node::always(json("200 OK", "{}")).await);
    let proxy = rest::over(&[&a, &b], "").await;
    let limit = 16 << 20;
    let longest = vec![b'x'; limit];
    assert_eq!(send(&proxy, request("POST", REGISTER, "", &longest)).await.status, 200);
    until("both are told", async || [&a, &b].iter().all(|n| n.asked().iter().any(|a| a.body.len() == limit))).await;
    let too_long = format!("POST {REGISTER} HTTP/1.1\r\nhost: proxy\r\ncontent-length: {}\r\n\r\n", limit + 1);
    let chunks = rest::chunks(&vec![b'x'; limit + 1], 1 << 20);
    let head = format!("POST {REGISTER} HTTP/1.1\r\nhost: proxy\r\ntransfer-encoding: chunked\r\n\r\n");
    for bytes in [too_long.into_bytes(), [head.as_bytes(), &chunks].concat()] {
        let refused = send(&proxy, bytes).await;
        assert_eq!((refused.status, refused.json()["code"].as_u64()), (413, Some(413)));
        assert!(refused.text().contains("16777216"), "{}", refused.text());
    }
    assert_eq!((a.count(), b.count()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_kept_share_a_bound_and_others_pass_once() {
    let node = Node::start(|mut exchange: rest::Exchange| async move {
        exchange.body().await;
        // Registrations are worked on for as long as the test goes on.
        if exchange.asked.target == REGISTER {
            exchange.hang().await
        } else {
            exchange.reply(json("200 OK", "{}")).await
        }
    })
    .await;
    let more = "[calls]\nmax_body = \"1MiB\"\nmax_held_bytes = \"1MiB\"\n";
    let proxy = rest::over(&[&node], more).await;
    let body = vec![b'x'; 600_000];
    let mut first = proxy.client().await;
    first.send(request("POST", REGISTER, "", &body)).await;
    until("the first is kept", async || node.asked().iter().any(|asked| asked.body.len() == body.len())).await;
    let refused = send(&proxy, request("POST", REGISTER, "", &body)).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.text().contains("max_held_bytes is 1048576"), "{}", refused.text());
    // What goes to one node needs no room; it is only not sent again.
    let passed = send(&proxy, request("POST", "/eth/v2/beacon/blocks", "", &body)).await;
    assert_eq!(passed.status, 200);
    assert_eq!(node.asked().iter().filter(|asked| asked.body == body).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_leaves_room_for_the_bodies_of_others() {
    let node = Node::start(|exchange: rest::Exchange| exchange.reply(json("200 OK", "{}"))).await;
    let more = "[calls]\nmax_body = \"1MiB\"\nmax_held_bytes = \"1MiB\"\n";
    let proxy = rest::over(&[&node], more).await;
    // Uploads that never end.
    // The buffer of a body doubles up to 256 KiB, and has room for all 300,000 bytes beyond that.
    let part = vec![b'x'; 262_200];
    let head = "POST /eth/v1/validator/duties/attester/1 HTTP/1.1\r\nhost: proxy\r\ncontent-length: 300000\r\n\r\n";
    let mut uploads = Vec::new();
    for count in 1..=3 {
        let mut client = proxy.client_at(9).await;
        client.send([head.as_bytes(), &part].concat()).await;
        uploads.push(client);
        // One after the other: bodies that come together may find no room together, and leave it.
        until("the part is kept", async || held(&proxy).await >= (count * 290_000) as f64).await;
    }
    assert_eq!(told_from(&proxy, 9, 150_000).await, 503);
    assert_eq!(told_from(&proxy, 1, 50_000).await, 200);
}

/// The bytes that clients make the proxy hold.
async fn held(proxy: &Proxy) -> f64 {
    let text = proxy.admin("GET /metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix("steadfast_client_memory_bytes "));
    line.and_then(|held| held.parse().ok()).expect("no such metric")
}

/// The status for a registration of so many bytes from that loopback address.
async fn told_from(proxy: &Proxy, host: u8, bytes: usize) -> u16 {
    let mut client = proxy.client_at(host).await;
    client.send(request("POST", REGISTER, "", vec![b'x'; bytes])).await;
    client.response().await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_never_show_the_key_in_a_node_s_url() {
    const KEY: &str = "aVerySecretKey";
    let node = Node::start(|exchange: rest::Exchange| async move {
        let target = exchange.asked.target.clone();
        let (path, fields) = (target.trim_end_matches(|c| c != '/'), format!("x-asked-for: {target}\r\n"));
        assert!(path.contains(KEY));
        let html = "content-type: text/html\r\n";
        let answer = match target.rsplit('/').next().unwrap() {
            "short" => rest::response("404 Not Found", &(fields + html), format!("<p>no {target}, none: {target}</p>")),
            "plain" => json("400 Bad Request", "{\"code\":400,\"message\":\"as it is\"}"),
            "chunks" => rest::chunked("410 Gone", html, format!("<p>no {target}</p>").as_bytes(), 7),
            "long" => rest::response("404 Not Found", html, target.repeat(150_000)),
            "packed" => rest::response("404 Not Found", "content-encoding: gzip\r\n", format!("gzip of {target}")),
            "empty" => rest::response("404 Not Found", "", ""),
            "good" => rest::response("200 OK", &fields, "{}"),
            "broken" => rest::response("502 Bad Gateway", html, target),
            other => panic!("{other}"),
        };
        exchange.reply(answer).await
    })
    .await;
    let settings = nodes(&[format!("{}/v2/{KEY}", node.url())]);
    let proxy = Proxy::launch(&settings).await;
    rest::until_verdict(&proxy, "cl-1", "up").await;
    let withheld = "the node's words are withheld: they could not be searched for secrets";
    let withheld = format!("{{\"code\":404,\"message\":\"{withheld}\"}}");
    for (what, status, body) in [
        ("short", 404, "<p>no /v2/***/eth/v1/node/short, none: /v2/***/eth/v1/node/short</p>"),
        ("plain", 400, "{\"code\":400,\"message\":\"as it is\"}"),
        ("chunks", 410, "<p>no /v2/***/eth/v1/node/chunks</p>"),
        ("long", 404, &withheld),
        // It says that it is gzip, and is none.
        ("packed", 503, "{\"code\":503,\"message\":\"all attempts to have a node answer this call failed\"}"),
        ("empty", 404, ""),
        ("good", 200, "{}"),
        ("broken", 502, "/v2/***/eth/v1/node/broken"),
    ] {
        let answer = ask(&proxy, "GET", &format!("/eth/v1/node/{what}")).await;
        assert_eq!((answer.status, &*answer.text()), (status, body), "{what}");
        assert_eq!(answer.header("content-encoding"), None, "{what}");
        assert!(!format!("{answer:?}").contains(KEY), "{answer:?}");
    }
}
