//! When a client gets the hash, and when an error.

use super::*;
use crate::common::{
    origin::{Origin, Reply, Seen},
    proxy::nodes,
};
use steadfast::devnet::Fault;

/// U1, U22: the hash comes after the sync, from every door.
#[tokio::test(start_paused = true)]
async fn a_transaction_is_on_disk_and_at_all_nodes_from_every_door() {
    let scene = Scene::start(ON).await;
    let syncs = scene.net.1.syncs();
    scene.sent(0).await;
    assert!(scene.net.1.syncs() > syncs, "the hash came before the sync");
    let (one, two) = (transaction(1), transaction(2));
    let batch = scene.proxy().post(format!("[{},{}]", send(&one.0), send(&two.0))).await.json();
    assert_eq!((&batch[0]["result"], &batch[1]["result"]), (&json!(one.1), &json!(two.1)), "{batch}");
    let mut ws = scene.proxy().ws().await;
    let three = transaction(3);
    let answer = ws.ask(send(&three.0)).await;
    assert_eq!(answer, format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{}"}}"#, three.1));
    for index in 0..3 {
        scene.until_mempool(index, &[hash(0), one.1, two.1, three.1]).await;
    }
    for nonce in 0..4 {
        scene.until_state(hash(nonce), "sent").await;
    }
}

/// U3: the same bytes again are the same transaction, also after a restart.
#[tokio::test(start_paused = true)]
async fn the_same_bytes_again_are_the_same_transaction() {
    let mut scene = Scene::start(ON).await;
    let hash = scene.sent(0).await;
    scene.until_mempool(2, &[hash]).await;
    let history = scene.history(hash).await;
    scene.sent(0).await;
    assert_eq!(scene.history(hash).await, history);
    let counts = || [0, 1, 2].map(|index| scene.node(index).count(SEND));
    assert_eq!(counts(), [1, 1, 1], "nodes were sent it twice");
    scene.restart().await;
    scene.sent(0).await;
    assert_eq!(scene.history(hash).await, history, "the life began anew");
}

#[tokio::test(start_paused = true)]
async fn the_first_good_word_of_a_node_gives_the_hash() {
    let scene = Scene::start(ON).await;
    scene.node(0).set_fault(Fault::slow_over(3_600_000, &[SEND]));
    let start = Instant::now();
    scene.sent(0).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

/// Where no node can be reached the client gets the hash after `calls.hold`, and the transaction is
/// sent when a node returns.
#[tokio::test(start_paused = true)]
async fn a_transaction_waits_for_nodes_that_are_all_down() {
    let scene = Scene::start(&["[calls]\nhold = \"3s\"\n", ON].concat()).await;
    for index in 0..3 {
        scene.node(index).set_fault(Fault::Down);
    }
    scene.until_verdicts(["down", "down", "down"]).await;
    let start = Instant::now();
    let hash = scene.sent(0).await;
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(scene.state(hash).await, "accepted");
    scene.node(1).clear_faults();
    scene.until_mempool(1, &[hash]).await;
    scene.until_state(hash, "sent").await;
}

/// Nodes that are out of quota give no word: the client has the hash after `calls.hold`, and no sooner.
#[tokio::test(start_paused = true)]
async fn nodes_without_quota_give_no_word() {
    let scene = Scene::start(&["[calls]\nhold = \"3s\"\n", ON].concat()).await;
    for index in 0..3 {
        scene.node(index).set_fault(Fault::Quota { methods: vec![SEND.to_owned()] });
    }
    let start = Instant::now();
    let hash = scene.sent(0).await;
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(scene.state(hash).await, "accepted");
    (0..3).for_each(|index| scene.node(index).clear_faults());
    scene.until_state(hash, "sent").await;
}

#[tokio::test(start_paused = true)]
async fn with_ack_disk_the_hash_does_not_wait_for_nodes() {
    let scene = Scene::start("[outbox]\nack = \"disk\"\n").await;
    for index in 0..3 {
        scene.node(index).set_fault(Fault::slow_over(3_600_000, &[SEND]));
    }
    let start = Instant::now();
    let hash = scene.sent(0).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(scene.state(hash).await, "accepted");
}

/// U10: errors in the nodes' kind, with a reason for programs.
#[tokio::test(start_paused = true)]
async fn bytes_that_no_node_can_take_are_refused_with_reasons() {
    let scene = Scene::start("[outbox]\nmax_transaction = \"200B\"\n").await;
    let (other_chain, _) = crate::common::signed::transaction(5, 1, 0, 1);
    let (good, _) = transaction(0);
    let long = format!("0x02{}", "00".repeat(300));
    for (raw, code, reason) in [
        ("0x", -32602, "malformed_transaction"),
        ("0x02c0", -32602, "malformed_transaction"),
        (&good[..good.len() - 2], -32602, "malformed_transaction"),
        ("0x7ec0", -32602, "unknown_transaction_type"),
        (&*other_chain, -32000, "other_chain"),
        (&*long, -32000, "transaction_too_large"),
    ] {
        let answer = scene.send(raw).await;
        let (got, why, message) = error(&answer);
        assert_eq!((got, why), (code, reason), "{answer}");
        assert!(!message.is_empty());
    }
    for params in ["[]", "[\"no hex\"]", "[7]", "{}"] {
        let answer = scene.ask(SEND, params).await;
        assert_eq!(error(&answer).0, -32602, "{params}: {answer}");
    }
    assert_eq!(scene.node(0).count(SEND), 0);
}

/// U25, U32: what a tenant may have is bounded.
#[tokio::test(start_paused = true)]
async fn a_full_outbox_refuses_and_names_the_bound() {
    let scene = Scene::start("[outbox]\nmax_pending = 2\n").await;
    scene.sent(0).await;
    scene.sent(1).await;
    let response: Response = scene.proxy().post(send(&transaction(2).0)).await;
    assert_eq!(response.status, 503);
    let answer = response.json();
    let (code, reason, message) = error(&answer);
    assert_eq!((code, reason), (-32005, "outbox_full"), "{answer}");
    assert!(message.contains("max_pending"), "{message}");
    scene.sent(1).await;
}

/// A proxy before nodes that answer a transaction so, and the client's answer.
async fn answered_by(scripts: [fn(&Seen) -> Reply; 2]) -> (Value, String) {
    let net = Net::default();
    let mut origins = Vec::new();
    for script in scripts {
        let asked = move |seen: &Seen| match seen.method().as_str() {
            SEND => script(seen),
            _ => Reply::result(seen, "null"),
        };
        origins.push(Origin::within(&net, asked).await);
    }
    let more = "[calls]\nhold = \"2s\"\n[outbox]\n";
    let proxy = Proxy::over(&net, origins.iter().map(Origin::url), "").await;
    proxy.app.shutdown().await;
    let proxy = Proxy::launch(&net, &[more, &nodes(origins.iter().map(Origin::url))].concat()).await;
    until("the nodes are up", async || proxy.verdicts().await == ["up", "up"]).await;
    let (raw, hash) = transaction(0);
    let answer = proxy.post(send(&raw)).await.json();
    let status = proxy.post(call(2, STATUS, &format!("[\"{hash}\"]"))).await.json();
    (answer, status["result"]["state"].as_str().unwrap_or("none").to_owned())
}

fn too_little_gas(seen: &Seen) -> Reply {
    Reply::error(seen, -32000, "intrinsic gas too low: have 20000, want 21000")
}

fn poor(seen: &Seen) -> Reply {
    Reply::error(seen, -32000, "insufficient funds for gas * price + value")
}

fn full(seen: &Seen) -> Reply {
    Reply::error(seen, -32000, "txpool is full")
}

fn already_known(seen: &Seen) -> Reply {
    Reply::error(seen, -32000, "already known")
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_good_by_all_nodes_is_the_clients_answer() {
    let (answer, state) = answered_by([too_little_gas, too_little_gas]).await;
    let (code, reason, message) = error(&answer);
    assert_eq!((code, reason), (-32000, "refused_by_nodes"), "{answer}");
    assert!(message.contains("intrinsic gas too low"), "{message}");
    assert_eq!(state, "refused");
}

/// As without an outbox: the client hears of it, and pays nobody twice.
#[tokio::test(start_paused = true)]
async fn want_of_funds_at_all_nodes_is_the_clients_answer() {
    for second in [poor, too_little_gas] as [fn(&Seen) -> Reply; 2] {
        let (answer, state) = answered_by([poor, second]).await;
        let (code, reason, message) = error(&answer);
        assert_eq!((code, reason, &*state), (-32000, "refused_by_nodes", "refused"), "{answer}");
        assert!(message.contains("insufficient funds") || message.contains("gas too low"), "{message}");
    }
}

/// A refusal that can pass ends nothing: the transaction is kept, and the client has its hash.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_can_pass_ends_nothing() {
    for (first, second) in
        [(full, full), (full, poor), (full, too_little_gas)] as [(fn(&Seen) -> Reply, fn(&Seen) -> Reply); 3]
    {
        let (answer, state) = answered_by([first, second]).await;
        assert!(answer["result"].is_string(), "{answer}");
        assert_eq!(state, "accepted");
    }
}

/// U31: 'already known' in any words is success.
#[tokio::test(start_paused = true)]
async fn a_node_that_knows_it_already_has_taken_it() {
    let (answer, state) = answered_by([already_known, poor]).await;
    assert!(answer["result"].is_string(), "{answer}");
    assert_eq!(state, "sent");
}

/// Without `[outbox]` calls go as before: to the nodes, which judge the bytes.
#[tokio::test(start_paused = true)]
async fn without_an_outbox_nodes_judge_the_bytes() {
    let scene = Scene::start("").await;
    let answer = scene.send("0x02c0").await;
    assert!(answer["result"].is_string(), "{answer}");
    assert_eq!(error(&scene.ask(STATUS, &format!("[\"{}\"]", hash(0))).await).0, -32601);
    assert_eq!(scene.net.1.changes(), 0, "a disk was used");
}

/// The call's end and that of `calls.hold` are the same, and the client hears the hash.
#[tokio::test(start_paused = true)]
async fn the_hash_comes_before_the_call_ends() {
    use steadfast::devnet::Fault;
    let scene = Scene::start("[calls]\ntimeout = \"10s\"\nhold = \"10s\"\n[outbox]\n").await;
    for index in 0..3 {
        scene.node(index).set_fault(Fault::slow_over(60_000, &[SEND]));
    }
    assert_eq!(scene.sent(0).await, hash(0));
}
