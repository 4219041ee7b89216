//! Wishes that a replica cannot apply, answers of the store that are lost, and names that fit
//! several nodes.

use std::time::Duration;

use serde_json::{Value, json};
use steadfast::cluster::store::memory::Chances;
use tokio::time::{Instant, sleep};

use super::{Fleet, SOON};
use crate::common::{client::call, simulation::run_simulated};

impl Fleet {
    /// Waits until the wish is not applied at this replica for this reason, as `asked` knows; the
    /// reason's sentence.
    async fn until_failed(&self, asked: usize, subject: &str, place: usize, reason: &str) -> String {
        let start = Instant::now();
        loop {
            let wish = self.wish_for(asked, subject).await;
            let of = &wish["replicas"][place];
            if of["last_error"]["reason"] == reason && of["met"] == false && of["applied"] == wish["revision"] {
                return of["last_error"]["text"].as_str().unwrap().to_owned();
            }
            assert!(start.elapsed() < SOON, "no {reason} of r{place}: {wish}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_applied(&self, asked: usize, subject: &str, place: usize) {
        let start = Instant::now();
        while self.wish_for(asked, subject).await["replicas"][place]["met"] != true {
            assert!(start.elapsed() < SOON, "{}", self.wish_for(asked, subject).await);
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// C17: a replica without the node, and one without the network, say so, each with a word of its
/// own, while the others apply the wish. A reload that brings the node applies it at once.
#[test]
fn a_replica_without_the_node_says_so() {
    run_simulated(51, async {
        let fleet = Fleet::wishing(3).await;
        let text = |place: usize, from: &str, to: &str| fleet.text(place, "").replacen(from, to, 1);
        let (whole, other) = (fleet.text(1, ""), text(1, "name = \"el-2\"", "name = \"el-3\""));
        *fleet.settings[1].lock().unwrap() = other;
        fleet.at(1).app.reload().await.unwrap();
        // The third replica has another network beside, with a node of the same name.
        let url = fleet.devnet.el(0).http_url();
        let more = format!("[[networks.base.el.primary]]\nname = \"el-2\"\nhttp = \"{url}\"\n");
        *fleet.settings[2].lock().unwrap() = format!("{}{more}", fleet.text(2, ""));
        fleet.at(2).app.reload().await.unwrap();
        let start = Instant::now();
        while fleet.cluster(1).await["nodes"].as_array().unwrap().len() < 4 {
            assert!(start.elapsed() < SOON, "{}", fleet.cluster(1).await["nodes"]);
            sleep(Duration::from_millis(20)).await;
        }
        // A name that fits several nodes is refused with all of them, wherever they are.
        let why = fleet.refused(1, "nodes/el-2/cordon", 409).await;
        let all = "base/el/el-2, default/el/el-2";
        assert_eq!(why, format!("several nodes are called el-2: say which, as one of {all}"));
        let why = fleet.refused(0, "nodes/el-9/cordon", 404).await;
        let all = "base/el/el-2, default/el/el-1, default/el/el-2, default/el/el-3";
        assert_eq!(why, format!("there is no node el-9; the nodes are {all}"));
        // Of the replica that is asked the node need not be.
        fleet.wish(1, "nodes/default/el-2/cordon").await;
        let why = fleet.until_failed(0, "default el el-2", 1, "no_node").await;
        assert_eq!(why, "this replica has no node el-2 in default el");
        for place in [0, 2] {
            fleet.until_cordoned_by(place, "el-2", &["fleet"]).await;
            fleet.until_applied(1, "default el el-2", place).await;
        }
        assert_eq!(fleet.at(0).metric("steadfast_cluster_wishes_unapplied", "replica=\"r1\"").await, 1.0);
        assert_eq!(fleet.at(0).metric("steadfast_cluster_wishes_unapplied", "").await, 1.0);
        *fleet.settings[1].lock().unwrap() = whole;
        fleet.at(1).app.reload().await.unwrap();
        assert_eq!(fleet.cordoned_by(1, "el-2").await, json!(["fleet"]));
        fleet.until_applied(0, "default el el-2", 1).await;
        fleet.wish(0, "nodes/base/el-2/cordon").await;
        for place in 0..2 {
            let why = fleet.until_failed(2, "base el el-2", place, "no_network").await;
            assert_eq!(why, "this replica has no network base");
        }
        fleet.until_applied(0, "base el el-2", 2).await;
        assert_eq!(fleet.at(2).metric("steadfast_node_cordoned", "network=\"base\"").await, 1.0);
    });
}

/// C16: a node that a reload brings gets no call against a wish, though calls wait for any node.
#[test]
fn a_node_that_a_reload_brings_gets_no_call_against_a_wish() {
    run_simulated(54, async {
        let fleet = Fleet::wishing(2).await;
        let cluster = "[cluster]\nname = \"eu\"\nreplica = \"r1\"\nnats = \"nats://unused\"\n";
        let before = |name: &str, url: &str| format!("[[el.primary]]\nname = \"{name}\"\nhttp = \"{url}\"\n{cluster}");
        *fleet.settings[1].lock().unwrap() = before("el-3", "http://127.0.0.1:9");
        fleet.at(1).app.reload().await.unwrap();
        fleet.wish(0, "nodes/el-2/cordon").await;
        fleet.until_failed(0, "default el el-2", 1, "no_node").await;
        let waits = async { fleet.at(1).post(call(1, "eth_chainId", "[]")).await.json() };
        let reloads = async {
            while fleet.at(1).metric("steadfast_held_calls", "").await < 1.0 {
                sleep(Duration::from_millis(20)).await;
            }
            *fleet.settings[1].lock().unwrap() = before("el-2", &fleet.devnet.el(1).http_url());
            fleet.at(1).app.reload().await.unwrap();
        };
        let (answer, ()) = tokio::join!(waits, reloads);
        assert_eq!(answer["error"]["data"]["reason"], "cordoned", "{answer}");
        assert_eq!(fleet.at(1).node("el-2").await["verdict"], "up");
    });
}

/// C16, C17: the level of the log is wished for all, a replica whose log is fixed says so, and the
/// level of the settings comes back.
#[test]
fn the_level_of_the_log_is_wished_for_all() {
    run_simulated(52, async {
        let fleet = Fleet::wishing(3).await;
        let level = |level: &str| Some(level.to_owned());
        for (order, wished) in [("log/debug", level("debug")), ("log/warn", level("warn"))] {
            fleet.wish(0, order).await;
            let why = fleet.until_failed(1, "log", 2, "not_applied").await;
            assert_eq!(why, "the log of this replica has a fixed level");
            for place in 0..2 {
                fleet.until_applied(2, "log", place).await;
            }
            assert_eq!(*fleet.levels.lock().unwrap(), [wished.clone(), wished, None]);
        }
        for order in ["log/off", "log/loud", "log/cordoned"] {
            let why = fleet.refused(0, order, 400).await;
            assert!(why.contains("those are error, warn, info, debug, trace, default"), "{why}");
        }
        fleet.wish(2, "log/default").await;
        fleet.until_none(0).await;
        assert_eq!(*fleet.levels.lock().unwrap(), [None, None, None]);
    });
}

/// C16: a wish whose answer is lost is looked at again. If the store says nothing more, the operator
/// hears that the wish may stand.
#[test]
fn a_lost_answer_to_a_wish_is_looked_at_again() {
    run_simulated(53, async {
        let fleet = Fleet::wishing(2).await;
        fleet.store.set_chances("r0", Chances { applied_ambiguous: 1.0, ..Chances::default() });
        let done = fleet.wish(0, "nodes/el-1/cordon").await;
        fleet.store.set_chances("r0", Chances::default());
        fleet.until_met(1, "default el el-1", &done["revision"]).await;
        fleet.store.set_chances("r0", Chances { applied_ambiguous: 1.0, ..Chances::default() });
        let done = fleet.wish(0, "nodes/el-1/uncordon").await;
        assert_eq!(done["revision"], Value::Null);
        fleet.store.set_chances("r0", Chances::default());
        fleet.until_none(1).await;
        // The answer is on its way when the replica is cut off.
        fleet.store.set_chances("r0", Chances { delay: Duration::from_millis(900), ..Chances::default() });
        let cut = async {
            while !fleet.store.dump().contains("wish.default.el.el-2") {
                sleep(Duration::from_millis(1)).await;
            }
            fleet.store.cut("r0");
        };
        let (why, ()) = tokio::join!(fleet.refused(0, "nodes/el-2/cordon", 503), cut);
        assert!(why.starts_with("the answer of the cluster's store was lost: the wish may be written"), "{why}");
        fleet.until_cordoned_by(1, "el-2", &["fleet"]).await;
    });
}
