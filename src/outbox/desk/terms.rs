//! The settings of a desk.

use crate::{config::Ack, outbox::id::Network};

/// The settings of one network's desk. A reload replaces them as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The network.
    pub network: Network,
    /// What a client waits for before it gets the hash.
    pub ack: Ack,
    /// How long a client waits for a node's word before it gets the hash all the same, in
    /// milliseconds.
    pub hold: u64,
    /// Blocks, its own included, that make a transaction confirmed.
    pub confirmations: u64,
    /// Blocks after which the nodes are asked whether they still know a transaction.
    pub resend_blocks: u64,
    /// How long a transaction may wait for a block before it is given up, in milliseconds.
    pub deadline: u64,
    /// How long the record of a life that is over is kept, in milliseconds.
    pub keep: u64,
    /// How much is held.
    pub bounds: Bounds,
    /// Transactions of one tenant on their way to nodes at once, at most.
    pub in_flight: usize,
}

/// How much a desk holds, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Transactions whose life is not over.
    pub pending: usize,
    /// The same of one tenant.
    pub tenant_pending: usize,
    /// Bytes of all records with their raw transactions.
    pub bytes: usize,
    /// The same of one tenant.
    pub tenant_bytes: usize,
}
