//! Words of payloads: enums whose unknown variants are kept as the words that they are.

/// Makes an enum of words, written in JSON as strings. A word of a newer version is `Other`.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
            /// A word that this version does not know. The word is written back unchanged.
            Other(std::sync::Arc<str>),
        }

        impl $name {
            /// Every value that this version knows.
            pub const KNOWN: &[Self] = &[$(Self::$variant,)*];

            /// The word in JSON, labels and tables.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                }
            }

            /// Whether this version knows the word.
            pub fn is_known(&self) -> bool {
                !matches!(self, Self::Other(_))
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Self::$variant,)*
                    other => Self::Other(other.into()),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Ok(<String as serde::Deserialize>::deserialize(from)?.as_str().into())
            }
        }
    };
}

pub(super) use words;

words! {
    /// A replica's part in the election of the leader.
    Role {
        /// Follows, and looks whether the leader is alive.
        Watching = "watching",
        /// Has asked the store for the lease.
        Candidate = "candidate",
        /// Holds the lease.
        Leading = "leading",
        /// Holds the lease, begins no effect, and gives the lease away once the last one has ended.
        Yielding = "yielding",
        /// Led until now; ends the work that only a leader may do.
        Fenced = "fenced",
        /// Cannot use the store, or could not end the work.
        Failed = "failed",
    }
}

words! {
    /// The layer of a node.
    LayerWord {
        /// Execution.
        El = "el",
        /// Consensus.
        Cl = "cl",
    }
}

words! {
    /// The verdict on a node: the words of the pool's verdicts.
    VerdictWord {
        /// Usable.
        Up = "up",
        /// Behind the pool's head.
        Lagging = "lagging",
        /// The head stands still.
        Stalled = "stalled",
        /// The head is not verified.
        Optimistic = "optimistic",
        /// The execution node is lost.
        ElOffline = "el_offline",
        /// Syncing.
        Syncing = "syncing",
        /// Left alone for quota.
        Resting = "resting",
        /// The head is implausible.
        Suspect = "suspect",
        /// Serves another chain.
        WrongChain = "wrong_chain",
        /// Does not answer.
        Down = "down",
    }
}
