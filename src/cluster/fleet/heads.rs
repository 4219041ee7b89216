//! Heights that clients were shown by any replica.

use std::collections::BTreeMap;

use crate::domain::fleet::{Heads, ReplicaName};

/// A height of another replica that this replica does not believe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The replica that claims the height.
    pub replica: ReplicaName,
    /// The height.
    pub height: u64,
}

/// The heights behind which this replica does not go back, for one layer of one network.
///
/// Trust is bounded: a height counts when this replica's own pool believes a head at most `near`
/// blocks below. A replica that claims more is not heard until the pool has come near. The heights
/// never fall, also when the replica that showed them is gone: its clients are not.
#[derive(Clone, Debug, Default)]
pub struct SharedHeads {
    accepted: Heads,
    claims: BTreeMap<ReplicaName, Heads>,
    near: u64,
}

impl SharedHeads {
    /// No heights yet. `near` is how many blocks (slots) the pool lets a node lag.
    pub fn new(near: u64) -> Self {
        Self { near, ..Self::default() }
    }

    /// A replica's heartbeat tells these heights. An earlier, higher claim of the replica stands.
    pub fn claim(&mut self, replica: &ReplicaName, heads: Heads) {
        let known = self.claims.entry(replica.clone()).or_default();
        *known = highest(*known, heads);
    }

    /// A replica is gone: a claim that was not believed yet goes too.
    pub fn gone(&mut self, replica: &ReplicaName) {
        self.claims.remove(replica);
    }

    /// The heights to keep to, where the own pool believes the head `believed`; none: the pool has
    /// no head, and believes nothing new.
    pub fn shared(&mut self, believed: Option<u64>) -> Heads {
        if let Some(most) = believed.map(|believed| believed.saturating_add(self.near)) {
            for heads in self.claims.values().filter(|heads| heads.served <= most) {
                // A safe or final block above the latest one is no true word.
                let below = |height: &u64| *height <= heads.served;
                let (safe, finalized) = (heads.safe.filter(below), heads.finalized.filter(below));
                self.accepted = highest(self.accepted, Heads { served: heads.served, safe, finalized });
            }
        }
        self.accepted
    }

    /// The claims that are not believed now.
    pub fn unbelieved(&self, believed: Option<u64>) -> Vec<Claim> {
        let most = believed.map_or(0, |believed| believed.saturating_add(self.near));
        let above = self.claims.iter().filter(|(_, heads)| heads.served > most.max(self.accepted.served));
        above.map(|(replica, heads)| Claim { replica: replica.clone(), height: heads.served }).collect()
    }
}

/// The higher of each height.
fn highest(a: Heads, b: Heads) -> Heads {
    Heads { served: a.served.max(b.served), safe: a.safe.max(b.safe), finalized: a.finalized.max(b.finalized) }
}
