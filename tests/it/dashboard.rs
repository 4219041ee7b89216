//! The admin side's page, and the stream of snapshots that the page lives by.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Fault, Options};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{Instant, sleep, timeout},
};

use crate::common::{
    SOON,
    client::{Client, Response, call},
    sim::{Net, Proxy},
    until,
};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

async fn devnet(net: &Net) -> Devnet {
    Devnet::start(Options { execution: 2, ..Options::default() }, Arc::new(net.clone())).await.unwrap()
}

/// A proxy before the first execution node and its backup, both of them up.
async fn proxy(net: &Net, devnet: &Devnet) -> Proxy {
    let [one, two] = [0, 1].map(|node| devnet.el(node).http_url());
    let settings = format!(
        "[[el.primary]]\nname = \"el-1\"\nhttp = \"{one}\"\n[[el.backup]]\nname = \"el-2\"\nhttp = \"{two}\"\n"
    );
    let proxy = Proxy::launch(net, &settings).await;
    until("both are up", async || proxy.verdicts().await == ["up", "up"]).await;
    proxy
}

async fn connect(net: &Net, proxy: &Proxy) -> DuplexStream {
    net.connect(proxy.app.admin_addr().port()).await.unwrap()
}

/// The answer to a GET with these lines of its head.
async fn get(net: &Net, proxy: &Proxy, path: &str, lines: &str) -> Response {
    let mut client = Client::over(connect(net, proxy).await);
    client.send(format!("GET {path} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n")).await;
    client.response().await
}

/// A stream of snapshots.
struct Events {
    io: DuplexStream,
    text: String,
}

impl Events {
    async fn open(net: &Net, proxy: &Proxy) -> Self {
        let mut io = connect(net, proxy).await;
        io.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut events = Self { io, text: String::new() };
        while !events.text.contains("\r\n\r\n") {
            assert!(events.fill().await, "closed: {}", events.text);
        }
        let (head, rest) = events.text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        events.text = rest.to_owned();
        events
    }

    /// Whether more has come.
    async fn fill(&mut self) -> bool {
        let mut piece = [0; 64 * 1024];
        let read = timeout(SOON, self.io.read(&mut piece)).await.expect("nothing comes").unwrap_or(0);
        self.text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        read > 0
    }

