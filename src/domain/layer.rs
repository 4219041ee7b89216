//! The two layers of Ethereum.

/// The side of a network that a node serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// Execution: JSON-RPC.
    El,
    /// Consensus: the beacon API.
    Cl,
}

impl Layer {
    /// The word in configuration, labels and paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::El => "el",
            Self::Cl => "cl",
        }
    }
}
