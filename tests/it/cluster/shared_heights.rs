//! Heights that clients see at one replica bind the others.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use steadfast::{
    cluster::store::{Key, Store},
    devnet::Fault,
    domain::fleet::{self, Heartbeat, Incarnation, LayerWord, ServedHead},
};
use tokio::time::{Instant, sleep};

use super::Fleet;
use crate::common::{client::call, simulation::run_simulated};

/// The time that news of a height has to the other replicas.
const NEWS: Duration = Duration::from_millis(60);

impl Fleet {
    /// The height that a client of this replica sees.
    async fn height(&self, place: usize) -> u64 {
        let answer = self.at(place).post(call(1, "eth_blockNumber", "[]")).await.json();
        let height = answer["result"].as_str().unwrap_or_else(|| panic!("{answer}"));
        u64::from_str_radix(&height[2..], 16).unwrap()
    }

    /// Another replica has shown this height, and is gone.
    async fn lie(&self, served: u64) -> impl Store {
        let store = self.store.client("liar");
        let bucket = Incarnation(store.incarnation().await.unwrap().created().as_nanos());
        let mut lie = Heartbeat::registration(7);
        let (network, layer) = ("default".parse().unwrap(), LayerWord::El);
        lie.heads = vec![ServedHead { network, layer, served }];
        let key = Key::of(&["replica", "liar"]).unwrap();
        store.create(&key, Bytes::from(fleet::encode(&lie, bucket)), None).await.unwrap();
        store
    }

    /// Two replicas before the same two nodes, each with another one first, in one view.
    async fn of_two_before_two() -> Self {
        let mut fleet = Self::before(2).await;
        for place in 0..2 {
            fleet.launch(place, "").await;
        }
        fleet.until_view("r0 active, r1 active").await;
        fleet
    }
}

/// A client that alternates between two replicas, the first node of one a block behind the first
/// node of the other, sees each height once it has come.
async fn alternate(fleet: &Fleet) {
    fleet.devnet.el(1).set_fault(Fault::Lag { blocks: 1 });
    let mut highest = 0;
    for _ in 0..20 {
        fleet.devnet.chain().mine(1);
        let mined = Instant::now();
        while mined.elapsed() < Duration::from_secs(4) {
            for place in 0..2 {
                let height = fleet.height(place).await;
                assert!(height >= highest, "r{place} shows {height} after {highest}");
                highest = height;
                sleep(NEWS).await;
            }
        }
    }
    assert_eq!(highest, fleet.devnet.chain().head().number);
}

/// R3 of the promises.
#[test]
fn a_client_that_alternates_sees_no_height_fall() {
    run_simulated(11, async { alternate(&Fleet::of_two_before_two().await).await });
}

/// R3: one height that no replica believes does not put the others aside, and is told once.
#[test]
fn one_lie_puts_no_other_height_aside() {
    run_simulated(14, async {
        let fleet = Fleet::of_two_before_two().await;
        fleet.lie(fleet.devnet.chain().head().number + 1_000_000).await;
        alternate(&fleet).await;
        for place in 0..2 {
            let doubted = fleet.at(place).metric("steadfast_cluster_heights_doubted_total", "").await;
            assert_eq!(doubted, 1.0, "r{place}");
        }
    });
}

/// C2 and the bound of trust: a height that no node of a replica bears out is not taken over, and
/// counts once the nodes have come near.
#[test]
fn a_height_that_no_node_bears_out_is_not_taken_over() {
    run_simulated(12, async {
        let fleet = Fleet::of_two_before_two().await;
        let head = fleet.devnet.chain().head().number;
        let store = fleet.lie(head + 1000).await;
        sleep(Duration::from_secs(2)).await;
        for place in 0..2 {
            let told = fleet.cluster(place).await;
            let liar = told["replicas"].as_array().unwrap().iter().find(|replica| replica["replica"] == "liar");
            assert_eq!(liar.unwrap()["heads"][0]["served"], head + 1000);
            let start = Instant::now();
            assert_eq!(fleet.height(place).await, head);
            assert!(start.elapsed() < Duration::from_millis(100), "a call waited for the lie");
        }
        // Its own heartbeats are not spoilt by a key whose value means nothing.
        let key = Key::of(&["replica", "broken"]).unwrap();
        store.create(&key, Bytes::from_static(b"\xff{"), None).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        assert!(fleet.at(0).metric("steadfast_cluster_unreadable_total", "").await >= 1.0);
        fleet.until_view("r0 active, r1 active").await;
        let own =
            fleet.cluster(0).await["replicas"].as_array().unwrap().iter().find(|of| of["replica"] == "r0").cloned();
        assert_eq!(own.unwrap_or(Value::Null)["heads"][0]["served"], head);
    });
}
