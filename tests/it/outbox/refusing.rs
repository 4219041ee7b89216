//! Nodes that refuse: how often they are asked again, and whose refusal ends a transaction.

use std::{
    fmt::Write,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use steadfast::devnet::Fault;

use super::*;
use crate::common::origin::{self, Origin, Reply, Seen};

/// A node's answer to a transaction.
type Script = Box<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// Nodes that answer a transaction by these scripts and know none, the last one a backup; and a
/// proxy before them.
async fn before<const N: usize>(more: &str, scripts: [Script; N]) -> (Proxy, Vec<Origin>) {
    let net = Net::default();
    let mut origins = Vec::new();
    for script in scripts {
        let asked = move |seen: &Seen| match seen.method().as_str() {
            SEND => script(seen),
            "eth_getTransactionCount" => Reply::result(seen, "\"0x0\""),
            _ => Reply::result(seen, "null"),
        };
        origins.push(Origin::within(&net, asked).await);
    }
    let mut settings = format!("[calls]\nhold = \"2s\"\n{more}");
    for (index, origin) in origins.iter().enumerate() {
        let tier = if index + 1 == origins.len() { "backup" } else { "primary" };
        writeln!(settings, "[[el.{tier}]]\nname = \"el-{index}\"\nhttp = \"{}\"", origin.url()).unwrap();
    }
    let proxy = Proxy::launch(&net, &settings).await;
    until("the nodes are up", async || proxy.verdicts().await.iter().all(|verdict| verdict == "up")).await;
    (proxy, origins)
}

fn saying(message: &'static str) -> Script {
    Box::new(move |seen| Reply::error(seen, -32000, message))
}

async fn state(proxy: &Proxy) -> String {
    let status = proxy.post(call(2, STATUS, &format!("[\"{}\"]", hash(0)))).await.json();
    status["result"]["state"].as_str().unwrap_or("none").to_owned()
}

/// Nodes refuse for quota once, and are well from then on.
#[tokio::test(start_paused = true)]
async fn a_node_whose_rest_is_over_is_sent_transactions() {
    let scene = Scene::start("[outbox]\nack = \"disk\"\n").await;
    (0..3).for_each(|index| scene.node(index).set_fault(Fault::quota(&[SEND])));
    let hash = scene.sent(0).await;
    until("each node has refused", async || (0..3).all(|index| scene.node(index).count(SEND) > 0)).await;
    (0..3).for_each(|index| scene.node(index).clear_faults());
    let start = Instant::now();
    scene.until_state(hash, "sent").await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // All of them, each for its own part.
    for index in 0..3 {
        until("each node has it", async || scene.node(index).mempool() == [hash]).await;
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_used_nonce_is_sent_five_times_a_minute_at_most() {
    let words = "nonce too low: next nonce 5, tx nonce 0";
    let (proxy, origins) = before("[outbox]\nresend_blocks = 1\n", [saying(words), saying(words)]).await;
    let _chain = origin::chain(&origins);
    sleep(Duration::from_secs(5)).await;
    proxy.post(send(&transaction(0).0)).await;
    sleep(Duration::from_secs(60)).await;
    for origin in &origins {
        let (sends, looks) = (origin.count(SEND), origin.count("eth_getTransactionByHash"));
        assert!((3..=5).contains(&sends), "{sends}");
        assert!(looks <= 40, "{looks}");
    }
    assert_eq!(state(&proxy).await, "accepted");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_those_that_it_is_sent_to_is_enough() {
    let gas = "intrinsic gas too low: have 20000, want 21000";
    for send_to in ["tier", "first"] {
        let more = format!("[outbox]\nsend_to = \"{send_to}\"\n");
        let (proxy, origins) = before(&more, [saying(gas), saying(gas), saying("busy")]).await;
        let answer = proxy.post(send(&transaction(0).0)).await.json();
        let (code, reason, message) = error(&answer);
        assert_eq!((code, reason), (-32000, "refused_by_nodes"), "{send_to}: {answer}");
        assert!(message.contains("intrinsic gas too low"), "{message}");
        assert_eq!(state(&proxy).await, "refused");
        assert_eq!(origins[2].count(SEND), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_node_is_sent_it_again_while_another_has_it() {
    let is_full = AtomicBool::new(true);
    let fills = move |seen: &Seen| match is_full.swap(false, SeqCst) {
        true => Reply::error(seen, -32000, "txpool is full"),
        false => Reply::result(seen, &json!(hash(0)).to_string()),
    };
    let takes = |seen: &Seen| Reply::result(seen, &json!(hash(0)).to_string());
    let (proxy, origins) = before("[outbox]\n", [Box::new(takes), Box::new(fills)]).await;
    let answer = proxy.post(send(&transaction(0).0)).await.json();
    assert_eq!(answer["result"], json!(hash(0)), "{answer}");
    sleep(Duration::from_secs(60)).await;
    assert_eq!([0, 1].map(|index: usize| origins[index].count(SEND)), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_type_is_no_transaction_that_is_known() {
    let (proxy, _origins) = before("[outbox]\n", [saying("unknown transaction type"), saying("busy")]).await;
    proxy.post(send(&transaction(0).0)).await;
    assert_eq!(state(&proxy).await, "accepted");
}

/// No node is for transactions by the settings, so none is kept.
#[tokio::test(start_paused = true)]
async fn no_transaction_is_kept_that_no_node_may_get() {
    let mut scene = Scene::start(ON).await;
    scene.settings = scene.settings.replace("http = ", &format!("not_methods = [\"{SEND}\"]\nhttp = "));
    scene.restart().await;
    scene.until_verdicts(["up", "up", "up"]).await;
    let (code, reason, _) = error(&scene.send(&transaction(0).0).await);
    assert_eq!((code, reason), (-32601, "method_not_offered"));
    assert_eq!(scene.status(hash(0)).await, Value::Null);
}
