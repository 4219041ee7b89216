//! The canonical blocks that are remembered, and the way from them to another head.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    block::{Block, Head},
    known::Known,
};
use crate::domain::hash::Hash;

/// From that many blocks the time between blocks is estimated.
const SAMPLE: usize = 16;

/// A header that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) hash: Hash,
    /// The height that follows from its child's height.
    pub(super) number: u64,
}

/// The way from the window to a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Road {
    Leads(Way),
    Missing(Missing),
    /// The way leaves the chain below the window.
    TooDeep,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Way {
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

    pub(super) fn has(&self, hash: Hash, number: u64) -> bool {
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

    /// Goes the way; returns the removed blocks, newest first.
    pub(super) fn go(&mut self, way: &Way) -> Vec<Arc<Block>> {
        let removed = self.blocks.drain(way.kept..).rev().collect();
        way.added.iter().for_each(|block| self.push(block.clone()));
        removed
    }

    /// The way to `head` over the window's blocks and those that are known while the word of `node`
    /// counts.
    pub(super) fn road(&self, head: &Head, known: &Known, node: usize) -> Road {
        let mut added = Vec::new();
        let floor = self.floor().unwrap_or(0);
        let (mut hash, mut number) = (head.hash, head.number);
        let kept = loop {
            if let Some(place) = self.place(hash, number) {
                break place + 1;
            }
            if number < floor {
                return Road::TooDeep;
            }
            let Some(block) = known.find(node, hash, number) else {
                return Road::Missing(Missing { hash, number });
            };
            added.push(block.clone());
            // Only a block at the floor can have none below that would matter.
            if number == floor {
                if self.is_full {
                    return Road::TooDeep;
                }
                // No listener has heard of blocks before the window's first one.
                break 0;
            }
            (hash, number) = (block.parent, number - 1);
        };
        added.reverse();
        Road::Leads(Way { kept, added })
    }

    /// The usual time between blocks by their timestamps.
    pub(super) fn block_time(&self) -> Option<Duration> {
        let newest = self.tip()?;
        let gaps = (self.blocks.len() - 1).min(SAMPLE);
        let oldest = self.blocks.get(self.blocks.len() - 1 - gaps)?;
        Duration::from_secs(newest.timestamp.saturating_sub(oldest.timestamp)).checked_div(u32::try_from(gaps).ok()?)
    }

    fn place(&self, hash: Hash, number: u64) -> Option<usize> {
        let place = usize::try_from(number.checked_sub(self.floor()?)?).ok()?;
        self.blocks.get(place).filter(|block| block.hash == hash).map(|_| place)
    }
}

impl Way {
    pub(super) fn into_added(self) -> Vec<Arc<Block>> {
        self.added
    }
}
