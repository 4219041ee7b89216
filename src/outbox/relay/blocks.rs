//! The chain as a relay follows it: the follower's changes, with the blocks' transactions
//! ([`full_block`]) and the newest final block ([`newest_final`]).
//!
//! Rule: the transactions of a block are not read once the follower has removed the block, also
//! where that is heard while they are read. The final block is asked for beside the blocks. Reason:
//! no node gives a block that is gone, and what waits behind a slow answer falls behind the chain.
//! Where [`MOST_BEHIND`] changes wait all the same, the next is passed on unread: blocks may come
//! faster than the nodes give them.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use alloy_primitives::B256;
use tokio::time::Instant;
use tracing::warn;

use super::{
    Relay, RelayHandle, conditional,
    finality::newest_final,
    full_block::{self, FullBlock, Withholding},
};
use crate::{
    call::Calls,
    chain::{Block, Change, Interest, Listening},
    net::BoxFuture,
    outbox::{
        desk::{Blocks, Final, Input, NewBlock},
        record::BlockId,
        store::Reader,
    },
};

/// How long a relay without transactions goes on to follow the chain.
const IDLE: Duration = Duration::from_secs(300);
/// From one question for the final block to the next, at least.
const FINAL_PAUSE: Duration = Duration::from_secs(1);
/// Changes of the chain that may wait while another is read. More wait at the follower, which drops
/// what is too much and says so.
const MOST_WAITING: usize = 256;

/// Behind so many changes that wait, a change is passed on without the transactions of its blocks.
const MOST_BEHIND: usize = 8;

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
    /// The question for the final block.
    asking: Option<BoxFuture<'static, Option<Final>>>,
    withholding: Arc<Withholding>,
    /// Changes that came while another is read.
    waiting: VecDeque<Change>,
    /// The change that is read.
    reading: Option<(Change, BoxFuture<'static, Blocks>)>,
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
            asking: None,
            withholding: Arc::default(),
            waiting: VecDeque::new(),
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

    /// The next change of the chain, whole, or a new final block. Cancel-safe. Never ends while the
    /// chain is not followed.
    pub(super) async fn next(&mut self, handle: &RelayHandle) -> Blocks {
        loop {
            self.begin(handle);
            let has_room = self.waiting.len() < MOST_WAITING;
            let next = self.listening.as_mut().filter(|_| has_room).map(Listening::next);
            // All arms are cancel-safe.
            tokio::select! {
                biased;
                Some(finalized) = conditional(self.asking.as_mut()) => {
                    self.asking = None;
                    if finalized.is_some() {
                        return Blocks { finalized, ..Blocks::default() };
                    }
                }
                Some(change) = conditional(next) => match change {
                    Some(change) => self.take(change),
                    // The follower is gone, and with it the network.
                    None => self.listening = None,
                },
                Some(mut blocks) = conditional(self.reading.as_mut().map(|(_, reading)| reading)) => {
                    self.reading = None;
                    blocks.skipped |= std::mem::take(&mut self.is_behind);
                    return blocks;
                }
                else => return std::future::pending().await,
            }
        }
    }

    /// Takes a change of the chain. Blocks that the change removes are read no more.
    fn take(&mut self, change: Change) {
        let removes = |block: &Arc<Block>| change.removed.iter().any(|gone| gone.hash == block.hash);
        if let Some((current, _)) = self.reading.take_if(|(current, _)| current.added.iter().any(removes)) {
            self.waiting.push_front(current);
        }
        self.waiting.push_back(change);
    }

    /// Begins to read the next change, and to ask for the final block, where it is time for that.
    fn begin(&mut self, handle: &RelayHandle) {
        if self.reading.is_some() {
            return;
        }
        // Without nodes there is no follower either.
        let Some((change, calls)) = self.waiting.pop_front().zip(handle.calls()) else { return };
        let now = Instant::now();
        let is_time = self.asked_final.is_none_or(|asked| now.saturating_duration_since(asked) >= FINAL_PAUSE);
        if is_time && self.asking.is_none() {
            let (calls, tip) = (calls.clone(), change.added.last().map(|tip| tip.number));
            self.asked_final = Some(now);
            self.asking = Some(Box::pin(async move { newest_final(&calls, tip).await }));
        }
        let gone = self.waiting.iter().flat_map(|later| &later.removed).map(|block| block.hash).collect();
        let reads = self.with_transactions.then_some(self.waiting.len() < MOST_BEHIND);
        let reading = whole(calls, self.withholding.clone(), change.clone(), gone, reads);
        self.reading = Some((change, Box::pin(reading)));
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
                (following.listening, following.reading, following.asking) = (None, None, None);
                (following.waiting, following.idle) = (VecDeque::new(), None);
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
            Ok((mut found, is_there)) => {
                found.retain(|record| self.owned.has(record.shard()));
                (blocks.recalled, self.given_up.is_there) = (found, is_there);
            }
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
            Ok((mut records, round)) => {
                self.given_up.asked(&records, round);
                records.retain(|record| self.owned.has(record.shard()));
                if !records.is_empty() {
                    self.input(Input::Recall(records)).await;
                }
            }
            Err(error) => warn!(network = %self.network, %error, "records that were given up cannot be read"),
        }
    }
}

/// A change with all that the desk needs. The transactions of blocks that are `gone` by now are not
/// read: they are removed in a moment. Behind a block that no two nodes give alike no further block
/// of the change is read: the desk has the nodes asked for its transactions anyway. So it has where
/// there is no time to read blocks: `reads` is `false`. `None`: their transactions do not matter.
async fn whole(
    calls: Arc<Calls>,
    withholding: Arc<Withholding>,
    change: Change,
    gone: Vec<B256>,
    reads: Option<bool>,
) -> Blocks {
    let mut blocks = Blocks {
        removed: change.removed.iter().map(|block| name(block)).collect(),
        skipped: change.skipped,
        is_unread: reads == Some(false) && !change.added.is_empty(),
        ..Blocks::default()
    };
    for block in &change.added {
        let mut new = NewBlock { id: name(block), transactions: Vec::new() };
        if reads == Some(true) && !blocks.is_unread && !gone.contains(&block.hash) {
            match full_block::read(&calls, &withholding, &new.id).await {
                FullBlock::Agreed(transactions) => new.transactions = transactions,
                FullBlock::Claimed(hashes) => (blocks.is_unread, blocks.claimed) = (true, hashes),
            }
        }
        blocks.added.push(new);
    }
    blocks
}

fn name(block: &Block) -> BlockId {
    BlockId { number: block.number, hash: block.hash }
}
