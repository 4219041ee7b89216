//! The order in which nodes are preferred: usable before unusable, nodes that have reached the
//! highest block shown before the others, primary before backup.

use super::snapshot::Facts;
use crate::config::Tier;

/// A node's place in the order of choice: the least is the best. Compared field by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Preference {
    /// How bad the verdict is; 0 is usable.
    pub badness: u64,
    /// How many blocks the node is below the highest that clients have been shown.
    pub below_served: u64,
    /// Primary before backup.
    pub tier: Tier,
}

impl Facts {
    /// The node's place in the order; `None` when the node may not serve at all. `told` is the
    /// highest block that the node itself showed a client, which its last probe may not have seen,
    /// and `served` the highest that any node showed.
    pub fn preference(&self, told: u64, served: u64) -> Option<Preference> {
        let serves = !self.cordoned && self.verdict.answers();
        let height = self.number().max(told);
        serves.then(|| Preference {
            badness: self.verdict.badness(),
            below_served: if self.exempt_from_served { 0 } else { served.saturating_sub(height) },
            tier: self.tier,
        })
    }
}
