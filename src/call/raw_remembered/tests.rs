//! What is kept, for whom, and for how long.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::memory::Budget;

const A: NodeId = NodeId(0);
const B: NodeId = NodeId(1);

fn transaction(number: u32, length: usize) -> Transaction {
    let mut hash = B256::ZERO;
    hash[..4].copy_from_slice(&number.to_be_bytes());
    Transaction { hash, raw: vec![0; length].into() }
}

fn number(due: &Due) -> u32 {
    u32::from_be_bytes(due.transaction.hash[..4].try_into().unwrap())
}

fn client(host: u8, budget: &Arc<Budget>) -> Arc<Account> {
    Account::of(budget, Some(Peer::Ip(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)))))
}

/// Keeps transactions with these numbers, which node A took for a client.
fn keep(remembered: &Remembered, numbers: impl IntoIterator<Item = u32>) {
    let account = Account::unlimited();
    numbers.into_iter().for_each(|number| remembered.keep(transaction(number, 10), (Some(A), &[]), None, &account));
}

/// The numbers of all transactions that are due for the node, which takes each.
fn told(remembered: &Remembered, node: NodeId) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(due) = remembered.next(node) {
        due.sends.heard(node, &SendOutcome::Took);
        numbers.push(number(&due));
    }
    numbers
}

#[tokio::test(start_paused = true)]
async fn transactions_are_due_in_order_once_for_each_life() {
    let remembered = Remembered::new(2);
    keep(&remembered, [3, 1, 2, 1]);
    assert_eq!((told(&remembered, A), told(&remembered, B)), (vec![], vec![3, 1, 2]));
    keep(&remembered, [5]);
    assert_eq!(told(&remembered, B), [5]);
    remembered.try_again(B);
    assert!(!remembered.has_due(B), "a return without an outage brings no second sending");
    remembered.begins_anew(A);
    assert_eq!((told(&remembered, A), told(&remembered, B)), (vec![3, 1, 2, 5], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_lost_send_is_due_again_when_the_node_returns() {
    let remembered = Remembered::new(2);
    keep(&remembered, [1, 2]);
    let due = remembered.next(B).unwrap();
    due.sends.heard(B, &SendOutcome::Lost);
    assert_eq!(told(&remembered, B), [2]);
    remembered.try_again(B);
    assert_eq!(told(&remembered, B), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_tried_in_vain_is_not_due_at_once() {
    let remembered = Remembered::new(3);
    remembered.keep(transaction(1, 10), (Some(A), &[B]), None, &Account::unlimited());
    assert_eq!((told(&remembered, B), told(&remembered, NodeId(2))), (vec![], vec![1]));
    remembered.try_again(B);
    assert_eq!(told(&remembered, B), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_busy_node_is_sent_the_same_transaction_next() {
    let remembered = Remembered::new(2);
    keep(&remembered, [1, 2]);
    let due = remembered.next(B).unwrap();
    remembered.put_back(B, &due);
    assert_eq!(told(&remembered, B), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_a_nodes_say_and_other_nodes_are_asked() {
    let remembered = Remembered::new(3);
    keep(&remembered, [1]);
    let refused = SendOutcome::Refused { code: -32000, message: "nonce too low".to_owned(), for_good: false };
    remembered.next(B).unwrap().sends.heard(B, &refused);
    remembered.try_again(B);
    assert_eq!((told(&remembered, B), told(&remembered, NodeId(2))), (vec![], vec![1]));
}

#[tokio::test(start_paused = true)]
async fn transactions_are_forgotten_after_their_time() {
    let remembered = Remembered::new(2);
    keep(&remembered, [1]);
    tokio::time::advance(KEPT_FOR / 2).await;
    keep(&remembered, [2]);
    tokio::time::advance(KEPT_FOR / 2 + Duration::from_secs(1)).await;
    assert_eq!(told(&remembered, B), [2]);
    tokio::time::advance(KEPT_FOR).await;
    assert_eq!(remembered.tidy(), Some((0, 0)));
    keep(&remembered, [1]);
    assert_eq!(told(&remembered, B), [1], "a forgotten transaction is new");
}

#[tokio::test(start_paused = true)]
async fn the_client_with_the_most_makes_room_for_others() {
    for length in [10, MAX_BYTES / MAX_TRANSACTIONS * 2] {
        let remembered = Remembered::new(2);
        let budget = Budget::new(usize::MAX);
        let (greedy, modest) = (client(1, &budget), client(2, &budget));
        remembered.keep(transaction(u32::MAX, length), (Some(A), &[]), None, &modest);
        for number in 0..MAX_TRANSACTIONS as u32 * 2 {
            remembered.keep(transaction(number, length), (Some(A), &[]), None, &greedy);
        }
        let (count, bytes) = remembered.tidy().unwrap();
        assert!(count <= MAX_TRANSACTIONS && bytes <= MAX_BYTES && count > MAX_TRANSACTIONS / 4, "{count} {bytes}");
        let told = told(&remembered, B);
        assert_eq!((told.len(), told[0], told[count - 1]), (count, u32::MAX, MAX_TRANSACTIONS as u32 * 2 - 1));
        assert!(told[1..].is_sorted());
    }
}

#[tokio::test(start_paused = true)]
async fn transactions_count_for_the_clients_memory() {
    let budget = Budget::new(1 << 20);
    let remembered = Remembered::new(2);
    for number in 0..100 {
        remembered.keep(transaction(number, 64 << 10), (Some(A), &[]), None, &client(1, &budget));
    }
    let (count, bytes) = remembered.tidy().unwrap();
    assert!(count > 1 && bytes < 1 << 20, "{count} {bytes}");
    assert!(budget.held() >= bytes - 32 * 1024, "{} of {bytes} are counted", budget.held());
    drop(remembered);
    assert_eq!(budget.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_transactions_and_the_words_of_nodes() {
    let earlier = Remembered::new(2);
    keep(&earlier, [1, 2, 3]);
    earlier.next(B).unwrap().sends.heard(B, &SendOutcome::Took);
    let under_way = earlier.next(B).unwrap();
    let later = Remembered::new(3);
    keep(&later, [4]);
    // Node B is the first now, and A the last; the one between is new.
    later.take_over(&earlier, &[Some(B), None, Some(A)]);
    under_way.sends.heard(B, &SendOutcome::Took);
    assert_eq!(told(&later, NodeId(0)), [2, 3], "4 was kept as the first node's");
    assert_eq!(told(&later, NodeId(1)), [1, 2, 3, 4]);
    assert_eq!(told(&later, NodeId(2)), [4]);
    assert_eq!((earlier.tidy(), later.tidy().map(|(count, _)| count)), (None, Some(4)));
}
