//! Signed messages that validators submit, and that the network then hears of.

use std::sync::Arc;

use alloy_primitives::{Address, B256};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    super::{
        chain::Proposal,
        gossip::{Kind, Taken},
        hex, http as answers,
    },
    Api, CONSENSUS_VERSION, Outcome, Problem,
    blocks::BlockId,
    data,
    validator::{done, list, parse},
    with_fork,
};

impl Api<'_> {
    /// Routes below `/eth/v<version>/beacon/pool`; none: no route has this name.
    pub(super) fn pool(&self, method: &str, name: &str, body: &Bytes) -> Option<Outcome> {
        let topic = match name {
            "voluntary_exits" => Some("voluntary_exit"),
            "proposer_slashings" => Some("proposer_slashing"),
            "attester_slashings" => Some("attester_slashing"),
            "bls_to_execution_changes" => Some("bls_to_execution_change"),
            "attestations" | "sync_committees" | "payload_attestations" => None,
            _ => return None,
        };
        Some(match (method, name) {
            ("GET", _) => Ok(with_fork(data(json!([])))),
            ("POST", "attestations") => self.submit(body, Kind::Attestation),
            ("POST", "sync_committees") => self.submit(body, Kind::SyncMessage),
            ("POST", _) => parse(body).map(|submitted| {
                let operations = match submitted {
                    Value::Array(list) => list,
                    one => vec![one],
                };
                for (topic, operation) in operations.into_iter().filter_map(|operation| Some((topic?, operation))) {
                    self.node.chain.spread((topic, operation.into()));
                }
                done()
            }),
            _ => return None,
        })
    }

    /// Takes each message of a list, except votes for a block that the node does not know.
    pub(super) fn submit(&self, body: &Bytes, kind: Kind) -> Outcome {
        self.must_be_synced()?;
        let mut failures = Vec::new();
        for (index, message) in list(body)?.iter().enumerate() {
            let Some(taken) = self.read(kind, message) else { continue };
            // A sync message may arrive before the block that it votes for, so that block may be
            // unknown.
            if kind != Kind::SyncMessage && !self.knows(taken.root) {
                failures.push(json!({"index": index, "message": "UnknownHeadBlock"}));
            } else {
                self.node.chain.gossip.take(taken);
            }
        }
        if failures.is_empty() {
            return Ok(done());
        }
        let refusal = json!({"code": 400, "message": "error processing messages", "failures": failures});
        Ok(answers::json(StatusCode::BAD_REQUEST, refusal.to_string()))
    }

    pub(super) fn knows(&self, root: B256) -> bool {
        BlockId::Root(root).find(&self.node.chain, &self.view).is_some()
    }

    /// The fields of a message that the chain records. A message without these fields is accepted
    /// and dropped.
    fn read(&self, kind: Kind, message: &Value) -> Option<Taken> {
        let number = |value: &Value| value.as_str()?.parse::<u64>().ok();
        let root = |value: &Value| hex::fixed(value.as_str()?);
        let (validator, about, data) = match kind {
            // Before Electra an attestation names no validator, only its place in the committee.
            Kind::Attestation => {
                (number(&message["attester_index"]).unwrap_or(u64::MAX), &message["data"], Some(&message["data"]))
            }
            Kind::Aggregate => {
                let message = &message["message"];
                (number(&message["aggregator_index"])?, &message["aggregate"]["data"], None)
            }
            Kind::SyncMessage => (number(&message["validator_index"])?, message, None),
            Kind::Contribution => {
                let message = &message["message"];
                (number(&message["aggregator_index"])?, &message["contribution"], None)
            }
            Kind::Block => (number(&message["proposer_index"])?, message, None),
        };
        let voted = if kind == Kind::Block { &about["parent_root"] } else { &about["beacon_block_root"] };
        Some(Taken {
            kind,
            validator,
            slot: number(&about["slot"])?,
            root: root(voted)?,
            fee_recipient: message["body"]["execution_payload"]["fee_recipient"]
                .as_str()
                .and_then(hex::fixed)
                .map(Address),
            node: self.node.name().to_owned(),
            at: Instant::now(),
            data: data.cloned().map(Arc::new),
        })
    }

    /// Takes a signed block, unless the node does not know its parent. A block in SSZ is accepted
    /// without being read, and so does not reach the chain.
    pub(super) fn publish(&self, headers: &HeaderMap, body: &Bytes) -> Outcome {
        self.must_be_synced()?;
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("application/json");
        if !["application/json", "application/octet-stream"].iter().any(|known| kind.starts_with(known)) {
            return Err(Problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("unsupported content type {kind}")));
        }
        if !headers.contains_key(CONSENSUS_VERSION) {
            return Err(Problem(StatusCode::BAD_REQUEST, "missing Eth-Consensus-Version header".to_owned()));
        }
        if kind.starts_with("application/json")
            && let Ok(block) = parse(body)
        {
            // JSON with blobs holds the block in `signed_block`; without blobs the body is the
            // block.
            let signed = if block["signed_block"].is_null() { &block } else { &block["signed_block"] };
            if let Some(taken) = self.read(Kind::Block, &signed["message"]) {
                if !self.knows(taken.root) {
                    return Err(Problem(StatusCode::BAD_REQUEST, format!("ParentUnknown: {}", taken.root)));
                }
                let paid = taken.fee_recipient.unwrap_or_default();
                self.node.chain.propose(Proposal { slot: taken.slot, parent: taken.root, paid });
                self.node.chain.gossip.take(taken);
            }
        }
        Ok(answers::json(StatusCode::OK, ""))
    }
}
