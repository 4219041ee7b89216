//! Headers and blocks of the beacon API.

use std::sync::Arc;

use alloy_primitives::{Address, B256};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    super::{
        block::{Block, WITHDRAWN},
        chain::Chain,
        fault::{Fault, Store},
        hash, hex, http as answers,
        view::{FINALIZED, JUSTIFIED, View},
    },
    Api, FORK, Outcome, Problem, blobs, with_fork,
};

const SIGNATURE_BYTES: usize = 96;

/// A block as a caller names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockId {
    Head,
    Justified,
    Finalized,
    Slot(u64),
    Root(B256),
}

impl BlockId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "head" => Self::Head,
            "genesis" => Self::Slot(0),
            "justified" => Self::Justified,
            "finalized" => Self::Finalized,
            text if text.starts_with("0x") => Self::Root(hex::fixed(text)?),
            text if text.bytes().all(|byte| byte.is_ascii_digit()) => Self::Slot(text.parse().ok()?),
            _ => return None,
        })
    }

    pub(super) fn find(self, chain: &Chain, view: &View) -> Option<Arc<Block>> {
        match self {
            Self::Head => Some(view.head().clone()),
            Self::Justified => Some(view.checkpoint(JUSTIFIED).clone()),
            Self::Finalized => Some(view.checkpoint(FINALIZED).clone()),
            Self::Slot(slot) => view.in_slot(slot).cloned(),
            Self::Root(root) => chain.block_by_root(root).filter(|block| view.knows(block)),
        }
    }
}

