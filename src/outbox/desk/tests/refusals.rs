//! The words of nodes that refuse are kept, each node's newest.

use super::{super::*, bench::*};
use crate::outbox::record::{LONGEST_REASON, MAX_REFUSALS, Refusal, StateName};

fn refusals(bench: &Bench) -> Vec<(String, String)> {
    let found: &Vec<Refusal> = &bench.disk.records[&bench.id(1)].refusals;
    found.iter().map(|refusal| (refusal.node.clone(), refusal.message.clone())).collect()
}

fn pair(node: &str, message: &str) -> (String, String) {
    (node.to_owned(), message.to_owned())
}

#[test]
fn a_refusal_of_the_moment_is_kept_with_code_and_node() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.word(1, "b", Word::NonceUsed(words("nonce too low")));
    bench.word(1, "a", Word::RefusedNow(NodeWords { code: -32003, message: "txpool is full".to_owned() }));
    bench.done(1);
    assert_eq!(refusals(&bench), [pair("a", "txpool is full"), pair("b", "nonce too low")]);
    assert_eq!(bench.disk.records[&bench.id(1)].refusals[0].code, -32003);
    assert_eq!(bench.life(1), "accepted", "a refusal of the moment is no transition");
    // A silent node keeps its words, one that has the transaction has none.
    bench.pause(2_000);
    bench.word(1, "b", Word::Lost);
    bench.word(1, "a", Word::Taken);
    bench.done(1);
    assert_eq!(refusals(&bench), [pair("b", "nonce too low")]);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    assert_eq!(refusals(&bench), []);
}

#[test]
fn the_same_words_again_are_not_written_again() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    for (pause, is_written) in [(0, true), (2_000, false)] {
        bench.pause(pause);
        bench.word(1, "a", Word::RefusedNow(words("transaction underpriced")));
        let done = Input::SendDone { id: bench.id(1), send: bench.sending(1), is_whole: true };
        bench.now += 1;
        let turn = bench.desk.input(Millis(bench.now), done);
        assert_eq!(!turn.step.is_empty(), is_written);
        bench.disk.apply(&turn.step);
    }
}

#[test]
fn a_final_refusal_tells_the_words_of_each_node() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.word(1, "a", Word::RefusedForGood(words("invalid sender")));
    bench.word(1, "b", Word::RefusedForGood(words("InvalidSender")));
    bench.done(1);
    assert_eq!(bench.state(1), StateName::Refused);
    let told = bench.disk.records[&bench.id(1)].history[1].refusals.clone();
    assert_eq!(told, bench.disk.records[&bench.id(1)].refusals);
    assert_eq!(refusals(&bench), [pair("a", "invalid sender"), pair("b", "InvalidSender")]);
    // The client asks for it again: the next words are new.
    bench.accept(1, 0);
    let record = &bench.disk.records[&bench.id(1)];
    assert_eq!((record.refusals.len(), record.history[1].refusals.len()), (0, 0));
}

#[test]
fn the_words_that_are_kept_are_bounded() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    for node in 0..20 {
        bench.word(1, &format!("n{node}"), Word::RefusedNow(words(&"x".repeat(1000))));
    }
    bench.done(1);
    let kept = refusals(&bench);
    assert_eq!((kept.len(), kept[0].1.len()), (MAX_REFUSALS, LONGEST_REASON));
}
