//! The answer to `steadfast_getTransactionStatus`: where a transaction is in its life, and how it
//! came there. Quantities and hashes are written as nodes write them, times as RFC 3339 does.

use serde::Serialize;

use super::record::{BlockId, Record, Refusal, State, StateName, Stopped, Transition};

/// What a client is told of its transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    hash: String,
    state: StateName,
    /// Whether the proxy still sends it, or follows the block that has it.
    is_over: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<Block>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaced_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Why it is not sent any more, also while a block has it nonetheless.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<&'static str>,
    /// The nodes that refused the transaction when it was sent last, with their words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refusals: Vec<Refusal>,
    from: String,
    nonce: String,
    accepted_at: String,
    deadline: String,
    history: Vec<Step>,
}

/// One transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    seq: u64,
    state: StateName,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<Block>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refusals: Vec<Refusal>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Block {
    number: String,
    hash: String,
}

impl From<BlockId> for Block {
    fn from(block: BlockId) -> Self {
        Self { number: format!("{:#x}", block.number), hash: block.hash.to_string() }
    }
}

/// A transition as subscribers of a transaction get it.
impl From<&Transition> for Step {
    fn from(transition: &Transition) -> Self {
        Self {
            seq: transition.seq,
            state: transition.to,
            at: transition.at.to_string(),
            node: transition.node.clone(),
            block: transition.block.map(Block::from),
            reason: transition.reason.clone(),
            refusals: transition.refusals.clone(),
        }
    }
}

impl From<&Record> for Status {
    fn from(record: &Record) -> Self {
        let (replaced_by, reason) = match &record.state {
            State::Replaced { by, .. } => (Some(by.to_string()), None),
            State::Refused { reason } => (None, Some(reason.clone())),
            _ => (None, None),
        };
        let stopped = record.stopped.as_ref().map(|stopped| match stopped {
            Stopped::Refused { .. } => "refused",
            Stopped::Expired => "expired",
            Stopped::Cancelled => "cancelled",
        });
        Self {
            hash: record.id.hash.to_string(),
            state: record.state.name(),
            is_over: record.state.is_over(),
            block: record.state.block().map(Block::from),
            replaced_by,
            reason,
            stopped,
            refusals: record.refusals.clone(),
            from: record.sender.to_string(),
            nonce: format!("{:#x}", record.nonce),
            accepted_at: record.accepted_at.to_string(),
            deadline: record.deadline.to_string(),
            history: record.history.iter().map(Step::from).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, B256};
    use serde_json::json;

    use super::*;
    use crate::outbox::record::{EventIds, Fees, Millis, TenantName, TxId};

    #[test]
    fn a_client_sees_state_history_nodes_and_blocks() {
        let block = BlockId { number: 16, hash: B256::repeat_byte(8) };
        let mut record = Record {
            id: TxId { tenant: TenantName::default(), network: "main".into(), hash: B256::repeat_byte(1) },
            sender: Address::ZERO,
            nonce: 10,
            chain_id: Some(1),
            kind: 2,
            fees: Fees::default(),
            blobs: 0,
            bytes: 110,
            accepted_at: Millis(0),
            deadline: Millis(86_400_000),
            request_id: Some("not for others".to_owned()),
            traceparent: None,
            state: State::Mined { block },
            stopped: None,
            seq: 0,
            refusals: Vec::new(),
            history: Vec::new(),
            keep_until: None,
            event_ids: EventIds::OfContent,
        };
        let sent = Transition {
            seq: 1,
            at: Millis(1),
            to: StateName::Sent,
            block: None,
            node: Some("a".to_owned()),
            reason: None,
            refusals: Vec::new(),
            repeat: 0,
        };
        record.note(sent.clone());
        record.note(Transition { seq: 2, to: StateName::Mined, block: Some(block), node: None, ..sent });
        let hash = |byte: &str| format!("0x{}", byte.repeat(32));
        let expected = json!({
            "hash": hash("01"),
            "state": "mined",
            "isOver": false,
            "block": { "number": "0x10", "hash": hash("08") },
            "from": "0x0000000000000000000000000000000000000000",
            "nonce": "0xa",
            "acceptedAt": "1970-01-01T00:00:00.000Z",
            "deadline": "1970-01-02T00:00:00.000Z",
            "history": [
                { "seq": 1, "state": "sent", "at": "1970-01-01T00:00:00.001Z", "node": "a" },
                {
                    "seq": 2,
                    "state": "mined",
                    "at": "1970-01-01T00:00:00.001Z",
                    "block": { "number": "0x10", "hash": hash("08") },
                },
            ],
        });
        assert_eq!(serde_json::to_value(Status::from(&record)).unwrap(), expected);
        record.state = State::Replaced { by: B256::repeat_byte(2), block, is_final: true };
        record.stopped = Some(Stopped::Expired);
        let json = serde_json::to_value(Status::from(&record)).unwrap();
        let said = [&json["state"], &json["isOver"], &json["replacedBy"], &json["stopped"]];
        assert_eq!(said, [&json!("replaced"), &json!(true), &json!(hash("02")), &json!("expired")]);
        assert_eq!(json.get("refusals"), None);
        let refusal = Refusal { node: "a".to_owned(), code: -32000, message: "txpool is full".to_owned() };
        record.refusals = vec![refusal.clone()];
        let refused =
            Transition { seq: 3, to: StateName::Refused, refusals: vec![refusal], ..record.history[0].clone() };
        record.note(refused);
        let json = serde_json::to_value(Status::from(&record)).unwrap();
        let expected = json!([{ "node": "a", "code": -32000, "message": "txpool is full" }]);
        assert_eq!((&json["refusals"], &json["history"][2]["refusals"]), (&expected, &expected));
    }
}
