//! The chain as a relay follows it: the follower's changes, with the blocks' transactions and the
//! height up to which all is final.

use std::{sync::Arc, time::Duration};

use alloy_primitives::{Address, B256};
use serde::Deserialize;
use tokio::time::Instant;
use tracing::debug;

use super::{Relay, RelayHandle};
use crate::{
    call::Calls,
    chain::{Block, Change, Interest, Listening},
    domain::{block::BlockRef, hex, node_id::NodeId},
    net::BoxFuture,
    outbox::{
        desk::{Blocks, InBlock, Input, NewBlock},
        record::BlockId,
    },
};

/// How long a relay without transactions goes on to follow the chain.
const IDLE: Duration = Duration::from_secs(300);
/// How long a node may take to give a block with its transactions.
const LIMIT: Duration = Duration::from_secs(10);
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
        following.with_transactions = !self.desk.is_idle();
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
                recalled.extend(read.ok().flatten());
            }
        }
        blocks.recalled = recalled;
        self.input(Input::Blocks(Box::new(blocks))).await;
    }
}

/// A change with all that the desk needs. Where no node gives a block with its transactions, the
/// change is as one that was skipped: the desk then asks for its transactions.
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
        blocks.finalized = finalized(&calls).await.or(deep);
    }
    blocks
}

fn name(block: &Block) -> BlockId {
    BlockId { number: block.number, hash: block.hash }
}

/// The transactions of a block, from the first node that gives them.
async fn transactions(calls: &Calls, block: &Block) -> Option<Vec<InBlock>> {
    #[derive(Deserialize)]
    struct Transaction {
        hash: B256,
        from: Address,
        nonce: String,
    }
    #[derive(Deserialize)]
    struct Whole {
        hash: B256,
        transactions: Vec<Transaction>,
    }
    let params = format!(r#"["{}",true]"#, block.hash);
    for node in calls.usable_nodes() {
        let Some(answer) = ask(calls, node, "eth_getBlockByHash", &params, MAX_BLOCK).await else { continue };
        let whole = match serde_json::from_slice::<Whole>(&answer) {
            Ok(whole) if whole.hash == block.hash => whole,
            Ok(_) => continue,
            Err(error) => {
                debug!(node = &*calls.pool().nodes[node].name, %error, "no block with its transactions");
                continue;
            }
        };
        let read = |Transaction { hash, from, nonce }: Transaction| {
            Some(InBlock { hash, sender: from, nonce: hex::quantity(nonce)? })
        };
        if let Some(found) = whole.transactions.into_iter().map(read).collect() {
            return Some(found);
        }
    }
    None
}

/// The height of the newest final block, by the first node that tells it.
async fn finalized(calls: &Calls) -> Option<u64> {
    for node in calls.usable_nodes() {
        let answer = ask(calls, node, "eth_getBlockByNumber", r#"["finalized",false]"#, MAX_HEADER).await;
        if let Some(block) = answer.and_then(|answer| BlockRef::read(&answer).ok()) {
            return Some(block.number);
        }
    }
    None
}

async fn ask(calls: &Calls, node: NodeId, method: &str, params: &str, most: usize) -> Option<bytes::Bytes> {
    calls.pool().ask_in_time(node, method, params, most, LIMIT).await.ok()?.ok()
}
