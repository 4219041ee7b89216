//! Networks that leave the settings while the outbox has transactions of theirs.

use steadfast::devnet::Fault;

use super::*;
use crate::common::log::Log;

const NO_NODES: &str = "the network has no execution nodes in the settings: its transactions are kept and are not sent";

/// The settings with the nodes on a network of this name.
fn renamed(scene: &Scene, name: &str) -> String {
    scene.settings.replace("[[el.", &format!("[[networks.{name}.el."))
}

async fn depth(scene: &Scene, network: &str) -> Value {
    let status = scene.proxy().admin("/status").await.json();
    let all = status["outbox"]["networks"].as_array().unwrap_or_else(|| panic!("{status}")).clone();
    let found = all.into_iter().find(|one| one["name"] == network);
    found.map_or(Value::Null, |one| one["pending"].clone())
}

async fn order(scene: &Scene, hash: B256, command: &str) -> u16 {
    scene.proxy().operate(&format!("/outbox/{hash}/{command}")).await.status
}

/// The transactions of a network that a reload renames are counted, shown and cancelled; they
/// expire, and they are sent again when the network is back.
#[tokio::test(start_paused = true)]
async fn transactions_of_a_network_that_left_stay_in_sight() {
    let on = "[outbox]\nconfirmations = 2\ndeadline = \"1h\"\nkeep = \"1h\"\n";
    let mut scene = Scene::start(on).await;
    let (one, two) = (scene.settings.clone(), renamed(&scene, "two"));
    let log = Log::start();
    for nonce in 0..3 {
        scene.sent(nonce).await;
        scene.until_state(hash(nonce), "sent").await;
    }
    let left = "default";
    assert_eq!(depth(&scene, left).await, json!(3));
    for is_restarted in [false, true] {
        if is_restarted {
            scene.settings = two.clone();
            scene.restart().await;
        } else {
            scene.proxy().reload(&two).await;
        }
        sleep(Duration::from_secs(5)).await;
        let expected = if is_restarted { 2 } else { 3 };
        assert_eq!(depth(&scene, left).await, json!(expected), "restarted: {is_restarted}");
        let told = log.saying(NO_NODES);
        assert_eq!(told.last().map(|line| &line["transactions"]), Some(&json!(expected)), "{told:?}");
        let shown = scene.proxy().admin(&format!("/outbox/{}", hash(2))).await;
        assert_eq!(shown.status, 200, "{}", shown.text());
        assert_eq!(order(&scene, hash(2), "resend").await, 409);
        if !is_restarted {
            assert_eq!(order(&scene, hash(2), "cancel").await, 200);
            assert_eq!(depth(&scene, left).await, json!(2));
        }
    }
    assert_eq!(order(&scene, hash(2), "drop").await, 200);
    assert_eq!(scene.proxy().admin(&format!("/outbox/{}", hash(2))).await.status, 404);
    // Back for a while: the transactions are sent to the nodes.
    let before = scene.node(0).count(SEND);
    scene.proxy().reload(&one).await;
    sleep(Duration::from_secs(10)).await;
    assert!(scene.node(0).count(SEND) > before, "nothing is sent after the return");
    assert_eq!(scene.state(hash(0)).await, "sent");
    scene.proxy().reload(&two).await;
    sleep(Duration::from_secs(3700)).await;
    let shown = scene.proxy().admin(&format!("/outbox/{}", hash(0))).await;
    assert!(shown.text().contains("expired"), "{}", shown.text());
    sleep(Duration::from_secs(3700)).await;
    assert_eq!(scene.proxy().admin(&format!("/outbox/{}", hash(0))).await.status, 404, "the record is purged");
}

/// The network's name goes to another chain: a transaction that is signed for the first one is not
/// sent, and the log says so.
#[tokio::test(start_paused = true)]
async fn a_transaction_of_another_chain_is_not_sent() {
    let mut scene = Scene::start("[outbox]\nack = \"disk\"\n").await;
    let log = Log::start();
    (0..3).for_each(|index| scene.node(index).set_fault(Fault::refuse(&[SEND])));
    let hash = scene.sent(0).await;
    // Without a chain in the signature it may be for any.
    let (raw, of_any) = crate::common::signed::of_any_chain(2, 0);
    assert_eq!(scene.send(&raw).await["result"], json!(of_any));
    scene.stop().await;
    for index in 0..3 {
        scene.node(index).clear_faults();
        scene.node(index).set_fault(Fault::WrongChain { chain_id: 5 });
    }
    let requests = |index| scene.devnet.el(index).requests();
    let is_send =
        |raw: &str| (0..3).flat_map(requests).filter(|one| one.method == SEND && one.params.contains(raw)).count();
    let sends = || (is_send(&transaction(0).0), is_send(&raw));
    let before = sends();
    scene.proxy = Some(Proxy::launch(&scene.net, &scene.settings).await);
    scene.until_verdicts(["up", "up", "up"]).await;
    scene.mine(5).await;
    sleep(Duration::from_secs(60)).await;
    let after = sends();
    assert_eq!((after.0, scene.state(hash).await), (before.0, "accepted".to_owned()));
    assert!(after.1 > before.1, "the one of any chain is sent");
    let told = log.saying("a transaction is for another chain, and is not sent");
    assert_eq!((&told[0]["hash"], &told[0]["chain"]), (&json!(hash), &json!(5)));
    // The first chain is back.
    scene.stop().await;
    (0..3).for_each(|index| scene.node(index).clear_faults());
    scene.proxy = Some(Proxy::launch(&scene.net, &scene.settings).await);
    scene.until_state(hash, "sent").await;
}
