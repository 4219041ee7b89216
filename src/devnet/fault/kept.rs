//! The kinds of data that nodes may have dropped.

use serde::{Deserialize, Serialize};

/// A kind of data that a consensus node may have pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    /// Blocks, their headers and roots.
    Blocks,
    /// States, and answers that are read from states.
    States,
    /// Blobs and data columns.
    Blobs,
}

/// A kind of data that an execution node may have dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// States, and answers that are computed from states.
    State,
    /// Blocks and their transactions.
    Blocks,
    /// Receipts and logs.
    Receipts,
}

/// The program of an execution node, by which its words for one thing differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Program {
    #[default]
    Geth,
    Erigon,
    Nethermind,
    Besu,
    Reth,
}
