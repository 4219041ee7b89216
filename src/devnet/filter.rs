//! Filters of logs as callers write them, and the filters that a node keeps for callers who poll.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};
use serde_json::Value;
use tokio::sync::broadcast;

use super::{
    block::Block,
    hex,
    rpc::RpcError,
    transaction::Log,
    view::{Change, View},
};

/// Filters that one node keeps; the oldest go first.
const KEPT_FILTERS: usize = 1000;

/// Addresses and topics of the logs that are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogFilter {
    /// Any of these contracts; every contract if empty.
    addresses: Vec<Address>,
    /// For each position any of these topics; any topic at all if empty.
    topics: Vec<Vec<B256>>,
}

impl LogFilter {
    /// Reads `address` and `topics` of the object.
    pub(super) fn parse(value: &Value) -> Result<Self, RpcError> {
        if !matches!(value, Value::Object(_) | Value::Null) {
            return Err(RpcError::params("invalid filter: not an object"));
        }
        let addresses = alternatives(&value["address"], |text| hex::fixed(text).map(Address));
        let topics = match &value["topics"] {
            Value::Null => Some(Vec::new()),
            Value::Array(list) if list.len() <= 4 => list.iter().map(|topic| alternatives(topic, hex::fixed)).collect(),
            _ => None,
        };
        Ok(Self {
            addresses: addresses.ok_or_else(|| RpcError::params("invalid filter: address"))?,
            topics: topics.ok_or_else(|| RpcError::params("invalid filter: topics"))?,
        })
    }

    pub(super) fn matches(&self, log: &Log) -> bool {
        (self.addresses.is_empty() || self.addresses.contains(&log.address))
            && self.topics.len() <= log.topics.len()
            && self.topics.iter().zip(&log.topics).all(|(wanted, topic)| wanted.is_empty() || wanted.contains(topic))
    }

    /// The block's matching logs as JSON, in order.
    pub(super) fn logs(&self, block: &Block, removed: bool) -> Vec<Value> {
        let logs = block.logs().filter(|(_, _, log)| self.matches(log));
        logs.map(|placed| block.log_json(placed, removed)).collect()
    }

    /// The notifications to a subscriber after a change: lost logs newest first, then the new ones.
    pub(super) fn news(&self, change: &Change) -> Vec<Value> {
        let lost = change.removed.iter().flat_map(|block| self.logs(block, true).into_iter().rev());
        lost.chain(change.added.iter().flat_map(|block| self.logs(block, false))).collect()
    }
}

/// A value or a list of values; null and an empty list restrict nothing.
fn alternatives<T>(value: &Value, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::String(text) => Some(vec![parse(text)?]),
        Value::Array(list) => list.iter().map(|item| parse(item.as_str()?)).collect(),
        _ => None,
    }
}

/// The filters of one node.
#[derive(Default)]
pub(super) struct Filters {
    by_id: BTreeMap<String, Filter>,
    age: Vec<String>,
}

struct Filter {
    seen: View,
    wish: Wish,
}

/// The subject of a filter.
pub(super) enum Wish {
    /// Hashes of blocks.
    Blocks,
    Logs(LogFilter),
    /// Hashes of transactions that enter the mempool.
    Pending(broadcast::Receiver<B256>),
}

impl Filters {
    pub(super) fn add(&mut self, id: String, wish: Wish, seen: View) {
        if self.age.len() >= KEPT_FILTERS {
            self.by_id.remove(&self.age.remove(0));
        }
        self.age.push(id.clone());
        self.by_id.insert(id, Filter { seen, wish });
    }

    pub(super) fn remove(&mut self, id: &str) -> bool {
        self.age.retain(|other| other != id);
        self.by_id.remove(id).is_some()
    }

    /// The changes since the last call; none if no filter has this id.
    pub(super) fn changes(&mut self, id: &str, now: View) -> Option<Value> {
        let filter = self.by_id.get_mut(id)?;
        let change = filter.seen.advance(now);
        Some(match &mut filter.wish {
            Wish::Logs(logs) => logs.news(&change).into(),
            Wish::Blocks => change.added.iter().map(|block| Value::String(block.hash.to_string())).collect(),
            Wish::Pending(entered) => {
                let mut hashes = Vec::new();
                while let Ok(hash) = entered.try_recv() {
                    hashes.push(hash.to_string().into());
                }
                Value::Array(hashes)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn logs_match_by_address_and_by_topic_position() {
        let word = |n: u8| B256::repeat_byte(n);
        let home = Address::repeat_byte(1);
        let log = Log { address: home, topics: vec![word(1), word(2)], data: Vec::new() };
        let (a, b, c) = (word(1).to_string(), word(2).to_string(), word(3).to_string());
        let cases = [
            (json!({}), true),
            (json!(null), true),
            (json!({"address": hex::encode(home)}), true),
            (json!({"address": [hex::encode(Address::repeat_byte(2)), hex::encode(home)]}), true),
            (json!({"address": hex::encode(Address::repeat_byte(2))}), false),
            (json!({"address": []}), true),
            (json!({"topics": []}), true),
            (json!({"topics": [a]}), true),
            (json!({"topics": [b]}), false),
            (json!({"topics": [null, b]}), true),
            (json!({"topics": [null, a]}), false),
            (json!({"topics": [[c, a], [b]]}), true),
            (json!({"topics": [[], []]}), true),
            (json!({"topics": [a, b, null]}), false),
            (json!({"address": hex::encode(Address::repeat_byte(2)), "topics": [a]}), false),
        ];
        for (filter, expected) in cases {
            assert_eq!(LogFilter::parse(&filter).unwrap().matches(&log), expected, "{filter}");
        }
        for filter in [json!(1), json!({"address": 1}), json!({"address": "0x1"}), json!({"topics": "x"})] {
            assert_eq!(LogFilter::parse(&filter).unwrap_err().code, -32602, "{filter}");
        }
    }
}
