//! The signed messages of validators that some node took. As on a network, every node then has the
//! message; so a message is lost only if this store lacks the message.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alloy_primitives::{Address, B256};
use serde_json::Value;
use tokio::time::Instant;

use super::hash;

/// Slots whose messages are kept.
const KEPT_SLOTS: usize = 256;
/// Messages that are kept of one slot.
const KEPT_MESSAGES: usize = 4096;

/// A kind of message that validators sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A vote for a head.
    Attestation,
    /// Attestations of many validators, put together.
    Aggregate,
    /// The vote of a member of a sync committee for the head.
    SyncMessage,
    /// Sync messages of many members, put together.
    Contribution,
    /// A block.
    Block,
}

/// A message that a node took.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The message's kind.
    pub kind: Kind,
    /// The validator that signed the message.
    pub validator: u64,
    /// The slot that the message is for.
    pub slot: u64,
    /// The block that the message votes for; for a block its parent.
    pub root: B256,
    /// The fee recipient of a block.
    pub fee_recipient: Option<Address>,
    /// The node that took the message first.
    pub node: String,
    /// When that node took the message.
    pub at: Instant,
    /// The attestation's data.
    pub(super) data: Option<Arc<Value>>,
}

/// The messages of the last slots.
#[derive(Default)]
pub(super) struct Gossip(Mutex<BTreeMap<u64, Vec<Taken>>>);

impl Gossip {
    /// Keeps a message that a node took, unless a message of the same kind, validator and root is
    /// kept already.
    pub(super) fn take(&self, taken: Taken) {
        let mut slots = self.slots();
        let messages = slots.entry(taken.slot).or_default();
        let same =
            |other: &Taken| (other.kind, other.validator, other.root) == (taken.kind, taken.validator, taken.root);
        if messages.len() < KEPT_MESSAGES && !messages.iter().any(same) {
            messages.push(taken);
        }
        while slots.len() > KEPT_SLOTS {
            slots.pop_first();
        }
    }

    /// The messages for `slot`, in the order in which nodes took them.
    pub(super) fn of(&self, slot: u64) -> Vec<Taken> {
        self.slots().get(&slot).cloned().unwrap_or_default()
    }

    /// The data of an attestation for `slot` whose root this is, if a node took one.
    pub(super) fn attested(&self, slot: u64, root: B256) -> Option<Arc<Value>> {
        let slots = self.slots();
        let mut said = slots.get(&slot)?.iter().filter_map(|taken| taken.data.as_ref());
        said.find(|data| data_root(data) == root).cloned()
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<Taken>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The root by which an aggregate of this attestation data is asked for: not SSZ's, but a different
/// one for data that differ.
pub(super) fn data_root(data: &Value) -> B256 {
    let parts = [&data["slot"], &data["index"], &data["beacon_block_root"], &data["source"], &data["target"]];
    hash::derived("attestation data", parts.map(Value::to_string).join("/").as_bytes())
}
