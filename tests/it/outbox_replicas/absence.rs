//! Replicas that come back after a long time.

use super::*;

/// U2: what was cancelled while its owner was away stays so when the owner is back before all others,
/// with the transaction on its disk.
#[test]
fn a_cancelled_one_stays_so_behind_a_long_absence() {
    run_simulated(61, async {
        let mut fleet = Fleet::start("").await;
        fleet.set_faults(Some(&Fault::refuse(&[SEND])));
        let mut hashes = Vec::new();
        for key in 1..=6 {
            hashes.push(fleet.sent(0, key, 0).await);
        }
        let away = fleet.owner(hashes[0]).await;
        sleep(Duration::from_secs(5)).await;
        fleet.crash(away).await;
        fleet.until_shared().await;
        for hash in &hashes {
            let owner = fleet.owner(*hash).await;
            assert_eq!(fleet.at(owner).operate(&format!("/outbox/{hash}/cancel")).await.status, 200);
            fleet.until_state(*hash, &["cancelled"]).await;
        }
        fleet.set_faults(None);
        sleep(Duration::from_secs(6 * 60)).await;
        for place in fleet.running() {
            fleet.replicas[place].take().unwrap().app.shutdown().await;
        }
        fleet.launch(away).await;
        fleet.until_shared().await;
        sleep(Duration::from_secs(60)).await;
        for place in (0..REPLICAS).filter(|place| *place != away) {
            fleet.launch(place).await;
        }
        fleet.until_shared().await;
        for hash in &hashes {
            fleet.until_state(*hash, &["cancelled"]).await;
            assert!((0..3).all(|index| !fleet.node(index).mempool().contains(hash)), "{hash} is sent");
        }
    });
}
