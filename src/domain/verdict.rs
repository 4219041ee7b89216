//! The state of a node by the rules.

use std::fmt;

/// Why a node is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Down {
    /// Not probed yet.
    Unknown,
    /// No connection: refused, unreachable, or an unknown host.
    Unreachable,
    /// Connections were reset or closed before an answer.
    Dropped,
    /// No answer inside the deadline.
    Silent,
    /// Answers that are errors or make no sense.
    Failing,
    /// Answers again, and has yet to prove itself.
    Proving,
}

/// The state of a node by the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Usable.
    Up,
    /// Behind the pool's head by that many blocks (slots), beyond the limit.
    Lagging(u64),
    /// The node's head has stood still while the chain moved.
    Stalled,
    /// A consensus node whose head no execution node has verified.
    Optimistic,
    /// A consensus node that has lost its execution node.
    ElOffline,
    /// Reports that it is syncing.
    Syncing,
    /// Reports a head that neither another node nor the chain's pace confirms.
    Suspect,
    /// Refuses calls for quota, and is left alone for a while.
    Resting,
    /// Serves another chain.
    WrongChain,
    /// Not answering as a node should.
    Down(Down),
}

impl Verdict {
    /// Every word that [`Verdict::as_str`] can return.
    pub const WORDS: [&'static str; 10] = [
        "up",
        "lagging",
        "stalled",
        "optimistic",
        "el_offline",
        "syncing",
        "resting",
        "suspect",
        "wrong_chain",
        "down",
    ];

    /// Whether the node gets calls as a healthy node does.
    pub fn is_usable(self) -> bool {
        self == Self::Up
    }

    /// Whether the node answers at all, so that it may serve when no node is usable. A node on
    /// another chain never may: its answers would be wrong, not old.
    pub fn answers(self) -> bool {
        match self {
            Self::Up | Self::Lagging(_) | Self::Stalled | Self::Syncing | Self::Suspect => true,
            Self::Optimistic | Self::ElOffline | Self::Resting => true,
            Self::Down(why) => why == Down::Proving,
            Self::WrongChain => false,
        }
    }

    /// Whether the node is in: neither out, nor still to prove itself.
    pub fn is_in(self) -> bool {
        !matches!(self, Self::Down(_))
    }

    /// How bad the node is, to choose the least bad node: an old and true answer is better than a
    /// new and unverified one.
    pub fn badness(self) -> u64 {
        match self {
            Self::Up => 0,
            Self::Down(Down::Proving) => 1,
            Self::Lagging(blocks) => 2 + blocks.min(1 << 32),
            Self::Stalled => 1 << 33,
            Self::Optimistic => 1 << 34,
            Self::ElOffline => 1 << 35,
            Self::Syncing => 1 << 36,
            Self::Resting => 1 << 37,
            Self::Suspect => 1 << 38,
            Self::WrongChain | Self::Down(_) => u64::MAX,
        }
    }

    /// The word for labels and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Lagging(_) => "lagging",
            Self::Stalled => "stalled",
            Self::Optimistic => "optimistic",
            Self::ElOffline => "el_offline",
            Self::Syncing => "syncing",
            Self::Resting => "resting",
            Self::Suspect => "suspect",
            Self::WrongChain => "wrong_chain",
            Self::Down(_) => "down",
        }
    }
}

/// The state that a node reports of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Syncing.
    pub syncing: bool,
    /// No execution node has verified the head. Consensus only, like all that follows.
    pub optimistic: bool,
    /// Cannot reach its execution node.
    pub el_offline: bool,
    /// Slots that the node still has to process, by its own clock; 0 for an execution node.
    pub sync_distance: u64,
}

impl Condition {
    /// The worst trouble that the node reports of itself.
    pub fn verdict(self) -> Option<Verdict> {
        match self {
            Self { syncing: true, .. } => Some(Verdict::Syncing),
            Self { el_offline: true, .. } => Some(Verdict::ElOffline),
            Self { optimistic: true, .. } => Some(Verdict::Optimistic),
            _ => None,
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
            Self::Resting => f.write_str("resting: it refuses calls for quota"),
            Self::WrongChain => f.write_str("on another chain"),
            Self::ElOffline => f.write_str("its execution node is offline"),
            other => f.write_str(other.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Verdict; 11] = [
        Verdict::Up,
        Verdict::Down(Down::Proving),
        Verdict::Lagging(u64::MAX),
        Verdict::Stalled,
        Verdict::Optimistic,
        Verdict::ElOffline,
        Verdict::Syncing,
        Verdict::Resting,
        Verdict::Suspect,
        Verdict::WrongChain,
        Verdict::Down(Down::Silent),
    ];

    #[test]
    fn verdicts_are_listed_from_good_to_bad_and_each_has_its_word() {
        assert!(ALL.windows(2).all(|pair| pair[0].badness() <= pair[1].badness()));
        for verdict in ALL {
            assert!(Verdict::WORDS.contains(&verdict.as_str()), "{verdict}");
            assert_eq!(verdict.answers(), verdict.badness() != u64::MAX, "{verdict}");
            assert_eq!(verdict.is_usable(), verdict.badness() == 0, "{verdict}");
        }
    }

    #[test]
    fn the_worst_trouble_that_a_node_admits_is_its_verdict() {
        let says = |syncing, optimistic, el_offline| Condition { syncing, optimistic, el_offline, sync_distance: 9 };
        assert_eq!(says(false, false, false).verdict(), None);
        assert_eq!(says(false, true, false).verdict(), Some(Verdict::Optimistic));
        assert_eq!(says(false, true, true).verdict(), Some(Verdict::ElOffline));
        assert_eq!(says(true, true, true).verdict(), Some(Verdict::Syncing));
    }
}
