//! Events that are told late, and rows that go when all is told.

use super::*;

const ALL: [&str; 4] = ["tx.accepted", "tx.mined", "tx.confirmed", "tx.final"];
/// How long a row stays when all is told, and the look behind that.
const KEPT: Duration = Duration::from_secs(5 * 60 + 15);

impl Fleet {
    /// Has the endpoint fail, or answer again.
    fn set_down(&self, is_down: bool) {
        *self.is_down.lock().unwrap() = is_down;
    }

    /// Brings all transactions to the end of their lives.
    async fn finish(&self, hashes: &[B256]) {
        self.mine(2).await;
        self.devnet.chain().mine(200);
        // What is final is heard with a block, and counts where the block is known that is final.
        let start = Instant::now();
        for hash in hashes {
            for place in self.running() {
                while self.state(place, *hash).await != "final" {
                    assert!(start.elapsed() < PATIENCE, "{hash} is not final\n{}", self.bucket.dump());
                    self.mine(1).await;
                }
            }
        }
    }

    /// The transactions that have a row in the bucket.
    async fn rows(&self) -> usize {
        let listed = self.bucket.client("observer").list(&Prefix::ALL).await.unwrap();
        listed.entries.iter().filter(|entry| entry.key.names()[0] == "tx").count()
    }

