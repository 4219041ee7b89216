//! Streams of events as a client of the proxy has them: HTTP responses that outlive nodes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::common::{SOON, devnet, proxy::config, until};
use reqwest::{Response, StatusCode};
use serde_json::Value;
use steadfast::{
    app::{App, World},
    devnet::{Devnet, Fault, Options},
};
use tokio::time::{Instant, sleep, timeout};

const HEALTH: &str = "health = { interval = \"100ms\", timeout = \"500ms\", fall = 2, rise = 2 }\n";

/// Settings of these of the devnet's consensus nodes: the first is the primary.
fn settings(net: &Devnet, nodes: &[usize]) -> String {
    let mut text = HEALTH.to_owned();
    for (place, &index) in nodes.iter().enumerate() {
        let (node, tier) = (net.cl(index), if place == 0 { "primary" } else { "backup" });
        text += &format!("[[cl.{tier}]]\nname = \"{}\"\nhttp = \"{}\"\n", node.name(), node.http_url());
    }
    text
}

async fn pretend(consensus: usize) -> Devnet {
    devnet(Options { execution: 0, consensus, initial_blocks: 30, ..Options::default() }).await
}

async fn proxy(net: &Devnet, nodes: &[usize]) -> App {
    App::start(config(&settings(net, nodes)), World::real(2), None).await.unwrap()
}

fn http() -> reqwest::Client {
    steadfast::net::post::plain().build().unwrap()
}

async fn get(app: &App, path: &str) -> Response {
    http().get(format!("http://{}{path}", app.addr())).send().await.unwrap()
}

/// Client connections that the proxy has open.
async fn connections(app: &App) -> u64 {
    let metrics = http().get(format!("http://{}/metrics", app.admin_addr())).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let count = metrics.lines().find_map(|line| line.strip_prefix("steadfast_http_connections "));
    count.expect("the metric is there").parse().unwrap()
}

/// A stream as it is read.
struct Events {
    answer: Response,
    text: String,
}

impl Events {
    async fn open(app: &App, path: &str) -> Self {
        let start = Instant::now();
        loop {
            let answer = get(app, path).await;
            if answer.status() == StatusCode::OK {
                return Self { answer, text: String::new() };
            }
            assert!(start.elapsed() < SOON, "{answer:?}");
        }
    }

