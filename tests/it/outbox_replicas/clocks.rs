//! Replicas whose wall clocks differ.

use super::*;

/// A28: a replica whose clock is a day ahead ends no transaction of the others, for it takes no part.
#[test]
fn a_replica_whose_clock_is_wrong_takes_no_part() {
    run_simulated(51, async {
        let mut fleet = Fleet::prepare("ack = \"disk\"\n").await;
        fleet.skews[2] = 25 * 3600;
        fleet.launch(2).await;
        sleep(Duration::from_secs(20)).await;
        for place in [0, 1] {
            fleet.launch(place).await;
        }
        let start = Instant::now();
        while fleet.shards().await.iter().sum::<u64>() < 64 {
            assert!(start.elapsed() < PATIENCE, "{:?}", fleet.shards().await);
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(fleet.shards().await[2], 0);
        let answer = fleet.send(2, 1, 0).await;
        assert_eq!(answer["error"]["data"]["reason"], "outbox_unwritable", "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("90000 s ahead"), "{answer}");
        let mut hashes = Vec::new();
        for key in 1..=9 {
            hashes.push(fleet.sent(usize::from(key % 2), key, 0).await);
        }
        sleep(Duration::from_secs(30)).await;
        fleet.mine(3).await;
        for hash in hashes {
            fleet.until_state(hash, &["confirmed"]).await;
        }
    });
}

/// A28: clocks that differ by less change nothing.
#[test]
fn clocks_that_differ_a_little_change_nothing() {
    run_simulated(52, async {
        let mut fleet = Fleet::prepare("").await;
        fleet.skews = [0, 25, 12];
        for place in 0..REPLICAS {
            fleet.launch(place).await;
        }
        fleet.until_shared().await;
        let hash = fleet.sent(0, 1, 0).await;
        let owner = fleet.owner(hash).await;
        fleet.crash(owner).await;
        fleet.until_shared().await;
        fleet.mine(3).await;
        fleet.until_state(hash, &["confirmed"]).await;
        fleet.until_told(hash, &["tx.accepted", "tx.mined", "tx.confirmed"]).await;
        fleet.each_has_one_id(hash);
    });
}

/// A28: where the bucket's servers alone have another time, all replicas go on.
#[test]
fn a_bucket_whose_clock_is_wrong_stops_no_replica() {
    run_simulated(53, async {
        let mut fleet = Fleet::prepare("").await;
        let dawn = StoreTime::from_nanos((START_UNIX - 3600) * 1_000_000_000);
        fleet.bucket = Memory::new(Settings { dawn, ..Settings::default() });
        for place in 0..REPLICAS {
            fleet.launch(place).await;
        }
        fleet.until_shared().await;
        sleep(Duration::from_secs(300)).await;
        fleet.until_shared().await;
        let hash = fleet.sent(0, 1, 0).await;
        fleet.until_mempools(hash).await;
    });
}
