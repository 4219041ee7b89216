//! Replicas whose disk takes nothing.

use std::io::ErrorKind;

use super::*;

/// U43, R17: a replica whose disk fails gives its shards away, and what the others acknowledge is
/// sent. One whose disk is nearly full knows of all that. Both take their share again when the disk
/// is back.
#[test]
fn a_replica_whose_disk_fails_gives_its_shards_away() {
    run_simulated(41, async {
        for is_full in [false, true] {
            let fleet = Fleet::start("ack = \"disk\"\n").await;
            match is_full {
                true => fleet.disks[0].set_free(Some(1 << 20)),
                false => fleet.disks[0].fail_after(0, ErrorKind::Other, 3),
            }
            let mut hashes = Vec::new();
            for key in 1..=9 {
                hashes.push(fleet.sent(1 + usize::from(key % 2), key, 0).await);
            }
            for hash in hashes {
                fleet.until_mempools(hash).await;
                fleet.until_owned_by_others(0, hash).await;
                if is_full {
                    // The room that is kept back is for what clients have the hashes of.
                    fleet.until_state(hash, &["sent", "seen"]).await;
                }
            }
            let ready = fleet.at(0).admin("/status").await.json();
            assert_eq!(ready["outbox"]["shards"]["owned"], json!(null), "{}", ready["outbox"]);
            fleet.disks[0].mend();
            fleet.disks[0].set_free(Some(1 << 30));
            fleet.until_shared().await;
        }
    });
}

/// Where no other replica takes part, one whose disk is nearly full keeps its shards, and finishes
/// what it has.
#[test]
fn the_last_replica_keeps_its_shards_on_a_full_disk() {
    run_simulated(42, async {
        let mut fleet = Fleet::start("").await;
        let hash = fleet.sent(0, 1, 0).await;
        let owner = fleet.owner(hash).await;
        (0..REPLICAS).filter(|place| *place != owner).for_each(|place| drop(fleet.replicas[place].take()));
        fleet.until_shared().await;
        fleet.disks[owner].set_free(Some(1 << 20));
        // The bucket has the first one before the disk is asked.
        fleet.send(owner, 2, 0).await;
        let answer = fleet.send(owner, 3, 0).await;
        assert_eq!(answer["error"]["data"]["reason"], "outbox_full", "{answer}");
        sleep(Duration::from_secs(60)).await;
        fleet.mine(3).await;
        fleet.until_state(hash, &["confirmed"]).await;
    });
}

impl Fleet {
    async fn until_owned_by_others(&self, place: usize, hash: B256) {
        let start = Instant::now();
        while self.at(1).admin(&format!("/outbox/{hash}")).await.json()["transactions"][0]["replica"]
            == format!("r{place}")
        {
            assert!(start.elapsed() < PATIENCE, "r{place} keeps {hash}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}
