//! The operator's wishes for all replicas: written at one, applied at all.

mod bounds;
mod bucket;
mod command;
mod errors;

use std::time::Duration;

use serde_json::{Value, json};
use steadfast::cluster::store::{
    memory::{Chances, Memory},
    nats::OpenError,
};
use tokio::time::{Instant, sleep};

use super::{FAILOVER, Fleet};
use crate::common::{
    client::{Client, call},
    sim::Net,
    simulation::run_simulated,
};

/// For a wish to come through the store, and the outcome to come back with a heartbeat.
const SOON: Duration = Duration::from_secs(5);

impl Fleet {
    /// So many replicas before two nodes, in one view.
    async fn wishing(replicas: usize) -> Self {
        let mut fleet = Self::before(2).await;
        for place in 0..replicas {
            fleet.launch(place, "").await;
        }
        fleet.until_active().await;
        fleet
    }

    async fn until_active(&self) {
        let all: Vec<_> = (0..self.replicas.len()).map(|place| format!("r{place} active")).collect();
        self.until_view(&all.join(", ")).await;
    }

    /// Has the replica take the wish; the answer.
    async fn wish(&self, place: usize, order: &str) -> Value {
        let answer = self.at(place).operate(&format!("/cluster/wishes/{order}")).await;
        assert_eq!(answer.status, 200, "{order}: {}", answer.text());
        answer.json()
    }

    /// Has the replica refuse the wish with this status; the reason.
    async fn refused(&self, place: usize, order: &str, status: u16) -> String {
        let answer = self.at(place).operate(&format!("/cluster/wishes/{order}")).await;
        assert_eq!(answer.status, status, "{order}: {}", answer.text());
        answer.json()["error"].as_str().unwrap().to_owned()
    }

    /// The orders that take the node out at this replica.
    async fn cordoned_by(&self, place: usize, node: &str) -> Value {
        self.at(place).node(node).await["cordoned_by"].take()
    }

