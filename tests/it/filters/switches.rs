//! Filters while nodes go and come back, and calls with them.

use serde_json::{Value, json};
use steadfast::devnet::Fault;
use tokio::time::{Duration, sleep};

use super::setup::{Setup, Way};
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
    async fn new(setup: &Setup) -> Self {
        let (blocks, logs) = (setup.blocks().await, setup.logs(&json!({})).await);
        Self { blocks, logs, before: setup.head(), told: Default::default() }
    }

    async fn poll(&mut self, setup: &Setup) {
        self.told.0.extend(setup.poll(&self.blocks).await);
        self.told.1.extend(setup.poll(&self.logs).await);
    }

    /// Waits until everything was told, and that nothing was told twice.
    async fn is_whole(&mut self, setup: &Setup) {
        let expected = setup.hashes_above(self.before);
        until("all blocks were told", async || {
            self.poll(setup).await;
            self.told.0.len() >= expected.len()
        })
        .await;
        sleep(Duration::from_secs(3)).await;
        self.poll(setup).await;
        assert_eq!(self.told.0, expected);
        assert_eq!(self.told.1, setup.logs_above(self.before, &json!({})).await);
    }
}

#[tokio::test(start_paused = true)]
async fn filters_outlive_their_node_and_its_return() {
    for way in [Way::Http, Way::Link, Way::Both] {
        for fault in [Fault::Down, Fault::Hang, Fault::Failing] {
            let setup = Setup::new(way, "").await;
            let mut followed = Followed::new(&setup).await;
            let mine = async |count: u64, followed: &mut Followed| {
                for _ in 0..count {
                    setup.devnet.chain().mine(1);
                    sleep(Duration::from_millis(700)).await;
                    followed.poll(&setup).await;
                }
            };
            mine(3, &mut followed).await;
            setup.devnet.el(0).set_fault(fault.clone());
            mine(6, &mut followed).await;
            setup.active("el-2").await;
            setup.devnet.el(0).clear_faults();
            setup.active("el-1").await;
            mine(3, &mut followed).await;
            followed.is_whole(&setup).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_answered_while_its_node_hangs() {
    let setup = Setup::new(Way::Http, "").await;
    let blocks = setup.blocks().await;
    setup.devnet.nodes().for_each(|node| node.set_fault(Fault::Hang));
    let began = tokio::time::Instant::now();
    assert_eq!(setup.poll(&blocks).await, Vec::<Value>::new());
    assert!(began.elapsed() <= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn filters_outlive_a_switch_to_a_node_that_reset_before() {
    let settings = "[chain]\ntimeout = \"3s\"\n[health]\ninterval = \"500ms\"\n";
    for way in [Way::Http, Way::Both] {
        // Whether it had been out for that, and not only failed some probes.
        for reset in [1000, 3000, 6000] {
            let setup = Setup::new(way, settings).await;
            let mut followed = Vec::new();
            for _ in 0..24 {
                followed.push(Followed::new(&setup).await);
            }
            let mut mine = async |ms: u64| {
                for _ in 0..ms / 250 {
                    setup.devnet.chain().mine(1);
                    sleep(Duration::from_millis(250)).await;
                    for one in &mut followed {
                        one.poll(&setup).await;
                    }
                }
            };
            let backup = setup.devnet.el(1);
            backup.set_fault(Fault::Down);
            sleep(Duration::from_millis(1)).await;
            backup.clear_faults();
            backup.set_fault(Fault::max_connections(0));
            mine(reset).await;
            backup.clear_faults();
            backup.set_fault(Fault::slow_over(400, &["eth_getLogs"]));
            mine(4000).await;
            setup.devnet.el(0).set_fault(Fault::Down);
            mine(10_000).await;
            assert_eq!(setup.proxy.metric("steadfast_filters_dropped_total", "").await, 0.0, "{way:?} {reset}");
            for one in &mut followed {
                one.is_whole(&setup).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn filters_outlive_resets_under_which_the_link_stayed() {
    for (reset, rest) in [(1000, 0), (3000, 0), (3000, 4000), (6000, 1000), (12_000, 0), (12_000, 4000)] {
        let setup = Setup::new(Way::Both, "").await;
        let mut followed = Followed::new(&setup).await;
        let mut mine = async |ms: u64| {
            for _ in 0..ms / 250 {
                setup.devnet.chain().mine(1);
                sleep(Duration::from_millis(250)).await;
                followed.poll(&setup).await;
            }
        };
        // Until the pace is known, the logs of a block have more time.
        mine(2000).await;
        let backup = setup.devnet.el(1);
        backup.set_fault(Fault::cut_answer(&["*"]));
        backup.set_fault(Fault::max_connections(0));
        mine(reset).await;
        assert_eq!(backup.websockets_open(), 1, "the link was lost");
        backup.clear_faults();
        backup.set_fault(Fault::slow_over(400, &["eth_getLogs"]));
        mine(rest).await;
        setup.devnet.el(0).set_fault(Fault::Down);
        mine(15_000).await;
        assert_eq!(setup.proxy.metric("steadfast_filters_dropped_total", "").await, 0.0, "{reset} {rest}");
        followed.is_whole(&setup).await;
    }
}

#[tokio::test(start_paused = true)]
async fn filters_outlive_a_time_without_nodes() {
    let setup = Setup::new(Way::Both, "").await;
    let mut followed = Followed::new(&setup).await;
    setup.devnet.chain().mine(1);
    sleep(Duration::from_secs(1)).await;
    setup.devnet.nodes().for_each(|node| node.set_fault(Fault::Down));
    for _ in 0..8 {
        sleep(Duration::from_millis(500)).await;
        setup.devnet.chain().mine(1);
        followed.poll(&setup).await;
    }
    setup.devnet.nodes().for_each(|node| node.clear_faults());
    setup.active("el-1").await;
    followed.is_whole(&setup).await;
}

#[tokio::test(start_paused = true)]
async fn filters_do_not_depend_on_where_calls_go() {
    let setup = Setup::new(Way::Http, "calls = { policy = \"spread\" }\n").await;
    let mut followed = Followed::new(&setup).await;
    for _ in 0..20 {
        setup.devnet.chain().mine(1);
        sleep(Duration::from_millis(300)).await;
        followed.poll(&setup).await;
    }
    followed.is_whole(&setup).await;
}

#[tokio::test(start_paused = true)]
async fn filters_outlive_a_reload() {
    let setup = Setup::new(Way::Both, "").await;
    let mut followed = Followed::new(&setup).await;
    for attempts in [2, 4, 5] {
        setup.devnet.chain().mine(1);
        sleep(Duration::from_millis(500)).await;
        setup.proxy.reload(&format!("calls = {{ attempts = {attempts} }}\n{}", setup.settings)).await;
        setup.devnet.chain().mine(1);
        followed.poll(&setup).await;
    }
    followed.is_whole(&setup).await;
}

#[tokio::test(start_paused = true)]
async fn a_reorganisation_in_the_switch_is_told_whole() {
    let setup = Setup::new(Way::Both, "").await;
    let logs = setup.logs(&json!({})).await;
    let before = setup.head();
    setup.devnet.chain().mine(4);
    sleep(Duration::from_secs(1)).await;
    let mut told = setup.poll(&logs).await;
    setup.devnet.el(0).set_fault(Fault::Down);
    setup.devnet.chain().reorg_to(3, 5).unwrap();
    sleep(Duration::from_secs(5)).await;
    told.extend(setup.poll(&logs).await);
    let mut standing: Vec<Value> = Vec::new();
    for log in told {
        if log["removed"] == true {
            let last = standing.pop().unwrap();
            assert_eq!((&last["blockHash"], &last["logIndex"]), (&log["blockHash"], &log["logIndex"]));
        } else {
            standing.push(log);
        }
    }
    assert_eq!(standing, setup.logs_above(before, &json!({})).await);
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_cannot_be_filled_drops_the_filters() {
    let setup = Setup::new(Way::Http, "chain = { window = 8, max_backfill = 4 }\n").await;
    let (blocks, logs) = (setup.blocks().await, setup.logs(&json!({})).await);
    setup.devnet.nodes().for_each(|node| node.set_fault(Fault::Down));
    sleep(Duration::from_secs(3)).await;
    setup.devnet.chain().mine(20);
    setup.devnet.nodes().for_each(|node| node.clear_faults());
    setup.active("el-1").await;
    sleep(Duration::from_secs(5)).await;
    assert!(setup.is_gone(&blocks).await && setup.is_gone(&logs).await);
    assert_eq!(setup.proxy.metric("steadfast_filters_dropped_total", "reason=\"gap\"").await, 2.0);
    let blocks = setup.blocks().await;
    let before = setup.head();
    setup.devnet.chain().mine(2);
    sleep(Duration::from_secs(3)).await;
    assert_eq!(setup.poll(&blocks).await, setup.hashes_above(before));
}

#[tokio::test(start_paused = true)]
async fn logs_that_no_node_gives_drop_whom_they_concern() {
    let setup = Setup::new(Way::Both, "chain = { timeout = \"2s\" }\n").await;
    let (blocks, logs) = (setup.blocks().await, setup.logs(&json!({})).await);
    let other = setup.logs(&json!({"fromBlock": "0x1000000"})).await;
    let before = setup.head();
    setup.devnet.nodes().for_each(|node| node.set_fault(no_logs()));
    setup.devnet.chain().mine(1);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(setup.poll(&logs).await, Vec::<Value>::new(), "they may still come");
    sleep(Duration::from_secs(10)).await;
    assert!(setup.is_gone(&logs).await);
    assert_eq!(setup.poll(&blocks).await, setup.hashes_above(before));
    assert_eq!(setup.poll(&other).await, Vec::<Value>::new());
}

#[tokio::test(start_paused = true)]
async fn filters_that_blooms_may_have_cost_logs_are_dropped() {
    let setup = Setup::new(Way::Both, "").await;
    let unwanted = json!({"address": format!("0x{}", "12".repeat(20))});
    let (early, blocks) = (setup.logs(&unwanted).await, setup.blocks().await);
    let before = setup.head();
    let mine = async || {
        setup.devnet.chain().mine(1);
        sleep(Duration::from_secs(1)).await;
    };
    // The first blocks are looked at, and some of the others passed over for their bloom filters.
    for _ in 0..40 {
        mine().await;
    }
    assert_eq!(setup.poll(&early).await, Vec::<Value>::new());
    setup.devnet.nodes().for_each(|node| node.set_fault(Fault::BlindBlooms));
    let mut last = setup.logs(&unwanted).await;
    // A block in eight is looked at all the same, by its hash, which is another in every run.
    for round in 0.. {
        if setup.proxy.metric("steadfast_bloom_contradictions_total", "").await > 0.0 {
            break;
        }
        assert!(round < 400, "no block is looked at");
        setup.result("eth_uninstallFilter", &json!([last])).await;
        last = setup.logs(&unwanted).await;
        mine().await;
    }
    assert!(setup.is_gone(&early).await, "nobody looked at some blocks");
    assert_eq!(setup.poll(&last).await, Vec::<Value>::new(), "its only block was looked at");
    assert_eq!(setup.proxy.metric("steadfast_filters_dropped_total", "reason=\"gap\"").await, 1.0);
    assert_eq!(setup.poll(&blocks).await, setup.hashes_above(before));
    let (late, before) = (setup.logs(&json!({})).await, setup.head());
    for _ in 0..10 {
        mine().await;
    }
    assert_eq!(setup.poll(&late).await, setup.logs_above(before, &json!({})).await);
}
