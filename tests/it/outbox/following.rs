//! A transaction's life in blocks, to its end.

use super::*;
use steadfast::devnet::Fault;

const TRANSACTION: &str = "eth_getTransactionByHash";

/// U24, U28: each transition once, in order, to the chain's own finality.
#[tokio::test(start_paused = true)]
async fn a_transaction_is_followed_until_its_block_is_final() {
    let scene = Scene::start(ON).await;
    let hash = scene.sent(0).await;
    scene.mine(1).await;
    scene.until_state(hash, "mined").await;
    let status = scene.status(hash).await;
    let head = scene.devnet.chain().head();
    assert_eq!(status["block"]["hash"], json!(head.hash), "{status}");
    assert_eq!(status["isOver"], false);
    scene.mine(1).await;
    scene.until_state(hash, "confirmed").await;
    scene.devnet.chain().mine(200);
    scene.mine(2).await;
    scene.until_state(hash, "final").await;
    assert_eq!(scene.history(hash).await, ["accepted", "sent", "mined", "confirmed", "final"]);
    assert_eq!(scene.status(hash).await["isOver"], true);
    // Nothing follows.
    let sends = scene.node(0).count(SEND);
    scene.mine(5).await;
    assert_eq!(scene.node(0).count(SEND), sends);
    assert_eq!(scene.history(hash).await.len(), 5);
}

/// U3: another transaction of the same sender and nonce takes its place.
#[tokio::test(start_paused = true)]
async fn a_transaction_whose_nonce_another_has_used_is_replaced() {
    let scene = Scene::start(ON).await;
    let (first, second) = (transaction(0), signed(1, 0, 2));
    scene.sent(0).await;
    scene.until_state(first.1, "sent").await;
    for index in 0..3 {
        scene.node(index).set_fault(Fault::Forgetful);
        scene.node(index).clear_faults();
    }
    // The other goes past the proxy.
    let bytes = steadfast::domain::hex::bytes(&second.0).unwrap();
    scene.devnet.chain().submit(bytes).unwrap();
    scene.mine(1).await;
    scene.until_state(first.1, "replaced").await;
    let status = scene.status(first.1).await;
    assert_eq!(status["replacedBy"], json!(second.1), "{status}");
    let sends = scene.node(0).count(SEND);
    scene.mine(6).await;
    assert_eq!(scene.node(0).count(SEND), sends, "a replaced transaction was sent again");
    let (code, reason, _) = error(&scene.send(&first.0).await);
    assert_eq!((code, reason), (-32000, "nonce_used"));
}

/// U40: the deadline passes.
#[tokio::test(start_paused = true)]
async fn a_transaction_that_no_block_takes_expires() {
    let scene = Scene::start("[outbox]\ndeadline = \"30s\"\n").await;
    let hash = scene.sent(0).await;
    scene.until_state(hash, "sent").await;
    sleep(Duration::from_secs(31)).await;
    scene.until_state(hash, "expired").await;
    assert_eq!(scene.history(hash).await, ["accepted", "sent", "expired"]);
    // The client asks for it again: it begins anew.
    scene.sent(0).await;
    scene.mine(2).await;
    scene.until_state(hash, "mined").await;
}

/// U41: a deadline that passes while the proxy is away is kept.
#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_while_the_proxy_is_away_counts() {
    let mut scene = Scene::start("[outbox]\ndeadline = \"30s\"\n").await;
    let hash = scene.sent(0).await;
    scene.stop().await;
    // The simulated wall clock of a proxy is the system's: two starts are no further apart than the
    // test. So the deadline is what the record says.
    scene.proxy = Some(Proxy::launch(&scene.net, &scene.settings).await);
    assert_eq!(scene.state(hash).await, "sent");
    sleep(Duration::from_secs(31)).await;
    scene.until_state(hash, "expired").await;
}

/// One of two nodes never gives a full block: only the first block costs the time for that.
#[tokio::test(start_paused = true)]
async fn a_node_without_full_blocks_costs_its_time_once() {
    const BLOCK: &str = "eth_getBlockByHash";
    for fault in [Fault::tells(BLOCK, Value::Null), Fault::slow_over(60_000, &[BLOCK])] {
        let scene = Scene::start(ON).await;
        scene.node(2).set_fault(Fault::Down);
        scene.until_verdicts(["up", "up", "down"]).await;
        scene.node(1).set_fault(fault);
        for nonce in 0..5 {
            let took = until_mined(&scene, nonce).await;
            assert!(took < Duration::from_secs(if nonce == 0 { 15 } else { 3 }), "block {nonce} took {took:?}");
            sleep(Duration::from_secs(12)).await;
        }
        scene.node(1).clear_faults();
        sleep(Duration::from_secs(300)).await;
        let asked = scene.node(0).count(TRANSACTION);
        let hash = scene.sent(5).await;
        scene.mine(1).await;
        scene.until_state(hash, "mined").await;
        assert!(scene.node(0).count(TRANSACTION) <= asked + 1, "both give full blocks again");
    }
}

/// No node gives a full block: only the first block costs the time for that.
#[tokio::test(start_paused = true)]
async fn blocks_that_no_node_gives_whole_hold_up_nothing() {
    const BLOCK: &str = "eth_getBlockByHash";
    let scene = Scene::start(ON).await;
    (0..3).for_each(|index| scene.node(index).set_fault(Fault::tells(BLOCK, Value::Null)));
    for nonce in 0..6 {
        let took = until_mined(&scene, nonce).await;
        assert!(took < Duration::from_secs(if nonce == 0 { 15 } else { 3 }), "block {nonce} took {took:?}");
        sleep(Duration::from_secs(2)).await;
    }
}

