//! The nodes as all replicas see them.

use std::time::Duration;

use serde_json::{Value, json};
use steadfast::devnet::Fault;
use tokio::time::{Instant, sleep};

use super::{FAILOVER, Fleet};
use crate::common::simulation::run_simulated;

impl Fleet {
    /// The node in `cluster.nodes` of this replica.
    async fn seen(&self, place: usize, node: &str) -> Value {
        let nodes = self.cluster(place).await["nodes"].take();
        nodes.as_array().unwrap().iter().find(|of| of["node"] == node).cloned().unwrap_or_default()
    }

    /// Waits until this replica counts these verdicts on the node.
    async fn until_seen(&self, place: usize, node: &str, verdicts: Value, patience: Duration) {
        let start = Instant::now();
        while self.seen(place, node).await["verdicts"] != verdicts {
            assert!(start.elapsed() < patience, "not {verdicts}: {}", self.seen(place, node).await);
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// C9, C10, C12, C19: 'one of two replicas sees the node down' tells a broken path from a dead
/// node, and a replica that is gone counts no more.
#[test]
fn a_broken_path_is_told_from_a_dead_node() {
    run_simulated(21, async {
        let mut fleet = Fleet::before(2).await;
        for place in 0..2 {
            fleet.launch(place, "").await;
        }
        fleet.until_view("r0 active, r1 active").await;
        for place in 0..2 {
            fleet.until_seen(place, "el-1", json!({ "up": 2 }), Duration::from_secs(3)).await;
        }
        // The second replica is given another address for its first node, where nothing listens.
        let settings = fleet.text(1, "");
        let broken = settings.replacen(&fleet.devnet.el(1).http_url(), "http://127.0.0.1:9", 1);
        *fleet.settings[1].lock().unwrap() = broken.clone();
        fleet.at(1).app.reload().await.unwrap();
        let split = json!({ "down": 1, "up": 1 });
        fleet.until_seen(0, "el-1", split.clone(), Duration::from_secs(10)).await;
        let seen = fleet.seen(0, "el-1").await;
        assert_eq!((&seen["of"], &seen["replicas"][1]["verdict"]), (&json!(2), &json!("down")));
        assert!(seen["replicas"][1]["last_error"].as_str().is_some_and(|why| why.contains("refused")), "{seen}");
        let changes = fleet.cluster(0).await["changes"].take();
        let last = changes.as_array().unwrap().last().unwrap();
        assert_eq!((&last["replica"], &last["from"], &last["to"]), (&json!("r1"), &json!("up"), &json!("down")));
        assert_eq!(fleet.at(0).metric("steadfast_cluster_node_verdicts", "verdict=\"down\"").await, 1.0);
        // A node that a reload removes at one replica counts there no more, and comes back.
        let nodes = fleet.text(1, "");
        let without = broken.replacen("name = \"el-1\"", "name = \"el-3\"", 1);
        *fleet.settings[1].lock().unwrap() = without;
        fleet.at(1).app.reload().await.unwrap();
        fleet.until_seen(0, "el-1", json!({ "up": 1 }), Duration::from_secs(3)).await;
        let changes = fleet.cluster(0).await["changes"].take();
        let gone = changes.as_array().unwrap().iter().rev().find(|change| change["node"] == "el-1").unwrap();
        assert_eq!((&gone["replica"], &gone["from"], &gone["to"]), (&json!("r1"), &json!("down"), &Value::Null));
        *fleet.settings[1].lock().unwrap() = nodes;
        fleet.at(1).app.reload().await.unwrap();
        fleet.until_seen(0, "el-1", json!({ "up": 2 }), Duration::from_secs(10)).await;
        *fleet.settings[1].lock().unwrap() = broken;
        fleet.at(1).app.reload().await.unwrap();
        fleet.until_seen(0, "el-1", split, Duration::from_secs(10)).await;
        // A node that is dead is so for all.
        fleet.devnet.el(0).set_fault(Fault::Down);
        fleet.until_seen(0, "el-1", json!({ "down": 2 }), Duration::from_secs(10)).await;
        fleet.crash(1);
        fleet.until_seen(0, "el-1", json!({ "down": 1 }), 2 * FAILOVER).await;
        let changes = fleet.cluster(0).await["changes"].take();
        let last = changes.as_array().unwrap().last().unwrap();
        assert_eq!((&last["replica"], &last["to"]), (&json!("r1"), &Value::Null));
    });
}
