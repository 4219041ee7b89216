//! Kept requests: for which nodes they are due, and which make room.

use http::{HeaderMap, Method};
use tokio::{sync::Semaphore, time::advance};

use super::*;
use crate::{
    domain::{beacon_route::Route, target::Target},
    memory::{Account, Budget},
};

const EPOCH: Duration = Duration::from_secs(384);
const NOW: (Duration, u64) = (EPOCH, 1000);

fn request(path: &str) -> Arc<Request> {
    let (method, target) = (Method::POST, Target::parse(path).unwrap());
    Arc::new(Request { route: Route::of("POST", path), method, target, headers: HeaderMap::new(), caller: None })
}

async fn body(text: &str, budget: &Arc<Budget>) -> Whole {
    body_of(text, &Account::open(budget)).await
}

async fn body_of(text: &str, account: &Arc<Account>) -> Whole {
    let piece = Bytes::copy_from_slice(text.as_bytes());
    let pieces = futures_util::stream::iter([Ok(piece)]);
    let mut upload = Upload::streamed(Box::pin(pieces), None).counted(account.incoming());
    upload.keep(1 << 20, &Arc::new(Semaphore::new(1 << 20))).await.unwrap();
    upload.in_memory().unwrap()
}

/// The requests that the node is told now.
fn told(kept: &Kept, node: usize) -> Vec<String> {
    let mut after = 0;
    let mut all = Vec::new();
    while let Some(due) = kept.next(node, after, EPOCH) {
        after = due.id;
        all.push(String::from_utf8(due.upload.in_memory().unwrap().bytes().to_vec()).unwrap());
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_node_that_begins_anew_is_told_all_in_order_and_once() {
    let (kept, prepare) = (Kept::new(2), request("/eth/v1/validator/prepare_beacon_proposer"));
    let budget = Budget::new(1 << 20);
    for text in ["a", "b", "a"] {
        kept.keep(&prepare, &body(text, &budget).await, &[0], NOW);
    }
    assert!(!kept.has_due(0) && kept.has_due(1));
    assert_eq!((told(&kept, 0), told(&kept, 1)), (vec![], vec!["b".to_owned(), "a".to_owned()]));
    kept.begins_anew(0);
    assert!(kept.has_due(0) && !kept.has_due(1));
    assert_eq!((told(&kept, 0).len(), told(&kept, 1).len()), (2, 0));
    // A request that did not arrive is due again, a little later.
    let id = kept.keep(&request("/eth/v1/validator/register_validator"), &body("a", &budget).await, &[0, 1], NOW);
    kept.failed(id, 1, Duration::from_secs(12));
    assert!(!kept.has_due(1));
    advance(Duration::from_secs(12)).await;
    assert!(kept.has_due(1));
    assert_eq!((told(&kept, 0).len(), told(&kept, 1)), (0, vec!["a".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_node_knows_all_when_it_has_confirmed_all() {
    let (kept, prepare) = (Kept::new(2), request("/eth/v1/validator/prepare_beacon_proposer"));
    let budget = Budget::new(1 << 20);
    assert!(kept.knows_all(0) && kept.knows_all(1));
    let first = kept.keep(&prepare, &body("a", &budget).await, &[0], NOW);
    assert!(!kept.knows_all(0) && !kept.knows_all(1), "one is being told, one is to be told");
    kept.confirmed(first, 0);
    assert!(kept.knows_all(0));
    let second = kept.keep(&prepare, &body("b", &budget).await, &[0], NOW);
    kept.failed(second, 0, Duration::from_secs(12));
    assert!(!kept.has_due(0) && !kept.knows_all(0), "it is left alone, and does not know");
    advance(Duration::from_secs(12)).await;
    told(&kept, 0);
    kept.confirmed(second, 0);
    assert!(kept.knows_all(0));
    kept.begins_anew(0);
    assert!(!kept.knows_all(0));
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_two_epochs_is_forgotten() {
    let (kept, prepare) = (Kept::new(1), request("/eth/v1/validator/prepare_beacon_proposer"));
    let budget = Budget::new(1 << 20);
    kept.keep(&prepare, &body("a", &budget).await, &[], NOW);
    advance(EPOCH).await;
    kept.keep(&prepare, &body("b", &budget).await, &[], NOW);
    advance(EPOCH + Duration::from_secs(1)).await;
    assert_eq!(told(&kept, 0), ["b"]);
    advance(EPOCH).await;
    assert_eq!((told(&kept, 0).len(), kept.bytes(), kept.is_empty()), (0, 0, true));
}

#[tokio::test(start_paused = true)]
async fn what_names_its_end_is_kept_until_then() {
    let (kept, budget) = (Kept::new(1), Budget::new(1 << 20));
    let sync = request("/eth/v1/validator/sync_committee_subscriptions");
    let of = |validator: u64, until: u64| {
        format!(r#"[{{"validator_index":"{validator}","sync_committee_indices":["3"],"until_epoch":"{until}"}}]"#)
    };
    for text in [of(7, 1100), of(8, 1001), of(9, u64::MAX), of(7, 1100)] {
        kept.keep(&sync, &body(&text, &budget).await, &[], NOW);
    }
    let prepare = request("/eth/v1/validator/prepare_beacon_proposer");
    kept.keep(&prepare, &body("a", &budget).await, &[], NOW);
    let left = async |epochs: u32| {
        advance(EPOCH * epochs).await;
        kept.begins_anew(0);
        told(&kept, 0)
    };
    assert_eq!(left(2).await, [of(8, 1001), of(9, u64::MAX), of(7, 1100), "a".to_owned()]);
    assert_eq!(left(97).await, [of(9, u64::MAX), of(7, 1100)]);
    assert_eq!(left(2).await, [of(9, u64::MAX)]);
    assert_eq!(left(156).await, [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_makes_room_and_the_clients_memory_has_it() {
    let (kept, prepare) = (Kept::up_to(4 * EACH, 1), request("/eth/v1/validator/prepare_beacon_proposer"));
    let budget = Budget::new(1 << 20);
    for text in ["a", "b", "c", "d"] {
        kept.keep(&prepare, &body(text, &budget).await, &[], NOW);
    }
    assert_eq!(told(&kept, 0), ["b", "c", "d"]);
    // The kind with the most makes room first, and the other kinds stay.
    let register = request("/eth/v1/validator/register_validator");
    let long = "r".repeat(3 * EACH);
    kept.keep(&register, &body(&long, &budget).await, &[], NOW);
    kept.begins_anew(0);
    assert_eq!(told(&kept, 0), ["b", "c", "d"]);
    // Where clients hold all that they may, three quarters of this, less is kept.
    let (large, budget) = (Kept::new(1), Budget::new(400_000));
    for (letter, held) in [("x", 1), ("y", 2), ("z", 2)] {
        large.keep(&prepare, &body(&letter.repeat(100_000), &budget).await, &[], NOW);
        assert!((90_000 * held..110_000 * held).contains(&budget.held()), "{letter}: {}", budget.held());
    }
    assert_eq!(told(&large, 0), ["y", "z"].map(|letter| letter.repeat(100_000)));
    drop(large);
    assert_eq!(budget.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_node_has_not_confirmed_a_reload_does_not_take_for_told() {
    let (earlier, later) = (Kept::new(2), Kept::new(2));
    let (prepare, budget) = (request("/eth/v1/validator/prepare_beacon_proposer"), Budget::new(1 << 20));
    let id = earlier.keep(&prepare, &body("a", &budget).await, &[0, 1], NOW);
    earlier.confirmed(id, 0);
    assert!(!earlier.has_due(0) && !earlier.has_due(1), "it is being told");
    later.take_over(&earlier, &[Some(0), Some(1)]);
    assert!(!later.has_due(0) && later.has_due(1));
    // A confirmation of an earlier life says nothing of the present one.
    let id = later.keep(&prepare, &body("b", &budget).await, &[0], NOW);
    later.begins_anew(0);
    later.confirmed(id, 0);
    assert!(later.has_due(0));
}

#[tokio::test(start_paused = true)]
async fn a_later_word_on_the_same_validators_replaces_the_earlier() {
    let (kept, budget) = (Kept::new(1), Budget::new(1 << 20));
    let prepare = request("/eth/v1/validator/prepare_beacon_proposer");
    let of = |list: &[(u64, &str)]| {
        let list: Vec<_> = list
            .iter()
            .map(|(index, fee)| format!(r#"{{"validator_index":"{index}","fee_recipient":"{fee}"}}"#))
            .collect();
        format!("[{}]", list.join(","))
    };
    for list in [&[(1, "a")][..], &[(2, "a")], &[(2, "b"), (1, "b")], &[(3, "a")], &[(1, "c")]] {
        kept.keep(&prepare, &body(&of(list), &budget).await, &[], NOW);
    }
    // The last is of one of the two only.
    assert_eq!(told(&kept, 0), [of(&[(2, "b"), (1, "b")]), of(&[(3, "a")]), of(&[(1, "c")])]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_floods_drives_out_its_own() {
    let (kept, budget) = (Kept::up_to(20 * EACH, 1), Budget::new(1 << 20));
    let prepare = request("/eth/v1/validator/prepare_beacon_proposer");
    let client = |last: u8| Account::of(&budget, Some([10, 0, 0, last].into()));
    let (honest, flooding) = (client(1), client(2));
    kept.keep(&prepare, &body_of("honest", &honest).await, &[], NOW);
    for number in 0..100 {
        kept.keep(&prepare, &body_of(&number.to_string(), &flooding).await, &[], NOW);
    }
    let told = told(&kept, 0);
    assert_eq!((&*told[0], &**told.last().unwrap()), ("honest", "99"));
    assert!(told.len() > 15, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_floods_from_many_addresses_of_its_own_is_one() {
    let (kept, budget) = (Kept::up_to(20 * EACH, 1), Budget::new(1 << 20));
    let prepare = request("/eth/v1/validator/prepare_beacon_proposer");
    let client = |address: String| Account::of(&budget, Some(address.parse().unwrap()));
    kept.keep(&prepare, &body_of("honest", &client("ff00::1".to_owned())).await, &[], NOW);
    for number in 0..100 {
        let flooding = client(format!("2001:db8::{number}"));
        kept.keep(&prepare, &body_of(&number.to_string(), &flooding).await, &[], NOW);
    }
    assert_eq!(told(&kept, 0)[0], "honest");
}
