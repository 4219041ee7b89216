//! One node of three lies: no transaction is lost by that, and none is told to be where it is not.

use super::*;
use steadfast::devnet::Fault;

const TRANSACTION: &str = "eth_getTransactionByHash";

/// All nodes forget what waits. The pretend chain mines what waits at any node.
fn forget(scene: &Scene) {
    for index in 0..3 {
        scene.node(index).set_fault(Fault::Forgetful);
        scene.node(index).clear_fault("forgetful");
    }
    assert!(scene.devnet.chain().mempool().is_empty());
}

/// Checks that a transaction is in the block that has it, by the chain itself.
async fn check_block(scene: &Scene, hash: B256) {
    let status = scene.status(hash).await;
    let told: B256 = status["block"]["hash"].as_str().unwrap().parse().unwrap();
    let block = scene.devnet.chain().block_by_hash(told).unwrap();
    assert!(block.transactions.iter().any(|tx| tx.transaction.hash == hash), "{status}");
}

/// A block that one node alone names: one that is not there, or one without the transaction.
#[tokio::test(start_paused = true)]
async fn a_block_that_one_node_alone_names_has_nothing() {
    for is_there in [false, true] {
        let scene = Scene::start(ON).await;
        scene.mine(3).await;
        let hash = scene.sent(0).await;
        scene.until_mempool(2, &[hash]).await;
        let block = scene.devnet.chain().block(2).unwrap().hash;
        let block = if is_there { block } else { B256::repeat_byte(0xab) };
        let lie = json!({"hash": hash, "nonce": "0x0", "blockHash": block, "blockNumber": "0x2"});
        scene.node(2).set_fault(Fault::tells(TRANSACTION, lie));
        forget(&scene);
        scene.mine(6).await;
        assert!(scene.node(0).count(SEND) > 1, "a lie kept it from being sent again: {is_there}");
        scene.until_state(hash, "mined").await;
        check_block(&scene, hash).await;
    }
}

/// Two of three nodes keep no index of transactions: their blocks bear the third one out.
#[tokio::test(start_paused = true)]
async fn a_block_counts_as_the_second_word() {
    let mut scene = Scene::start(ON).await;
    let hash = scene.sent(0).await;
    scene.until_state(hash, "sent").await;
    scene.stop().await;
    scene.devnet.chain().mine(3);
    for index in [0, 2] {
        scene.node(index).set_fault(Fault::tells(TRANSACTION, Value::Null));
    }
    scene.proxy = Some(Proxy::launch(&scene.net, &scene.settings).await);
    scene.until_verdicts(["up", "up", "up"]).await;
    scene.mine(2).await;
    scene.until_state(hash, "confirmed").await;
    check_block(&scene, hash).await;
}

/// The active node gives a block with transactions that are not in it: the transaction itself, or
/// another of its nonce.
#[tokio::test(start_paused = true)]
async fn the_forged_transactions_of_a_block_change_nothing() {
    for forged in [hash(0), B256::repeat_byte(0x99)] {
        let scene = Scene::start(ON).await;
        let hash = scene.sent(0).await;
        scene.until_mempool(2, &[hash]).await;
        let sender = scene.ask(TRANSACTION, &format!("[\"{hash}\"]")).await["result"]["from"].clone();
        assert!(sender.is_string());
        forget(&scene);
        let block = scene.devnet.chain().mine(1);
        let transactions = json!([{"hash": forged, "from": sender, "nonce": "0x0"}]);
        let number = format!("0x{:x}", block.number);
        let lie = json!({"hash": block.hash, "number": number, "transactions": transactions});
        scene.node(0).set_fault(Fault::tells("eth_getBlockByHash", lie));
        sleep(Duration::from_millis(1500)).await;
        let history = scene.history(hash).await;
        assert!(history.iter().all(|state| ["accepted", "sent", "seen"].contains(&&**state)), "{history:?}");
        scene.mine(6).await;
        scene.until_state(hash, "mined").await;
        check_block(&scene, hash).await;
    }
}

/// The active node says that the newest block is final.
#[tokio::test(start_paused = true)]
async fn the_final_block_of_one_node_ends_no_life() {
    let scene = Scene::start(ON).await;
    let hash = scene.sent(0).await;
    scene.until_state(hash, "sent").await;
    scene.devnet.chain().mine(1);
    let newest = scene.ask("eth_getBlockByNumber", r#"["latest",false]"#).await["result"].clone();
    scene.node(0).set_fault(Fault::tells("eth_getBlockByNumber", newest));
    scene.until_state(hash, "mined").await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.history(hash).await, ["accepted", "sent", "mined"]);
    scene.node(0).clear_faults();
    scene.mine(3).await;
    scene.until_state(hash, "confirmed").await;
    scene.devnet.chain().mine(200);
    scene.mine(2).await;
    scene.until_state(hash, "final").await;
}
