//! Blocks that come, go, and are not told.

use super::{super::*, bench::*};
use crate::outbox::record::StateName;

#[test]
fn a_transaction_is_followed_to_finality() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    bench.pass(1);
    assert_eq!(bench.state(1), StateName::Mined);
    bench.pass(1);
    assert_eq!(bench.state(1), StateName::Confirmed);
    bench.final_blocks(&[], &[(block(104, 0), &[])], Some(100));
    assert_eq!(bench.state(1), StateName::Confirmed);
    bench.final_blocks(&[], &[], Some(101));
    assert_eq!(bench.life(1), "accepted sent mined confirmed final");
    assert!(bench.desk.is_idle());
    let kinds: Vec<_> = bench.disk.deliveries.iter().map(|delivery| delivery.kind.as_str()).collect();
    assert_eq!(kinds, ["tx.accepted", "tx.mined", "tx.confirmed", "tx.final"]);
    assert_eq!(bench.disk.records[&bench.id(1)].keep_until, Some(Millis(10_025_000)));
    assert_eq!(bench.disk.checkpoint, Some(block(104, 0)));
}

#[test]
fn a_reorganisation_has_it_sent_again_at_once() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    let effects = bench.blocks(&[block(101, 0)], &[(block(101, 1), &[]), (block(102, 1), &[])]);
    assert_eq!(sent(&effects), [1]);
    bench.taken(1);
    bench.blocks(&[], &[(block(103, 1), &[(1, 1, 0)])]);
    assert_eq!(bench.life(1), "accepted sent mined reorged sent mined");
    // Into another block by one change: no sending.
    let effects = bench.blocks(&[block(103, 1)], &[(block(103, 2), &[(1, 1, 0)])]);
    assert_eq!(sent(&effects), [] as [u8; 0]);
    assert_eq!(bench.life(1), "accepted sent mined reorged sent mined reorged mined");
    // A repeat of what was told makes no second transition.
    bench.blocks(&[], &[(block(103, 2), &[(1, 1, 0)])]);
    bench.blocks(&[block(103, 1)], &[]);
    assert_eq!(bench.life(1), "accepted sent mined reorged sent mined reorged mined");
}

#[test]
fn a_replaced_transaction_is_sent_no_more() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    bench.accept(2, 0);
    bench.taken(2);
    bench.blocks(&[], &[(block(101, 0), &[(2, 1, 0)])]);
    assert_eq!((bench.state(1), bench.state(2)), (StateName::Replaced, StateName::Mined));
    let effects = [bench.pass(20), bench.input(Input::NodeReturned { node: "b".into() })].concat();
    assert_eq!(effects, [], "nothing is sent or asked for");
    // The block goes: both are waiting again.
    let effects = bench.blocks(&[block(101, 0)], &[]);
    assert_eq!(sent(&effects), [1, 2]);
    bench.taken(1);
    bench.taken(2);
    bench.blocks(&[], &[(block(101, 1), &[(1, 1, 0)])]);
    bench.final_blocks(&[], &[(block(102, 1), &[])], Some(102));
    assert_eq!(bench.life(2), "accepted sent mined confirmed reorged sent replaced");
    assert_eq!(bench.life(1), "accepted sent replaced reorged sent mined confirmed final");
    assert!(bench.desk.is_idle());
    let replaced = bench.disk.records[&bench.id(2)].history.last().unwrap();
    assert_eq!(replaced.reason, Some(hash(1).to_string()));
    assert_eq!(answers(&bench.accept(2, 0)), [Err(NotDone::NonceUsed { by: hash(1) })]);
}

fn skip(bench: &mut Bench, to: u64) -> Vec<Effect> {
    let added = vec![NewBlock { id: block(to, 3), transactions: Vec::new() }];
    bench.tip = to;
    bench.input(Input::Blocks(Box::new(Blocks { added, skipped: true, ..Blocks::default() })))
}

