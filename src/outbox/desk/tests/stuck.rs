//! Nodes that hang, forget or say nothing, and gaps: none of these holds a transaction up.

use super::{super::*, bench::*};

/// Node `b` hangs over what it is sent: the words of `a` are enough, also when `b` is sent all
/// again.
#[test]
fn a_node_that_hangs_holds_up_no_later_nonce() {
    let mut bench = Bench::with(Terms { in_flight: 1, ..terms() });
    bench.accept(1, 0);
    bench.word(1, "b", Word::Lost);
    bench.taken(1);
    assert_eq!(to_nodes(&bench.pause(2000)), [(1, "b".to_owned())]);
    assert_eq!(sent(&bench.accept(2, 1)), [2], "the node that hangs is not waited for");
    bench.word(2, "b", Word::Lost);
    bench.taken(2);
    assert_eq!(sent(&bench.accept_of("default", 3, 3, 0)), [3], "and its sending takes no place");
    // What goes again keeps its own order and its own places.
    assert_eq!(to_nodes(&bench.pause(2000)), []);
    let mut effects = bench.word(1, "b", Word::Lost);
    effects.extend(bench.done(1));
    assert_eq!(to_nodes(&effects), [(2, "b".to_owned())]);
}

#[test]
fn a_node_that_gets_one_nonce_gets_the_next_one_behind_it() {
    let mut bench = Bench::new();
    for (name, nonce) in [(1, 0), (2, 1)] {
        bench.accept(name, nonce);
        bench.word(name, "b", Word::RefusedNow(words("txpool is full")));
        bench.taken(name);
    }
    // Each refusal doubles the pause.
    for _ in 0..3 {
        bench.pause(60_000);
        for name in [1, 2] {
            bench.word(name, "b", Word::RefusedNow(words("txpool is full")));
            bench.done(name);
        }
    }
    let id = bench.id(1);
    bench.command(1, Command::Resend).unwrap();
    let effects = bench.input(Input::Heard { id, send: bench.sending(1), node: "b".into(), word: Word::Taken });
    assert_eq!(to_nodes(&effects), [(2, "b".to_owned())]);
}

#[test]
fn a_transaction_that_loses_its_block_waits_for_no_node() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.word(1, "a", Word::Taken);
    let mined = block(101, 0);
    bench.blocks(&[], &[(mined, &[(1, 1, 0)])]);
    // No word of the first sending has come from `b`.
    assert_eq!(sent(&bench.blocks(&[mined], &[(block(101, 1), &[])])), [1]);
    let late = bench.word(1, "a", Word::Taken);
    assert_eq!(sent(&late), [] as [u8; 0]);
    assert_eq!(bench.life(1), "accepted sent mined reorged sent");
}

#[test]
fn a_gap_is_filled_by_whatever_uses_the_nonce() {
    let other = [(9, 1, 0)];
    for way in ["past the proxy", "replaced", "a look at a pool", "a look at a block"] {
        let mut bench = with_a_gap();
        let in_block = Found::InBlock { node: "a".into(), block: block(100, 0) };
        let effects = match way {
            "past the proxy" => bench.blocks(&[], &[(block(101, 0), &other)]),
            "replaced" => {
                bench.accept(1, 0);
                bench.blocks(&[], &[(block(101, 0), &other)])
            }
            way => {
                bench.accept(1, 0);
                bench.word(1, "a", Word::Lost);
                bench.done(1);
                let retried = bench.pass(2);
                assert!(asked(&retried).contains(&1) || sent(&retried).contains(&1), "{retried:?}");
                bench.word(1, "a", Word::Lost);
                bench.done(1);
                bench.pass(3);
                let waiting = Found::Waiting { node: "a".into(), missing: vec![] };
                bench.looked(1, if way == "a look at a pool" { waiting } else { in_block }, None)
            }
        };
        assert_eq!(sent(&effects), [2], "{way}");
    }
}

/// Node `b` hangs, so a sender's nonces go there one behind the other. Node `a` has forgotten all.
#[test]
fn a_node_that_hangs_hides_no_forgotten_one() {
    let mut bench = Bench::new();
    for (name, nonce) in [(1, 0), (2, 1), (3, 2)] {
        bench.accept(name, nonce);
        bench.word(name, "b", Word::Lost);
        bench.taken(name);
    }
    assert_eq!(to_nodes(&bench.pause(2000)), [(1, "b".to_owned())], "no word comes");
    assert_eq!(asked(&bench.pass(2)), [1, 2, 3]);
    assert_eq!(sent(&bench.looked(1, Found::Unknown, None)), [1], "instead of its sending to b");
    bench.looked(2, Found::Unknown, None);
    bench.looked(3, missing("a"), None);
    assert_eq!(sent(&bench.taken(1)), [2], "instead of its turn at b");
    assert_eq!(sent(&bench.taken(2)), [3]);
}

