//! The JSON scanner on the texts of a call: the request, a batch, an answer, and an answer in
//! pieces.
//!
//! `serde_json::Value` stands beside each as a measure of what a tree costs.

use divan::{Bencher, black_box, counter::BytesCount};
use steadfast::domain::{
    answer,
    json::{Scanner, Walk},
    rpc,
};

/// An `eth_call` as ethers sends one: `balanceOf` of USDC.
const CALL: &str = concat!(
    r#"{"jsonrpc":"2.0","id":42,"method":"eth_call","params":[{"to":"0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48","#,
    r#""data":"0x70a08231000000000000000000000000f977814e90da44bfa03b6295a0616a897441acec"},"latest"]}"#,
);

/// The answer to [`CALL`] as geth writes one.
const WORD: &str =
    r#"{"jsonrpc":"2.0","id":42,"result":"0x00000000000000000000000000000000000000000000000000038d7ea4c68000"}"#;

/// The largest answer that is held back before a client sees a byte.
const HELD_BACK: usize = 256 * 1024;

fn main() {
    divan::main();
}

/// Sixteen calls, as many as run at once.
fn batch() -> String {
    format!("[{}]", [CALL; 16].join(","))
}

/// A block of the main network without its transactions: a header with a bloom filter, and hashes.
fn block() -> String {
    let word = |n: usize| format!("\"0x{:064x}\"", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let hashes: Vec<String> = (0..180).map(word).collect();
    format!(
        concat!(
            r#"{{"jsonrpc":"2.0","id":42,"result":{{"baseFeePerGas":"0x2f1c8e6a","difficulty":"0x0","#,
            r#""extraData":"0x6265617665726275696c642e6f7267","gasLimit":"0x1c9c380","gasUsed":"0xd5a1f3","#,
            r#""hash":{hash},"logsBloom":"0x{bloom}","miner":"0x95222290dd7278aa3ddd389cc1e1d165cc4bafe5","#,
            r#""number":"0x12f2a4b","parentHash":{hash},"receiptsRoot":{hash},"stateRoot":{hash},"#,
            r#""timestamp":"0x661c2b7f","transactions":[{hashes}],"transactionsRoot":{hash},"uncles":[]}}}}"#,
        ),
        hash = word(7),
        bloom = "21a4".repeat(128),
        hashes = hashes.join(","),
    )
}

/// A long `eth_getLogs` answer: many short strings, few of them with escapes.
fn logs() -> String {
    let log = concat!(
        r#"{"address":"0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48","#,
        r#""topics":["0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"],"#,
        r#""data":"0x000000000000000000000000000000000000000000000000000000000754d4c0","#,
        r#""blockNumber":"0x12f2a4b","logIndex":"0x1f","removed":false}"#,
    );
    format!(r#"{{"jsonrpc":"2.0","id":42,"result":[{}]}}"#, vec![log; HELD_BACK / log.len()].join(","))
}

/// Method, id and params of one call.
#[divan::bench]
fn peek_call(bencher: Bencher) {
    bencher.counter(BytesCount::of_str(CALL)).bench(|| rpc::peek(black_box(CALL.as_bytes()), 100).is_ok());
}

/// The same of a batch.
#[divan::bench]
fn peek_batch(bencher: Bencher) {
    let batch = batch();
    bencher.counter(BytesCount::of_str(&batch)).bench(|| rpc::peek(black_box(batch.as_bytes()), 100).is_ok());
}

/// The beginning of an answer: its id, and whether it is an error.
#[divan::bench]
fn peek_answer(bencher: Bencher) {
    bencher.counter(BytesCount::of_str(WORD)).bench(|| answer::peek(black_box(WORD.as_bytes())));
}

/// Whether a text is JSON from its first byte to its last.
#[divan::bench(args = ["call", "block", "logs"])]
fn scan(bencher: Bencher, text: &str) {
    let text = of(text);
    bencher
        .counter(BytesCount::of_str(&text))
        .bench(|| Scanner::of_answer(black_box(text.as_bytes())).value().is_ok_and(|value| value.len() == text.len()));
}

/// The same in pieces of 16 KiB, as an answer comes that is passed on.
#[divan::bench(args = ["block", "logs"])]
fn walk_in_pieces(bencher: Bencher, text: &str) {
    let text = of(text);
    bencher.counter(BytesCount::of_str(&text)).bench(|| {
        let mut walk = Walk::default();
        text.as_bytes().chunks(16 * 1024).all(|piece| walk.pass(black_box(piece))) && walk.is_whole()
    });
}

/// The measure: a tree of the same text.
#[divan::bench(args = ["call", "block", "logs"])]
fn tree(bencher: Bencher, text: &str) {
    let text = of(text);
    bencher
        .counter(BytesCount::of_str(&text))
        .bench(|| serde_json::from_str::<serde_json::Value>(black_box(&text)).is_ok());
}

fn of(name: &str) -> String {
    match name {
        "call" => CALL.to_owned(),
        "block" => block(),
        _ => logs(),
    }
}
