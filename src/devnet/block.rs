//! A block of the pretend chain: header, transactions and logs, and how each is written as JSON.
//!
//! The hash is keccak over the header's RLP, as nodes compute it, so forks differ and a child names
//! its parent truly. The roots of state, transactions and receipts are pretend: plain hashes, not
//! roots of tries.

use std::sync::{Arc, OnceLock};

use alloy_primitives::{Address, B64, B256, Bloom, BloomInput, keccak256};
use alloy_rlp::{Encodable, encode_list};
use serde_json::{Map, Value, json};

use super::{
    author::Sent,
    cl::VALIDATORS,
    hash,
    hex::{self, quantity},
    transaction::{Log, Mined},
};

const EMPTY_UNCLES: &str = "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347";
const EMPTY_TRIE: &str = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421";
/// Gwei of each withdrawal.
pub(super) const WITHDRAWN: u64 = 12_345;
const EMPTY_REQUESTS: &str = "0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const GAS_LIMIT: u64 = 30_000_000;
/// Blobs of a block, if the block has any.
const BLOBS: u64 = 3;
/// Electra's limit.
const MOST_BLOBS: u64 = 9;
const GAS_PER_BLOB: u64 = 1 << 17;
/// Also the pretend gas price of every transaction.
pub(super) const BASE_FEE: u64 = 1_000_000_000;
const EXTRA: &[u8] = b"steadfast devnet";

/// A block; immutable.
pub struct Block {
    /// Height; the genesis block is 0.
    pub number: u64,
    /// The slot of the consensus block that carries this one: as high as the height, or higher by
    /// the slots that are empty.
    pub slot: u64,
    /// Keccak of the header.
    pub hash: B256,
    /// Hash of the block before this one.
    pub parent_hash: B256,
    /// Unix seconds; never less than the parent's.
    pub timestamp: u64,
    /// Addresses and topics of all its logs.
    pub bloom: Bloom,
    /// The block's transactions with their effects, in order.
    pub transactions: Vec<Mined>,
    /// How many blocks had been made on all branches, this one included: a view knows only blocks
    /// up to its own count.
    pub(super) made: u64,
    /// Root of the consensus block that carries this one.
    pub(super) root: B256,
    /// The fee recipient that a validator client named; none: no client proposed the block.
    pub(super) paid: Option<Address>,
    /// Transactions of the chain's accounts up to this block: their next nonces.
    pub(super) sent: Sent,
    miner: Address,
    state_root: B256,
    gas_used: u64,
    texts: Texts,
}

/// A payment to a validator's account.
pub(super) struct Withdrawal {
    pub(super) index: u64,
    pub(super) validator: u64,
    pub(super) address: Address,
}

/// When a block is made, and for which fee recipient.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Origin {
    pub(super) slot: u64,
    /// Unix seconds.
    pub(super) timestamp: u64,
    /// How many blocks had been made on all branches, this one included.
    pub(super) made: u64,
    pub(super) paid: Option<Address>,
    pub(super) sent: Sent,
}

/// JSON that many clients ask for, written once.
#[derive(Default)]
struct Texts {
    head: OnceLock<Arc<str>>,
    hashes: OnceLock<Arc<str>>,
    full: OnceLock<Arc<str>>,
}

impl Block {
    /// Seals a block on `parent` (none for genesis).
    pub(super) fn seal(parent: Option<&Block>, salt: B256, origin: Origin, transactions: Vec<Mined>) -> Block {
        let Origin { slot, timestamp, made, paid, sent } = origin;
        let mut bloom = Bloom::ZERO;
        for log in transactions.iter().flat_map(|mined| &mined.logs) {
            bloom.accrue(BloomInput::Raw(&log.address[..]));
            log.topics.iter().for_each(|topic| bloom.accrue(BloomInput::Raw(&topic[..])));
        }
        let parent_hash = parent.map_or(B256::ZERO, |p| p.hash);
        let mut block = Block {
            number: parent.map_or(0, |p| p.number + 1),
            slot,
            hash: B256::ZERO,
            parent_hash,
            timestamp,
            bloom,
            gas_used: transactions.last().map_or(0, |mined| mined.cumulative_gas),
            transactions,
            made,
            root: B256::ZERO,
            paid,
            sent,
            miner: paid.unwrap_or_else(|| Address::from_word(hash::derived("miner", &salt.0))),
            state_root: hash::derived("state", &[parent_hash.0, salt.0].concat()),
            texts: Texts::default(),
        };
        block.hash = keccak256(block.header_rlp());
        block.root = beacon_root(block.hash);
        block
    }

