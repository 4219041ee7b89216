//! Filters while nodes go and come back, and calls with them.

use serde_json::{Value, json};
use steadfast::devnet::Fault;
use tokio::time::{Duration, sleep};

use super::stage::{Stage, Way};
use crate::common::until;

/// Nodes take long over logs.
pub(super) fn slow_logs() -> Fault {
    Fault::slow(700)
}

/// Nodes lose the answers with logs, however they are asked for them.
fn no_logs() -> Fault {
    Fault::cut_answer(&["eth_getLogs", "eth_getBlockReceipts"])
}

/// Two filters, and what they have told in all.
struct Followed {
    blocks: Value,
    logs: Value,
    before: u64,
    told: (Vec<Value>, Vec<Value>),
}

impl Followed {
    async fn new(stage: &Stage) -> Self {
        let (blocks, logs) = (stage.blocks().await, stage.logs(&json!({})).await);
        Self { blocks, logs, before: stage.head(), told: Default::default() }
    }

    async fn poll(&mut self, stage: &Stage) {
        self.told.0.extend(stage.poll(&self.blocks).await);
        self.told.1.extend(stage.poll(&self.logs).await);
    }

    /// Waits until everything was told, and that nothing was told twice.
    async fn is_whole(&mut self, stage: &Stage) {
        let expected = stage.hashes_above(self.before);
        until("all blocks were told", async || {
            self.poll(stage).await;
            self.told.0.len() >= expected.len()
        })
        .await;
        sleep(Duration::from_secs(3)).await;
        self.poll(stage).await;
        assert_eq!(self.told.0, expected);
        assert_eq!(self.told.1, stage.logs_above(self.before, &json!({})).await);
    }
}

