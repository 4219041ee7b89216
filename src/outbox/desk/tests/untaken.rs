//! Transactions that no node takes: want of funds ends those whose hash nobody has, and the rest is
//! bounded.

use super::{super::*, bench::*};
use crate::{config::Ack, outbox::record::StateName};

fn unfunded() -> Word {
    Word::Unfunded(words("insufficient funds for gas * price + value"))
}

fn underpriced() -> Word {
    Word::RefusedNow(words("transaction underpriced"))
}

/// Both nodes give this word, and the sending ends.
fn both(bench: &mut Bench, name: u8, word: &Word) -> Vec<Answer> {
    bench.word(name, "a", word.clone());
    bench.word(name, "b", word.clone());
    answers(&bench.done(name))
}

/// A desk that may hold 64 transactions in all that no node takes.
fn small(ack: Ack) -> Terms {
    Terms { ack, bounds: Bounds { pending: 640, ..terms().bounds }, ..terms() }
}

fn in_all() -> Answer {
    Err(NotDone::Untaken { of_sender: false, limit: 64 })
}

fn of_sender() -> Answer {
    Err(NotDone::Untaken { of_sender: true, limit: 64 })
}

#[test]
fn want_of_funds_at_all_nodes_is_the_clients_answer() {
    let mut bench = Bench::new();
    let poor = Err(NotDone::OfNodes(words("insufficient funds for gas * price + value")));
    bench.accept(1, 0);
    assert_eq!(answers(&bench.accept(1, 0)), [], "a second client waits too");
    assert_eq!(both(&mut bench, 1, &unfunded()), [poor.clone(), poor.clone()]);
    assert_eq!(bench.life(1), "accepted refused");
    let told: Vec<_> = bench.disk.deliveries.iter().map(|delivery| delivery.kind.as_str()).collect();
    assert_eq!(told, ["tx.accepted", "tx.refused"]);
    assert!(bench.desk.is_idle());
    // The client insists, and hears the same; then there are funds.
    bench.accept(1, 0);
    assert_eq!(both(&mut bench, 1, &unfunded()), [poor]);
    bench.accept(1, 0);
    assert_eq!(both(&mut bench, 1, &Word::Taken), []);
    assert_eq!(bench.life(1), "accepted refused accepted refused accepted sent");
}

#[test]
fn want_of_funds_and_a_word_for_good_end_it_too() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.word(1, "a", unfunded());
    bench.word(1, "b", Word::RefusedForGood(words("intrinsic gas too low")));
    assert_eq!(answers(&bench.done(1)).len(), 1);
    assert_eq!(bench.life(1), "accepted refused");
}

#[test]
fn want_of_funds_ends_none_that_a_node_may_have_or_take() {
    for other in [underpriced(), Word::Lost] {
        let mut bench = Bench::new();
        bench.accept(1, 0);
        bench.word(1, "a", unfunded());
        bench.word(1, "b", other);
        assert_eq!(answers(&bench.done(1)), [Ok(Done::Hash(hash(1)))]);
        assert_eq!(bench.state(1), StateName::Accepted);
    }
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.word(1, "a", unfunded());
    let unasked = Input::SendDone { id: bench.id(1), send: bench.sending(1), is_whole: false };
    assert_eq!(answers(&bench.input(unasked)), [Ok(Done::Hash(hash(1)))], "a node was not asked");
}

