//! The inputs of a follower, and its effects.

use std::sync::Arc;

use super::super::{
    block::{Block, Change, Head},
    window::Missing,
};

/// An input of a follower.
#[derive(Clone, Debug)]
pub(in super::super) enum Input {
    /// The active node and its head; none when no node serves, or the one that does has not told
    /// any. And what the others have.
    Head(Option<(usize, Head)>, Others),
    /// A node told a header unasked.
    Pushed(usize, Arc<Block>),
    /// A fetch ended, maybe too late to matter; without a block if the node had none to give.
    Fetched(Fetch, Option<Block>),
    /// Somebody listens from now on. The active node and its head when they began to.
    Wanted(Option<(usize, Head)>),
    /// The last listener has left.
    Unwanted,
    /// The nodes are others now, of the same network.
    Moved,
    /// The moment of [`Follow::wake_at`] has come.
    Woken,
}

/// The tip as far as nodes that are not active have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Others {
    /// A node among them stands as high.
    Hold,
    /// None that answers does; some do not answer.
    Away,
    /// None does.
    Lack,
}

/// An effect of an input.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Effect {
    /// A header is to be fetched.
    Fetch(Fetch),
    /// The header that is being fetched is not wanted any more.
    Drop,
    /// A fetch brought a header that no node had told.
    Filled,
    /// The way to the next change took out so many blocks.
    Reorged(usize),
    /// Blocks between these heights will not be told, for this reason.
    Skipped { from: u64, to: u64, why: &'static str },
    /// The chain changed.
    Tell(Change),
}

/// A header to be had from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Fetch {
    pub(in super::super) node: usize,
    pub(in super::super) what: What,
}

/// Which header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum What {
    /// The one of this name.
    Hash(Missing),
    /// The one that is canonical at this height.
    Height(u64),
}
