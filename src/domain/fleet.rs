//! The contract between replicas: names, keys and payloads of the cluster's bucket.
//!
//! Values only: serde, no runtime and no store. Each payload is JSON with the number of its format
//! and can be read by a replica of another version: unknown fields are kept and written back,
//! unknown words and kinds become `Other`. A payload that cannot be read is a [`Malformed`], which
//! names the key and the fault.
//!
//! # Keys
//!
//! | key | payload | written by |
//! |---|---|---|
//! | `leader` | [`Lease`] | the leader, or the replica that takes over |
//! | `view` | [`View`] | any active replica |
//! | `replica.<replica>` | [`Heartbeat`] | that replica; the first write is the registration |
//! | `wish.<network>.<layer>.<node>`, `wish.log` | [`Wish`] | the replica that the operator asked |
//!
//! # Order
//!
//! The store's revisions are the only order. A replica's [`Epoch`] is the revision that the store
//! gave to the registration, so a process that starts later has the higher epoch, whatever its
//! clock says. Revisions of two buckets do not compare: whoever compares them has checked the
//! bucket's [`Incarnation`].

mod heartbeat;
mod key;
mod lease;
mod name;
mod payload;
mod revision;
pub mod timing;
mod view;
mod wish;
mod word;

#[cfg(test)]
mod tests;

pub use self::{
    heartbeat::{Heartbeat, NodeRef, NodeVerdict, ServedHead, ServingNode},
    key::{Key, KeyToken, NotAKey, WishKey},
    lease::{Lease, LeaseState},
    name::{Asker, ClusterName, NetworkName, NodeName, NotAName, ReplicaName},
    payload::{FORMAT, Malformed, Payload, Unknown, decode, encode},
    revision::{Epoch, Incarnation, Revision, StoreRevision, Term, ViewNumber},
    view::{Member, MemberState, View},
    wish::{Applied, Wish, WishError, WishErrorWord, WishWord},
    word::{LayerWord, Role, VerdictWord},
};
