//! The follower before pretend nodes on a network of memory, under a clock that only moves when nothing else can.

mod anew;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{proxy::config, sim::Net, until};
use steadfast::{
    chain::{Block, Change, Follower, Running},
    devnet::{Devnet, Fault, Options},
    domain::{layer::Layer, node_id::NodeId},
    metrics::Metrics,
    net::Dial,
    pool::{self, Pool, node::Node},
};
use tokio::{
    task::{JoinSet, yield_now},
    time::{Instant, sleep},
};

const START_UNIX: u64 = 1_800_000_000;
const BLOCK_TIME: Duration = Duration::from_secs(2);
/// Nodes tell of their heads over WebSockets.
const PUSHED: &str = "";
/// Nodes have no WebSocket.
const POLLED: &str = "# polled\n";

/// Pretend execution nodes with a pool and a follower before them: the first is the primary, the others are backups.
struct Setup {
    net: Net,
    devnet: Devnet,
    pool: Arc<Pool>,
    follower: Arc<Follower>,
    metrics: Arc<Metrics>,
    heard: Arc<Mutex<Vec<(Instant, Change)>>>,
    /// When the pretend chain had each block, by its hash.
    mined: Arc<Mutex<BTreeMap<String, Instant>>>,
    settings: String,
    running: (pool::Running, Running),
    _watching: JoinSet<()>,
}

fn start_pool(devnet: &Devnet, net: &Net, settings: &str, metrics: &Arc<Metrics>) -> (Arc<Pool>, pool::Running) {
    let mut text = settings.to_owned();
    for (index, node) in devnet.nodes().enumerate() {
        let tier = if index == 0 { "primary" } else { "backup" };
        text += &format!("[[el.{tier}]]\nname = \"{}\"\nhttp = \"{}\"\n", node.name(), node.http_url());
        if !settings.starts_with(POLLED) {
            text += &format!("ws = \"{}\"\n", node.ws_url());
        }
    }
    let config = config(&text);
    let dial: Arc<dyn Dial> = Arc::new(net.clone());
    let nodes = config.networks[0].el.iter();
    let account = steadfast::pool::credits::Account::new(Arc::new(|| 0), 7);
    let reach = steadfast::pool::node::Reach { connect: Duration::from_secs(1), max_connections: 0, wait_limit: None };
    let nodes = nodes.map(|node| Node::new(node, ("default", Layer::El), &dial, reach, 0, metrics, &account).unwrap());
    let start = Instant::now();
    let wall: pool::Wall = Arc::new(move || START_UNIX + start.elapsed().as_secs());
    Pool::start("default", Layer::El, nodes.collect(), &config.health, None, metrics.clone(), wall)
}

impl Setup {
    /// Somebody listens from the start.
    async fn new(options: Options, settings: &str) -> Self {
        let setup = Self::dozing(options, settings).await;
        setup.follower.want(true);
        setup
    }

    async fn dozing(options: Options, settings: &str) -> Self {
        let net = Net::default();
        let moves = options.block_time.is_some();
        let options = Options { initial_blocks: 30, now_unix: Some(START_UNIX), ..options };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let metrics = Arc::new(Metrics::new());
        let (pool, probing) = start_pool(&devnet, &net, settings, &metrics);
        until("the primary serves", async || pool.snapshot().active == Some(NodeId(0))).await;
        if !settings.starts_with(POLLED) {
            until("nodes are listened to", async || devnet.nodes().all(|node| node.subscriptions() == 1)).await;
            if !moves {
                devnet.chain().mine(1);
            }
            until("nodes push", async || NodeId::all(pool.nodes.len()).all(|node| pool.is_pushing(node))).await;
        }
        let chain = config(&format!("{settings}[[el.primary]]\nname = \"x\"\nhttp = \"http://x\"\n")).chain;
        let (follower, mut changes, following) = Follower::start(pool.clone(), &chain, metrics.clone());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mined = Arc::new(Mutex::new(BTreeMap::new()));
        let mut watching = JoinSet::new();
        let (list, of) = (heard.clone(), follower.clone());
        watching.spawn(async move {
            while let Some(change) = changes.recv().await {
                // Whoever hears of a block may ask for it.
                assert!(of.pool().served() >= change.added.last().unwrap().number);
                list.lock().unwrap().push((Instant::now(), change));
            }
        });
        let (times, mut tips) = (mined.clone(), devnet.chain().watch());
        watching.spawn(async move {
            while tips.changed().await.is_ok() {
                let head = tips.borrow_and_update().head().hash.to_string();
                times.lock().unwrap().insert(head, Instant::now());
            }
        });
        let running = (probing, following);
        let settings = settings.to_owned();
        Self { net, devnet, pool, follower, metrics, heard, mined, settings, running, _watching: watching }
    }

