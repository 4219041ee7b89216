//! Filters of transactions that wait for a block.

use serde_json::{Value, json};
use steadfast::devnet::Fault;
use tokio::time::{Duration, sleep};

use super::stage::{Stage, Way};

impl Stage {
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
        let stage = Stage::new(way, "").await;
        let filter = stage.transactions().await;
        assert_eq!(stage.poll(&filter).await, Vec::<Value>::new());
        let sent = stage.send(3);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(stage.poll(&filter).await, sent, "{way:?}");
        assert_eq!(stage.poll(&filter).await, Vec::<Value>::new());
        let later = stage.transactions().await;
        let more = stage.send(2);
        sleep(Duration::from_secs(1)).await;
        assert_eq!((stage.poll(&filter).await, stage.poll(&later).await), (more.clone(), more));
        let subscribed = |method| stage.devnet.nodes().map(|node| node.count(method)).sum::<u64>();
        assert_eq!(subscribed("eth_newPendingTransactionFilter"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn transactions_come_from_another_node_after_a_switch() {
    for way in [Way::Both, Way::Http] {
        let stage = Stage::new(way, "").await;
        let filter = stage.transactions().await;
        stage.devnet.el(0).set_fault(Fault::Down);
        stage.active("el-2").await;
        sleep(Duration::from_secs(3)).await;
        stage.poll(&filter).await;
        let sent = stage.send(3);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(stage.poll(&filter).await, sent, "{way:?}");
        stage.devnet.el(0).clear_faults();
        stage.active("el-1").await;
        sleep(Duration::from_secs(5)).await;
        let sent = stage.send(3);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(stage.poll(&filter).await, sent, "{way:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_no_node_pushes_one_filter_at_a_node_serves_all() {
    let stage = Stage::new(Way::Http, "").await;
    let filters = [stage.transactions().await, stage.transactions().await];
    let sent = stage.send(2);
    sleep(Duration::from_secs(2)).await;
    for filter in &filters {
        assert_eq!(stage.poll(filter).await, sent);
    }
    assert_eq!(stage.devnet.el(0).count("eth_newPendingTransactionFilter"), 1);
    for filter in &filters {
        stage.result("eth_uninstallFilter", &json!([filter])).await;
    }
    let polls = stage.devnet.el(0).count("eth_getFilterChanges");
    sleep(Duration::from_secs(10)).await;
    assert_eq!(stage.devnet.el(0).count("eth_getFilterChanges"), polls, "nobody wants it any more");
}

#[tokio::test(start_paused = true)]
async fn what_no_node_can_tell_is_refused() {
    let stage = Stage::new(Way::Http, "").await;
    stage.devnet.nodes().for_each(|node| node.set_fault(Fault::not_offered(&["eth_newPendingTransactionFilter"])));
    let (code, message) = stage.error("eth_newPendingTransactionFilter", &json!([])).await;
    assert_eq!(code, -32601);
    assert!(message.contains("eth_newPendingTransactionFilter"), "not the node's own words: {message}");
    assert_eq!(stage.proxy.metric("steadfast_filters", "kind=\"transactions\"").await, 0.0);
    let asked = || stage.devnet.nodes().map(|node| node.count("eth_newPendingTransactionFilter")).sum::<u64>();
    let before = asked();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(asked(), before, "nodes are asked though nobody has a filter");
}

#[tokio::test(start_paused = true)]
async fn where_one_node_has_no_such_filter_another_is_asked() {
    for away in
        [Fault::not_offered(&["eth_newPendingTransactionFilter"]), Fault::refuse(&["eth_newPendingTransactionFilter"])]
    {
        let stage = Stage::new(Way::Http, "").await;
        stage.devnet.el(0).set_fault(away);
        let filter = stage.transactions().await;
        let sent = stage.send(3);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(stage.poll(&filter).await, sent);
        // The first is asked again after a while, not with every poll.
        assert_eq!(stage.devnet.el(0).count("eth_newPendingTransactionFilter"), 1);
        assert_eq!(stage.devnet.el(1).count("eth_newPendingTransactionFilter"), 1);
        assert_eq!(stage.proxy.side().await["active"], "el-1", "calls stay where they are");
        stage.devnet.el(0).clear_faults();
        sleep(Duration::from_secs(90)).await;
        stage.poll(&filter).await;
        let sent = stage.send(2);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(stage.poll(&filter).await, sent, "the first has it now");
        assert_eq!(stage.devnet.el(0).count("eth_newPendingTransactionFilter"), 2);
    }
}
