//! The memory of pending transactions.

use alloy_primitives::{Address, B256, U256};

use super::{super::*, bench::*};
use crate::outbox::weighing::bytes_of_each;

const COUNT: usize = 20_000;

/// A desk with transactions of as many senders, each of which two nodes refuse.
fn refused() -> Desk {
    let bounds = Bounds { pending: 20 * COUNT, tenant_pending: 20 * COUNT, ..terms().bounds };
    let terms = Terms { bounds, in_flight: 1_000_000, ..terms() };
    let mut desk = Desk::new(terms, Arc::new(WantsAll), Stored::default(), Millis(0));
    let nodes: [Arc<str>; 2] = ["el-1".into(), "el-2".into()];
    for number in 1..=COUNT {
        let hash = B256::from(U256::from(number) << 200);
        let now = Millis(number as u64);
        let accept = Accept {
            waiter: number as u64,
            tenant: "default".parse().unwrap(),
            raw: vec![1; 110].into(),
            tx: transaction(hash, Address::from_slice(&hash[..20]), 0),
            request_id: Some(format!("{hash}")[..36].to_owned()),
            traceparent: None,
            known: None,
            is_other_form: false,
        };
        let turn = desk.input(now, Input::Accept(Box::new(accept)));
        let Some(Effect::Send { id, send, .. }) = turn.effects.last() else { panic!("{turn:?}") };
        for node in &nodes {
            let why = words("transaction underpriced: tip needed 1000000000, tip permitted 1");
            let word = Word::RefusedNow(why);
            _ = desk.input(now, Input::Heard { id: id.clone(), send: *send, node: node.clone(), word });
        }
        _ = desk.input(now, Input::SendDone { id: id.clone(), send: *send, is_whole: true });
    }
    assert_eq!(desk.total().live, COUNT);
    desk
}

#[cfg(target_os = "linux")]
#[test]
fn a_pending_transaction_takes_little_memory() {
    let test = "outbox::desk::tests::memory::a_pending_transaction_takes_little_memory";
    let bytes = bytes_of_each(test, COUNT, refused);
    println!("{bytes} bytes, of which the entry is {}", size_of::<entry::Entry>());
    assert!(bytes <= ENTRY_BYTES, "{bytes}");
}
