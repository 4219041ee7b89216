//! Transactions that replicas share: proposed, taken up, and taken over.

use super::{super::*, bench::*};
use crate::{
    config::Ack,
    outbox::{
        record::{Refusal, StateName},
        webhook::Table,
    },
};

fn accept(bench: &Bench, name: u8, nonce: u64) -> Accept {
    Accept {
        waiter: 7,
        tenant: TenantName::default(),
        raw: vec![name; 3].into(),
        tx: transaction(hash(name), sender(1), nonce),
        request_id: None,
        traceparent: None,
        known: bench.disk.records.get(&bench.id(name)).cloned().map(Box::new),
        is_other_form: false,
    }
}

fn propose(bench: &mut Bench, name: u8, nonce: u64) -> Result<Option<Record>, NotDone> {
    let accept = accept(bench, name, nonce);
    bench.desk.propose(Millis(bench.now), &accept)
}

fn take_up(bench: &mut Bench, waiter: Waiter, record: Record, until: u64) -> Vec<Effect> {
    let told = (1..=until).map(|seq| record.event(seq)).collect();
    let (known, raw) = (bench.disk.records.get(&record.id).cloned().map(Box::new), vec![9; 3].into());
    bench.input(Input::TakeUp(Box::new(Adopted { waiter: (waiter, 5_000), record, raw, told, known })))
}

/// The kinds of the deliveries that were made.
fn told(bench: &Bench) -> Vec<&'static str> {
    bench.disk.deliveries.iter().map(|delivery| delivery.kind.as_str()).collect()
}

/// U1, U22: a proposal leaves nothing behind; the transaction begins when it is taken up.
#[test]
fn a_proposal_changes_nothing() {
    let mut bench = Bench::new();
    let record = propose(&mut bench, 1, 0).unwrap().unwrap();
    assert_eq!((record.state.name(), record.seq, record.history.len()), (StateName::Accepted, 1, 1));
    assert!(bench.desk.is_idle() && bench.desk.total() == Sum::default() && bench.disk.records.is_empty());
    let effects = take_up(&mut bench, 7, record.clone(), 0);
    assert_eq!((sent(&effects), answers(&effects)), (vec![1], vec![]), "the client waits for a node");
    assert_eq!((&bench.disk.records[&record.id], told(&bench)), (&record, vec!["tx.accepted"]));
    let word = bench.word(1, "a", Word::Taken);
    assert_eq!(answers(&word), [Ok(Done::Hash(hash(1)))]);
    assert_eq!(propose(&mut bench, 1, 0), Ok(None), "it is kept");
}

/// U3: the watch and the client's own replica may both bring it.
#[test]
fn a_transaction_is_taken_up_once() {
    let mut bench = Bench::new();
    let record = propose(&mut bench, 1, 0).unwrap().unwrap();
    assert_eq!(sent(&take_up(&mut bench, 1, record.clone(), 0)), [1]);
    let again = take_up(&mut bench, 2, record.clone(), 0);
    assert!(sent(&again).is_empty() && answers(&again).is_empty());
    assert_eq!(bench.desk.total().live, 1);
    assert_eq!(answers(&bench.word(1, "a", Word::Taken)).len(), 2, "both wait for the word");
    // Behind news of its own, what was accepted is old.
    let effects = take_up(&mut bench, 3, record, 0);
    assert_eq!((sent(&effects), answers(&effects)), (vec![], vec![Ok(Done::Hash(hash(1)))]));
    assert_eq!((bench.life(1), told(&bench)), ("accepted sent".to_owned(), vec!["tx.accepted"]));
}

/// U33: the next owner goes on, and tells what was not told.
#[test]
fn a_transaction_is_taken_over_with_what_is_untold() {
    let mut first = Bench::new();
    first.accept(1, 0);
    first.taken(1);
    first.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    let record = first.disk.records[&first.id(1)].clone();
    assert_eq!(record.state.name(), StateName::Mined);
    for (until, expected) in [(0, vec!["tx.accepted", "tx.mined"]), (2, vec!["tx.mined"]), (3, vec![])] {
        let mut next = Bench::new();
        let effects = take_up(&mut next, 1, record.clone(), until);
        assert_eq!((told(&next), sent(&effects), asked(&effects)), (expected, vec![], vec![1]));
        let ids = |bench: &Bench| bench.disk.deliveries.iter().map(|delivery| delivery.id.clone()).collect::<Vec<_>>();
        assert!(ids(&next).iter().all(|id| ids(&first).contains(id)), "the ids are the same");
    }
}

