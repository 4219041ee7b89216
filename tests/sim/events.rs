//! Streams of events under random faults, reorganisations, missed slots and outages, a thousand schedules in simulated time. Each is known
//! by its seed.
//!
//! `STEADFAST_SEEDS=FROM..TO` chooses others than the usual ones.

mod chain;
mod client;
mod node;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::common::{
    client::Client,
    proxy,
    seeds::{each, seeds},
    sim::Net,
    simulation::run_simulated,
};
use chain::Tree;
use client::{Heard, Listened, check, listen};
use fastrand::Rng;
use node::{Fault, Habits, Node};
use steadfast::app::App;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// Unix time at the start.
const START_UNIX: u64 = 1_800_000_000;
/// Slots before the start.
const PAST: u64 = 60;
/// In seconds from the start.
const FAULTS_UNTIL: u64 = 60;
const BLOCKS_UNTIL: u64 = 85;
const END: u64 = 100;
const TOPICS: &str = "head,block,chain_reorg,finalized_checkpoint,attestation,novelty";
const CHAIN_ONLY: &str = "head,block,chain_reorg,finalized_checkpoint";
/// The longest that a block of the chain waits to be told as the head.
const TIMEOUT: Duration = Duration::from_secs(15);

/// When the chain began; slots take a second.
#[derive(Clone, Copy)]
pub struct Genesis {
    pub unix: u64,
    pub start: Instant,
}

impl Genesis {
    pub fn slot(&self) -> u64 {
        PAST + self.start.elapsed().as_secs()
    }
}

struct Setup {
    net: Net,
    tree: Arc<Mutex<Tree>>,
    nodes: Arc<Vec<Node>>,
    start: Instant,
    app: App,
}

impl Setup {
    async fn start(rng: &mut Rng) -> Self {
        let (net, start) = (Net::default(), Instant::now());
        let mut tree = Tree::new();
        for slot in 1..=PAST {
            if rng.u8(..5) > 0 || slot == PAST {
                tree.add(slot, tree.len() - 1);
            }
        }
        let tree = Arc::new(Mutex::new(tree));
        let genesis = Genesis { unix: START_UNIX - PAST, start };
        let (mut nodes, mut settings) = (Vec::new(), String::new());
        for number in 0..rng.u16(2..=3) {
            let habits = Habits {
                odd: rng.bool(),
                only_last: rng.u8(..4) == 0,
                reorg: rng.u8(..3),
                no_blocks: rng.u8(..8) == 0,
                knows: number == 0 || rng.u8(..3) > 0,
            };
            let tier = if number == 0 { "primary" } else { "backup" };
            let port = 5052 + number;
            settings += &format!("[[cl.{tier}]]\nname = \"cl-{number}\"\nhttp = \"http://127.0.0.1:{port}\"\n");
            nodes.push(Node::start(&net, port, tree.clone(), genesis, habits));
        }
        let world = net.world(START_UNIX, start);
        sleep(Duration::from_millis(1)).await;
        let app = App::start(proxy::config(&settings), world, None).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        Self { net, tree, nodes: Arc::new(nodes), start, app }
    }

    fn listener(&self, topics: &'static str, who: String) -> impl Future<Output = Listened> + use<> {
        let (net, port, end) = (self.net.clone(), self.app.addr().port(), self.start + Duration::from_secs(END));
        async move { listen(net, port, topics, &who, end).await }
    }

