//! Changes of a node's verdict, as one replica sees the node.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::{
    payload::{FORMAT, Unknown, payload},
    revision::Revision,
    word::words,
};

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

/// The change that an event tells of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The verdict is another from now on.
    Applied {
        /// The verdict before; none with the first one of a life.
        from: Option<VerdictWord>,
        /// The verdict from now on.
        to: VerdictWord,
        /// The node's last error, redacted.
        last_error: Option<String>,
    },
    /// The replica has the node no longer.
    Removed {
        /// The verdict before.
        from: VerdictWord,
    },
    /// A kind of change that this version does not know, as the JSON that came.
    Other(Value),
}

/// The kinds that this version knows, as serde reads and writes them.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Known {
    Applied {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<VerdictWord>,
        to: VerdictWord,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_error: Option<String>,
    },
    Removed {
        from: VerdictWord,
    },
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.clone() {
            Self::Applied { from, to: word, last_error } => Known::Applied { from, to: word, last_error }.serialize(to),
            Self::Removed { from } => Known::Removed { from }.serialize(to),
            Self::Other(value) => value.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Change {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        let Some(kind) = value.get("kind").and_then(Value::as_str) else {
            return Err(de::Error::missing_field("kind"));
        };
        if !["applied", "removed"].contains(&kind) {
            return Ok(Self::Other(value));
        }
        Ok(match Known::deserialize(value).map_err(de::Error::custom)? {
            Known::Applied { from, to, last_error } => Self::Applied { from, to, last_error },
            Known::Removed { from } => Self::Removed { from },
        })
    }
}

/// The newest change of a node's verdict. The key tells the replica and the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NodeEvent {
    /// The format's number.
    pub format: u32,
    /// The event's place among those of its replica.
    pub revision: Revision,
    /// The change.
    pub change: Change,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub other: Unknown,
}

impl NodeEvent {
    /// An event of this version.
    pub fn new(revision: Revision, change: Change) -> Self {
        Self { format: FORMAT, revision, change, other: Unknown::new() }
    }
}

payload!(NodeEvent, |this| match &this.change {
    Change::Applied { from, to, .. } => from.iter().chain([to]).filter(|word| !word.is_known()).count(),
    Change::Removed { from } => usize::from(!from.is_known()),
    Change::Other(_) => 1,
});
