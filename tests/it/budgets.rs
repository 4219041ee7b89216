//! Budgets of nodes and accounts: never passed, whatever asks, and no call is lost for them that
//! another node can answer. On a network of memory under a simulated clock.

use std::{
    fmt::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{
    client::{Response, call},
    origin::{Origin, Reply, Seen, chain, response},
    proxy, rest,
    sim::{Net, Proxy},
    until,
};
use serde_json::{Value, json};
use steadfast::{
    app::{App, Source},
    devnet::{Devnet, Fault, Node, Options},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

pub const BALANCE: &str = r#"["0x0000000000000000000000000000000000000000","latest"]"#;
/// Unix time of a noon.
const NOON: u64 = 20_000 * 86_400 + 43_200;

/// Execution nodes `el-1`, `el-2`, … and a proxy before them.
pub struct Scene {
    devnet: Devnet,
    pub proxy: Arc<Proxy>,
    pub settings: String,
    pub nodes: usize,
}

impl Scene {
    /// Each node has its lines of settings. The wall clock begins at noon.
    pub async fn start(more: &str, nodes: &[&str]) -> Self {
        Self::over(more, nodes, |node| format!("http = \"{}\"", node.http_url())).await
    }

    /// The same, where `address` says how nodes are reached.
    async fn over(more: &str, nodes: &[&str], address: impl Fn(&Node) -> String) -> Self {
        let net = Net::default();
        let options = Options { execution: nodes.len(), now_unix: Some(NOON), ..Options::default() };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let mut settings = more.to_owned();
        for (place, lines) in nodes.iter().enumerate() {
            let address = address(devnet.el(place));
            writeln!(settings, "[[el.primary]]\nname = \"el-{}\"\n{address}\n{lines}", place + 1).unwrap();
        }
        let written = Arc::new(Mutex::new(settings.clone()));
        let read = written.clone();
        let source: Source = Arc::new(move || Ok(proxy::config(&read.lock().unwrap())));
        let app = App::start(source().unwrap(), net.world(NOON, Instant::now()), Some(source)).await.unwrap();
        let mut proxy = Proxy::of(&net, app);
        proxy.settings = written;
        let proxy = Arc::new(proxy);
        until("all are up", async || proxy.verdicts().await.iter().all(|verdict| verdict == "up")).await;
        Self { devnet, proxy, settings, nodes: nodes.len() }
    }

    pub fn node(&self, place: usize) -> &Arc<Node> {
        self.devnet.el(place)
    }

    async fn status(&self, name: &str) -> Value {
        self.proxy.node(name).await
    }

    /// So many calls at once.
    pub async fn ask(&self, calls: usize, method: &'static str, params: &'static str) -> Vec<Response> {
        let mut asking = JoinSet::new();
        for id in 0..calls {
            let proxy = self.proxy.clone();
            asking.spawn(async move { proxy.post(call(id, method, params)).await });
        }
        asking.join_all().await
    }

    async fn spent(&self, node: &str) -> f64 {
        self.proxy.metric("steadfast_node_credits_total", &format!(r#"node="{node}""#)).await
    }
}

/// The lines for a node that is reached over a WebSocket alone.
fn link(node: &Node) -> String {
    format!("ws = \"{}\"", node.ws_url())
}

fn refused(answers: &[Response]) -> usize {
    answers.iter().filter(|answer| answer.status != 200).count()
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_never_passed_and_others_have_the_rest() {
    let scene = Scene::start("", &["budget = { per_second = 40, burst = 10 }", ""]).await;
    scene.node(0).set_fault(Fault::credits(40, 10, Some(30)));
    for _ in 0..100 {
        let answers = scene.ask(30, "eth_getBalance", BALANCE).await;
        assert_eq!(refused(&answers), 0);
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(scene.node(0).overspent(), 0, "the provider had to refuse");
    let [first, second] = [0, 1].map(|place| scene.node(place).count("eth_getBalance"));
    // The budget is used too: two in a second are for probes.
    assert!(first > 300, "the node with the budget had {first} calls");
    assert_eq!(first + second, 3000);
    assert_eq!(scene.proxy.verdicts().await, ["up", "up"]);
    let asked: u64 = scene.node(0).counts().values().sum();
    assert_eq!(scene.spent("el-1").await as u64, asked, "{:?}", scene.node(0).counts());
    let budget = scene.status("el-1").await["budget"].take();
    assert_eq!((&budget["per_second"], &budget["burst"], &budget["per_day"]), (&json!(40), &json!(10), &Value::Null));
    assert!(budget["burst_left"].as_u64().unwrap() <= 10, "{budget}");
    assert_eq!(scene.status("el-2").await["budget"], Value::Null);
    assert_eq!(scene.spent("el-2").await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_credits_and_are_refused_after_the_hold() {
    let scene = Scene::start("calls = { hold = \"2s\" }\n", &["budget = { per_second = 20, burst = 8 }"]).await;
    scene.node(0).set_fault(Fault::credits(20, 8, None));
    let answers = scene.ask(20, "eth_getBalance", BALANCE).await;
    assert_eq!(refused(&answers), 0, "all of them had credits within the hold");
    let began = Instant::now();
    let answers = scene.ask(200, "eth_getBalance", BALANCE).await;
    let waited = began.elapsed();
    assert!((Duration::from_millis(1500)..Duration::from_secs(4)).contains(&waited), "{waited:?}");
    // Some eighteen in a second are left beside probes.
    let refusals: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!((120..=170).contains(&refusals.len()), "{} were refused", refusals.len());
    for answer in refusals {
        assert_eq!(answer.status, 429);
        let error = answer.json()["error"].take();
        assert_eq!((&error["code"], &error["data"]["reason"]), (&json!(-32005), &json!("resting")), "{error}");
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(scene.node(0).overspent(), 0);
    assert_eq!(scene.proxy.verdicts().await, ["up"]);
}

#[tokio::test(start_paused = true)]
async fn a_dear_method_costs_what_the_settings_say() {
    let budget = r#"budget = { per_second = 20, burst = 60, costs = { "eth_getBal*" = 50, "eth_accounts" = 0 } }"#;
    let scene = Scene::start("", &[budget, ""]).await;
    sleep(Duration::from_secs(5)).await;
    let answers = scene.ask(10, "eth_getBalance", BALANCE).await;
    assert_eq!(refused(&answers), 0);
    assert_eq!(scene.node(0).count("eth_getBalance"), 1);
    let before = scene.spent("el-1").await;
    let answers = scene.ask(50, "eth_accounts", "[]").await;
    assert_eq!((refused(&answers), scene.node(0).count("eth_accounts")), (0, 50));
    assert_eq!(scene.spent("el-1").await, before, "they are free");
}

#[tokio::test(start_paused = true)]
async fn the_credits_of_a_day_are_back_at_midnight() {
    let scene = Scene::start("health = { interval = \"1m\" }\n", &["budget = { per_day = 150 }", ""]).await;
    let answers = scene.ask(100, "eth_getBalance", BALANCE).await;
    assert_eq!((refused(&answers), scene.node(0).count("eth_getBalance")), (0, 100));
    // Probes have the rest.
    sleep(Duration::from_secs(1800)).await;
    assert_eq!(scene.proxy.verdicts().await, ["resting", "up"]);
    let asked: u64 = scene.node(0).counts().values().sum();
    assert_eq!(scene.spent("el-1").await, 150.0);
    // The last probe may have paid for a question that was not asked, since another could not be.
    assert!((149..=150).contains(&asked), "{asked}");
    let status = scene.status("el-1").await;
    assert_eq!(status["budget"]["day_left"], json!(0));
    assert!(status["last_error"]["message"].as_str().unwrap().contains("budget"), "{status}");
    assert_eq!(refused(&scene.ask(10, "eth_getBalance", BALANCE).await), 0);
    sleep(Duration::from_secs(11 * 3600)).await;
    assert_eq!(scene.node(0).counts().values().sum::<u64>(), asked, "nothing more before midnight");
    sleep(Duration::from_secs(1800)).await;
    assert_eq!(scene.proxy.verdicts().await, ["up", "up"]);
    assert_eq!(refused(&scene.ask(10, "eth_getBalance", BALANCE).await), 0);
    assert_eq!(scene.node(0).count("eth_getBalance"), 110);
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_was_spent() {
    let scene = Scene::start("", &["budget = { per_day = 500 }", ""]).await;
    scene.ask(100, "eth_getBalance", BALANCE).await;
    for (from, to) in [("per_day = 500", "per_day = 400"), ("http://127.0.0.1", "http://localhost")] {
        let before = scene.spent("el-1").await as u64;
        let settings = scene.settings.replace("per_day = 500", "per_day = 400").replace(from, to);
        scene.proxy.reload(&settings).await;
        let left = scene.status("el-1").await["budget"]["day_left"].as_u64().unwrap();
        assert!(left + before <= 400 && left + before > 380, "{left} left of 400 after {before}");
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_of_an_account_have_one_budget() {
    let account = "account = \"paid\"\n";
    let first = format!("{account}budget = {{ per_second = 40, burst = 10 }}");
    let scene = Scene::start("calls = { policy = \"spread\" }\n", &[&first, account, ""]).await;
    for _ in 0..50 {
        assert_eq!(refused(&scene.ask(30, "eth_getBalance", BALANCE).await), 0);
        sleep(Duration::from_millis(100)).await;
    }
    let [first, second, other] = [0, 1, 2].map(|place| scene.node(place).count("eth_getBalance"));
    // 5 s of 40 and a burst, less the probes of both.
    assert!(first + second <= 230, "{first} and {second} are more than the account has");
    assert!(first > 10 && second > 10 && first + second + other == 1500, "{first}, {second}, {other}");
    assert_eq!(scene.status("el-2").await["account"], json!("paid"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_one_node_rests_all_of_its_account() {
    let account = "account = \"paid\"";
    let scene = Scene::start("", &[account, account, ""]).await;
    scene.node(0).set_fault(Fault::rate_limited(20));
    until("both rest", async || scene.proxy.verdicts().await == ["resting", "resting", "up"]).await;
    let began = Instant::now();
    scene.node(1).clear_records();
    while began.elapsed() < Duration::from_secs(17) {
        assert_eq!(refused(&scene.ask(3, "eth_getBalance", BALANCE).await), 0);
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(scene.node(1).counts().values().sum::<u64>(), 0, "{:?}", scene.node(1).counts());
    scene.node(0).clear_faults();
    until("both are back", async || scene.proxy.verdicts().await == ["up", "up", "up"]).await;
}

#[tokio::test(start_paused = true)]
async fn second_tries_and_second_attempts_cost_too() {
    let budget = "[[el.backup]]\nname = \"paid\"\nbudget = { per_second = 100, burst = 100 }\n";
    let net = Net::default();
    let origins = [
        // The first node is slow, so that a second attempt goes to the other.
        Origin::within(&net, |seen| {
            let body = crate::common::origin::ok(format!(r#"{{"jsonrpc":"2.0","id":{},"result":"0x1"}}"#, seen.id()));
            Reply::act(async move |mut io| {
                sleep(Duration::from_secs(25)).await;
                tokio::io::AsyncWriteExt::write_all(&mut io, &body).await.ok()?;
                Some(io)
            })
        })
        .await,
        // The other loses every second call.
        Origin::within(&net, |seen| match &*seen.params() {
            "[2]" => Reply::Bytes(response("500 Oops", "", "")),
            _ => Reply::result(seen, "\"0x2\""),
        })
        .await,
    ];
    let _chain = chain(&origins);
    let settings = proxy::nodes([origins[0].url()]) + &format!("{budget}http = \"{}\"\n", origins[1].url());
    let proxy = Proxy::launch(&net, &settings).await;
    until("both are up", async || proxy.verdicts().await == ["up", "up"]).await;
    for id in 1..=4 {
        let answer = proxy.post(call(id, "eth_call", &format!("[{id}]"))).await;
        assert_eq!(answer.status, 200);
    }
    let calls = proxy.metric("steadfast_node_credits_total", r#"by="calls""#).await;
    assert!(calls >= 4.0);
    assert_eq!(calls as usize, origins[1].count("eth_call"));
}

#[tokio::test(start_paused = true)]
async fn a_budget_holds_over_links_and_for_clients_of_websockets() {
    let scene = Scene::over("", &["budget = { per_second = 40, burst = 10 }", ""], link).await;
    scene.node(0).set_fault(Fault::credits(40, 10, None));
    let mut client = scene.proxy.ws().await;
    for round in 0..50 {
        for id in 0..30 {
            client.send(call(format!("{}", round * 30 + id), "eth_getBalance", BALANCE)).await;
        }
        for _ in 0..30 {
            let answer: Value = serde_json::from_str(&client.answer().await).unwrap();
            assert!(answer["error"].is_null(), "{answer}");
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(scene.node(0).overspent(), 0, "the provider had to refuse");
    let [first, second] = [0, 1].map(|place| scene.node(place).count("eth_getBalance"));
    assert!(first > 120, "the node with the budget had {first} calls");
    assert_eq!(first + second, 1500);
    assert_eq!(scene.proxy.verdicts().await, ["up", "up"]);
}

#[tokio::test(start_paused = true)]
async fn notifications_of_a_node_cost_as_the_settings_say() {
    let budget = r#"budget = { per_day = 100000, costs = { "eth_subscription" = 1000, "*" = 0 } }"#;
    let scene = Scene::over("", &[budget, ""], link).await;
    until("the node pushes heads", async || {
        scene.devnet.chain().mine(1);
        scene.status("el-1").await["link"]["heads"] == json!(true)
    })
    .await;
    sleep(Duration::from_secs(1)).await;
    let before = scene.spent("el-1").await;
    for blocks in 1..=5 {
        scene.devnet.chain().mine(1);
        let spent = before + 1000.0 * f64::from(blocks);
        until("the head is paid for", async || scene.spent("el-1").await == spent).await;
    }
    // A subscription that only a node can give.
    let mut client = scene.proxy.ws().await;
    client.subscribe(r#"["newPendingTransactions"]"#).await;
    for transaction in 1..=5_u8 {
        let spent = scene.spent("el-1").await + 1000.0;
        scene.devnet.chain().submit(vec![0x02, transaction]).unwrap();
        client.notification().await;
        assert_eq!(scene.spent("el-1").await, spent);
    }
    assert_eq!(scene.spent("el-2").await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn words_over_a_link_say_how_long_a_node_rests() {
    let scene = Scene::over("", &["", ""], link).await;
    scene.node(0).set_fault(Fault::rate_limited(20));
    until("it rests", async || scene.proxy.verdicts().await == ["resting", "up"]).await;
    let began = Instant::now();
    scene.node(0).clear_records();
    scene.node(0).clear_faults();
    while began.elapsed() < Duration::from_secs(18) {
        assert_eq!(refused(&scene.ask(3, "eth_getBalance", BALANCE).await), 0);
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(scene.node(0).counts().values().sum::<u64>(), 0, "{:?}", scene.node(0).counts());
    until("it is back", async || scene.proxy.verdicts().await == ["up", "up"]).await;
    assert!(began.elapsed() < Duration::from_secs(23), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn requests_to_the_beacon_api_have_a_budget_too() {
    let net = Net::default();
    let options = Options { execution: 0, consensus: 2, ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let urls = [devnet.cl(0), devnet.cl(1)].map(|node| node.http_url());
    let nodes = rest::nodes(&urls).replacen("http =", "budget = { per_second = 40, burst = 10 }\nhttp =", 1);
    let proxy = Arc::new(Proxy::launch(&net, &nodes).await);
    let verdicts = async || proxy.admin("/status").await.json()["networks"][0]["cl"]["nodes"].take();
    until("both are up", async || {
        verdicts().await.as_array().unwrap().iter().all(|node| node["verdict"] == json!("up"))
    })
    .await;
    let (began, before) = (Instant::now(), devnet.cl(0).counts().values().sum::<u64>());
    for _ in 0..50 {
        let mut asking = JoinSet::new();
        for _ in 0..30 {
            let proxy = proxy.clone();
            asking.spawn(async move {
                let mut client = proxy.client().await;
                client.send(rest::request("GET", "/eth/v1/beacon/blocks/head/root", "", "")).await;
                client.response().await
            });
        }
        assert_eq!(refused(&asking.join_all().await), 0);
        sleep(Duration::from_millis(100)).await;
    }
    let most = 10 + began.elapsed().as_millis() as u64 * 40 / 1000;
    let asked: u64 = devnet.cl(0).counts().values().sum();
    assert!((120..=most).contains(&(asked - before)), "{}", asked - before);
    assert_eq!(proxy.metric("steadfast_node_credits_total", r#"node="cl-1""#).await as u64, asked);
}

#[tokio::test(start_paused = true)]
async fn an_idle_backup_answers_when_the_budget_is_spent() {
    let net = Net::default();
    let options = Options { execution: 2, block_time: Some(Duration::from_secs(2)), ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let [one, two] = [devnet.el(0), devnet.el(1)].map(|node| node.http_url());
    let nodes = format!(
        "[[el.primary]]\nhttp = \"{one}\"\nbudget = {{ per_second = 5, burst = 8 }}\n\
         [[el.backup]]\nhttp = \"{two}\"\nprobe = \"lazy\"\n"
    );
    let proxy = Arc::new(Proxy::launch(&net, &nodes).await);
    until("both are up", async || proxy.verdicts().await == ["up", "up"]).await;
    sleep(Duration::from_secs(55)).await;
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for id in 0..60 {
        let proxy = proxy.clone();
        asking.spawn(async move { proxy.post(call(id, "eth_getBalance", BALANCE)).await });
    }
    assert_eq!(refused(&asking.join_all().await), 0);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(devnet.el(0).count("eth_getBalance") + devnet.el(1).count("eth_getBalance"), 60);
    let before = devnet.el(1).count("eth_syncing");
    sleep(Duration::from_secs(10)).await;
    assert!(devnet.el(1).count("eth_syncing") >= before + 9, "it is not looked at");
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_for_a_connection_pay_when_they_are_sent() {
    let net = Net::default();
    let slow = |seen: &Seen| {
        let body = crate::common::origin::ok(format!(r#"{{"jsonrpc":"2.0","id":{},"result":"0x1"}}"#, seen.id()));
        Reply::act(async move |mut io| {
            sleep(Duration::from_millis(20)).await;
            tokio::io::AsyncWriteExt::write_all(&mut io, &body).await.ok()?;
            Some(io)
        })
    };
    let origin = Origin::within(&net, slow).await;
    let _chain = chain([&origin]);
    let budget = "max_connections = 2\nbudget = { per_second = 20, burst = 16 }\n";
    let settings = format!("[[el.primary]]\nhttp = \"{}\"\n{budget}", origin.url());
    let proxy = Arc::new(Proxy::launch(&net, &settings).await);
    until("it is up", async || proxy.verdicts().await == ["up"]).await;
    sleep(Duration::from_secs(10)).await;
    let began = Instant::now();
    // All of them find credits at the node, and then wait for its connections.
    let mut asking = JoinSet::new();
    for id in 0..60 {
        let proxy = proxy.clone();
        asking.spawn(async move { proxy.post(call(id, "eth_call", "[]")).await });
    }
    assert_eq!(refused(&asking.join_all().await), 0);
    let (asked, took) = (origin.count("eth_call"), began.elapsed());
    assert_eq!(asked, 60);
    assert!(asked as u128 <= 16 + took.as_millis() * 20 / 1000, "{asked} in {took:?}");
}
