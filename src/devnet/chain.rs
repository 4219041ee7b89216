//! The one pretend chain that all nodes share: mining, reorganisations, mempool.

mod lost;
mod mempools;
mod slots;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alloy_primitives::{Address, B256};
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

use self::slots::Slots;
pub use self::slots::Turn;
pub(super) use self::slots::{Proposal, beat};
use super::{
    author::Author,
    block::{Block, Origin},
    clock::Clock,
    gossip::{Gossip, Taken},
    mempool::{Holders, Mempool},
    past::Past,
    transaction::Transaction,
    view::Snapshot,
};

/// Canonical blocks kept; older ones are pruned.
pub const KEPT_BLOCKS: usize = 4096;
/// Transactions that wait; more are refused, as a full pool does.
const MEMPOOL_LIMIT: usize = 100_000;
/// Announcements of waiting transactions that a slow listener may be behind.
const PENDING_BACKLOG: usize = 4096;
/// Consensus operations that a slow listener may be behind.
const OPERATIONS_BACKLOG: usize = 1024;

/// An operation that a client submitted to a consensus node: its topic, and the event's data.
pub(super) type Operation = (&'static str, Arc<serde_json::Value>);

/// The pretend chain.
pub struct Chain {
    id: u64,
    author: Author,
    clock: Clock,
    state: Mutex<State>,
    /// Holds the present chain and announces each change.
    tip: watch::Sender<Arc<Snapshot>>,
    past: Past,
    pending: broadcast::Sender<B256>,
    operations: broadcast::Sender<Operation>,
    pub(super) gossip: Gossip,
}

#[derive(Default)]
struct State {
    mempool: Mempool,
    /// Nodes that keep no transaction which others hand on.
    forgetful: Holders,
    /// How many execution nodes there are.
    nodes: usize,
    /// All blocks of all branches, by height, so that pruning can remove the lowest ones.
    by_number: BTreeMap<u64, Vec<Arc<Block>>>,
    by_hash: HashMap<B256, Arc<Block>>,
    by_root: HashMap<B256, Arc<Block>>,
    /// Every block, of whatever branch, that holds the transaction, with its index there.
    by_transaction: HashMap<B256, Vec<(Arc<Block>, usize)>>,
    made: u64,
    branches: u64,
    /// Branches that were ever begun beside the canonical one.
    rivals: u64,
    /// Senders and hashes.
    unlocked: Vec<(Address, B256)>,
    slots: Slots,
}

/// The blocks that a reorganisation removed and added.
#[derive(Clone)]
pub struct Reorg {
    /// Blocks that are canonical no longer, newest first.
    pub removed: Vec<Arc<Block>>,
    /// Blocks in their place, oldest first.
    pub added: Vec<Arc<Block>>,
}

/// Why the chain refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The genesis block and pruned blocks cannot be replaced.
    #[error("cannot replace {depth} blocks: only {most} are kept above the lowest one")]
    TooDeep {
        /// Blocks asked for.
        depth: u64,
        /// Blocks that could be replaced.
        most: u64,
    },
    /// The transaction waits already, or is mined.
    #[error("already known")]
    AlreadyKnown,
    /// The mempool is full.
    #[error("txpool is full")]
    MempoolFull,
    /// No canonical block has the transaction.
    #[error("no block of the chain has this transaction")]
    NotInChain,
}

