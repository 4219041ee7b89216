//! What is taken in, what is not, and when the client hears.

use super::{super::*, bench::*};
use crate::{config::Ack, outbox::record::StateName};

#[test]
fn the_hash_comes_with_the_first_nodes_word() {
    let mut bench = Bench::new();
    let effects = bench.accept(1, 0);
    assert_eq!((sent(&effects), answers(&effects)), (vec![1], vec![]));
    assert_eq!(bench.disk.raw[&bench.id(1)], vec![1; 3]);
    let turn = bench.desk.input(
        Millis(1001),
        Input::Heard { id: bench.id(1), send: bench.sending(1), node: "b".into(), word: Word::Taken },
    );
    assert_eq!(answers(&turn.at_once), [Ok(Done::Hash(hash(1)))], "the record was durable before it was sent");
    bench.disk.apply(&turn.step);
    let record = &bench.disk.records[&bench.id(1)];
    assert_eq!(record.history[1].node.as_deref(), Some("b"));
    assert_eq!(bench.life(1), "accepted sent");
}

#[test]
fn the_next_nonce_is_behind_those_that_wait() {
    let mut bench = Bench::new();
    for (name, nonce) in [(1, 5), (2, 6), (3, 8)] {
        bench.accept(name, nonce);
    }
    let own = TenantName::default();
    let next = |bench: &Bench, count| bench.desk.next_nonce(&own, sender(1), count);
    assert_eq!([5, 6, 7, 8, 4].map(|count| next(&bench, count)), [7, 7, 7, 9, 4], "a gap ends the run");
    assert_eq!(bench.desk.next_nonce(&"other".parse().unwrap(), sender(1), 5), 5, "of another tenant");
    assert_eq!(bench.desk.next_nonce(&own, sender(2), 5), 5, "of another sender");
    _ = bench.command(2, Command::Cancel);
    assert_eq!(next(&bench, 5), 6, "a cancelled one gives its nonce back");
}

#[test]
fn a_client_that_needs_no_node_waits_for_the_disk_alone() {
    let mut bench = Bench::with(Terms { ack: Ack::Disk, ..terms() });
    let accept = Accept {
        waiter: 1,
        tenant: TenantName::default(),
        raw: vec![1].into(),
        tx: transaction(hash(1), sender(1), 0),
        request_id: None,
        traceparent: None,
        known: None,
        is_other_form: false,
    };
    let turn = bench.desk.input(Millis(1), Input::Accept(Box::new(accept)));
    assert!(turn.at_once.is_empty(), "no answer and no sending before the sync");
    assert!(turn.step.accepts());
    assert_eq!(answers(&turn.effects), [Ok(Done::Hash(hash(1)))]);
    assert_eq!(sent(&turn.effects), [1]);
}

#[test]
fn the_same_bytes_again_have_the_same_hash_and_one_record() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    let again = bench.accept(1, 0);
    assert_eq!((sent(&again), answers(&again)), (vec![], vec![]));
    let both = bench.taken(1);
    assert_eq!(answers(&both), [Ok(Done::Hash(hash(1))), Ok(Done::Hash(hash(1)))]);
    assert_eq!(answers(&bench.accept(1, 0)), [Ok(Done::Hash(hash(1)))]);
    bench.restart();
    let after = bench.accept(1, 0);
    assert_eq!(sent(&after), [] as [u8; 0]);
    assert_eq!((bench.life(1).as_str(), bench.disk.deliveries.len()), ("accepted sent", 1));
    bench.restart();
    let finally = bench.final_blocks(&[], &[(block(101, 0), &[(1, 1, 0)])], Some(101));
    assert_eq!(answers(&finally), []);
    assert!(bench.desk.is_idle());
    assert_eq!(answers(&bench.accept(1, 0)), [Ok(Done::Hash(hash(1)))], "also when its life is over");
    assert!(bench.desk.is_idle());
    assert_eq!(bench.life(1), "accepted sent mined confirmed final");
}

