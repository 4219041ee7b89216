//! The order of sending, and how often.

use super::{super::*, bench::*};
use crate::{config::Ack, outbox::record::StateName};

#[test]
fn a_later_nonce_waits_until_the_earlier_one_is_taken() {
    let mut bench = Bench::new();
    assert_eq!(sent(&bench.accept(1, 5)), [1]);
    assert_eq!(sent(&bench.accept(2, 6)), [] as [u8; 0]);
    assert_eq!(sent(&bench.accept(3, 7)), [] as [u8; 0]);
    assert_eq!(sent(&bench.accept_of("default", 4, 2, 9)), [4], "another sender does not wait");
    let id = bench.id(2);
    let effects = bench.word(1, "a", Word::Taken);
    assert_eq!(sent(&effects), [2], "one word is enough, also while other nodes are silent");
    let raw = effects.iter().find_map(|effect| match effect {
        Effect::Send { id: sent, raw, request_id, .. } if *sent == id => Some((raw.clone(), request_id.clone())),
        _ => None,
    });
    assert_eq!(raw, Some((None, Some("r2".to_owned()))), "the store has the bytes");
    bench.word(2, "a", Word::Lost);
    assert_eq!(sent(&bench.done(2)), [] as [u8; 0]);
    assert_eq!(asked(&bench.pass(2)), [1, 2], "a node has these");
    assert_eq!(sent(&bench.looked(2, Found::Unknown, None)), [2]);
    assert_eq!(sent(&bench.word(2, "b", Word::Taken)), [3]);
}

#[test]
fn an_earlier_nonce_that_comes_to_nothing_holds_up_no_later_one() {
    for end in ["cancelled", "displaced", "nonce used", "refused"] {
        let mut bench = Bench::new();
        bench.accept(1, 5);
        bench.accept(2, 6);
        let effects = match end {
            "cancelled" => {
                let id = bench.id(1);
                bench.input(Input::Command { waiter: 9, id, known: None, command: Command::Cancel })
            }
            "displaced" => bench.blocks(&[], &[(block(101, 0), &[(9, 1, 5)])]),
            "nonce used" => bench.word(1, "a", Word::NonceUsed(words("nonce too low"))),
            _ => {
                bench.word(1, "a", Word::RefusedForGood(words("no")));
                bench.done(1)
            }
        };
        assert_eq!(sent(&effects), [2], "{end}");
    }
}

#[test]
fn the_end_of_one_opens_no_way_past_another_of_its_nonce() {
    let mut bench = Bench::new();
    bench.accept(1, 5);
    bench.accept(2, 5);
    bench.accept(3, 6);
    bench.word(2, "a", Word::Lost);
    bench.done(2);
    assert_eq!(bench.command(1, Command::Cancel), Ok(Done::Command));
    assert_eq!(sent(&bench.done(1)), [] as [u8; 0]);
    assert_eq!(sent(&bench.pause(2000)), [2]);
    assert_eq!(sent(&bench.word(2, "a", Word::Taken)), [3]);
}

#[test]
fn a_tenant_has_only_so_many_on_their_way() {
    let mut bench = Bench::with(Terms { in_flight: 2, ..terms() });
    for name in 1..=4 {
        bench.accept_of("default", name, name, 0);
    }
    assert_eq!(bench.desk.in_flight(), 2);
    assert_eq!(sent(&bench.accept_of("other", 9, 9, 0)), [9], "another tenant's do not wait");
    assert_eq!(sent(&bench.word(1, "a", Word::Taken)), [3], "a node that hangs holds no place");
    assert_eq!(sent(&bench.done(1)), [] as [u8; 0]);
    assert_eq!(sent(&bench.word(2, "a", Word::Lost)), [] as [u8; 0], "no word yet");
    assert_eq!(sent(&bench.word(2, "b", Word::RefusedNow(words("txpool is full")))), [4]);
}

