//! The events of consensus nodes through whatever becomes of the nodes.

use std::{sync::Arc, time::Duration};

use crate::common::{SOON, devnet, proxy::config, until};
use futures_util::StreamExt;
use serde_json::Value;
use steadfast::{
    devnet::{Devnet, Fault, Options},
    domain::{layer::Layer, node_id::NodeId},
    events::{Events, NoStream, Running, Settings, Subscription, topics},
    metrics::Metrics,
    net::{Dial, system::System},
    pool::{
        self, Pool,
        node::{Node, Reach},
    },
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Pretend consensus nodes with a pool and a hub before them: the first is the primary, the others are backups.
struct Setup {
    net: Devnet,
    pool: Arc<Pool>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    _running: (pool::Running, Running),
}

impl Setup {
    async fn new(options: Options) -> Self {
        Self::with(options, 1 << 20).await
    }

    async fn with(options: Options, max_waiting: usize) -> Self {
        let net = devnet(Options { execution: 0, initial_blocks: 30, ..options }).await;
        let mut text = "health = { interval = \"100ms\", timeout = \"500ms\", fall = 2, rise = 2 }\n".to_owned();
        for (index, node) in net.nodes().enumerate() {
            let tier = if index == 0 { "primary" } else { "backup" };
            text += &format!("[[cl.{tier}]]\nname = \"{}\"\nhttp = \"{}\"\n", node.name(), node.http_url());
        }
        let config = config(&text);
        let metrics = Arc::new(Metrics::new());
        let dial: Arc<dyn Dial> = Arc::new(System);
        let account = steadfast::pool::credits::Account::new(Arc::new(|| 0), 0);
        let reach = Reach { connect: Duration::from_secs(1), max_connections: 0, wait_limit: None };
        let nodes = config.networks[0].cl.iter();
        let nodes =
            nodes.map(|node| Node::new(node, ("default", Layer::Cl), &dial, reach, 0, &metrics, &account).unwrap());
        let wall: pool::Wall = Arc::new(|| {
            #[expect(clippy::disallowed_methods, reason = "a test that runs in real time")]
            let now = std::time::SystemTime::now();
            now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
        });
        let (pool, watched) =
            Pool::start("default", Layer::Cl, nodes.collect(), &config.health, None, metrics.clone(), wall);
        until("the primary serves", async || pool.snapshot().active == Some(NodeId(0))).await;
        let settings = Settings { max_waiting, hold: Duration::from_secs(2), seed: 7 };
        let (events, running) = Events::start(pool.clone(), &settings, metrics.clone());
        Self { net, pool, events, metrics, _running: (watched, running) }
    }

    async fn subscribe(&self, topics: &str) -> Subscription {
        self.events.subscribe(topics::parse(&format!("topics={topics}")).unwrap()).await.unwrap()
    }

    async fn client(&self, topics: &str) -> Client {
        Client::new(self.subscribe(topics).await)
    }

    /// Waits until the stream comes from this node, and from no other.
    async fn until_at(&self, index: usize) {
        let what = format!("events come from node {index}");
        until(&what, async || {
            self.net.nodes().enumerate().all(|(other, node)| node.subscriptions() == u64::from(other == index))
        })
        .await;
    }

    fn shows(&self, line: &str) -> bool {
        String::from_utf8(self.metrics.render(|_| {})).unwrap().contains(line)
    }
}

/// What a client has heard so far; it reads for as long as this lives.
struct Client {
    heard: watch::Receiver<Vec<(String, Value)>>,
    _reading: JoinSet<()>,
}

impl Client {
    fn new(mut stream: Subscription) -> Self {
        let (sender, heard) = watch::channel(Vec::new());
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            while let Some(event) = stream.next().await {
                let text = std::str::from_utf8(&event).unwrap().to_owned();
                if text.starts_with(':') {
                    continue;
                }
                let (topic, data) = text.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
                let data = serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap();
                sender.send_modify(|heard| heard.push((topic.to_owned(), data)));
            }
            sender.send_modify(|heard| heard.push(("end".to_owned(), Value::Null)));
        });
        Self { heard, _reading: reading }
    }

    fn of(&self, topic: &str) -> Vec<Value> {
        self.heard.borrow().iter().filter(|(other, _)| other == topic).map(|(_, data)| data.clone()).collect()
    }

    fn slots(&self, topic: &str) -> Vec<u64> {
        self.of(topic).iter().map(|data| data["slot"].as_str().unwrap().parse().unwrap()).collect()
    }

    /// Waits for so many more heads, and tells how long the first took.
    async fn hears(&mut self, more: usize) -> Duration {
        let start = Instant::now();
        let before = self.of("head").len();
        let mut first = None;
        loop {
            let now = self.of("head").len() - before;
            if now > 0 {
                first.get_or_insert(start.elapsed());
            }
            if now >= more {
                return first.unwrap_or_default();
            }
            timeout(SOON, self.heard.changed()).await.expect("a head in time").unwrap();
        }
    }
}