#[test]
fn a_refusal_by_all_for_good_is_the_clients_answer() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.word(1, "a", Word::RefusedForGood(words("intrinsic gas too low")));
    bench.word(1, "b", Word::RefusedForGood(words("gas!")));
    let effects = bench.done(1);
    assert_eq!(answers(&effects), [Err(NotDone::OfNodes(words("intrinsic gas too low")))]);
    assert_eq!(bench.life(1), "accepted refused");
    assert!(bench.desk.is_idle());
    // The client insists: a fork may have changed the rule.
    assert_eq!(sent(&bench.accept(1, 0)), [1]);
    assert_eq!(bench.life(1), "accepted refused accepted");
}

#[test]
fn one_node_that_may_yet_take_it_is_enough_to_go_on() {
    for word in [Word::RefusedNow(words("txpool is full")), Word::Lost] {
        let mut bench = Bench::new();
        bench.accept(1, 0);
        bench.word(1, "a", Word::RefusedForGood(words("no")));
        bench.word(1, "b", word);
        let effects = bench.done(1);
        assert_eq!(answers(&effects), [Ok(Done::Hash(hash(1)))]);
        assert_eq!(bench.state(1), StateName::Accepted);
    }
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.word(1, "a", Word::RefusedForGood(words("no")));
    let id = bench.id(1);
    let send = bench.sending(1);
    bench.input(Input::SendDone { id, send, is_whole: false });
    assert_eq!(bench.state(1), StateName::Accepted, "a node was not asked");
}

#[test]
fn where_no_node_is_reached_the_hash_comes_after_the_hold() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.word(1, "a", Word::Lost);
    assert_eq!(answers(&bench.done(1)), []);
    assert_eq!(bench.desk.next_due(), Some(Millis(3000)), "it is sent again after two seconds");
    assert_eq!(sent(&bench.pause(2000)), [1]);
    bench.done(1);
    assert_eq!(answers(&bench.pause(2999)), []);
    assert_eq!(answers(&bench.pause(1)), [Ok(Done::Hash(hash(1)))]);
    assert_eq!(sent(&bench.pause(1000)), [1], "the pause has doubled");
}

#[test]
fn bounds_refuse_what_is_too_much_and_name_the_key() {
    let bounds = Bounds { pending: 3, tenant_pending: 2, ..terms().bounds };
    let mut bench = Bench::with(Terms { bounds, ..terms() });
    bench.accept_of("a", 1, 1, 0);
    bench.accept_of("a", 2, 2, 0);
    let full = |key, limit| vec![Err(NotDone::Full { key, limit })];
    assert_eq!(answers(&bench.accept_of("a", 3, 3, 0)), full("outbox.max_pending_per_tenant", 2));
    bench.accept_of("b", 4, 4, 0);
    assert_eq!(answers(&bench.accept_of("b", 5, 5, 0)), full("outbox.max_pending", 3));
    assert_eq!(bench.disk.records.len(), 3);
    // What is over makes room.
    bench.final_blocks(&[], &[(block(101, 0), &[(1, 1, 0)])], Some(101));
    assert_eq!(sent(&bench.accept_of("a", 3, 3, 0)), [3]);
    let why = NotDone::Full { key: "outbox.max_pending", limit: 3 };
    assert_eq!((why.code(), why.reason()), (-32005, "outbox_full"));
    let bounds = Bounds { tenant_bytes: 2000, ..terms().bounds };
    let mut bench = Bench::with(Terms { bounds, ..terms() });
    assert_eq!(answers(&bench.accept(1, 0)), full("outbox.max_bytes_per_tenant", 2000));
    let bounds = Bounds { bytes: 5000, ..terms().bounds };
    let mut bench = Bench::with(Terms { bounds, ..terms() });
    bench.accept_of("a", 1, 1, 0);
    bench.accept_of("b", 2, 2, 0);
    assert_eq!(answers(&bench.accept_of("c", 3, 3, 0)), full("outbox.max_bytes", 5000));
}

#[test]
fn bounds_hold_for_one_that_is_sent_anew() {
    let bounds = Bounds { pending: 1, ..terms().bounds };
    let mut bench = Bench::with(Terms { bounds, ..terms() });
    bench.accept(1, 0);
    bench.word(1, "a", Word::RefusedForGood(words("intrinsic gas too low")));
    bench.done(1);
    bench.accept(2, 0);
    let full = NotDone::Full { key: "outbox.max_pending", limit: 1 };
    assert_eq!(answers(&bench.accept(1, 0)), [Err(full)]);
    assert_eq!(bench.life(1), "accepted refused");
    bench.command(2, Command::Cancel).unwrap();
    assert_eq!(sent(&bench.accept(1, 0)), [1]);
}

