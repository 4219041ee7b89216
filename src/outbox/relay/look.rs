//! One question to the nodes: whether they know a transaction.

use std::{sync::Arc, time::Duration};

use alloy_primitives::{Address, B256};
use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::{
    call::Calls,
    domain::{hex, node_id::NodeId},
    outbox::{
        desk::{Found, Input},
        record::{BlockId, TxId},
    },
};

/// How long a node may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The longest answer that is read: a transaction with all its data, written as hex.
const MAX_ANSWER: usize = 4 << 20;

/// A question.
pub(super) struct Looking {
    pub(super) calls: Arc<Calls>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) id: TxId,
    pub(super) look: u64,
    pub(super) hash: B256,
    /// The sender, where its nonce at the final block is to be asked for.
    pub(super) sender: Option<Address>,
}

/// What one node knows of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowledge {
    InBlock(BlockId),
    Waiting,
    Unknown,
}

impl Looking {
    /// Asks, and brings the desk the answer.
    pub(super) async fn run(self) {
        let nodes = self.calls.usable_nodes();
        let found = join_all(nodes.iter().map(|node| self.transaction(*node))).await;
        let found = self.found(&nodes, &found);
        let final_nonces = match self.sender {
            Some(sender) => self.final_nonces(&nodes, sender).await,
            None => None,
        };
        let Self { id, look, inputs, .. } = self;
        // The relay ends the tasks when it ends.
        _ = inputs.send(Input::Looked { id, look, found, final_nonces }).await;
    }

    /// What all nodes together know. A block's word comes before a pool's, and of several blocks
    /// the first node's.
    fn found(&self, nodes: &[NodeId], found: &[Option<Knowledge>]) -> Found {
        let name = |node: NodeId| self.calls.pool().nodes[node].name.clone();
        let all = || nodes.iter().copied().zip(found);
        let in_block = all().find_map(|(node, known)| match known {
            Some(Knowledge::InBlock(block)) => Some(Found::InBlock { node: name(node), block: *block }),
            _ => None,
        });
        let waiting = || {
            let (node, _) = all().find(|(_, known)| **known == Some(Knowledge::Waiting))?;
            Some(Found::Waiting { node: name(node) })
        };
        in_block.or_else(waiting).unwrap_or_else(|| {
            let are_all_sure = !nodes.is_empty() && found.iter().all(Option::is_some);
            if are_all_sure { Found::Unknown } else { Found::Unsure }
        })
    }

    async fn transaction(&self, node: NodeId) -> Option<Knowledge> {
        let answer = self.ask(node, "eth_getTransactionByHash", &format!(r#"["{}"]"#, self.hash)).await?;
        read(&answer, &self.hash)
    }

    /// The fewest nonces that a node has the sender use at the final block: a single node's word
    /// must not end a transaction's life where others know better.
    async fn final_nonces(&self, nodes: &[NodeId], sender: Address) -> Option<u64> {
        let params = format!(r#"["{sender:#x}","finalized"]"#);
        let ask = async |node: &NodeId| {
            let answer = self.ask(*node, "eth_getTransactionCount", &params).await?;
            hex::quantity(serde_json::from_slice::<String>(&answer).ok()?)
        };
        join_all(nodes.iter().map(ask)).await.into_iter().flatten().min()
    }

    async fn ask(&self, node: NodeId, method: &str, params: &str) -> Option<Bytes> {
        self.calls.pool().ask_in_time(node, method, params, MAX_ANSWER, LIMIT).await.ok()?.ok()
    }
}

/// Reads a node's answer to the question for a transaction.
fn read(answer: &[u8], hash: &B256) -> Option<Knowledge> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Transaction {
        hash: B256,
        block_hash: Option<B256>,
        block_number: Option<String>,
    }
    if answer == b"null" {
        return Some(Knowledge::Unknown);
    }
    let transaction: Transaction = serde_json::from_slice(answer).ok()?;
    if transaction.hash != *hash {
        return None;
    }
    match (transaction.block_hash, transaction.block_number) {
        (Some(hash), Some(number)) => Some(Knowledge::InBlock(BlockId { number: hex::quantity(number)?, hash })),
        _ => Some(Knowledge::Waiting),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_block_pool_or_neither() {
        let (hash, block) = (B256::repeat_byte(1), B256::repeat_byte(2));
        let answer = |rest: &str| format!(r#"{{"hash":"{hash}","nonce":"0x1"{rest}}}"#);
        let told = |text: &str| read(text.as_bytes(), &hash);
        assert_eq!(told("null"), Some(Knowledge::Unknown));
        for rest in ["", r#","blockHash":null,"blockNumber":null"#] {
            assert_eq!(told(&answer(rest)), Some(Knowledge::Waiting));
        }
        let mined = format!(r#","blockHash":"{block}","blockNumber":"0x10""#);
        let expected = Knowledge::InBlock(BlockId { number: 16, hash: block });
        assert_eq!(told(&answer(&mined)), Some(expected));
        assert_eq!(read(answer("").as_bytes(), &block), None, "another transaction");
        assert_eq!(told("{}"), None);
    }
}
