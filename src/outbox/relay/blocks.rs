//! The chain as a relay follows it: the follower's changes, with the blocks' transactions and the
//! newest final block. A block's transactions and the final block are believed as [`voices`] says.

use std::{sync::Arc, time::Duration};

use alloy_primitives::{Address, B256};
use futures_util::{
    future::join_all,
    stream::{FuturesUnordered, StreamExt},
};
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::{Relay, RelayHandle, voices};
use crate::{
    call::Calls,
    chain::{Block, Change, Interest, Listening},
    domain::{backoff::Backoff, block::BlockRef, hex, node_id::NodeId},
    net::BoxFuture,
    outbox::{
        desk::{Blocks, Final, InBlock, Input, NewBlock},
        record::BlockId,
    },
};

/// How long a relay without transactions goes on to follow the chain.
const IDLE: Duration = Duration::from_secs(300);
/// How long the nodes may take until two give the same block with its transactions: a node may
/// have the block later than another.
const LIMIT: Duration = Duration::from_secs(10);
/// A node that takes longer is waited for no more before another is asked too.
const ANOTHER_AFTER: Duration = Duration::from_millis(500);
/// The pauses before nodes are asked again for a block that they did not give.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// How long a node may take to tell the final block.
const FINAL_LIMIT: Duration = Duration::from_secs(2);
/// The longest block that is read, in bytes: all its transactions with their data, written as hex.
const MAX_BLOCK: usize = 64 << 20;
/// The longest answer with a header.
const MAX_HEADER: usize = 4 << 20;
/// Blocks behind the newest that count as final where no node tells a final block: on chains that
/// have none.
const DEEP_ENOUGH: u64 = 1024;
/// From one question for the final block to the next, at least.
const FINAL_PAUSE: Duration = Duration::from_secs(1);

/// How a relay follows the chain.
pub(super) struct Following {
    /// `None` for a network without nodes.
    interest: Option<Arc<Interest>>,
    listening: Option<Listening>,
    /// Since when the desk has had nothing to follow the chain for.
    idle: Option<Instant>,
    /// Whether blocks went untold to the desk.
    is_behind: bool,
    /// Whether the transactions of blocks matter.
    with_transactions: bool,
    asked_final: Option<Instant>,
    reading: Option<BoxFuture<'static, Blocks>>,
}

impl Following {
    pub(super) fn new(interest: Option<Arc<Interest>>) -> Self {
        Self {
            interest,
            listening: None,
            idle: None,
            is_behind: false,
            with_transactions: false,
            asked_final: None,
            reading: None,
        }
    }

    /// The chain is that of this interest from now on.
    pub(super) fn take_up(&mut self, interest: Option<Arc<Interest>>) {
        let is_same = match (&self.interest, &interest) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        if !is_same {
            *self = Self::new(interest);
        }
    }

    /// Blocks may go untold from here on.
    pub(super) fn missed(&mut self) {
        self.is_behind = true;
        self.reading = None;
    }

    /// The next change of the chain, whole. Cancel-safe. Never ends while the chain is not
    /// followed.
    pub(super) async fn next(&mut self, handle: &RelayHandle) -> Blocks {
        loop {
            if let Some(reading) = &mut self.reading {
                let mut blocks = reading.await;
                self.reading = None;
                blocks.skipped |= std::mem::take(&mut self.is_behind);
                return blocks;
            }
            let Some(listening) = &mut self.listening else { return std::future::pending().await };
            let Some(change) = listening.next().await else {
                // The follower is gone, and with it the network.
                self.listening = None;
                continue;
            };
            let now = Instant::now();
            let is_time = self.asked_final.is_none_or(|asked| now.saturating_duration_since(asked) >= FINAL_PAUSE);
            if is_time {
                self.asked_final = Some(now);
            }
            // Without nodes there is no follower either.
            let Some(calls) = handle.calls() else { continue };
            self.reading = Some(Box::pin(whole(calls, change, self.with_transactions, is_time)));
        }
    }
}

impl Relay {
    /// Follows the chain while there is something to follow it for.
    pub(super) fn follow(&mut self) {
        let following = &mut self.following;
        // A block may have a transaction that was given up.
        following.with_transactions = !self.desk.is_idle() || !self.given_up.is_empty();
        if following.with_transactions {
            following.idle = None;
            if following.listening.is_none()
                && let Some(interest) = &following.interest
            {
                following.listening = Some(interest.listen());
                following.is_behind = true;
            }
        } else if following.listening.is_some() {
            let now = Instant::now();
            let since = *following.idle.get_or_insert(now);
            if now.saturating_duration_since(since) > IDLE {
                (following.listening, following.reading, following.idle) = (None, None, None);
            }
        }
    }

    /// Gives the desk a change of the chain.
    pub(super) async fn blocks(&mut self, mut blocks: Blocks) {
        let hashes = blocks.added.iter().flat_map(|block| &block.transactions).map(|transaction| transaction.hash);
        let mut recalled = Vec::new();
        for hash in hashes {
            for id in self.given_up.of(&self.network, &hash) {
                let read = self.shared.store.read().and_then(|reader| reader.record(&id));
                match read {
                    Ok(found) => recalled.extend(found),
                    Err(error) => {
                        warn!(hash = %id.hash, %error, "a record that a block concerns cannot be read");
                    }
                }
            }
        }
        blocks.recalled = recalled;
        self.input(Input::Blocks(Box::new(blocks))).await;
    }
}

