//! Accounts, calls, fees, and transactions sent.

use alloy_primitives::Address;
use serde_json::{Value, json};

use super::{
    super::{
        block::{BASE_FEE, Block},
        chain::ChainError,
        fault::Fault,
        hash,
        hex::{self, quantity},
        mempool::Holders,
        params::{Params, number},
        rpc::RpcError,
    },
    Context, Outcome,
};

/// Calls to this address revert.
const REVERTS: &str = "0x000000000000000000000000000000000000dead";
/// `Error(string)` with "dead", as a reverting contract returns it.
const REVERT_DATA: &str = "0x08c379a0\
    0000000000000000000000000000000000000000000000000000000000000020\
    0000000000000000000000000000000000000000000000000000000000000004\
    6465616400000000000000000000000000000000000000000000000000000000";
const MOST_FEE_BLOCKS: u64 = 1024;
const MOST_PERCENTILES: usize = 100;
const BLOB_BASE_FEE: &str = "0x1";

impl Context<'_> {
    pub(super) fn account(&self, method: &str, params: &Params) -> Outcome {
        let address = params.address(0)?;
        let (slot, at) = if method == "eth_getStorageAt" { (storage_key(params.text(1)?)?, 2) } else { ("", 1) };
        let block = self.state(params, at)?;
        let code = self.node.chain.contracts().contains(&address);
        let value = match method {
            "eth_getBalance" => {
                json!(format!("0x{:x}{:08x}", 0xde0b_u64, hash::seed(&hash::derived("balance", &address[..])) >> 32))
            }
            "eth_getCode" => json!(if code { "0x6080604052600080fd" } else { "0x" }),
            "eth_getStorageAt" => json!(hash::derived(slot, &[&address[..], &block.hash.0].concat()).to_string()),
            _ => {
                let pending = params.value(1) == "pending";
                let waiting = if pending { self.node.chain.waiting_from(address, self.node.settings.place) } else { 0 };
                json!(format!("0x{:x}", self.sent(address, &block) + waiting))
            }
        };
        Ok(value.into())
    }

    /// How many transactions of an address are in the chain up to a block.
    fn sent(&self, address: Address, block: &Block) -> u64 {
        self.node.chain.account_index(address).and_then(|index| block.sent.get(index).copied()).unwrap_or_else(|| {
            let blocks = (self.view.base()..=block.number).filter_map(|number| self.view.block(number));
            let mined = blocks.flat_map(|block| &block.transactions);
            mined.filter(|mined| mined.transaction.from == address).count() as u64
        })
    }

    /// Answers the same bytes for the same call at the same block.
    pub(super) fn call(&self, method: &str, params: &Params) -> Outcome {
        let call = params.value(0);
        if !call.is_object() {
            return Err(RpcError::params("missing value for required argument 0"));
        }
        let block = self.state(params, 1)?;
        let to = call["to"].as_str().unwrap_or_default().to_ascii_lowercase();
        if to == REVERTS {
            let data = Some(json!(REVERT_DATA));
            return Err(RpcError { data, ..RpcError::new(3, "execution reverted: dead") });
        }
        if method == "eth_estimateGas" {
            return Ok(json!("0x5208").into());
        }
        let input = if call["input"].is_null() { &call["data"] } else { &call["input"] };
        let seen = format!("{to}{input}");
        Ok(json!(hash::derived("call", &[seen.as_bytes(), &block.hash.0].concat()).to_string()).into())
    }

    pub(super) fn fees(&self, method: &str, params: &Params) -> Outcome {
        match method {
            "eth_gasPrice" => return Ok(json!(quantity(BASE_FEE)).into()),
            "eth_maxPriorityFeePerGas" => return Ok(json!("0x0").into()),
            "eth_blobBaseFee" => return Ok(json!(BLOB_BASE_FEE).into()),
            _ => {}
        }
        let percentiles = percentiles(params.value(2))?;
        let newest = self.find(params.at(1)?).ok_or_else(|| RpcError::new(-32000, "request beyond head block"))?;
        let count = params.number(0)?.min(MOST_FEE_BLOCKS).min(newest.number + 1);
        // Blocks that are pruned are left out.
        let oldest = (newest.number + 1 - count).max(self.view.base().min(newest.number));
        let used: Vec<(f64, f64)> = (oldest..newest.number + u64::from(count > 0))
            .filter_map(|number| self.view.block(number).map(|block| block.used()))
            .collect();
        let blocks = used.len();
        let mut answer = json!({
            "oldestBlock": quantity(oldest),
            "baseFeePerGas": vec![quantity(BASE_FEE); blocks + 1],
            "gasUsedRatio": used.iter().map(|used| used.0).collect::<Vec<_>>(),
            "baseFeePerBlobGas": vec![BLOB_BASE_FEE; blocks + 1],
            "blobGasUsedRatio": used.iter().map(|used| used.1).collect::<Vec<_>>(),
        });
        if percentiles > 0 {
            // No transaction pays more than the base fee.
            answer["reward"] = json!(vec![vec!["0x0"; percentiles]; blocks]);
        }
        Ok(answer.into())
    }

    pub(super) fn send_raw(&self, params: &Params) -> Outcome {
        let raw = params.bytes(0)?;
        if raw.len() < 2 {
            return Err(RpcError::new(-32000, "typed transaction too short"));
        }
        let (place, own) = (self.node.settings.place, self.node.settings.own_mempools);
        let forgets = self.faults.has(&Fault::Forgetful);
        let holders = |all: Holders| {
            let holders = if own { Holders::only(place) } else { all };
            if forgets { holders.without(place) } else { holders }
        };
        let hash = self.node.chain.submit_at(place, raw, holders).map_err(refused)?;
        self.node.sent_raw(hash);
        Ok(json!(hash.to_string()).into())
    }

    pub(super) fn send_unlocked(&self, params: &Params) -> Outcome {
        let wish = params.value(0);
        if !wish.is_object() {
            return Err(RpcError::params("missing value for required argument 0"));
        }
        let address = |key: &str| match &wish[key] {
            Value::Null => Ok(Address::ZERO),
            value => value
                .as_str()
                .and_then(hex::fixed)
                .map(Address)
                .ok_or_else(|| RpcError::params(format!("invalid {key}"))),
        };
        let input = if wish["input"].is_null() { &wish["data"] } else { &wish["input"] };
        let input = match input {
            Value::Null => Vec::new(),
            value => value.as_str().and_then(hex::decode).ok_or_else(|| RpcError::params("invalid input"))?,
        };
        let value = number(&wish["value"]).unwrap_or(0);
        let hash = self.node.chain.send_unlocked(address("from")?, address("to")?, value, input).map_err(refused)?;
        Ok(json!(hash.to_string()).into())
    }

    /// The block whose state the call asks for, if this node has that block.
    fn state(&self, params: &Params, index: usize) -> Result<std::sync::Arc<Block>, RpcError> {
        let at = params.at(index)?;
        let block = self.find(at).ok_or_else(|| RpcError::new(-32000, "header not found"))?;
        if block.number < self.view.base() {
            return Err(RpcError::new(-32000, format!("missing trie node {} (path )", block.hash)));
        }
        self.has_state(&block)?;
        Ok(block)
    }
}

