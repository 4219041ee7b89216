//! Requests that all nodes were told: for which nodes they are due, and which make room.

use http::{HeaderMap, Method};
use tokio::time::advance;

use super::{super::room::Room, *};
use crate::{
    domain::{beacon_route::Route, node_id::NodeId, target::Target},
    memory::{Account, Budget},
};

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);
const C: NodeId = NodeId(2);
const EPOCH: Duration = Duration::from_secs(384);
const NOW: (Duration, u64) = (EPOCH, 1000);

fn request(path: &str) -> Arc<Request> {
    let (method, target) = (Method::POST, Target::parse(path).unwrap());
    Arc::new(Request {
        route: Route::of("POST", path),
        method,
        target,
        headers: HeaderMap::new(),
        caller: None,
        client: None,
        trace: None,
        pick: None,
    })
}

async fn body(text: &str, budget: &Arc<Budget>) -> Whole {
    body_of(text, &Account::open(budget)).await
}

async fn body_of(text: &str, account: &Arc<Account>) -> Whole {
    let piece = Bytes::copy_from_slice(text.as_bytes());
    let pieces = futures_util::stream::iter([Ok(piece)]);
    let mut upload = Upload::streamed(Box::pin(pieces), None).counted(account.incoming());
    upload.keep(1 << 20, &Room::new(1 << 21)).await.unwrap();
    upload.in_memory().unwrap()
}

const TAKEN: TellOutcome = TellOutcome::Taken { is_usable: true };

/// Keeps a request that these nodes take.
async fn takes(kept: &ToldMessages, request: &Arc<Request>, text: &str, nodes: &[NodeId], budget: &Arc<Budget>) {
    let telling = kept.keep(request, &body(text, budget).await, nodes, NOW);
    nodes.iter().for_each(|node| kept.heard(&telling, *node, TAKEN, EPOCH));
}

/// The requests that the node is told now, in the order of their arrival.
fn due(kept: &ToldMessages, node: NodeId) -> Vec<(Telling, String)> {
    let mut all = Vec::new();
    for kind in 0..LANES {
        while let Some(due) = kept.next(node, kind, EPOCH) {
            let text = String::from_utf8(due.upload.in_memory().unwrap().bytes().to_vec()).unwrap();
            all.push((due.telling, text));
        }
    }
    all.sort_by_key(|(telling, _)| telling.id);
    all
}

fn told(kept: &ToldMessages, node: NodeId) -> Vec<String> {
    due(kept, node).into_iter().map(|(_, text)| text).collect()
}

fn has_due(kept: &ToldMessages, node: NodeId) -> bool {
    (0..LANES).any(|kind| kept.has_due(node, kind))
}

