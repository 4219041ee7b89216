//! The chain as a relay follows it: the follower's changes, with the blocks' transactions
//! ([`full_block`]) and the newest final block ([`newest_final`]).

use std::{sync::Arc, time::Duration};

use alloy_primitives::B256;
use tokio::time::Instant;
use tracing::warn;

use super::{
    Relay, RelayHandle,
    finality::newest_final,
    full_block::{self, FullBlock, Withholding},
};
use crate::{
    call::Calls,
    chain::{Block, Change, Interest, Listening},
    net::BoxFuture,
    outbox::{
        desk::{Blocks, Input, NewBlock},
        record::BlockId,
        store::Reader,
    },
};

/// How long a relay without transactions goes on to follow the chain.
const IDLE: Duration = Duration::from_secs(300);
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
    withholding: Arc<Withholding>,
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
            withholding: Arc::default(),
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
            self.reading =
                Some(Box::pin(whole(calls, self.withholding.clone(), change, self.with_transactions, is_time)));
        }
    }
}

impl Relay {
    /// Follows the chain while there is something to follow it for.
    pub(super) fn follow(&mut self) {
        let following = &mut self.following;
        // A block may have a transaction that was given up.
        following.with_transactions = !self.desk.is_idle() || self.given_up.is_there;
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
        self.recall_those_of(&mut blocks).await;
        if blocks.skipped || blocks.is_unread {
            self.given_up.ask_for_all();
        }
        self.input(Input::Blocks(Box::new(blocks))).await;
        self.ask_for_given_up().await;
    }

    /// Reads the records that were given up and that the blocks have nonetheless.
    async fn recall_those_of(&mut self, blocks: &mut Blocks) {
        if !self.given_up.is_there {
            return;
        }
        let transactions = blocks.added.iter().flat_map(|block| &block.transactions);
        let hashes: Vec<B256> = transactions.map(|transaction| transaction.hash).collect();
        let network = self.network.clone();
        let rows =
            move |reader: &Reader| Ok((reader.given_up_among(&network, &hashes)?, reader.has_given_up(&network)?));
        match self.shared.store.read_long(rows).await {
            Ok((found, is_there)) => (blocks.recalled, self.given_up.is_there) = (found, is_there),
            Err(error) => {
                warn!(network = %self.network, %error, "records that a block concerns cannot be read");
                self.given_up.ask_for_all();
            }
        }
    }

    /// Has the next of the transactions that were given up be asked for, while blocks that came
    /// untold may have some.
    async fn ask_for_given_up(&mut self) {
        let Some(round) = self.given_up.round.clone() else { return };
        let network = self.network.clone();
        match self.shared.store.read_long(move |reader| round.next(reader, &network)).await {
            Ok((records, round)) => {
                self.given_up.asked(&records, round);
                if !records.is_empty() {
                    self.input(Input::Recall(records)).await;
                }
            }
            Err(error) => warn!(network = %self.network, %error, "records that were given up cannot be read"),
        }
    }
}

/// A change with all that the desk needs. Behind a block that no two nodes give alike no further
/// block of the change is read: the desk has the nodes asked for its transactions anyway.
async fn whole(
    calls: Arc<Calls>,
    withholding: Arc<Withholding>,
    change: Change,
    with_transactions: bool,
    with_final: bool,
) -> Blocks {
    let mut blocks = Blocks {
        removed: change.removed.iter().map(|block| name(block)).collect(),
        skipped: change.skipped,
        ..Blocks::default()
    };
    for block in &change.added {
        let mut new = NewBlock { id: name(block), transactions: Vec::new() };
        if with_transactions && !blocks.is_unread {
            match full_block::read(&calls, &withholding, &new.id).await {
                FullBlock::Agreed(transactions) => new.transactions = transactions,
                FullBlock::Claimed(hashes) => (blocks.is_unread, blocks.claimed) = (true, hashes),
            }
        }
        blocks.added.push(new);
    }
    if with_final {
        blocks.finalized = newest_final(&calls, change.added.last().map(|tip| tip.number)).await;
    }
    blocks
}

fn name(block: &Block) -> BlockId {
    BlockId { number: block.number, hash: block.hash }
}
