//! Wishes, and a bucket that is another, was set back, or has entries that cannot be read.

use bytes::Bytes;
use serde_json::{Value, json};
use steadfast::cluster::store::{Key, Store};
use tokio::time::{Instant, sleep};

use super::{super::LEASE, FAILOVER, Fleet, SOON};
use crate::common::{log::Log, simulation::run_simulated};

/// The key of the wish for a node of the default network.
fn key(node: &str) -> Key {
    Key::of(&["wish", "default", "el", node]).unwrap()
}

impl Fleet {
    /// Writes these bytes as the wish for the node, over any that is there.
    async fn spoil(&self, node: &str, value: &'static str) -> Value {
        let (store, key) = (self.store.client("writer"), key(node));
        let value = Bytes::from_static(value.as_bytes());
        let revision = match store.read(&key).await.unwrap() {
            Some(entry) => store.compare_and_set(&key, entry.revision, value, None).await,
            None => store.create(&key, value, None).await,
        };
        json!(revision.unwrap())
    }

    async fn until_unreadable(&self, place: usize, subject: &str, revision: &Value) -> Value {
        let start = Instant::now();
        loop {
            let wish = self.wish_for(place, subject).await;
            let replicas = wish["replicas"].as_array().into_iter().flatten();
            let mut reasons = replicas.map(|of| &of["last_error"]["reason"]);
            if wish["unreadable"].is_string() && wish["revision"] == *revision && reasons.all(|of| of == "not_applied")
            {
                return wish;
            }
            assert!(start.elapsed() < SOON, "r{place}: {wish}");
            sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// C2, C16: an entry that cannot be read changes nothing, is told by all, stops no watch, and can
/// be written over and removed.
#[test]
fn an_unreadable_wish_changes_nothing_and_is_written_over() {
    run_simulated(41, async {
        let fleet = Fleet::wishing(2).await;
        fleet.wish(0, "nodes/el-1/cordon").await;
        fleet.until_cordoned_by(1, "el-1", &["fleet"]).await;
        for value in ["", "{", "[1]", "{\"bucket\":1,\"format\":1,\"state\":\"cordoned\",\"by\":\"a\"}"] {
            let revision = fleet.spoil("el-1", value).await;
            for place in 0..2 {
                let wish = fleet.until_unreadable(place, "default el el-1", &revision).await;
                assert_eq!((&wish["state"], &wish["obeyed"]), (&Value::Null, &json!("cordoned")), "{wish}");
                assert_eq!(fleet.cordoned_by(place, "el-1").await, json!(["fleet"]));
            }
        }
        assert!(fleet.at(1).metric("steadfast_cluster_unreadable_total", "").await >= 4.0);
        assert_eq!(fleet.at(1).metric("steadfast_cluster_wishes", "state=\"unreadable\"").await, 1.0);
        assert_eq!(fleet.at(0).metric("steadfast_cluster_wishes_unapplied", "").await, 2.0);
        // One that was never readable keeps no node out, and the watch goes on behind both.
        let revision = fleet.spoil("el-2", "{").await;
        fleet.until_unreadable(1, "default el el-2", &revision).await;
        assert_eq!(fleet.cordoned_by(1, "el-2").await, json!([]));
        let done = fleet.wish(1, "nodes/el-1/drain").await;
        assert_eq!(fleet.until_met(0, "default el el-1", &done["revision"]).await["unreadable"], Value::Null);
        fleet.spoil("el-1", "{").await;
        for node in ["el-1", "el-2"] {
            assert!(fleet.wish(1, &format!("nodes/{node}/uncordon")).await["before"].is_u64());
        }
        fleet.until_cordoned_by(0, "el-1", &[]).await;
        fleet.until_none(0).await;
        assert_eq!(fleet.at(0).metric("steadfast_cluster_wishes_unapplied", "").await, 0.0);
    });
}

/// C16: the operator's wishes go with the bucket. Each replica names those that it had, once.
#[test]
fn another_bucket_begins_without_wishes() {
    run_simulated(42, async {
        let log = Log::start();
        let fleet = Fleet::wishing(2).await;
        fleet.wish(0, "nodes/el-1/cordon").await;
        let before = fleet.wish(0, "log/debug").await;
        fleet.until_met(1, "log", &before["revision"]).await;
        fleet.store.recreate();
        let start = Instant::now();
        while fleet.cordoned_by(0, "el-1").await != json!([]) || fleet.cordoned_by(1, "el-1").await != json!([]) {
            assert!(start.elapsed() < 2 * FAILOVER, "the wishes are not dropped");
            sleep(std::time::Duration::from_millis(50)).await;
        }
        fleet.leader_within(3 * FAILOVER).await;
        fleet.until_active().await;
        for place in 0..2 {
            fleet.until_none(place).await;
        }
        sleep(FAILOVER).await;
        let told = log.saying("the operator's wishes are not in the bucket any more: make them again");
        let lost: Vec<_> = told.iter().map(|line| &line["lost"]).collect();
        assert_eq!(lost, ["default el el-1 cordoned, log debug"; 2]);
        assert_eq!(*fleet.levels.lock().unwrap(), [None, None, None]);
        // Made again, in another order: revisions of the bucket before mean nothing.
        for order in ["log/warn", "nodes/el-1/drain"] {
            let done = fleet.wish(1, order).await;
            fleet.until_met(0, done["subject"].as_str().unwrap(), &done["revision"]).await;
        }
    });
}

/// C16: of a bucket that was set back, the entries that are in it count.
#[test]
fn the_wishes_of_a_restored_bucket_count() {
    run_simulated(43, async {
        let fleet = Fleet::wishing(2).await;
        fleet.wish(0, "nodes/el-1/cordon").await;
        fleet.until_cordoned_by(1, "el-1", &["fleet"]).await;
        let backup = fleet.store.backup();
        fleet.wish(0, "nodes/el-1/uncordon").await;
        fleet.wish(0, "nodes/el-2/cordon").await;
        fleet.until_cordoned_by(1, "el-2", &["fleet"]).await;
        sleep(std::time::Duration::from_secs(15)).await;
        fleet.store.restore(&backup);
        let start = Instant::now();
        for place in 0..2 {
            while fleet.cordoned_by(place, "el-1").await != json!(["fleet"]) {
                assert!(start.elapsed() < 3 * FAILOVER, "the wish of the backup does not count");
                sleep(std::time::Duration::from_millis(50)).await;
            }
            assert_eq!(fleet.cordoned_by(place, "el-2").await, json!([]));
        }
        fleet.leader_within(3 * FAILOVER + LEASE).await;
        fleet.until_active().await;
        let wish = fleet.wish_for(0, "default el el-1").await;
        fleet.until_met(1, "default el el-1", &wish["revision"]).await;
    });
}
