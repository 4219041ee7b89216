//! Slots: each has a block or is empty. A client publishes the blocks of its own validators; the
//! blocks of all other validators come by themselves.
//!
//! Which block becomes the head: a block on top of the newest one does. A block on the newest one's
//! parent does if the newest came late (more than a third of its slot was over, so that hardly any
//! validator voted for it), and the late block is removed. Any other block is known to all nodes
//! and is the head of none.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use alloy_primitives::{Address, B256};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    super::{
        block::{Block, Origin},
        cl,
    },
    Chain, State,
};

/// Latest slots for which a client's block is remembered.
const KEPT_SLOTS: usize = 256;
/// Slots whose turn can be arranged in advance.
const ARRANGED: usize = 4096;

/// The block of a slot whose proposer belongs to no client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// There is no block.
    Empty,
    /// The block comes so long after the slot's beginning.
    Block(Duration),
    /// The same; and if the newest block came late, this block takes its place.
    Against(Duration),
}

/// A block that a client publishes.
#[derive(Clone, Copy, Debug)]
pub(in crate::devnet) struct Proposal {
    pub(in crate::devnet) slot: u64,
    /// The root of the parent.
    pub(in crate::devnet) parent: B256,
    pub(in crate::devnet) paid: Address,
}

/// Blocks that were arranged and proposed, by slot.
#[derive(Default)]
pub(super) struct Slots {
    beat: Option<Beat>,
    arranged: BTreeMap<u64, Turn>,
    /// Validators that belong to clients.
    clients: BTreeSet<u64>,
    /// Slots for which a client published a block.
    proposed: BTreeSet<u64>,
    /// The hash of the newest block, if that block came late.
    late: Option<B256>,
}

/// When slots begin.
#[derive(Clone, Copy)]
struct Beat {
    start: Instant,
    first: u64,
    length: Duration,
}

impl Slots {
    fn is_late(&self, slot: u64) -> bool {
        self.beat.is_some_and(|beat| {
            let into = beat.length * u32::try_from(slot.saturating_sub(beat.first)).unwrap_or(u32::MAX);
            Instant::now() > beat.start + into + beat.length / 3
        })
    }
}

impl Chain {
    /// The beginning of the slot after the head's, `length` from now at most. Slots of whole
    /// seconds begin with these, all others by their number from genesis on, as the validators of a
    /// client reckon.
    pub(in crate::devnet) fn next_slot(&self, length: Duration) -> Instant {
        let (now, clock) = (Instant::now(), Duration::from_millis(self.clock.millis()));
        if length.subsec_nanos() == 0 {
            return now + (length - Duration::from_nanos(clock.subsec_nanos().into()));
        }
        let since = clock.saturating_sub(Duration::from_secs(self.snapshot().genesis.timestamp));
        let slot = u32::try_from(self.head().slot + 1).unwrap_or(u32::MAX);
        let due = length.saturating_mul(slot);
        match due.checked_sub(since) {
            Some(wait) => now + wait.min(length),
            None => now.checked_sub(since - due).unwrap_or(now),
        }
    }

    /// Arranges the turn of a slot that has not begun. At most 4096 slots are arranged at a time.
    pub fn arrange(&self, slot: u64, turn: Turn) {
        let arranged = &mut self.state().slots.arranged;
        arranged.insert(slot, turn);
        if arranged.len() > ARRANGED {
            arranged.pop_first();
        }
    }

    /// From now on these validators' blocks come from a client, or not at all.
    pub(in crate::devnet) fn leave_to_client(&self, validators: &[u64]) {
        self.state().slots.clients.extend(validators);
    }

    /// Whether a client published a block for this slot. The latest 256 such slots are remembered.
    pub(in crate::devnet) fn was_proposed(&self, slot: u64) -> bool {
        self.state().slots.proposed.contains(&slot)
    }

