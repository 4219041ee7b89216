//! The one pretend chain that all nodes share: mining, reorganisations, mempool.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};

use super::{
    author::Author,
    block::Block,
    clock::Clock,
    hash::{Address, Hash},
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

/// An operation that somebody submitted to a consensus node: its topic, and what is told of it.
pub(super) type Operation = (&'static str, Arc<serde_json::Value>);

/// The pretend chain.
pub struct Chain {
    id: u64,
    author: Author,
    clock: Clock,
    state: Mutex<State>,
    /// Both the present chain and the news of it.
    tip: watch::Sender<Arc<Snapshot>>,
    past: Past,
    pending: broadcast::Sender<Hash>,
    operations: broadcast::Sender<Operation>,
}

#[derive(Default)]
struct State {
    mempool: Vec<Arc<Transaction>>,
    /// All blocks of all branches, by height, so that they can be pruned from the bottom.
    by_number: BTreeMap<u64, Vec<Arc<Block>>>,
    by_hash: HashMap<Hash, Arc<Block>>,
    by_root: HashMap<Hash, Arc<Block>>,
    /// Every block, of whatever branch, that holds the transaction, with its index there.
    by_transaction: HashMap<Hash, Vec<(Arc<Block>, usize)>>,
    made: u64,
    branches: u64,
    unlocked: Vec<Hash>,
}

/// What a reorganisation did.
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
    /// The genesis block, or what is pruned, cannot be replaced.
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
}

impl Chain {
    /// A chain of a genesis block and `initial` blocks, `spacing` apart, the last of them now. The genesis block is older if
    /// `genesis` says so.
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
        let first = Block::seal(None, author.salt(0, 0), genesis.unwrap_or_else(|| back(initial)), 0, Vec::new());
        let first = Arc::new(first);
        let mut state = State::default();
        state.index(&first);
        let mut blocks = vec![first.clone()];
        for number in 1..=initial {
            state.extend(&author, &mut blocks, back(initial - number));
        }
        prune(&mut blocks, &mut state);
        let snapshot = Snapshot { blocks, genesis: first, made: state.made };
        let snapshot = Arc::new(snapshot);
        let past = Past::new(snapshot.clone());
        let tip = watch::Sender::new(snapshot);
        let pending = broadcast::Sender::new(PENDING_BACKLOG);
        let operations = broadcast::Sender::new(OPERATIONS_BACKLOG);
        Arc::new(Self { id, author, clock, state: Mutex::new(state), tip, past, pending, operations })
    }

    /// The chain's id.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
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

    /// The chain as a node sees it that hears of blocks `late`.
    pub(super) fn seen(&self, late: Duration) -> Arc<Snapshot> {
        let seen = if late.is_zero() { None } else { self.past.seen(late) };
        seen.unwrap_or_else(|| self.snapshot())
    }

    /// When such a node sees more than now.
    pub(super) fn next_seen(&self, late: Duration) -> Option<Instant> {
        if late.is_zero() { None } else { self.past.next(late) }
    }

    /// Follows the canonical chain.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.tip.subscribe()
    }

    /// Adds `count` blocks at once and answers the new head. The first takes what waits in the mempool.
    pub fn mine(&self, count: u64) -> Arc<Block> {
        let mut state = self.state();
        let mut blocks = self.snapshot().blocks.clone();
        for _ in 0..count {
            state.extend(&self.author, &mut blocks, self.clock.unix());
        }
        self.publish(&mut state, blocks)
    }

    /// Replaces the last `depth` blocks by `depth + 1` others. Submitted transactions of the old blocks are mined again.
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
        let removed: Vec<_> = blocks.drain(keep..).rev().collect();
        let returned = removed.iter().rev().flat_map(|block| &block.transactions).map(|mined| &mined.transaction);
        let mut mempool: Vec<_> = returned.filter(|transaction| transaction.submitted).cloned().collect();
        mempool.append(&mut state.mempool);
        state.mempool = mempool;
        state.branches += 1;
        for _ in 0..length {
            state.extend(&self.author, &mut blocks, self.clock.unix());
        }
        let added = blocks[keep..].to_vec();
        self.publish(&mut state, blocks);
        Ok(Reorg { removed, added })
    }

    /// Takes a signed transaction, any bytes, and answers its hash.
    ///
    /// # Errors
    /// When it is known already or the mempool is full.
    pub fn submit(&self, raw: Vec<u8>) -> Result<Hash, ChainError> {
        let transaction = Arc::new(self.author.raw(raw));
        let hash = transaction.hash;
        let mut state = self.state();
        if state.by_transaction.contains_key(&hash) || state.mempool.iter().any(|waiting| waiting.hash == hash) {
            return Err(ChainError::AlreadyKnown);
        }
        self.enqueue(&mut state, transaction)?;
        Ok(hash)
    }

    /// Makes a transaction from an unlocked account: a new one with every call.
    ///
    /// # Errors
    /// When the mempool is full.
    pub fn send_unlocked(&self, from: Address, to: Address, value: u64, input: Vec<u8>) -> Result<Hash, ChainError> {
        let mut state = self.state();
        let count = u64::try_from(state.unlocked.len()).unwrap_or(u64::MAX);
        let transaction = Arc::new(self.author.unlocked(count, from, to, value, input));
        let hash = transaction.hash;
        self.enqueue(&mut state, transaction)?;
        state.unlocked.push(hash);
        Ok(hash)
    }

    /// Every transaction that `eth_sendTransaction` made, in order: a double send shows as two.
    #[must_use]
    pub fn unlocked_transactions(&self) -> Vec<Hash> {
        self.state().unlocked.clone()
    }

    /// Hashes of the transactions that wait for a block, in order.
    #[must_use]
    pub fn mempool(&self) -> Vec<Hash> {
        self.state().mempool.iter().map(|transaction| transaction.hash).collect()
    }

    /// The three contracts whose logs fill the chain.
    #[must_use]
    pub fn contracts(&self) -> &[Address] {
        self.author.contracts()
    }

    /// One of the accounts that the pretend traffic moves tokens between.
    #[must_use]
    pub fn account(&self, index: usize) -> Address {
        self.author.account(index)
    }

    /// A block of any branch.
    #[must_use]
    pub fn block_by_hash(&self, hash: Hash) -> Option<Arc<Block>> {
        self.state().by_hash.get(&hash).cloned()
    }

    /// A block of any branch by the root of its consensus block.
    pub(super) fn block_by_root(&self, root: Hash) -> Option<Arc<Block>> {
        self.state().by_root.get(&root).cloned()
    }

    /// Where a transaction is, on all branches.
    pub(super) fn places(&self, transaction: Hash) -> Vec<(Arc<Block>, usize)> {
        self.state().by_transaction.get(&transaction).cloned().unwrap_or_default()
    }

    pub(super) fn waiting(&self, hash: Hash) -> Option<Arc<Transaction>> {
        self.state().mempool.iter().find(|transaction| transaction.hash == hash).cloned()
    }

    pub(super) fn waiting_from(&self, account: Address) -> usize {
        self.state().mempool.iter().filter(|transaction| transaction.from == account).count()
    }

    /// Announces each transaction that enters the mempool.
    pub(super) fn pending(&self) -> broadcast::Receiver<Hash> {
        self.pending.subscribe()
    }

    /// Spreads a consensus operation to all nodes.
    pub(super) fn spread(&self, operation: Operation) {
        // Nobody listening is no error.
        let _ = self.operations.send(operation);
    }

    /// Announces each consensus operation that is submitted.
    pub(super) fn operations(&self) -> broadcast::Receiver<Operation> {
        self.operations.subscribe()
    }

    fn enqueue(&self, state: &mut State, transaction: Arc<Transaction>) -> Result<(), ChainError> {
        if state.mempool.len() >= MEMPOOL_LIMIT {
            return Err(ChainError::MempoolFull);
        }
        let hash = transaction.hash;
        state.mempool.push(transaction);
        // Nobody listening is no error.
        let _ = self.pending.send(hash);
        Ok(())
    }

    /// Publishes while the lock is held, so that snapshots appear in the order in which they were made.
    fn publish(&self, state: &mut State, mut blocks: Vec<Arc<Block>>) -> Arc<Block> {
        prune(&mut blocks, state);
        let genesis = self.tip.borrow().genesis.clone();
        let snapshot = Arc::new(Snapshot { blocks, genesis, made: state.made });
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
    fn extend(&mut self, author: &Author, blocks: &mut Vec<Arc<Block>>, now: u64) {
        let Some(parent) = blocks.last() else { return };
        self.made += 1;
        let salt = author.salt(parent.number + 1, self.branches);
        let contents = author.fill(salt, std::mem::take(&mut self.mempool));
        let block = Arc::new(Block::seal(Some(parent), salt, now.max(parent.timestamp), self.made, contents));
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
mod tests {
    use super::{super::view::View, *};

    fn chain(initial: u64) -> Arc<Chain> {
        Chain::new(1337, 7, Clock::fixed(1_800_000_000), initial, Duration::from_secs(12), None)
    }

    fn linked(chain: &Chain) {
        let snapshot = chain.snapshot();
        for pair in snapshot.blocks.windows(2) {
            assert_eq!(pair[1].parent_hash, pair[0].hash);
            assert_eq!(pair[1].number, pair[0].number + 1);
            assert!(pair[1].timestamp >= pair[0].timestamp);
        }
    }

    #[tokio::test]
    async fn initial_blocks_lie_in_the_past_and_end_now() {
        let chain = chain(10);
        assert_eq!(chain.head().number, 10);
        assert_eq!(chain.head().timestamp, 1_800_000_000);
        assert_eq!(chain.block(0).unwrap().timestamp, 1_800_000_000 - 120);
        linked(&chain);
    }

    #[tokio::test]
    async fn the_same_seed_makes_the_same_chain_and_another_seed_another() {
        let one = chain(5);
        let two = chain(5);
        one.reorg(2).unwrap();
        two.reorg(2).unwrap();
        assert_eq!(one.mine(1).hash, two.mine(1).hash);
        let other = Chain::new(1337, 8, Clock::fixed(1_800_000_000), 5, Duration::from_secs(12), None);
        assert_ne!(other.block(5).unwrap().hash, chain(5).block(5).unwrap().hash);
    }

    #[tokio::test]
    async fn every_log_is_in_its_blocks_bloom() {
        let head = chain(3).head();
        assert!(head.logs().count() >= 2);
        for (_, _, log) in head.logs() {
            assert!(head.bloom.may_contain(&log.address.0));
            assert!(log.topics.iter().all(|topic| head.bloom.may_contain(&topic.0)));
        }
        assert!(!head.bloom.may_contain(b"nobody"));
        assert_eq!(head.logs().map(|(_, i, _)| i).collect::<Vec<_>>(), (0..head.logs().count()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_reorg_replaces_blocks_and_grows_the_chain() {
        let chain = chain(10);
        let old: Vec<_> = (7..=10).rev().map(|n| chain.block(n).unwrap().hash).collect();
        let reorg = chain.reorg(4).unwrap();
        assert_eq!(reorg.removed.iter().map(|b| b.hash).collect::<Vec<_>>(), old);
        assert_eq!(reorg.added.iter().map(|b| b.number).collect::<Vec<_>>(), [7, 8, 9, 10, 11]);
        assert_eq!(reorg.added[0].parent_hash, chain.block(6).unwrap().hash);
        assert!(reorg.added.iter().all(|b| !old.contains(&b.hash)));
        linked(&chain);
        let again = chain.reorg(5).unwrap();
        assert!(again.added.iter().all(|b| reorg.added.iter().all(|a| a.hash != b.hash)));
        assert_eq!(chain.reorg(13).err(), Some(ChainError::TooDeep { depth: 13, most: 12 }));
        assert_eq!(chain.reorg_to(12, 1).unwrap().added[0].number, 1);
    }

    #[tokio::test]
    async fn a_submitted_transaction_survives_a_reorg_and_filler_does_not() {
        let chain = chain(2);
        let hash = chain.submit(vec![1, 2, 3]).unwrap();
        assert_eq!(hash, Hash::of(&[1, 2, 3]));
        assert_eq!(chain.submit(vec![1, 2, 3]), Err(ChainError::AlreadyKnown));
        let filler = chain.mine(1).transactions[0].transaction.hash;
        assert_eq!(chain.submit(vec![1, 2, 3]), Err(ChainError::AlreadyKnown));
        let added = chain.reorg(1).unwrap().added;
        let again: Vec<_> = added.iter().flat_map(|b| &b.transactions).map(|m| m.transaction.hash).collect();
        assert_eq!(again.iter().filter(|h| **h == hash).count(), 1);
        assert!(!again.contains(&filler));
        assert!(chain.mempool().is_empty());
    }

    #[tokio::test]
    async fn old_blocks_are_pruned_with_their_transactions() {
        let chain = chain(1);
        let old = chain.block(1).unwrap();
        let mut view = View::new(chain.snapshot(), 0);
        chain.mine(KEPT_BLOCKS as u64 + 10);
        let change = view.advance(View::new(chain.snapshot(), 0));
        assert_eq!((change.removed.len(), change.added.len()), (0, KEPT_BLOCKS), "what is pruned cannot be told");
        assert!(chain.block(1).is_none());
        assert!(chain.block_by_hash(chain.block(0).unwrap().hash).is_some());
        assert!(chain.block_by_hash(old.hash).is_none());
        assert!(chain.places(old.transactions[0].transaction.hash).is_empty());
        assert_eq!(chain.snapshot().blocks.len(), KEPT_BLOCKS);
        assert_eq!(chain.state().by_hash.len(), KEPT_BLOCKS + 1);
    }
}
