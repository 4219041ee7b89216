//! The beacon API at its edges: what is asked, refused, bounded and hidden there.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{
    SOON,
    client::Client,
    devnet,
    proxy::{Proxy, config},
    rest::{Node, ask, json, nodes, request},
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
    assert_eq!(client.response().await.text(), "ok\n");
    client.send(request("DELETE", "/eth/v1/events?topics=head", "", "")).await;
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
