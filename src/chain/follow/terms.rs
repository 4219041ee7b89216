//! The inputs of a follower, and its effects.

use std::sync::Arc;

use super::super::{
    block::{Block, Change, Head},
    window::Missing,
};
use crate::domain::node_id::NodeId;

/// An input of a follower.
#[derive(Clone, Debug)]
pub(in super::super) enum Input {
    /// The active node and its head, and whether other nodes have the tip. `None` while no node
    /// serves, or while the active node has reported no head.
    Head(Option<(NodeId, Head)>, Others),
    /// A node told a header unasked.
    Pushed(NodeId, Arc<Block>),
    /// A fetch ended, maybe too late to matter; without a block if the node had none to give.
    Fetched(Fetch, Option<Block>),
    /// A first listener is there. The active node and its head when the listener began to listen.
    Wanted(Option<(NodeId, Head)>),
    /// The last listener has left.
    Unwanted,
    /// The nodes are others now, of the same network.
    Moved,
    /// The moment of [`Follow::wake_at`] has come.
    Woken,
}

/// Whether nodes that are not active have the tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Others {
    /// Another node stands at the tip's height or above, or the active node says that it is
    /// syncing.
    Hold,
    /// No other node that answers stands so high; some do not answer.
    Away,
    /// All other nodes answer, and none stands so high.
    Lack,
}

/// An effect of an input.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Effect {
    /// A header is to be fetched.
    Fetch(Fetch),
    /// All fetches under way are to be dropped.
    Drop,
    /// A fetch brought a header that no node had reported.
    Filled,
    /// The reorganisation to the next change removed this number of blocks.
    Reorged(usize),
    /// Blocks between these heights will not be reported, for this reason.
    Skipped { from: u64, to: u64, why: &'static str },
    /// The chain changed.
    Tell(Change),
}

/// A header to be had from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Fetch {
    pub(in super::super) node: NodeId,
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
