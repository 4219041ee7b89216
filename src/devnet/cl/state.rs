//! States of the beacon API: which there are, their checkpoints and fork, and a whole one.

use std::{iter, sync::Arc};

use alloy_primitives::B256;
use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    super::{
        block::Block,
        fault::Store,
        hash, http as answers,
        view::{FINALIZED, JUSTIFIED, SLOTS_PER_EPOCH, View},
    },
    Api, FORK, FORK_VERSION, Outcome, PREVIOUS_FORK_VERSION, Problem,
    blocks::BlockId,
    pubkey,
    validator::{VALIDATORS, validator},
    with_fork,
};

/// Entries of a state's vectors of roots, of mixes and of slashings, in the minimal preset.
const VECTOR: u64 = 64;
/// Validators of a sync committee, in the minimal preset.
const SYNC_COMMITTEE: u64 = 32;
/// Historical roots in one piece of an answer.
const PIECE_ROOTS: u64 = 1000;

impl Api<'_> {
    pub(super) fn checkpoints(&self, id: &str) -> Outcome {
        let at = self.view.at(self.find_state(id)?.number);
        Ok(self.described(
            None,
            json!({
                "previous_justified": checkpoint(&at, FINALIZED),
                "current_justified": checkpoint(&at, JUSTIFIED),
                "finalized": checkpoint(&at, FINALIZED),
            }),
        ))
    }

    /// The fork of a state: every state is of the one fork, from the first epoch on.
    pub(super) fn fork(&self, id: &str) -> Outcome {
        let slot = self.find_state(id)?.slot;
        Ok(self.described(Some(slot), fork()))
    }

    /// A whole state, in pieces. Historical roots, which a state may have any number of, and spaces
    /// after them make the answer as long as the network's options say.
    pub(super) fn state(&self, id: &str) -> Outcome {
        let block = self.find_state(id)?;
        let mut answer = self.description(Some(block.slot), self.members(&block));
        answer["version"] = json!(FORK);
        let text = answer.to_string();
        let mark = "\"historical_roots\":[";
        let (head, tail) = text.split_at(text.find(mark).map_or(text.len(), |at| at + mark.len()));
        let roots = |count: u64| {
            let roots = (0..count).map(|index| hash::derived("historical root", &index.to_be_bytes()));
            Bytes::from(roots.map(|root| format!(",\"{root}\"")).collect::<String>())
        };
        let piece = roots(PIECE_ROOTS);
        let root = piece.len() as u64 / PIECE_ROOTS;
        let room = self.node.settings.state_bytes.saturating_sub(text.len() as u64);
        let count = room / root;
        // The first root has no comma before it.
        let spaces = room - count * root + u64::from(count > 0);
        let whole = usize::try_from(count / PIECE_ROOTS).unwrap_or(usize::MAX);
        let mut listed =
            iter::repeat_n(piece, whole).chain([roots(count % PIECE_ROOTS)]).filter(|piece| !piece.is_empty());
        let first = listed.next().map(|piece| piece.slice(1..));
        let spaces = Bytes::from(" ".repeat(usize::try_from(spaces).unwrap_or(0)));
        let pieces = iter::once(Bytes::from(head.to_owned()))
            .chain(first)
            .chain(listed.collect::<Vec<_>>())
            .chain([spaces, Bytes::from(tail.to_owned())])
            .map(Ok);
        Ok(with_fork(answers::streamed("application/json", stream::iter(pieces))))
    }

    /// All members of the state after a block. Historical roots come in [`Self::state`].
    fn members(&self, block: &Block) -> Value {
        let at = self.view.at(block.number);
        let many = |count: u64, value: &str| vec![value.to_owned(); usize::try_from(count).unwrap_or(0)];
        let drawn = |what: &str| -> Vec<String> {
            (0..VECTOR)
                .map(|index| hash::derived(what, &[&block.hash.0[..], &index.to_be_bytes()].concat()).to_string())
                .collect()
        };
        // The root for each of the slots before, at the place that the slot has in the vector.
        let past = |root: fn(&Block) -> B256| -> Vec<String> {
            let mut roots = many(VECTOR, &B256::ZERO.to_string());
            for slot in block.slot.saturating_sub(VECTOR)..block.slot {
                if let Some(place) = usize::try_from(slot % VECTOR).ok().and_then(|place| roots.get_mut(place)) {
                    *place = root(at.as_of(slot).head()).to_string();
                }
            }
            roots
        };
        let committee = json!({
            "pubkeys": (0..SYNC_COMMITTEE).map(pubkey).collect::<Vec<_>>(),
            "aggregate_pubkey": pubkey(VALIDATORS),
        });
        let mut last = self.message(block, 0);
        last["body_root"] = self.header_json(block, 0)["header"]["message"]["body_root"].take();
        let mut payload = self.body(block)["execution_payload"].take();
        if let Some(payload) = payload.as_object_mut() {
            for (list, root) in [("transactions", "transactions_root"), ("withdrawals", "withdrawals_root")] {
                payload.remove(list);
                payload.insert(root.to_owned(), json!(hash::derived(root, &block.hash.0).to_string()));
            }
        }
        let none = "0";
        json!({
            "genesis_time": self.view.genesis().timestamp.to_string(),
            "genesis_validators_root": self.validators_root().to_string(),
            "slot": block.slot.to_string(),
            "fork": fork(),
            "latest_block_header": last,
            "block_roots": past(|block| block.root),
            "state_roots": past(Block::beacon_state_root),
            "historical_roots": [],
            "eth1_data": self.body(block)["eth1_data"].take(),
            "eth1_data_votes": [],
            "eth1_deposit_index": none,
            "validators": (0..VALIDATORS).map(|index| validator(index)["validator"].take()).collect::<Vec<_>>(),
            "balances": many(VALIDATORS, "32000000000"),
            "randao_mixes": drawn("randao mix"),
            "slashings": many(VECTOR, "0"),
            "previous_epoch_participation": many(VALIDATORS, "7"),
            "current_epoch_participation": many(VALIDATORS, "7"),
            "justification_bits": "0x0f",
            "previous_justified_checkpoint": checkpoint(&at, FINALIZED),
            "current_justified_checkpoint": checkpoint(&at, JUSTIFIED),
            "finalized_checkpoint": checkpoint(&at, FINALIZED),
            "inactivity_scores": many(VALIDATORS, "0"),
            "current_sync_committee": committee,
            "next_sync_committee": committee,
            "latest_execution_payload_header": payload,
            "next_withdrawal_index": none,
            "next_withdrawal_validator_index": none,
            "historical_summaries": [],
            "deposit_requests_start_index": u64::MAX.to_string(),
            "deposit_balance_to_consume": none,
            "exit_balance_to_consume": none,
            "earliest_exit_epoch": none,
            "consolidation_balance_to_consume": none,
            "earliest_consolidation_epoch": none,
            "pending_deposits": [],
            "pending_partial_withdrawals": [],
            "pending_consolidations": [],
        })
    }

    pub(super) fn find_state(&self, id: &str) -> Result<Arc<Block>, Problem> {
        let id =
            BlockId::parse(id).ok_or_else(|| Problem(StatusCode::BAD_REQUEST, format!("Invalid state ID: {id}")))?;
        let found = match id {
            BlockId::Root(root) => (self.view.base()..=self.view.head().number)
                .rev()
                .filter_map(|slot| self.view.block(slot))
                .find(|block| block.beacon_state_root() == root)
                .cloned(),
            // An empty slot has a state, too: that of the block before.
            BlockId::Slot(slot) if slot <= self.view.head().slot => Some(self.view.as_of(slot).head().clone()),
            id => id.find(&self.node.chain, &self.view),
        };
        let found = found.filter(|block| self.keeps(Store::States, block));
        found.ok_or_else(|| Problem(StatusCode::NOT_FOUND, "State not found".to_owned()))
    }
}

fn checkpoint(at: &View, behind: u64) -> Value {
    let block = at.checkpoint(behind);
    json!({"epoch": (block.slot / SLOTS_PER_EPOCH).to_string(), "root": block.root.to_string()})
}

fn fork() -> Value {
    json!({"previous_version": PREVIOUS_FORK_VERSION, "current_version": FORK_VERSION, "epoch": "0"})
}
