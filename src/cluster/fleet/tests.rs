//! Counts, wishes and heads.

use proptest::prelude::*;

use super::*;
use crate::domain::fleet::{Heads, LayerWord, Member, MemberState, StoreRevision, View, Wish, WishKey, WishKind};

fn node(number: usize) -> NodeRef {
    NodeRef { network: "main".parse().unwrap(), layer: LayerWord::El, node: format!("n{number}").parse().unwrap() }
}

fn name(number: usize) -> ReplicaName {
    format!("r{number}").parse().unwrap()
}

fn key(replica: usize, of: usize) -> NodeKey {
    NodeKey { replica: name(replica), node: node(of) }
}

fn event(epoch: u64, sequence: u64, change: Change) -> NodeEvent {
    NodeEvent::new(Revision { epoch: Epoch(epoch), sequence }, change)
}

fn applied(to: VerdictWord) -> Change {
    Change::Applied { from: None, to, last_error: None }
}

/// A view with these lives of `r0`, `r1`, ...; 0 is none.
fn view(lives: &[u64]) -> View {
    let mut view = View::default();
    for (replica, epoch) in lives.iter().enumerate().filter(|(_, epoch)| **epoch > 0) {
        let member = Member { epoch: Epoch(*epoch), state: MemberState::Active, other: Default::default() };
        view.members.insert(name(replica), member);
    }
    view
}

/// C8, C19.
#[test]
fn some_of_the_replicas_see_a_node_down() {
    let mut fleet = Fleet::default();
    fleet.view(&view(&[1, 1, 1, 1, 1]));
    for replica in 0..5 {
        let word = if replica < 3 { VerdictWord::Down } else { VerdictWord::Up };
        assert_eq!(fleet.record(&key(replica, 2), &event(1, 1, applied(word))), Recorded::New);
    }
    let seen = fleet.seen(&node(2), &VerdictWord::Down);
    assert_eq!((seen.count, seen.of, seen.is_majority(), seen.is_unanimous()), (3, 5, true, false));
}

/// C6, C7: stale events of a life, and all events of an earlier life, are dropped.
#[test]
fn an_older_event_changes_nothing() {
    let mut fleet = Fleet::default();
    fleet.view(&view(&[2]));
    fleet.record(&key(0, 0), &event(2, 1, applied(VerdictWord::Up)));
    assert_eq!(fleet.record(&key(0, 0), &event(2, 1, applied(VerdictWord::Down))), Recorded::Stale);
    assert_eq!(fleet.record(&key(0, 0), &event(1, 900, applied(VerdictWord::Down))), Recorded::Stale);
    assert_eq!(fleet.record(&key(0, 1), &event(1, 900, applied(VerdictWord::Down))), Recorded::NoMember);
    assert_eq!(fleet.seen(&node(0), &VerdictWord::Up).count, 1);
    assert_eq!(fleet.counts().len(), 1);
    assert_eq!(fleet.orphans().collect::<Vec<_>>(), [&key(0, 1)]);
}

/// C9: a removal is an event, and the count falls without a rise elsewhere.
#[test]
fn a_removed_node_leaves_the_counts_at_once() {
    let mut own = OwnVerdicts::default();
    own.life(Some(Epoch(1)));
    let mut fleet = Fleet::default();
    fleet.view(&view(&[1]));
    let publish = |own: &mut OwnVerdicts, fleet: &mut Fleet| {
        let unsent: Vec<_> = own.unsent().map(|(node, event)| (node.clone(), event.clone())).collect();
        for (node, event) in &unsent {
            fleet.record(&NodeKey { replica: name(0), node: node.clone() }, event);
            own.sent(node, event.revision);
        }
        unsent.len()
    };
    own.applied(&node(0), VerdictWord::Up, None);
    own.applied(&node(0), VerdictWord::Up, None);
    assert_eq!(publish(&mut own, &mut fleet), 1);
    own.removed(&node(0));
    assert_eq!(publish(&mut own, &mut fleet), 1, "a removal is told");
    assert!(fleet.counts().is_empty());
    let last = fleet.recent().last().map(|recent| recent.change.clone());
    assert_eq!(last, Some(Change::Removed { from: VerdictWord::Up }));
}

