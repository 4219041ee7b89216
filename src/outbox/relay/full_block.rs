//! A block with its transactions, as the nodes give it; two must give the same ([`voices`]).
//!
//! Some nodes never give full blocks: behind a gateway that cuts long answers, or without the
//! method. A node that gave none for [`BLOCK_TIMEOUT`], where another node did, is *withholding*
//! for [`WITHHELD_FOR`]: the node is asked last, once for a block, and waited for no longer than
//! [`ANOTHER_AFTER`]. Otherwise each block would cost [`BLOCK_TIMEOUT`] where only two nodes are
//! usable.
//!
//! A block of which all other nodes say that they do not have it is read no more after
//! [`GONE_AFTER`]: a reorganisation took the block, and the next blocks wait.

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
/// How long all nodes may say that they do not have a block until the block counts as gone.
const GONE_AFTER: Duration = Duration::from_secs(1);
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
    let end = Instant::now() + BLOCK_TIMEOUT;
    let mut pauses = PAUSES;
    let mut told: Vec<(NodeId, Vec<InBlock>)> = Vec::new();
    let mut gone_since = None;
    let name = |node: NodeId| &calls.pool().nodes[node].name;
    let ask = async |node: NodeId| {
        let left = end.saturating_duration_since(Instant::now());
        let limit = if withholding.has(name(node)) { left.min(ANOTHER_AFTER) } else { left };
        (node, transactions(calls, node, block, limit).await)
    };
    loop {
        let mut usable = calls.usable_nodes();
        usable.sort_by_key(|node| withholding.has(name(*node)));
        let mut lacks = Vec::new();
        told.retain(|(node, _)| usable.contains(node));
        let has_told = |node: &NodeId| told.iter().any(|(other, _)| other == node);
        let mut rest = usable.iter().copied().filter(|node| !has_told(node)).collect::<Vec<_>>().into_iter();
        let lacking = 2_usize.saturating_sub(told.len()).max(1);
        let mut asked: FuturesUnordered<_> = rest.by_ref().take(lacking).map(&ask).collect();
        loop {
            let said: Vec<_> = told.iter().map(|(_, said)| said).collect();
            if let Some(found) = voices::agreed(&said, usable.len()) {
                return FullBlock::Agreed((*found).clone());
            }
            // Both arms are cancel-safe: a stream that is not ready keeps its futures.
            let next = tokio::select! {
                biased;
                Some((node, said)) = asked.next() => match said {
                    Said::Block(said) => {
                        withholding.remove(name(node));
                        told.push((node, said));
                        if told.len() > 1 { rest.next() } else { None }
                    }
                    Said::Null => {
                        lacks.push(node);
                        rest.next()
                    }
                    Said::Nothing => rest.next(),
                },
                () = sleep(ANOTHER_AFTER), if rest.len() > 0 => rest.next(),
                else => break,
            };
            asked.extend(next.map(&ask));
        }
        let now = Instant::now();
        let lacks_it = |node: &&NodeId| lacks.contains(*node) || withholding.has(name(**node));
        let is_gone = !lacks.is_empty() && usable.iter().filter(lacks_it).count() == usable.len();
        gone_since = gone_since.filter(|_| is_gone).or(is_gone.then_some(now));
        if gone_since.is_some_and(|since| now.saturating_duration_since(since) >= GONE_AFTER) {
            return FullBlock::Claimed(Vec::new());
        }
        let is_over = now >= end;
        let mut silent = usable.iter().filter(|node| told.iter().all(|(other, _)| other != *node));
        if is_over && !told.is_empty() {
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

/// A node's answer to the question for a block.
enum Said {
    /// These are the block's transactions.
    Block(Vec<InBlock>),
    /// The node does not have the block.
    Null,
    /// Nothing that can be used, or nothing in time.
    Nothing,
}

/// The transactions of a block, as one node gives them.
async fn transactions(calls: &Calls, node: NodeId, block: &BlockId, limit: Duration) -> Said {
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
    let Ok(Ok(answer)) = asked.await else { return Said::Nothing };
    let whole = match serde_json::from_slice::<Option<Whole>>(&answer) {
        Ok(Some(whole)) if whole.hash == block.hash && hex::quantity(&whole.number) == Some(block.number) => whole,
        Ok(None) => return Said::Null,
        Ok(Some(_)) => return Said::Nothing,
        Err(error) => {
            debug!(node = &*calls.pool().nodes[node].name, %error, "a node's block cannot be parsed");
            return Said::Nothing;
        }
    };
    let read = |Transaction { hash, from, nonce }: Transaction| {
        Some(InBlock { hash, sender: from, nonce: hex::quantity(&nonce)? })
    };
    whole.transactions.into_iter().map(read).collect::<Option<_>>().map_or(Said::Nothing, Said::Block)
}
