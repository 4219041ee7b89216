//! Mining, reorganisations, branches and the mempool.

use alloy_primitives::{Address, BloomInput, keccak256};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{super::view::View, *};

fn chain(initial: u64) -> Arc<Chain> {
    Chain::new(1337, 7, Clock::fixed(1_800_000_000), initial, Duration::from_secs(12), None)
}

fn linked(chain: &Chain) {
    let snapshot = chain.snapshot();
    for pair in snapshot.blocks.windows(2) {
        assert_eq!(pair[1].parent_hash, pair[0].hash);
        assert_eq!(pair[1].number, pair[0].number + 1);
        assert!(pair[1].timestamp >= pair[0].timestamp);
    }
}

#[tokio::test]
async fn initial_blocks_lie_in_the_past_and_end_now() {
    let chain = chain(10);
    assert_eq!(chain.head().number, 10);
    assert_eq!(chain.head().timestamp, 1_800_000_000);
    assert_eq!(chain.block(0).unwrap().timestamp, 1_800_000_000 - 120);
    linked(&chain);
}

#[tokio::test]
async fn the_same_seed_makes_the_same_chain_and_another_seed_another() {
    let one = chain(5);
    let two = chain(5);
    one.reorg(2).unwrap();
    two.reorg(2).unwrap();
    assert_eq!(one.mine(1).hash, two.mine(1).hash);
    let other = Chain::new(1337, 8, Clock::fixed(1_800_000_000), 5, Duration::from_secs(12), None);
    assert_ne!(other.block(5).unwrap().hash, chain(5).block(5).unwrap().hash);
}

