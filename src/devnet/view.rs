//! The chain as one node sees it: a snapshot, up to some head.
//!
//! A [`Snapshot`] never changes, so a lagging node is a lower head on the present snapshot, and a
//! frozen one keeps an old snapshot. Events are the difference of two views, so a task may skip
//! snapshots and still announces every block.

use std::sync::Arc;

use super::block::Block;

/// The canonical chain at one moment.
pub struct Snapshot {
    /// Canonical blocks without a gap, oldest first; never empty.
    pub(super) blocks: Vec<Arc<Block>>,
    pub(super) genesis: Arc<Block>,
    /// How many blocks had been made by then, on all branches.
    pub(super) made: u64,
    /// The branch of the nodes that have [`Fault::Branch`](super::Fault::Branch), if there is one.
    pub(super) rival: Option<Arc<Self>>,
}

impl Snapshot {
    /// The newest block.
    #[must_use]
    pub fn head(&self) -> &Arc<Block> {
        self.blocks.last().unwrap_or(&self.genesis)
    }

    /// The canonical block at `number`, unless pruned or not yet made.
    #[must_use]
    pub fn block(&self, number: u64) -> Option<&Arc<Block>> {
        if number == 0 {
            return Some(&self.genesis);
        }
        let index = number.checked_sub(self.base())?;
        self.blocks.get(usize::try_from(index).ok()?)
    }

    /// The last block whose slot is not above this one; the genesis block if that is pruned.
    pub(super) fn as_of(&self, slot: u64) -> &Arc<Block> {
        let above = self.blocks.partition_point(|block| block.slot <= slot);
        above.checked_sub(1).and_then(|last| self.blocks.get(last)).unwrap_or(&self.genesis)
    }

    /// Number of the oldest block kept, besides genesis.
    pub(super) fn base(&self) -> u64 {
        self.blocks.first().map_or(0, |block| block.number)
    }
}

/// A node's chain: a snapshot up to a head.
#[derive(Clone)]
pub(super) struct View {
    snapshot: Arc<Snapshot>,
    head: u64,
}

/// The difference between a view and a later one.
#[derive(Default)]
pub(super) struct Change {
    /// Blocks that left the canonical chain, newest first.
    pub(super) removed: Vec<Arc<Block>>,
    /// Blocks that joined the canonical chain, oldest first.
    pub(super) added: Vec<Arc<Block>>,
}

impl View {
    /// The view that is `behind` blocks short of the snapshot's tip.
    pub(super) fn new(snapshot: Arc<Snapshot>, behind: u64) -> Self {
        let head = snapshot.head().number.saturating_sub(behind).max(snapshot.base());
        Self { snapshot, head }
    }

    /// The same view, `blocks` further back.
    pub(super) fn back(&self, blocks: u64) -> Self {
        let head = self.head.saturating_sub(blocks).max(self.base());
        Self { snapshot: self.snapshot.clone(), head }
    }

    /// The same view as of an earlier head.
    pub(super) fn at(&self, head: u64) -> Self {
        Self { snapshot: self.snapshot.clone(), head: head.min(self.head) }
    }

    /// The same view as of an earlier slot.
    pub(super) fn as_of(&self, slot: u64) -> Self {
        self.at(self.snapshot.as_of(slot).number)
    }

    pub(super) fn genesis(&self) -> &Arc<Block> {
        &self.snapshot.genesis
    }

    pub(super) fn head(&self) -> &Arc<Block> {
        self.block(self.head).unwrap_or(&self.snapshot.genesis)
    }

    /// The oldest number that is kept.
    pub(super) fn base(&self) -> u64 {
        self.snapshot.base()
    }

    pub(super) fn block(&self, number: u64) -> Option<&Arc<Block>> {
        if number > self.head { None } else { self.snapshot.block(number) }
    }

    /// The block of this slot; none if the slot is empty.
    pub(super) fn in_slot(&self, slot: u64) -> Option<&Arc<Block>> {
        let block = self.snapshot.as_of(slot);
        (block.slot == slot && block.number <= self.head).then_some(block)
    }

