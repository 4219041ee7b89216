//! The bodies of requests to endpoints: type, time and data, as JSON.
//!
//! A body is made once, with the event, and is the same at each attempt.

use serde::Serialize;

use crate::outbox::record::{EventKind, Millis, Record, Refusal, StateName, Transition};

/// A block, as nodes write it.
#[derive(Serialize)]
struct Block {
    number: String,
    hash: String,
}

#[derive(Serialize)]
struct Transaction<'a> {
    hash: String,
    tenant: &'a str,
    network: &'a str,
    state: &'static str,
    seq: u64,
    sender: String,
    nonce: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<Block>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// The refusal of each node, where that is the cause.
    #[serde(skip_serializing_if = "<[Refusal]>::is_empty")]
    refusals: &'a [Refusal],
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

/// A change of a node, or of the node in use.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub enum PoolData<'a> {
    /// Of `node.down` and `node.up`.
    Node {
        /// The network's name.
        network: &'a str,
        /// `el` or `cl`.
        layer: &'a str,
        /// The node's name.
        node: &'a str,
        /// The verdict, in the words of `/status`.
        verdict: &'a str,
    },
    /// Of `switch`.
    Switch {
        /// The network's name.
        network: &'a str,
        /// `el` or `cl`.
        layer: &'a str,
        /// The node that calls went to; `None`: none served.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<&'a str>,
        /// The node that calls go to; `None`: none serves.
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<&'a str>,
        /// Why, in a word of a bounded set.
        reason: &'a str,
    },
}

/// The body of a transaction's transition.
pub fn transaction(kind: EventKind, record: &Record, transition: &Transition) -> String {
    // Not that of the record's state now: a replay tells of a transition as it was told at first.
    let replaced_by = transition.reason.clone().filter(|_| transition.to == StateName::Replaced);
    let block =
        transition.block.map(|block| Block { number: format!("{:#x}", block.number), hash: block.hash.to_string() });
    let data = Transaction {
        hash: record.id.hash.to_string(),
        tenant: record.id.tenant.as_str(),
        network: record.id.network.as_str(),
        state: transition.to.as_str(),
        seq: transition.seq,
        sender: record.sender.to_string(),
        nonce: format!("{:#x}", record.nonce),
        block,
        node: transition.node.as_deref(),
        reason: transition.reason.as_deref(),
        refusals: &transition.refusals,
        replaced_by,
        request_id: record.request_id.as_deref(),
    };
    written(kind, transition.at, &data)
}

/// The body of a change in the pool.
pub fn pool(kind: EventKind, at: Millis, data: &PoolData<'_>) -> String {
    written(kind, at, data)
}

fn written(kind: EventKind, at: Millis, data: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Body<'a, D> {
        r#type: &'a str,
        timestamp: String,
        data: &'a D,
    }
    let body = Body { r#type: kind.as_str(), timestamp: at.to_string(), data };
    serde_json::to_string(&body).expect("the fields are texts and numbers")
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, B256};
    use serde_json::{Value, json};

    use super::*;
    use crate::outbox::record::{BlockId, EventIds, Fees, State, TenantName, TxId};

    fn record(state: State) -> Record {
        Record {
            id: TxId { tenant: TenantName::default(), network: "main".into(), hash: B256::repeat_byte(0xab) },
            sender: Address::repeat_byte(2),
            nonce: 7,
            chain_id: Some(1),
            kind: 2,
            fees: Fees::default(),
            blobs: 0,
            bytes: 110,
            accepted_at: Millis(5),
            deadline: Millis(6),
            request_id: Some("r-1".to_owned()),
            traceparent: None,
            state,
            stopped: None,
            seq: 3,
            refusals: Vec::new(),
            history: Vec::new(),
            keep_until: None,
            event_ids: EventIds::OfContent,
        }
    }

    #[test]
    fn a_body_has_type_time_and_data() {
        let block = BlockId { number: 16, hash: B256::repeat_byte(1) };
        let to = Transition {
            seq: 3,
            at: Millis(1_709_251_200_001),
            to: StateName::Mined,
            block: Some(block),
            node: Some("geth-1".to_owned()),
            reason: None,
            refusals: Vec::new(),
            repeat: 0,
        };
        let body: Value =
            serde_json::from_str(&transaction(EventKind::TxMined, &record(State::Mined { block }), &to)).unwrap();
        let expected = json!({
            "type": "tx.mined",
            "timestamp": "2024-03-01T00:00:00.001Z",
            "data": {
                "hash": format!("0x{}", "ab".repeat(32)), "tenant": "default", "network": "main", "state": "mined", "seq": 3,
                "sender": Address::repeat_byte(2).to_string(), "nonce": "0x7",
                "block": { "number": "0x10", "hash": format!("0x{}", "01".repeat(32)) },
                "node": "geth-1", "request_id": "r-1",
            },
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn the_other_transaction_is_named_where_one_was_replaced() {
        let block = BlockId { number: 16, hash: B256::repeat_byte(1) };
        // By now another one has taken that one's place: a replay tells what was told then.
        let state = State::Replaced { by: B256::repeat_byte(8), block, is_final: false };
        let by = B256::repeat_byte(9).to_string();
        let to = Transition {
            seq: 4,
            at: Millis(1),
            to: StateName::Replaced,
            block: Some(block),
            node: None,
            reason: Some(by.clone()),
            refusals: Vec::new(),
            repeat: 0,
        };
        let body: Value = serde_json::from_str(&transaction(EventKind::TxReplaced, &record(state), &to)).unwrap();
        assert_eq!((&body["data"]["replaced_by"], &body["data"]["reason"]), (&json!(by), &json!(by)));
        assert_eq!(body["data"].get("node"), None);
    }

    #[test]
    fn the_refusal_of_each_node_is_told() {
        let refused = |node: &str, message: &str| Refusal { node: node.into(), code: -32000, message: message.into() };
        let to = Transition {
            seq: 2,
            at: Millis(1),
            to: StateName::Refused,
            block: None,
            node: Some("a".to_owned()),
            reason: Some("invalid sender".to_owned()),
            refusals: vec![refused("a", "invalid sender"), refused("b", "InvalidSender")],
            repeat: 0,
        };
        let state = State::Refused { reason: "invalid sender".to_owned() };
        let body: Value = serde_json::from_str(&transaction(EventKind::TxRefused, &record(state), &to)).unwrap();
        let expected = json!([
            { "node": "a", "code": -32000, "message": "invalid sender" },
            { "node": "b", "code": -32000, "message": "InvalidSender" },
        ]);
        assert_eq!(body["data"]["refusals"], expected);
    }

    #[test]
    fn the_pools_changes_name_node_and_verdict_or_both_ends() {
        let node = PoolData::Node { network: "main", layer: "el", node: "geth-1", verdict: "lagging" };
        let body: Value = serde_json::from_str(&pool(EventKind::NodeDown, Millis(0), &node)).unwrap();
        let expected = json!({
            "type": "node.down", "timestamp": "1970-01-01T00:00:00.000Z",
            "data": { "network": "main", "layer": "el", "node": "geth-1", "verdict": "lagging" },
        });
        assert_eq!(body, expected);
        let switch = PoolData::Switch { network: "main", layer: "el", from: None, to: Some("b"), reason: "down" };
        let body: Value = serde_json::from_str(&pool(EventKind::Switch, Millis(0), &switch)).unwrap();
        assert_eq!(body["data"], json!({ "network": "main", "layer": "el", "to": "b", "reason": "down" }));
    }
}
