//! One question to the nodes: whether they know a transaction. Their answers are believed as
//! [`voices`] says.

use std::{sync::Arc, time::Duration};

use alloy_primitives::{Address, B256};
use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::voices;
use crate::{
    call::Calls,
    config::SendTo,
    domain::{hex, node_id::NodeId},
    outbox::{
        desk::{Found, Input},
        record::{BlockId, TxId},
    },
};

/// How long a node may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
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
    /// The block that had it, as far as the desk knows.
    pub(super) block: Option<BlockId>,
    /// The nodes that are to have the transaction.
    pub(super) send_to: SendTo,
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
        let found = self.found(&nodes, &found).await;
        let final_nonces = match self.sender {
            Some(sender) => self.final_nonces(&nodes, sender).await,
            None => None,
        };
        let Self { id, look, inputs, .. } = self;
        // The relay ends the tasks when it ends.
        _ = inputs.send(Input::Looked { id, look, found, final_nonces }).await;
    }

    /// The knowledge of all nodes together. A block that one node names is looked up at the others.
    async fn found(&self, nodes: &[NodeId], known: &[Option<Knowledge>]) -> Found {
        let name = |node: NodeId| self.calls.pool().nodes[node].name.clone();
        let those = |which: Knowledge| {
            nodes.iter().copied().zip(known).filter(move |(_, known)| **known == Some(which)).map(|(node, _)| node)
        };
        let mut claims: Vec<(NodeId, BlockId)> = Vec::new();
        for (node, known) in nodes.iter().zip(known) {
            if let Some(Knowledge::InBlock(block)) = known
                && claims.iter().all(|(_, other)| other != block)
            {
                claims.push((*node, *block));
            }
        }
        let mut is_disputed = false;
        for (node, block) in claims {
            let mut voices = those(Knowledge::InBlock(block)).count();
            if !voices::are_enough(voices, nodes.len()) {
                let others =
                    nodes.iter().copied().filter(|other| those(Knowledge::InBlock(block)).all(|by| by != *other));
                let said = join_all(others.map(|other| self.is_in(other, block))).await;
                voices += said.iter().filter(|said| **said == Some(true)).count();
                let denials = said.iter().filter(|said| **said == Some(false)).count();
                is_disputed |= !voices::are_enough(denials, nodes.len());
            }
            if voices::are_enough(voices, nodes.len()) {
                return Found::InBlock { node: name(node), block };
            }
        }
        let unknown: Vec<NodeId> = those(Knowledge::Unknown).collect();
        let waiting = those(Knowledge::Waiting).next();
        let absent = those(Knowledge::Waiting).count() + unknown.len();
        let is_enough = voices::are_enough(absent, nodes.len());
        let is_in_no_block = known.iter().all(|known| !matches!(known, Some(Knowledge::InBlock(_))));
        if let Some(block) = self.block.filter(|_| is_in_no_block && !is_disputed && !is_enough) {
            // Nodes that say nothing of the transaction may say that the block is gone.
            let silent = nodes.iter().zip(known).filter(|(_, known)| known.is_none()).map(|(node, _)| *node);
            let said = join_all(silent.map(|node| self.is_in(node, block))).await;
            let denials = said.iter().filter(|said| **said == Some(false)).count();
            if voices::are_enough(absent + denials, nodes.len()) {
                return Found::Unknown;
            }
        }
        // The nodes that are to have it, and do not.
        let targets = self.calls.send_targets(self.send_to);
        let missing: Vec<_> = unknown.into_iter().filter(|node| targets.contains(node)).map(name).collect();
        match waiting {
            _ if is_disputed => Found::Disputed,
            Some(node) if is_enough => Found::Waiting { node: name(node), missing },
            None if is_enough => Found::Unknown,
            None if is_in_no_block && !missing.is_empty() => Found::Missing { at: missing },
            _ => Found::Unsure,
        }
    }

    /// Whether this block is the node's own at its height, and has the transaction. `None` if the
    /// node has no block there.
    async fn is_in(&self, node: NodeId, block: BlockId) -> Option<bool> {
        #[derive(Deserialize)]
        struct Hashes {
            hash: B256,
            transactions: Vec<B256>,
        }
        let answer = self.ask(node, "eth_getBlockByNumber", &format!(r#"["{:#x}",false]"#, block.number)).await?;
        let own: Hashes = serde_json::from_slice(&answer).ok()?;
        Some(own.hash == block.hash && own.transactions.contains(&self.hash))
    }

    async fn transaction(&self, node: NodeId) -> Option<Knowledge> {
        let answer = self.ask(node, "eth_getTransactionByHash", &format!(r#"["{}"]"#, self.hash)).await?;
        read(&answer, &self.hash)
    }

    /// How many nonces the sender has used at the final block.
    async fn final_nonces(&self, nodes: &[NodeId], sender: Address) -> Option<u64> {
        let params = format!(r#"["{sender:#x}","finalized"]"#);
        let ask = async |node: &NodeId| {
            let answer = self.ask(*node, "eth_getTransactionCount", &params).await?;
            hex::quantity(serde_json::from_slice::<String>(&answer).ok()?)
        };
        let told = join_all(nodes.iter().map(ask)).await.into_iter().flatten().collect();
        voices::reached(told, nodes.len())
    }

    async fn ask(&self, node: NodeId, method: &str, params: &str) -> Option<Bytes> {
        self.calls.pool().ask_in_time(node, method, params, MAX_ANSWER, LOOK_TIMEOUT).await.ok()?.ok()
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
