//! The data of each event topic: of a block, in which all nodes agree, or of an operation that a
//! client submitted.

use alloy_primitives::B256;
use serde_json::{Value, json};

use super::{
    super::{
        block::Block,
        fault::{Fault, Faults},
        hash, hex,
        view::{FINALIZED, JUSTIFIED, SLOTS_PER_EPOCH, View},
    },
    FORK,
};

/// Topics of the beacon API. Those of operations happen when an operation is submitted to any node,
/// all others with each block.
pub(super) const TOPICS: [&str; 26] = [
    "head",
    "head_v2",
    "block",
    "block_gossip",
    "attestation",
    "single_attestation",
    "voluntary_exit",
    "bls_to_execution_change",
    "proposer_slashing",
    "attester_slashing",
    "finalized_checkpoint",
    "chain_reorg",
    "contribution_and_proof",
    "light_client_finality_update",
    "light_client_optimistic_update",
    "payload_attributes",
    "blob_sidecar",
    "data_column_sidecar",
    "execution_payload",
    "execution_payload_gossip",
    "execution_payload_available",
    "execution_payload_bid",
    "payload_attestation_message",
    "fast_confirmation",
    "proposer_preferences",
    "inclusion_list",
];

pub(super) fn signature(of: &str, block: &Block) -> String {
    let one = hash::derived(of, &block.hash.0).0;
    hex::encode([one, one, one].concat())
}

/// The root of the last block before an epoch; the first block's if there is none. Before the epoch
/// has begun, the head's.
pub(super) fn last_before(view: &View, epoch: u64) -> B256 {
    let slot = (epoch * SLOTS_PER_EPOCH).saturating_sub(1);
    view.as_of(slot).head().root
}

/// The checkpoint that is `behind` epochs old.
fn checkpoint(view: &View, behind: u64) -> Value {
    let block = view.checkpoint(behind);
    json!({"epoch": (block.slot / SLOTS_PER_EPOCH).to_string(), "root": block.root.to_string()})
}

/// The data that attesters of `slot` sign. `view` ends with the slot's block.
pub(super) fn attestation_data(view: &View, slot: u64, index: &str) -> Value {
    let epoch = slot / SLOTS_PER_EPOCH;
    // The target of an epoch that begins with empty slots is the last block before the epoch.
    let target = view.as_of(epoch * SLOTS_PER_EPOCH).head().root;
    json!({
        "slot": slot.to_string(),
        "index": index,
        "beacon_block_root": view.head().root.to_string(),
        "source": checkpoint(view, JUSTIFIED),
        "target": {"epoch": epoch.to_string(), "root": target.to_string()},
    })
}

pub(super) fn reorg(old: &Block, new: &Block, depth: usize, faults: &Faults) -> Value {
    json!({
        "slot": new.slot.to_string(),
        "depth": depth.to_string(),
        "old_head_block": old.root.to_string(),
        "new_head_block": new.root.to_string(),
        "old_head_state": old.beacon_state_root().to_string(),
        "new_head_state": new.beacon_state_root().to_string(),
        "epoch": (new.slot / SLOTS_PER_EPOCH).to_string(),
        "execution_optimistic": faults.has(&Fault::Optimistic),
    })
}

pub(super) fn finalized(view: &View, faults: &Faults) -> Value {
    let block = view.checkpoint(FINALIZED);
    json!({
        "block": block.root.to_string(),
        "state": block.beacon_state_root().to_string(),
        "epoch": (block.slot / SLOTS_PER_EPOCH).to_string(),
        "execution_optimistic": faults.has(&Fault::Optimistic),
    })
}

