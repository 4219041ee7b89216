//! The payload of the key `leader`.

use serde::{Deserialize, Serialize};

use super::{
    name::ReplicaName,
    payload::{FORMAT, Unknown, are_carried, payload},
    revision::{Epoch, Revision, StoreRevision, Term},
    word::words,
};

words! {
    /// The standing of a lease.
    LeaseState {
        /// The holder leads, until the lease runs out.
        Held = "held",
        /// The holder has ended the work and left; any replica may take the lease at once.
        Released = "released",
        /// The holder has ended the work and left the lease to one replica.
        Yielded = "yielded",
    }
}

/// The leader's lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The format's number.
    pub format: u32,
    /// The replica that holds the lease, or was the last to hold the lease.
    pub holder: ReplicaName,
    /// The holder's life and the count of this write: tells one's own write from a foreign one.
    pub stamp: Revision,
    /// The term, in all writes but the first: the first write's own revision is the term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Term>,
    /// The holder's `failover_timeout` in milliseconds, which a replica waits whose own is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<u64>,
    /// Whether the lease is held.
    pub state: LeaseState,
    /// The replica to which the lease is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<ReplicaName>,
    /// Fields of newer versions.
    #[serde(flatten)]
    pub other: Unknown,
}

impl Lease {
    /// A lease that is held from now on.
    pub fn held(holder: ReplicaName, stamp: Revision, term: Option<Term>) -> Self {
        let (failover, state, to) = (None, LeaseState::Held, None);
        Self { format: FORMAT, holder, stamp, term, failover, state, to, other: Unknown::new() }
    }

    /// Takes over the unknown fields of the lease before, unless they are too long to be written.
    pub fn carry(&mut self, before: &Self) {
        if are_carried([&before.other]) {
            self.other = before.other.clone();
        }
    }

    /// The term of a lease that stands at `revision`.
    pub fn term_at(&self, revision: StoreRevision) -> Term {
        self.term.unwrap_or(revision.into())
    }

    /// Whether that life of that replica wrote the lease.
    pub fn is_of(&self, replica: &ReplicaName, epoch: Epoch) -> bool {
        self.holder == *replica && self.stamp.epoch == epoch
    }
}

payload!(Lease, |this| usize::from(!this.state.is_known()));