/// C9, R18, R21: a replica that goes takes its verdicts along, by the view alone.
#[test]
fn a_replica_that_goes_leaves_the_counts_with_the_view() {
    let mut fleet = Fleet::default();
    fleet.view(&view(&[1, 1]));
    for (replica, of) in [(0, 0), (0, 1), (1, 0)] {
        fleet.record(&key(replica, of), &event(1, 1, applied(VerdictWord::Down)));
    }
    assert_eq!(fleet.view(&view(&[0, 1])), 2);
    assert_eq!(fleet.seen(&node(0), &VerdictWord::Down), Seen { count: 1, of: 1 });
    assert_eq!(fleet.view(&view(&[4, 1])), 0);
    assert_eq!(fleet.counts(), &fleet.recount());
    assert_eq!(fleet.counts().len(), 1, "the verdicts were those of an earlier life");
}

/// C13.
#[test]
fn the_last_256_changes_are_kept() {
    let mut fleet = Fleet::default();
    fleet.view(&view(&[1]));
    for sequence in 1..=300 {
        fleet.record(&key(0, 0), &event(1, sequence, applied(VerdictWord::Up)));
    }
    assert_eq!(fleet.recent().len(), 256);
    assert_eq!(fleet.recent().next().map(|recent| recent.revision.sequence), Some(45));
}

/// C12, C5: a new life tells all verdicts anew.
#[test]
fn a_new_life_tells_every_verdict_anew() {
    let mut own = OwnVerdicts::default();
    own.applied(&node(0), VerdictWord::Up, None);
    own.applied(&node(1), VerdictWord::Down, Some("refused".into()));
    assert_eq!(own.unsent().count(), 0, "no life yet");
    own.life(Some(Epoch(7)));
    let sequences: Vec<_> = own.unsent().map(|(_, event)| event.revision.sequence).collect();
    assert_eq!(sequences, [1, 2]);
    // The answer to an event that was overtaken does not count for the newer one.
    let first = own.unsent().next().map(|(_, event)| event.revision).unwrap();
    own.applied(&node(0), VerdictWord::Down, None);
    own.sent(&node(0), first);
    assert_eq!(own.unsent().count(), 2);
}

proptest! {
    /// C10: counts equal a recount after any order of events, with repeats, losses, new lists and
    /// new views; and all copies agree after a new list.
    #[test]
    fn counts_equal_a_recount(steps in proptest::collection::vec((0_u8..14, 0_usize..3, 0_usize..3, 1_u64..4, 1_u64..6), 1..150)) {
        let mut fleet = Fleet::default();
        let mut store: BTreeMap<NodeKey, NodeEvent> = BTreeMap::new();
        let mut lives = [1, 1, 1];
        for (step, replica, of, epoch, sequence) in steps {
            let word = VerdictWord::KNOWN[(sequence as usize + of) % 10].clone();
            let change = if step == 9 { Change::Removed { from: word } } else { applied(word) };
            let event = event(epoch, sequence, change);
            match step {
                0..=9 => {
                    let stored = store.entry(key(replica, of)).or_insert_with(|| event.clone());
                    if stored.revision < event.revision {
                        *stored = event.clone();
                    }
                    // Some events are lost on the way here.
                    if step > 2 {
                        fleet.record(&key(replica, of), &event);
                    }
                }
                10 => {
                    lives[replica] = epoch % 3;
                    fleet.view(&view(&lives));
                }
                11 => _ = store.remove(&key(replica, of)),
                12 => fleet.deleted(&key(replica, of)),
                _ => {
                    fleet.relist();
                    for (key, event) in &store {
                        fleet.record(key, event);
                    }
                    fleet.listed();
                }
            }
            prop_assert_eq!(fleet.counts(), &fleet.recount());
        }
    }
}

fn wished(revision: u64, kind: WishKind) -> WishInput {
    let (key, wish) = (WishKey::Node(node(0)), Some(Wish::new(kind, None)));
    WishInput::Wished { key, revision: StoreRevision(revision), wish }
}

