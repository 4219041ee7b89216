//! The payload of a shard's key: who owns the shard, and why.

use serde::{Deserialize, Serialize};

use super::{
    name::ReplicaName,
    payload::{FORMAT, Unknown, payload},
    revision::{Epoch, Revision},
    word::words,
};

words! {
    /// Why a shard has its owner.
    MoveReason {
        /// The shard had no owner.
        New = "new",
        /// The owner before has failed.
        Failed = "failed",
        /// The owner before has left or leaves.
        Leaving = "leaving",
        /// Another replica is the shard's place in the view.
        Balancing = "balancing",
    }
}

/// The ownership of a shard. The key's revision is the fencing token of the shard's effects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ownership {
    /// The format's number.
    pub format: u32,
    /// The owner.
    pub owner: ReplicaName,
    /// The owner's life.
    pub epoch: Epoch,
    /// The replica that was the owner before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ReplicaName>,
    /// Why the shard came to its owner.
    pub reason: MoveReason,
    /// The owner before has ended its effects and wrote this: the owner need not wait.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handed_over: bool,
    /// The writer's life and the count of the write.
    pub stamp: Revision,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub other: Unknown,
}

impl Ownership {
    /// An ownership that is taken, and not handed over.
    pub fn taken(owner: ReplicaName, stamp: Revision, from: Option<ReplicaName>, reason: MoveReason) -> Self {
        let (epoch, other) = (stamp.epoch, Unknown::new());
        Self { format: FORMAT, owner, epoch, from, reason, handed_over: false, stamp, other }
    }

    /// Whether that life of that replica is the owner.
    pub fn is_of(&self, replica: &ReplicaName, epoch: Epoch) -> bool {
        self.owner == *replica && self.epoch == epoch
    }
}

payload!(Ownership, |this| usize::from(!this.reason.is_known()));