impl Api<'_> {
    pub(super) fn header(&self, id: &str) -> Outcome {
        let (id, block) = self.find(id)?;
        Ok(self.described(Some(block.slot), self.header_json(&block, self.lie(id))))
    }

    /// The head's header, or that of `slot`, or those of the children of `parent_root`, as the
    /// query says.
    pub(super) fn headers(&self, query: &str) -> Outcome {
        let wish = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        let slot = wish("slot").map(|slot| slot.parse::<u64>()).transpose();
        let slot = slot.map_err(|_| Problem(StatusCode::BAD_REQUEST, "Invalid slot".to_owned()))?;
        let mut found = match (slot, wish("parent_root")) {
            (None, None) => vec![self.header_json(self.view.head(), self.faults.lie())],
            (Some(slot), _) => self.kept(slot).map(|block| self.header_json(block, 0)).into_iter().collect(),
            (None, Some(_)) => Vec::new(),
        };
        if let Some(parent) = wish("parent_root") {
            let BlockId::Root(root) = BlockId::parse(parent).unwrap_or(BlockId::Head) else {
                return Err(Problem(StatusCode::BAD_REQUEST, "Invalid parent root".to_owned()));
            };
            let parent = BlockId::Root(root).find(&self.node.chain, &self.view);
            let child = parent
                .and_then(|parent| self.view.block(parent.number + 1))
                .filter(|child| child.parent_beacon_root() == root);
            found.retain(|header| header["header"]["message"]["parent_root"] == root.to_string());
            if slot.is_none() {
                found.extend(child.map(|child| self.header_json(child, 0)));
            }
        }
        Ok(self.described(None, Value::Array(found)))
    }

    pub(super) fn block_root(&self, id: &str) -> Outcome {
        let (_, block) = self.find(id)?;
        Ok(self.described(Some(block.slot), json!({"root": block.root.to_string()})))
    }

    pub(super) fn block(&self, id: &str) -> Outcome {
        let (id, block) = self.find(id)?;
        let mut message = self.message(&block, self.lie(id));
        message["body"] = self.body(&block);
        let finalized = block.slot <= self.view.checkpoint(FINALIZED).slot;
        let answer = json!({
            "version": FORK,
            "execution_optimistic": self.faults.has(&Fault::Optimistic),
            "finalized": finalized,
            "data": {"message": message, "signature": hex::encode([0xaa; SIGNATURE_BYTES])},
        });
        Ok(with_fork(answers::json(StatusCode::OK, answer.to_string())))
    }

    fn find(&self, id: &str) -> Result<(BlockId, Arc<Block>), Problem> {
        let parsed = BlockId::parse(id);
        let parsed = parsed.ok_or_else(|| Problem(StatusCode::BAD_REQUEST, format!("Invalid block ID: {id}")))?;
        let found = parsed.find(&self.node.chain, &self.view).filter(|block| self.keeps(Store::Blocks, block));
        let block = found.ok_or_else(|| Problem(StatusCode::NOT_FOUND, format!("Block not found: {id}")))?;
        Ok((parsed, block))
    }

    /// A block whose data in `store` the node still has.
    pub(super) fn find_stored(&self, id: &str, store: Store) -> Result<Arc<Block>, Problem> {
        let (_, block) = self.find(id)?;
        let kept = Some(block).filter(|block| self.keeps(store, block));
        kept.ok_or_else(|| Problem(StatusCode::NOT_FOUND, format!("Blobs not found: {id}")))
    }

    /// Whether the node still has this block's data in `store`. Data of the first block always
    /// stay.
    pub(super) fn keeps(&self, store: Store, block: &Block) -> bool {
        let kept = self.faults.keeps(store);
        kept.is_none_or(|slots| block.number == 0 || block.slot + slots >= self.view.head().slot)
    }

    fn kept(&self, slot: u64) -> Option<&Arc<Block>> {
        self.view.in_slot(slot).filter(|block| self.keeps(Store::Blocks, block))
    }

    /// The number of slots by which an answer about `id` lies: only answers about the head lie.
    fn lie(&self, id: BlockId) -> u64 {
        if id == BlockId::Head { self.faults.lie() } else { 0 }
    }

    pub(super) fn header_json(&self, block: &Block, lie: u64) -> Value {
        let mut message = self.message(block, lie);
        message["body_root"] = json!(hash::derived("body", &block.hash.0).to_string());
        json!({
            "root": block.root.to_string(),
            "canonical": self.view.is_canonical(block),
            "header": {"message": message, "signature": hex::encode([0xaa; SIGNATURE_BYTES])},
        })
    }

    pub(super) fn message(&self, block: &Block, lie: u64) -> Value {
        let parent = if block.number == 0 { B256::ZERO } else { block.parent_beacon_root() };
        json!({
            "slot": (block.slot + lie).to_string(),
            "proposer_index": super::proposer(block.slot).to_string(),
            "parent_root": parent.to_string(),
            "state_root": block.beacon_state_root().to_string(),
        })
    }

    pub(super) fn body(&self, block: &Block) -> Value {
        let execution: Value = serde_json::from_str(&block.json(false)).unwrap_or_default();
        let decimal = |key: &str| execution[key].as_str().and_then(hex::decode_quantity).unwrap_or(0).to_string();
        let withdrawals = block.withdrawals().map(|withdrawal| {
            json!({
                "index": withdrawal.index.to_string(),
                "validator_index": withdrawal.validator.to_string(),
                "address": hex::encode(withdrawal.address),
                "amount": WITHDRAWN.to_string(),
            })
        });
        json!({
            "randao_reveal": hex::encode([0xbb; SIGNATURE_BYTES]),
            "eth1_data": {"deposit_root": B256::ZERO.to_string(), "deposit_count": "0", "block_hash": B256::ZERO.to_string()},
            "graffiti": hash::derived("graffiti", &[]).to_string(),
            "proposer_slashings": [],
            "attester_slashings": [],
            "attestations": [],
            "deposits": [],
            "voluntary_exits": [],
            "sync_aggregate": {"sync_committee_bits": "0x00000000", "sync_committee_signature": hex::encode([0xcc; SIGNATURE_BYTES])},
            "execution_payload": {
                "parent_hash": block.parent_hash.to_string(),
                "fee_recipient": execution["miner"].as_str().unwrap_or(&hex::encode(Address::ZERO)),
                "state_root": execution["stateRoot"],
                "receipts_root": execution["receiptsRoot"],
                "logs_bloom": execution["logsBloom"],
                "prev_randao": execution["mixHash"],
                "block_number": block.number.to_string(),
                "gas_limit": decimal("gasLimit"),
                "gas_used": decimal("gasUsed"),
                "timestamp": block.timestamp.to_string(),
                "extra_data": execution["extraData"],
                "base_fee_per_gas": decimal("baseFeePerGas"),
                "block_hash": block.hash.to_string(),
                "transactions": block.transactions.iter().map(|mined| hex::encode(&mined.transaction.input)).collect::<Vec<_>>(),
                "withdrawals": withdrawals.collect::<Vec<_>>(),
                "blob_gas_used": decimal("blobGasUsed"),
                "excess_blob_gas": decimal("excessBlobGas"),
            },
            "bls_to_execution_changes": [],
            "blob_kzg_commitments": blobs::commitments(block),
            "execution_requests": {"deposits": [], "withdrawals": [], "consolidations": []},
        })
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::keccak256;

    use super::*;

    #[test]
    fn blocks_are_named_by_word_slot_or_root() {
        let root = keccak256(b"x");
        let cases = [
            ("head".to_owned(), Some(BlockId::Head)),
            ("genesis".to_owned(), Some(BlockId::Slot(0))),
            ("17".to_owned(), Some(BlockId::Slot(17))),
            (root.to_string(), Some(BlockId::Root(root))),
            ("0x12".to_owned(), None),
            ("-1".to_owned(), None),
            (String::new(), None),
            ("tail".to_owned(), None),
        ];
        for (text, id) in cases {
            assert_eq!(BlockId::parse(&text), id, "{text:?}");
        }
    }
}