    /// Whether the node has ever seen this block, canonical or not.
    pub(super) fn knows(&self, block: &Block) -> bool {
        block.number <= self.head && block.made <= self.snapshot.made
    }

    pub(super) fn is_canonical(&self, block: &Block) -> bool {
        self.block(block.number).is_some_and(|ours| ours.hash == block.hash)
    }

    /// Moves to `next` and returns the difference. The view stays if `next` is only further back on
    /// the same chain, since no block is then new.
    pub(super) fn advance(&mut self, next: View) -> Change {
        if Arc::ptr_eq(&self.snapshot, &next.snapshot) && self.head >= next.head {
            return Change::default();
        }
        let mut common = self.head.min(next.head);
        let same = |number| match (self.block(number), next.block(number)) {
            (Some(ours), Some(theirs)) => ours.hash == theirs.hash,
            // Pruned on one side: nothing below can be compared.
            _ => true,
        };
        while common > 0 && !same(common) {
            common -= 1;
        }
        if common == next.head {
            return Change::default();
        }
        let change = Change {
            removed: (common + 1..=self.head).rev().filter_map(|n| self.block(n).cloned()).collect(),
            added: (common + 1..=next.head).filter_map(|n| next.block(n).cloned()).collect(),
        };
        *self = next;
        change
    }

    /// First block of the epoch that is `behind` epochs before the head's. If that slot is empty,
    /// the last block before it, as on a real chain.
    pub(super) fn checkpoint(&self, behind: u64) -> &Arc<Block> {
        let epoch = (self.head().slot / SLOTS_PER_EPOCH).saturating_sub(behind);
        self.snapshot.as_of(epoch * SLOTS_PER_EPOCH)
    }
}

/// Short epochs, so that finality moves in a test's lifetime.
pub(super) const SLOTS_PER_EPOCH: u64 = 8;
/// The justified checkpoint, execution's `safe`, lies so many epochs back.
pub(super) const JUSTIFIED: u64 = 1;
/// The finalized checkpoint lies so many epochs back.
pub(super) const FINALIZED: u64 = 2;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{chain::Chain, clock::Clock},
        *,
    };

    /// The numbers of the blocks that a view of `chain` loses and gains when it moves on from
    /// `view`.
    fn step(view: &mut View, chain: &Chain, behind: u64) -> (Vec<u64>, Vec<u64>) {
        let change = view.advance(View::new(chain.snapshot(), behind));
        let numbers = |blocks: &[Arc<Block>]| blocks.iter().map(|block| block.number).collect();
        (numbers(&change.removed), numbers(&change.added))
    }

    #[tokio::test]
    async fn a_view_moves_only_to_what_is_new_and_misses_nothing() {
        let chain = Chain::new(1, 1, Clock::fixed(1000), 10, Duration::from_secs(1), None);
        let mut view = View::new(chain.snapshot(), 0);
        let nothing = (vec![], vec![]);
        assert_eq!(step(&mut view, &chain, 0), nothing);
        assert_eq!(step(&mut view, &chain, 5), nothing, "further back on the same snapshot");
        chain.mine(2);
        assert_eq!(step(&mut view, &chain, 5), nothing, "further back on a later snapshot");
        assert_eq!(step(&mut view, &chain, 1), (vec![], vec![11]));
        assert_eq!(step(&mut view, &chain, 0), (vec![], vec![12]));
        chain.reorg(3).unwrap();
        chain.reorg(1).unwrap();
        assert_eq!(step(&mut view, &chain, 0), (vec![12, 11, 10], vec![10, 11, 12, 13, 14]), "two reorgs at once");
        chain.reorg_to(4, 1).unwrap();
        assert_eq!(step(&mut view, &chain, 0), (vec![14, 13, 12, 11], vec![11]), "to a shorter branch");
        chain.reorg_to(1, 0).unwrap();
        assert_eq!(step(&mut view, &chain, 0), nothing, "only blocks gone: no news until there are others");
        chain.mine(1);
        assert_eq!(step(&mut view, &chain, 0), (vec![11], vec![11]));
    }
}