/// How many percentiles are asked for: each from 0 to 100, and more than the one before it.
fn percentiles(wish: &Value) -> Result<usize, RpcError> {
    let wrong = |why: String| RpcError::new(-32000, format!("invalid reward percentile: {why}"));
    let list = match wish {
        Value::Null => return Ok(0),
        Value::Array(list) => list,
        _ => return Err(RpcError::params("invalid argument 2: not a list of numbers")),
    };
    if list.len() > MOST_PERCENTILES {
        return Err(wrong(format!("over the query limit {MOST_PERCENTILES}")));
    }
    let mut before = None;
    for (index, one) in list.iter().enumerate() {
        let one = one.as_f64().ok_or_else(|| RpcError::params("invalid argument 2: not a list of numbers"))?;
        if !(0.0..=100.0).contains(&one) {
            return Err(wrong(format!("{one:.6}")));
        }
        match before.replace(one) {
            Some(before) if before >= one => {
                return Err(wrong(format!("#{}:{before:.6} >= #{index}:{one:.6}", index - 1)));
            }
            _ => {}
        }
    }
    Ok(list.len())
}

/// A key of at most 32 bytes; leading zeros may be left out.
fn storage_key(text: &str) -> Result<&str, RpcError> {
    match text.strip_prefix("0x") {
        Some(digits) if digits.len() > 64 => {
            Err(RpcError::params(format!("storage key too long (want at most 32 bytes): {text:?}")))
        }
        Some(digits) if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) => Ok(text),
        _ => Err(RpcError::params(format!("invalid hex in storage key: {text:?}"))),
    }
}

fn refused(error: ChainError) -> RpcError {
    RpcError::new(-32000, error.to_string())
}