#[test]
fn another_tenants_copy_holds_up_no_nonce() {
    let mut bench = Bench::with(Terms { in_flight: 1, ..terms() });
    bench.accept(1, 0);
    bench.taken(1);
    // The other tenant's copy waits behind a slow one of its own.
    bench.accept_of("other", 9, 9, 0);
    assert_eq!(sent(&bench.accept_of("other", 1, 1, 0)), [] as [u8; 0]);
    assert_eq!(sent(&bench.accept(2, 1)), [2]);
}

#[test]
fn a_transaction_that_no_node_knows_is_sent_again() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    assert_eq!(bench.pass(1), []);
    assert_eq!(asked(&bench.pass(1)), [1]);
    bench.looked(1, Found::Waiting { node: "b".into(), missing: vec![] }, None);
    assert_eq!(bench.state(1), StateName::Seen);
    assert_eq!(asked(&bench.pass(2)), [1]);
    let effects = bench.looked(1, Found::Unknown, None);
    assert_eq!(sent(&effects), [1]);
    bench.taken(1);
    assert_eq!(asked(&bench.pass(2)), [1]);
    assert_eq!(sent(&bench.looked(1, Found::Unsure, None)), [] as [u8; 0]);
    assert_eq!(asked(&bench.pass(1)), [1], "and soon again where a node was silent");
    assert_eq!(bench.life(1), "accepted sent seen");
}

#[test]
fn a_node_that_returns_gets_what_no_block_has() {
    let mut bench = Bench::new();
    for (name, nonce) in [(1, 0), (2, 1), (3, 2)] {
        bench.accept(name, nonce);
        bench.taken(name);
    }
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    let effects = bench.input(Input::NodeReturned { node: "b".into() });
    assert_eq!(to_nodes(&effects), [(2, "b".to_owned())], "in the order of nonces");
    let mut effects = bench.word(2, "b", Word::Taken);
    effects.extend(bench.done(2));
    assert_eq!(to_nodes(&effects), [(3, "b".to_owned())]);
    bench.word(3, "b", Word::RefusedForGood(words("no")));
    bench.done(3);
    assert_eq!(bench.state(3), StateName::Sent, "one node's word is not the word of all");
}

#[test]
fn a_nonce_that_another_has_used_for_good_ends_it() {
    let mut bench = Bench::with(Terms { ack: Ack::Disk, ..terms() });
    bench.accept(1, 5);
    bench.word(1, "a", Word::NonceUsed(words("nonce too low")));
    let effects = bench.done(1);
    let look =
        |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Look { with_nonce: true, .. }));
    assert!(look(&effects));
    bench.looked(1, Found::Unknown, Some(5));
    assert_eq!(bench.state(1), StateName::Accepted, "the block that has it may go");
    assert_eq!(sent(&bench.pause(2000)), [1]);
    bench.word(1, "a", Word::NonceUsed(words("nonce too low")));
    assert!(look(&bench.done(1)));
    bench.looked(1, Found::Unknown, Some(6));
    assert_eq!(bench.life(1), "accepted refused");
    assert!(bench.desk.is_idle());
}

/// No client has the hash: the client hears what nodes alone would have said.
#[test]
fn a_client_hears_of_a_used_nonce() {
    let mut bench = Bench::new();
    bench.accept(1, 5);
    bench.word(1, "a", Word::NonceUsed(words("nonce too low")));
    assert_eq!(answers(&bench.done(1)), [], "a block may have this very transaction");
    let answer = answers(&bench.looked(1, Found::Unknown, Some(3)));
    assert!(matches!(&answer[..], [Err(NotDone::OfNodes(words))] if words.message.starts_with("nonce too low")));
    assert_eq!(bench.life(1), "accepted refused");
}