#[tokio::test(start_paused = true)]
async fn filters_outlive_their_node_and_its_return() {
    for way in [Way::Http, Way::Link, Way::Both] {
        for fault in [Fault::Down, Fault::Hang, Fault::Failing] {
            let stage = Stage::new(way, "").await;
            let mut followed = Followed::new(&stage).await;
            let mine = async |count: u64, followed: &mut Followed| {
                for _ in 0..count {
                    stage.devnet.chain().mine(1);
                    sleep(Duration::from_millis(700)).await;
                    followed.poll(&stage).await;
                }
            };
            mine(3, &mut followed).await;
            stage.devnet.el(0).set_fault(fault.clone());
            mine(6, &mut followed).await;
            stage.active("el-2").await;
            stage.devnet.el(0).clear_faults();
            stage.active("el-1").await;
            mine(3, &mut followed).await;
            followed.is_whole(&stage).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_answered_while_its_node_hangs() {
    let stage = Stage::new(Way::Http, "").await;
    let blocks = stage.blocks().await;
    stage.devnet.nodes().for_each(|node| node.set_fault(Fault::Hang));
    let began = tokio::time::Instant::now();
    assert_eq!(stage.poll(&blocks).await, Vec::<Value>::new());
    assert!(began.elapsed() <= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn filters_outlive_a_switch_to_a_node_that_reset_before() {
    let settings = "[chain]\ntimeout = \"3s\"\n[health]\ninterval = \"500ms\"\n";
    for way in [Way::Http, Way::Both] {
        // Whether it had been out for that, and not only failed some probes.
        for reset in [1000, 3000, 6000] {
            let stage = Stage::new(way, settings).await;
            let mut followed = Vec::new();
            for _ in 0..24 {
                followed.push(Followed::new(&stage).await);
            }
            let mut mine = async |ms: u64| {
                for _ in 0..ms / 250 {
                    stage.devnet.chain().mine(1);
                    sleep(Duration::from_millis(250)).await;
                    for one in &mut followed {
                        one.poll(&stage).await;
                    }
                }
            };
            let backup = stage.devnet.el(1);
            backup.set_fault(Fault::Down);
            sleep(Duration::from_millis(1)).await;
            backup.clear_faults();
            backup.set_fault(Fault::max_connections(0));
            mine(reset).await;
            backup.clear_faults();
            backup.set_fault(Fault::slow_over(400, &["eth_getLogs"]));
            mine(4000).await;
            stage.devnet.el(0).set_fault(Fault::Down);
            mine(10_000).await;
            assert_eq!(stage.proxy.metric("steadfast_filters_dropped_total", "").await, 0.0, "{way:?} {reset}");
            for one in &mut followed {
                one.is_whole(&stage).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn filters_outlive_resets_under_which_the_link_stayed() {
    for (reset, rest) in [(1000, 0), (3000, 0), (3000, 4000), (6000, 1000), (12_000, 0), (12_000, 4000)] {
        let stage = Stage::new(Way::Both, "").await;
        let mut followed = Followed::new(&stage).await;
        let mut mine = async |ms: u64| {
            for _ in 0..ms / 250 {
                stage.devnet.chain().mine(1);
                sleep(Duration::from_millis(250)).await;
                followed.poll(&stage).await;
            }
        };
        // Until the pace is known, the logs of a block have more time.
        mine(2000).await;
        let backup = stage.devnet.el(1);
        backup.set_fault(Fault::cut_answer(&["*"]));
        backup.set_fault(Fault::max_connections(0));
        mine(reset).await;
        assert_eq!(backup.websockets_open(), 1, "the link was lost");
        backup.clear_faults();
        backup.set_fault(Fault::slow_over(400, &["eth_getLogs"]));
        mine(rest).await;
        stage.devnet.el(0).set_fault(Fault::Down);
        mine(15_000).await;
        assert_eq!(stage.proxy.metric("steadfast_filters_dropped_total", "").await, 0.0, "{reset} {rest}");
        followed.is_whole(&stage).await;
    }
}

#[tokio::test(start_paused = true)]
async fn filters_outlive_a_time_without_nodes() {
    let stage = Stage::new(Way::Both, "").await;
    let mut followed = Followed::new(&stage).await;
    stage.devnet.chain().mine(1);
    sleep(Duration::from_secs(1)).await;
    stage.devnet.nodes().for_each(|node| node.set_fault(Fault::Down));
    for _ in 0..8 {
        sleep(Duration::from_millis(500)).await;
        stage.devnet.chain().mine(1);
        followed.poll(&stage).await;
    }
    stage.devnet.nodes().for_each(|node| node.clear_faults());
    stage.active("el-1").await;
    followed.is_whole(&stage).await;
}

#[tokio::test(start_paused = true)]
async fn filters_do_not_depend_on_where_calls_go() {
    let stage = Stage::new(Way::Http, "calls = { policy = \"spread\" }\n").await;
    let mut followed = Followed::new(&stage).await;
    for _ in 0..20 {
        stage.devnet.chain().mine(1);
        sleep(Duration::from_millis(300)).await;
        followed.poll(&stage).await;
    }
    followed.is_whole(&stage).await;
}

#[tokio::test(start_paused = true)]
async fn filters_outlive_a_reload() {
    let stage = Stage::new(Way::Both, "").await;
    let mut followed = Followed::new(&stage).await;
    for attempts in [2, 4, 5] {
        stage.devnet.chain().mine(1);
        sleep(Duration::from_millis(500)).await;
        stage.proxy.reload(&format!("calls = {{ attempts = {attempts} }}\n{}", stage.settings)).await;
        stage.devnet.chain().mine(1);
        followed.poll(&stage).await;
    }
    followed.is_whole(&stage).await;
}

#[tokio::test(start_paused = true)]
async fn a_reorganisation_in_the_switch_is_told_whole() {
    let stage = Stage::new(Way::Both, "").await;
    let logs = stage.logs(&json!({})).await;
    let before = stage.head();
    stage.devnet.chain().mine(4);
    sleep(Duration::from_secs(1)).await;
    let mut told = stage.poll(&logs).await;
    stage.devnet.el(0).set_fault(Fault::Down);
    stage.devnet.chain().reorg_to(3, 5).unwrap();
    sleep(Duration::from_secs(5)).await;
    told.extend(stage.poll(&logs).await);
    let mut standing: Vec<Value> = Vec::new();
    for log in told {
        if log["removed"] == true {
            let last = standing.pop().unwrap();
            assert_eq!((&last["blockHash"], &last["logIndex"]), (&log["blockHash"], &log["logIndex"]));
        } else {
            standing.push(log);
        }
    }
    assert_eq!(standing, stage.logs_above(before, &json!({})).await);
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_cannot_be_filled_drops_the_filters() {
    let stage = Stage::new(Way::Http, "chain = { window = 8, max_backfill = 4 }\n").await;
    let (blocks, logs) = (stage.blocks().await, stage.logs(&json!({})).await);
    stage.devnet.nodes().for_each(|node| node.set_fault(Fault::Down));
    sleep(Duration::from_secs(3)).await;
    stage.devnet.chain().mine(20);
    stage.devnet.nodes().for_each(|node| node.clear_faults());
    stage.active("el-1").await;
    sleep(Duration::from_secs(5)).await;
    assert!(stage.is_gone(&blocks).await && stage.is_gone(&logs).await);
    assert_eq!(stage.proxy.metric("steadfast_filters_dropped_total", "reason=\"gap\"").await, 2.0);
    let blocks = stage.blocks().await;
    let before = stage.head();
    stage.devnet.chain().mine(2);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(stage.poll(&blocks).await, stage.hashes_above(before));
}

#[tokio::test(start_paused = true)]
async fn logs_that_no_node_gives_drop_whom_they_concern() {
    let stage = Stage::new(Way::Both, "chain = { timeout = \"2s\" }\n").await;
    let (blocks, logs) = (stage.blocks().await, stage.logs(&json!({})).await);
    let other = stage.logs(&json!({"fromBlock": "0x1000000"})).await;
    let before = stage.head();
    stage.devnet.nodes().for_each(|node| node.set_fault(no_logs()));
    stage.devnet.chain().mine(1);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(stage.poll(&logs).await, Vec::<Value>::new(), "they may still come");
    sleep(Duration::from_secs(10)).await;
    assert!(stage.is_gone(&logs).await);
    assert_eq!(stage.poll(&blocks).await, stage.hashes_above(before));
    assert_eq!(stage.poll(&other).await, Vec::<Value>::new());
}

#[tokio::test(start_paused = true)]
async fn filters_that_blooms_may_have_cost_logs_are_dropped() {
    let stage = Stage::new(Way::Both, "").await;
    let unwanted = json!({"address": format!("0x{}", "12".repeat(20))});
    let (early, blocks) = (stage.logs(&unwanted).await, stage.blocks().await);
    let before = stage.head();
    let mine = async || {
        stage.devnet.chain().mine(1);
        sleep(Duration::from_secs(1)).await;
    };
    // The first blocks are looked at, and some of the others passed over for their bloom filters.
    for _ in 0..40 {
        mine().await;
    }
    assert_eq!(stage.poll(&early).await, Vec::<Value>::new());
    stage.devnet.nodes().for_each(|node| node.set_fault(Fault::BlindBlooms));
    let mut last = stage.logs(&unwanted).await;
    // A block in eight is looked at all the same, by its hash, which is another in every run.
    for round in 0.. {
        if stage.proxy.metric("steadfast_bloom_contradictions_total", "").await > 0.0 {
            break;
        }
        assert!(round < 400, "no block is looked at");
        stage.result("eth_uninstallFilter", &json!([last])).await;
        last = stage.logs(&unwanted).await;
        mine().await;
    }
    assert!(stage.is_gone(&early).await, "nobody looked at some blocks");
    assert_eq!(stage.poll(&last).await, Vec::<Value>::new(), "its only block was looked at");
    assert_eq!(stage.proxy.metric("steadfast_filters_dropped_total", "reason=\"gap\"").await, 1.0);
    assert_eq!(stage.poll(&blocks).await, stage.hashes_above(before));
    let (late, before) = (stage.logs(&json!({})).await, stage.head());
    for _ in 0..10 {
        mine().await;
    }
    assert_eq!(stage.poll(&late).await, stage.logs_above(before, &json!({})).await);
}
