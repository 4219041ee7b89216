//! The admin side's page, and the stream of snapshots that the page lives by.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use steadfast::{
    cluster::store::nats::OpenError,
    devnet::{Devnet, Fault, Options},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{Instant, sleep, timeout},
};

use crate::{
    cluster::Fleet,
    common::{
        SOON,
        client::{Client, Response, call},
        sim::{Net, Proxy},
        simulation::run_simulated,
        until,
    },
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

    /// The first snapshot from now on of which `is_wanted` holds; `wanted` says which that is.
    async fn until(&mut self, wanted: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let snapshot = self.next().await.expect("the stream ended");
            if is_wanted(&snapshot) {
                return snapshot;
            }
            assert!(start.elapsed() < 3 * SOON, "no snapshot in which {wanted}: {snapshot}");
        }
    }

    /// The first snapshot from now on in which calls go to `node`.
    async fn until_active(&mut self, node: &str) -> Value {
        let is_active = |snapshot: &Value| snapshot["status"]["networks"][0]["el"]["active"] == node;
        self.until(&format!("calls go to {node}"), is_active).await
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
async fn a_proxy_that_is_alone_shows_no_cluster() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let proxy = proxy(&net, &devnet).await;
    let page = get(&net, &proxy, "/", "Host: localhost\r\nAccept: text/html\r\n").await;
    let page = page.text();
    let (_, section) = page.split_once("<section class=\"card\" id=\"cluster\"").unwrap();
    let (attributes, _) = section.split_once('>').unwrap();
    assert!(attributes.ends_with(" hidden"), "{attributes}");
    let first = Events::open(&net, &proxy).await.next().await.unwrap();
    assert_eq!(first["status"].get("cluster"), Some(&Value::Null), "{first}");
}

/// All that the page's section on the cluster reads, as JSON pointers.
const CLUSTER: [&str; 38] = [
    "/name",
    "/replica",
    "/state",
    "/role",
    "/leading",
    "/replaced_by",
    "/store/copy_age_ms",
    "/store/fault",
    "/store/set_back_seconds_ago",
    "/leader/replica",
    "/leader/term",
    "/leader/lease",
    "/view/number",
    "/view/members/0/replica",
    "/view/members/0/state",
    "/view/members/0/epoch",
    "/last_fence",
    "/wishes_left_out",
    "/wishes/0/subject",
    "/wishes/0/state",
    "/wishes/0/obeyed",
    "/wishes/0/by",
    "/wishes/0/revision",
    "/wishes/0/unreadable",
    "/wishes/0/ignored",
    "/wishes/0/replicas/0/replica",
    "/wishes/0/replicas/0/met",
    "/wishes/0/replicas/0/last_error",
    "/nodes/0/verdicts/up",
    "/nodes/0/of",
    "/nodes/0/replicas/0/verdict",
    "/nodes/0/replicas/0/last_error",
    "/nodes/0/replicas/0/cordoned",
    "/replicas/0/drained",
    "/replicas/0/heard_ms_ago",
    "/replicas/0/version",
    "/replicas/0/heads/0/served",
    "/replicas/0/state",
];

/// Errors of the store may hold anything, and reach the page as one text in one event.
#[test]
fn a_stream_tells_the_cluster_and_a_hostile_error_as_text() {
    const HOSTILE: &str = "<img src=x onerror=alert(1)>\n\ndata: {}\r\n\r\n</script>";
    run_simulated(41, async {
        let mut fleet = Fleet::new().await;
        *fleet.refusal.lock().unwrap() = Some(OpenError::Unreachable(HOSTILE.to_owned()));
        fleet.launch(0, "").await;
        let mut events = Events::open(&fleet.net, fleet.at(0)).await;
        let fault = format!("no NATS server was reached: {HOSTILE}");
        let fails = |snapshot: &Value| snapshot["status"]["cluster"]["store"]["fault"] == *fault;
        let alone = events.until("the store fails", fails).await["status"]["cluster"].take();
        assert_eq!((&alone["name"], &alone["view"], &alone["leader"]), (&json!("eu"), &Value::Null, &Value::Null));
        *fleet.refusal.lock().unwrap() = None;
        let leads = |snapshot: &Value| snapshot["status"]["cluster"]["leading"] == true;
        events.until("this replica leads", leads).await;
        assert_eq!(fleet.at(0).operate("/cluster/wishes/log/debug").await.status, 200);
        let is_full = |snapshot: &Value| {
            let cluster = &snapshot["status"]["cluster"];
            cluster["wishes"][0]["replicas"][0]["met"] == true && cluster["replicas"][0]["heads"][0].is_object()
        };
        let told = events.until("the wish is applied", is_full).await["status"]["cluster"].take();
        let script = fleet.at(0).admin("/dashboard/cluster.js").await.text();
        let is_read = |field: &str| field.rsplit('/').next().is_some_and(|name| script.contains(name));
        let missing: Vec<_> = CLUSTER.iter().filter(|field| told.pointer(field).is_none() || !is_read(field)).collect();
        assert!(missing.is_empty(), "{missing:?} of {told}");
        assert_eq!((&told["store"]["fault"], &told["leader"]["replica"]), (&Value::Null, &json!("r0")));
        let page = fleet.at(0).admin("/dashboard/main.js").await.text();
        assert!(page.contains("showCluster(snapshot.status.cluster)"), "the section is not drawn");
    });
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