/// C16, C17.
#[test]
fn a_wish_is_applied_and_reported_with_its_error() {
    let mut wishes = Wishes::default();
    let effects = wishes.input(wished(9, WishKind::Cordon));
    assert!(matches!(&effects[..], [WishEffect::Apply { revision: StoreRevision(9), .. }]));
    assert!(wishes.input(wished(9, WishKind::Cordon)).is_empty(), "a repeat is no wish");
    let key = WishKey::Node(node(0));
    let result = Err("the last node".into());
    assert!(wishes.input(WishInput::Tried { key: key.clone(), revision: StoreRevision(9), result }).is_empty());
    let report = wishes.own_report();
    assert_eq!(report["wish.node.main.el.n0"].last_error.as_deref(), Some("the last node"));
    for (replica, applied) in [(0, report), (1, BTreeMap::new())] {
        assert!(wishes.input(WishInput::Reported { replica: name(replica), applied }).is_empty());
    }
    let reports = wishes.reports();
    let met: Vec<_> =
        reports.iter().map(|report| (report.applied.map(|revision| revision.0), report.is_met())).collect();
    assert_eq!(met, [(Some(9), false), (None, false)]);
}

/// C16: a replica that is cut off keeps the last wish, also over a new bucket.
#[test]
fn the_last_wish_is_kept_without_the_store() {
    let mut wishes = Wishes::default();
    _ = wishes.input(wished(9, WishKind::Cordon));
    assert!(wishes.input(WishInput::Reset).is_empty());
    assert_eq!(wishes.current().count(), 1);
    assert!(wishes.input(WishInput::Recreated).is_empty());
    assert!(wishes.input(WishInput::Synced).is_empty());
    assert_eq!((wishes.current().count(), wishes.unstored().count()), (1, 1));
    assert_eq!(wishes.input(wished(2, WishKind::Cordon)).len(), 1, "revisions begin anew");
    assert_eq!(wishes.unstored().count(), 0);
    // A wish that a new list of the same bucket lacks was taken back.
    _ = wishes.input(WishInput::Reset);
    let lifted = wishes.input(WishInput::Synced);
    assert_eq!(lifted, [WishEffect::Lift { key: WishKey::Node(node(0)) }]);
}

/// C14: a wish of a newer version is reported as not applied.
#[test]
fn an_unknown_wish_is_reported_and_not_applied() {
    let mut wishes = Wishes::default();
    assert!(wishes.input(wished(9, WishKind::Other("weigh".into()))).is_empty());
    assert!(wishes.own_report()["wish.node.main.el.n0"].last_error.as_ref().unwrap().contains("weigh"));
    let unreadable = WishInput::Wished { key: WishKey::LogLevel, revision: StoreRevision(10), wish: None };
    assert!(wishes.input(unreadable).is_empty());
    assert_eq!(wishes.unreadable(), 1);
}

/// Issue 16, point 4.
#[test]
fn a_head_that_the_pool_does_not_believe_is_not_shared() {
    let heads = |served, finalized| Heads { served, safe: None, finalized: Some(finalized) };
    let mut shared = SharedHeads::new(5);
    shared.claim(&name(0), heads(100, 64));
    shared.claim(&name(1), heads(1_000_000, 999_999));
    assert_eq!(shared.shared(None).served, 0, "a pool without a head believes nothing");
    assert_eq!(shared.shared(Some(94)).served, 0);
    assert_eq!(shared.shared(Some(95)), heads(100, 64));
    assert_eq!(shared.unbelieved(Some(95)), [Claim { replica: name(1), height: 1_000_000 }]);
    // Heights never fall: not when the replica goes, and not when the pool does.
    shared.gone(&name(0));
    assert_eq!(shared.shared(Some(90)), heads(100, 64));
    shared.claim(&name(2), Heads { served: 101, safe: Some(400), finalized: Some(96) });
    assert_eq!(shared.shared(Some(100)), heads(101, 96));
}