#[test]
fn a_used_nonce_takes_the_words_of_two_nodes() {
    let used = || Word::NonceUsed(words("nonce too low"));
    let full = || Word::RefusedNow(words("txpool is full"));
    let mut bench = Bench::new();
    for (name, word) in [(1, full()), (2, Word::Lost)] {
        bench.accept_of("default", name, name, 5);
        bench.word(name, "a", used());
        bench.word(name, "b", word);
        let effects = bench.done(name);
        assert_eq!((answers(&effects), asked(&effects)), (vec![Ok(Done::Hash(hash(name)))], vec![name]));
        bench.looked(name, Found::Unknown, Some(3));
        assert_eq!(bench.state(name), StateName::Accepted);
    }
    bench.accept_of("default", 3, 3, 5);
    for (node, word) in [("a", used()), ("b", Word::Lost), ("c", used())] {
        bench.word(3, node, word);
    }
    assert_eq!(answers(&bench.done(3)), []);
    bench.looked(3, Found::Unknown, Some(3));
    assert_eq!(bench.state(3), StateName::Refused);
}

/// Anybody can hand in old transactions of any sender.
#[test]
fn used_nonces_hold_up_no_later_one_and_fill_no_bound() {
    let mut bench = Bench::with(Terms { in_flight: 1000, ..terms() });
    for name in 1..=70 {
        bench.accept_of("other", name, 1, u64::from(name));
        bench.word_of("other", name, "a", Word::NonceUsed(words("nonce too low")));
    }
    assert_eq!(sent(&bench.accept(100, 100)), [100]);
    for name in 1..=70 {
        bench.word_of("other", name, "b", Word::Lost);
    }
    bench.pause(60_000);
    assert_eq!(sent(&bench.accept(101, 101)), [] as [u8; 0]);
    assert_eq!(sent(&bench.taken(100)), [101], "also while those are sent again");
}

#[test]
fn a_nonce_that_it_used_itself_is_found_in_its_block() {
    let mut bench = Bench::new();
    bench.accept(1, 5);
    bench.word(1, "a", Word::NonceUsed(words("nonce too low")));
    bench.done(1);
    bench.looked(1, Found::InBlock { node: "a".into(), block: block(90, 0) }, Some(6));
    assert_eq!(bench.life(1), "accepted mined");
    let effects = bench.pass(1);
    assert_eq!(asked(&effects), [1], "no block was told, so the nodes are asked before more is said");
    bench.looked(1, Found::InBlock { node: "a".into(), block: block(90, 0) }, None);
    assert_eq!(bench.life(1), "accepted mined confirmed");
}

#[test]
fn a_nonce_refused_for_a_gap_is_sent_when_the_gap_is_filled() {
    for fills_by_a_block in [false, true] {
        let mut bench = with_a_gap();
        bench.accept(1, 0);
        let effects = match fills_by_a_block {
            true => bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]),
            false => bench.word(1, "a", Word::Taken),
        };
        assert_eq!(sent(&effects), [2], "{fills_by_a_block}");
    }
}

#[test]
fn a_nonce_on_its_way_when_the_gap_is_filled_is_sent_again() {
    let mut bench = Bench::new();
    bench.accept(2, 1);
    bench.blocks(&[], &[(block(101, 0), &[])]);
    bench.accept(1, 0);
    bench.word(1, "a", Word::Taken);
    bench.word(2, "a", Word::RefusedNow(words("nonce too high")));
    assert_eq!(sent(&bench.done(2)), [2]);
}

#[test]
fn a_reorganisation_gives_a_transaction_its_time_anew() {
    let mut bench = Bench::with(Terms { deadline: 20_000, ..terms() });
    bench.accept(1, 0);
    bench.taken(1);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    bench.pause(30_000);
    let effects = bench.blocks(&[block(101, 0)], &[(block(101, 1), &[])]);
    assert_eq!(sent(&effects), [1]);
    assert_eq!(asked(&bench.pause(19_999)), [] as [u8; 0], "the deadline is ahead");
    assert_eq!(bench.state(1), StateName::Reorged);
    bench.pause(1);
    bench.looked(1, Found::Unknown, None);
    assert_eq!(bench.state(1), StateName::Expired);
}

