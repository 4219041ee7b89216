//! The same transaction again: while its record goes, after its end, and with other proofs of its
//! blobs.

use super::{super::*, bench::*};
use crate::outbox::record::StateName;

/// The bytes of transaction 1 in another form, with the same hash.
const OTHER: [u8; 5] = [9; 5];

fn submit(bench: &Bench, raw: &[u8], is_other_form: bool) -> Input {
    let known = bench.disk.records.get(&bench.id(1)).cloned().map(Box::new);
    Input::Accept(Box::new(Accept {
        waiter: 50,
        tenant: TenantName::default(),
        raw: raw.to_vec().into(),
        tx: transaction(hash(1), sender(1), 0),
        request_id: None,
        traceparent: None,
        known,
        is_other_form,
    }))
}

fn refused(bench: &mut Bench) {
    bench.accept(1, 0);
    bench.word(1, "a", Word::RefusedForGood(words("invalid sender")));
    bench.done(1);
    assert_eq!(bench.state(1), StateName::Refused);
}

#[test]
fn a_record_on_its_way_out_is_not_taken_up_again() {
    let mut bench = Bench::new();
    refused(&mut bench);
    let removal = bench.desk.input(Millis(bench.now), Input::Forget(vec![(bench.id(1), 3)]));
    // The store has the record still when the client comes.
    let accepted = bench.desk.input(Millis(bench.now), submit(&bench, &[1; 3], false));
    assert_eq!(sent(&accepted.effects), [1]);
    bench.disk.apply(&removal.step);
    bench.disk.apply(&accepted.step);
    assert_eq!(bench.life(1), "accepted");
    assert_eq!(bench.disk.raw[&bench.id(1)], vec![1; 3], "a record without its transaction");
    assert_eq!((bench.desk.total().live, bench.desk.total().over), (1, 0));
    bench.desk.forgotten(&bench.id(1));
}

#[test]
fn commands_and_blocks_pass_over_a_record_on_its_way_out() {
    let mut bench = Bench::new();
    refused(&mut bench);
    bench.accept_of("default", 2, 2, 0);
    bench.word(2, "a", Word::RefusedForGood(words("invalid sender")));
    bench.done(2);
    assert_eq!(bench.desk.total().over, 2);
    let (record, id) = (bench.disk.records[&bench.id(1)].clone(), bench.id(1));
    let now = Millis(bench.now);
    _ = bench.desk.input(now, Input::Forget(vec![(id.clone(), 3)]));
    let again = bench.desk.input(now, Input::Forget(vec![(id.clone(), 3)]));
    assert!(again.step.is_empty());
    assert_eq!(bench.desk.total().over, 1, "one removal counts once");
    let known = Some(Box::new(record.clone()));
    let turn = bench.desk.input(now, Input::Command { waiter: 9, id, known, command: Command::Drop });
    assert_eq!(answers(&turn.effects), [Err(NotDone::Unknown)]);
    let transactions = vec![InBlock { hash: hash(1), sender: sender(1), nonce: 0 }];
    let added = vec![NewBlock { id: block(101, 0), transactions }];
    let blocks = Blocks { added, recalled: vec![record], ..Blocks::default() };
    let turn = bench.desk.input(now, Input::Blocks(Box::new(blocks)));
    assert!(turn.step.writes().iter().all(|write| !matches!(write, crate::outbox::step::Write::Record(_))));
}

/// A client's transaction that was cancelled, with no word of the desk left.
fn cancelled(bench: &mut Bench) -> Record {
    bench.accept(1, 0);
    bench.taken(1);
    assert_eq!(bench.command(1, Command::Cancel), Ok(Done::Command));
    assert!(bench.desk.is_idle());
    bench.disk.records[&bench.id(1)].clone()
}

#[test]
fn a_given_up_life_is_found_in_a_block_that_came_untold() {
    let mut bench = Bench::new();
    let record = cancelled(&mut bench);
    assert_eq!(asked(&bench.input(Input::Recall(vec![record]))), [1]);
    bench.looked(1, Found::InBlock { node: "a".into(), block: block(100, 0) }, None);
    assert_eq!(bench.life(1), "accepted sent cancelled mined");
    assert_eq!((bench.desk.total().live, bench.desk.total().over), (1, 0));
    bench.pass(3);
    assert_eq!(bench.life(1), "accepted sent cancelled mined confirmed");
}

#[test]
fn a_given_up_life_in_no_block_leaves_the_desk() {
    for found in [Found::Unknown, Found::Unsure, Found::Waiting { node: "a".into(), missing: vec![] }] {
        let mut bench = Bench::new();
        let record = cancelled(&mut bench);
        assert_eq!(asked(&bench.input(Input::Recall(vec![record]))), [1]);
        assert_eq!(sent(&bench.looked(1, found, None)), [] as [u8; 0]);
        assert!(bench.desk.is_idle());
        assert_eq!((bench.life(1).as_str(), bench.desk.total().over), ("accepted sent cancelled", 1));
    }
}

#[test]
fn a_new_life_has_its_bytes_with_it() {
    let mut bench = Bench::new();
    refused(&mut bench);
    bench.disk.raw.clear();
    let again = submit(&bench, &OTHER, true);
    assert_eq!(sent(&bench.input(again)), [1]);
    assert_eq!(bench.disk.raw[&bench.id(1)], OTHER.to_vec());
    assert_eq!((bench.disk.records[&bench.id(1)].bytes, bench.desk.total().live_bytes), (5, 5));
}

#[test]
fn better_proofs_replace_bytes_that_no_node_takes() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.word(1, "a", Word::RefusedNow(words("sidecar version not supported")));
    bench.done(1);
    let again = submit(&bench, &OTHER, true);
    let effects = bench.input(again);
    let raw = effects.iter().find_map(|effect| match effect {
        Effect::Send { raw, .. } => raw.clone(),
        _ => None,
    });
    assert_eq!(raw.as_deref(), Some(&OTHER[..]), "they are sent at once");
    assert_eq!((bench.disk.raw[&bench.id(1)].clone(), bench.desk.total().live_bytes), (OTHER.to_vec().into(), 5));
    bench.taken(1);
    // Bytes that a node has taken stay.
    let worse = submit(&bench, &[7; 9], true);
    assert_eq!(sent(&bench.input(worse)), [] as [u8; 0]);
    assert_eq!(bench.disk.raw[&bench.id(1)], OTHER.to_vec());
}
