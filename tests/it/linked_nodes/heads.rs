//! Heads that nodes push.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use steadfast::{
    config::{Health, Policy},
    devnet::{Devnet, Fault, Node, Options},
    domain::{
        block::BlockRef,
        layer::Layer,
        method::{Class, Method},
        node_id::NodeId,
    },
    exchange::next_node::{Choice, NodeQuery, choose},
    metrics::Metrics,
    net::{Dial, link::Error},
    pool::{self, Pool, Running, resting::Kind},
};
use tokio::{
    task::yield_now,
    time::{Instant, sleep},
};

use crate::common::{proxy, sim::Net, until};

/// Unix time at the start.
const START_UNIX: u64 = 1_800_000_000;
/// So long between probes that none comes by chance.
const RARELY: Duration = Duration::from_secs(60);

/// A pool of execution nodes, with everything on the test's own runtime.
struct Bench {
    devnet: Devnet,
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    _running: Running,
}

impl Bench {
    /// Nodes with HTTP and WebSocket, probed every `interval`; all are up.
    async fn new(interval: Duration, options: Options) -> Self {
        let net = Net::default();
        let options = Options { now_unix: Some(START_UNIX), ..options };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let settings = devnet.nodes().map(|node| {
            let (name, http, ws) = (node.name(), node.http_url(), node.ws_url());
            format!("[[el.primary]]\nname = \"{name}\"\nhttp = \"{http}\"\nws = \"{ws}\"\n")
        });
        let (pool, running, metrics) = start(&net, &settings.collect::<String>(), interval);
        until("all are up", async || pool.snapshot().nodes.iter().all(|node| node.verdict.is_usable())).await;
        for node in devnet.nodes() {
            until("it has a subscriber", async || node.subscriptions() == 1).await;
        }
        Self { devnet, pool, metrics, _running: running }
    }

    fn node(&self) -> &Arc<Node> {
        self.devnet.el(0)
    }

    fn head(&self) -> u64 {
        self.pool.snapshot().nodes[0].head.as_ref().unwrap().number
    }

    fn probes(&self) -> u64 {
        self.node().count("eth_getBlockByNumber")
    }

    fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.metrics.render(|_| {})).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

pub(crate) fn start(net: &Net, settings: &str, interval: Duration) -> (Arc<Pool>, Running, Arc<Metrics>) {
    let start = Instant::now();
    let config = proxy::config(settings);
    let metrics = Arc::new(Metrics::new());
    let dial: Arc<dyn Dial> = Arc::new(net.clone());
    let account = steadfast::pool::credits::Account::new(Arc::new(|| 0), 1);
    let reach = pool::node::Reach { connect: Duration::from_secs(1), max_connections: 0, wait_limit: None };
    let node = |node: &steadfast::config::Node| {
        pool::node::Node::new(node, ("default", Layer::El), &dial, reach, 0, &metrics, &account).unwrap()
    };
    let nodes = config.networks[0].el.iter().map(node).collect();
    let health = Health { interval, ..config.health };
    let wall: pool::Wall = Arc::new(move || START_UNIX + start.elapsed().as_secs());
    let (pool, running) = Pool::start("default", Layer::El, nodes, &health, None, metrics.clone(), wall);
    (pool, running, metrics)
}

