//! Which different wishes each client has, so that none takes all the subscriptions that a node
//! grants.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{super::mailbox::Mailbox, Topic};

/// Different wishes of one client at a time. Nobody needs more kinds than there are, and a few
/// filters of a namespace of its own.
const MOST: usize = 16;

/// The wishes of all clients.
#[derive(Default)]
pub(in crate::view) struct Claims(Mutex<BTreeMap<usize, Counts>>);

/// How often one client has each of its topics.
type Counts = BTreeMap<usize, usize>;

/// One subscription's share of its client's; given up when it is dropped.
pub(in crate::view) struct Claim {
    claims: Arc<Claims>,
    /// Both are known by where they are, and stay there for as long as this lives.
    client: Arc<Mailbox>,
    topic: Arc<Topic>,
}

impl Claim {
    /// One more subscription of this client to the topic; `None` when it would be one too many of
    /// different ones.
    pub(super) fn new(claims: &Arc<Claims>, client: &Arc<Mailbox>, topic: &Arc<Topic>) -> Option<Self> {
        let mut all = claims.lock();
        let counts = all.entry(place(client)).or_default();
        if counts.len() >= MOST && !counts.contains_key(&place(topic)) {
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
    /// Whether a client can have no further different wish.
    pub(super) fn are_used_up(&self, client: &Arc<Mailbox>) -> bool {
        self.lock().get(&place(client)).is_some_and(|counts| counts.len() >= MOST)
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the counts.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place<T>(of: &Arc<T>) -> usize {
    Arc::as_ptr(of).addr()
}
