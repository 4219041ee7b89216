//! What is thought of a node.

use std::fmt;

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

/// Why a node is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Down {
    /// Not probed yet.
    Unknown,
    /// No connection: refused, unreachable, or no such host.
    Unreachable,
    /// Connections were reset or closed before an answer.
    Dropped,
    /// No answer inside the deadline.
    Silent,
    /// Answers that are errors or make no sense.
    Failing,
    /// It answers again and has yet to prove itself.
    Proving,
}

/// The state of a node by the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Usable.
    Up,
    /// Behind the pool's head by that many blocks (slots), beyond the limit.
    Lagging(u64),
    /// Its head has stood still while the chain moved.
    Stalled,
    /// Says of itself that it is syncing.
    Syncing,
    /// Reports a head that no other node and no pace of the chain bears out.
    Suspect,
    /// Serves another chain.
    WrongChain,
    /// Not answering as a node should.
    Down(Down),
}

impl Verdict {
    /// Every word that [`Verdict::as_str`] can return.
    pub const WORDS: [&'static str; 7] = ["up", "lagging", "stalled", "syncing", "suspect", "wrong_chain", "down"];

    /// Whether calls may go to it while nothing better is said.
    pub fn is_usable(self) -> bool {
        self == Self::Up
    }

    /// Whether it answers at all, so that it may serve when no node is usable. A node on another chain never may: its answers
    /// would be wrong, not old.
    pub fn answers(self) -> bool {
        match self {
            Self::Up | Self::Lagging(_) | Self::Stalled | Self::Syncing | Self::Suspect => true,
            Self::Down(why) => why == Down::Proving,
            Self::WrongChain => false,
        }
    }

    /// How bad it is, for choosing the least bad node.
    pub fn badness(self) -> u64 {
        match self {
            Self::Up => 0,
            Self::Down(Down::Proving) => 1,
            Self::Lagging(blocks) => 2 + blocks.min(1 << 32),
            Self::Stalled => 1 << 33,
            Self::Syncing => 1 << 34,
            Self::Suspect => 1 << 35,
            Self::WrongChain | Self::Down(_) => u64::MAX,
        }
    }

    /// The word for labels and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Lagging(_) => "lagging",
            Self::Stalled => "stalled",
            Self::Syncing => "syncing",
            Self::Suspect => "suspect",
            Self::WrongChain => "wrong_chain",
            Self::Down(_) => "down",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lagging(blocks) => write!(f, "lagging by {blocks}"),
            Self::Down(why) => write!(
                f,
                "down: {}",
                match why {
                    Down::Unknown => "not probed yet",
                    Down::Unreachable => "unreachable",
                    Down::Dropped => "drops connections",
                    Down::Silent => "does not answer in time",
                    Down::Failing => "answers with errors",
                    Down::Proving => "proving itself after an outage",
                }
            ),
            Self::WrongChain => f.write_str("on another chain"),
            other => f.write_str(other.as_str()),
        }
    }
}