    /// Takes a block that a client published, if the slot's proposer belongs to a client and no
    /// block was published for the slot before.
    pub(in crate::devnet) fn propose(&self, proposal: Proposal) {
        let Proposal { slot, parent, paid } = proposal;
        let mut state = self.state();
        let Some(parent) = state.by_root.get(&parent).cloned().filter(|parent| parent.slot < slot) else { return };
        if !state.slots.clients.contains(&cl::proposer(slot)) || !state.slots.proposed.insert(slot) {
            return;
        }
        if state.slots.proposed.len() > KEPT_SLOTS {
            state.slots.proposed.pop_first();
        }
        let origin = Origin { slot, timestamp: self.clock.unix(), paid: Some(paid), ..Origin::default() };
        let mut blocks = self.snapshot().blocks.clone();
        state.cut_if_late(&mut blocks, &parent.hash);
        if blocks.last().is_some_and(|tip| tip.hash == parent.hash) {
            self.grow(&mut state, blocks, origin);
        } else {
            state.branches += 1;
            let branch = state.branches;
            state.add(&self.author, &mut vec![parent], branch, Vec::new(), origin);
            self.publish(&mut state, blocks);
        }
    }

    /// Adds the block of a slot that has begun; `against`: in the place of the newest block if that
    /// one came late.
    fn mine_in(&self, slot: u64, against: bool) {
        let mut state = self.state();
        let mut blocks = self.snapshot().blocks.clone();
        if against && let Some(parent) = blocks.last().map(|tip| tip.parent_hash) {
            state.cut_if_late(&mut blocks, &parent);
        }
        // Blocks may have been mined ahead.
        let slot = slot.max(blocks.last().map_or(0, |tip| tip.slot + 1));
        self.grow(&mut state, blocks, Origin { slot, timestamp: self.clock.unix(), ..Origin::default() });
    }

    fn grow(&self, state: &mut State, mut blocks: Vec<Arc<Block>>, origin: Origin) {
        state.extend_in(&self.author, &mut blocks, origin);
        let is_late = state.slots.is_late(origin.slot);
        state.slots.late = blocks.last().filter(|_| is_late).map(|tip| tip.hash);
        self.publish(state, blocks);
    }

    /// The turn of a slot that begins; none: the slot's block comes from a client, if at all.
    fn turn(&self, slot: u64) -> Option<Turn> {
        let mut state = self.state();
        let arranged = state.slots.arranged.remove(&slot);
        let is_clients = state.slots.clients.contains(&cl::proposer(slot));
        (!is_clients).then(|| arranged.unwrap_or(Turn::Block(Duration::ZERO)))
    }
}

impl State {
    /// Removes the newest block if that block came late and its parent is `parent`.
    fn cut_if_late(&mut self, blocks: &mut Vec<Arc<Block>>, parent: &B256) {
        let goes = blocks.last().is_some_and(|tip| tip.parent_hash == *parent && self.slots.late == Some(tip.hash));
        if goes && blocks.len() > 1 {
            self.cut(blocks, blocks.len() - 1);
        }
    }
}

/// Begins a slot every `length` for ever, the first one at `start`, which may have passed.
pub(in crate::devnet) async fn beat(chain: Arc<Chain>, start: Instant, length: Duration) {
    let first = chain.head().slot + 1;
    chain.state().slots.beat = Some(Beat { start, first, length });
    let mut coming = JoinSet::new();
    let mut passed = 0;
    loop {
        sleep_until(start + length * passed).await;
        while coming.try_join_next().is_some() {}
        let slot = first + u64::from(passed);
        let (after, against) = match chain.turn(slot) {
            None | Some(Turn::Empty) => (None, false),
            Some(Turn::Block(after)) => (Some(after), false),
            Some(Turn::Against(after)) => (Some(after), true),
        };
        match after {
            None => {}
            Some(Duration::ZERO) => chain.mine_in(slot, against),
            Some(after) => {
                let (chain, at) = (chain.clone(), start + length * passed + after);
                coming.spawn(async move {
                    sleep_until(at).await;
                    chain.mine_in(slot, against);
                });
            }
        }
        // Slots begin by the clock: slots that went by while this machine did something else are
        // empty.
        let now = start.elapsed().as_nanos() / length.as_nanos().max(1);
        passed = u32::try_from(now).unwrap_or(u32::MAX).max(passed.saturating_add(1));
    }
}
