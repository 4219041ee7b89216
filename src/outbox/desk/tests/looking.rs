//! How many questions nodes are asked, and for which transactions first.

use std::collections::BTreeMap;

use alloy_primitives::{B256, U256};

use super::{super::*, bench::*};
use crate::outbox::record::StateName;

/// The hash of the transaction of this nonce.
fn of_nonce(nonce: u64) -> B256 {
    U256::from(1 + nonce).into()
}

/// A desk that was made from so many transactions of one sender, each of which a node has taken.
fn with_many(count: u64) -> Bench {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    let one = bench.disk.records[&bench.id(1)].clone();
    bench.disk.records.clear();
    for nonce in 0..count {
        let id = TxId { hash: of_nonce(nonce), ..one.id.clone() };
        bench.disk.records.insert(id.clone(), Record { id, nonce, ..one.clone() });
    }
    bench.restart();
    bench
}

/// Answers all questions, and those that follow, until none is left: each transaction waits at
/// node `a`. The transactions in the order of the questions.
fn answer_all(bench: &mut Bench, mut effects: Vec<Effect>) -> Vec<B256> {
    let mut asked = Vec::new();
    while let Some(effect) = effects.pop() {
        if let Effect::Look { id, look, .. } = effect {
            asked.push(id.hash);
            let found = Found::Waiting { node: "a".into(), missing: vec![] };
            effects.extend(bench.input(Input::Looked { id, look, found, final_nonces: None }));
        }
    }
    asked
}

fn next_block(bench: &mut Bench, claimed: &[B256], is_unread: bool) -> Vec<Effect> {
    bench.now += 12_000;
    bench.tip += 1;
    let added = vec![NewBlock { id: block(bench.tip, 0), transactions: Vec::new() }];
    let claimed = claimed.to_vec();
    bench.input(Input::Blocks(Box::new(Blocks { added, is_unread, claimed, ..Blocks::default() })))
}

#[test]
fn a_block_brings_a_bounded_number_of_questions() {
    let mut bench = with_many(1024);
    let mut times = BTreeMap::<B256, u32>::new();
    for blocks in 1..=4 {
        let effects = next_block(&mut bench, &[], false);
        let asked = answer_all(&mut bench, effects);
        assert!(asked.len() <= 256, "block {blocks}: {}", asked.len());
        asked.into_iter().for_each(|hash| *times.entry(hash).or_default() += 1);
        let most = times.values().max();
        assert_eq!(most, Some(&1), "one is asked for again before each was asked for once");
    }
    assert_eq!(times.len(), 1024);
}

#[test]
fn blocks_in_quick_succession_share_their_questions() {
    let mut bench = with_many(600);
    let mut asked = 0;
    for _ in 0..10 {
        let effects = next_block(&mut bench, &[], false);
        bench.now -= 11_900;
        asked += answer_all(&mut bench, effects).len();
    }
    assert_eq!(asked, 256, "ten blocks in a second");
}

#[test]
fn the_claims_of_a_node_are_asked_for_first() {
    let mut bench = with_many(1000);
    let claimed: Vec<B256> = (990..1000).map(of_nonce).collect();
    let effects = next_block(&mut bench, &claimed, true);
    let asked = answer_all(&mut bench, effects);
    assert!(claimed.iter().all(|hash| asked.contains(hash)), "{asked:?}");
    assert_eq!(asked.len(), 256, "the others have their turn");
}

#[test]
fn claims_leave_places_for_the_others() {
    let mut bench = with_many(1000);
    let claimed: Vec<B256> = (500..1000).map(of_nonce).collect();
    let effects = next_block(&mut bench, &claimed, true);
    let asked = answer_all(&mut bench, effects);
    assert_eq!((asked.len(), asked.iter().filter(|hash| !claimed.contains(hash)).count()), (256, 64));
}

#[test]
fn behind_an_unread_block_the_nodes_are_asked() {
    let mut bench = Bench::with(Terms { resend_blocks: 50, ..terms() });
    for (name, nonce) in [(1, 0), (2, 1)] {
        bench.accept(name, nonce);
        bench.taken(name);
    }
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    assert_eq!(bench.state(1), StateName::Mined);
    let effects = next_block(&mut bench, &[], true);
    assert_eq!(asked(&effects), [2], "the block of the other one is canonical still");
    let found = Found::InBlock { node: "a".into(), block: block(bench.tip, 0) };
    bench.looked(2, found, None);
    assert_eq!(bench.state(2), StateName::Mined);
    bench.pass(2);
    assert_eq!(
        (bench.life(1).as_str(), bench.life(2).as_str()),
        ("accepted sent mined confirmed", "accepted sent mined confirmed")
    );
}
