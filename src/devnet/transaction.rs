//! Pretend transactions and their logs.
//!
//! Raw transactions are opaque: any two bytes or more are taken, the hash is keccak of the bytes as
//! on a real chain, and sender and receiver are derived from that hash.

use alloy_primitives::{Address, B256};
use serde_json::{Value, json};

use super::{
    block::{BASE_FEE, Block},
    hash,
    hex::{self, quantity},
};

/// A transaction, mined or waiting.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Keccak of the raw bytes, or drawn, for the chain's own.
    pub hash: B256,
    /// Sender.
    pub from: Address,
    /// Receiver.
    pub to: Address,
    /// Sender's counter.
    pub nonce: u64,
    /// Wei.
    pub value: u64,
    /// Call data; for raw transactions the submitted bytes themselves.
    pub input: Vec<u8>,
    /// Whether a client submitted the transaction. After a reorganisation a submitted transaction
    /// returns to the mempool; the chain's own filler goes with its block.
    pub submitted: bool,
    pub(super) chain_id: u64,
}

/// A transaction in a block, with its effects.
#[derive(Clone, Debug)]
pub struct Mined {
    /// The transaction.
    pub transaction: std::sync::Arc<Transaction>,
    /// Its logs, in order.
    pub logs: Vec<Log>,
    /// Index in the block of its first log.
    pub(super) first_log: usize,
    pub(super) gas: u64,
    pub(super) cumulative_gas: u64,
}

/// A log of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The contract.
    pub address: Address,
    /// Up to four topics; the first is the event's signature.
    pub topics: Vec<B256>,
    /// The arguments that are not indexed.
    pub data: Vec<u8>,
}

impl Transaction {
    /// JSON as `eth_getTransactionByHash` answers it; `place` is the block and the index there,
    /// none while the transaction waits.
    pub(super) fn json(&self, place: Option<(&Block, usize)>) -> Value {
        let half = |of: &str| {
            let mut half = hash::derived(of, &self.hash.0);
            // Libraries refuse an `s` in the upper half of the curve's order.
            half.0[0] &= 0x7f;
            short(half)
        };
        json!({
            "hash": self.hash.to_string(),
            "type": "0x2",
            "chainId": quantity(self.chain_id),
            "from": hex::encode(self.from),
            "to": hex::encode(self.to),
            "nonce": quantity(self.nonce),
            "value": quantity(self.value),
            "input": hex::encode(&self.input),
            "gas": "0x186a0",
            "gasPrice": quantity(BASE_FEE),
            "maxFeePerGas": quantity(BASE_FEE * 2),
            "maxPriorityFeePerGas": "0x0",
            "accessList": [],
            "v": "0x1",
            "yParity": "0x1",
            "r": half("r"),
            "s": half("s"),
            "blockHash": place.map(|(block, _)| block.hash.to_string()),
            "blockNumber": place.map(|(block, _)| quantity(block.number)),
            "blockTimestamp": place.map(|(block, _)| quantity(block.timestamp)),
            "transactionIndex": place.map(|(_, index)| format!("0x{index:x}")),
        })
    }
}

/// The hash as a number: without leading zeros.
fn short(hash: B256) -> String {
    let text = hash.to_string();
    format!("0x{}", text.trim_start_matches("0x").trim_start_matches('0'))
}