/// The events of the last block of `view`, in the order in which a node sends them.
pub(super) fn of_block(view: &View, faults: &Faults) -> Vec<(&'static str, Value)> {
    let block = view.head();
    let optimistic = faults.has(&Fault::Optimistic);
    let epoch = block.slot / SLOTS_PER_EPOCH;
    let slot = (block.slot + faults.lie()).to_string();
    let (root, state) = (block.root.to_string(), block.beacon_state_root().to_string());
    let (before, now) = (last_before(view, epoch.saturating_sub(1)).to_string(), last_before(view, epoch).to_string());
    let transition = block.slot.is_multiple_of(SLOTS_PER_EPOCH);
    let data = attestation_data(view, block.slot, "0");
    let validator = super::proposer(block.slot).to_string();
    let hash = block.hash.to_string();
    let parent = block.parent_hash.to_string();
    let header = json!({"beacon": {
        "slot": slot, "proposer_index": validator, "parent_root": block.parent_beacon_root().to_string(),
        "state_root": state, "body_root": hash::derived("body", &block.hash.0).to_string(),
    }});
    let sync = json!({
        "sync_committee_bits": "0xffffffff",
        "sync_committee_signature": signature("sync", block),
    });
    let gloas = |data: Value| json!({"version": "gloas", "data": data});
    vec![
        ("block_gossip", json!({"slot": slot, "block": root})),
        ("block", json!({"slot": slot, "block": root, "execution_optimistic": optimistic})),
        (
            "head",
            json!({
                "slot": slot, "block": root, "state": state, "epoch_transition": transition,
                "previous_duty_dependent_root": before, "current_duty_dependent_root": now,
                "execution_optimistic": optimistic,
            }),
        ),
        (
            "head_v2",
            gloas(json!({
                "slot": slot, "block": root, "state": state, "payload_status": "full", "epoch_transition": transition,
                "current_epoch_dependent_root": before, "next_epoch_dependent_root": now,
                "execution_optimistic": optimistic,
            })),
        ),
        (
            "attestation",
            json!({
                "aggregation_bits": "0x03", "data": data, "signature": signature("attestation", block),
                "committee_bits": "0x01",
            }),
        ),
        (
            "single_attestation",
            json!({
                "committee_index": "0", "attester_index": validator, "data": data,
                "signature": signature("single", block),
            }),
        ),
        (
            "contribution_and_proof",
            json!({
                "message": {
                    "aggregator_index": validator,
                    "contribution": {
                        "slot": slot, "beacon_block_root": root, "subcommittee_index": "0",
                        "aggregation_bits": "0xffffffff", "signature": signature("contribution", block),
                    },
                    "selection_proof": signature("selection", block),
                },
                "signature": signature("proof", block),
            }),
        ),
        (
            "light_client_finality_update",
            json!({"version": FORK, "data": {
                "attested_header": header, "finalized_header": header, "finality_branch": [root],
                "sync_aggregate": sync, "signature_slot": slot,
            }}),
        ),
        (
            "light_client_optimistic_update",
            json!({"version": FORK, "data": {
                "attested_header": header, "sync_aggregate": sync, "signature_slot": slot,
            }}),
        ),
        (
            "payload_attributes",
            json!({"version": FORK, "data": {
                "proposer_index": super::proposer(block.slot + 1).to_string(),
                "proposal_slot": (block.slot + 1).to_string(),
                "parent_block_number": block.number.to_string(),
                "parent_block_root": root,
                "parent_block_hash": hash,
                "payload_attributes": {
                    "timestamp": (block.timestamp + 1).to_string(),
                    "prev_randao": hash::derived("randao", &block.hash.0).to_string(),
                    "suggested_fee_recipient": "0x0000000000000000000000000000000000000000",
                    "withdrawals": [], "parent_beacon_block_root": root,
                },
            }}),
        ),
        (
            "blob_sidecar",
            json!({
                "block_root": root, "index": "0", "slot": slot,
                "kzg_commitment": hex::encode(&signature("blob", block).as_bytes()[..48]),
                "versioned_hash": hash::derived("blob", &block.hash.0).to_string(),
            }),
        ),
        ("data_column_sidecar", json!({"block_root": root, "index": "1", "slot": slot})),
        (
            "execution_payload_gossip",
            json!({"slot": slot, "builder_index": "42", "block_hash": hash, "block_root": root}),
        ),
        (
            "execution_payload",
            json!({
                "slot": slot, "builder_index": "42", "block_hash": hash, "block_root": root,
                "execution_optimistic": optimistic,
            }),
        ),
        ("execution_payload_available", json!({"slot": slot, "block_root": root})),
        (
            "execution_payload_bid",
            gloas(json!({
                "message": {
                    "parent_block_hash": parent, "parent_block_root": block.parent_beacon_root().to_string(),
                    "block_hash": hash, "slot": slot, "builder_index": "42", "value": "1000000000",
                },
                "signature": signature("bid", block),
            })),
        ),
        (
            "payload_attestation_message",
            gloas(json!({
                "validator_index": validator,
                "data": {
                    "beacon_block_root": root, "slot": slot, "payload_present": true, "blob_data_available": true,
                },
                "signature": signature("payload", block),
            })),
        ),
        ("fast_confirmation", json!({"block": root, "slot": slot, "current_slot": slot})),
        (
            "proposer_preferences",
            gloas(json!({
                "message": {
                    "dependent_root": now, "proposal_slot": (block.slot + SLOTS_PER_EPOCH).to_string(),
                    "validator_index": validator, "fee_recipient": "0x0000000000000000000000000000000000000000",
                    "target_gas_limit": "60000000",
                },
                "signature": signature("preferences", block),
            })),
        ),
        ("inclusion_list", json!({"version": FORK, "data": {"slot": slot, "transactions": []}})),
    ]
}
