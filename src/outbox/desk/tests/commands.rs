//! Operators' commands, retention and replays.

use super::{super::*, bench::*};
use crate::outbox::record::StateName;

/// U26: cancelling stops the sending.
#[test]
fn a_cancelled_transaction_is_never_sent_again() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    assert_eq!(bench.command(1, Command::Cancel), Ok(Done::Command));
    assert_eq!(bench.command(1, Command::Cancel), Ok(Done::Command), "once more is no error");
    assert_eq!(bench.life(1), "accepted sent cancelled");
    assert!(bench.desk.is_idle());
    let effects = [bench.pass(9), bench.input(Input::NodeReturned { node: "b".into() })].concat();
    assert_eq!(effects, []);
    assert_eq!(answers(&bench.accept(1, 0)), [Err(NotDone::Cancelled)]);
    // It cannot be unsent: a node had it mined.
    let mined = block(bench.tip + 1, 0);
    bench.blocks(&[], &[(mined, &[(1, 1, 0)])]);
    assert_eq!(bench.state(1), StateName::Mined);
    assert!(matches!(bench.command(1, Command::Cancel), Err(NotDone::Unfit(_))));
    let effects = bench.blocks(&[mined], &[]);
    assert_eq!((sent(&effects), bench.state(1)), (vec![], StateName::Cancelled));
    assert!(bench.desk.is_idle());
}

#[test]
fn a_client_that_waits_hears_of_the_cancelling() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    let id = bench.id(1);
    let effects = bench.input(Input::Command { waiter: 9, id, known: None, command: Command::Cancel });
    assert_eq!(answers(&effects), [Err(NotDone::Cancelled), Ok(Done::Command)]);
}

#[test]
fn resending_is_for_what_no_block_has() {
    let mut bench = Bench::new();
    assert_eq!(bench.command(1, Command::Resend), Err(NotDone::Unknown));
    bench.accept(1, 0);
    bench.taken(1);
    let id = bench.id(1);
    let effects = bench.input(Input::Command { waiter: 9, id, known: None, command: Command::Resend });
    assert_eq!(sent(&effects), [1]);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    let answer = bench.command(1, Command::Resend);
    assert!(matches!(&answer, Err(NotDone::Unfit(why)) if why.contains("mined")), "{answer:?}");
}

#[test]
fn only_records_of_lives_that_are_over_are_dropped() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    assert!(matches!(bench.command(1, Command::Drop), Err(NotDone::Unfit(_))));
    _ = bench.command(1, Command::Cancel);
    assert_eq!(bench.command(1, Command::Drop), Ok(Done::Command));
    assert!(bench.disk.records.is_empty() && bench.disk.raw.is_empty());
    assert_eq!(bench.desk.sums().count(), 0);
    let before = bench.disk.marks.len();
    bench.now += 1;
    assert_eq!(sent(&bench.accept(1, 0)), [1]);
    assert_eq!(bench.disk.marks.len(), before + 1, "another life, and other events");
}

#[test]
fn a_record_that_lives_again_is_not_forgotten() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    _ = bench.command(1, Command::Cancel);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    let id = bench.id(1);
    bench.input(Input::Forget(vec![(id.clone(), 3)]));
    assert!(bench.disk.records.contains_key(&id));
    bench.final_blocks(&[], &[], Some(101));
    bench.input(Input::Forget(vec![(id.clone(), 3)]));
    assert!(bench.disk.records.is_empty());
}

#[test]
fn records_that_are_kept_too_many_are_in_excess() {
    let bounds = Bounds { tenant_bytes: 6_000, ..terms().bounds };
    let mut bench = Bench::with(Terms { bounds, ..terms() });
    for name in 1..=2 {
        bench.accept(name, 0);
        _ = bench.command(name, Command::Cancel);
    }
    assert_eq!(bench.desk.excess(), None);
    bench.accept(3, 0);
    let mut excess = bench.desk.excess().unwrap();
    assert_eq!(excess, Excess { of: Some(TenantName::default()), records: 0, bytes: 153 });
    assert!(!excess.shrink(3), "one record is enough");
    let id = bench.id(1);
    bench.input(Input::Forget(vec![(id, 3)]));
    assert_eq!(bench.desk.excess(), None);
}

#[test]
fn a_replay_tells_events_of_blocks_again_with_their_old_ids() {
    let mut bench = Bench::new();
    for (name, at) in [(1, 101), (2, 102)] {
        bench.accept_of("default", name, name, 0);
        bench.blocks(&[], &[(block(at, 0), &[(name, name, 0)])]);
    }
    let records: Vec<Record> = bench.disk.records.values().cloned().collect();
    let told = |from, endpoint| -> Vec<Delivery> {
        records.iter().flat_map(|record| replay(&WantsAll, record, from, endpoint, Millis(9))).collect()
    };
    assert_eq!((told(101, None).len(), told(102, None).len(), told(103, None).len()), (2, 1, 0));
    assert_eq!((told(0, Some("all")).len(), told(0, Some("x")).len()), (2, 0));
    for delivery in told(0, None) {
        assert!(bench.disk.deliveries.iter().any(|first| first.event == delivery.event));
        assert_eq!(delivery.due, Millis(9));
    }
}

#[test]
fn a_record_whose_second_end_is_not_durable_stays_on_the_desk() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.word(1, "a", Word::RefusedForGood(words("no")));
    let (id, send) = (bench.id(1), bench.sending(1));
    let refused = bench.desk.input(Millis(1), Input::SendDone { id: id.clone(), send, is_whole: true });
    bench.disk.apply(&refused.step);
    bench.accept(1, 0);
    let cancel = Input::Command { waiter: 9, id: id.clone(), known: None, command: Command::Cancel };
    assert!(!bench.desk.input(Millis(2), cancel).step.is_empty());
    // Only now the first end is known to be durable.
    bench.desk.settled(&id, 2);
    assert_eq!(bench.desk.record(&id).map(|record| record.seq), Some(4));
}

#[test]
fn a_sending_counts_until_it_has_ended() {
    let mut bench = Bench::with(Terms { in_flight: 1, ..terms() });
    bench.accept_of("default", 1, 1, 0);
    bench.accept_of("default", 2, 2, 0);
    _ = bench.command(1, Command::Cancel);
    assert_eq!(bench.desk.in_flight(), 1);
    assert_eq!(sent(&bench.done(1)), [2]);
    assert!(bench.desk.record(&bench.id(1)).is_none());
}