    /// Every log of the block with its transaction, in order. The first number is the transaction's
    /// index, the second the log's in the block.
    pub fn logs(&self) -> impl DoubleEndedIterator<Item = (usize, usize, &Log)> {
        self.transactions
            .iter()
            .enumerate()
            .flat_map(|(tx, mined)| mined.logs.iter().enumerate().map(move |(i, log)| (tx, mined.first_log + i, log)))
    }

    /// How many blobs the consensus block commits to: those of even slots have some.
    pub(super) fn blobs(&self) -> u64 {
        if self.slot > 0 && self.slot.is_multiple_of(2) { BLOBS } else { 0 }
    }

    fn blob_gas_used(&self) -> u64 {
        self.blobs() * GAS_PER_BLOB
    }

    /// The parts of its limits of gas and of blob gas that the block uses.
    pub(super) fn used(&self) -> (f64, f64) {
        (self.gas_used as f64 / GAS_LIMIT as f64, self.blobs() as f64 / MOST_BLOBS as f64)
    }

    /// The header as `newHeads` pushes it.
    pub(super) fn head_json(&self) -> Arc<str> {
        self.texts.head.get_or_init(|| Value::Object(self.header()).to_string().into()).clone()
    }

    /// The block as `eth_getBlockBy…` answers it.
    pub(super) fn json(&self, full: bool) -> Arc<str> {
        let cell = if full { &self.texts.full } else { &self.texts.hashes };
        cell.get_or_init(|| Value::Object(self.body(full)).to_string().into()).clone()
    }

    /// A log of this block as nodes write it.
    pub(super) fn log_json(&self, (tx, index, log): (usize, usize, &Log), removed: bool) -> Value {
        json!({
            "address": hex::encode(log.address),
            "topics": log.topics.iter().map(B256::to_string).collect::<Vec<_>>(),
            "data": hex::encode(&log.data),
            "blockNumber": quantity(self.number),
            "blockHash": self.hash.to_string(),
            "blockTimestamp": quantity(self.timestamp),
            "transactionHash": self.transactions[tx].transaction.hash.to_string(),
            "transactionIndex": index_json(tx),
            "logIndex": index_json(index),
            "removed": removed,
        })
    }

    /// The receipt of the block's transaction at `index`.
    pub(super) fn receipt_json(&self, index: usize) -> Value {
        let mined = &self.transactions[index];
        let mut bloom = Bloom::ZERO;
        for log in &mined.logs {
            bloom.accrue(BloomInput::Raw(&log.address[..]));
            log.topics.iter().for_each(|topic| bloom.accrue(BloomInput::Raw(&topic[..])));
        }
        let logs = mined.logs.iter().enumerate();
        json!({
            "transactionHash": mined.transaction.hash.to_string(),
            "transactionIndex": index_json(index),
            "blockHash": self.hash.to_string(),
            "blockNumber": quantity(self.number),
            "from": hex::encode(mined.transaction.from),
            "to": hex::encode(mined.transaction.to),
            "contractAddress": null,
            "cumulativeGasUsed": quantity(mined.cumulative_gas),
            "gasUsed": quantity(mined.gas),
            "effectiveGasPrice": quantity(BASE_FEE),
            "logs": logs.map(|(i, log)| self.log_json((index, mined.first_log + i, log), false)).collect::<Vec<_>>(),
            "logsBloom": hex::encode(bloom),
            "status": "0x1",
            "type": "0x2",
        })
    }