    /// A block in most slots: on the head, now and then on an earlier block, or on one that was left. Returns the last one, and when each
    /// came.
    fn mine(&self, mut rng: Rng) -> JoinSet<(usize, Vec<(Instant, usize)>)> {
        let (tree, nodes, start) = (self.tree.clone(), self.nodes.clone(), self.start);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut tip = tree.lock().unwrap().len() - 1;
            let (mut left, mut spreading) = (tip, JoinSet::new());
            let mut times = vec![(start, tip)];
            for second in 1..BLOCKS_UNTIL {
                sleep_until(start + Duration::from_secs(second) + Duration::from_millis(rng.u64(..300))).await;
                if rng.u8(..5) == 0 && second + 1 < BLOCKS_UNTIL {
                    continue;
                }
                {
                    let mut tree = tree.lock().unwrap();
                    let before = tip;
                    let parent = match rng.u8(..12) {
                        0 => tree.line(tip).nth(rng.usize(1..4)).unwrap(),
                        // Not one of long ago: that would be final.
                        1 if tree.block(left).slot + 6 > PAST + second => left,
                        _ => tip,
                    };
                    tip = tree.add(PAST + second, parent);
                    if parent != before {
                        left = before;
                    }
                    times.push((Instant::now(), tip));
                }
                for node in 0..nodes.len() {
                    let (nodes, wait) = (nodes.clone(), Duration::from_millis(rng.u64(..400)));
                    spreading.spawn(async move {
                        sleep(wait).await;
                        nodes[node].set_tip(tip);
                    });
                }
            }
            while spreading.join_next().await.is_some() {}
            (tip, times)
        });
        task
    }

    /// A client that asks for a stream and reads no more than this of it.
    async fn idler(&self, topics: &str, reads: usize) -> DuplexStream {
        let mut io = self.net.connect(self.app.addr().port()).await.unwrap();
        let request = format!("GET /eth/v1/events?topics={topics} HTTP/1.1\r\nHost: proxy\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        io.read_exact(&mut vec![0; reads]).await.unwrap();
        io
    }

    /// Whether the proxy has told heads that it could not join to those before.
    async fn has_missed(&self) -> bool {
        let metrics = self.metrics().await;
        let is_meant = |line: &str| {
            ["gaps_skipped_total", "doubtful_events_total"]
                .iter()
                .any(|name| line.strip_prefix("steadfast_").is_some_and(|line| line.starts_with(name)))
        };
        metrics.lines().any(|line| is_meant(line) && !line.ends_with(" 0"))
    }

    async fn metrics(&self) -> String {
        let mut client = Client::over(self.net.connect(self.app.admin_addr().port()).await.unwrap());
        client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        client.response().await.text()
    }

    /// Streams that the proxy counts as open.
    async fn streams(&self) -> String {
        let metrics = self.metrics().await;
        let line = metrics.lines().find_map(|line| line.strip_prefix("steadfast_sse_streams "));
        line.unwrap_or_default().to_owned()
    }

    async fn disturb(&self, rng: &mut Rng) {
        let last = self.nodes.len() - 1;
        match rng.u8(..12) {
            // The last node is spared, but for these.
            0 => {
                self.nodes.iter().for_each(|node| node.set_fault(Fault::Down));
                sleep(Duration::from_millis(rng.u64(100..3_000))).await;
                self.nodes[last].set_fault(Fault::None);
            }
            1 => {
                self.nodes[last].set_fault(Fault::Stuck);
                sleep(Duration::from_millis(rng.u64(100..2_000))).await;
                self.nodes[last].set_fault(Fault::None);
            }
            2 | 3 => self.nodes[rng.usize(..=last)].cut(),
            4 => {
                let node = &self.nodes[rng.usize(..last)];
                for _ in 0..rng.u8(2..6) {
                    node.set_fault(Fault::Down);
                    sleep(Duration::from_millis(rng.u64(10..800))).await;
                    node.set_fault(Fault::None);
                    sleep(Duration::from_millis(rng.u64(10..2_000))).await;
                }
            }
            _ => {
                let node = &self.nodes[rng.usize(..last)];
                node.set_fault(match rng.u8(..11) {
                    0 | 1 => Fault::Down,
                    2 | 3 => Fault::Hang,
                    4 | 5 => Fault::Mute,
                    6 => Fault::Syncing,
                    7 => Fault::Stuck,
                    8 => Fault::Slow(rng.u64(10..1_000)),
                    9 => Fault::Forgetful,
                    _ => Fault::None,
                });
            }
        }
    }
}

