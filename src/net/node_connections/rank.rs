//! The order among requests that wait for a connection, and the state of a node's connections.

/// The kind of request that needs a connection. The lower rank comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A probe. Some permits are kept free for probes, or a full node would look like a dead one.
    Probe,
    /// Another question of our own, or a link. A permit is kept for these.
    Own,
    /// A client's.
    Call,
}

/// The state of a node's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Connections that are open.
    pub open: usize,
    /// How many may be.
    pub bound: Option<usize>,
    /// Whether the node taught the bound, and not the operator.
    pub learnt: bool,
    /// Requests that wait for a connection.
    pub waiting: usize,
}