    fn changes(&self) -> Vec<Change> {
        self.heard.lock().unwrap().iter().map(|(_, change)| change.clone()).collect()
    }

    /// What stands of what was heard, after checking that each change follows from what stood before.
    fn chain(&self) -> Vec<Arc<Block>> {
        let mut chain: Vec<Arc<Block>> = Vec::new();
        for (index, change) in self.changes().iter().enumerate() {
            assert_eq!(change.seq, index as u64 + 1);
            for block in &change.removed {
                assert_eq!(chain.pop().map_or(block.hash, |tip| tip.hash), block.hash, "removed from the tip");
            }
            if change.skipped {
                chain.clear();
            }
            for block in &change.added {
                assert!(chain.last().is_none_or(|tip| tip.hash == block.parent), "connected");
                assert!(!block.header.is_empty());
                chain.push(block.clone());
            }
        }
        chain
    }

    /// What stands is the chain of the nodes from block `first` on, up to `behind` blocks below its head.
    fn is_whole(&self, first: u64, behind: u64) {
        let heard: Vec<String> = self.chain().iter().map(|block| block.hash.to_string()).collect();
        let last = self.devnet.chain().head().number - behind;
        let block = |number| self.devnet.chain().block(number).unwrap().hash.to_string();
        assert_eq!(heard, (first..=last).map(block).collect::<Vec<_>>());
    }

    /// The longest time from a block's being mined to its being heard of.
    fn latency(&self) -> Duration {
        let (heard, mined) = (self.heard.lock().unwrap(), self.mined.lock().unwrap());
        let took = heard.iter().flat_map(|(at, change)| {
            change.added.iter().filter_map(|block| Some(*at - *mined.get(&block.hash.to_string())?))
        });
        took.max().unwrap_or_default()
    }

    fn shows(&self, line: &str) -> bool {
        String::from_utf8(self.metrics.render(|_| {})).unwrap().contains(line)
    }

    /// How many headers were fetched, but for those that are canonical at a height.
    fn fetches(&self) -> u64 {
        self.devnet.nodes().map(|node| node.count("eth_getBlockByHash")).sum()
    }
}

fn moving() -> Options {
    Options { block_time: Some(BLOCK_TIME), ..Options::default() }
}

#[tokio::test(start_paused = true)]
async fn pushed_blocks_are_told_at_once_and_nothing_is_asked_for() {
    let setup = Setup::new(moving(), PUSHED).await;
    let first = setup.devnet.chain().head().number + 1;
    sleep(BLOCK_TIME * 20).await;
    setup.is_whole(first, 0);
    assert_eq!(setup.chain().len(), 20);
    assert!(setup.devnet.el(0).count("eth_getBlockByNumber") < 60, "it is not polled");
    assert!(setup.latency() < Duration::from_millis(50), "{:?}", setup.latency());
    assert_eq!(setup.fetches(), 0);
    assert!(!setup.shows("steadfast_backfilled_blocks_total"));
}

