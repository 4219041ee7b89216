//! How a transaction comes to nodes, and comes there again.

use super::*;
use steadfast::devnet::Fault;

/// A node that returns with an empty mempool gets what no block has.
#[tokio::test(start_paused = true)]
async fn a_node_that_returns_gets_what_waits() {
    let scene = Scene::start(ON).await;
    let hash = scene.sent(0).await;
    scene.until_mempool(1, &[hash]).await;
    scene.node(1).set_fault(Fault::Down);
    scene.until_verdicts(["up", "down", "up"]).await;
    scene.node(1).restart().await;
    assert!(scene.node(1).mempool().is_empty());
    scene.until_mempool(1, &[hash]).await;
}

/// Its mempool was not lost.
#[tokio::test(start_paused = true)]
async fn a_node_that_only_lagged_is_sent_nothing_again() {
    let scene = Scene::start(ON).await;
    scene.devnet.chain().mine(20);
    sleep(Duration::from_secs(5)).await;
    let hash = scene.sent(0).await;
    scene.until_mempool(1, &[hash]).await;
    sleep(Duration::from_secs(5)).await;
    let before = scene.node(1).count(SEND);
    scene.node(1).set_fault(Fault::lag(20));
    scene.until_verdicts(["up", "lagging", "up"]).await;
    scene.node(1).clear_faults();
    scene.until_verdicts(["up", "up", "up"]).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(scene.node(1).count(SEND), before);
}

/// U2: a node's 'ok' ends nothing. A mempool that drops it is sent it again after `resend_blocks`.
#[tokio::test(start_paused = true)]
async fn a_transaction_that_all_nodes_forgot_is_sent_again() {
    let scene = Scene::start(ON).await;
    let hash = scene.sent(0).await;
    scene.until_mempool(2, &[hash]).await;
    scene.until_state(hash, "sent").await;
    // The pretend chain mines what waits at any node, so all forget before the first block.
    for index in 0..3 {
        scene.node(index).set_fault(Fault::Forgetful);
        scene.node(index).clear_faults();
    }
    assert!(scene.devnet.chain().mempool().is_empty());
    scene.mine(4).await;
    scene.until_state(hash, "mined").await;
    assert!([0, 1, 2].iter().any(|index| scene.node(*index).count(SEND) > 1), "no node was sent it again");
}

/// A transaction of a chain that goes another way is sent again, and followed into its new block.
#[tokio::test(start_paused = true)]
async fn a_transaction_that_a_reorganisation_took_out_is_mined_again() {
    let scene = Scene::start(ON).await;
    let hash = scene.sent(0).await;
    scene.mine(1).await;
    scene.until_state(hash, "mined").await;
    let block = scene.status(hash).await["block"]["hash"].clone();
    scene.devnet.chain().reorg(1).unwrap();
    scene.mine(2).await;
    scene.until_state(hash, "confirmed").await;
    let status = scene.status(hash).await;
    assert_ne!(status["block"]["hash"], block, "{status}");
    let history = scene.history(hash).await;
    let expected = ["accepted", "sent", "mined", "reorged"];
    assert_eq!(history[..4], expected, "{history:?}");
    assert_eq!(history.iter().filter(|state| *state == "mined").count(), 2, "{history:?}");
}

/// U32: a later nonce of a sender waits for the earlier one.
#[tokio::test(start_paused = true)]
async fn a_senders_transactions_come_in_the_order_of_their_nonces() {
    let scene = Scene::start("[outbox]\nack = \"disk\"\n").await;
    for index in 0..3 {
        scene.node(index).set_fault(Fault::Down);
    }
    scene.until_verdicts(["down", "down", "down"]).await;
    for nonce in [3, 1, 0, 2] {
        scene.sent(nonce).await;
    }
    scene.node(0).clear_faults();
    let expected: Vec<B256> = (0..4).map(hash).collect();
    until("the node has all", async || scene.node(0).raw_transactions().len() == 4).await;
    assert_eq!(scene.node(0).raw_transactions(), expected);
}

/// U33, U60: after a loss of power what was acknowledged is sent by the next proxy.
#[tokio::test(start_paused = true)]
async fn after_a_loss_of_power_all_that_was_acknowledged_is_sent() {
    let mut scene = Scene::start("[outbox]\nack = \"disk\"\n").await;
    for index in 0..3 {
        scene.node(index).set_fault(Fault::Down);
    }
    scene.until_verdicts(["down", "down", "down"]).await;
    let mut hashes = Vec::new();
    for nonce in 0..5 {
        hashes.push(scene.sent(nonce).await);
    }
    scene.lose_power().await;
    scene.node(2).clear_faults();
    scene.until_mempool(2, &hashes).await;
    scene.mine(3).await;
    for hash in hashes {
        scene.until_state(hash, "mined").await;
    }
}

