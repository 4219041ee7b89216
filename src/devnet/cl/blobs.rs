//! Blobs and data columns of the beacon API. Blocks of even slots have some, and commit to them.

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    super::{block::Block, fault::Store, hash::Hash, hex, http as answers},
    Api, FORK, Outcome, with_fork,
};

/// Blobs of a block, if the block has any.
const BLOBS: u64 = 3;
/// Columns that a node keeps.
const COLUMNS: u64 = 4;

/// The commitments of a block to its blobs.
pub(super) fn commitments(block: &Block) -> Vec<String> {
    (0..count(block)).map(|index| bytes("commitment", block, index)).collect()
}

fn count(block: &Block) -> u64 {
    if block.slot > 0 && block.slot.is_multiple_of(2) { BLOBS } else { 0 }
}

/// Forty-eight bytes that belong to this blob.
fn bytes(of: &str, block: &Block, index: u64) -> String {
    let one = Hash::derived(of, &[&block.hash.0[..], &index.to_be_bytes()].concat()).0;
    hex::encode(&[&one[..], &one[..16]].concat())
}

impl Api<'_> {
    /// The sidecars of a block's blobs; only of the indices that the query names, if there are any.
    pub(super) fn blob_sidecars(&self, id: &str, query: &str) -> Outcome {
        let block = self.find_stored(id, Store::Blobs)?;
        let header = self.header_json(&block, 0)["header"].clone();
        let sidecars = self.present(&block, query).map(|index| {
            json!({
                "index": index.to_string(), "blob": bytes("blob", &block, index),
                "kzg_commitment": bytes("commitment", &block, index), "kzg_proof": bytes("proof", &block, index),
                "signed_block_header": header, "kzg_commitment_inclusion_proof": [],
            })
        });
        Ok(self.of_blobs(Some(FORK), sidecars.collect()))
    }

    /// The blobs alone.
    pub(super) fn blobs(&self, id: &str, query: &str) -> Outcome {
        let block = self.find_stored(id, Store::Blobs)?;
        Ok(self.of_blobs(None, self.present(&block, query).map(|index| json!(bytes("blob", &block, index))).collect()))
    }

    pub(super) fn data_columns(&self, id: &str) -> Outcome {
        let block = self.find_stored(id, Store::Blobs)?;
        let header = self.header_json(&block, 0)["header"].clone();
        let columns = if self.present(&block, "").next().is_some() { COLUMNS } else { 0 };
        let columns = (0..columns).map(|index| {
            json!({
                "index": index.to_string(), "column": [bytes("column", &block, index)],
                "kzg_commitments": commitments(&block), "kzg_proofs": [bytes("proof", &block, index)],
                "signed_block_header": header, "kzg_commitments_inclusion_proof": [],
            })
        });
        Ok(self.of_blobs(Some(FORK), columns.collect()))
    }

    /// The indices of a block's blobs that the node has and the query wants.
    fn present(&self, block: &Block, query: &str) -> impl Iterator<Item = u64> + use<> {
        let lists = query.split('&').filter_map(|pair| pair.strip_prefix("indices="));
        let wanted: Vec<u64> = lists.flat_map(|list| list.split(',')).filter_map(|index| index.parse().ok()).collect();
        let there = count(block).min(self.faults.blobs_left().unwrap_or(u64::MAX));
        (0..there).filter(move |index| wanted.is_empty() || wanted.contains(index))
    }

    /// The answer; blobs alone are the same in all forks, and their answer names none.
    fn of_blobs(&self, version: Option<&str>, about: Value) -> http::Response<answers::Body> {
        let mut answer = self.description(None, about);
        if let Some(version) = version {
            answer["version"] = json!(version);
        }
        with_fork(answers::json(StatusCode::OK, answer.to_string()))
    }
}