/// Heads and blocks are those of the chain: each slot once, in order.
fn is_whole(setup: &Setup, client: &Client) {
    for topic in ["head", "block"] {
        let slots = client.slots(topic);
        assert!(slots.windows(2).all(|pair| pair[1] == pair[0] + 1), "{topic}: {slots:?}");
    }
    let (heads, blocks) = (client.of("head"), client.of("block"));
    assert_eq!(heads.len(), blocks.len());
    for (head, block) in heads.iter().zip(blocks) {
        assert_eq!(head["block"], block["block"]);
    }
    assert!(!client.of("head").is_empty() && client.of("end").is_empty());
    assert!(!setup.shows("steadfast_gaps_skipped_total"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_slot_comes_once_in_order_through_all_faults() {
    let block_time = Some(Duration::from_secs(1));
    let setup = Setup::new(Options { consensus: 2, block_time, ..Options::default() }).await;
    let mut client = setup.client("head,block,finalized_checkpoint,chain_reorg").await;
    client.hears(1).await;
    for fault in [Fault::Down, Fault::Hang, Fault::Mute] {
        setup.until_at(0).await;
        setup.net.cl(0).set_fault(fault.clone());
        let pause = client.hears(3).await;
        eprintln!("{fault:?}: {pause:?} to the next head");
        assert!(pause < Duration::from_secs(5), "{fault:?}: {pause:?}");
        if matches!(fault, Fault::Mute) {
            // Heads of a mute stream are asked for, so the third may come before the stream is left.
            until("the mute stream is left", async || setup.net.cl(1).subscriptions() > 0).await;
        }
        assert_eq!(setup.net.cl(1).subscriptions(), 1);
        setup.net.cl(0).clear_faults();
    }
    setup.until_at(0).await;
    client.hears(2).await;
    is_whole(&setup, &client);
    assert!(client.of("chain_reorg").is_empty());
    let epochs: Vec<u64> =
        client.of("finalized_checkpoint").iter().map(|data| data["epoch"].as_str().unwrap().parse().unwrap()).collect();
    assert!(epochs.len() >= 2 && epochs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{epochs:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_comes_back_mute_is_not_gone_back_to() {
    let block_time = Some(Duration::from_secs(1));
    let setup = Setup::new(Options { consensus: 2, block_time, ..Options::default() }).await;
    let mut client = setup.client("head,block").await;
    setup.net.cl(0).set_fault(Fault::Down);
    client.hears(1).await;
    setup.until_at(1).await;
    setup.net.cl(0).set_fault(Fault::Mute);
    setup.net.cl(0).clear_fault("down");
    until("calls go home", async || setup.pool.snapshot().active == Some(NodeId(0))).await;
    for _ in 0..7 {
        let pause = client.hears(1).await;
        assert!(pause < Duration::from_millis(1800), "{pause:?}");
        assert_eq!(setup.net.cl(1).subscriptions(), 1, "the stream that tells heads is not left");
    }
    assert!(setup.net.cl(0).count("GET /eth/v1/events") >= 2, "it was tried");
    is_whole(&setup, &client);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_misses_a_head_now_and_then_is_kept() {
    let block_time = Some(Duration::from_secs(1));
    let setup = Setup::new(Options { consensus: 2, block_time, ..Options::default() }).await;
    let mut client = setup.client("head,block").await;
    client.hears(1).await;
    for _ in 0..2 {
        let before = setup.net.chain().head().number;
        setup.net.cl(0).set_fault(Fault::Mute);
        until("a block is made meanwhile", async || setup.net.chain().head().number > before).await;
        // For as long as the node takes to tell streams of a block.
        sleep(Duration::from_millis(100)).await;
        setup.net.cl(0).clear_faults();
        client.hears(4).await;
    }
    is_whole(&setup, &client);
    assert_eq!(setup.net.cl(0).count("GET /eth/v1/events"), 1);
    assert_eq!(setup.net.cl(1).count("GET /eth/v1/events"), 0);
}

#[tokio::test]
async fn a_reorganisation_that_falls_into_a_switch_is_told_once() {
    let setup = Setup::new(Options { consensus: 2, ..Options::default() }).await;
    let mut client = setup.client("head,block,chain_reorg").await;
    setup.net.chain().mine(1);
    client.hears(1).await;
    let old = client.of("head")[0]["block"].clone();
    setup.net.cl(0).set_fault(Fault::Down);
    setup.net.chain().reorg(3).unwrap();
    client.hears(4).await;
    let reorgs = client.of("chain_reorg");
    assert_eq!(reorgs.len(), 1);
    assert_eq!((&reorgs[0]["old_head_block"], &reorgs[0]["depth"]), (&old, &Value::from("3")));
    assert_eq!(client.slots("head"), [31, 29, 30, 31, 32]);
    assert_eq!(client.slots("block"), [31, 29, 30, 31, 32]);
    assert!(setup.shows("steadfast_reorgs_total{network=\"default\"} 1"));
    assert!(setup.shows("steadfast_backfilled_blocks_total{network=\"default\"} 4"));
}

#[tokio::test]
async fn made_up_events_are_as_the_node_would_have_told_them() {
    let setup = Setup::new(Options { consensus: 2, ..Options::default() }).await;
    let mut client = setup.client("head,block").await;
    // Another client at the second node's own stream hears the truth.
    let url = format!("{}/eth/v1/events?topics=head,block", setup.net.cl(1).http_url());
    let http = steadfast::net::post::plain().build().unwrap();
    let mut truth = http.get(url).send().await.unwrap();
    setup.net.cl(0).set_fault(Fault::Down);
    // No more than an epoch: slots further ahead of the clock are not believed.
    setup.net.chain().mine(8);
    client.hears(8).await;
    let mut text = String::new();
    while text.matches("event: head").count() < 8 || !text.ends_with("\n\n") {
        let piece = timeout(SOON, truth.chunk()).await.unwrap().unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    let told: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let heard: Vec<Value> = client.heard.borrow().iter().map(|(_, data)| data.clone()).collect();
    assert_eq!(heard, told);
}

#[tokio::test]
async fn clients_share_one_stream_and_the_last_to_leave_ends_it() {
    let setup = Setup::new(Options { consensus: 2, ..Options::default() }).await;
    assert_eq!(setup.net.cl(0).subscriptions(), 0, "nobody wants events yet");
    let heads = setup.client("head").await;
    let more = setup.client("head,attestation").await;
    let blocks = setup.client("block").await;
    setup.until_at(0).await;
    assert!(setup.shows("steadfast_sse_streams 3"));
    setup.net.chain().mine(2);
    until("both heads", async || heads.slots("head") == [31, 32] && more.slots("head") == [31, 32]).await;
    until("both blocks", async || blocks.slots("block") == [31, 32]).await;
    assert!(heads.of("block").is_empty() && blocks.of("head").is_empty());
    until("attestations", async || !more.of("attestation").is_empty()).await;
    assert!(heads.of("attestation").is_empty());
    drop((heads, more, blocks));
    until("they are gone", async || setup.shows("steadfast_sse_streams 0")).await;
    timeout(SOON * 2, until_none(&setup)).await.expect("the stream ends some time after the last client");
}

async fn until_none(setup: &Setup) {
    while setup.net.cl(0).subscriptions() > 0 {
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_unknown_topic_is_refused_in_the_nodes_words() {
    let setup = Setup::new(Options { consensus: 1, ..Options::default() }).await;
    let mut client = setup.client("head").await;
    for topics in ["topics=head,attestation,weather_forecast", "topics=weather_forecast"] {
        let refused = setup.events.subscribe(topics::parse(topics).unwrap()).await.err().unwrap();
        let NoStream::Topic(status, body) = refused else { panic!("{refused:?}") };
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &body["message"]), (400, &Value::from("Invalid topic: weather_forecast")));
    }
    setup.net.chain().mine(1);
    client.hears(1).await;
    let mut both = setup.client("head,attestation").await;
    setup.net.chain().mine(1);
    both.hears(1).await;
    until("the first hears of it too", async || client.slots("head") == [31, 32]).await;
}

#[tokio::test]
async fn a_node_that_refuses_more_topics_keeps_its_stream() {
    const EVENTS: &[&str] = &["GET /eth/v1/events"];
    for fault in [Fault::cut_answer(EVENTS), Fault::http_status(503, EVENTS)] {
        let setup = Setup::new(Options { consensus: 2, ..Options::default() }).await;
        let mut client = setup.client("head,block").await;
        setup.until_at(0).await;
        setup.net.chain().mine(1);
        client.hears(1).await;
        setup.net.cl(0).set_fault(fault);
        let refused = setup.events.subscribe(topics::parse("topics=head,attestation").unwrap()).await.err().unwrap();
        // The node opens no streams at all now, which says nothing of a topic.
        assert_eq!(refused, NoStream::NoNode);
        // Who asks for no more than there is has it.
        let other = setup.client("block,head").await;
        setup.net.chain().mine(2);
        client.hears(2).await;
        until("the other hears it too", async || other.slots("head") == [32, 33]).await;
        is_whole(&setup, &client);
        assert_eq!(setup.net.cl(0).subscriptions(), 1);
        assert_eq!(setup.net.cl(1).count("GET /eth/v1/events"), 0);
        setup.net.cl(0).clear_faults();
        setup.client("head,attestation").await;
    }
}

#[tokio::test]
async fn without_a_node_newcomers_are_refused_and_others_wait() {
    let setup = Setup::new(Options { consensus: 1, ..Options::default() }).await;
    let mut client = setup.client("head").await;
    setup.net.chain().mine(1);
    client.hears(1).await;
    setup.net.cl(0).set_fault(Fault::Down);
    until("the node is out", async || !setup.pool.snapshot().serves()).await;
    let refused = setup.events.subscribe(topics::parse("topics=head").unwrap()).await.err();
    assert_eq!(refused, Some(NoStream::NoNode));
    setup.net.chain().mine(2);
    setup.net.cl(0).clear_faults();
    client.hears(2).await;
    assert_eq!(client.slots("head"), [31, 32, 33]);
}

#[tokio::test]
async fn a_slow_client_is_cut_off_and_the_others_are_not() {
    // No more blocks than an epoch has: those further ahead of the clock are not believed.
    let setup = Setup::with(Options { consensus: 1, ..Options::default() }, 2_000).await;
    let mut slow = setup.subscribe("head").await;
    let mut fast = setup.client("head").await;
    for _ in 0..8 {
        setup.net.chain().mine(1);
        fast.hears(1).await;
    }
    assert_eq!(timeout(SOON, slow.next()).await.unwrap(), None);
    assert!(setup.shows("steadfast_slow_clients_closed_total 1"));
    assert_eq!(fast.slots("head"), (31..=38).collect::<Vec<_>>());
}