/// A transaction that expired is sent anew by a client of another replica.
#[test]
fn a_new_life_is_taken_up_over_the_old_one() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.done(1);
    bench.pause(1_000_000);
    bench.looked(1, Found::Unknown, None);
    assert_eq!(bench.state(1), StateName::Expired);
    let record = propose(&mut bench, 1, 0).unwrap().unwrap();
    assert_eq!((record.state.name(), record.seq, record.keep_until), (StateName::Accepted, 3, None));
    assert_eq!((bench.state(1), bench.desk.total().live), (StateName::Expired, 0), "nothing is changed yet");
    assert_eq!(sent(&take_up(&mut bench, 1, record, 2)), [1]);
    let total = bench.desk.total();
    assert_eq!((bench.life(1).as_str(), total.live, total.over), ("accepted expired accepted", 1, 0));
    // A cancelled transaction stays so.
    _ = bench.command(1, Command::Cancel);
    assert_eq!(propose(&mut bench, 1, 0), Err(NotDone::Cancelled));
}

#[test]
fn bounds_count_what_others_see_through() {
    let mut bench = Bench::with(Terms { bounds: Bounds { pending: 2, ..terms().bounds }, ..terms() });
    for name in [1, 2] {
        let record = propose(&mut bench, name, name.into()).unwrap().unwrap();
        bench.desk.recount(None, &record);
    }
    let full = propose(&mut bench, 3, 3).unwrap_err();
    assert_eq!(full.reason(), "outbox_full");
    // Those whose life is over make room.
    let mut record = crate::outbox::relay::test_record(3, State::Sent);
    record.bytes = 3;
    let over = Record { state: State::Expired, ..record.clone() };
    bench.desk.recount(Some(&record), &over);
    assert!(propose(&mut bench, 3, 3).is_ok());
}

#[test]
fn with_ack_disk_no_client_waits_for_a_node() {
    let mut bench = Bench::with(Terms { ack: Ack::Disk, ..terms() });
    let record = propose(&mut bench, 1, 0).unwrap().unwrap();
    let effects = take_up(&mut bench, 1, record, 0);
    assert_eq!((sent(&effects), answers(&effects)), (vec![1], vec![Ok(Done::Hash(hash(1)))]));
}

/// A transaction whose deadline is over when it is taken up, as one that a replica brings that was
/// away, is asked for and not sent.
#[test]
fn one_that_is_overdue_is_taken_up_without_a_sending() {
    let mut bench = Bench::new();
    let record = propose(&mut bench, 1, 0).unwrap().unwrap();
    bench.now = record.deadline.0;
    let effects = take_up(&mut bench, 1, record, 0);
    assert_eq!((sent(&effects), asked(&effects)), (vec![], vec![1]));
}

/// U32: the bound of a sender's transactions that no node takes holds over all replicas.
#[test]
fn untaken_ones_of_other_replicas_count() {
    let mut bench = Bench::new();
    let first = propose(&mut bench, 1, 0).unwrap().unwrap();
    let mut others = Vec::new();
    for nonce in 0..64_u8 {
        let mut record = first.clone();
        (record.id.hash, record.nonce) = (hash(100 + nonce), nonce.into());
        bench.desk.recount(None, &record);
        others.push(record);
    }
    assert!(propose(&mut bench, 2, 64).is_ok(), "no node has refused one");
    let old = Refusal { message: "Nonce too low: next nonce 9, tx nonce 0".to_owned(), ..refusal() };
    let old = Record { refusals: vec![old], ..others[0].clone() };
    bench.desk.recount(Some(&others[0]), &old);
    assert!(propose(&mut bench, 2, 64).is_ok(), "anybody can hand in old transactions");
    bench.desk.recount(Some(&old), &others[0]);
    let refused = Record { refusals: vec![refusal()], ..others[0].clone() };
    bench.desk.recount(Some(&others[0]), &refused);
    let full = Err(NotDone::Untaken { of_sender: true, limit: 64 });
    assert_eq!(propose(&mut bench, 2, 64), full);
    // Also where the desk is made anew, as at each move of a shard.
    let mut stored = bench.disk.stored();
    others.iter().skip(1).chain([&refused]).for_each(|record| stored.others.count_foreign(record, true));
    bench.desk = Desk::new(terms(), Arc::new(Table::default()), stored, Millis(bench.now));
    assert_eq!(propose(&mut bench, 2, 64), full);
    let taken = Record { state: State::Sent, ..refused.clone() };
    bench.desk.recount(Some(&refused), &taken);
    assert!(propose(&mut bench, 2, 64).is_ok());
}

fn refusal() -> Refusal {
    Refusal { node: "a".to_owned(), code: -32000, message: "transaction underpriced".to_owned() }
}