#[tokio::test(start_paused = true)]
async fn a_cut_a_hang_and_a_silence_cost_time_and_no_block() {
    for (fault, longest, moves) in
        [(Fault::Down, 1100, true), (Fault::Hang, 3400, true), (Fault::Mute, 3500, false), (Fault::Failing, 4000, true)]
    {
        let setup = Setup::new(moving(), PUSHED).await;
        let first = setup.devnet.chain().head().number + 1;
        sleep(BLOCK_TIME * 3 + Duration::from_millis(1900)).await;
        setup.devnet.el(0).set_fault(fault.clone());
        sleep(BLOCK_TIME * 5).await;
        assert_eq!(setup.pool.snapshot().active, Some(NodeId(usize::from(moves))), "{fault:?}");
        setup.is_whole(first, 0);
        setup.devnet.el(0).clear_faults();
        sleep(BLOCK_TIME * 15).await;
        assert_eq!(setup.pool.snapshot().active, Some(NodeId(0)), "{fault:?}");
        setup.is_whole(first, 0);
        assert!(setup.changes().iter().all(|change| change.removed.is_empty() && !change.skipped));
        assert!(setup.latency() < Duration::from_millis(longest), "{fault:?}: {:?}", setup.latency());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stand_by_that_is_three_blocks_behind_is_no_reorganisation() {
    let setup = Setup::new(moving(), PUSHED).await;
    let first = setup.devnet.chain().head().number + 1;
    setup.devnet.el(1).set_fault(Fault::lag(3));
    sleep(BLOCK_TIME * 5).await;
    setup.devnet.el(0).set_fault(Fault::Down);
    sleep(BLOCK_TIME * 6).await;
    assert_eq!(setup.pool.snapshot().active, Some(NodeId(1)));
    setup.is_whole(first, 3);
    setup.devnet.el(1).clear_faults();
    sleep(BLOCK_TIME * 3).await;
    setup.is_whole(first, 0);
    assert!(setup.changes().iter().all(|change| change.removed.is_empty()));
    assert!(!setup.shows("steadfast_reorgs_total"));
}

#[tokio::test(start_paused = true)]
async fn a_reorganisation_that_falls_into_the_switch_is_told_once() {
    for settings in [PUSHED, POLLED] {
        let setup = Setup::new(moving(), settings).await;
        let first = setup.devnet.chain().head().number + 1;
        sleep(BLOCK_TIME * 5 + BLOCK_TIME / 2).await;
        setup.devnet.el(0).set_fault(Fault::Down);
        let reorg = setup.devnet.chain().reorg(2).unwrap();
        sleep(BLOCK_TIME * 5).await;
        setup.devnet.el(0).clear_faults();
        sleep(BLOCK_TIME * 8).await;
        setup.is_whole(first, 0);
        let told: Vec<Change> = setup.changes().into_iter().filter(|change| !change.removed.is_empty()).collect();
        let [change] = &told[..] else { panic!("{told:?}") };
        let removed: Vec<String> = change.removed.iter().map(|block| block.hash.to_string()).collect();
        assert_eq!(removed, reorg.removed.iter().map(|block| block.hash.to_string()).collect::<Vec<_>>());
        assert!(setup.shows("steadfast_reorgs_total{network=\"default\"} 1"));
        assert!(setup.shows("steadfast_reorg_depth_sum 2"));
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_that_nobody_pushed_are_filled_in() {
    let setup = Setup::new(Options::default(), PUSHED).await;
    let first = setup.devnet.chain().head().number + 1;
    for node in setup.devnet.nodes() {
        node.set_fault(Fault::Down);
    }
    sleep(Duration::from_secs(5)).await;
    setup.devnet.chain().mine(100);
    for node in setup.devnet.nodes() {
        node.clear_faults();
    }
    sleep(Duration::from_secs(10)).await;
    setup.is_whole(first, 0);
    assert!(setup.changes().iter().all(|change| change.removed.is_empty() && !change.skipped));
    assert!(setup.shows("steadfast_backfilled_blocks_total{network=\"default\"} 99"), "the head was found by a probe");
}

#[tokio::test(start_paused = true)]
async fn a_gap_beyond_the_limit_is_skipped_and_said() {
    let setup = Setup::new(Options::default(), "chain = { window = 16, max_backfill = 8 }\n").await;
    let first = setup.devnet.chain().head().number + 1;
    for node in setup.devnet.nodes() {
        node.set_fault(Fault::Down);
    }
    sleep(Duration::from_secs(5)).await;
    let head = setup.devnet.chain().mine(9).number;
    for node in setup.devnet.nodes() {
        node.clear_faults();
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(head, first + 8);
    setup.is_whole(head, 0);
    assert!(setup.changes()[0].skipped);
    assert!(setup.shows("steadfast_gaps_skipped_total{network=\"default\"} 1"));
    setup.devnet.chain().mine(8);
    sleep(Duration::from_secs(2)).await;
    setup.is_whole(head, 0);
}

#[tokio::test(start_paused = true)]
async fn new_listener_hears_of_every_later_block() {
    for settings in [PUSHED, POLLED] {
        let setup = Setup::dozing(Options::default(), settings).await;
        for count in [1, 3, 20] {
            setup.devnet.chain().mine(count);
            sleep(Duration::from_millis(1700)).await;
        }
        assert_eq!(setup.fetches(), 0, "nobody listened");
        let known = setup.pool.snapshot().nodes[0].head.as_ref().unwrap().number;
        setup.follower.want(true);
        setup.devnet.chain().mine(1);
        setup.devnet.chain().mine(1);
        sleep(Duration::from_secs(2)).await;
        setup.is_whole(known + 1, 0);
        assert_eq!(setup.chain().len(), 2);

        // The same when the follower is yet to be told of the last head.
        setup.follower.want(false);
        sleep(Duration::from_secs(2)).await;
        let before = setup.changes().len();
        setup.devnet.chain().mine(5);
        setup.pool.probe_now(NodeId(0));
        let known = loop {
            yield_now().await;
            let head = setup.pool.snapshot().nodes[0].head.as_ref().unwrap().number;
            if head == setup.devnet.chain().head().number {
                break head;
            }
        };
        setup.follower.want(true);
        setup.devnet.chain().mine(3);
        sleep(Duration::from_secs(2)).await;
        let changes = setup.changes().split_off(before);
        let added: Vec<u64> = changes.iter().flat_map(|change| &change.added).map(|block| block.number).collect();
        assert_eq!(added, (known + 1..=known + 3).collect::<Vec<_>>(), "{settings}");
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_do_not_push_are_asked_three_times_a_block() {
    let settings = format!("{POLLED}health = {{ interval = \"20s\" }}\n");
    let options = Options { block_time: Some(Duration::from_secs(3)), ..Options::default() };
    let setup = Setup::new(options, &settings).await;
    sleep(Duration::from_secs(45)).await;
    let (first, asked) = (setup.chain()[0].number, setup.devnet.el(0).count("eth_getBlockByNumber"));
    setup.heard.lock().unwrap().retain(|_| false);
    setup.devnet.el(0).clear_records();
    sleep(Duration::from_secs(60)).await;
    let probes = setup.devnet.el(0).count("eth_getBlockByNumber");
    assert!((55..=65).contains(&probes), "{probes} in a minute, {asked} before, from block {first}");
    assert!(setup.latency() < Duration::from_millis(1100), "{:?}", setup.latency());
    assert!((19..=20).contains(&setup.changes().len()), "the last may be yet to come");
    assert!(setup.devnet.el(1).count("eth_getBlockByNumber") < 10, "the others' heads are not wanted so soon");
    // No more than needed while nobody listens.
    setup.follower.want(false);
    setup.devnet.el(0).clear_records();
    sleep(Duration::from_secs(60)).await;
    let probes = setup.devnet.el(0).count("eth_getBlockByNumber");
    assert!(probes <= 4, "{probes}");
}

#[tokio::test(start_paused = true)]
async fn a_fetched_header_is_the_one_that_is_pushed() {
    let setup = Setup::new(Options::default(), PUSHED).await;
    setup.devnet.el(0).set_fault(Fault::Mute);
    let mut headers = setup.pool.headers();
    setup.devnet.chain().mine(2);
    sleep(Duration::from_secs(5)).await;
    let mut pushed = Vec::new();
    while let Ok(header) = headers.try_recv() {
        pushed.extend(Some(header).filter(|header| !header.is_whole));
    }
    assert!(pushed.iter().all(|header| header.node == NodeId(1)));
    let [change] = &setup.changes()[..] else { panic!("one change") };
    assert_eq!(change.node, NodeId(0));
    // The first was fetched, and the second found by a probe.
    for (block, header) in change.added.iter().zip(&pushed) {
        assert_eq!(block.header, header.json);
        assert!(block.bloom.is_some());
    }
    assert_eq!((pushed.len(), change.added.len(), setup.fetches()), (2, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn the_header_that_a_probe_finds_is_not_asked_for_again() {
    let setup = Setup::new(moving(), POLLED).await;
    let first = setup.devnet.chain().head().number + 1;
    sleep(BLOCK_TIME * 20 + BLOCK_TIME / 2).await;
    setup.is_whole(first, 0);
    assert_eq!(setup.fetches(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_chain_faster_than_probes_of_far_nodes_is_kept_up_with() {
    for (millis, behind) in [(100, 6), (250, 3)] {
        let options = Options { block_time: Some(Duration::from_millis(millis)), ..Options::default() };
        let setup = Setup::new(options, POLLED).await;
        setup.devnet.nodes().for_each(|node| node.set_fault(Fault::slow(50)));
        sleep(Duration::from_secs(5)).await;
        setup.heard.lock().unwrap().clear();
        sleep(Duration::from_secs(60)).await;
        let heard = setup.heard.lock().unwrap().clone();
        let told: Vec<u64> = heard.iter().flat_map(|(_, change)| &change.added).map(|block| block.number).collect();
        let tip = setup.devnet.chain().head().number;
        assert!(tip - told.last().unwrap() <= behind, "{millis} ms: at {:?} of {tip}", told.last());
        assert_eq!(told, (told[0]..told[0] + told.len() as u64).collect::<Vec<_>>());
        assert!(told.len() as u64 + 2 * behind >= 60_000 / millis, "{millis} ms: {} blocks", told.len());
        assert!(setup.latency() < Duration::from_millis(700), "{millis} ms: {:?}", setup.latency());
        assert!(!setup.shows("steadfast_gaps_skipped_total"));
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_that_were_missed_are_fetched_together() {
    let setup = Setup::new(Options::default(), POLLED).await;
    let first = setup.devnet.chain().head().number + 1;
    setup.devnet.nodes().for_each(|node| node.set_fault(Fault::slow(100)));
    setup.devnet.chain().mine(65);
    let start = Instant::now();
    until("all is told", async || setup.chain().last().is_some_and(|block| block.number == first + 64)).await;
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    setup.is_whole(first, 0);
    let heard = setup.heard.lock().unwrap();
    assert!(
        heard.first().unwrap().0 - start < heard.last().unwrap().0 - start - Duration::from_millis(500),
        "as they join"
    );
}

#[tokio::test(start_paused = true)]
async fn a_header_no_node_gives_is_skipped_and_heads_go_on() {
    for settings in [PUSHED, POLLED] {
        let setup = Setup::new(moving(), settings).await;
        sleep(BLOCK_TIME * 3).await;
        let missing = setup.devnet.chain().head().number + 3;
        setup.devnet.nodes().for_each(|node| node.set_fault(Fault::missing_block(missing)));
        sleep(BLOCK_TIME * 12 + BLOCK_TIME / 2).await;
        setup.is_whole(missing + 1, 0);
        let heard = setup.heard.lock().unwrap();
        let told: Vec<u64> = heard.iter().flat_map(|(_, change)| &change.added).map(|block| block.number).collect();
        let until: Vec<u64> = (told[0]..=setup.devnet.chain().head().number).filter(|one| *one != missing).collect();
        assert_eq!(told, until, "all but that one, each once");
        // Four block times, and the time that it took to find out.
        let silence = heard.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap();
        assert!(silence < BLOCK_TIME * 7, "{silence:?}");
        assert!(setup.shows("steadfast_gaps_skipped_total{network=\"default\"} 1"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_that_one_node_does_not_give_is_had_from_another() {
    let setup = Setup::new(moving(), POLLED).await;
    let first = setup.devnet.chain().head().number + 1;
    sleep(BLOCK_TIME * 3).await;
    setup.devnet.el(0).set_fault(Fault::missing_block(setup.devnet.chain().head().number + 3));
    sleep(BLOCK_TIME * 8 + BLOCK_TIME / 2).await;
    setup.is_whole(first, 0);
    assert!(setup.latency() < BLOCK_TIME * 2, "{:?}", setup.latency());
}

#[tokio::test(start_paused = true)]
async fn a_header_is_had_by_its_height_where_none_is_given_by_hash() {
    let setup = Setup::new(Options::default(), POLLED).await;
    let first = setup.devnet.chain().head().number + 1;
    for node in setup.devnet.nodes() {
        node.set_fault(Fault::refuse(&["eth_getBlockByHash"]));
    }
    for _ in 0..3 {
        setup.devnet.chain().mine(2);
        sleep(Duration::from_secs(2)).await;
    }
    setup.is_whole(first, 0);
    assert!(setup.fetches() > 0 && setup.changes().iter().all(|change| !change.skipped));
}

#[tokio::test(start_paused = true)]
async fn another_pool_goes_on_where_the_former_was() {
    let mut setup = Setup::new(moving(), PUSHED).await;
    let first = setup.devnet.chain().head().number + 1;
    sleep(BLOCK_TIME * 3).await;
    let (pool, probing) = start_pool(&setup.devnet, &setup.net, &setup.settings, &setup.metrics);
    setup.follower.move_to(pool.clone());
    assert!(Arc::ptr_eq(&setup.follower.pool(), &pool));
    setup.running.0 = probing;
    sleep(BLOCK_TIME * 5).await;
    setup.is_whole(first, 0);
    assert_eq!(setup.chain().len(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_good_answer_to_our_own_question_tells_that_a_rest_is_over() {
    let setup = Setup::new(moving(), POLLED).await;
    let (pool, limit) = (&setup.pool, Duration::from_secs(5));
    let ask = async || pool.ask_in_time(NodeId(0), "eth_gasPrice", "[]", 1 << 10, limit).await;
    setup.devnet.el(0).set_fault(Fault::quota(&["eth_gasPrice"]));
    assert!(ask().await.is_err());
    setup.devnet.el(0).clear_faults();
    sleep(Duration::from_secs(2)).await;
    let (start, pause) = (Instant::now(), Duration::from_millis(100));
    let asked = async {
        sleep(pause).await;
        ask().await.unwrap().unwrap();
    };
    // Whoever waits looks again each second in any case.
    tokio::join!(pool.stirs(start + limit), asked);
    assert_eq!(start.elapsed(), pause);
}