#[tokio::test]
async fn every_log_is_in_its_blocks_bloom() {
    let head = chain(3).head();
    assert!(head.logs().count() >= 2);
    for (_, _, log) in head.logs() {
        assert!(head.bloom.contains_input(BloomInput::Raw(&log.address[..])));
        assert!(log.topics.iter().all(|topic| head.bloom.contains_input(BloomInput::Raw(&topic[..]))));
    }
    assert!(!head.bloom.contains_input(BloomInput::Raw(b"nobody")));
    assert_eq!(head.logs().map(|(_, i, _)| i).collect::<Vec<_>>(), (0..head.logs().count()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reorg_replaces_blocks_and_grows_the_chain() {
    let chain = chain(10);
    let old: Vec<_> = (7..=10).rev().map(|n| chain.block(n).unwrap().hash).collect();
    let reorg = chain.reorg(4).unwrap();
    assert_eq!(reorg.removed.iter().map(|b| b.hash).collect::<Vec<_>>(), old);
    assert_eq!(reorg.added.iter().map(|b| b.number).collect::<Vec<_>>(), [7, 8, 9, 10, 11]);
    assert_eq!(reorg.added[0].parent_hash, chain.block(6).unwrap().hash);
    assert!(reorg.added.iter().all(|b| !old.contains(&b.hash)));
    linked(&chain);
    let again = chain.reorg(5).unwrap();
    assert!(again.added.iter().all(|b| reorg.added.iter().all(|a| a.hash != b.hash)));
    assert_eq!(chain.reorg(13).err(), Some(ChainError::TooDeep { depth: 13, most: 12 }));
    assert_eq!(chain.reorg_to(12, 1).unwrap().added[0].number, 1);
}

#[tokio::test]
async fn a_branch_beside_the_chain_has_other_blocks_and_keeps_pace() {
    let chain = chain(10);
    assert!(chain.snapshot().rival.is_none());
    chain.diverge(2);
    let head = chain.head();
    let snapshot = chain.snapshot();
    let rival = snapshot.rival.clone().unwrap();
    assert_eq!((head.number, rival.head().number), (10, 10));
    assert_eq!(rival.block(8).unwrap().hash, snapshot.block(8).unwrap().hash);
    assert_eq!(rival.block(9).unwrap().parent_hash, snapshot.block(8).unwrap().hash);
    chain.submit(vec![1]).unwrap();
    chain.mine(2);
    chain.reorg(1).unwrap();
    let snapshot = chain.snapshot();
    let rival = snapshot.rival.clone().unwrap();
    assert_eq!(rival.head().number, snapshot.head().number);
    for number in 9..=snapshot.head().number {
        let (ours, theirs) = (snapshot.block(number).unwrap(), rival.block(number).unwrap());
        assert_ne!(ours.hash, theirs.hash);
        assert_eq!(theirs.parent_hash, rival.block(number - 1).unwrap().hash);
        assert!(theirs.transactions.iter().all(|mined| !mined.transaction.submitted));
    }
    // A second reorganisation.
    let old = rival.head().hash;
    chain.diverge(100);
    assert_ne!(chain.snapshot().rival.as_ref().unwrap().head().hash, old);
}

#[tokio::test]
async fn a_submitted_transaction_survives_a_reorg_and_filler_does_not() {
    let chain = chain(2);
    let hash = chain.submit(vec![1, 2, 3]).unwrap();
    assert_eq!(hash, keccak256([1, 2, 3]));
    assert_eq!(chain.submit(vec![1, 2, 3]), Err(ChainError::AlreadyKnown));
    let filler = chain.mine(1).transactions[0].transaction.hash;
    assert_eq!(chain.submit(vec![1, 2, 3]), Err(ChainError::AlreadyKnown));
    let added = chain.reorg(1).unwrap().added;
    let again: Vec<_> = added.iter().flat_map(|b| &b.transactions).map(|m| m.transaction.hash).collect();
    assert_eq!(again.iter().filter(|h| **h == hash).count(), 1);
    assert!(!again.contains(&filler));
    assert!(chain.mempool().is_empty());
}

#[tokio::test]
async fn a_transaction_that_is_reorganised_out_waits_to_be_sent() {
    let chain = chain(2);
    let (lost, other) = (chain.submit(vec![1, 2, 3]).unwrap(), chain.submit(vec![4, 5, 6]).unwrap());
    chain.mine(3);
    let reorg = chain.reorg_out(lost).unwrap();
    assert_eq!((reorg.removed.len(), reorg.added.len(), chain.head().number), (3, 4, 6));
    linked(&chain);
    let mined = |hash| chain.snapshot().blocks.iter().flat_map(|b| &b.transactions).any(|m| m.transaction.hash == hash);
    assert!(!mined(lost) && mined(other) && chain.mempool().is_empty());
    assert_eq!(chain.reorg_out(lost).err(), Some(ChainError::NotInChain));
    assert_eq!(chain.submit(vec![1, 2, 3]), Ok(lost));
    chain.mine(1);
    assert!(mined(lost));
    assert_eq!(chain.submit(vec![1, 2, 3]), Err(ChainError::AlreadyKnown));
}

#[tokio::test]
async fn old_blocks_are_pruned_with_their_transactions() {
    let chain = chain(1);
    let old = chain.block(1).unwrap();
    let mut view = View::new(chain.snapshot(), 0);
    chain.mine(KEPT_BLOCKS as u64 + 10);
    let change = view.advance(View::new(chain.snapshot(), 0));
    assert_eq!((change.removed.len(), change.added.len()), (0, KEPT_BLOCKS), "what is pruned cannot be told");
    assert!(chain.block(1).is_none());
    assert!(chain.block_by_hash(chain.block(0).unwrap().hash).is_some());
    assert!(chain.block_by_hash(old.hash).is_none());
    assert!(chain.places(old.transactions[0].transaction.hash).is_empty());
    assert_eq!(chain.snapshot().blocks.len(), KEPT_BLOCKS);
    assert_eq!(chain.state().by_hash.len(), KEPT_BLOCKS + 1);
}

/// A chain of ten blocks whose slot 11 begins in twelve seconds, with slots of twelve seconds; and
/// a function that waits until some seconds into a slot.
fn beating(chain: &Arc<Chain>) -> (JoinSet<()>, impl AsyncFn(u64, u64)) {
    let (start, slot) = (Instant::now(), Duration::from_secs(12));
    let mut task = JoinSet::new();
    task.spawn(beat(chain.clone(), start + slot, slot));
    (task, async move |number: u64, seconds: u64| {
        sleep_until(start + slot * u32::try_from(number - 10).unwrap() + Duration::from_secs(seconds)).await;
    })
}

#[tokio::test(start_paused = true)]
async fn the_next_slot_begins_by_the_wall_clock() {
    let (start, half) = (Instant::now(), Duration::from_millis(500));
    // Slot 10 began with the clock's second.
    let chain = Chain::new(1337, 7, Clock::fixed(1_800_000_000), 10, half, None);
    for (millis, expected) in [(0, 500), (200, 500), (700, 500), (1700, 500)] {
        sleep_until(start + Duration::from_millis(millis)).await;
        assert_eq!(chain.next_slot(half), start + Duration::from_millis(expected), "after {millis} ms");
        let whole = chain.next_slot(Duration::from_secs(2));
        assert_eq!(whole, start + Duration::from_secs(2 + millis / 1000), "after {millis} ms");
    }
    // The slot that has begun has its block at once, and the next ones are in time.
    let mut task = JoinSet::new();
    task.spawn(beat(chain.clone(), chain.next_slot(half), half));
    sleep_until(start + Duration::from_millis(2100)).await;
    assert_eq!(chain.head().slot, 14);
}

fn place(chain: &Chain) -> (u64, u64) {
    let head = chain.head();
    (head.number, head.slot)
}

#[tokio::test(start_paused = true)]
async fn a_slot_may_be_empty_and_a_late_block_left_out() {
    let chain = chain(10);
    chain.arrange(11, Turn::Empty);
    chain.arrange(12, Turn::Block(Duration::from_secs(7)));
    chain.arrange(13, Turn::Against(Duration::from_secs(1)));
    chain.arrange(14, Turn::Against(Duration::from_secs(1)));
    let (_task, at) = beating(&chain);
    at(12, 6).await;
    assert_eq!(place(&chain), (10, 10));
    at(12, 8).await;
    assert_eq!(place(&chain), (11, 12));
    let late = chain.head();
    at(13, 2).await;
    assert_eq!(place(&chain), (11, 13), "in the late one's place");
    assert_eq!(chain.head().parent_hash, chain.block(10).unwrap().hash);
    assert!(chain.block_by_hash(late.hash).is_some());
    at(14, 2).await;
    assert_eq!(place(&chain), (12, 14), "one that was in time stays");
    let slots = [10, 11, 12, 13, 14, 99].map(|slot| chain.as_of(slot).slot);
    assert_eq!(slots, [10, 10, 10, 13, 14, 14]);
    linked(&chain);
}

#[tokio::test(start_paused = true)]
async fn a_clients_block_is_the_slots_block_unless_on_an_old_one() {
    let chain = chain(10);
    let paid = Address::repeat_byte(7);
    let propose = |slot: u64, parent: &Block| chain.propose(Proposal { slot, parent: parent.root, paid });
    chain.leave_to_client(&[11, 13, 14, 15]);
    let (_task, at) = beating(&chain);
    at(11, 1).await;
    assert_eq!(place(&chain), (10, 10), "nobody makes it for the client");
    let tenth = chain.head();
    propose(11, &tenth);
    propose(11, &tenth);
    assert_eq!((place(&chain), chain.head().paid), ((11, 11), Some(paid)));
    let eleventh = chain.head();
    propose(12, &eleventh);
    assert_eq!(place(&chain), (11, 11), "that slot is nobody's");
    at(13, 1).await;
    assert_eq!((place(&chain), chain.head().paid), ((12, 12), None));
    let twelfth = chain.head();
    propose(13, &eleventh);
    assert_eq!((chain.head().hash, chain.was_proposed(13)), (twelfth.hash, true), "it is nobody's head");
    at(14, 9).await;
    propose(14, &twelfth);
    assert_eq!(place(&chain), (13, 14), "it came late");
    at(15, 1).await;
    assert!(!chain.was_proposed(15));
    propose(15, &twelfth);
    assert_eq!(place(&chain), (13, 15), "so the next goes past it");
    linked(&chain);
}