/// What the clients heard, the longest that a block waited, and whether any had to be left out.
fn run(seed: u64) -> (Vec<Vec<Heard>>, Duration, bool) {
    run_simulated(seed, async {
        let mut rng = Rng::with_seed(seed);
        let setup = Setup::start(&mut rng).await;
        let mut mining = setup.mine(rng.fork());
        let mut clients = JoinSet::new();
        for (number, topics) in [TOPICS, CHAIN_ONLY].into_iter().enumerate() {
            let stream = setup.listener(topics, format!("seed {seed} client {number}"));
            clients.spawn(async move { (number, stream.await) });
        }
        let late = setup.listener(CHAIN_ONLY, format!("seed {seed} client 2"));
        let comes = setup.start + Duration::from_millis(rng.u64(5_000..40_000));
        clients.spawn(async move {
            sleep_until(comes).await;
            (2, late.await)
        });
        while setup.start.elapsed().as_secs() < FAULTS_UNTIL {
            sleep(Duration::from_millis(rng.u64(50..6_000))).await;
            setup.disturb(&mut rng).await;
        }
        setup.nodes.iter().for_each(|node| node.set_fault(Fault::None));
        let (tip, times) = mining.join_next().await.unwrap().unwrap();
        let mut heard = Vec::new();
        while let Some(done) = clients.join_next().await {
            heard.push(done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
        }
        heard.sort_by_key(|(number, _)| *number);
        let mut longest = Duration::ZERO;
        let has_missed = setup.has_missed().await;
        {
            let tree = setup.tree.lock().unwrap();
            for (number, (opened, heard)) in &heard {
                let who = format!("seed {seed} client {number}");
                check(&tree, tip, PAST + opened.duration_since(setup.start).as_secs(), heard, has_missed, &who);
                for head in heard.iter().filter(|heard| heard.topic == "head") {
                    let name = chain::name(head.data["block"].as_str().unwrap());
                    let came = times.iter().rev().take_while(|(_, tip)| tree.line(*tip).any(|at| at == name)).last();
                    // Of a block that was left later, nobody need have heard.
                    if let Some((came, _)) = came {
                        longest = longest.max(head.at.saturating_duration_since(*came));
                    }
                }
            }
        }
        assert!(longest < TIMEOUT, "seed {seed}: a head came after {longest:?}");
        setup.app.shutdown().await;
        (heard.into_iter().map(|(_, (_, heard))| heard).collect(), longest, has_missed)
    })
}

#[test]
fn streams_tell_all_blocks_once_on_any_node_faults() {
    let seeds = seeds(0..1_000);
    let (events, passed, longest) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let missed = AtomicU64::new(0);
    each(seeds.clone(), run, |(heard, waited, has_missed)| {
        missed.fetch_add(u64::from(has_missed), Relaxed);
        longest.fetch_max(u64::try_from(waited.as_millis()).unwrap(), Relaxed);
        for heard in heard.into_iter().flatten() {
            let is_passed = ["attestation", "novelty"].contains(&heard.topic.as_str());
            (if is_passed { &passed } else { &events }).fetch_add(1, Relaxed);
        }
    });
    println!(
        "seeds {seeds:?}: {events:?} events of the chain, {passed:?} others, a head waited {longest:?} ms at most, blocks left out with {missed:?} seeds"
    );
    let count = seeds.end - seeds.start;
    assert_eq!(missed.load(Relaxed), 0, "blocks were left out with {missed:?} of {count} seeds");
    assert!(events.into_inner() >= count * 200 && passed.into_inner() >= count * 50);
}

#[test]
fn a_client_that_leaves_or_stalls_goes_and_others_hear_all() {
    run_simulated(7, async {
        let mut rng = Rng::with_seed(7);
        let setup = Setup::start(&mut rng).await;
        let mut mining = setup.mine(rng.fork());
        let mut listening = JoinSet::new();
        listening.spawn(setup.listener(CHAIN_ONLY, "the one that reads".to_owned()));
        let leaves = setup.idler("head,bulk", 1_000).await;
        let _sleeps = setup.idler("head,bulk", 1_000).await;
        sleep(Duration::from_millis(10)).await;
        assert_eq!(setup.streams().await, "3");
        drop(leaves);
        sleep(Duration::from_millis(10)).await;
        assert_eq!(setup.streams().await, "2", "one left");
        // What it does not take fills its connection within some twenty blocks; half a minute later it is gone.
        sleep(Duration::from_secs(70)).await;
        assert_eq!(setup.streams().await, "1", "one does not read");
        let (tip, _) = mining.join_next().await.unwrap().unwrap();
        let (opened, heard) = listening.join_next().await.unwrap().unwrap();
        let since = PAST + opened.duration_since(setup.start).as_secs();
        check(&setup.tree.lock().unwrap(), tip, since, &heard, false, "the one that reads");
        setup.app.shutdown().await;
    });
}

#[test]
fn a_header_that_no_node_gives_is_skipped_within_seconds() {
    for seed in 0..40 {
        run_simulated(seed, async {
            let mut rng = Rng::with_seed(seed);
            let setup = Setup::start(&mut rng).await;
            let mut tip = setup.tree.lock().unwrap().len() - 1;
            let mut grow = |nodes: &[Node], count: usize| {
                let slot = PAST + setup.start.elapsed().as_secs();
                for place in 0..count {
                    tip = setup.tree.lock().unwrap().add(slot + 1 + place as u64, tip);
                }
                nodes.iter().for_each(|node| node.set_tip(tip));
                tip
            };
            let client = setup.listener(CHAIN_ONLY, format!("seed {seed}"));
            let mut clients = JoinSet::new();
            clients.spawn(client);
            sleep(Duration::from_secs(5)).await;
            grow(&setup.nodes, 1);
            sleep(Duration::from_secs(3)).await;
            // A block that nobody gives, and two upon it; later another one every few seconds.
            let lacking = setup.tree.lock().unwrap().len();
            setup.nodes.iter().for_each(|node| node.set_fault(Fault::Lacks(lacking)));
            let (since, first) = (Instant::now(), grow(&setup.nodes, 3));
            while setup.start.elapsed().as_secs() < END - 10 {
                sleep(Duration::from_secs(4)).await;
                grow(&setup.nodes, 1);
            }
            let (_, heard) = clients.join_next().await.unwrap().unwrap();
            let after = heard
                .iter()
                .find(|one| one.topic == "head" && chain::name(one.data["block"].as_str().unwrap()) >= first);
            let waited = after.unwrap_or_else(|| panic!("seed {seed}: nothing more")).at - since;
            assert!(waited < Duration::from_secs(16), "seed {seed}: {waited:?}");
            let heads = heard.iter().filter(|one| one.topic == "head" && one.at > since + waited).count();
            assert!(heads >= 15, "seed {seed}: {heads}");
            setup.app.shutdown().await;
        });
    }
}
