//! Backups that are probed lazily: they cost little while no call needs them, and are there at once
//! when one does. On a network of memory under a simulated clock.

use std::{fmt::Write, sync::Arc, time::Duration};

use crate::common::{
    client::call,
    rest,
    sim::{Net, Proxy},
    until,
};
use serde_json::json;
use steadfast::devnet::{Devnet, Fault, Node, Options};
use tokio::time::{Instant, sleep};

const BALANCE: &str = r#"["0x0000000000000000000000000000000000000000","latest"]"#;
const SLOT: Duration = Duration::from_secs(12);
const DAY: Duration = Duration::from_secs(86_400);

/// A primary and a lazy backup of each side, and a proxy before them.
struct Scene {
    devnet: Devnet,
    proxy: Proxy,
}

impl Scene {
    async fn start(settings: &str) -> Self {
        let net = Net::default();
        let options = Options { execution: 2, consensus: 2, block_time: Some(SLOT), ..Options::default() };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let mut text = settings.to_owned();
        for (side, nodes) in [("el", [devnet.el(0), devnet.el(1)]), ("cl", [devnet.cl(0), devnet.cl(1)])] {
            for (tier, node, lines) in [("primary", nodes[0], ""), ("backup", nodes[1], "probe = \"lazy\"\n")] {
                writeln!(text, "[[{side}.{tier}]]\nname = \"{}\"\nhttp = \"{}\"", node.name(), node.http_url())
                    .unwrap();
                if side == "el" {
                    writeln!(text, "ws = \"{}\"", node.ws_url()).unwrap();
                }
                text += lines;
            }
        }
        let proxy = Proxy::launch(&net, &text).await;
        let scene = Self { devnet, proxy };
        until("all are up, and the backups idle", async || {
            scene.idle("el").await && scene.idle("cl").await && scene.verdicts().await == ["up"; 4]
        })
        .await;
        scene
    }

    fn backup(&self, side: &str) -> &Arc<Node> {
        if side == "el" { self.devnet.el(1) } else { self.devnet.cl(1) }
    }

    fn primary(&self, side: &str) -> &Arc<Node> {
        if side == "el" { self.devnet.el(0) } else { self.devnet.cl(0) }
    }

    async fn nodes(&self, side: &str) -> Vec<serde_json::Value> {
        let status = self.proxy.admin("/status").await.json();
        status["networks"][0][side]["nodes"].as_array().unwrap().clone()
    }

    async fn idle(&self, side: &str) -> bool {
        self.nodes(side).await[1]["idle"] == json!(true)
    }

    async fn verdicts(&self) -> Vec<String> {
        let nodes = [self.nodes("el").await, self.nodes("cl").await].concat();
        nodes.iter().map(|node| node["verdict"].as_str().unwrap().to_owned()).collect()
    }

    /// Asks for something that every node knows, and returns the status of the answer.
    async fn ask(&self, side: &str) -> u16 {
        if side == "el" {
            return self.proxy.post(call(1, "eth_getBalance", BALANCE)).await.status;
        }
        let mut client = self.proxy.client().await;
        client.send(rest::request("GET", "/eth/v1/beacon/blocks/head/root", "", "")).await;
        client.response().await.status
    }

    fn asked(&self, side: &str) -> u64 {
        self.backup(side).counts().values().sum()
    }
}

