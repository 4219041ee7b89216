//! Blobs and data columns of the beacon API. Blocks of even slots have some, and commit to them.

use alloy_primitives::B256;
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    super::{block::Block, fault::Store, hash, hex, http as answers},
    Api, FORK, Outcome, with_fork,
};

/// Columns that a node keeps.
const COLUMNS: u64 = 4;

/// Field elements of a blob, and of one cell of its extension; each has 32 bytes.
const BLOB_ELEMENTS: usize = 4096;
const CELL_ELEMENTS: usize = 64;
/// Hashes that prove that a block commits to one blob, and to all of them.
const BLOB_PROOF: u64 = 17;
const COLUMN_PROOF: u64 = 4;

/// The commitments of a block to its blobs.
pub(super) fn commitments(block: &Block) -> Vec<String> {
    of_each(block, "commitment")
}

/// A commitment or a proof for each blob of the block.
fn of_each(block: &Block, what: &str) -> Vec<String> {
    (0..block.blobs()).map(|index| point(what, block, index)).collect()
}

fn derived(of: &str, block: &Block, index: u64) -> B256 {
    hash::derived(of, &[&block.hash.0[..], &index.to_be_bytes()].concat())
}

/// Forty-eight bytes that belong to this blob, as commitments and proofs have.
fn point(of: &str, block: &Block, index: u64) -> String {
    let one = derived(of, block, index).0;
    hex::encode([&one[..], &one[..16]].concat())
}

/// Field elements that belong to this blob: the same one `count` times.
fn elements(of: &str, block: &Block, index: u64, count: usize) -> String {
    let mut one = derived(of, block, index).0;
    // An element is less than the field's modulus, whose first byte is 0x73.
    one[0] = 0;
    hex::encode(one.repeat(count))
}

fn branch(of: &str, block: &Block, index: u64, length: u64) -> Vec<String> {
    (0..length).map(|depth| derived(of, block, index << 8 | depth).to_string()).collect()
}

impl Api<'_> {
    /// The sidecars of a block's blobs; only of the indices that the query names, if there are any.
    pub(super) fn blob_sidecars(&self, id: &str, query: &str) -> Outcome {
        let block = self.find_stored(id, Store::Blobs)?;
        let header = self.header_json(&block, 0)["header"].clone();
        let sidecars = self.present(&block, query).map(|index| {
            json!({
                "index": index.to_string(), "blob": elements("blob", &block, index, BLOB_ELEMENTS),
                "kzg_commitment": point("commitment", &block, index), "kzg_proof": point("proof", &block, index),
                "signed_block_header": header,
                "kzg_commitment_inclusion_proof": branch("inclusion", &block, index, BLOB_PROOF),
            })
        });
        Ok(self.of_blobs(Some(FORK), sidecars.collect()))
    }

    /// The blobs alone.
    pub(super) fn blobs(&self, id: &str, query: &str) -> Outcome {
        let block = self.find_stored(id, Store::Blobs)?;
        let blobs = self.present(&block, query).map(|index| json!(elements("blob", &block, index, BLOB_ELEMENTS)));
        Ok(self.of_blobs(None, blobs.collect()))
    }

    pub(super) fn data_columns(&self, id: &str) -> Outcome {
        let block = self.find_stored(id, Store::Blobs)?;
        let header = self.header_json(&block, 0)["header"].clone();
        let columns = if self.present(&block, "").next().is_some() { COLUMNS } else { 0 };
        let columns = (0..columns).map(|index| {
            let cells = (0..block.blobs()).map(|blob| elements("cell", &block, blob << 8 | index, CELL_ELEMENTS));
            json!({
                "index": index.to_string(), "column": cells.collect::<Vec<_>>(),
                "kzg_commitments": commitments(&block), "kzg_proofs": of_each(&block, "cell proof"),
                "signed_block_header": header,
                "kzg_commitments_inclusion_proof": branch("all included", &block, 0, COLUMN_PROOF),
            })
        });
        Ok(self.of_blobs(Some(FORK), columns.collect()))
    }

    /// The indices of a block's blobs that the node has and the query wants.
    fn present(&self, block: &Block, query: &str) -> impl Iterator<Item = u64> + use<> {
        let lists = query.split('&').filter_map(|pair| pair.strip_prefix("indices="));
        let wanted: Vec<u64> = lists.flat_map(|list| list.split(',')).filter_map(|index| index.parse().ok()).collect();
        let there = block.blobs().min(self.faults.blobs_left().unwrap_or(u64::MAX));
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