/// A block that came while the proxy was away is found by asking.
#[tokio::test(start_paused = true)]
async fn a_block_that_came_while_the_proxy_was_away_is_found() {
    let mut scene = Scene::start(ON).await;
    let hash = scene.sent(0).await;
    scene.until_state(hash, "sent").await;
    scene.stop().await;
    scene.devnet.chain().mine(3);
    scene.proxy = Some(Proxy::launch(&scene.net, &scene.settings).await);
    scene.until_verdicts(["up", "up", "up"]).await;
    scene.mine(2).await;
    scene.until_state(hash, "confirmed").await;
    assert_eq!(scene.history(hash).await, ["accepted", "sent", "mined", "confirmed"]);
}

/// U30: the setting chooses the nodes of a sending.
#[tokio::test(start_paused = true)]
async fn send_to_bounds_the_nodes() {
    for (send_to, expected) in [("all", [1, 1, 1]), ("tier", [1, 1, 0]), ("first", [1, 0, 0])] {
        let scene = Scene::start(&format!("[outbox]\nsend_to = \"{send_to}\"\n")).await;
        scene.sent(0).await;
        sleep(Duration::from_secs(1)).await;
        let counts = [0, 1, 2].map(|index| scene.node(index).count(SEND));
        assert_eq!(counts, expected, "{send_to}");
        let taken = expected.iter().sum::<u64>() as f64;
        let words =
            scene.proxy().metric("steadfast_raw_transaction_sends_total", r#"reason="outbox",word="took""#).await;
        assert!((words - taken).abs() < 0.5, "{words}");
    }
}

/// Where only a node that syncs is there, transactions go to that node, as reads do.
#[tokio::test(start_paused = true)]
async fn a_node_that_syncs_gets_transactions_where_no_other_is() {
    let scene = Scene::start(ON).await;
    scene.node(0).set_fault(Fault::Syncing);
    scene.node(1).set_fault(Fault::Down);
    scene.node(2).set_fault(Fault::Down);
    scene.until_verdicts(["syncing", "down", "down"]).await;
    let read = scene.ask("eth_blockNumber", "[]").await;
    assert!(read["result"].is_string(), "{read}");
    let start = Instant::now();
    let hash = scene.sent(0).await;
    assert!(start.elapsed() < Duration::from_secs(1), "the client waited {:?}", start.elapsed());
    scene.until_mempool(0, &[hash]).await;
}

/// A node that hangs on sends costs the others nothing.
#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_does_not_slow_the_others_down() {
    let scene = Scene::start("[outbox]\nmax_in_flight_per_tenant = 2\n").await;
    scene.node(2).set_fault(Fault::slow_over(60_000, &[SEND]));
    let start = Instant::now();
    for nonce in 0..10 {
        scene.sent(nonce).await;
    }
    assert!(start.elapsed() < Duration::from_secs(2), "it took {:?}", start.elapsed());
    // By now the node is sent what it lacks, again and again.
    for nonce in 10..30 {
        sleep(Duration::from_secs(3)).await;
        let start = Instant::now();
        scene.sent(nonce).await;
        assert!(start.elapsed() < Duration::from_secs(1), "nonce {nonce} took {:?}", start.elapsed());
    }
}

/// A node hangs over what it is sent, and the other one forgets a sender's transactions.
#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_hides_nothing_that_another_forgot() {
    let scene = Scene::start(ON).await;
    scene.node(2).set_fault(Fault::Down);
    scene.until_verdicts(["up", "up", "down"]).await;
    scene.node(1).set_fault(Fault::slow_over(60_000, &[SEND]));
    let mut hashes = Vec::new();
    for nonce in 0..12 {
        hashes.push(scene.sent(nonce).await);
    }
    sleep(Duration::from_secs(40)).await;
    scene.node(0).set_fault(Fault::Forgetful);
    scene.node(0).clear_fault("forgetful");
    assert!(scene.devnet.chain().mempool().is_empty());
    scene.mine(8).await;
    for hash in hashes {
        let state = scene.state(hash).await;
        assert!(["mined", "confirmed"].contains(&&*state), "{state}");
    }
}