#[test]
fn the_deadline_ends_what_no_block_has() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    bench.accept(2, 1);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    let effects = bench.pause(1_000_000);
    assert_eq!((sent(&effects), asked(&effects)), (vec![], vec![2]), "a block may have it");
    assert_eq!(bench.state(2), StateName::Accepted);
    bench.looked(2, Found::Unknown, None);
    assert_eq!((bench.state(1), bench.state(2)), (StateName::Mined, StateName::Expired));
    // A node kept it all the same.
    bench.blocks(&[], &[(block(102, 0), &[(2, 1, 1)])]);
    assert_eq!(bench.life(2), "accepted expired mined");
    bench.blocks(&[block(102, 0)], &[(block(102, 1), &[])]);
    assert_eq!(bench.life(2), "accepted expired mined expired");
    assert_eq!(sent(&bench.pass(10)), [] as [u8; 0]);
}

#[test]
fn after_a_reorganisation_the_earlier_nonce_goes_first_again() {
    let mut bench = Bench::new();
    bench.accept(1, 5);
    bench.taken(1);
    bench.accept(2, 6);
    bench.taken(2);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 5), (2, 1, 6)])]);
    assert_eq!(sent(&bench.blocks(&[block(101, 0)], &[(block(101, 1), &[])])), [1]);
    // That a node took it before the block says nothing any more.
    bench.word(1, "a", Word::Lost);
    assert_eq!(sent(&bench.done(1)), [] as [u8; 0]);
    assert_eq!(sent(&bench.pause(2000)), [1]);
    assert_eq!(sent(&bench.word(1, "a", Word::Taken)), [2]);
}

/// The times, in milliseconds, at which a transaction is sent within a minute on a chain with a
/// block each 250 ms, where each node always gives this word and shows nothing.
fn sendings_of_a_minute(word: &Word) -> Vec<u64> {
    let mut bench = Bench::with(Terms { ack: Ack::Disk, ..terms() });
    let start = bench.now;
    let mut waiting = bench.accept(1, 0);
    let mut times = Vec::new();
    while bench.now < start + 60_000 {
        let mut rounds = 0;
        while !waiting.is_empty() {
            rounds += 1;
            assert!(rounds < 10, "a loop without a pause");
            for effect in std::mem::take(&mut waiting) {
                match effect {
                    Effect::Send { .. } => {
                        times.push(bench.now - start);
                        waiting.extend(bench.word(1, "a", word.clone()));
                        waiting.extend(bench.word(1, "b", word.clone()));
                        waiting.extend(bench.done(1));
                    }
                    Effect::Look { .. } => waiting.extend(bench.looked(1, Found::Unknown, Some(0))),
                    _ => {}
                }
            }
        }
        bench.now += 250;
        let next = block(bench.tip + 1, 0);
        waiting.extend(bench.blocks(&[], &[(next, &[])]));
        waiting.extend(bench.pause(0));
    }
    times
}

#[test]
fn a_refusal_of_the_moment_makes_no_hot_loop() {
    for word in [
        Word::NonceUsed(words("nonce too low")),
        Word::RefusedNow(words("transaction underpriced")),
        Word::RefusedNow(words("nonce too high")),
        Word::Lost,
    ] {
        assert_eq!(sendings_of_a_minute(&word), [0, 2_000, 6_000, 14_000, 30_000], "{word:?}");
    }
    let forgotten = sendings_of_a_minute(&Word::Taken);
    assert!(forgotten.len() <= 30, "{forgotten:?}");
    assert!(forgotten.windows(2).all(|two| two[1] - two[0] >= 2_000), "{forgotten:?}");
}

#[test]
fn refusals_by_all_nodes_lengthen_the_pauses() {
    for (word, most) in [(Word::RefusedNow(words("insufficient funds")), 16), (Word::Lost, 64)] {
        let mut bench = Bench::with(Terms { deadline: 100_000_000, ..terms() });
        let mut sendings = 0;
        let mut effects = bench.accept(1, 0);
        for _ in 0..3600 {
            if !sent(&effects).is_empty() {
                sendings += 1;
                bench.word(1, "a", word.clone());
                bench.done(1);
            }
            bench.now += 1000;
            effects = bench.pause(0);
        }
        assert!((most / 2..=most).contains(&sendings), "{sendings} in an hour: {word:?}");
    }
}

