//! A block of the canonical window.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::{bloom::Bloom, hash::Hash};

/// A block as the window keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Height.
    pub number: u64,
    /// Its name.
    pub hash: Hash,
    /// The block before it.
    pub parent: Hash,
    /// Seconds since the Unix epoch.
    pub timestamp: u64,
    /// The header's JSON as `newHeads` tells it, an object; never empty in [`Change::added`].
    pub header: Bytes,
    /// The header's bloom filter; `None` when the node wrote none.
    pub bloom: Option<Box<Bloom>>,
}

/// How the canonical chain changed: first `removed` went, then `added` came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Counts changes.
    pub seq: u64,
    /// The node that told it, by its index in the follower's pool of that moment; after a reload there may be no such node.
    pub node: usize,
    /// Blocks that are no longer canonical, newest first. Their `header` may be empty if they were never told as added.
    pub removed: Vec<Arc<Block>>,
    /// Blocks that are now canonical, oldest first; never empty.
    pub added: Vec<Arc<Block>>,
    /// Blocks before `added[0]` were not told: the gap was longer than may be filled. `removed` is empty then.
    pub skipped: bool,
}