/// A node hangs over long transactions: it takes no more than its part of the memory for these.
#[tokio::test(start_paused = true)]
async fn long_transactions_wait_for_no_node_that_hangs() {
    let scene = Scene::start("max_client_memory = \"64MiB\"\n[outbox]\n").await;
    scene.node(2).set_fault(Fault::Down);
    scene.until_verdicts(["up", "up", "down"]).await;
    scene.node(1).set_fault(Fault::slow_over(60_000, &[SEND]));
    for key in 1..=60 {
        let (raw, hash) = signed::long(1337, key, 0, 100_000);
        let start = Instant::now();
        let answer = scene.send(&raw).await;
        assert_eq!(answer["result"], json!(hash), "{answer}");
        assert!(start.elapsed() < Duration::from_secs(1), "{key} took {:?}", start.elapsed());
        sleep(Duration::from_millis(250)).await;
    }
    assert!(scene.node(1).count(SEND) < 60, "it was sent all");
}

/// The only node that has a transaction forgets it, and the other tells nothing of transactions.
#[tokio::test(start_paused = true)]
async fn a_silent_node_keeps_no_transaction_from_its_next_sending() {
    let scene = Scene::start("[outbox]\nresend_blocks = 1\n").await;
    scene.node(2).set_fault(Fault::Down);
    scene.until_verdicts(["up", "up", "down"]).await;
    scene.node(1).set_fault(Fault::not_offered(&[SEND, "eth_getTransactionByHash"]));
    let hash = scene.sent(0).await;
    scene.until_mempool(0, &[hash]).await;
    scene.node(0).set_fault(Fault::Forgetful);
    scene.until_mempool(0, &[]).await;
    scene.node(0).clear_faults();
    // The block is empty: no node has the transaction.
    scene.mine(2).await;
    scene.until_mempool(0, &[hash]).await;
}

/// The node that is to have a transaction says that it took it, and tells nothing of transactions.
/// The other one is not to have it.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_sent_nothing_causes_no_sending() {
    let scene = Scene::start("[outbox]\nsend_to = \"first\"\nresend_blocks = 1\n").await;
    scene.node(2).set_fault(Fault::Down);
    scene.until_verdicts(["up", "up", "down"]).await;
    scene.node(0).set_fault(Fault::tells(SEND, json!(hash(0))));
    scene.node(0).set_fault(Fault::not_offered(&["eth_getTransactionByHash"]));
    scene.sent(0).await;
    scene.mine(8).await;
    assert!(scene.node(1).count("eth_getTransactionByHash") > 3);
    assert_eq!((scene.node(0).count(SEND), scene.node(1).count(SEND)), (1, 0));
}

/// A reorganisation while the proxy is away takes a transaction out of its block and all mempools,
/// and a node tells nothing of transactions.
#[tokio::test(start_paused = true)]
async fn a_block_that_went_is_missed_beside_a_silent_node() {
    let mut scene = Scene::start(ON).await;
    scene.node(2).set_fault(Fault::Down);
    scene.until_verdicts(["up", "up", "down"]).await;
    let hash = scene.sent(0).await;
    scene.mine(3).await;
    scene.until_state(hash, "confirmed").await;
    scene.stop().await;
    scene.devnet.chain().reorg_out(hash).unwrap();
    scene.node(1).set_fault(Fault::not_offered(&["eth_getTransactionByHash"]));
    scene.proxy = Some(Proxy::launch(&scene.net, &scene.settings).await);
    scene.until_verdicts(["up", "up", "down"]).await;
    scene.mine(4).await;
    scene.until_state(hash, "reorged").await;
    scene.mine(2).await;
    let history = scene.history(hash).await;
    assert_eq!(history.iter().filter(|state| *state == "mined").count(), 2, "{history:?}");
}

/// While no node is usable by the rules, a transaction goes where calls go.
#[tokio::test(start_paused = true)]
async fn where_no_node_is_well_the_active_one_gets_it() {
    let scene = Scene::start(ON).await;
    for index in 0..3 {
        scene.node(index).set_fault(Fault::Syncing);
    }
    scene.until_verdicts(["syncing", "syncing", "syncing"]).await;
    let hash = scene.sent(0).await;
    scene.until_state(hash, "sent").await;
    let sends: u64 = (0..3).map(|index| scene.node(index).count(SEND)).sum();
    assert_eq!(sends, 1);
}
