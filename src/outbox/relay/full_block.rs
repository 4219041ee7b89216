//! A block with its transactions, as the nodes give it; two must give the same ([`voices`]).
//!
//! Some nodes never give full blocks: behind a gateway that cuts long answers, or without the
//! method. A node that gave none for [`BLOCK_TIMEOUT`], or none in [`ANOTHER_AFTER`], where two
//! others agreed, is *withholding* for [`WITHHELD_FOR`]: the node is asked last, once for a block,
//! and waited for no longer than [`ANOTHER_AFTER`]. Otherwise each block would cost
//! [`BLOCK_TIMEOUT`] where too few nodes give full blocks, and the outbox would fall ever further
//! behind a chain whose blocks come faster.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alloy_primitives::{Address, B256};
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::voices;
use crate::{
    call::Calls,
    domain::{backoff::Backoff, hex, node_id::NodeId},
    outbox::{desk::InBlock, record::BlockId},
};

/// How long the nodes may take until two give the same block with its transactions: a node may
/// have the block later than another.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// A node that takes longer is waited for no more before another is asked too.
const ANOTHER_AFTER: Duration = Duration::from_millis(500);
/// How long a node that gave no full block counts as withholding.
const WITHHELD_FOR: Duration = Duration::from_secs(300);
/// The pauses before nodes are asked again for a block that they did not give.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// The longest block that is read, in bytes: all its transactions with their data, written as hex.
const MAX_BLOCK: usize = 64 << 20;

/// A block's transactions.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FullBlock {
    /// Enough nodes gave these.
    Agreed(Vec<InBlock>),
    /// Too few nodes gave the block. The hashes that single nodes gave, which may be wrong.
    Claimed(Vec<B256>),
}

/// The nodes that give no full blocks, by name, and until when each counts as such.
#[derive(Debug, Default)]
pub(super) struct Withholding(Mutex<BTreeMap<Arc<str>, Instant>>);

impl Withholding {
    fn has(&self, node: &str) -> bool {
        self.nodes().get(node).is_some_and(|until| Instant::now() < *until)
    }

    fn add(&self, node: &Arc<str>) {
        self.nodes().insert(node.clone(), Instant::now() + WITHHELD_FOR);
    }

    fn remove(&self, node: &str) {
        self.nodes().remove(node);
    }

    /// The nodes. Each change is made whole under the lock.
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a block. The first two nodes are asked, then further ones while those fail, take long, or
/// say different things.
pub(super) async fn read(calls: &Calls, withholding: &Withholding, block: &BlockId) -> FullBlock {
    let start = Instant::now();
    let end = start + BLOCK_TIMEOUT;
    let mut pauses = PAUSES;
    let mut told: Vec<(NodeId, Vec<InBlock>)> = Vec::new();
    let name = |node: NodeId| &calls.pool().nodes[node].name;
    let ask = async |node: NodeId| {
        let left = end.saturating_duration_since(Instant::now());
        let limit = if withholding.has(name(node)) { left.min(ANOTHER_AFTER) } else { left };
        (node, transactions(calls, node, block, limit).await)
    };
    loop {
        let mut usable = calls.usable_nodes();
        usable.sort_by_key(|node| withholding.has(name(*node)));
        told.retain(|(node, _)| usable.contains(node));
        let has_told = |node: &NodeId| told.iter().any(|(other, _)| other == node);
        let mut rest = usable.iter().copied().filter(|node| !has_told(node)).collect::<Vec<_>>().into_iter();
        let lacking = 2_usize.saturating_sub(told.len()).max(1);
        let first: Vec<NodeId> = rest.by_ref().take(lacking).collect();
        let mut silent = first.clone();
        let mut asked: FuturesUnordered<_> = first.into_iter().map(&ask).collect();
        loop {
            let said: Vec<_> = told.iter().map(|(_, said)| said).collect();
            if let Some(found) = voices::agreed(&said, usable.len()) {
                if start.elapsed() >= ANOTHER_AFTER {
                    silent.iter().for_each(|node| withholding.add(name(*node)));
                }
                return FullBlock::Agreed((*found).clone());
            }
            // Both arms are cancel-safe: a stream that is not ready keeps its futures.
            let next = tokio::select! {
                biased;
                Some((node, said)) = asked.next() => {
                    silent.retain(|other| *other != node);
                    match said {
                        Some(said) => {
                            withholding.remove(name(node));
                            told.push((node, said));
                            if told.len() > 1 { rest.next() } else { None }
                        }
                        None => rest.next(),
                    }
                }
                () = sleep(ANOTHER_AFTER), if rest.len() > 0 => rest.next(),
                else => break,
            };
            silent.extend(next);
            asked.extend(next.map(&ask));
        }
        let is_over = Instant::now() >= end;
        let mut silent = usable.iter().filter(|node| told.iter().all(|(other, _)| other != *node));
        if is_over {
            silent.clone().for_each(|node| withholding.add(name(*node)));
        }
        if is_over || silent.all(|node| withholding.has(name(*node))) {
            debug!(block = block.number, nodes = told.len(), "too few nodes returned this block with its transactions");
            let hashes = told.into_iter().flat_map(|(_, said)| said).map(|transaction| transaction.hash);
            return FullBlock::Claimed(hashes.collect());
        }
        sleep(pauses.pause()).await;
    }
}

/// The transactions of a block, as one node gives them.
async fn transactions(calls: &Calls, node: NodeId, block: &BlockId, limit: Duration) -> Option<Vec<InBlock>> {
    #[derive(Deserialize)]
    struct Transaction {
        hash: B256,
        from: Address,
        nonce: String,
    }
    #[derive(Deserialize)]
    struct Whole {
        hash: B256,
        number: String,
        transactions: Vec<Transaction>,
    }
    let params = format!(r#"["{}",true]"#, block.hash);
    let asked = calls.pool().ask_in_time(node, "eth_getBlockByHash", &params, MAX_BLOCK, limit);
    let answer = asked.await.ok()?.ok()?;
    let whole = match serde_json::from_slice::<Option<Whole>>(&answer) {
        Ok(Some(whole)) if whole.hash == block.hash && hex::quantity(&whole.number) == Some(block.number) => whole,
        Ok(_) => return None,
        Err(error) => {
            debug!(node = &*calls.pool().nodes[node].name, %error, "a node's block cannot be parsed");
            return None;
        }
    };
    let read = |Transaction { hash, from, nonce }: Transaction| {
        Some(InBlock { hash, sender: from, nonce: hex::quantity(&nonce)? })
    };
    whole.transactions.into_iter().map(read).collect()
}