/// These nodes do not know a transaction, and the others say nothing.
fn missing(node: &str) -> Found {
    Found::Missing { at: vec![node.into()] }
}

/// A transaction that a node showed, and then no node: the next nonce was refused for the gap.
#[test]
fn a_gap_is_filled_by_what_a_node_shows_once_more() {
    let waiting = || Found::Waiting { node: "a".into(), missing: vec![] };
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    bench.accept(2, 1);
    bench.word(2, "a", Word::RefusedNow(words("nonce too high")));
    bench.done(2);
    bench.pass(2);
    assert_eq!(sent(&bench.looked(1, waiting(), None)), [2]);
    bench.word(2, "a", Word::RefusedNow(words("nonce too high")));
    bench.done(2);
    bench.pass(2);
    assert_eq!(sent(&bench.looked(1, Found::Unknown, None)), [1]);
    bench.word(1, "a", Word::Lost);
    bench.done(1);
    assert_eq!(asked(&bench.pass(2)), [1]);
    assert_eq!(sent(&bench.looked(1, waiting(), None)), [2]);
    assert_eq!(bench.life(1), "accepted sent seen");
}

#[test]
fn a_silent_node_keeps_none_from_being_sent_again() {
    let mut bench = Bench::with(Terms { deadline: 100_000_000, ..terms() });
    bench.accept(1, 0);
    bench.word(1, "b", Word::Lost);
    bench.taken(1);
    // Each of these lengthens the pause before the next sending to `b`.
    for _ in 0..8 {
        bench.pause(600_000);
        bench.word(1, "b", Word::Lost);
        bench.done(1);
    }
    bench.pass(2);
    let effects = bench.looked(1, missing("b"), None);
    assert_eq!((to_nodes(&effects), sent(&effects)), (vec![], vec![]), "it never had it");
    bench.pass(1);
    assert_eq!(sent(&bench.looked(1, missing("a"), None)), [1]);
    bench.taken(1);
    assert_eq!(asked(&bench.pass(2)), [1], "and the nodes are asked again");
}

#[test]
fn a_forgotten_one_is_sent_at_once_whatever_others_refused() {
    let mut bench = Bench::with(Terms { deadline: 100_000_000, ..terms() });
    bench.accept(1, 0);
    bench.word(1, "b", Word::RefusedNow(words("transaction underpriced")));
    bench.taken(1);
    for _ in 0..8 {
        bench.pause(600_000);
        bench.word(1, "b", Word::RefusedNow(words("transaction underpriced")));
        bench.done(1);
    }
    bench.pass(3);
    assert_eq!(sent(&bench.looked(1, Found::Unknown, None)), [1]);
}

#[test]
fn a_deadline_ends_none_that_a_block_took_meanwhile() {
    for is_away in [false, true] {
        let mut bench = Bench::with(Terms { deadline: 20_000, ..terms() });
        bench.accept(1, 0);
        bench.taken(1);
        bench.pause(if is_away { 10_000 } else { 20_000 });
        if is_away {
            bench.now += 20_000;
            bench.restart();
            let mut effects = bench.input(Input::NodeReturned { node: "a".into() });
            effects.extend(bench.pause(0));
            assert_eq!((to_nodes(&effects), sent(&effects), asked(&effects)), (vec![], vec![], vec![1]));
            bench.blocks(&[], &[(block(105, 0), &[])]);
        }
        // Nodes that say too little are waited for, up to ten minutes: one may have the block later
        // than the others.
        for too_little in [Found::Unsure, Found::Disputed, missing("a")] {
            bench.looked(1, too_little, None);
            assert_eq!(asked(&bench.pause(10_000)), [1]);
        }
        bench.looked(1, Found::Unsure, None);
        bench.pause(569_999);
        assert_eq!(bench.life(1), "accepted sent");
        if is_away {
            bench.pass(1);
            bench.looked(1, Found::InBlock { node: "a".into(), block: block(90, 0) }, None);
            assert_eq!(bench.life(1), "accepted sent mined");
        } else {
            bench.pause(1);
            assert_eq!(bench.life(1), "accepted sent expired");
        }
    }
}

/// The nodes were away when it came. Each returns, and refuses it for good.
#[test]
fn words_of_nodes_that_return_leave_none_behind() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.accept(2, 1);
    bench.done(1);
    for node in ["a", "b"] {
        let effects = bench.input(Input::NodeReturned { node: node.into() });
        assert_eq!(to_nodes(&effects), [(1, node.to_owned())]);
        bench.word(1, node, Word::RefusedForGood(words("intrinsic gas too low")));
        bench.done(1);
    }
    assert_eq!(sent(&bench.pause(60_000)), [1]);
    bench.word(1, "a", Word::RefusedForGood(words("intrinsic gas too low")));
    bench.word(1, "b", Word::RefusedForGood(words("intrinsic gas too low")));
    assert_eq!(sent(&bench.done(1)), [2]);
    assert_eq!(bench.life(1), "accepted refused");
}