#[tokio::test(start_paused = true)]
async fn a_node_that_begins_anew_is_told_all_in_order_and_once() {
    let (kept, prepare) = (ToldMessages::new(2), request("/eth/v1/validator/prepare_beacon_proposer"));
    let budget = Budget::new(1 << 20);
    for text in ["a", "b", "a"] {
        takes(&kept, &prepare, text, &[A], &budget).await;
    }
    assert!(!has_due(&kept, A) && has_due(&kept, B));
    assert_eq!((told(&kept, A), told(&kept, B)), (vec![], vec!["b".to_owned(), "a".to_owned()]));
    kept.begins_anew(A);
    assert!(has_due(&kept, A) && !has_due(&kept, B));
    assert_eq!((told(&kept, A).len(), told(&kept, B).len()), (2, 0));
    // A request that did not arrive is due again, a little later.
    let register = request("/eth/v1/validator/register_validator");
    let telling = kept.keep(&register, &body("a", &budget).await, &[A, B], NOW);
    kept.heard(&telling, A, TAKEN, EPOCH);
    kept.heard(&telling, B, TellOutcome::Failed, Duration::from_secs(12));
    assert!(!has_due(&kept, B));
    advance(Duration::from_secs(12)).await;
    assert!(has_due(&kept, B));
    assert_eq!((told(&kept, A).len(), told(&kept, B)), (0, vec!["a".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_node_knows_all_when_it_has_confirmed_all() {
    let (kept, prepare) = (ToldMessages::new(2), request("/eth/v1/validator/prepare_beacon_proposer"));
    let budget = Budget::new(1 << 20);
    assert!(kept.knows_all(A) && kept.knows_all(B));
    let first = kept.keep(&prepare, &body("a", &budget).await, &[A], NOW);
    assert!(!kept.knows_all(A) && !kept.knows_all(B), "one is being told, one is to be told");
    kept.heard(&first, A, TAKEN, EPOCH);
    assert!(kept.knows_all(A));
    let second = kept.keep(&prepare, &body("b", &budget).await, &[A], NOW);
    kept.heard(&second, A, TellOutcome::Failed, Duration::from_secs(12));
    assert!(!has_due(&kept, A) && !kept.knows_all(A), "it is left alone, and does not know");
    advance(Duration::from_secs(12)).await;
    told(&kept, A);
    kept.heard(&second, A, TAKEN, EPOCH);
    assert!(kept.knows_all(A));
    kept.begins_anew(A);
    assert!(!kept.knows_all(A));
}

#[tokio::test(start_paused = true)]
async fn messages_older_than_two_epochs_are_forgotten() {
    let (kept, prepare) = (ToldMessages::new(1), request("/eth/v1/validator/prepare_beacon_proposer"));
    let budget = Budget::new(1 << 20);
    kept.keep(&prepare, &body("a", &budget).await, &[], NOW);
    advance(EPOCH).await;
    kept.keep(&prepare, &body("b", &budget).await, &[], NOW);
    advance(EPOCH + Duration::from_secs(1)).await;
    assert_eq!(told(&kept, NodeId(0)), ["b"]);
    advance(EPOCH).await;
    assert_eq!((told(&kept, NodeId(0)).len(), kept.bytes(), kept.is_empty()), (0, 0, true));
}

#[tokio::test(start_paused = true)]
async fn message_that_names_its_end_is_kept_until_then() {
    let (kept, budget) = (ToldMessages::new(1), Budget::new(1 << 20));
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
        kept.begins_anew(NodeId(0));
        told(&kept, NodeId(0))
    };
    assert_eq!(left(2).await, [of(8, 1001), of(9, u64::MAX), of(7, 1100), "a".to_owned()]);
    assert_eq!(left(97).await, [of(9, u64::MAX), of(7, 1100)]);
    assert_eq!(left(2).await, [of(9, u64::MAX)]);
    assert_eq!(left(156).await, [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_makes_room_and_the_clients_memory_has_it() {
    let (kept, prepare) = (ToldMessages::up_to(4 * EACH, 1), request("/eth/v1/validator/prepare_beacon_proposer"));
    let budget = Budget::new(1 << 20);
    for text in ["a", "b", "c", "d"] {
        kept.keep(&prepare, &body(text, &budget).await, &[], NOW);
    }
    assert_eq!(told(&kept, NodeId(0)), ["b", "c", "d"]);
    // The kind with the most makes room first, and the other kinds stay.
    let register = request("/eth/v1/validator/register_validator");
    let long = "r".repeat(3 * EACH);
    kept.keep(&register, &body(&long, &budget).await, &[], NOW);
    kept.begins_anew(NodeId(0));
    assert_eq!(told(&kept, NodeId(0)), ["b", "c", "d"]);
    // Where clients hold all that they may, three quarters of this, less is kept.
    let (large, budget) = (ToldMessages::new(1), Budget::new(400_000));
    for (letter, held) in [("x", 1), ("y", 2), ("z", 2)] {
        large.keep(&prepare, &body(&letter.repeat(100_000), &budget).await, &[], NOW);
        assert!((90_000 * held..110_000 * held).contains(&budget.held()), "{letter}: {}", budget.held());
    }
    assert_eq!(told(&large, NodeId(0)), ["y", "z"].map(|letter| letter.repeat(100_000)));
    drop(large);
    assert_eq!(budget.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reload_takes_nothing_unconfirmed_for_told() {
    let (earlier, later) = (ToldMessages::new(2), ToldMessages::new(2));
    let (prepare, budget) = (request("/eth/v1/validator/prepare_beacon_proposer"), Budget::new(1 << 20));
    let id = earlier.keep(&prepare, &body("a", &budget).await, &[A, B], NOW);
    earlier.heard(&id, A, TAKEN, EPOCH);
    assert!(!has_due(&earlier, A) && !has_due(&earlier, B), "it is being told");
    later.take_over(&earlier, &[Some(A), Some(B)]);
    assert!(!has_due(&later, A) && has_due(&later, B));
    // A confirmation of an earlier life says nothing of the present one.
    let id = later.keep(&prepare, &body("b", &budget).await, &[A], NOW);
    later.begins_anew(A);
    later.heard(&id, A, TAKEN, EPOCH);
    assert!(has_due(&later, A));
}

/// Fee recipients of these validators.
fn fees(list: &[(u64, &str)]) -> String {
    let fee = |(index, fee): &(u64, &str)| format!(r#"{{"validator_index":"{index}","fee_recipient":"{fee}"}}"#);
    format!("[{}]", list.iter().map(fee).collect::<Vec<_>>().join(","))
}

#[tokio::test(start_paused = true)]
async fn a_later_word_on_the_same_validators_replaces_the_earlier() {
    let (kept, budget) = (ToldMessages::new(2), Budget::new(1 << 20));
    let prepare = request("/eth/v1/validator/prepare_beacon_proposer");
    for list in [&[(1, "a")][..], &[(2, "a")], &[(2, "b"), (1, "b")], &[(3, "a")], &[(1, "c")]] {
        takes(&kept, &prepare, &fees(list), &[B], &budget).await;
    }
    // The last is of one of the two only.
    assert_eq!(told(&kept, A), [fees(&[(2, "b"), (1, "b")]), fees(&[(3, "a")]), fees(&[(1, "c")])]);
}

#[tokio::test(start_paused = true)]
async fn a_word_that_a_node_refuses_replaces_none() {
    let refused = |is_usable| TellOutcome::Refused { is_usable };
    let (good, later) = (fees(&[(1, "good")]), fees(&[(1, "later"), (2, "later")]));
    let both = [good.clone(), later.clone()];
    for (words, left) in [
        // A node that comes back in between is told the good one.
        ([refused(true), refused(true)], &both[..1]),
        ([refused(true), TellOutcome::Failed], &both[..1]),
        ([TellOutcome::Failed, TellOutcome::Failed], &both[..]),
        ([refused(false), TellOutcome::Failed], &both[..]),
        // The node that refused needs the good one when that node has begun anew.
        ([refused(true), TAKEN], &both[..]),
        ([TAKEN, refused(true)], &both[..]),
        ([TellOutcome::Taken { is_usable: false }, TellOutcome::Failed], &both[..]),
        ([TAKEN, TellOutcome::Failed], &both[1..]),
        ([TAKEN, TellOutcome::NotOffered], &both[1..]),
    ] {
        let (kept, budget) = (ToldMessages::new(3), Budget::new(1 << 20));
        let prepare = request("/eth/v1/validator/prepare_beacon_proposer");
        takes(&kept, &prepare, &good, &[A, B], &budget).await;
        let telling = kept.keep(&prepare, &body(&later, &budget).await, &[A, B], NOW);
        assert_eq!(told(&kept, C), [&*good], "{words:?}");
        for (node, word) in [A, B].into_iter().zip(words) {
            kept.heard(&telling, node, word, EPOCH);
        }
        kept.begins_anew(C);
        assert_eq!(told(&kept, C), left, "{words:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_word_that_was_away_at_first_replaces_when_it_is_taken() {
    for (word, left) in [(TAKEN, 1..), (TellOutcome::Refused { is_usable: true }, 0..)] {
        let (kept, budget) = (ToldMessages::new(1), Budget::new(1 << 20));
        let prepare = request("/eth/v1/validator/prepare_beacon_proposer");
        takes(&kept, &prepare, &fees(&[(1, "good")]), &[A], &budget).await;
        kept.keep(&prepare, &body(&fees(&[(1, "later")]), &budget).await, &[], NOW);
        let due = due(&kept, A);
        kept.heard(&due[0].0, A, word, EPOCH);
        kept.begins_anew(A);
        let all = [fees(&[(1, "good")]), fees(&[(1, "later")])];
        assert_eq!(told(&kept, A), all[left.start..=left.start], "{word:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_node_cannot_take_lets_others_pass() {
    let slot = Duration::from_secs(12);
    let (kept, budget) = (ToldMessages::new(2), Budget::new(1 << 20));
    let prepare = request("/eth/v1/validator/prepare_beacon_proposer");
    for index in 0..3 {
        takes(&kept, &prepare, &fees(&[(index, "a")]), &[A], &budget).await;
    }
    let fails = |count: usize| {
        let due = due(&kept, B);
        due.iter().take(count).for_each(|(telling, _)| kept.heard(telling, B, TellOutcome::Failed, slot));
        due.len()
    };
    assert_eq!(fails(2), 3);
    assert!(!has_due(&kept, B));
    advance(slot).await;
    assert_eq!(fails(2), 2);
    advance(slot).await;
    assert!(!has_due(&kept, B), "the pause is longer the second time");
    advance(slot).await;
    assert_eq!(fails(0), 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_the_earlier_word_late_has_the_later_again() {
    let (kept, budget) = (ToldMessages::new(1), Budget::new(1 << 20));
    let prepare = request("/eth/v1/validator/prepare_beacon_proposer");
    let (first, second) = (fees(&[(1, "a"), (2, "a")]), fees(&[(2, "b")]));
    let late = kept.keep(&prepare, &body(&first, &budget).await, &[A], NOW);
    takes(&kept, &prepare, &second, &[A], &budget).await;
    takes(&kept, &prepare, &fees(&[(3, "b")]), &[A], &budget).await;
    assert!(!has_due(&kept, A));
    kept.heard(&late, A, TAKEN, EPOCH);
    assert_eq!(told(&kept, A), [second]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_floods_drives_out_its_own() {
    let (kept, budget) = (ToldMessages::up_to(20 * EACH, 1), Budget::new(1 << 20));
    let prepare = request("/eth/v1/validator/prepare_beacon_proposer");
    let client = |last: u8| Account::of(&budget, Some(Peer::Ip([10, 0, 0, last].into())));
    let (honest, flooding) = (client(1), client(2));
    kept.keep(&prepare, &body_of("honest", &honest).await, &[], NOW);
    for number in 0..100 {
        kept.keep(&prepare, &body_of(&number.to_string(), &flooding).await, &[], NOW);
    }
    let told = told(&kept, NodeId(0));
    assert_eq!((&*told[0], &**told.last().unwrap()), ("honest", "99"));
    assert!(told.len() > 15, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_floods_from_many_addresses_of_its_own_is_one() {
    let (kept, budget) = (ToldMessages::up_to(20 * EACH, 1), Budget::new(1 << 20));
    let prepare = request("/eth/v1/validator/prepare_beacon_proposer");
    let client = |address: String| Account::of(&budget, Some(Peer::Ip(address.parse().unwrap())));
    kept.keep(&prepare, &body_of("honest", &client("ff00::1".to_owned())).await, &[], NOW);
    for number in 0..100 {
        let flooding = client(format!("2001:db8::{number}"));
        kept.keep(&prepare, &body_of(&number.to_string(), &flooding).await, &[], NOW);
    }
    assert_eq!(told(&kept, NodeId(0))[0], "honest");
}