    async fn until_rows(&self, count: usize) {
        let start = Instant::now();
        loop {
            let rows = self.rows().await;
            if rows == count {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{rows} rows, not {count}\n{}", self.bucket.dump());
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// The settings of a place without `[cluster]`.
    fn alone(&self, place: usize) -> String {
        let settings = self.settings(place);
        let (alone, rest) = settings.split_once("[cluster]").unwrap();
        format!("{alone}{}", rest.split_once("nats://unused\"\n").unwrap().1)
    }
}

/// U38, U56: a proxy that becomes one of several has deliveries that wait, of lives that are over.
#[test]
fn deliveries_of_a_proxy_that_was_alone_are_made() {
    run_simulated(31, async {
        let mut fleet = Fleet::prepare("").await;
        fleet.set_down(true);
        fleet.launch_with(0, fleet.alone(0)).await;
        let mut hashes = Vec::new();
        for key in 1..=6 {
            hashes.push(fleet.sent(0, key, 0).await);
        }
        fleet.finish(&hashes).await;
        fleet.replicas[0].take().unwrap().app.shutdown().await;
        for place in 0..REPLICAS {
            fleet.launch(place).await;
        }
        fleet.until_shared().await;
        sleep(Duration::from_secs(30)).await;
        fleet.set_down(false);
        for hash in &hashes {
            fleet.until_told(*hash, &ALL).await;
            fleet.each_has_one_id(*hash);
        }
        let by: BTreeSet<_> = fleet.got.lock().unwrap().iter().map(|got| got.replica).collect();
        assert!(by.len() > 1, "one replica tells all");
    });
}

/// An event that was told before is not told again because a proxy joins others.
#[test]
fn events_that_were_told_alone_are_not_told_again() {
    run_simulated(32, async {
        let mut fleet = Fleet::prepare("").await;
        fleet.launch_with(0, fleet.alone(0)).await;
        let hashes = [fleet.sent(0, 1, 0).await, fleet.sent(0, 2, 0).await, fleet.sent(0, 3, 0).await];
        for hash in hashes {
            fleet.until_told(hash, &["tx.accepted"]).await;
        }
        fleet.replicas[0].take().unwrap().app.shutdown().await;
        for place in 0..REPLICAS {
            fleet.launch(place).await;
        }
        fleet.until_shared().await;
        fleet.finish(&hashes).await;
        for hash in hashes {
            fleet.until_told(hash, &ALL).await;
        }
        let accepted = fleet.got.lock().unwrap().iter().filter(|got| got.kind == "tx.accepted").count();
        assert_eq!(accepted, hashes.len());
    });
}

/// A24, U38: a bucket that is made anew gets the transactions of which something is untold too.
#[test]
fn a_bucket_that_is_another_gets_what_is_untold() {
    run_simulated(33, async {
        let mut fleet = Fleet::start("").await;
        fleet.set_down(true);
        let hash = fleet.sent(0, 1, 0).await;
        fleet.finish(&[hash]).await;
        fleet.bucket.recreate();
        sleep(Duration::from_secs(20)).await;
        fleet.until_shared().await;
        fleet.until_rows(1).await;
        let owner = fleet.owner(hash).await;
        fleet.crash(owner).await;
        fleet.until_shared().await;
        fleet.set_down(false);
        fleet.until_told(hash, &ALL).await;
        fleet.each_has_one_id(hash);
    });
}

/// U2: a row goes when all is told, though the replica was not sure of itself when the row's time
/// was over, and though the bucket was listed anew when the last event was told.
#[test]
fn a_row_goes_also_behind_a_moment_of_doubt() {
    run_simulated(34, async {
        let fleet = Fleet::start("").await;
        let mut hashes = Vec::new();
        for key in 1..=6 {
            hashes.push(fleet.sent(0, key, 0).await);
        }
        fleet.finish(&hashes).await;
        for hash in &hashes {
            fleet.until_told(*hash, &ALL).await;
        }
        assert_eq!(fleet.rows().await, 6, "rows stay for those who were away");
        sleep(KEPT - Duration::from_secs(20)).await;
        // Shorter than the time after which others take over.
        (0..REPLICAS).for_each(|place| fleet.members.cut(&format!("r{place}")));
        sleep(LEASE + Duration::from_secs(6)).await;
        (0..REPLICAS).for_each(|place| fleet.members.heal(&format!("r{place}")));
        sleep(Duration::from_secs(15)).await;
        fleet.until_rows(0).await;
    });
}

/// The same where the bucket does not answer.
#[test]
fn a_row_goes_also_behind_a_failed_deletion() {
    run_simulated(35, async {
        let fleet = Fleet::start("").await;
        let hash = fleet.sent(0, 1, 0).await;
        fleet.finish(&[hash]).await;
        fleet.until_told(hash, &ALL).await;
        sleep(KEPT - Duration::from_secs(25)).await;
        (0..REPLICAS).for_each(|place| fleet.bucket.refuse(&format!("r{place}")));
        sleep(Duration::from_secs(50)).await;
        (0..REPLICAS).for_each(|place| fleet.bucket.heal(&format!("r{place}")));
        fleet.until_rows(0).await;
    });
}

/// U3: bytes that are sent anew behind the end of a life have the new life's answer, at any replica.
#[test]
fn a_new_life_is_answered_at_any_replica() {
    run_simulated(36, async {
        let fleet = Fleet::start("deadline = \"20s\"\n").await;
        for place in 0..REPLICAS {
            fleet.set_faults(Some(&Fault::refuse(&[SEND])));
            let key = u8::try_from(place + 1).unwrap();
            let hash = fleet.sent(0, key, 0).await;
            sleep(Duration::from_secs(20)).await;
            fleet.mine(2).await;
            fleet.until_state(hash, &["expired"]).await;
            fleet.set_faults(None);
            // The new row comes late.
            (0..REPLICAS).for_each(|place| fleet.bucket.lose_messages(&format!("r{place}"), 1));
            let answer = fleet.send(place, key, 0).await;
            assert_eq!(answer["result"], json!(hash), "at r{place}: {answer}");
            fleet.until_mempools(hash).await;
        }
    });
}

/// U38: a proxy that was one of several tells what none of them has told, and nothing else.
#[test]
fn a_proxy_that_is_alone_again_tells_what_is_untold() {
    run_simulated(37, async {
        let mut fleet = Fleet::start("").await;
        let mut hashes = Vec::new();
        for key in 1..=6 {
            hashes.push(fleet.sent(usize::from(key % 3), key, 0).await);
        }
        for hash in &hashes {
            fleet.until_told(*hash, &["tx.accepted"]).await;
        }
        sleep(Duration::from_secs(5)).await;
        fleet.set_down(true);
        fleet.finish(&hashes).await;
        for place in 0..REPLICAS {
            fleet.replicas[place].take().unwrap().app.shutdown().await;
        }
        fleet.set_down(false);
        fleet.launch_with(0, fleet.alone(0)).await;
        for hash in &hashes {
            fleet.until_told(*hash, &ALL).await;
            fleet.each_has_one_id(*hash);
        }
        sleep(Duration::from_secs(30)).await;
        let got = fleet.got.clone();
        let told = || got.lock().unwrap().iter().filter(|got| got.kind.starts_with("tx.")).count();
        assert_eq!(told(), hashes.len() * ALL.len());
        // Once.
        fleet.replicas[0].take().unwrap().app.shutdown().await;
        fleet.launch_with(0, fleet.alone(0)).await;
        sleep(Duration::from_secs(30)).await;
        assert_eq!(told(), hashes.len() * ALL.len());
    });
}