#[test]
fn where_blocks_went_untold_the_nodes_are_asked() {
    let mut bench = Bench::new();
    for name in 1..=3 {
        bench.accept_of("default", name, name, 0);
        bench.taken(name);
    }
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0), (2, 2, 0)])]);
    let effects = skip(&mut bench, 150);
    assert_eq!(asked(&effects), [1, 2, 3]);
    assert_eq!(bench.state(1), StateName::Mined, "no word of blocks that may be gone");
    bench.looked(1, Found::InBlock { node: "a".into(), block: block(101, 0) }, None);
    bench.looked(2, Found::InBlock { node: "a".into(), block: block(120, 3) }, None);
    bench.looked(3, Found::InBlock { node: "a".into(), block: block(121, 3) }, None);
    assert_eq!(bench.life(1), "accepted sent mined confirmed");
    assert_eq!(bench.life(2), "accepted sent mined reorged mined");
    assert_eq!(bench.life(3), "accepted sent mined");
    skip(&mut bench, 200);
    assert_eq!(sent(&bench.looked(1, Found::Unknown, None)), [1]);
    bench.looked(2, Found::Unsure, None);
    assert_eq!((bench.state(1), bench.state(2)), (StateName::Reorged, StateName::Mined));
}

#[test]
fn a_block_of_another_branch_is_not_believed() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    bench.pass(2);
    bench.looked(1, Found::InBlock { node: "a".into(), block: block(101, 9) }, None);
    bench.pass(2);
    bench.looked(1, Found::InBlock { node: "a".into(), block: block(500, 0) }, None);
    assert_eq!(bench.life(1), "accepted sent");
    bench.pass(2);
    bench.looked(1, Found::InBlock { node: "a".into(), block: block(102, 0) }, None);
    assert_eq!(bench.life(1), "accepted sent mined");
}

#[test]
fn after_a_restart_all_is_looked_at_again() {
    let mut bench = Bench::new();
    for name in 1..=5 {
        bench.accept_of("default", name, name, 0);
    }
    for name in 1..=4 {
        bench.taken(name);
    }
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0), (9, 2, 0)])]);
    assert_eq!((bench.state(1), bench.state(2)), (StateName::Mined, StateName::Replaced));
    bench.now += 12_000;
    bench.restart();
    assert_eq!(bench.desk.checkpoint(), Some(block(101, 0)));
    let effects = bench.blocks(&[], &[(block(140, 0), &[])]);
    assert_eq!(asked(&effects), [1, 9, 3, 4], "of the one that was replaced, the other is asked for");
    assert_eq!(sent(&effects), [5], "no node ever took it");
    bench.looked(1, Found::InBlock { node: "a".into(), block: block(101, 0) }, None);
    bench.looked(2, Found::Waiting { node: "a".into(), missing: vec![] }, None);
    bench.looked(3, Found::Unknown, None);
    bench.looked(4, Found::Waiting { node: "a".into(), missing: vec![] }, None);
    assert_eq!(bench.life(1), "accepted sent mined confirmed");
    assert_eq!(bench.life(2), "accepted sent replaced reorged");
    assert_eq!((bench.life(3).as_str(), bench.life(4).as_str()), ("accepted sent", "accepted sent seen"));
    assert_eq!(bench.desk.in_flight(), 3);
}

#[test]
fn an_answer_from_before_a_gap_does_not_count() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    assert_eq!(asked(&bench.pass(2)), [1]);
    let gap = Blocks {
        added: vec![NewBlock { id: block(140, 0), transactions: Vec::new() }],
        skipped: true,
        ..Blocks::default()
    };
    bench.input(Input::Blocks(Box::new(gap)));
    let effects = bench.looked(1, Found::InBlock { node: "a".into(), block: block(103, 0) }, None);
    assert_eq!((asked(&effects), bench.life(1).as_str()), (vec![1], "accepted sent"));
    bench.looked(1, Found::InBlock { node: "a".into(), block: block(104, 0) }, None);
    assert_eq!(bench.life(1), "accepted sent mined");
}

