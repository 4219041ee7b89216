//! Streams of events from nodes that a test words itself: what each says, and when.

mod lost;
mod pages;
#[allow(unreachable_pub, reason = "a helper beside its only test")]
mod teller;

use std::{sync::Arc, time::Duration};

use crate::common::{SOON, proxy::config, sim::Net, until};
use futures_util::StreamExt;
use serde_json::Value;
use steadfast::{
    domain::{beacon_route::Route, layer::Layer, node_id::NodeId},
    events::{Events, NoStream, Running, Settings, Subscription, topics},
    metrics::Metrics,
    net::Dial,
    pool::{self, Pool, node::Node, resting::Kind},
};
use teller::{Reaction, Teller, present};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// The topics that tell the chain, which each stream carries.
const ALL: &str = "block,chain_reorg,finalized_checkpoint,head";

/// A pool and a hub before nodes: the first is the primary, the others are backups.
struct Setup {
    pool: Arc<Pool>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
    _running: (pool::Running, Running),
}

/// A pool of these nodes: the first is the primary, the others are backups.
fn pool_over(net: &Net, nodes: &[&Teller], metrics: &Arc<Metrics>) -> (Arc<Pool>, pool::Running) {
    let mut text = "health = { interval = \"100ms\", timeout = \"500ms\", fall = 2, rise = 1 }\n".to_owned();
    for (index, node) in nodes.iter().enumerate() {
        let tier = if index == 0 { "primary" } else { "backup" };
        text += &format!("[[cl.{tier}]]\nname = \"cl-{}\"\nhttp = \"{}\"\n", index + 1, node.url());
    }
    let config = config(&text);
    let dial: Arc<dyn Dial> = Arc::new(net.clone());
    let nodes = config.networks[0].cl.iter();
    let account = steadfast::pool::credits::Account::new(Arc::new(|| 0), 0);
    let reach = steadfast::pool::node::Reach { connect: Duration::from_secs(1), max_connections: 0, wait_limit: None };
    let nodes = nodes.map(|node| Node::new(node, ("default", Layer::Cl), &dial, reach, 0, metrics, &account).unwrap());
    let wall: pool::Wall = Arc::new(teller::now);
    Pool::start("default", Layer::Cl, nodes.collect(), &config.health, None, metrics.clone(), wall)
}

impl Setup {
    async fn over(net: &Net, nodes: &[&Teller]) -> Self {
        let metrics = Arc::new(Metrics::new());
        let (pool, watched) = pool_over(net, nodes, &metrics);
        let settings = Settings { max_waiting: 4 << 20, hold: Duration::from_secs(2), seed: 7 };
        let (events, running) = Events::start(pool.clone(), &settings, metrics.clone());
        let setup = Self { pool, events, metrics, _running: (watched, running) };
        setup.until_active(0).await;
        setup
    }

    async fn until_active(&self, index: usize) {
        until(&format!("node {index} serves"), async || self.pool.snapshot().active == Some(NodeId(index))).await;
    }

    fn shows(&self, line: &str) -> bool {
        String::from_utf8(self.metrics.render(|_| {})).unwrap().contains(line)
    }

    async fn client(&self, topics: &str) -> Client {
        Client(self.events.subscribe(topics::parse(&format!("topics={topics}")).unwrap()).await.unwrap())
    }
}

struct Client(Subscription);

impl Client {
    /// The next event: its topic and its data.
    async fn next(&mut self) -> (String, Value) {
        loop {
            let event = timeout(SOON, self.0.next()).await.expect("an event in time").expect("the stream goes on");
            let text = std::str::from_utf8(&event).unwrap();
            if text.starts_with(':') {
                // The stream was quiet for a while.
                continue;
            }
            let (topic, data) = text.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            return (topic.to_owned(), serde_json::from_str(data).unwrap());
        }
    }

    /// The slot of the next event, which is a head.
    async fn head(&mut self) -> u64 {
        let (topic, data) = self.next().await;
        assert_eq!(topic, "head", "{data}");
        data["slot"].as_str().unwrap().parse().unwrap()
    }

    /// Nothing comes for a while.
    async fn hears_nothing(&mut self) {
        let heard = timeout(Duration::from_millis(200), self.0.next()).await;
        assert!(heard.is_err(), "{heard:?}");
    }
}

