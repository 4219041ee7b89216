//! Networks that leave the settings while the outbox has transactions of theirs.

use super::*;

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
