//! `[chain]`: how much of the chain is kept in mind for subscribers.

use super::reader::Reader;

/// The largest window: more than a reorganisation can reach back on any chain, and still small in memory.
const MAX_WINDOW: u64 = 65_536;

/// How much of the chain is kept in mind for subscribers, in blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The latest blocks that are kept: as deep as a reorganisation can be and still be told block by block.
    pub window: usize,
    /// The longest gap that is filled block by block; at least 1 and less than `window`. A longer one is skipped.
    pub max_backfill: usize,
}

impl Default for Chain {
    fn default() -> Self {
        Self { window: 256, max_backfill: 128 }
    }
}

impl Chain {
    pub(super) fn read(mut r: Reader<'_>) -> Self {
        let default = Self::default();
        let mut blocks = |key, range| r.integer(key, range).and_then(|n| usize::try_from(n).ok());
        let window = blocks("window", 2..=MAX_WINDOW).unwrap_or(default.window);
        // A small window alone is a whole setting: it takes this one with it.
        let max_backfill = blocks("max_backfill", 1..=MAX_WINDOW).unwrap_or(default.max_backfill.min(window / 2));
        r.check(max_backfill < window, "max_backfill", &["window"], "must be less than `window`");
        Self { window, max_backfill }
    }
}