    /// Waits until these orders take the node out at this replica.
    async fn until_cordoned_by(&self, place: usize, node: &str, orders: &[&str]) {
        let start = Instant::now();
        while self.cordoned_by(place, node).await != json!(orders) {
            let seen = self.cluster(place).await["wishes"].take();
            assert!(start.elapsed() < SOON, "r{place}: {node} is not cordoned by {orders:?}: {seen}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The wish for this subject, as this replica tells; null for none.
    async fn wish_for(&self, place: usize, subject: &str) -> Value {
        let wishes = self.cluster(place).await["wishes"].take();
        wishes.as_array().unwrap().iter().find(|wish| wish["subject"] == subject).cloned().unwrap_or_default()
    }

    /// Waits until this replica knows that all have applied the wish of this revision.
    async fn until_met(&self, place: usize, subject: &str, revision: &Value) -> Value {
        let start = Instant::now();
        loop {
            let wish = self.wish_for(place, subject).await;
            let mut replicas = wish["replicas"].as_array().into_iter().flatten();
            if wish["revision"] == *revision && replicas.all(|of| of["met"] == true && of["applied"] == *revision) {
                return wish;
            }
            assert!(start.elapsed() < SOON, "r{place}: revision {revision} is not met: {wish}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until no wish is left, and no replica reports any.
    async fn until_none(&self, place: usize) {
        let start = Instant::now();
        while self.cluster(place).await["wishes"] != json!([]) {
            assert!(start.elapsed() < SOON, "r{place}: {}", self.cluster(place).await["wishes"]);
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// C16, C17: a wish that is written once is applied by all replicas, by one that starts later, and
/// after a reload; each reports the revision that it has applied.
#[test]
fn a_wish_is_written_once_and_applied_by_all() {
    run_simulated(31, async {
        let mut fleet = Fleet::wishing(2).await;
        let done = fleet.wish(0, "nodes/el-2/cordon").await;
        assert_eq!((&done["subject"], &done["state"]), (&json!("default el el-2"), &json!("cordoned")));
        for place in 0..2 {
            fleet.until_cordoned_by(place, "el-2", &["fleet"]).await;
            let wish = fleet.until_met(place, "default el el-2", &done["revision"]).await;
            assert_eq!((&wish["by"], wish["replicas"].as_array().unwrap().len()), (&json!("r0"), 2), "{wish}");
            assert!(wish["created_unix"].is_u64(), "{wish}");
        }
        assert_eq!(fleet.at(0).node("el-2").await["usable"], false);
        fleet.launch(2, "").await;
        fleet.until_active().await;
        fleet.until_cordoned_by(2, "el-2", &["fleet"]).await;
        assert_eq!(fleet.until_met(1, "default el el-2", &done["revision"]).await["replicas"][2]["replica"], "r2");
        // The nodes of another pool, which a reload makes, are out from the start.
        *fleet.settings[1].lock().unwrap() = format!("[health]\nfall = 4\n{}", fleet.text(1, ""));
        fleet.at(1).app.reload().await.unwrap();
        assert_eq!(fleet.cordoned_by(1, "el-2").await, json!(["fleet"]));
        assert_eq!(fleet.at(1).metric("steadfast_cluster_wishes", "state=\"obeyed\"").await, 1.0);
        // The same wish again is no other one, and a drain is the same with another word.
        assert_eq!(fleet.wish(2, "nodes/el/el-2/cordon").await["revision"], done["revision"]);
        let drained = fleet.wish(2, "nodes/default/el/el-2/drain").await;
        assert_eq!(drained["before"], done["revision"]);
        assert_eq!(fleet.until_met(0, "default el el-2", &drained["revision"]).await["state"], "drained");
        assert_eq!(fleet.wish(1, "nodes/el-2/uncordon").await["before"], drained["revision"]);
        for place in 0..3 {
            fleet.until_cordoned_by(place, "el-2", &[]).await;
            fleet.until_none(place).await;
        }
        assert_eq!(fleet.wish(1, "nodes/el-2/uncordon").await["before"], Value::Null);
    });
}

/// C16: the operator of a replica is the floor. A wish that ends lets in no node that is cordoned
/// there, and an order there ends no wish.
#[test]
fn a_replicas_own_cordon_stays_when_the_wish_ends() {
    run_simulated(32, async {
        let fleet = Fleet::wishing(2).await;
        assert_eq!(fleet.at(1).operate("/nodes/el-1/cordon").await.status, 200);
        fleet.wish(0, "nodes/el-1/cordon").await;
        fleet.until_cordoned_by(0, "el-1", &["fleet"]).await;
        fleet.until_cordoned_by(1, "el-1", &["local", "fleet"]).await;
        let start = Instant::now();
        while fleet.cluster(0).await["nodes"][0]["replicas"][1]["cordoned"] != true {
            assert!(start.elapsed() < SOON, "{}", fleet.cluster(0).await["nodes"]);
            sleep(Duration::from_millis(20)).await;
        }
        for place in 0..2 {
            assert_eq!(fleet.wish(place, "nodes/el-1/uncordon").await["cordoned_at"], json!(["r1"]));
        }
        fleet.until_cordoned_by(0, "el-1", &[]).await;
        fleet.until_cordoned_by(1, "el-1", &["local"]).await;
        fleet.wish(0, "nodes/el-1/cordon").await;
        fleet.until_cordoned_by(1, "el-1", &["local", "fleet"]).await;
        let done = fleet.at(1).operate("/nodes/el-1/uncordon").await.json();
        assert!(done["warning"].as_str().unwrap().contains("steadfast fleet uncordon"), "{done}");
        assert_eq!(fleet.cordoned_by(1, "el-1").await, json!(["fleet"]));
        fleet.wish(1, "nodes/el-1/uncordon").await;
        fleet.until_cordoned_by(1, "el-1", &[]).await;
        // The last node of a side is taken out with a warning.
        fleet.wish(0, "nodes/el-1/cordon").await;
        fleet.until_cordoned_by(0, "el-1", &["fleet"]).await;
        let done = fleet.wish(0, "nodes/el-2/cordon").await;
        assert!(done["warning"].as_str().unwrap().starts_with("no other node of default el can serve"), "{done}");
    });
}

/// C16: a replica that is cut off keeps the last wish, says that it can take none, and serves; a
/// wish that ended meanwhile ends there with the next listing.
#[test]
fn a_replica_that_is_cut_off_keeps_the_last_wish() {
    run_simulated(33, async {
        for (cut, words) in
            [(Memory::cut as fn(&Memory, &str), "no answer in time"), (Memory::refuse, "the client is cut off")]
        {
            let fleet = Fleet::wishing(2).await;
            fleet.wish(0, "nodes/el-1/cordon").await;
            fleet.until_cordoned_by(1, "el-1", &["fleet"]).await;
            cut(&fleet.store, "r1");
            fleet.wish(0, "nodes/el-1/uncordon").await;
            let kept = fleet.wish(0, "nodes/el-2/cordon").await;
            fleet.until_cordoned_by(0, "el-1", &[]).await;
            sleep(2 * FAILOVER).await;
            assert_eq!(fleet.cordoned_by(1, "el-1").await, json!(["fleet"]));
            fleet.serves(1).await;
            for order in ["nodes/el-1/uncordon", "nodes/el-2/drain", "log/debug"] {
                let why = fleet.refused(1, order, 503).await;
                assert!(why.starts_with("the cluster's store is not reached, and no wish is changed"), "{why}");
                assert!(why.contains(words), "{why}");
            }
            fleet.store.heal("r1");
            fleet.until_cordoned_by(1, "el-1", &[]).await;
            fleet.until_cordoned_by(1, "el-2", &["fleet"]).await;
            fleet.until_active().await;
            assert_eq!(fleet.until_met(0, "default el el-2", &kept["revision"]).await["state"], "cordoned");
        }
    });
}

/// C16: of two operators at once both end in one state, and each hears the truth.
#[test]
fn two_operators_at_once_end_in_one_state() {
    run_simulated(34, async {
        let fleet = Fleet::wishing(2).await;
        let lost = async || {
            let mut lost = 0.0;
            for place in 0..2 {
                lost += fleet.at(place).metric("steadfast_cluster_cas_lost_total", "").await;
            }
            lost
        };
        let before = lost().await;
        for client in ["r0", "r1"] {
            fleet.store.set_chances(client, Chances { delay: Duration::from_millis(40), ..Chances::default() });
        }
        for round in 0..12 {
            let (one, other) = if round % 3 == 2 { ("uncordon", "drain") } else { ("cordon", "drain") };
            let (one, other) = (format!("nodes/el-1/{one}"), format!("nodes/el-1/{other}"));
            let (one, other) = tokio::join!(fleet.wish(0, &one), fleet.wish(1, &other));
            // The later of the two counts.
            let last = if other["revision"].as_u64() > one["revision"].as_u64() { &other } else { &one };
            let is_ended = one["revision"].is_null() && one["before"] == other["revision"];
            if is_ended {
                fleet.until_none(1).await;
                continue;
            }
            for place in 0..2 {
                assert_eq!(fleet.until_met(place, "default el el-1", &last["revision"]).await["state"], last["state"]);
            }
        }
        assert!(lost().await > before, "no two operators met");
    });
}

/// Calls a proxy that is about to start, whose admin side has the next port; `/status` when the
/// first call is answered.
async fn first_call(net: Net, port: u16) -> Value {
    let connect = async |port: u16| loop {
        match net.connect(port).await {
            Ok(io) => return Client::over(io),
            Err(_) => sleep(Duration::from_millis(1)).await,
        }
    };
    let answer = connect(port).await.post(call(1, "eth_chainId", "[]")).await.json();
    assert!(answer["result"].is_string(), "{answer}");
    let mut admin = connect(port + 1).await;
    admin.send("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    admin.response().await.json()
}

/// C16: a replica that starts has the wishes before it serves, if the store tells them in time;
/// otherwise it serves all the same, and has them when it joins.
#[test]
fn a_replica_that_starts_takes_up_the_wishes_first() {
    run_simulated(35, async {
        let mut fleet = Fleet::wishing(2).await;
        fleet.wish(0, "nodes/el-1/cordon").await;
        fleet.until_cordoned_by(1, "el-1", &["fleet"]).await;
        fleet.crash(1);
        fleet.store.set_chances("r1", Chances { delay: Duration::from_millis(100), ..Chances::default() });
        let first = first_call(fleet.net.clone(), fleet.net.next_port());
        let ((), status) = tokio::join!(fleet.launch(1, ""), first);
        let nodes = &status["networks"][0]["el"]["nodes"];
        assert_eq!((&nodes[0]["name"], &nodes[0]["cordoned_by"]), (&json!("el-1"), &json!(["fleet"])), "{nodes}");
        fleet.crash(1);
        fleet.store.set_chances("r1", Chances::default());
        // A store that is not reached is not waited for.
        *fleet.refusal.lock().unwrap() = Some(OpenError::Unreachable("gone".to_owned()));
        let start = Instant::now();
        fleet.launch(1, "").await;
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
        fleet.crash(1);
        *fleet.refusal.lock().unwrap() = None;
        fleet.store.cut("r1");
        let start = Instant::now();
        fleet.launch(1, "").await;
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        assert_eq!(fleet.cordoned_by(1, "el-1").await, json!([]));
        fleet.serves(1).await;
        fleet.store.heal("r1");
        let start = Instant::now();
        while fleet.cordoned_by(1, "el-1").await != json!(["fleet"]) {
            assert!(start.elapsed() < FAILOVER, "the wish is not taken up on joining");
            sleep(Duration::from_millis(20)).await;
        }
    });
}

/// C16: calls never depend on the store, however many wishes there are and whoever asks.
#[test]
fn calls_go_on_when_the_store_of_wishes_is_gone() {
    run_simulated(36, async {
        let fleet = Fleet::wishing(2).await;
        fleet.wish(0, "nodes/el-1/cordon").await;
        fleet.until_cordoned_by(1, "el-1", &["fleet"]).await;
        (0..2).for_each(|place| fleet.store.cut(&format!("r{place}")));
        for _ in 0..20 {
            for place in 0..2 {
                let (_, why) = tokio::join!(fleet.serves(place), fleet.refused(place, "nodes/el-2/cordon", 503));
                assert!(why.contains("no wish is changed"), "{why}");
                assert_eq!(fleet.cordoned_by(place, "el-1").await, json!(["fleet"]));
            }
        }
        // A reload without the store keeps the wishes too.
        *fleet.settings[1].lock().unwrap() = format!("[health]\nfall = 4\n{}", fleet.text(1, ""));
        fleet.at(1).app.reload().await.unwrap();
        assert_eq!(fleet.cordoned_by(1, "el-1").await, json!(["fleet"]));
        fleet.serves(1).await;
    });
}

/// Orders for all replicas are guarded as all of the admin side.
#[test]
fn a_page_of_another_origin_wishes_nothing() {
    run_simulated(37, async {
        let fleet = Fleet::wishing(1).await;
        let ask = async |method: &str, path: &str, lines: &str| {
            let port = fleet.at(0).app.admin_addr().port();
            let mut client = Client::over(fleet.net.connect(port).await.unwrap());
            client.send(format!("{method} {path} HTTP/1.1\r\n{lines}Content-Length: 0\r\n\r\n")).await;
            client.response().await.status
        };
        for path in ["/cluster/wishes/nodes/el-1/cordon", "/cluster/wishes/log/trace"] {
            for lines in [
                "Host: localhost\r\nOrigin: http://evil.example\r\n",
                "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n",
                "Host: evil.example\r\n",
            ] {
                assert_eq!(ask("POST", path, lines).await, 403, "{lines}");
            }
            assert_eq!(ask("GET", path, "Host: localhost\r\n").await, 404);
            assert_eq!(ask("DELETE", path, "Host: localhost\r\n").await, 405);
            assert_eq!(ask("POST", &format!("{path}?network=x"), "Host: localhost\r\n").await, 400);
        }
        for path in ["nodes/el-1", "nodes/el-1/kill", "el-1/cordon", "log/", "nodes//cordon"] {
            let status = fleet.at(0).operate(&format!("/cluster/wishes/{path}")).await.status;
            assert!([400, 404].contains(&status), "{path}: {status}");
        }
        assert_eq!(fleet.cluster(0).await["wishes"], json!([]));
        assert!(!fleet.store.dump().contains("wish"), "{}", fleet.store.dump());
    });
}