#[test]
fn two_tenants_have_a_record_each_of_the_same_bytes() {
    let mut bench = Bench::new();
    bench.accept_of("a", 1, 1, 0);
    bench.accept_of("b", 1, 1, 0);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    let of = |tenant: &str| TxId { tenant: tenant.parse().unwrap(), ..bench.id(1) };
    for tenant in ["a", "b"] {
        assert_eq!(bench.disk.records[&of(tenant)].state.name(), StateName::Mined);
    }
    let events: Vec<_> = bench.disk.deliveries.iter().map(|delivery| &delivery.event).collect();
    assert_eq!(events.len(), 4);
    assert!(events.iter().all(|event| events.iter().filter(|other| other == &event).count() == 1));
}

#[test]
fn a_nonce_that_a_block_has_used_is_not_taken_in_again() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    assert_eq!(answers(&bench.accept(2, 0)), [Err(NotDone::NonceUsed { by: hash(1) })]);
    assert_eq!(bench.disk.records.len(), 1);
}

#[test]
fn those_who_wait_are_kept_over_a_failed_step() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    let stored = bench.disk.stored();
    let lost = bench.accept(2, 1);
    assert_eq!(lost, []);
    let desk = std::mem::replace(
        &mut bench.desk,
        Desk::new(terms(), std::sync::Arc::new(WantsAll), stored, Millis(bench.now)),
    );
    let mut waiters = desk.into_waiters();
    waiters.sort();
    let adopted: Vec<bool> = waiters.iter().map(|(waiter, id, until)| bench.desk.adopt(*waiter, id, *until)).collect();
    assert_eq!(adopted, [true, false]);
    assert_eq!(answers(&bench.pause(5000)), [Ok(Done::Hash(hash(1)))]);
}

#[test]
fn words_of_an_earlier_sending_end_no_later_one() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    let (id, earlier) = (bench.id(1), bench.sending(1));
    _ = bench.command(1, Command::Cancel);
    _ = bench.command(1, Command::Drop);
    let again = bench.accept(1, 0);
    assert_eq!((sent(&again), answers(&again)), (vec![1], vec![]));
    // The disk may not have the second record yet when a word about the first one comes.
    let word = Input::Heard { id: id.clone(), send: earlier, node: "a".into(), word: Word::Taken };
    let turn = bench.desk.input(Millis(bench.now), word);
    assert_eq!((answers(&turn.at_once), answers(&turn.effects).len()), (vec![], 1));
    bench.input(Input::SendDone { id, send: earlier, is_whole: true });
    assert_eq!(bench.desk.in_flight(), 1);
}

#[test]
fn a_second_acceptance_waits_for_its_own_sync() {
    let mut bench = Bench::with(Terms { deadline: 10, ..terms() });
    bench.accept(1, 0);
    bench.pause(10);
    bench.looked(1, Found::Unknown, None);
    assert_eq!(bench.life(1), "accepted expired");
    let earlier = bench.sending(1);
    assert_eq!(sent(&bench.accept(1, 0)), [1], "the earlier sending is not waited for");
    // The sending is older than the second acceptance, which may not be on the disk yet.
    let word = Input::Heard { id: bench.id(1), send: earlier, node: "a".into(), word: Word::Taken };
    let turn = bench.desk.input(Millis(bench.now), word);
    assert_eq!((answers(&turn.at_once), answers(&turn.effects)), (vec![], vec![Ok(Done::Hash(hash(1)))]));
}

#[test]
fn only_so_many_clients_wait_for_one_transaction() {
    let mut bench = Bench::new();
    for _ in 0..64 {
        assert_eq!(answers(&bench.accept(1, 0)), []);
    }
    assert_eq!(answers(&bench.accept(1, 0)), [Ok(Done::Hash(hash(1)))]);
    assert_eq!(answers(&bench.word(1, "a", Word::Taken)).len(), 64);
}
