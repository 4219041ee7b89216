//! More transactions on the disk than memory holds.

use super::*;
use steadfast::devnet::Fault;

/// Memory holds 64 pending transactions, and the disk has 70: the start takes all up, and no more
/// are taken until some are through.
#[tokio::test(start_paused = true)]
async fn a_start_with_more_than_memory_holds_stands() {
    let mut scene = Scene::start("[outbox]\nack = \"disk\"\n").await;
    for index in 0..3 {
        scene.node(index).set_fault(Fault::slow_over(60_000, &[SEND]));
    }
    for nonce in 0..70 {
        scene.sent(nonce).await;
    }
    scene.settings = format!("max_client_memory = \"512KiB\"\n{}", scene.settings);
    scene.restart().await;
    scene.until_verdicts(["up", "up", "up"]).await;
    let (further, _) = signed(2, 0, 1);
    let (code, reason, message) = error(&scene.send(&further).await);
    assert_eq!((code, reason), (-32005, "outbox_full"));
    assert!(message.contains("`outbox.max_pending` is 64"), "{message}");
    for index in 0..3 {
        scene.node(index).clear_faults();
    }
    sleep(Duration::from_secs(120)).await;
    for nonce in 0..70 {
        let status = scene.ask(STATUS, &format!("[\"{}\"]", hash(nonce))).await;
        assert_ne!(status["result"]["state"], "accepted", "{nonce}: {status}");
    }
}
