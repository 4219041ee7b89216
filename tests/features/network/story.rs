//! The history that every anvil lives through: which blocks there are, and what is in each.
//!
//! All that decides a block's hash is said outright: time, base fee, nonces, fees. So a node that
//! lives through the history later, or again, holds exactly the same blocks.

use serde_json::{Value, json};

use super::Fact;

/// Block 0's time.
pub const GENESIS: u64 = 1_700_000_000;
const SLOT: u64 = 12;
/// Wei. Anvil's own reckoning of the next base fee does not survive a rollback.
const BASE_FEE: u64 = 1_000_000_000;
/// The account that sends a transaction to each contract in each block.
const AUTHOR: &str = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266";
/// The account of clients' transactions.
const CLIENT: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";
/// Makes a contract of eight bytes that writes a log, without data, whenever it is called.
const INIT: &str = "0x67600160006000a10060005260086018f3";
/// The contracts that the author's first two transactions make.
pub const CONTRACTS: [&str; 2] =
    ["0x5fbdb2315678afecb367f032d93f642f64180aa3", "0xe7f1725e7734ce288f8367e1bb143e90bb3f0512"];

/// One block, as a node is told to make it.
#[derive(Clone)]
pub struct Block {
    timestamp: u64,
    /// Clients' transactions, as they were signed.
    pub raw: Vec<String>,
    /// What the first node that lived through it made of it.
    pub fact: Option<Fact>,
}

#[derive(Default)]
pub struct Story {
    /// Block 1 first.
    pub blocks: Vec<Block>,
    /// How often the chain was reorganised.
    branch: u64,
    /// Clients' transactions that are in no block.
    pub sent: Vec<String>,
    signed: u64,
}

impl Story {
    pub fn height(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// Adds a block with these transactions of clients.
    pub fn add(&mut self, raw: Vec<String>) {
        self.sent.retain(|sent| !raw.contains(sent));
        // Other blocks of the same height are later ones.
        let timestamp = GENESIS + SLOT * (self.height() + 1) + self.branch;
        self.blocks.push(Block { timestamp, raw, fact: None });
    }

    /// Takes the last blocks back. Clients' transactions wait again.
    pub fn cut(&mut self, depth: u64) {
        let keep = self.height().checked_sub(depth).filter(|keep| *keep > 0).expect("the chain is that long");
        self.branch += 1;
        assert!(self.branch < SLOT, "that many reorganisations need longer slots");
        let gone = self.blocks.split_off(usize::try_from(keep).unwrap());
        self.sent.extend(gone.into_iter().flat_map(|block| block.raw));
    }

    /// What a client of a node has signed next.
    pub fn wish(&mut self) -> Value {
        let nonce = self.signed;
        self.signed += 1;
        // Dearer than the author's, and each cheaper than the one before: their order is the same
        // everywhere.
        json!({
            "from": CLIENT, "to": CLIENT, "value": "0x1", "nonce": format!("{nonce:#x}"), "gas": "0x5208",
            "maxFeePerGas": "0xee6b2800", "maxPriorityFeePerGas": format!("{:#x}", BASE_FEE + 1_000 - nonce),
        })
    }
}

impl Block {
    /// The calls by which a node makes this block. A node may know the raw transactions already.
    pub fn calls(&self, number: u64) -> Vec<(&'static str, Value)> {
        let mut calls = vec![
            ("evm_setNextBlockTimestamp", json!([self.timestamp])),
            ("anvil_setNextBlockBaseFeePerGas", json!([format!("{BASE_FEE:#x}")])),
        ];
        calls.extend(self.raw.iter().map(|raw| ("eth_sendRawTransaction", json!([raw]))));
        for (place, contract) in (0..).zip(CONTRACTS) {
            let mut transaction = json!({
                "from": AUTHOR, "nonce": format!("{:#x}", 2 * (number - 1) + place), "gas": "0x30d40",
                "maxFeePerGas": "0x77359400", "maxPriorityFeePerGas": "0x3b9aca00",
            });
            match number {
                1 => transaction["data"] = INIT.into(),
                _ => transaction["to"] = contract.into(),
            }
            calls.push(("eth_sendTransaction", json!([transaction])));
        }
        calls.push(("evm_mine", json!([])));
        calls
    }
}
