//! The operator's wishes: written at one replica, applied at all.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{FAILOVER, Fleet, LEASE};
use crate::common::simulation::run_simulated;

impl Fleet {
    /// Two replicas before two nodes, in one view.
    async fn of_two() -> Self {
        let mut fleet = Self::before(2).await;
        for place in 0..2 {
            fleet.launch(place, "").await;
        }
        fleet.until_view("r0 active, r1 active").await;
        fleet
    }

    /// Waits until the node is cordoned, or not, at this replica.
    async fn until_cordoned(&self, place: usize, node: &str, cordoned: bool) {
        let start = Instant::now();
        while self.at(place).node(node).await["cordoned"] != cordoned {
            assert!(start.elapsed() < Duration::from_secs(5), "r{place}: {node} is not as wished");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The only wish in `cluster.wishes` of this replica, once all replicas have applied it.
    async fn met(&self, place: usize) -> Value {
        let start = Instant::now();
        loop {
            let wish = self.cluster(place).await["wishes"][0].take();
            if wish["replicas"].as_array().is_some_and(|all| all.iter().all(|of| of["met"] == true)) {
                return wish;
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{wish}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// C16, C17: a cordon that is written once counts at all replicas, also at one that starts later,
/// and each reports the revision that it applied.
#[test]
fn a_wish_is_written_once_and_applied_by_all() {
    run_simulated(31, async {
        let mut fleet = Fleet::of_two().await;
        let done = fleet.at(0).operate("/fleet/nodes/el-2/cordon").await;
        assert_eq!(done.status, 200);
        let revision = done.json()["revision"].clone();
        for place in 0..2 {
            fleet.until_cordoned(place, "el-2", true).await;
            assert_eq!(fleet.met(place).await["revision"], revision);
        }
        fleet.launch(2, "").await;
        fleet.until_cordoned(2, "el-2", true).await;
        // A reload loses no wish, and a replica's own cordon is another one.
        fleet.at(1).app.reload().await.unwrap();
        fleet.until_cordoned(1, "el-2", true).await;
        assert_eq!(fleet.at(1).operate("/nodes/el-2/cordon").await.status, 200);
        assert_eq!(fleet.at(1).operate("/fleet/nodes/el-2/uncordon").await.status, 200);
        for place in [0, 2] {
            fleet.until_cordoned(place, "el-2", false).await;
        }
        assert_eq!(fleet.met(1).await["cordoned"], false);
        fleet.until_cordoned(1, "el-2", true).await;
        assert_eq!(fleet.at(1).operate("/nodes/el-2/uncordon").await.status, 200);
        fleet.until_cordoned(1, "el-2", false).await;
        assert_eq!(fleet.at(0).operate("/fleet/nodes/el-9/cordon").await.status, 404);
    });
}

/// C16, A24: a replica that is cut off keeps the last wish, and says when it cannot take one; a
/// bucket that is made anew has the wishes again.
#[test]
fn a_wish_outlives_the_store() {
    run_simulated(32, async {
        let fleet = Fleet::of_two().await;
        assert_eq!(fleet.at(0).operate("/fleet/nodes/el-1/cordon").await.status, 200);
        fleet.until_cordoned(1, "el-1", true).await;
        fleet.store.refuse("r1");
        sleep(2 * FAILOVER).await;
        assert_eq!(fleet.at(1).node("el-1").await["cordoned"], true);
        let refused = fleet.at(1).operate("/fleet/nodes/el-1/uncordon").await;
        assert_eq!((refused.status, &refused.json()["error"]), (503, &json!("the cluster's store is not reached")));
        fleet.store.heal("r1");
        fleet.store.recreate();
        let start = Instant::now();
        while fleet.cluster(0).await["wishes"][0]["revision"] != 0 {
            assert!(start.elapsed() < FAILOVER, "nobody saw that the bucket is another");
            sleep(Duration::from_millis(20)).await;
        }
        fleet.leader_within(2 * FAILOVER + LEASE).await;
        fleet.until_view("r0 active, r1 active").await;
        let wish = fleet.met(1).await;
        assert!(wish["revision"].as_u64().is_some_and(|revision| revision > 0) && wish["cordoned"] == true, "{wish}");
        assert_eq!(fleet.at(0).node("el-1").await["cordoned"], true);
    });
}
