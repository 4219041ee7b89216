//! The payload of the key `view`: the members of the cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    name::ReplicaName,
    payload::{FORMAT, Malformed, Unknown, are_carried, payload},
    revision::{Epoch, StoreRevision},
    word::words,
};

words! {
    /// A replica's standing in the cluster.
    MemberState {
        /// Registered; still reads the copies of the cluster's state and of the outbox.
        Joining = "joining",
        /// Takes part: may lead and own shards.
        Active = "active",
        /// Leaves: hands the shards over and takes none.
        Draining = "draining",
        /// Has left of its own will.
        Left = "left",
        /// Was not heard of for the failover timeout.
        Failed = "failed",
    }
}

/// A replica in a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The life that the state is of.
    pub epoch: Epoch,
    /// The standing.
    pub state: MemberState,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub other: Unknown,
}

/// The replicas of the cluster, those that went lately included. The view's number is the key's
/// revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// The format's number.
    pub format: u32,
    /// Each replica with its newest life.
    pub members: BTreeMap<ReplicaName, Member>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub other: Unknown,
}

impl Default for View {
    fn default() -> Self {
        Self { format: FORMAT, members: BTreeMap::new(), other: Unknown::new() }
    }
}

impl View {
    /// The view, as the value at `key` with that revision.
    ///
    /// # Errors
    /// A member has a life that cannot be: an epoch is the revision of an earlier entry.
    pub fn checked(self, key: &str, revision: StoreRevision) -> Result<Self, Malformed> {
        match self.members.values().find(|member| member.epoch.0 > revision.0) {
            Some(Member { epoch, .. }) => {
                Err(Malformed::new(key, format!("epoch {epoch} is above the entry's revision")))
            }
            None => Ok(self),
        }
    }

    /// Drops unknown fields that are too long to be written.
    pub fn carry(&mut self) {
        if !are_carried(self.members.values().map(|member| &member.other).chain([&self.other])) {
            self.other.clear();
            self.members.values_mut().for_each(|member| member.other.clear());
        }
    }

    /// The replicas that take part, with their lives.
    pub fn active(&self) -> impl Iterator<Item = (&ReplicaName, Epoch)> {
        let active = self.members.iter().filter(|(_, member)| member.state == MemberState::Active);
        active.map(|(name, member)| (name, member.epoch))
    }

    /// The standing of that life of that replica. A life that the view has forgotten, or that a
    /// newer life has followed, has failed; one that is newer than the view's has no standing yet.
    pub fn state_of(&self, replica: &ReplicaName, epoch: Epoch) -> Option<MemberState> {
        let member = self.members.get(replica)?;
        match member.epoch.cmp(&epoch) {
            std::cmp::Ordering::Equal => Some(member.state.clone()),
            std::cmp::Ordering::Greater => Some(MemberState::Failed),
            std::cmp::Ordering::Less => None,
        }
    }
}

payload!(View, |this| {
    let members = this.members.values();
    members.map(|member| member.other.len() + usize::from(!member.state.is_known())).sum::<usize>()
});