impl Chain {
    /// A chain of a genesis block and `initial` blocks, `spacing` apart, the last of them now. The
    /// genesis block is older if `genesis` says so.
    pub(super) fn new(
        id: u64,
        seed: u64,
        clock: Clock,
        initial: u64,
        spacing: Duration,
        genesis: Option<u64>,
    ) -> Arc<Self> {
        let author = Author::new(seed, id);
        let back = |blocks: u64| clock.unix().saturating_sub(seconds(spacing, blocks));
        let origin = Origin { timestamp: genesis.unwrap_or_else(|| back(initial)), ..Origin::default() };
        let first = Arc::new(Block::seal(None, author.salt(0, 0), origin, Vec::new()));
        let mut state = State::default();
        state.index(&first);
        let mut blocks = vec![first.clone()];
        for number in 1..=initial {
            state.extend(&author, &mut blocks, back(initial - number));
        }
        prune(&mut blocks, &mut state);
        let snapshot = Snapshot { blocks, genesis: first, made: state.made, rival: None };
        let snapshot = Arc::new(snapshot);
        let past = Past::new(snapshot.clone());
        let tip = watch::Sender::new(snapshot);
        let pending = broadcast::Sender::new(PENDING_BACKLOG);
        let operations = broadcast::Sender::new(OPERATIONS_BACKLOG);
        Arc::new(Self {
            id,
            author,
            clock,
            state: Mutex::new(state),
            tip,
            past,
            pending,
            operations,
            gossip: Gossip::default(),
        })
    }

    /// The chain's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// The newest block.
    #[must_use]
    pub fn head(&self) -> Arc<Block> {
        self.tip.borrow().head().clone()
    }

    /// The canonical block at `number`, unless pruned or not yet made.
    #[must_use]
    pub fn block(&self, number: u64) -> Option<Arc<Block>> {
        self.tip.borrow().block(number).cloned()
    }

