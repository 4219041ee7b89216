//! Pretend transactions and their logs.
//!
//! Raw transactions are opaque: any bytes are taken, the hash is keccak of the bytes as on a real
//! chain, and sender and receiver are derived from that hash.

use serde_json::{Value, json};

use super::{
    block::BASE_FEE,
    hash::{Address, Hash},
    hex::{self, quantity},
};

/// A transaction, mined or waiting.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Keccak of the raw bytes, or drawn, for the chain's own.
    pub hash: Hash,
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
    pub topics: Vec<Hash>,
    /// The arguments that are not indexed.
    pub data: Vec<u8>,
}

impl Transaction {
    /// JSON as `eth_getTransactionByHash` answers it; `place` is (block hash, block number, index),
    /// none while the transaction waits.
    pub(super) fn json(&self, place: Option<(Hash, u64, usize)>) -> Value {
        json!({
            "hash": self.hash.to_string(),
            "type": "0x2",
            "chainId": quantity(self.chain_id),
            "from": self.from.to_string(),
            "to": self.to.to_string(),
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
            "r": Hash::derived("r", &self.hash.0).to_string(),
            "s": Hash::derived("s", &self.hash.0).to_string(),
            "blockHash": place.map(|(hash, ..)| hash.to_string()),
            "blockNumber": place.map(|(_, number, _)| quantity(number)),
            "transactionIndex": place.map(|(.., index)| format!("0x{index:x}")),
        })
    }
}
