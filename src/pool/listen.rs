//! What nodes tell by themselves: the heads that they push over their links.

use bytes::Bytes;

use crate::domain::block::BlockRef;

/// A header that a node pushed: knowledge that saves asking for it, and no word on which block is the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The node's index in the pool.
    pub node: usize,
    /// The block's place.
    pub block: BlockRef,
    /// The header as the node wrote it.
    pub json: Bytes,
}