    /// The block's transaction at `index`, with its place in the chain.
    pub(super) fn transaction_json(&self, index: usize) -> Value {
        self.transactions[index].transaction.json(Some((self, index)))
    }

    /// Root of the consensus state after this block.
    pub(super) fn beacon_state_root(&self) -> B256 {
        hash::derived("beacon state", &self.hash.0)
    }

    fn header(&self) -> Map<String, Value> {
        let mut header = Map::new();
        let mut set = |key: &str, value: String| header.insert(key.to_owned(), Value::String(value));
        set("number", quantity(self.number));
        set("hash", self.hash.to_string());
        set("parentHash", self.parent_hash.to_string());
        set("nonce", "0x0000000000000000".to_owned());
        set("sha3Uncles", EMPTY_UNCLES.to_owned());
        set("logsBloom", hex::encode(self.bloom));
        set("transactionsRoot", self.transactions_root().to_string());
        set("stateRoot", self.state_root.to_string());
        set("receiptsRoot", self.receipts_root().to_string());
        set("miner", hex::encode(self.miner));
        set("difficulty", "0x0".to_owned());
        set("extraData", hex::encode(EXTRA));
        set("gasLimit", quantity(GAS_LIMIT));
        set("gasUsed", quantity(self.gas_used));
        set("timestamp", quantity(self.timestamp));
        set("mixHash", self.randao().to_string());
        set("baseFeePerGas", quantity(BASE_FEE));
        set("withdrawalsRoot", self.withdrawals_root().to_string());
        set("blobGasUsed", quantity(self.blob_gas_used()));
        set("excessBlobGas", "0x0".to_owned());
        set("parentBeaconBlockRoot", self.parent_beacon_root().to_string());
        set("requestsHash", EMPTY_REQUESTS.to_owned());
        header
    }

    fn body(&self, full: bool) -> Map<String, Value> {
        let mut body = self.header();
        let transactions = self.transactions.iter().enumerate().map(|(i, mined)| {
            if full { self.transaction_json(i) } else { Value::String(mined.transaction.hash.to_string()) }
        });
        body.insert("transactions".to_owned(), transactions.collect());
        body.insert("uncles".to_owned(), json!([]));
        let withdrawals = self.withdrawals().map(|withdrawal| {
            json!({
                "index": quantity(withdrawal.index),
                "validatorIndex": quantity(withdrawal.validator),
                "address": hex::encode(withdrawal.address),
                "amount": quantity(WITHDRAWN),
            })
        });
        body.insert("withdrawals".to_owned(), withdrawals.collect());
        let bytes = self.transactions.iter().map(|mined| mined.transaction.input.len() + 120).sum::<usize>();
        body.insert("size".to_owned(), Value::String(format!("0x{:x}", 620 + bytes)));
        body
    }

    fn header_rlp(&self) -> Vec<u8> {
        let constant = |text| hex::fixed::<32>(text).unwrap_or_default();
        let fields: [&dyn Encodable; 21] = [
            &self.parent_hash,
            &constant(EMPTY_UNCLES),
            &self.miner,
            &self.state_root,
            &self.transactions_root(),
            &self.receipts_root(),
            &self.bloom,
            &0_u64, // The difficulty.
            &self.number,
            &GAS_LIMIT,
            &self.gas_used,
            &self.timestamp,
            &EXTRA,
            &self.randao(),
            &B64::ZERO, // The nonce.
            &BASE_FEE,
            &self.withdrawals_root(),
            &self.blob_gas_used(),
            &0_u64, // The excess blob gas.
            &self.parent_beacon_root(),
            &constant(EMPTY_REQUESTS),
        ];
        let mut out = Vec::new();
        encode_list::<_, dyn Encodable>(&fields, &mut out);
        out
    }

    fn transactions_root(&self) -> B256 {
        self.root("transactions")
    }

    fn receipts_root(&self) -> B256 {
        self.root("receipts")
    }

