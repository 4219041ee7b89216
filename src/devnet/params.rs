//! Reading a call's params.

use std::sync::Arc;

use alloy_primitives::{Address, B256};
use serde_json::Value;

use super::{
    block::Block,
    chain::Chain,
    hex,
    rpc::{Call, RpcError},
    view::{FINALIZED, JUSTIFIED, View},
};

/// The params of one call: an array, absent counting as empty.
pub(super) struct Params(Vec<Value>);

/// A block as a caller names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Number(u64),
    Hash(B256),
    /// The newest block. `pending` too, because no node here builds a block ahead.
    Latest,
    Safe,
    Finalized,
}

impl Params {
    pub(super) fn of(call: &Call) -> Result<Self, RpcError> {
        let Some(raw) = &call.params else { return Ok(Self(Vec::new())) };
        match serde_json::from_str(raw.get()) {
            Ok(Value::Array(values)) => Ok(Self(values)),
            Ok(Value::Null) => Ok(Self(Vec::new())),
            _ => Err(RpcError::params("non-array args")),
        }
    }

    /// The argument at `index`, null if there is none.
    pub(super) fn value(&self, index: usize) -> &Value {
        self.0.get(index).unwrap_or(&Value::Null)
    }

    pub(super) fn text(&self, index: usize) -> Result<&str, RpcError> {
        match self.value(index) {
            Value::String(text) => Ok(text),
            Value::Null => Err(missing(index)),
            _ => Err(invalid(index, "not a string")),
        }
    }

    pub(super) fn flag(&self, index: usize) -> Result<bool, RpcError> {
        match self.value(index) {
            Value::Bool(flag) => Ok(*flag),
            Value::Null => Ok(false),
            _ => Err(invalid(index, "not a boolean")),
        }
    }

    /// A JSON number or a quantity.
    pub(super) fn number(&self, index: usize) -> Result<u64, RpcError> {
        match self.value(index) {
            Value::Null => Err(missing(index)),
            value => number(value).ok_or_else(|| invalid(index, "not a number")),
        }
    }

    pub(super) fn bytes(&self, index: usize) -> Result<Vec<u8>, RpcError> {
        hex::decode(self.text(index)?).ok_or_else(|| invalid(index, "not hex bytes"))
    }

    pub(super) fn hash(&self, index: usize) -> Result<B256, RpcError> {
        hex::fixed(self.text(index)?).ok_or_else(|| invalid(index, "not a 32-byte hash"))
    }

    pub(super) fn address(&self, index: usize) -> Result<Address, RpcError> {
        hex::fixed(self.text(index)?).map(Address).ok_or_else(|| invalid(index, "not an address"))
    }

    /// A block; the latest if the argument is missing.
    pub(super) fn at(&self, index: usize) -> Result<At, RpcError> {
        At::parse(self.value(index)).ok_or_else(|| invalid(index, "not a block number, tag or hash"))
    }
}

impl At {
    /// A tag, a quantity, a hash, or an object of EIP-1898; null is the latest.
    pub(super) fn parse(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::Latest),
            Value::String(text) => match text.as_str() {
                "latest" | "pending" => Some(Self::Latest),
                "earliest" => Some(Self::Number(0)),
                "safe" => Some(Self::Safe),
                "finalized" => Some(Self::Finalized),
                text if text.len() == 66 => hex::fixed(text).map(Self::Hash),
                text => hex::decode_quantity(text).map(Self::Number),
            },
            Value::Object(map) => match (map.get("blockHash"), map.get("blockNumber")) {
                (Some(hash), None) => hex::fixed(hash.as_str()?).map(Self::Hash),
                (None, Some(number)) => Self::parse(number),
                _ => None,
            },
            _ => None,
        }
    }

    /// The block, if the node of this `view` knows the block.
    pub(super) fn find(self, chain: &Chain, view: &View) -> Option<Arc<Block>> {
        match self {
            Self::Number(number) => view.block(number).cloned(),
            Self::Hash(hash) => chain.block_by_hash(hash).filter(|block| view.knows(block)),
            Self::Latest => Some(view.head().clone()),
            Self::Safe => Some(view.checkpoint(JUSTIFIED).clone()),
            Self::Finalized => Some(view.checkpoint(FINALIZED).clone()),
        }
    }
}

/// A JSON number or a quantity.
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| hex::decode_quantity(value.as_str()?))
}

fn missing(index: usize) -> RpcError {
    RpcError::params(format!("missing value for required argument {index}"))
}

fn invalid(index: usize, why: &str) -> RpcError {
    RpcError::params(format!("invalid argument {index}: {why}"))
}

#[cfg(test)]
mod tests {
    use alloy_primitives::keccak256;
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_are_named_by_tag_number_or_hash() {
        let hash = keccak256(b"x");
        let cases = [
            (json!(null), Some(At::Latest)),
            (json!("pending"), Some(At::Latest)),
            (json!("earliest"), Some(At::Number(0))),
            (json!("0x10"), Some(At::Number(16))),
            (json!({"blockHash": hash.to_string()}), Some(At::Hash(hash))),
            (json!({"blockNumber": "safe"}), Some(At::Safe)),
            (json!("newest"), None),
            (json!(5), None),
            (json!({}), None),
        ];
        for (value, at) in cases {
            assert_eq!(At::parse(&value), at, "{value}");
        }
    }
}