    /// The canonical chain as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.tip.borrow().clone()
    }

    /// The last canonical block that was for this slot or one before it.
    #[must_use]
    pub fn as_of(&self, slot: u64) -> Arc<Block> {
        self.tip.borrow().as_of(slot).clone()
    }

    /// The chain as a node sees it whose blocks arrive `late`.
    pub(super) fn seen(&self, late: Duration) -> Arc<Snapshot> {
        let seen = if late.is_zero() { None } else { self.past.seen(late) };
        seen.unwrap_or_else(|| self.snapshot())
    }

    /// When a node whose blocks arrive `late` sees more than now.
    pub(super) fn next_seen(&self, late: Duration) -> Option<Instant> {
        if late.is_zero() { None } else { self.past.next(late) }
    }

    /// Follows the canonical chain.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.tip.subscribe()
    }

    /// Adds `count` blocks at once and answers the new head. The first block takes the transactions
    /// that wait in the mempool.
    pub fn mine(&self, count: u64) -> Arc<Block> {
        let mut state = self.state();
        let mut blocks = self.snapshot().blocks.clone();
        for _ in 0..count {
            state.extend(&self.author, &mut blocks, self.clock.unix());
        }
        self.publish(&mut state, blocks)
    }

    /// Replaces the last `depth` blocks by `depth + 1` others. Submitted transactions of the old
    /// blocks are mined again.
    ///
    /// # Errors
    /// When the chain is not that long.
    pub fn reorg(&self, depth: u64) -> Result<Reorg, ChainError> {
        self.reorg_to(depth, depth.saturating_add(1))
    }

    /// Replaces the last `depth` blocks by `length` others, however many.
    ///
    /// # Errors
    /// When the chain is not that long.
    pub fn reorg_to(&self, depth: u64, length: u64) -> Result<Reorg, ChainError> {
        let mut state = self.state();
        let mut blocks = self.snapshot().blocks.clone();
        let most = blocks.len() - 1;
        let keep =
            usize::try_from(depth).ok().and_then(|depth| blocks.len().checked_sub(depth)).filter(|keep| *keep > 0);
        let Some(keep) = keep else {
            return Err(ChainError::TooDeep { depth, most: u64::try_from(most).unwrap_or(u64::MAX) });
        };
        let removed = state.cut(&mut blocks, keep);
        for _ in 0..length {
            state.extend(&self.author, &mut blocks, self.clock.unix());
        }
        let added = blocks[keep..].to_vec();
        self.publish(&mut state, blocks);
        Ok(Reorg { removed, added })
    }

    /// Begins a branch beside the canonical one, `depth` blocks below the head, in the place of an
    /// earlier such branch. The branch has other blocks of the same heights, holds none of the
    /// submitted transactions, and grows as the canonical one does.
    pub(super) fn diverge(&self, depth: u64) {
        let mut state = self.state();
        let blocks = self.snapshot().blocks.clone();
        let keep = usize::try_from(depth).map_or(1, |depth| blocks.len().saturating_sub(depth).max(1));
        state.rivals += 1;
        let rival = Snapshot {
            blocks: blocks[..keep].to_vec(),
            genesis: self.tip.borrow().genesis.clone(),
            made: state.made,
            rival: None,
        };
        self.publish_beside(&mut state, blocks, Some(&rival));
    }

    /// The three contracts whose logs fill the chain.
    #[must_use]
    pub fn contracts(&self) -> &[Address] {
        self.author.contracts()
    }

    /// An account of the pretend traffic, by index.
    #[must_use]
    pub fn account(&self, index: usize) -> Address {
        self.author.account(index)
    }

    pub(super) fn account_index(&self, account: Address) -> Option<usize> {
        self.author.index(account)
    }

    /// A block of any branch.
    #[must_use]
    pub fn block_by_hash(&self, hash: B256) -> Option<Arc<Block>> {
        self.state().by_hash.get(&hash).cloned()
    }

    /// A block of any branch by the root of its consensus block.
    pub(super) fn block_by_root(&self, root: B256) -> Option<Arc<Block>> {
        self.state().by_root.get(&root).cloned()
    }

    /// Where a transaction is, on all branches.
    pub(super) fn places(&self, transaction: B256) -> Vec<(Arc<Block>, usize)> {
        self.state().by_transaction.get(&transaction).cloned().unwrap_or_default()
    }

    /// Spreads a consensus operation to all nodes.
    pub(super) fn spread(&self, operation: Operation) {
        // Without a listener the send fails, which is no error.
        let _ = self.operations.send(operation);
    }

    /// The validators' messages for `slot` that a consensus node took, in the order in which they
    /// arrived. Messages of the latest 256 slots are kept.
    #[must_use]
    pub fn taken(&self, slot: u64) -> Vec<Taken> {
        self.gossip.of(slot)
    }

    /// Announces each consensus operation that is submitted.
    pub(super) fn operations(&self) -> broadcast::Receiver<Operation> {
        self.operations.subscribe()
    }

    /// Publishes while the lock is held, so that snapshots appear in the order in which they were
    /// made.
    fn publish(&self, state: &mut State, blocks: Vec<Arc<Block>>) -> Arc<Block> {
        let rival = self.tip.borrow().rival.clone();
        self.publish_beside(state, blocks, rival.as_deref())
    }

    fn publish_beside(&self, state: &mut State, mut blocks: Vec<Arc<Block>>, rival: Option<&Snapshot>) -> Arc<Block> {
        let rival = rival.map(|rival| {
            let mut rivals = rival.blocks.clone();
            state.keep_pace(&self.author, &mut rivals, &blocks);
            prune(&mut rivals, state);
            Arc::new(Snapshot { blocks: rivals, genesis: rival.genesis.clone(), made: state.made, rival: None })
        });
        prune(&mut blocks, state);
        let genesis = self.tip.borrow().genesis.clone();
        let snapshot = Arc::new(Snapshot { blocks, genesis, made: state.made, rival });
        let head = snapshot.head().clone();
        self.past.push(snapshot.clone());
        self.tip.send_replace(snapshot);
        head
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// All execution nodes; a chain without nodes is its own.
    fn all_nodes(&self) -> Holders {
        Holders::all(self.nodes.max(1))
    }

    /// Adds a block of the next slot.
    fn extend(&mut self, author: &Author, blocks: &mut Vec<Arc<Block>>, now: u64) {
        let slot = blocks.last().map_or(0, |tip| tip.slot + 1);
        self.extend_in(author, blocks, Origin { slot, timestamp: now, ..Origin::default() });
    }

    fn extend_in(&mut self, author: &Author, blocks: &mut Vec<Arc<Block>>, origin: Origin) {
        let waiting = self.mempool.take();
        self.add(author, blocks, self.branches, waiting, origin);
    }

    /// Removes all but the first `keep` blocks and returns the removed ones, newest first. Their
    /// submitted transactions wait again.
    fn cut(&mut self, blocks: &mut Vec<Arc<Block>>, keep: usize) -> Vec<Arc<Block>> {
        let removed: Vec<_> = blocks.drain(keep..).rev().collect();
        let returned = removed.iter().rev().flat_map(|block| &block.transactions).map(|mined| &mined.transaction);
        let returned = returned.filter(|transaction| transaction.submitted).cloned();
        self.mempool.put_back(returned, self.all_nodes());
        self.branches += 1;
        removed
    }

    /// Extends `rivals`, a branch, to the height of `blocks`, at the same times.
    fn keep_pace(&mut self, author: &Author, rivals: &mut Vec<Arc<Block>>, blocks: &[Arc<Block>]) {
        // Numbered down from the maximum, so that no canonical branch has the same number.
        let branch = u64::MAX - self.rivals;
        let tip = rivals.last().map_or(0, |block| block.number);
        for block in blocks.iter().filter(|block| block.number > tip) {
            let origin = Origin { slot: block.slot, timestamp: block.timestamp, ..Origin::default() };
            self.add(author, rivals, branch, Vec::new(), origin);
        }
    }

    fn add(
        &mut self,
        author: &Author,
        blocks: &mut Vec<Arc<Block>>,
        branch: u64,
        waiting: Vec<Arc<Transaction>>,
        origin: Origin,
    ) {
        let Some(parent) = blocks.last() else { return };
        self.made += 1;
        let salt = author.salt(origin.slot, branch);
        let mut sent = parent.sent;
        let contents = author.fill(salt, waiting, &mut sent);
        let origin = Origin { timestamp: origin.timestamp.max(parent.timestamp), made: self.made, sent, ..origin };
        let block = Arc::new(Block::seal(Some(parent), salt, origin, contents));
        self.index(&block);
        blocks.push(block);
    }

    fn index(&mut self, block: &Arc<Block>) {
        self.by_number.entry(block.number).or_default().push(block.clone());
        self.by_hash.insert(block.hash, block.clone());
        self.by_root.insert(block.root, block.clone());
        for (i, mined) in block.transactions.iter().enumerate() {
            self.by_transaction.entry(mined.transaction.hash).or_default().push((block.clone(), i));
        }
    }

    fn forget_below(&mut self, base: u64) {
        // The genesis block stays.
        while let Some(number) = self.by_number.range(1..base).next().map(|(number, _)| *number) {
            for block in self.by_number.remove(&number).unwrap_or_default() {
                self.by_hash.remove(&block.hash);
                self.by_root.remove(&block.root);
                for mined in &block.transactions {
                    let hash = mined.transaction.hash;
                    if let Some(places) = self.by_transaction.get_mut(&hash) {
                        places.retain(|(at, _)| at.hash != block.hash);
                        if places.is_empty() {
                            self.by_transaction.remove(&hash);
                        }
                    }
                }
            }
        }
    }
}

/// How long `blocks` blocks take.
fn seconds(spacing: Duration, blocks: u64) -> u64 {
    let millis = spacing.as_millis().saturating_mul(u128::from(blocks));
    u64::try_from(millis / 1000).unwrap_or(u64::MAX)
}

fn prune(blocks: &mut Vec<Arc<Block>>, state: &mut State) {
    if blocks.len() > KEPT_BLOCKS {
        blocks.drain(..blocks.len() - KEPT_BLOCKS);
        state.forget_below(blocks[0].number);
    }
}

#[cfg(test)]
mod tests;
