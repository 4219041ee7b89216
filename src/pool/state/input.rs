//! The inputs of a pool's state.

use tokio::time::Instant;

use crate::{
    domain::{block::BlockRef, node_id::NodeId},
    pool::{health::Trouble, probe::Probe},
};

/// An event that changes a pool's state.
#[derive(Clone, Debug)]
pub enum Input {
    /// A probe ended.
    Probed(NodeId, Result<Probe, Trouble>),
    /// The node told of a new latest block by itself, which came at this moment.
    Told(NodeId, BlockRef, Instant),
    /// The node's feed of heads runs from now on, or no longer.
    Feed(NodeId, bool),
    /// The node's rests have changed.
    Rests(NodeId),
    /// A call failed in a way that speaks of the node.
    CallFailed(NodeId, Trouble),
    /// Evidence that needs no repetition: the node is out.
    Out(NodeId, Trouble),
    /// The operator takes the node out, or lets it back in.
    Cordon(NodeId, bool),
    /// The operator wishes the node out of use at all replicas, or no longer.
    Wish(NodeId, bool),
    /// The moment of [`Snapshot::wake_at`](crate::pool::snapshot::Snapshot::wake_at) has come.
    Woken,
    /// Calls could not be held any longer for the highest block shown, and went to the best node
    /// there is.
    Impatient,
    /// A client of another proxy was shown a higher block than any client of this one.
    ShownElsewhere,
}