#[test]
fn want_of_funds_ends_no_promise() {
    let disk = |bench: &mut Bench| drop(bench.accept(1, 0));
    let hold = |bench: &mut Bench| {
        bench.accept(1, 0);
        assert_eq!(answers(&bench.pause(5_000)), [Ok(Done::Hash(hash(1)))]);
    };
    let many = |bench: &mut Bench| (0..65).for_each(|_| drop(bench.accept(1, 0)));
    let restart = |bench: &mut Bench| {
        bench.accept(1, 0);
        bench.restart();
        bench.blocks(&[], &[(block(101, 0), &[])]);
        bench.pause(60_000);
    };
    type Promise = fn(&mut Bench);
    let ways: [(Ack, Promise); 4] = [(Ack::Disk, disk), (Ack::Node, hold), (Ack::Node, many), (Ack::Node, restart)];
    for (number, (ack, promise)) in ways.into_iter().enumerate() {
        let mut bench = Bench::with(Terms { ack, ..terms() });
        promise(&mut bench);
        both(&mut bench, 1, &unfunded());
        assert_eq!(bench.state(1), StateName::Accepted, "{number}");
        bench.pause(60_000);
        both(&mut bench, 1, &unfunded());
        assert_eq!(bench.life(1), "accepted", "{number}");
    }
}

#[test]
fn a_sender_of_refused_ones_has_a_bound() {
    let mut bench = Bench::new();
    bench.accept(90, 0);
    both(&mut bench, 90, &Word::RefusedForGood(words("intrinsic gas too low")));
    for nonce in 0..70 {
        assert_eq!(answers(&bench.accept(1 + nonce, nonce.into())), [], "without a refusal none counts");
    }
    both(&mut bench, 1, &underpriced());
    assert_eq!(answers(&bench.accept(80, 80)), [of_sender()]);
    assert_eq!(answers(&bench.accept(90, 0)), [of_sender()], "a new life of a refused one");
    assert_eq!(answers(&bench.accept_of("default", 81, 2, 0)), [], "of another sender");
    bench.restart();
    assert_eq!(answers(&bench.accept(80, 80)), [of_sender()], "after a restart");
    // Six end, and one is taken.
    for name in 2..=7 {
        bench.command(name, Command::Cancel).unwrap();
    }
    assert_eq!(answers(&bench.accept(80, 80)), [of_sender()]);
    bench.command(8, Command::Cancel).unwrap();
    assert_eq!(answers(&bench.accept(80, 80)), []);
    assert_eq!(answers(&bench.accept(82, 82)), [of_sender()]);
    bench.blocks(&[], &[(block(101, 0), &[])]);
    bench.pause(60_000);
    bench.taken(1);
    assert_eq!(answers(&bench.accept(82, 82)), [], "the refused one is at a node now");
}

/// 64 senders have one each that nodes refuse.
fn full(ack: Ack) -> Bench {
    let mut bench = Bench::with(small(ack));
    for name in 1..=64 {
        bench.accept_of("default", name, name, 0);
        both(&mut bench, name, &underpriced());
        assert_eq!(bench.state(name), StateName::Accepted);
    }
    bench
}

#[test]
fn beyond_the_bound_in_all_a_refused_one_is_not_kept() {
    for ack in [Ack::Node, Ack::Disk] {
        let mut bench = full(ack);
        let refused = |bench: &mut Bench, name: u8| {
            assert_eq!(answers(&bench.accept_of("default", name, name, 0)), [], "the nodes' words decide");
            assert_eq!(both(bench, name, &underpriced()), [in_all()]);
            assert_eq!(bench.life(name), "accepted refused");
        };
        refused(&mut bench, 65);
        assert_eq!(answers(&bench.accept_of("default", 66, 1, 1)), [in_all()], "one behind a refused one");
        // A transaction that a node takes has its place.
        bench.accept_of("default", 67, 67, 0);
        assert_eq!(answers(&bench.word(67, "a", Word::Taken)), [Ok(Done::Hash(hash(67)))]);
        bench.done(67);
        // A transaction that a node may have is kept: the client must not pay anew.
        bench.accept_of("default", 68, 68, 0);
        bench.word(68, "a", underpriced());
        bench.word(68, "b", Word::Lost);
        assert_eq!(answers(&bench.done(68)), [Ok(Done::Hash(hash(68)))]);
        bench.command(68, Command::Cancel).unwrap();
        bench.desk = Desk::new(small(ack), Arc::new(WantsAll), bench.disk.stored(), Millis(bench.now));
        refused(&mut bench, 70);
        // The end of one makes room for another.
        bench.command(1, Command::Cancel).unwrap();
        bench.accept_of("default", 71, 71, 0);
        both(&mut bench, 71, &underpriced());
        assert_eq!(bench.life(71), "accepted");
        refused(&mut bench, 72);
    }
}