    /// The next line of data; none at the stream's end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                let data = data.map(|data| serde_json::from_str(data).unwrap());
                self.text = rest.to_owned();
                match data {
                    Some(data) => return Some(data),
                    None => continue,
                }
            }
            let piece = timeout(SOON, self.answer.chunk()).await.expect("something in time").unwrap()?;
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    async fn slot(&mut self) -> u64 {
        self.next().await.unwrap()["slot"].as_str().unwrap().parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_response_lasts_through_failover_and_failback() {
    let net = pretend(2).await;
    let app = proxy(&net, &[0, 1]).await;
    let mut events = Events::open(&app, "/eth/v1/events?topics=head").await;
    for (name, value) in
        [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")]
    {
        assert_eq!(events.answer.headers()[name], value);
    }
    let mut expected = 31;
    for fault in [Fault::Down, Fault::Hang, Fault::Failing] {
        net.chain().mine(1);
        assert_eq!(events.slot().await, expected);
        net.cl(0).set_fault(fault);
        net.chain().mine(2);
        assert_eq!((events.slot().await, events.slot().await), (expected + 1, expected + 2));
        net.cl(0).clear_faults();
        // Back at the primary when that has told a head.
        expected = until_at(&net, 0, &mut events, expected + 3).await;
    }
    assert_eq!(net.cl(0).subscriptions() + net.cl(1).subscriptions(), 1);
}

/// Mines until events come from node `index` alone, one block after the other is told: many at once would be further ahead of the
/// clock than is believed. Returns the slot of the block after those.
async fn until_at(net: &Devnet, index: usize, events: &mut Events, mut next: u64) -> u64 {
    until("the stream is at the node", async || {
        net.chain().mine(1);
        assert_eq!(events.slot().await, next);
        next += 1;
        sleep(Duration::from_millis(200)).await;
        net.nodes().enumerate().all(|(other, node)| node.subscriptions() == u64::from(other == index))
    })
    .await;
    next
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_event_requests_are_refused_in_the_apis_form() {
    let net = pretend(1).await;
    let app = proxy(&net, &[0]).await;
    Events::open(&app, "/cl/eth/v1/events?topics=head&topics=block").await;
    for (query, named) in [
        ("", "topics"),
        ("?topics=", "topics"),
        ("?topics=head,a%2Fb", "Invalid topic"),
        ("?topics=head,sadness", "Invalid topic: sadness"),
    ] {
        let answer = get(&app, &format!("/eth/v1/events{query}")).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (400, &"application/json".parse().unwrap())
        );
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["code"], 400);
        assert!(body["message"].as_str().unwrap().contains(named), "{body}");
    }
    let answer = http().post(format!("http://{}/eth/v1/events?topics=head", app.addr())).send().await.unwrap();
    assert_eq!(answer.status(), 405);
    net.cl(0).set_fault(Fault::Down);
    until("the node is out", async || get(&app, "/health").await.status() == 503).await;
    let answer = timeout(SOON * 2, get(&app, "/eth/v1/events?topics=head")).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_is_kept_alive_until_the_proxy_stops() {
    let net = pretend(1).await;
    let app = proxy(&net, &[0]).await;
    let mut events = Events::open(&app, "/eth/v1/events?topics=head").await;
    let start = Instant::now();
    let comment = timeout(Duration::from_secs(15), events.answer.chunk()).await.unwrap().unwrap().unwrap();
    assert_eq!(comment, ":\n\n");
    assert!(start.elapsed() > Duration::from_secs(9), "{:?}", start.elapsed());
    let start = Instant::now();
    let (end, ()) = tokio::join!(events.next(), app.shutdown());
    assert_eq!(end, None);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_when_a_reload_replaces_its_nodes() {
    let net = pretend(2).await;
    let texts = [settings(&net, &[0]), settings(&net, &[1])];
    let reloads = Arc::new(AtomicUsize::new(0));
    let (read, counted) = (texts.clone(), reloads.clone());
    let source = move || Ok(config(&read[counted.load(SeqCst)]));
    let app = App::start(config(&texts[0]), World::real(1), Some(Arc::new(source))).await.unwrap();
    let mut events = Events::open(&app, "/eth/v1/events?topics=head").await;
    net.chain().mine(1);
    assert_eq!(events.slot().await, 31);
    reloads.store(1, SeqCst);
    app.reload().await.unwrap();
    until_at(&net, 1, &mut events, 32).await;
    assert_eq!(net.cl(0).subscriptions(), 0);
}

#[tokio::test]
async fn half_of_the_door_is_for_others_than_event_streams() {
    let net = pretend(1).await;
    let settings = format!("max_connections = 4\n{}", settings(&net, &[0]));
    let app = App::start(config(&settings), World::real(2), None).await.unwrap();
    let mut streams = vec![Events::open(&app, "/eth/v1/events?topics=head").await];
    streams.push(Events::open(&app, "/eth/v1/events?topics=block").await);
    let refused = get(&app, "/eth/v1/events?topics=head").await;
    assert_eq!(
        (refused.status(), refused.headers()["retry-after"].to_str().unwrap()),
        (StatusCode::SERVICE_UNAVAILABLE, "1")
    );
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], 503);
    // Everybody else is served beside them, and those that are there go on.
    for _ in 0..6 {
        // Each has a connection of its own. One that came a moment ago gives up its place to nobody.
        until("the one before is gone", async || connections(&app).await == 2).await;
        assert_eq!(get(&app, "/eth/v1/node/version").await.status(), StatusCode::OK);
    }
    net.chain().mine(1);
    for stream in &mut streams {
        assert!(stream.next().await.is_some());
    }
    // One that ends makes room.
    streams.pop();
    Events::open(&app, "/eth/v1/events?topics=head").await;
}
