//! Registrations and subscriptions of validators, which a node keeps until a restart.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::Address;
use tokio::time::Instant;

/// Slots that a node listens to at most.
const LISTENED: usize = 1024;
/// Validators that a node remembers at most.
const VALIDATORS: usize = 100_000;

/// The registrations and subscriptions of validators since the node's start.
pub(super) struct Told {
    pub(super) since: Instant,
    /// Slots whose attestations a validator will aggregate.
    listens: BTreeSet<u64>,
    /// Validators that subscribed to their sync committee.
    syncs: BTreeSet<u64>,
    /// The fee recipient of each prepared validator.
    prepared: BTreeMap<u64, Address>,
    /// Public keys of validators that take blocks of builders.
    registered: BTreeSet<String>,
}

impl Told {
    /// A node that has just started.
    pub(super) fn nothing() -> Self {
        Self {
            since: Instant::now(),
            listens: BTreeSet::new(),
            syncs: BTreeSet::new(),
            prepared: BTreeMap::new(),
            registered: BTreeSet::new(),
        }
    }

    pub(super) fn listen_at(&mut self, slot: u64) {
        self.listens.insert(slot);
        if self.listens.len() > LISTENED {
            self.listens.pop_first();
        }
    }

    pub(super) fn listens_at(&self, slot: u64) -> bool {
        self.listens.contains(&slot)
    }

    pub(super) fn sync(&mut self, validator: u64) {
        if self.syncs.len() < VALIDATORS {
            self.syncs.insert(validator);
        }
    }

    pub(super) fn syncs(&self, validator: u64) -> bool {
        self.syncs.contains(&validator)
    }

    pub(super) fn prepare(&mut self, validator: u64, recipient: Address) {
        if self.prepared.len() < VALIDATORS {
            self.prepared.insert(validator, recipient);
        }
    }

    pub(super) fn recipient(&self, validator: u64) -> Option<Address> {
        self.prepared.get(&validator).copied()
    }

    pub(super) fn register(&mut self, key: String) {
        if self.registered.len() < VALIDATORS {
            self.registered.insert(key);
        }
    }

    pub(super) fn is_registered(&self, key: &str) -> bool {
        self.registered.contains(key)
    }
}