/// How long it takes after the block until the transaction of this nonce is known to be mined.
async fn until_mined(scene: &Scene, nonce: u64) -> Duration {
    let hash = scene.sent(nonce).await;
    scene.until_state(hash, "sent").await;
    scene.devnet.chain().mine(1);
    let start = Instant::now();
    scene.until_state(hash, "mined").await;
    start.elapsed()
}

/// How long it takes until a transaction is known to be mined, behind so many blocks of that pace,
/// where one of three nodes answers this method so late.
async fn until_mined_beside_a_slow_node((method, millis): (&str, u64), (blocks, pace): (u64, u64)) -> Duration {
    let scene = Scene::start("[outbox]\n[health]\nmax_lag_blocks = 20\n").await;
    scene.node(1).set_fault(Fault::slow_over(millis, &[method]));
    scene.sent(0).await;
    for _ in 0..blocks {
        scene.devnet.chain().mine(1);
        sleep(Duration::from_millis(pace)).await;
    }
    until_mined(&scene, 1).await
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_slow_with_final_blocks_holds_up_none() {
    let took = until_mined_beside_a_slow_node(("eth_getBlockByNumber", 1_500), (40, 700)).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Blocks come faster than a slow node is waited for.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_slow_with_full_blocks_holds_up_one() {
    let took = until_mined_beside_a_slow_node(("eth_getBlockByHash", 3_000), (60, 300)).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Blocks come faster than any node gives them, and always some transaction is followed.
#[tokio::test(start_paused = true)]
async fn nodes_that_are_slower_than_the_chain_put_nothing_off() {
    let scene = Scene::start("[outbox]\n[health]\nmax_lag_blocks = 20\n").await;
    (0..3).for_each(|index| scene.node(index).set_fault(Fault::slow_over(900, &["eth_getBlockByHash"])));
    for nonce in 0..6 {
        scene.sent(nonce).await;
        for _ in 0..10 {
            scene.devnet.chain().mine(1);
            sleep(Duration::from_millis(300)).await;
        }
    }
    let took = until_mined(&scene, 6).await;
    assert!(took < Duration::from_secs(12), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_block_that_goes_while_it_is_read_is_read_no_more() {
    let scene = Scene::start(ON).await;
    assert!(until_mined(&scene, 0).await < Duration::from_secs(5));
    for index in 0..3 {
        scene.node(index).set_fault(Fault::slow_over(9_500, &["eth_getBlockByHash"]));
    }
    scene.devnet.chain().mine(1);
    sleep(Duration::from_millis(1_500)).await;
    (0..3).for_each(|index| scene.node(index).clear_faults());
    scene.devnet.chain().reorg(1).unwrap();
    let took = until_mined(&scene, 1).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// The nodes that take transactions are gone: the one that is left tells of blocks.
#[tokio::test(start_paused = true)]
async fn a_node_that_takes_no_transactions_tells_of_blocks() {
    let mut scene = Scene::start(ON).await;
    let backup = "[[el.backup]]\n";
    assert_eq!(scene.settings.matches(backup).count(), 1);
    scene.settings = scene.settings.replace(backup, &format!("{backup}not_methods = [\"{SEND}\"]\n"));
    scene.restart().await;
    scene.until_verdicts(["up", "up", "up"]).await;
    let hash = scene.sent(0).await;
    scene.until_state(hash, "sent").await;
    scene.devnet.chain().mine(1);
    (0..2).for_each(|index| scene.node(index).set_fault(Fault::Down));
    scene.until_verdicts(["down", "down", "up"]).await;
    scene.until_state(hash, "mined").await;
    assert_eq!(scene.node(2).count(SEND), 0);
}

/// A block has a transaction that was given up, and the outbox has no other. The block alone tells,
/// also to a proxy that was started since.
#[tokio::test(start_paused = true)]
async fn a_block_with_an_expired_transaction_is_seen() {
    for restarts in [false, true] {
        let mut scene = expired().await;
        if restarts {
            scene.restart().await;
            scene.until_verdicts(["up", "up", "up"]).await;
        }
        for index in 0..3 {
            scene.node(index).set_fault(Fault::tells(TRANSACTION, Value::Null));
        }
        // A first block, behind which the outbox is in step with the chain.
        scene.mine(1).await;
        submit(&scene);
        scene.mine(2).await;
        scene.until_state(hash(0), "mined").await;
        assert_eq!(scene.history(hash(0)).await, ["accepted", "sent", "expired", "mined"]);
    }
}

/// The block came while the proxy was away: the nodes are asked for what was given up.
#[tokio::test(start_paused = true)]
async fn an_expired_transaction_that_was_mined_meanwhile_is_seen() {
    let mut scene = expired().await;
    scene.stop().await;
    submit(&scene);
    scene.devnet.chain().mine(3);
    scene.proxy = Some(Proxy::launch(&scene.net, &scene.settings).await);
    scene.until_verdicts(["up", "up", "up"]).await;
    scene.mine(2).await;
    scene.until_state(hash(0), "mined").await;
    assert_eq!(scene.history(hash(0)).await[..4], ["accepted", "sent", "expired", "mined"]);
}

/// A scene whose transaction has expired, and is at no node.
async fn expired() -> Scene {
    let scene = Scene::start("[outbox]\ndeadline = \"30s\"\n").await;
    scene.sent(0).await;
    scene.until_state(hash(0), "expired").await;
    for index in 0..3 {
        scene.node(index).set_fault(Fault::Forgetful);
        scene.node(index).clear_faults();
    }
    scene
}

/// The transaction comes to the chain by another way.
fn submit(scene: &Scene) {
    let bytes = steadfast::domain::hex::bytes(&transaction(0).0).unwrap();
    scene.devnet.chain().submit(bytes).unwrap();
}
