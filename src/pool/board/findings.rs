//! What probes and calls tell of a node.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    domain::{block::BlockRef, chain::Chain, verdict::Condition},
    pool::health::Fault,
};

/// What a good probe learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The latest block.
    pub block: BlockRef,
    /// What the node says of itself.
    pub condition: Condition,
    /// The chain that it serves, as it said when it was last asked.
    pub chain: Chain,
    /// How long the node took.
    pub latency: Duration,
    /// When the question for the latest block left.
    pub asked: Instant,
    /// The latest block of an execution node, as the node wrote it.
    pub json: Option<Bytes>,
}

/// What a probe or a call ran into, in words without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What it says of the node.
    pub fault: Fault,
    /// For people.
    pub text: String,
}

impl Trouble {
    /// No connection to the node became free.
    pub fn full() -> Self {
        Self { fault: Fault::Full, text: "no connection to the node became free in time".to_owned() }
    }
}