#[test]
fn a_transaction_that_a_node_has_is_seldom_sent_to_others() {
    let mut bench = Bench::with(Terms { deadline: 100_000_000, ..terms() });
    bench.accept(1, 0);
    bench.word(1, "a", Word::Taken);
    bench.word(1, "b", Word::Lost);
    bench.done(1);
    let mut sendings = 0;
    for _ in 0..3600 {
        if !to_nodes(&bench.pause(1000)).is_empty() {
            sendings += 1;
            bench.word(1, "b", Word::Lost);
            bench.done(1);
        }
    }
    assert!((8..=16).contains(&sendings), "{sendings} in an hour");
}

/// Both are due at once, and the later nonce has the lower hash.
#[test]
fn a_node_that_lacks_two_nonces_gets_the_earlier_one_first() {
    let mut bench = Bench::new();
    for (name, nonce) in [(2, 0), (1, 1)] {
        bench.accept(name, nonce);
        bench.word(name, "a", Word::Taken);
        bench.word(name, "b", Word::Lost);
        bench.done(name);
    }
    assert_eq!(to_nodes(&bench.pause(2000)), [(2, "b".to_owned())]);
    assert_eq!(to_nodes(&bench.word(2, "b", Word::Taken)), [(1, "b".to_owned())]);
}

#[test]
fn a_node_that_refused_for_now_is_sent_it_again_later() {
    for word in [Word::RefusedNow(words("txpool is full")), Word::Lost] {
        let mut bench = Bench::new();
        bench.accept(1, 0);
        bench.word(1, "a", Word::Taken);
        bench.word(1, "b", word.clone());
        assert_eq!(bench.done(1), []);
        assert_eq!(bench.pause(1_999), []);
        assert_eq!(to_nodes(&bench.pause(1)), [(1, "b".to_owned())]);
        bench.word(1, "b", word.clone());
        bench.done(1);
        assert_eq!(bench.pause(3_999), [], "the pause has doubled");
        assert_eq!(to_nodes(&bench.pause(1)), [(1, "b".to_owned())]);
        bench.word(1, "b", Word::Taken);
        bench.done(1);
        assert_eq!(bench.pause(600_000), [], "each node has it");
    }
}

#[test]
fn a_block_ends_the_sendings_to_those_that_refused() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.word(1, "a", Word::Taken);
    bench.word(1, "b", Word::RefusedNow(words("txpool is full")));
    bench.done(1);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    assert_eq!(bench.pause(600_000), []);
    assert_eq!(bench.desk.next_due(), None);
}

#[test]
fn a_node_that_forgot_is_sent_what_another_shows() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    assert_eq!(asked(&bench.pass(2)), [1]);
    let effects = bench.looked(1, Found::Waiting { node: "a".into(), missing: vec!["b".into(), "c".into()] }, None);
    assert_eq!(to_nodes(&effects), [(1, "b c".to_owned())]);
    bench.word(1, "b", Word::Taken);
    bench.word(1, "c", Word::RefusedForGood(words("no")));
    bench.done(1);
    assert_eq!(bench.pause(600_000), []);
}

#[test]
fn blocks_that_go_untold_shorten_no_pause() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.word(1, "a", Word::RefusedNow(words("nonce too high")));
    bench.done(1);
    let added = vec![NewBlock { id: block(150, 3), transactions: Vec::new() }];
    let skipped = Blocks { added, skipped: true, ..Blocks::default() };
    assert_eq!(sent(&bench.input(Input::Blocks(Box::new(skipped)))), [] as [u8; 0]);
    assert_eq!(sent(&bench.pause(2_000)), [1]);
}
