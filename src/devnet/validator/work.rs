//! The work of one slot.

use std::sync::Arc;

use alloy_primitives::B256;
use serde_json::{Value, json};
use tokio::time::{sleep_until, timeout_at};

use super::{
    super::{
        gossip::{Kind, data_root},
        hex,
        view::SLOTS_PER_EPOCH,
    },
    Shared,
};

/// Does the duties of one slot, from the slot's first moment to its end.
pub(super) async fn slot(shared: Arc<Shared>, slot: u64) {
    let half = async {
        sleep_until(shared.times.start_of(slot) + shared.times.slot / 2).await;
        if slot.is_multiple_of(SLOTS_PER_EPOCH) {
            shared.introduce().await;
        }
        shared.learn(slot).await;
    };
    let votes = async {
        shared.wait_for_head(slot).await;
        tokio::join!(shared.vote(slot), shared.confirm(slot));
    };
    tokio::join!(half, votes, shared.propose(slot));
}

impl Shared {
    /// Waits until a `head` event names a head of this slot, or a third of the slot is over.
    async fn wait_for_head(&self, slot: u64) {
        let mut heads = self.heads.clone();
        let told = heads.wait_for(|heads| heads.last().is_some_and(|head| head.slot >= slot));
        _ = timeout_at(self.times.start_of(slot) + self.times.slot / 3, told).await;
    }

    async fn two_thirds(&self, slot: u64) {
        sleep_until(self.times.start_of(slot) + self.times.slot * 2 / 3).await;
    }

    /// Attests to the head, and aggregates the attestations.
    async fn vote(&self, slot: u64) -> Option<()> {
        let voters = self.duties.attesters(slot);
        if voters.is_empty() {
            return None;
        }
        let path = format!("/eth/v1/validator/attestation_data?slot={slot}&committee_index=0");
        let mut answer = self.http.get(&path, self.times.slot).await?;
        let (data, signature) = (answer["data"].take(), "0x00");
        let root = root(&data["beacon_block_root"])?;
        let has_passed = self.heads.borrow().has_passed(root, slot);
        for voter in &voters {
            self.ledger.signed(slot, Kind::Attestation, *voter, root);
            self.ledger.passed(has_passed);
        }
        let votes: Value = voters.iter().map(|voter| {
            json!({"committee_index": "0", "attester_index": voter.to_string(), "data": data, "signature": signature})
        }).collect();
        let posting = async { self.http.post("/eth/v2/beacon/pool/attestations", &votes, self.times.slot).await };
        tokio::join!(posting, self.two_thirds(slot));
        let path = format!(
            "/eth/v2/validator/aggregate_attestation?slot={slot}&attestation_data_root={}&committee_index=0",
            data_root(&data)
        );
        let mut answer = self.http.get(&path, self.times.slot).await?;
        let aggregate = answer["data"].take();
        let proofs: Value = voters.iter().map(|voter| {
            self.ledger.signed(slot, Kind::Aggregate, *voter, root);
            json!({"message": {"aggregator_index": voter.to_string(), "aggregate": aggregate, "selection_proof": "0x00"}, "signature": signature})
        }).collect();
        self.http.post("/eth/v2/validator/aggregate_and_proofs", &proofs, self.times.slot).await?;
        Some(())
    }

    /// Signs sync messages for the head, and puts them together as contributions.
    async fn confirm(&self, slot: u64) -> Option<()> {
        let members = self.duties.in_sync_committee(slot);
        if members.is_empty() {
            return None;
        }
        let answer = self.http.get("/eth/v1/beacon/blocks/head/root", self.times.slot).await?;
        let root = root(&answer["data"]["root"])?;
        let has_passed = self.heads.borrow().has_passed(root, slot);
        let messages: Value = members.iter().map(|member| {
            self.ledger.signed(slot, Kind::SyncMessage, *member, root);
            self.ledger.passed(has_passed);
            json!({"slot": slot.to_string(), "beacon_block_root": root.to_string(), "validator_index": member.to_string(), "signature": "0x00"})
        }).collect();
        let posting = async { self.http.post("/eth/v1/beacon/pool/sync_committees", &messages, self.times.slot).await };
        tokio::join!(posting, self.two_thirds(slot));
        let path = format!(
            "/eth/v1/validator/sync_committee_contribution?slot={slot}&subcommittee_index=0&beacon_block_root={root}"
        );
        let mut answer = self.http.get(&path, self.times.slot).await?;
        let contribution = answer["data"].take();
        let proofs: Value = members.iter().map(|member| {
            self.ledger.signed(slot, Kind::Contribution, *member, root);
            json!({"message": {"aggregator_index": member.to_string(), "contribution": contribution, "selection_proof": "0x00"}, "signature": "0x00"})
        }).collect();
        self.http.post("/eth/v1/validator/contribution_and_proofs", &proofs, self.times.slot).await?;
        Some(())
    }

    /// Proposes a block, if the slot is one of its validators'.
    async fn propose(&self, slot: u64) -> Option<()> {
        let proposer = self.duties.proposer(slot).filter(|index| self.client.validators.contains(index))?;
        let path = format!("/eth/v3/validator/blocks/{slot}?randao_reveal=0x00");
        let mut answer = self.http.get(&path, self.times.slot).await?;
        let block = answer["data"]["block"].take();
        self.ledger.signed(slot, Kind::Block, proposer, root(&block["parent_root"])?);
        let signed = json!({"signed_block": {"message": block, "signature": "0x00"}, "kzg_proofs": [], "blobs": []});
        self.http.post("/eth/v2/beacon/blocks", &signed, self.times.slot).await?;
        Some(())
    }
}

fn root(value: &Value) -> Option<B256> {
    hex::fixed(value.as_str()?)
}