/// Two nodes at `slot`, and the hub before them.
async fn two_nodes(slot: u64) -> (Teller, Teller, Setup) {
    let net = Net::default();
    let (a, b) = (Teller::start(&net, slot).await, Teller::start(&net, slot).await);
    let setup = Setup::over(&net, &[&a, &b]).await;
    (a, b, setup)
}

/// The same with a client that has heard the head of the next slot.
async fn two_nodes_and_a_client(slot: u64) -> (Teller, Teller, Setup, Client) {
    let (a, b, setup) = two_nodes(slot).await;
    let mut client = setup.client("head").await;
    advance(&[&a, &b], slot + 1);
    assert_eq!(client.head().await, slot + 1);
    (a, b, setup, client)
}

fn advance(nodes: &[&Teller], slot: u64) {
    nodes.iter().for_each(|node| node.set_head(slot));
    nodes.iter().for_each(|node| node.advance(slot, ""));
}

#[tokio::test(start_paused = true)]
async fn at_a_failback_nothing_is_lost_and_nothing_comes_twice() {
    let slot = present();
    let (a, b, setup) = two_nodes(slot).await;
    a.set_syncing(true);
    setup.until_active(1).await;
    let mut client = setup.client("head,attestation").await;
    advance(&[&a, &b], slot + 1);
    assert_eq!(client.head().await, slot + 1);
    a.set_syncing(false);
    until("the primary's stream runs beside", async || a.streams() == 1 && b.streams() == 1).await;
    advance(&[&a], slot + 2);
    assert_eq!(client.head().await, slot + 2, "it proved itself, so events come from the primary");
    b.tell("attestation", r#"{"slot":"1","root":"0xAB"}"#);
    assert_eq!(client.next().await.1["slot"], "1");
    a.tell("attestation", r#"{ "root": "0xab", "slot": "1" }"#);
    advance(&[&b], slot + 2);
    client.hears_nothing().await;
    until("the old stream ends", async || b.streams() == 0).await;
    advance(&[&a, &b], slot + 3);
    assert_eq!(client.head().await, slot + 3);
}

#[tokio::test(start_paused = true)]
async fn an_old_node_that_is_not_well_is_left_at_once() {
    let slot = present();
    let (a, b, setup) = two_nodes(slot).await;
    let mut client = setup.client("head,attestation").await;
    advance(&[&a, &b], slot + 1);
    assert_eq!(client.head().await, slot + 1);
    a.set_syncing(true);
    until("events come from the other", async || b.streams() == 1).await;
    let start = Instant::now();
    until("and from it alone", async || a.streams() == 0).await;
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    sleep(Duration::from_millis(50)).await;
    assert_eq!(b.streams(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_topic_on_trial_delays_no_other_also_at_the_next_node() {
    const ALL: &str = "block,chain_reorg,finalized_checkpoint,head";
    let slot = present();
    let net = Net::default();
    let (a, b) = (Teller::start(&net, slot).await, Teller::start(&net, slot).await);
    // One refuses the set and hangs when it is asked for a topic alone; the other knows all of them.
    a.reacts(
        &format!("attestation,{ALL},voluntary_exit"),
        Reaction::Refuse("400 Bad Request", r#"{"code":400,"message":"no"}"#.to_owned()),
    );
    a.reacts("attestation", Reaction::Hang);
    a.reacts("voluntary_exit", Reaction::Hang);
    let setup = Setup::over(&net, &[&a, &b]).await;
    let events = setup.events.clone();
    let wish = topics::parse("topics=attestation,voluntary_exit").unwrap();
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { events.subscribe(wish).await.map(Client).map_err(|why| format!("{why:?}")) });
    until("the node tries", async || a.asked().iter().any(|topics| topics == "voluntary_exit")).await;
    let start = Instant::now();
    let mut client = setup.client("head").await;
    advance(&[&a, &b], slot + 1);
    assert_eq!(client.head().await, slot + 1);
    a.set_syncing(true);
    let mut other = waiting.join_next().await.unwrap().unwrap().unwrap();
    b.tell("voluntary_exit", r#"{"slot":"1"}"#);
    assert_eq!(other.next().await.0, "voluntary_exit");
    advance(&[&a, &b], slot + 2);
    assert_eq!(client.head().await, slot + 2);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_short_refusal_of_a_topic_is_kept_without_secrets() {
    let net = Net::default();
    let node = Teller::start(&net, present()).await.under("/aVerySecretKey");
    let all = |topic: &str| format!("block,chain_reorg,finalized_checkpoint,head,{topic}");
    let long = format!("{{\"code\":400,\"message\":\"{}\"}}", "x".repeat(10_000));
    node.reacts(&all("talk"), Reaction::Refuse("400 Bad Request", long));
    node.reacts(
        &all("word"),
        Reaction::Refuse("400 Bad Request", "{\"code\":400,\"message\":\"no /aVerySecretKey/eth\"}".to_owned()),
    );
    let setup = Setup::over(&net, &[&node]).await;
    for (topic, words) in [("talk", "the node does not know one of the topics"), ("word", "no /***/eth")] {
        let refused = setup.events.subscribe(topics::parse(&format!("topics={topic}")).unwrap()).await.err().unwrap();
        let NoStream::Topic(400, body) = refused else { panic!("{refused:?}") };
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["message"], words);
    }
}

#[tokio::test(start_paused = true)]
async fn newcomers_wait_for_as_long_as_the_present_settings_say() {
    let net = Net::default();
    let node = Teller::start(&net, present()).await;
    node.reacts("block,chain_reorg,finalized_checkpoint,head", Reaction::Hang);
    let setup = Setup::over(&net, &[&node]).await;
    for (hold, least, most) in [(100, 100, 1000), (1500, 1500, 3000)] {
        setup.events.move_to(setup.pool.clone(), Duration::from_millis(hold));
        let start = Instant::now();
        let refused = setup.events.subscribe(topics::parse("topics=head").unwrap()).await.err();
        assert_eq!(refused, Some(NoStream::NoNode));
        let waited = start.elapsed();
        assert!(waited >= Duration::from_millis(least) && waited < Duration::from_millis(most), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_is_told_though_no_node_gives_its_header() {
    let slot = present();
    let (a, b, setup, mut client) = two_nodes_and_a_client(slot).await;
    [&a, &b].iter().for_each(|node| node.set_hiding(true));
    for (count, slot) in [(1, slot + 2), (2, slot + 3)] {
        advance(&[&a, &b], slot);
        assert_eq!(client.head().await, slot);
        let line = format!("steadfast_doubtful_events_total{{network=\"default\",reason=\"no_header\"}} {count}");
        assert!(setup.shows(&line), "{count}");
    }
    // The same stream goes on, and so does the chain.
    [&a, &b].iter().for_each(|node| node.set_hiding(false));
    advance(&[&a, &b], slot + 4);
    assert_eq!(client.head().await, slot + 4);
    assert!(!setup.shows("steadfast_gaps_skipped_total") && (a.asked().len(), b.asked().len()) == (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_header_that_the_streams_node_does_not_give_another_does() {
    let slot = present();
    let (a, b, setup) = two_nodes(slot).await;
    let mut client = setup.client("head").await;
    a.set_hiding(true);
    for slot in slot + 1..=slot + 4 {
        advance(&[&a, &b], slot);
        assert_eq!(client.head().await, slot);
    }
    assert!(!setup.shows("doubtful_events") && !setup.shows("gaps_skipped"));
    assert_eq!((a.streams(), b.streams()), (1, 0), "its events are good");
    // That is held against it: headers are asked of the other first.
    let headers = Kind::of_route(&Route::of("GET", "/eth/v1/beacon/headers/head")).id();
    until("it is passed over for headers", async || {
        a.tell("attestation", "{}");
        setup.pool.nodes[0].resting.kinds(Instant::now()).iter().any(|kind| kind.id() == headers)
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_header_without_data_is_asked_of_another_node() {
    for words in ["{}", r#"{"foo":1}"#, "[]", "\"x\"", "7", r#"{"data":null}"#] {
        let slot = present();
        let (a, b, setup) = two_nodes(slot).await;
        let mut client = setup.client("head").await;
        a.says_of_headers(words);
        for slot in slot + 1..=slot + 4 {
            advance(&[&a, &b], slot);
            // Nor does its own head give the header.
            a.set_head(slot - 1);
            assert_eq!(client.head().await, slot, "{words}");
        }
        assert!(!setup.shows("doubtful_events") && !setup.shows("gaps_skipped"), "{words}");
        assert_eq!((a.streams(), b.streams()), (1, 0), "{words}");
    }
}

/// Has a client come for one topic and for the other in turn, `count` times, each for a quarter of a second.
async fn come_and_go(setup: &Setup, topics: [&str; 2], count: usize) {
    for turn in 0..count {
        let topics = topics::parse(&format!("topics={}", topics[turn % 2])).unwrap();
        let _ = timeout(Duration::from_millis(250), async {
            let _subscription = setup.events.subscribe(topics).await;
            std::future::pending::<()>().await
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_changes_its_topics_holds_up_no_head() {
    let slot = present();
    let (a, b, setup, mut client) = two_nodes_and_a_client(slot).await;
    [&a, &b].iter().for_each(|node| node.set_hiding(true));
    for (topics, streams, slot) in [(["attestation", "block_gossip"], 2, slot + 2), (["one", "two"], 4, slot + 3)] {
        let asked = a.asked().len();
        advance(&[&a, &b], slot);
        let start = Instant::now();
        let head = async { (client.head().await, start.elapsed()) };
        let (_, (head, waited)) = tokio::join!(come_and_go(&setup, topics, 12), head);
        assert_eq!(head, slot);
        assert!(waited < Duration::from_millis(1200), "{topics:?} {waited:?}");
        let asked = a.asked().len() - asked;
        assert!((1..=streams).contains(&asked), "{topics:?} {asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_topics_cost_no_event_its_own_words() {
    let slot = present();
    let net = Net::default();
    let node = Teller::start(&net, slot).await;
    let setup = Setup::over(&net, &[&node]).await;
    let mut client = setup.client("block,head").await;
    node.set_hiding(true);
    node.advance(slot + 1, "own");
    // The events wait for a header while the stream is opened anew.
    let events = async { [client.next().await, client.next().await] };
    let (_, events) = tokio::join!(come_and_go(&setup, ["attestation", "block_gossip"], 6), events);
    assert!(node.asked().len() > 1);
    for ((topic, data), expected) in events.into_iter().zip(["block", "head"]) {
        assert_eq!((&*topic, &data["more"]), (expected, &Value::from("own")), "{data}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_changes_its_topics_keeps_no_silent_stream() {
    let slot = present();
    let (a, b, setup, _client) = two_nodes_and_a_client(slot).await;
    // The chain goes on, and the stream does not tell.
    [&a, &b].iter().for_each(|node| node.set_head(slot + 2));
    let start = Instant::now();
    while b.streams() == 0 {
        come_and_go(&setup, ["one", "two"], 2).await;
        assert!(start.elapsed() < Duration::from_secs(30), "two slots are over");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_of_which_only_the_stream_lives_is_out() {
    let slot = present();
    // A node that takes no more connections is given the time of two probes.
    for (is_full, seconds) in [(false, 4), (true, 7)] {
        let (a, b, setup, mut client) = two_nodes_and_a_client(slot).await;
        a.set_breaking(is_full);
        let start = Instant::now();
        setup.until_active(1).await;
        assert!(start.elapsed() < Duration::from_secs(seconds), "{is_full} {:?}", start.elapsed());
        until("events come from the other", async || b.streams() == 1).await;
        advance(&[&b], slot + 2);
        assert_eq!(client.head().await, slot + 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_over_which_a_node_ends_the_stream_is_left_out() {
    let slot = present();
    for reaction in [Reaction::End, Reaction::Hang, Reaction::Refuse("500 Oops", String::new())] {
        let net = Net::default();
        let (a, b) = (Teller::start(&net, slot).await, Teller::start(&net, slot).await);
        for topics in [format!("{ALL},novelty"), "novelty".to_owned()] {
            a.reacts(&topics, reaction.clone());
        }
        let setup = Setup::over(&net, &[&a, &b]).await;
        let novelty = topics::parse("topics=novelty").unwrap();
        let mut client = None;
        // The first client asks for the topic, and later another one.
        for slot in [slot + 1, slot + 2] {
            let refused = setup.events.subscribe(novelty.clone());
            let heads = async {
                sleep(Duration::from_millis(100)).await;
                if client.is_none() {
                    client = Some(setup.client("head").await);
                }
                sleep(Duration::from_millis(500)).await;
                advance(&[&a, &b], slot);
                assert_eq!(client.as_mut().unwrap().head().await, slot);
            };
            let (refused, ()) = tokio::join!(refused, heads);
            // A node that hangs is waited for longer than a client.
            match refused {
                Err(NoStream::Topic(503, _)) => assert!(!matches!(reaction, Reaction::Hang)),
                Err(NoStream::NoNode) => assert!(matches!(reaction, Reaction::Hang)),
                _ => panic!("the topic is told"),
            }
            assert_eq!((b.asked().len(), setup.pool.snapshot().active), (0, Some(NodeId(0))));
            // The refusal is forgotten after a minute.
            sleep(Duration::from_secs(61)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn before_genesis_clients_have_their_streams() {
    let slot = present();
    let net = Net::default();
    let node = Teller::start(&net, slot).await;
    node.set_early(true);
    let setup = Setup::over(&net, &[&node]).await;
    let start = Instant::now();
    let mut client = setup.client("head").await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    node.set_early(false);
    until("its events are asked for", async || node.streams() == 1).await;
    advance(&[&node], slot + 1);
    assert_eq!(client.head().await, slot + 1);
}

#[tokio::test(start_paused = true)]
async fn slots_ahead_of_the_clock_mute_nothing_and_cost_their_node() {
    let slot = present();
    let (a, b, setup) = two_nodes(slot).await;
    let mut client = setup.client("head,finalized_checkpoint").await;
    let absurd = u64::MAX;
    a.tell("head", &format!(r#"{{"slot":"{absurd}","block":"{}"}}"#, teller::root(9)));
    a.tell("finalized_checkpoint", &format!(r#"{{"epoch":"{absurd}"}}"#));
    advance(&[&a, &b], slot + 1);
    assert_eq!(client.head().await, slot + 1);
    a.tell("finalized_checkpoint", r#"{"epoch":"3"}"#);
    assert_eq!(client.next().await.1["epoch"], "3");
    assert!(setup.shows("steadfast_doubtful_events_total{network=\"default\",reason=\"ahead\"} 2"));
    assert_eq!((a.streams(), b.streams()), (1, 0), "it may have been a slip");
    a.tell("head", &format!(r#"{{"slot":"{absurd}","block":"{}"}}"#, teller::root(9)));
    until("events come from the other", async || (a.streams(), b.streams()) == (0, 1)).await;
    advance(&[&a, &b], slot + 2);
    assert_eq!(client.head().await, slot + 2);
}

#[tokio::test(start_paused = true)]
async fn the_clock_goes_on_for_a_stream_that_is_kept_without_clients() {
    let net = Net::default();
    let mut slot = teller::second();
    let node = Teller::start(&net, slot).await;
    node.set_fast();
    let setup = Setup::over(&net, &[&node]).await;
    drop(setup.client("head").await);
    // Two epochs, and less than such a stream is kept.
    for _ in 0..8 {
        sleep(Duration::from_secs(1)).await;
        slot = teller::second();
        advance(&[&node], slot);
    }
    let mut client = setup.client("head").await;
    advance(&[&node], slot + 1);
    while client.head().await < slot + 1 {}
    assert!(!setup.shows("doubtful_events"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_lost_once_counts_once() {
    let slot = present();
    let (a, b, setup) = two_nodes(slot).await;
    let _client = setup.client("head").await;
    for _ in 0..3 {
        a.tell("head", &format!(r#"{{"slot":"{}","block":"{}"}}"#, u64::MAX, teller::root(9)));
    }
    until("events come from the other", async || (a.streams(), b.streams()) == (0, 1)).await;
    let start = Instant::now();
    while a.streams() == 0 {
        sleep(Duration::from_millis(100)).await;
        assert!(start.elapsed() < Duration::from_secs(31), "two slots and a quarter of that are over");
    }
    assert!(start.elapsed() > Duration::from_secs(16), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_of_an_old_pool_blames_no_node_of_the_next() {
    let slot = present();
    let net = Net::default();
    let (a, c, d) = (Teller::start(&net, slot).await, Teller::start(&net, slot).await, Teller::start(&net, slot).await);
    let setup = Setup::over(&net, &[&a]).await;
    let mut client = setup.client("head").await;
    advance(&[&a, &c, &d], slot + 1);
    assert_eq!(client.head().await, slot + 1);
    // The chain goes on, and the stream does not tell.
    [&a, &c, &d].iter().for_each(|node| node.set_head(slot + 2));
    until("the chain has gone on", async || setup.pool.snapshot().head == Some(slot + 2)).await;
    sleep(Duration::from_secs(20)).await;
    let (next, _watched) = pool_over(&net, &[&c, &d], &setup.metrics);
    until("the next pool serves", async || next.snapshot().active == Some(NodeId(0))).await;
    setup.events.move_to(next.clone(), Duration::from_secs(2));
    until("a stream of the next pool runs beside", async || (a.streams(), c.streams()) == (1, 1)).await;
    until("the silent stream is lost", async || a.streams() == 0).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!((c.streams(), d.asked().len()), (1, 0));
}
