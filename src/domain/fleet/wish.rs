//! Wishes of the operator, written once for all replicas.

use serde::{Deserialize, Serialize};

use super::{
    payload::{FORMAT, Unknown, payload},
    word::words,
};

words! {
    /// The kind of a wish.
    WishKind {
        /// The node gets no calls.
        Cordon = "cordon",
        /// The wish for a cordon or drain is taken back; what the local file says stays.
        Uncordon = "uncordon",
        /// The node gets no new calls, and its connections are closed as they fall idle.
        Drain = "drain",
        /// The filter of the log, in [`Wish::value`].
        LogLevel = "log_level",
    }
}

/// A wish. The key's revision is the revision that is wished, and that replicas report as applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wish {
    /// The format's number.
    pub format: u32,
    /// The kind.
    pub kind: WishKind,
    /// The wish's value, where the kind has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The operator's reason, for `/status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub other: Unknown,
}

impl Wish {
    /// A wish of this version.
    pub fn new(kind: WishKind, value: Option<String>) -> Self {
        Self { format: FORMAT, kind, value, why: None, other: Unknown::new() }
    }
}

payload!(Wish, |this| usize::from(!this.kind.is_known()));