/// A change with all that the desk needs. Where no two nodes give the same block with its
/// transactions, the change is as one that was skipped: the desk then asks for its transactions.
async fn whole(calls: Arc<Calls>, change: Change, with_transactions: bool, with_final: bool) -> Blocks {
    let mut blocks = Blocks {
        removed: change.removed.iter().map(|block| name(block)).collect(),
        skipped: change.skipped,
        ..Blocks::default()
    };
    for block in &change.added {
        let mut new = NewBlock { id: name(block), transactions: Vec::new() };
        if with_transactions {
            match transactions(&calls, block).await {
                Some(found) => new.transactions = found,
                None => blocks.skipped = true,
            }
        }
        blocks.added.push(new);
    }
    if with_final {
        let deep = change.added.last().and_then(|tip| tip.number.checked_sub(DEEP_ENOUGH));
        blocks.finalized = finalized(&calls).await.map(Final::Told).or(deep.map(Final::Deep));
    }
    blocks
}

fn name(block: &Block) -> BlockId {
    BlockId { number: block.number, hash: block.hash }
}

/// The transactions of a block, as two nodes give them. The first two are asked, then further ones
/// while those fail, take long, or say different things.
async fn transactions(calls: &Calls, block: &Block) -> Option<Vec<InBlock>> {
    let end = Instant::now() + LIMIT;
    let mut pauses = PAUSES;
    let mut told: Vec<(NodeId, Vec<InBlock>)> = Vec::new();
    loop {
        let usable = calls.usable_nodes();
        told.retain(|(node, _)| usable.contains(node));
        let has_told = |node: &NodeId| told.iter().any(|(other, _)| other == node);
        let mut rest = usable.iter().copied().filter(|node| !has_told(node)).collect::<Vec<_>>().into_iter();
        let lacking = 2_usize.saturating_sub(told.len()).max(1);
        let mut asked: FuturesUnordered<_> =
            rest.by_ref().take(lacking).map(|node| transactions_of(calls, node, block, end)).collect();
        loop {
            let said: Vec<_> = told.iter().map(|(_, said)| said).collect();
            if let Some(found) = voices::agreed(&said, usable.len()) {
                return Some((*found).clone());
            }
            // Both arms are cancel-safe: a stream that is not ready keeps its futures.
            let next = tokio::select! {
                biased;
                Some((node, said)) = asked.next() => match said {
                    Some(said) => {
                        told.push((node, said));
                        if told.len() > 1 { rest.next() } else { None }
                    }
                    None => rest.next(),
                },
                () = sleep(ANOTHER_AFTER), if rest.len() > 0 => rest.next(),
                else => break,
            };
            asked.extend(next.map(|node| transactions_of(calls, node, block, end)));
        }
        if told.len() >= usable.len() || Instant::now() >= end {
            debug!(block = block.number, nodes = told.len(), "too few nodes returned this block with its transactions");
            return None;
        }
        sleep(pauses.pause()).await;
    }
}

/// The transactions of a block, as one node gives them.
async fn transactions_of(calls: &Calls, node: NodeId, block: &Block, end: Instant) -> (NodeId, Option<Vec<InBlock>>) {
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
    let left = end.saturating_duration_since(Instant::now());
    let Some(answer) = ask(calls, node, "eth_getBlockByHash", &params, MAX_BLOCK, left).await else {
        return (node, None);
    };
    let whole = match serde_json::from_slice::<Option<Whole>>(&answer) {
        Ok(Some(whole)) if whole.hash == block.hash && hex::quantity(&whole.number) == Some(block.number) => whole,
        Ok(_) => return (node, None),
        Err(error) => {
            debug!(node = &*calls.pool().nodes[node].name, %error, "a node's block cannot be parsed");
            return (node, None);
        }
    };
    let read = |Transaction { hash, from, nonce }: Transaction| {
        Some(InBlock { hash, sender: from, nonce: hex::quantity(&nonce)? })
    };
    (node, whole.transactions.into_iter().map(read).collect())
}

/// The highest final block that two nodes have reached, if the pool's head has reached it too.
async fn finalized(calls: &Calls) -> Option<BlockId> {
    let nodes = calls.usable_nodes();
    let told = async |node: &NodeId| {
        let params = r#"["finalized",false]"#;
        let answer = ask(calls, *node, "eth_getBlockByNumber", params, MAX_HEADER, FINAL_LIMIT).await?;
        let block = BlockRef::read(&answer).ok()?;
        Some((block.number, block.hash.parse::<B256>().ok()?))
    };
    let told = join_all(nodes.iter().map(told)).await.into_iter().flatten().collect();
    let (number, hash) = voices::reached(told, nodes.len())?;
    calls.pool().snapshot().head.filter(|head| number <= *head).map(|_| BlockId { number, hash })
}

async fn ask(
    calls: &Calls,
    node: NodeId,
    method: &str,
    params: &str,
    most: usize,
    limit: Duration,
) -> Option<bytes::Bytes> {
    calls.pool().ask_in_time(node, method, params, most, limit).await.ok()?.ok()
}
