//! The bounds of wishes.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use steadfast::{
    cluster::store::{Key, Store},
    domain::fleet::{self, Incarnation, Wish},
};
use tokio::time::{Instant, sleep};

use super::{Fleet, SOON};
use crate::common::{log::Log, simulation::run_simulated};

/// C16: beyond 64 wishes another one is refused by the replica that is asked, and one that another
/// program writes is ignored, counted and told, until there is room.
#[test]
fn wishes_beyond_the_bound_are_refused_and_ignored() {
    run_simulated(61, async {
        let log = Log::start();
        let fleet = Fleet::wishing(2).await;
        let store = fleet.store.client("writer");
        let bucket = Incarnation(store.incarnation().await.unwrap().created().as_nanos());
        let value = Bytes::from(fleet::encode(&Wish::new("cordoned".into(), "ann".parse().unwrap()), bucket));
        for number in 0..64 {
            let key = Key::of(&["wish", "default", "el", &format!("n{number}")]).unwrap();
            store.create(&key, value.clone(), None).await.unwrap();
        }
        let count = async |state: &str| {
            let labels = format!("state=\"{state}\"");
            fleet.at(1).metric("steadfast_cluster_wishes", &labels).await
        };
        let start = Instant::now();
        while count("obeyed").await < 64.0 {
            assert!(start.elapsed() < SOON, "{}", count("obeyed").await);
            sleep(Duration::from_millis(20)).await;
        }
        let why = fleet.refused(1, "nodes/el-1/cordon", 409).await;
        assert!(why.contains("64 wishes or more, and no room for another"), "{why}");
        // A wish that stands is changed and ended nonetheless.
        fleet.wish(1, "nodes/n7/drain").await;
        store.create(&Key::of(&["wish", "default", "el", "el-1"]).unwrap(), value, None).await.unwrap();
        let start = Instant::now();
        while count("ignored").await < 1.0 {
            assert!(start.elapsed() < SOON, "the wish beyond is not counted");
            sleep(Duration::from_millis(20)).await;
        }
        for place in 0..2 {
            assert_eq!(fleet.cordoned_by(place, "el-1").await, json!([]));
            assert_eq!(fleet.wish_for(place, "default el el-1").await["ignored"], true);
        }
        // One that is written anew would be the newest: no order lets a node in by that.
        fleet.refused(0, "nodes/n7/cordon", 409).await;
        assert_eq!(log.saying("there are too many wishes of operators: the newest are ignored").len(), 2);
        fleet.wish(0, "nodes/n9/uncordon").await;
        for place in 0..2 {
            fleet.until_cordoned_by(place, "el-1", &["fleet"]).await;
        }
        assert_eq!((count("obeyed").await, count("ignored").await), (64.0, 0.0));
    });
}
