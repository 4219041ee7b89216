//! Counts the different shared subscriptions of each client, so that no client takes all the
//! subscriptions that a node grants.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{super::mailbox::Mailbox, Topic};

/// Different shared subscriptions of one client at a time, at most. Enough for all known kinds and
/// a few filters of other namespaces.
const MAX_TOPICS_PER_CLIENT: usize = 16;

/// The subscriptions of all clients.
#[derive(Default)]
pub(in crate::view) struct Claims(Mutex<BTreeMap<usize, Counts>>);

/// How many subscriptions one client has to each topic.
type Counts = BTreeMap<usize, usize>;

/// Counts one subscription of a client to a topic until dropped.
pub(in crate::view) struct Claim {
    claims: Arc<Claims>,
    /// Their addresses are the keys of the counts. The `Arc`s keep the addresses from being used
    /// again.
    client: Arc<Mailbox>,
    topic: Arc<Topic>,
}

impl Claim {
    /// Counts one more subscription of this client to the topic; `None` when the client would have
    /// too many different ones.
    pub(super) fn new(claims: &Arc<Claims>, client: &Arc<Mailbox>, topic: &Arc<Topic>) -> Option<Self> {
        let mut all = claims.lock();
        let counts = all.entry(place(client)).or_default();
        if counts.len() >= MAX_TOPICS_PER_CLIENT && !counts.contains_key(&place(topic)) {
            return None;
        }
        *counts.entry(place(topic)).or_default() += 1;
        Some(Self { claims: claims.clone(), client: client.clone(), topic: topic.clone() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut all = self.claims.lock();
        let Some(counts) = all.get_mut(&place(&self.client)) else { return };
        if let Some(count) = counts.get_mut(&place(&self.topic)) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&place(&self.topic));
            }
        }
        if counts.is_empty() {
            all.remove(&place(&self.client));
        }
    }
}

impl Claims {
    /// Whether the client may subscribe to no further topic.
    pub(super) fn are_used_up(&self, client: &Arc<Mailbox>) -> bool {
        self.lock().get(&place(client)).is_some_and(|counts| counts.len() >= MAX_TOPICS_PER_CLIENT)
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the counts.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place<T>(of: &Arc<T>) -> usize {
    Arc::as_ptr(of).addr()
}
