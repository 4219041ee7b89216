//! Why a call to the store failed, and whether a write may have been applied all the same.

use super::Revision;

/// Why a write has no revision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The key's last revision is another than the one named. Not applied.
    #[error("another write came first{}", found.map(|at| format!(": revision {at}")).unwrap_or_default())]
    Conflict {
        /// The key's last revision, if the store told: of an entry, or of a deletion. For logs, and
        /// to tell an own earlier write from a foreign one; read the entry before the next write.
        found: Option<Revision>,
    },
    /// No answer came, or none that means anything. May have been applied, or be applied later.
    #[error("the write may have been applied: {0}")]
    Ambiguous(String),
    /// The store could not be asked, or refused for want of means. Not applied.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The value is longer than [`super::MAX_VALUE`]. Not applied, and not worth a retry.
    #[error("the write is malformed: {0}")]
    Malformed(String),
}

impl WriteError {
    /// Whether the write may have been applied, or be applied later.
    pub const fn may_apply(&self) -> bool {
        matches!(self, Self::Ambiguous(_))
    }
}

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The store could not be asked, or did not answer in time.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The answer means nothing, or is too long.
    #[error("the store's answer is malformed: {0}")]
    Malformed(String),
}