    fn root(&self, of: &str) -> B256 {
        let hashes: Vec<u8> = self.transactions.iter().flat_map(|mined| mined.transaction.hash.0).collect();
        if hashes.is_empty() { hex::fixed(EMPTY_TRIE).unwrap_or_default() } else { hash::derived(of, &hashes) }
    }

    fn withdrawals_root(&self) -> B256 {
        let indices: Vec<u8> = self.withdrawals().flat_map(|withdrawal| withdrawal.index.to_be_bytes()).collect();
        if indices.is_empty() {
            hex::fixed(EMPTY_TRIE).unwrap_or_default()
        } else {
            hash::derived("withdrawals", &indices)
        }
    }

    /// A withdrawal in each block but the first, to a validator after another.
    pub(super) fn withdrawals(&self) -> impl Iterator<Item = Withdrawal> + use<> {
        self.number.checked_sub(1).into_iter().map(|index| {
            let validator = index % VALIDATORS;
            let address = Address::from_word(hash::derived("withdrawal", &validator.to_be_bytes()));
            Withdrawal { index, validator, address }
        })
    }

    fn randao(&self) -> B256 {
        hash::derived("randao", &self.parent_hash.0)
    }

    /// Root of the consensus block that carried the parent.
    pub(super) fn parent_beacon_root(&self) -> B256 {
        beacon_root(self.parent_hash)
    }
}

/// Root of the consensus block that carries the execution block `hash`.
fn beacon_root(hash: B256) -> B256 {
    hash::derived("beacon block", &hash.0)
}

fn index_json(index: usize) -> String {
    format!("0x{index:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_the_parent_the_time_and_the_branch() {
        let salt = |n: u8| keccak256([n]);
        let at = |timestamp| Origin { timestamp, ..Origin::default() };
        let genesis = Block::seal(None, salt(0), at(100), Vec::new());
        let other_genesis = Block::seal(None, salt(0), at(101), Vec::new());
        let hashes = [
            genesis.hash,
            other_genesis.hash,
            Block::seal(Some(&genesis), salt(1), at(112), Vec::new()).hash,
            Block::seal(Some(&genesis), salt(2), at(112), Vec::new()).hash,
            Block::seal(Some(&genesis), salt(1), at(113), Vec::new()).hash,
            Block::seal(Some(&other_genesis), salt(1), at(112), Vec::new()).hash,
        ];
        for (i, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..i].contains(hash), "block {i} repeats a hash");
        }
    }

    #[test]
    fn the_hash_is_keccak_of_the_headers_rlp() {
        let genesis = Block::seal(None, B256::ZERO, Origin::default(), Vec::new());
        let origin = Origin { slot: 300, timestamp: 1_700_000_000, made: 300, ..Origin::default() };
        let block = Block::seal(Some(&genesis), keccak256([1]), origin, Vec::new());
        // A newer version must not give the chain of a seed other hashes.
        let expected = [
            "0xee7ab6efcc43ee0b580eaeb3f8f43418bdea833a4bfde4683dbca7b103918069",
            "0xde9c345cf2255aa4a46196a4ea317e220336aa99a960bb222afdd79ab312fe77",
        ];
        assert_eq!([genesis.hash, block.hash].map(|hash| hash.to_string()), expected);
    }

    #[test]
    fn a_header_has_every_field_of_a_merged_client_and_no_body() {
        let block = Block::seal(None, B256::ZERO, Origin::default(), Vec::new());
        let head: Value = serde_json::from_str(&block.head_json()).unwrap();
        let fields = "baseFeePerGas blobGasUsed difficulty excessBlobGas extraData gasLimit gasUsed hash logsBloom miner \
                      mixHash nonce number parentBeaconBlockRoot parentHash receiptsRoot requestsHash sha3Uncles stateRoot \
                      timestamp transactionsRoot withdrawalsRoot";
        let keys: Vec<&str> = head.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, fields.split_whitespace().collect::<Vec<_>>());
        let body: Value = serde_json::from_str(&block.json(false)).unwrap();
        for key in ["transactions", "uncles", "withdrawals", "size"] {
            assert!(body.get(key).is_some(), "{key}");
        }
    }
}
