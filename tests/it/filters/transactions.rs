//! Filters of transactions that wait for a block.

use serde_json::{Value, json};
use steadfast::devnet::Fault;
use tokio::time::{Duration, Instant, sleep};

use super::setup::{POLL, Setup, Way};
use crate::common::{client::call, until};

impl Setup {
    async fn transactions(&self) -> Value {
        self.result("eth_newPendingTransactionFilter", &json!([])).await
    }

    /// Sends transactions to the pretend chain, and gives their hashes.
    fn send(&self, count: u64) -> Vec<Value> {
        let chain = self.devnet.chain();
        let [from, to] = [0, 1].map(|index| chain.account(index));
        (0..count).map(|n| chain.send_unlocked(from, to, n, Vec::new()).unwrap().to_string().into()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_of_transactions_tells_their_hashes() {
    for way in [Way::Both, Way::Link] {
        let setup = Setup::new(way, "").await;
        let filter = setup.transactions().await;
        assert_eq!(setup.poll(&filter).await, Vec::<Value>::new());
        let sent = setup.send(3);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(setup.poll(&filter).await, sent, "{way:?}");
        assert_eq!(setup.poll(&filter).await, Vec::<Value>::new());
        let later = setup.transactions().await;
        let more = setup.send(2);
        sleep(Duration::from_secs(1)).await;
        assert_eq!((setup.poll(&filter).await, setup.poll(&later).await), (more.clone(), more));
        let subscribed = |method| setup.devnet.nodes().map(|node| node.count(method)).sum::<u64>();
        assert_eq!(subscribed("eth_newPendingTransactionFilter"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_behind_the_kept_transactions_is_dropped() {
    // Sixteen transactions are kept for each block that is.
    let setup = Setup::new(Way::Both, "filters = { max_backlog_blocks = 16 }\n").await;
    let (behind, polled) = (setup.transactions().await, setup.transactions().await);
    for _ in 0..10 {
        let sent = setup.send(40);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(setup.poll(&polled).await, sent);
    }
    assert!(setup.is_gone(&behind).await);
    let dropped = setup.proxy.metric("steadfast_filters_dropped_total", "reason=\"backlog\"").await;
    assert_eq!((dropped, setup.poll(&polled).await), (1.0, Vec::<Value>::new()));
}

#[tokio::test(start_paused = true)]
async fn transactions_come_from_another_node_after_a_switch() {
    for way in [Way::Both, Way::Http] {
        let setup = Setup::new(way, "").await;
        let filter = setup.transactions().await;
        setup.devnet.el(0).set_fault(Fault::Down);
        setup.active("el-2").await;
        sleep(Duration::from_secs(3)).await;
        setup.poll(&filter).await;
        let sent = setup.send(3);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(setup.poll(&filter).await, sent, "{way:?}");
        setup.devnet.el(0).clear_faults();
        setup.active("el-1").await;
        sleep(Duration::from_secs(5)).await;
        let sent = setup.send(3);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(setup.poll(&filter).await, sent, "{way:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_die_twice_in_a_row_are_asked_for_filters_at_once() {
    let setup = Setup::new(Way::Http, "").await;
    let filter = setup.transactions().await;
    for _ in 0..3 {
        setup.devnet.nodes().for_each(|node| node.set_fault(Fault::Down));
        until("no node is usable", async || setup.proxy.side().await["active"].is_null()).await;
        setup.devnet.nodes().for_each(|node| node.clear_faults());
        setup.active("el-1").await;
        sleep(Duration::from_secs(3)).await;
        setup.poll(&filter).await;
        let sent = setup.send(3);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(setup.poll(&filter).await, sent);
    }
}

#[tokio::test(start_paused = true)]
async fn where_no_node_pushes_one_filter_at_a_node_serves_all() {
    let setup = Setup::new(Way::Http, "").await;
    let filters = [setup.transactions().await, setup.transactions().await];
    let sent = setup.send(2);
    sleep(Duration::from_secs(2)).await;
    for filter in &filters {
        assert_eq!(setup.poll(filter).await, sent);
    }
    assert_eq!(setup.devnet.el(0).count("eth_newPendingTransactionFilter"), 1);
    for filter in &filters {
        setup.result("eth_uninstallFilter", &json!([filter])).await;
    }
    sleep(Duration::from_secs(6)).await;
    assert_eq!(setup.devnet.el(0).count("eth_uninstallFilter"), 1, "nobody wants it any more");
    let polls = setup.devnet.el(0).count("eth_getFilterChanges");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(setup.devnet.el(0).count("eth_getFilterChanges"), polls);
}

#[tokio::test(start_paused = true)]
async fn a_client_in_a_loop_makes_one_filter_at_a_node() {
    let setup = Setup::new(Way::Http, "").await;
    let count = |method| setup.devnet.el(0).count(method);
    for _ in 0..20 {
        let filter = setup.transactions().await;
        setup.result("eth_uninstallFilter", &json!([filter])).await;
        sleep(Duration::from_millis(700)).await;
    }
    assert_eq!((count("eth_newPendingTransactionFilter"), count("eth_uninstallFilter")), (1, 0));
    sleep(Duration::from_secs(6)).await;
    assert_eq!((count("eth_newPendingTransactionFilter"), count("eth_uninstallFilter")), (1, 1));
    let filter = setup.transactions().await;
    let sent = setup.send(2);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(setup.poll(&filter).await, sent, "the next client has a new one");
    assert_eq!((count("eth_newPendingTransactionFilter"), count("eth_uninstallFilter")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_leaves_no_filter_at_a_node() {
    let setup = Setup::new(Way::Http, "").await;
    let count = |method| setup.devnet.el(0).count(method);
    // The node is still making the filter when the client leaves.
    setup.devnet.el(0).set_fault(Fault::slow_over(4500, &["eth_newPendingTransactionFilter"]));
    let mut client = setup.proxy.ws().await;
    client.send(call(1, "eth_newPendingTransactionFilter", "[]")).await;
    sleep(Duration::from_millis(200)).await;
    drop(client);
    sleep(Duration::from_secs(15)).await;
    assert_eq!((count("eth_newPendingTransactionFilter"), count("eth_uninstallFilter")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn transaction_filter_is_refused_where_no_node_offers_it() {
    let setup = Setup::new(Way::Http, "").await;
    setup.devnet.nodes().for_each(|node| node.set_fault(Fault::not_offered(&["eth_newPendingTransactionFilter"])));
    let (code, message) = setup.error("eth_newPendingTransactionFilter", &json!([])).await;
    assert_eq!(code, -32601);
    assert!(message.contains("eth_newPendingTransactionFilter"), "not the node's own words: {message}");
    assert_eq!(setup.proxy.metric("steadfast_filters", "kind=\"transactions\"").await, 0.0);
    let asked = || setup.devnet.nodes().map(|node| node.count("eth_newPendingTransactionFilter")).sum::<u64>();
    let before = asked();
    sleep(Duration::from_secs(150)).await;
    assert_eq!(asked(), before, "nodes are asked though nobody has a filter");
}

#[tokio::test(start_paused = true)]
async fn where_one_node_has_no_such_filter_another_is_asked() {
    for away in
        [Fault::not_offered(&["eth_newPendingTransactionFilter"]), Fault::refuse(&["eth_newPendingTransactionFilter"])]
    {
        let setup = Setup::new(Way::Http, "").await;
        setup.devnet.el(0).set_fault(away);
        let filter = setup.transactions().await;
        let sent = setup.send(3);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(setup.poll(&filter).await, sent);
        // The first is asked again after a while, not with every poll.
        assert_eq!(setup.devnet.el(0).count("eth_newPendingTransactionFilter"), 1);
        assert_eq!(setup.devnet.el(1).count("eth_newPendingTransactionFilter"), 1);
        assert_eq!(setup.proxy.side().await["active"], "el-1", "calls stay where they are");
        setup.devnet.el(0).clear_faults();
        sleep(Duration::from_secs(90)).await;
        setup.poll(&filter).await;
        let sent = setup.send(2);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(setup.poll(&filter).await, sent, "the first has it now");
        assert_eq!(setup.devnet.el(0).count("eth_newPendingTransactionFilter"), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_taken_out_keeps_no_filter() {
    let setup = Setup::new(Way::Http, "").await;
    // Calls stay at the first node, so that its place is no reason to leave the other.
    setup.devnet.el(0).set_fault(Fault::not_offered(&["eth_newPendingTransactionFilter"]));
    let filter = setup.transactions().await;
    let asked = || setup.devnet.el(1).count(POLL);
    let before = asked();
    sleep(Duration::from_secs(3)).await;
    assert!(asked() > before, "the filter is not at the second node");
    setup.proxy.operate("/nodes/el-2/cordon").await;
    sleep(Duration::from_secs(1)).await;
    let before = asked();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(asked(), before, "the node is polled on");
    assert_eq!(setup.devnet.el(1).count("eth_uninstallFilter"), 1);
    setup.proxy.operate("/nodes/el-2/uncordon").await;
    sleep(Duration::from_secs(3)).await;
    setup.poll(&filter).await;
    let sent = setup.send(2);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(setup.poll(&filter).await, sent);
    assert_eq!(setup.proxy.side().await["active"], "el-1", "calls stay where they are");
}

/// What makes filters at a node useless, though it makes them.
fn useless() -> [Fault; 4] {
    [
        Fault::refuse(&[POLL]),
        Fault::tells(POLL, json!({ "a": 1 })),
        Fault::tells("eth_newPendingTransactionFilter", Value::Null),
        Fault::tells(POLL, odd()),
    ]
}

/// A hash, and what is none.
fn odd() -> Value {
    json!([hash(), { "hash": 1 }, null, 7, "0x12", format!("0x{}", "zz".repeat(32))])
}

fn hash() -> String {
    format!("0x{}", "cd".repeat(32))
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_filter_is_useless_is_left_for_another() {
    for fault in useless() {
        let setup = Setup::new(Way::Http, "").await;
        let count = |node: usize, method| setup.devnet.el(node).count(method);
        setup.devnet.el(0).set_fault(fault.clone());
        let filter = setup.transactions().await;
        let sent = setup.send(3);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(setup.poll(&filter).await, sent, "{fault:?}");
        sleep(Duration::from_secs(30)).await;
        assert!(count(0, "eth_newPendingTransactionFilter") <= 2, "{fault:?}");
        assert_eq!(count(1, "eth_newPendingTransactionFilter"), 1, "{fault:?}");
        let has_id = !matches!(&fault, Fault::Tells { method, .. } if method != POLL);
        assert_eq!(count(0, POLL) > 0, has_id, "{fault:?}");
        let made = if has_id { count(0, "eth_newPendingTransactionFilter") } else { 0 };
        assert_eq!(count(0, "eth_uninstallFilter"), made, "{fault:?}");
        assert_eq!(setup.proxy.side().await["active"], "el-1", "calls stay where they are");
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_worked_and_fails_is_left_for_another() {
    for fault in useless() {
        let setup = Setup::new(Way::Http, "").await;
        let filter = setup.transactions().await;
        sleep(Duration::from_secs(20)).await;
        setup.devnet.el(0).set_fault(fault.clone());
        if !matches!(fault, Fault::Tells { ref method, .. } if method != POLL) {
            sleep(Duration::from_secs(5)).await;
            assert!(setup.poll(&filter).await.iter().all(|told| *told == hash()), "{fault:?}");
        }
        let sent = setup.send(3);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(setup.poll(&filter).await, sent, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_no_other_node_is_left_one_is_soon_asked_again() {
    let setup = Setup::new(Way::Http, "").await;
    let filter = setup.transactions().await;
    setup.devnet.nodes().for_each(|node| node.set_fault(Fault::refuse(&[POLL])));
    sleep(Duration::from_secs(15)).await;
    setup.devnet.nodes().for_each(|node| node.clear_faults());
    sleep(Duration::from_secs(8)).await;
    setup.poll(&filter).await;
    let sent = setup.send(3);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(setup.poll(&filter).await, sent);
}

#[tokio::test(start_paused = true)]
async fn transaction_that_is_no_hash_is_not_sent() {
    let setup = Setup::new(Way::Http, "").await;
    let filter = setup.transactions().await;
    setup.devnet.nodes().for_each(|node| node.set_fault(Fault::tells(POLL, odd())));
    sleep(Duration::from_secs(8)).await;
    let told = setup.poll(&filter).await;
    assert!(!told.is_empty() && told.iter().all(|told| *told == hash()), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn where_no_node_can_be_polled_that_is_said_soon() {
    let setup = Setup::new(Way::Http, "").await;
    setup.devnet.nodes().for_each(|node| node.set_fault(Fault::refuse(&[POLL])));
    let began = Instant::now();
    let (code, message) = setup.error("eth_newPendingTransactionFilter", &json!([])).await;
    assert_eq!((code, message.contains("filter not found")), (-32002, false), "{message}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(setup.proxy.metric("steadfast_filters", "kind=\"transactions\"").await, 0.0);
}
