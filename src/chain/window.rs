//! The canonical blocks that are remembered, and the path from them to another head.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use alloy_primitives::B256;

use super::{
    block::{Block, Head},
    known::Known,
};
use crate::domain::node_id::NodeId;

/// From that many blocks the time between blocks is estimated.
const SAMPLE: usize = 16;

/// A header that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) hash: B256,
    /// The height that follows from its child's height.
    pub(super) number: u64,
}

/// The path from the window to a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PathToHead {
    Leads(Reorg),
    Missing(Missing),
    /// The path leaves the chain below the window, further down than is looked.
    TooDeep,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reorg {
    /// How many of the window's blocks, from the oldest, stay canonical.
    kept: usize,
    /// The blocks that follow them, oldest first.
    added: Vec<Arc<Block>>,
}

/// Consecutive blocks of the canonical chain.
#[derive(Debug)]
pub(super) struct Window {
    /// Oldest first; each is the parent of the next.
    blocks: VecDeque<Arc<Block>>,
    /// How many are kept.
    most: usize,
    /// Whether the window has been full since its beginning, so that blocks older than its oldest
    /// may have been reported and forgotten.
    pub(super) is_full: bool,
}

impl Window {
    pub(super) fn new(most: usize) -> Self {
        Self { blocks: VecDeque::new(), most: most.max(1), is_full: false }
    }

    pub(super) fn tip(&self) -> Option<&Arc<Block>> {
        self.blocks.back()
    }

    /// The height of its oldest block.
    pub(super) fn floor(&self) -> Option<u64> {
        self.blocks.front().map(|block| block.number)
    }

    pub(super) fn has(&self, hash: B256, number: u64) -> bool {
        self.place(hash, number).is_some()
    }

    /// Begins anew with this block alone.
    pub(super) fn reset(&mut self, block: Arc<Block>) {
        self.blocks.clear();
        self.is_full = false;
        self.push(block);
    }

    /// `block` is a child of the tip, or the first one.
    pub(super) fn push(&mut self, block: Arc<Block>) {
        self.blocks.push_back(block);
        self.is_full |= self.blocks.len() >= self.most;
        if self.blocks.len() > self.most {
            self.blocks.pop_front();
        }
    }

    /// Makes the reorganisation; returns the removed blocks, newest first.
    pub(super) fn apply(&mut self, reorg: &Reorg) -> Vec<Arc<Block>> {
        let removed = self.blocks.drain(reorg.kept..).rev().collect();
        reorg.added.iter().for_each(|block| self.push(block.clone()));
        removed
    }

    /// The path to `head` over the window's blocks and those that are known while the word of
    /// `node` counts. A path that leaves the chain below a young window is followed for `most`
    /// blocks below that window.
    pub(super) fn path_to_head(&self, head: &Head, known: &Known, node: NodeId, most: u64) -> PathToHead {
        let mut added = Vec::new();
        let floor = self.floor().unwrap_or(0);
        let (mut hash, mut number) = (head.hash, head.number);
        let kept = loop {
            if let Some(place) = self.place(hash, number) {
                break place + 1;
            }
            if number < floor {
                return PathToHead::TooDeep;
            }
            let Some(block) = known.find(node, hash, number) else {
                return PathToHead::Missing(Missing { hash, number });
            };
            added.push(block.clone());
            // Only a block at the floor can have none below that would matter.
            if number == floor {
                if self.is_full {
                    return PathToHead::TooDeep;
                }
                let below = self.branch(&mut added, known, node, most);
                if let Some(path) = below {
                    return path;
                }
                break 0;
            }
            (hash, number) = (block.parent, number - 1);
        };
        added.reverse();
        PathToHead::Leads(Reorg { kept, added })
    }

    /// Adds the blocks of a path below a young window, from the path's block at the window's floor
    /// down to the block that both branches have. Reason: the blocks below the window were
    /// canonical before the listeners came, and the blocks in their place are new to all. So the
    /// window's own branch is followed too, although its blocks are not reported. Example: the
    /// window begins with a11, and the path with b11 and b10, which follows a9. That a10 follows
    /// a9 shows where the path leaves the chain: b10 and b11 are reported. Returns another
    /// outcome where no path leads there.
    fn branch(&self, added: &mut Vec<Arc<Block>>, known: &Known, node: NodeId, most: u64) -> Option<PathToHead> {
        let (mut own, mut other) = (self.blocks.front()?.clone(), added.last()?.clone());
        let floor = own.number;
        while own.parent != other.parent && other.number > 0 {
            if floor - other.number >= most {
                return Some(PathToHead::TooDeep);
            }
            let number = other.number - 1;
            let find = |hash| known.find(node, hash, number).ok_or(PathToHead::Missing(Missing { hash, number }));
            match (find(other.parent), find(own.parent)) {
                (Ok(next), Ok(next_own)) => (other, own) = (next.clone(), next_own.clone()),
                (Err(missing), _) | (_, Err(missing)) => return Some(missing),
            }
            added.push(other.clone());
        }
        None
    }

    /// The usual time between blocks by their timestamps.
    pub(super) fn block_time(&self) -> Option<Duration> {
        let newest = self.tip()?;
        let gaps = (self.blocks.len() - 1).min(SAMPLE);
        let oldest = self.blocks.get(self.blocks.len() - 1 - gaps)?;
        Duration::from_secs(newest.timestamp.saturating_sub(oldest.timestamp)).checked_div(u32::try_from(gaps).ok()?)
    }

    fn place(&self, hash: B256, number: u64) -> Option<usize> {
        let place = usize::try_from(number.checked_sub(self.floor()?)?).ok()?;
        self.blocks.get(place).filter(|block| block.hash == hash).map(|_| place)
    }
}

impl Reorg {
    pub(super) fn into_added(self) -> Vec<Arc<Block>> {
        self.added
    }
}
