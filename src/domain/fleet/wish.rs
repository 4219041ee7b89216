//! Wishes of the operator for all replicas.

use serde::{Deserialize, Serialize};

use super::{
    payload::{FORMAT, Unknown, payload},
    revision::StoreRevision,
};

/// The operator's wish for a node. The key's revision is the revision that is wished.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Wish {
    /// The format's number.
    pub format: u32,
    /// Whether the node gets no calls. `false` takes an earlier wish back.
    pub cordoned: bool,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub other: Unknown,
}

impl Wish {
    /// A wish of this version.
    pub fn new(cordoned: bool) -> Self {
        Self { format: FORMAT, cordoned, other: Unknown::new() }
    }
}

payload!(Wish);

/// The newest wish at a key that a replica has tried to apply.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Applied {
    /// The wish's revision. With an error, the revision was tried and not applied.
    pub revision: StoreRevision,
    /// Why the wish was not applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
