//! The operator's wishes for all replicas, and how far a replica has come with them.
//!
//! A wish narrows: a replica keeps to the wish beside its own settings and its own operator, and
//! never lets in a node that one of these keeps out.

use serde::{Deserialize, Serialize};

use super::{
    name::Asker,
    payload::{FORMAT, Malformed, Unknown, decode, payload},
    revision::{Incarnation, StoreRevision},
    word::words,
};

/// The longest wish that is read, in bytes.
const LONGEST_WISH: usize = 4096;
/// The longest error of a wish that a replica reports, in characters.
const LONGEST_ERROR: usize = 200;

words! {
    /// The state that the operator wishes.
    WishWord {
        /// The node gets no new calls, and stays probed.
        Cordoned = "cordoned",
        /// The same, asked for so that the node can be taken away.
        Drained = "drained",
        /// The log has errors alone.
        Error = "error",
        /// The log has warnings too.
        Warn = "warn",
        /// The log has the usual lines.
        Info = "info",
        /// The log has lines for debugging too.
        Debug = "debug",
        /// The log has all lines.
        Trace = "trace",
    }
}

impl WishWord {
    /// The levels of the log.
    pub const LEVELS: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
}

words! {
    /// Why a replica has not applied a wish.
    WishErrorWord {
        /// The replica has no such network.
        NoNetwork = "no_network",
        /// The replica has the network, and no such node.
        NoNode = "no_node",
        /// The replica could not apply the wish, or its settings do not let it.
        NotApplied = "not_applied",
    }
}

/// A wish of the operator. The subject is in the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wish {
    /// The format's number.
    pub format: u32,
    /// The state.
    pub state: WishWord,
    /// The operator who asked, or the replica that was asked.
    pub by: Asker,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub other: Unknown,
}

impl Wish {
    /// A wish of this version.
    pub fn new(state: WishWord, by: Asker) -> Self {
        Self { format: FORMAT, state, by, other: Unknown::new() }
    }

    /// The wish at `key` of `bucket`.
    ///
    /// # Errors
    /// As [`decode`], or the value is longer than 4 KiB.
    pub fn read(key: &str, value: &[u8], bucket: Incarnation) -> Result<Self, Malformed> {
        match value.len() {
            0..=LONGEST_WISH => decode(key, value, bucket),
            length => Err(Malformed::new(key, format!("{length} bytes, {LONGEST_WISH} at most for a wish"))),
        }
    }
}

payload!(Wish, |this| usize::from(!this.state.is_known()));

/// Why a replica has not applied a wish.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WishError {
    /// The reason, in a word.
    pub reason: WishErrorWord,
    /// The reason, in a sentence.
    pub text: String,
}

impl WishError {
    /// An error whose text is cut after 200 characters.
    pub fn new(reason: WishErrorWord, text: &str) -> Self {
        Self { reason, text: text.chars().take(LONGEST_ERROR).collect() }
    }
}

/// How far a replica has come with a wish.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Applied {
    /// The wish's key. A text, since a newer version may have wishes for other subjects.
    pub key: String,
    /// The revision of the wish that the replica has taken up. Compared for equality alone, and
    /// within one bucket.
    pub revision: StoreRevision,
    /// Why the wish is not applied; none where the wish is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<WishError>,
}