    /// The next snapshot; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (_, data) = event.split_once("data: ").unwrap();
                let snapshot = serde_json::from_str(data).unwrap();
                self.text = rest.to_owned();
                return Some(snapshot);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// The first snapshot from now on in which calls go to `node`.
    async fn until_active(&mut self, node: &str) -> Value {
        let start = Instant::now();
        loop {
            let snapshot = self.next().await.expect("the stream ended");
            if snapshot["status"]["networks"][0]["el"]["active"] == node {
                return snapshot;
            }
            assert!(start.elapsed() < SOON, "calls do not go to {node}: {snapshot}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn browsers_get_the_page_and_programs_the_list() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let proxy = proxy(&net, &devnet).await;
    let list = get(&net, &proxy, "/", "Host: localhost\r\nAccept: */*\r\n").await;
    assert!(list.json()["paths"].as_array().unwrap().contains(&json!("GET /events")), "{list:?}");
    let browser = "Host: localhost\r\nAccept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8\r\n";
    let page = get(&net, &proxy, "/", browser).await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.text().starts_with("<!doctype html>"), "{page:?}");
    let files: Vec<_> =
        page.text().split('"').filter(|word| word.starts_with("dashboard/")).map(str::to_owned).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    for (path, kind) in
        [("/", "text/html"), ("/dashboard/dashboard.css", "text/css"), ("/dashboard/main.js", "text/javascript")]
    {
        let file = get(&net, &proxy, path, browser).await;
        assert_eq!(file.status, 200, "{path}");
        assert!(file.header("content-type").unwrap().starts_with(kind), "{path}: {file:?}");
        assert_eq!(file.header("content-security-policy"), Some(POLICY), "{path}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(file.header("cache-control"), Some("no-cache"), "{path}");
        let tag = file.header("etag").unwrap();
        let again = get(&net, &proxy, path, &format!("{browser}If-None-Match: {tag}\r\n")).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        let other = get(&net, &proxy, path, &format!("{browser}If-None-Match: \"0\"\r\n")).await;
        assert_eq!((other.status, other.body), (200, file.body), "{path}");
    }
    assert_eq!(get(&net, &proxy, "/dashboard/", browser).await.status, 404);
    assert_eq!(get(&net, &proxy, "/dashboard/../main.js", browser).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn the_usual_path_of_dashboards_leads_to_the_page() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let proxy = proxy(&net, &devnet).await;
    // Relative to /dashboard, `./` is the root.
    for path in ["/dashboard", "/dashboard?network=default"] {
        let moved = get(&net, &proxy, path, "Host: localhost\r\nAccept: text/html\r\n").await;
        assert_eq!((moved.status, moved.header("location"), moved.body.len()), (308, Some("./"), 0), "{path}");
    }
    let mut client = Client::over(connect(&net, &proxy).await);
    client.send("POST /dashboard HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 404);
    let foreign = get(&net, &proxy, "/dashboard", "Host: evil.example\r\n").await;
    assert_eq!(foreign.status, 403);
}

#[tokio::test(start_paused = true)]
async fn a_page_of_another_origin_gets_neither_page_nor_events() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let proxy = proxy(&net, &devnet).await;
    for path in ["/", "/events", "/dashboard/main.js"] {
        for lines in [
            "Host: evil.example\r\n",
            "Host: localhost\r\nOrigin: http://evil.example\r\n",
            "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
        ] {
            let answer = get(&net, &proxy, path, &format!("Accept: text/html\r\n{lines}")).await;
            assert_eq!(answer.status, 403, "{path} {lines:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_of_a_death_and_of_the_return() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let proxy = proxy(&net, &devnet).await;
    let mut events = Events::open(&net, &proxy).await;
    let first = events.next().await.unwrap();
    assert_eq!(first["status"]["networks"][0]["el"]["active"], "el-1");
    assert_eq!(proxy.post(call(1, "eth_gasPrice", "[]")).await.status, 200);
    devnet.el(0).set_fault(Fault::Down);
    let died = Instant::now();
    let snapshot = events.until_active("el-2").await;
    assert!(died.elapsed() < Duration::from_secs(2), "{:?}", died.elapsed());
    let side = &snapshot["status"]["networks"][0]["el"];
    assert_eq!((&side["failover"], &side["nodes"][0]["verdict"]), (&json!(true), &json!("down")));
    let switch = snapshot["switches"].as_array().unwrap().last().unwrap();
    assert_eq!(
        ["network", "layer", "from", "to", "reason"].map(|key| switch[key].as_str().unwrap()),
        ["default", "el", "el-1", "el-2", "down"]
    );
    // Told at once, not at the next second.
    let since = snapshot["uptime_ms"].as_u64().unwrap() - switch["at_ms"].as_u64().unwrap();
    assert!(since <= 260, "{since} ms after the switch");
    let calls = &snapshot["calls"][0];
    assert_eq!((&calls["outcomes"]["result"], &calls["held"]), (&json!(1), &json!(0)), "{calls}");
    assert_eq!(calls["methods"], json!([["eth_gasPrice", 1, 0]]));
    let timed: u64 = calls["latency"]["counts"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(timed, 1, "{calls}");
    assert_eq!(snapshot["attempts"][0]["answered"], 1, "{snapshot}");
    devnet.el(0).clear_faults();
    let snapshot = events.until_active("el-1").await;
    let reasons: Vec<_> = snapshot["switches"].as_array().unwrap().iter().map(|one| one["reason"].clone()).collect();
    assert_eq!(reasons, ["start", "down", "failback"]);
}

#[tokio::test(start_paused = true)]
async fn real_nodes_have_no_faults_to_switch() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let proxy = proxy(&net, &devnet).await;
    assert_eq!(Events::open(&net, &proxy).await.next().await.unwrap()["pretend"], false);
    assert_eq!(proxy.operate("/pretend/el-1/down").await.status, 404);
    assert_eq!(proxy.verdicts().await, ["up", "up"]);
}

#[tokio::test(start_paused = true)]
async fn snapshots_come_each_second_and_not_too_often() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let proxy = proxy(&net, &devnet).await;
    let mut events = Events::open(&net, &proxy).await;
    let (start, mut times) = (Instant::now(), Vec::new());
    let mut note = async || times.push(events.next().await.unwrap()["uptime_ms"].as_u64().unwrap());
    // Longer than a connection may be idle.
    while start.elapsed() < Duration::from_secs(150) {
        note().await;
    }
    // Changes that come faster than snapshots may.
    for _ in 0..50 {
        proxy.operate("/nodes/el-2/cordon").await;
        proxy.operate("/nodes/el-2/uncordon").await;
        sleep(Duration::from_millis(20)).await;
    }
    for _ in 0..4 {
        note().await;
    }
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (249..=1300).contains(gap)), "{gaps:?}");
    assert!(gaps.len() >= 150, "{}", gaps.len());
}

#[tokio::test(start_paused = true)]
async fn streams_are_bounded_and_end_with_the_proxy() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let proxy = proxy(&net, &devnet).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(Events::open(&net, &proxy).await);
    }
    assert_eq!(get(&net, &proxy, "/events", "Host: localhost\r\n").await.status, 503);
    // A page that is closed makes room.
    streams.pop();
    sleep(Duration::from_secs(2)).await;
    streams.push(Events::open(&net, &proxy).await);
    proxy.app.shutdown().await;
    for mut stream in streams {
        let start = Instant::now();
        while stream.next().await.is_some() {
            assert!(start.elapsed() < SOON, "the stream goes on");
        }
    }
}
