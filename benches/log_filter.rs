//! The filters of log subscribers: read from params, held against a block's bloom filter and its
//! logs.
//!
//! The filter is no part of the crate's interface; `view::Fixture` leads to it.

use alloy_primitives::B256;
use divan::{Bencher, black_box, counter::ItemsCount};
use steadfast::view::Fixture;

/// Logs in a block, about as many as the main network has.
const LOGS: usize = 400;

/// `Transfer(address,address,uint256)`.
const TRANSFER: &str = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

fn main() {
    divan::main();
}

fn word(n: usize) -> String {
    format!("0x{:064x}", (n as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834))
}

fn account(n: usize) -> String {
    format!("0x{}", &word(n)[26..])
}

/// Transfers of 60 tokens between accounts.
fn logs(block: B256) -> Vec<String> {
    let log = |n: usize| {
        format!(
            concat!(
                r#"{{"address":"{}","topics":["{TRANSFER}","{}","{}"],"data":"{}","blockNumber":"0x12f2a4b","#,
                r#""transactionHash":"{}","transactionIndex":"0x{:x}","blockHash":"{block}","logIndex":"0x{:x}","#,
                r#""removed":false}}"#,
            ),
            account(n % 60),
            word(n),
            word(n + 1),
            word(n + 2),
            word(n + 3),
            n / 3,
            n,
            block = block,
            TRANSFER = TRANSFER,
        )
    };
    (0..LOGS).map(log).collect()
}

/// A token's transfers; a wallet's incoming transfers; an indexer's list of 100 contracts.
fn params(kind: &str) -> String {
    match kind {
        "token" => format!(r#"{{"address":"{}","topics":["{TRANSFER}"]}}"#, account(7)),
        "wallet" => format!(r#"{{"topics":["{TRANSFER}",null,"{}"]}}"#, word(101)),
        _ => {
            let list: Vec<String> = (30..130).map(|n| format!("\"{}\"", account(n))).collect();
            format!(r#"{{"address":[{}]}}"#, list.join(","))
        }
    }
}

fn fixture(kind: &str) -> Fixture {
    let block = B256::repeat_byte(9);
    Fixture::new(&params(kind), &logs(block), block).expect("a filter and logs")
}

/// Every log of a block held against one filter.
#[divan::bench(args = ["token", "wallet", "indexer"])]
fn matches(bencher: Bencher, kind: &str) {
    let fixture = fixture(kind);
    assert!(fixture.wanted() > 0, "a filter that nothing matches measures little");
    bencher.counter(ItemsCount::new(LOGS)).bench(|| black_box(&fixture).wanted());
}

/// The block's bloom filter, which spares the rest where it rules the filter out.
#[divan::bench(args = ["token", "wallet", "indexer"])]
fn may_match(bencher: Bencher, kind: &str) {
    let fixture = fixture(kind);
    bencher.bench(|| black_box(&fixture).may_match());
}

/// The params of a subscription.
#[divan::bench(args = ["token", "wallet", "indexer"])]
fn read(bencher: Bencher, kind: &str) {
    let params = params(kind);
    bencher.bench(|| Fixture::reads(black_box(&params)));
}