/// As [`until`], for what may take longer.
async fn within(limit: Duration, what: &str, mut check: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !check().await {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_backup_costs_less_than_3000_calls_a_day() {
    // The pace of the primaries does not matter here.
    let scene = Scene::start("health = { interval = \"30s\" }\n").await;
    // A quarter of a day is enough to count on.
    for _ in 0..6 {
        for side in ["el", "cl"] {
            assert_eq!(scene.ask(side).await, 200);
        }
        sleep(DAY / 24).await;
    }
    for side in ["el", "cl"] {
        // From the start of the proxy on.
        let (asked, counts) = (scene.asked(side), scene.backup(side).counts());
        assert!((700..750).contains(&asked), "{side}: {asked} calls: {counts:?}");
        assert!(scene.idle(side).await, "{side}");
    }
    assert_eq!(scene.verdicts().await, ["up"; 4]);
    // At the start at most, before a primary was known.
    assert!(scene.devnet.el(1).count("eth_subscribe") <= 1);
}

#[tokio::test(start_paused = true)]
async fn a_lazy_backup_answers_at_once_when_the_primary_fails() {
    for side in ["el", "cl"] {
        let scene = Scene::start("").await;
        // Half a minute is nearly over since the last look.
        sleep(Duration::from_secs(100)).await;
        scene.backup(side).clear_records();
        scene.primary(side).set_fault(Fault::Down);
        scene.primary(side).settled().await;
        let began = Instant::now();
        assert_eq!(scene.ask(side).await, 200, "{side}");
        assert!(began.elapsed() < Duration::from_millis(500), "{side}: {:?}", began.elapsed());
        until("it is at full pace", async || !scene.idle(side).await).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{side}: {:?}", began.elapsed());
        let before = scene.asked(side);
        sleep(Duration::from_secs(10)).await;
        assert!(scene.asked(side) - before >= 15, "{side}: {:?}", scene.backup(side).counts());
        let nodes = scene.nodes(side).await;
        assert_eq!(nodes[1]["verdict"], json!("up"), "{side}");
        let is_telling = side == "cl" || nodes[1]["link"]["heads"] == json!(true);
        assert!(is_telling, "{side}: no heads over the link");
        scene.primary(side).clear_faults();
        until("it is idle again", async || scene.idle(side).await).await;
        sleep(Duration::from_secs(5)).await;
        let before = scene.asked(side);
        sleep(Duration::from_secs(90)).await;
        assert!(scene.asked(side) - before <= 3, "{side}: {:?}", scene.backup(side).counts());
        if side == "el" {
            assert_eq!(scene.nodes(side).await[1]["link"], json!({ "up": true, "heads": false }));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_primary_in_doubt_has_the_backup_looked_at() {
    for fault in [Fault::Failing, Fault::Hang, Fault::Freeze] {
        let scene = Scene::start("").await;
        // The chain's pace is known after some blocks.
        sleep(10 * SLOT).await;
        assert!(scene.idle("el").await, "{fault:?}");
        let is_frozen = fault == Fault::Freeze;
        let asked = scene.asked("el");
        scene.primary("el").set_fault(fault.clone());
        let in_time = match fault {
            Fault::Freeze => 4 * SLOT,
            // One failed probe is enough, and no outage is needed.
            Fault::Failing => Duration::from_millis(1600),
            _ => Duration::from_secs(4),
        };
        within(in_time, &format!("{fault:?}"), async || !scene.idle("el").await).await;
        // A head and a condition at once, and again after a second and two.
        sleep(Duration::from_millis(2500)).await;
        assert!(scene.asked("el") >= asked + 5, "{fault:?}: {:?}", scene.backup("el").counts());
        if is_frozen {
            let is_left = async || scene.nodes("el").await[0]["verdict"] != json!("up");
            within(8 * SLOT, "calls go to the backup", is_left).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_head_makes_no_idle_backup_lag() {
    // Ten blocks within half a minute are more than a node may lag.
    let net = Net::default();
    let options = Options { execution: 2, block_time: Some(Duration::from_secs(1)), ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let [one, two] = [devnet.el(0), devnet.el(1)].map(|node| node.http_url());
    let nodes = format!("[[el.primary]]\nhttp = \"{one}\"\n[[el.backup]]\nhttp = \"{two}\"\nprobe = \"lazy\"\n");
    let proxy = Proxy::launch(&net, &nodes).await;
    until("both are up", async || proxy.verdicts().await == ["up", "up"]).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(95) {
        assert_eq!(proxy.verdicts().await, ["up", "up"], "after {:?}", began.elapsed());
        sleep(Duration::from_millis(700)).await;
    }
    devnet.el(1).set_fault(Fault::lag(20));
    let lags = async || proxy.verdicts().await == ["up", "lagging"];
    within(Duration::from_secs(32), "it lags after the next look", lags).await;
    sleep(Duration::from_secs(15)).await;
    assert_eq!(proxy.verdicts().await, ["up", "lagging"]);
}

#[tokio::test(start_paused = true)]
async fn an_idle_backup_that_dies_is_out_after_one_look() {
    for (fault, within_seconds) in [(Fault::Failing, 36), (Fault::Hang, 40)] {
        let scene = Scene::start("").await;
        sleep(Duration::from_secs(70)).await;
        for side in ["el", "cl"] {
            scene.backup(side).set_fault(fault.clone());
        }
        let are_out = async |out: bool| {
            let verdicts = scene.verdicts().await;
            verdicts[0] == "up" && verdicts[2] == "up" && [1, 3].iter().all(|&node| (verdicts[node] == "down") == out)
        };
        within(Duration::from_secs(within_seconds), &format!("{fault:?}"), async || are_out(true).await).await;
        // While it is out, too, the backup is looked at now and then.
        sleep(Duration::from_secs(5)).await;
        let before = scene.asked("el");
        sleep(Duration::from_secs(60)).await;
        assert!(scene.asked("el") - before <= 6, "{fault:?}: {:?}", scene.backup("el").counts());
        for side in ["el", "cl"] {
            assert!(scene.idle(side).await, "{side}");
            scene.backup(side).clear_faults();
        }
        within(Duration::from_secs(36), "they are back", async || are_out(false).await).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_may_have_a_pace_of_its_own() {
    let net = Net::default();
    let options = Options { execution: 3, block_time: Some(Duration::from_secs(1)), ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let paces = ["", "probe_interval = \"20s\"\n", "probe_interval = \"250ms\"\n"];
    let nodes: String = (0..3)
        .map(|place| format!("[[el.primary]]\nhttp = \"{}\"\n{}", devnet.el(place).http_url(), paces[place]))
        .collect();
    let proxy = Proxy::launch(&net, &nodes).await;
    until("all are up", async || proxy.verdicts().await == ["up"; 3]).await;
    sleep(Duration::from_secs(30)).await;
    (0..3).for_each(|place| devnet.el(place).clear_records());
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        // An old report makes no node lag.
        assert_eq!(proxy.verdicts().await, ["up"; 3], "after {:?}", began.elapsed());
        sleep(Duration::from_millis(300)).await;
    }
    let heads = [0, 1, 2].map(|place| devnet.el(place).count("eth_getBlockByNumber"));
    for (heads, about) in heads.into_iter().zip([60, 3, 240]) {
        assert!(heads.abs_diff(about) <= about / 10 + 2, "{heads} looks in the place of {about}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_only_nodes_may_be_probed_seldom() {
    // Many more blocks come between two probes than a node may lag.
    let net = Net::default();
    let options = Options { execution: 3, block_time: Some(Duration::from_millis(500)), ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let nodes: String = [(0, "8s"), (1, "10s"), (2, "10s")]
        .map(|(place, pace)| {
            let url = devnet.el(place).http_url();
            format!("[[el.primary]]\nhttp = \"{url}\"\nprobe_interval = \"{pace}\"\n")
        })
        .concat();
    let proxy = Proxy::launch(&net, &nodes).await;
    until("all are up", async || proxy.verdicts().await == ["up"; 3]).await;
    sleep(Duration::from_secs(60)).await;
    let (began, mut head) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(200) {
        assert_eq!(proxy.verdicts().await, ["up"; 3], "after {:?}", began.elapsed());
        let now = proxy.side().await["head"].as_u64().unwrap();
        assert!(now >= head, "{head} became {now}");
        head = now;
        sleep(Duration::from_secs(1)).await;
    }
    assert!(head >= 490, "{head}");
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_gets_calls_is_looked_at_as_any_other() {
    // The primary refuses a kind of calls, and stays up.
    let scene = Scene::start("").await;
    sleep(Duration::from_secs(70)).await;
    scene.primary("el").set_fault(Fault::quota(&["eth_getBalance"]));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        let asked = Instant::now();
        assert_eq!(scene.ask("el").await, 200);
        assert!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
        sleep(Duration::from_secs(2)).await;
        assert!(!scene.idle("el").await, "after {:?}", began.elapsed());
        assert_eq!(scene.verdicts().await, ["up"; 4]);
    }
    assert!(scene.backup("el").count("eth_syncing") >= 50, "{:?}", scene.backup("el").counts());
    scene.primary("el").clear_faults();
    sleep(Duration::from_secs(40)).await;
    assert!(scene.idle("el").await);
    // A second opinion does not wake it.
    let nothing = call(1, "eth_getTransactionByHash", &format!("[\"0x{}\"]", "7".repeat(64)));
    assert_eq!(scene.proxy.post(nothing).await.json()["result"], json!(null));
    sleep(Duration::from_secs(1)).await;
    assert!(scene.idle("el").await);
}