#[tokio::test(start_paused = true)]
async fn a_pushed_head_is_in_the_snapshot_and_told_at_once() {
    let bench = Bench::new(RARELY, Options { execution: 1, ..Options::default() }).await;
    let (before, probes) = (bench.head(), bench.probes());
    assert!(!bench.pool.is_pushing(NodeId(0)), "it has told of nothing yet");
    let mut headers = bench.pool.headers();
    let mined = Instant::now();
    bench.devnet.chain().mine(1);
    let pushed = headers.recv().await.unwrap();
    until("the head is known", async || bench.head() == before + 1).await;
    assert!(mined.elapsed() < Duration::from_millis(50), "{:?}", mined.elapsed());
    assert_eq!(bench.probes(), probes);
    assert!(bench.pool.is_pushing(NodeId(0)));
    assert_eq!((pushed.node, &pushed.block), (NodeId(0), bench.pool.snapshot().nodes[0].head.as_ref().unwrap()));
    let header: serde_json::Value = serde_json::from_slice(&pushed.json).unwrap();
    assert_eq!((&header["hash"], header["transactions"].is_null()), (&pushed.block.hash.into(), true));
    // The height that clients may have been shown.
    assert_eq!(bench.pool.served(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_pushes_a_reorganisation_never_falls_below() {
    let bench = Bench::new(RARELY, Options { execution: 2, ..Options::default() }).await;
    let before = bench.head();
    let mut heights = Vec::new();
    let mut changes = bench.pool.subscribe();
    let switches = bench.metric("steadfast_switches_total");
    bench.devnet.chain().reorg(3).unwrap();
    while bench.head() != before + 1 {
        changes.changed().await.unwrap();
        heights.push(bench.head());
    }
    assert!(heights.iter().all(|height| *height >= before), "{heights:?}");
    assert_eq!(bench.pool.snapshot().active, Some(NodeId(0)));
    assert!((bench.metric("steadfast_switches_total") - switches).abs() < 0.5);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_brings_a_height_is_not_passed_over_for_it() {
    let bench = Bench::new(RARELY, Options { execution: 2, ..Options::default() }).await;
    let (pool, start) = (bench.pool.clone(), bench.head());
    let is_over = Arc::new(AtomicBool::new(false));
    // Calls choose on threads of their own, while heads come.
    let choosing = std::thread::spawn({
        let (pool, is_over) = (pool.clone(), is_over.clone());
        move || {
            let (policy, class) = (Policy::First, Class::Read);
            let kind = Kind::of_method(Method::of("eth_chainId").id, "eth_chainId");
            let query =
                NodeQuery { policy, class, kind, method: "", blocks: None, tried: &[], again: false, is_urgent: false };
            let mut strays = 0;
            while !is_over.load(Relaxed) {
                strays += u64::from(!matches!(choose(&pool, query), Choice::Node(NodeId(0), None)));
            }
            strays
        }
    });
    let name = |number: u64| format!("{number:#066x}");
    let mut last = pool.snapshot().nodes[0].head.as_ref().unwrap().hash.clone();
    for number in start + 1..start + 3_000 {
        // The other node has each block first.
        let block = BlockRef { number, hash: name(number), parent: last, timestamp: START_UNIX };
        for node in [NodeId(1), NodeId(0)] {
            pool.pushed(node, block.clone(), Bytes::new()).await;
        }
        while bench.head() < number {
            yield_now().await;
        }
        last = block.hash;
    }
    is_over.store(true, Relaxed);
    assert_eq!(choosing.join().unwrap(), 0, "calls went to the other node");
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_has_its_node_probed_at_once_and_is_opened_again() {
    let bench = Bench::new(RARELY, Options { execution: 1, ..Options::default() }).await;
    bench.devnet.chain().mine(1);
    until("it pushes", async || bench.pool.is_pushing(NodeId(0))).await;
    let (head, probes) = (bench.head(), bench.probes());
    bench.node().set_fault(Fault::cut_answer(&["eth_gasPrice"]));
    let link = bench.pool.nodes[0].link.clone().unwrap();
    let raw = br#"{"jsonrpc":"2.0","id":1,"method":"eth_gasPrice","params":[]}"#;
    assert_eq!(link.call(raw, Some(22..23)).await, Err(Error::Lost));
    let lost = Instant::now();
    until("it is probed", async || bench.probes() > probes).await;
    assert!(lost.elapsed() < Duration::from_millis(100), "{:?}", lost.elapsed());
    assert!(!bench.pool.is_pushing(NodeId(0)));
    until("it is back", async || bench.node().subscriptions() == 1).await;
    assert!(lost.elapsed() < Duration::from_secs(1), "{:?}", lost.elapsed());
    assert!(bench.pool.snapshot().nodes[0].verdict.is_usable(), "the node had done nothing but lose its link");
    bench.devnet.chain().mine(1);
    until("it pushes again", async || bench.pool.is_pushing(NodeId(0)) && bench.head() == head + 1).await;
}

#[tokio::test(start_paused = true)]
async fn the_link_of_a_node_that_is_back_is_opened_at_once() {
    let bench = Bench::new(Duration::from_secs(1), Options { execution: 1, ..Options::default() }).await;
    for round in 0..6 {
        bench.node().set_fault(Fault::Down);
        until("it is out", async || !bench.pool.snapshot().nodes[0].verdict.answers()).await;
        // Longer than any pause between attempts to connect, and until it is between any two of
        // them.
        sleep(Duration::from_millis(30_000 + round * 160)).await;
        bench.node().clear_faults();
        until("it answers", async || bench.pool.snapshot().nodes[0].verdict.answers()).await;
        let back = Instant::now();
        until("its link is up", async || bench.node().subscriptions() == 1).await;
        assert!(back.elapsed() < Duration::from_millis(50), "round {round}: {:?}", back.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_mute_link_is_cut_and_heads_go_on_by_probes() {
    let second = Duration::from_secs(1);
    let options = Options { execution: 1, block_time: Some(2 * second), ..Options::default() };
    let bench = Bench::new(second, options).await;
    until("it pushes", async || bench.pool.is_pushing(NodeId(0))).await;
    bench.node().set_fault(Fault::Mute);
    let (muted, head) = (Instant::now(), bench.head());
    until("it is cut", async || bench.metric("steadfast_link_mute_total") > 0.5).await;
    assert!(muted.elapsed() < 6 * second, "{:?}", muted.elapsed());
    assert!(!bench.pool.is_pushing(NodeId(0)));
    // A link that stays mute is not cut every few seconds.
    sleep(60 * second).await;
    let cuts = bench.metric("steadfast_link_mute_total");
    assert!((2.5..7.5).contains(&cuts), "cut {cuts} times in a minute");
    assert!(!bench.pool.is_pushing(NodeId(0)));
    assert!(bench.head() >= head + 30, "{} after {head}", bench.head());
    assert!(bench.pool.snapshot().nodes[0].verdict.is_usable());
    bench.node().clear_faults();
    until("it pushes again", async || bench.pool.is_pushing(NodeId(0))).await;
    let cuts = bench.metric("steadfast_link_mute_total");
    sleep(60 * second).await;
    assert!((bench.metric("steadfast_link_mute_total") - cuts).abs() < 0.5, "a feed that tells is not mute");
    assert!(bench.pool.is_pushing(NodeId(0)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stands_still_is_not_mute() {
    let second = Duration::from_secs(1);
    let options = Options { execution: 2, block_time: Some(2 * second), ..Options::default() };
    let bench = Bench::new(second, options).await;
    until("it pushes", async || bench.pool.is_pushing(NodeId(0))).await;
    bench.node().set_fault(Fault::Freeze);
    sleep(30 * second).await;
    assert!(bench.metric("steadfast_link_mute_total") < 0.5);
    assert_eq!(bench.pool.snapshot().active, Some(NodeId(1)));
}