/// Anybody can sign transactions for a nonce that the signer has used.
#[test]
fn used_nonces_have_a_bound_of_their_own() {
    let used = Word::NonceUsed(words("nonce too low"));
    for ack in [Ack::Node, Ack::Disk] {
        let mut bench = Bench::with(small(ack));
        for name in 1..=64 {
            bench.accept_of("default", name, 200, 0);
            assert_eq!(both(&mut bench, name, &used), [], "the nodes are asked whether a block has it");
        }
        assert_eq!(answers(&bench.accept_of("default", 65, 200, 0)), [], "the nodes' words decide");
        assert_eq!(both(&mut bench, 65, &used), [in_all()]);
        assert_eq!(bench.life(65), "accepted refused");
        // Neither this sender nor refusals of another kind are shut out.
        for (name, sender, nonce) in [(66, 200, 1), (67, 67, 0)] {
            bench.accept_of("default", name, sender, nonce);
            assert_eq!(both(&mut bench, name, &underpriced()), [Ok(Done::Hash(hash(name)))]);
        }
        // The end of one makes room for another.
        bench.looked(1, Found::Unknown, Some(1));
        bench.accept_of("default", 68, 200, 0);
        assert_eq!(both(&mut bench, 68, &used), []);
    }
}

#[test]
fn an_outage_of_all_nodes_shuts_nobody_out() {
    let mut bench = Bench::with(small(Ack::Node));
    for name in 1..=200 {
        assert_eq!(answers(&bench.accept_of("default", name, 1 + name % 2, u64::from(name))), []);
    }
    assert_eq!(bench.disk.records.len(), 200);
}

#[test]
fn the_nodes_are_not_asked_for_what_all_refused() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    both(&mut bench, 1, &underpriced());
    bench.accept_of("default", 2, 2, 0);
    both(&mut bench, 2, &Word::Lost);
    for _ in 0..4 {
        assert_eq!(asked(&bench.pass(1)).iter().filter(|name| **name == 1).count(), 0);
    }
    assert_eq!(bench.state(1), StateName::Accepted);
    let mut bench = Bench::new();
    bench.accept(1, 0);
    both(&mut bench, 1, &Word::Lost);
    assert_eq!(asked(&bench.pass(3)), [1], "a silent node may have it");
}

#[test]
fn the_refusal_of_one_that_returned_is_not_that_of_all() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    both(&mut bench, 1, &Word::Lost);
    bench.input(Input::NodeReturned { node: "b".into() });
    bench.word(1, "b", underpriced());
    bench.done(1);
    assert_eq!(asked(&bench.pass(3)), [1], "the other one may have it");
}

/// A tenant with a bound of its own leaves room for the refused transactions of others.
#[test]
fn a_tenant_has_its_part_of_those_that_no_node_takes() {
    let bounds = Bounds { pending: 1000, tenant_pending: 200, ..terms().bounds };
    let mut bench = Bench::with(Terms { bounds, ..terms() });
    let send = |bench: &mut Bench, tenant: &str, name: u8| {
        bench.accept_of(tenant, name, name, 5);
        let id = TxId { tenant: tenant.parse().unwrap(), ..bench.id(name) };
        let (send, node) = (bench.sending(name), "a".into());
        bench.input(Input::Heard { id: id.clone(), send, node, word: underpriced() });
        answers(&bench.input(Input::SendDone { id, send, is_whole: true }))
    };
    let kept = |name: u8| [Ok(Done::Hash(hash(name)))];
    for name in 1..=20 {
        assert_eq!(send(&mut bench, "many", name), kept(name));
    }
    let full = [Err(NotDone::Untaken { of_sender: false, limit: 20 })];
    assert_eq!(send(&mut bench, "many", 21), full);
    assert_eq!(send(&mut bench, "other", 22), kept(22));
}