#[test]
fn a_height_above_the_newest_block_is_not_final() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    bench.pass(2);
    bench.blocks(&[], &[(block(103, 0), &[(1, 1, 0)])]);
    bench.restart();
    // The chain is told from the past on, and nodes know of a later final block.
    let effects = bench.final_blocks(&[], &[(block(101, 0), &[])], Some(105));
    assert_eq!(asked(&effects), [1]);
    bench.looked(1, Found::InBlock { node: "a".into(), block: block(103, 0) }, None);
    assert_eq!(bench.state(1), StateName::Mined);
}

#[test]
fn a_final_block_of_another_branch_ends_no_life() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    let told = |bench: &mut Bench, told: Final| {
        bench.input(Input::Blocks(Box::new(Blocks { finalized: Some(told), ..Blocks::default() })));
        bench.state(1)
    };
    assert_eq!(told(&mut bench, Final::Told(block(101, 9))), StateName::Mined);
    assert_eq!(told(&mut bench, Final::Told(block(90, 9))), StateName::Mined, "too old to be known, and below");
    assert_eq!(told(&mut bench, Final::Deep(100)), StateName::Mined);
    assert_eq!(told(&mut bench, Final::Told(block(101, 0))), StateName::Final);
}

#[test]
fn depth_ends_no_life_on_a_chain_that_has_finality() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    bench.final_blocks(&[], &[(block(101, 0), &[(1, 1, 0)])], Some(90));
    let deep = Blocks { finalized: Some(Final::Deep(101)), ..Blocks::default() };
    bench.input(Input::Blocks(Box::new(deep)));
    assert_eq!(bench.state(1), StateName::Mined, "all nodes were restarted, and know no final block yet");
}

#[test]
fn a_final_block_that_is_told_early_is_awaited() {
    for (fork, expected) in [(0, StateName::Final), (9, StateName::Mined)] {
        let mut bench = Bench::new();
        bench.accept(1, 0);
        bench.taken(1);
        bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
        for early in [block(102, fork), block(103, 0)] {
            let early = Blocks { finalized: Some(Final::Told(early)), ..Blocks::default() };
            bench.input(Input::Blocks(Box::new(early)));
        }
        assert_eq!(bench.state(1), StateName::Mined);
        // Nodes go on to tell of a block that is not here yet.
        bench.final_blocks(&[], &[(block(102, 0), &[])], Some(103));
        assert_eq!(bench.state(1), expected);
    }
}

#[test]
fn a_block_that_went_untold_while_awaited_is_not_final() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.taken(1);
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    let told = |bench: &mut Bench, told: BlockId| {
        bench.input(Input::Blocks(Box::new(Blocks { finalized: Some(Final::Told(told)), ..Blocks::default() })));
    };
    told(&mut bench, block(120, 9));
    skip(&mut bench, 150);
    bench.looked(1, Found::InBlock { node: "a".into(), block: block(101, 0) }, None);
    assert_eq!(bench.life(1), "accepted sent mined confirmed", "that block may be of another branch");
    // A further one that is awaited keeps none from counting that is there.
    told(&mut bench, block(160, 0));
    told(&mut bench, block(140, 0));
    bench.looked(1, Found::InBlock { node: "a".into(), block: block(101, 0) }, None);
    assert_eq!(bench.state(1), StateName::Final);
}

#[test]
fn a_disputed_block_neither_takes_nor_loses_a_transaction() {
    let mut bench = Bench::new();
    for name in 1..=2 {
        bench.accept_of("default", name, name, 0);
        bench.taken(name);
    }
    bench.blocks(&[], &[(block(101, 0), &[(1, 1, 0)])]);
    assert_eq!(asked(&skip(&mut bench, 150)), [1, 2]);
    bench.now += 12_000;
    assert_eq!(bench.looked(1, Found::Disputed, None), []);
    assert_eq!(sent(&bench.looked(2, Found::Disputed, Some(9))), [2], "a sending does no harm");
    assert_eq!((bench.state(1), bench.state(2)), (StateName::Mined, StateName::Sent));
}
