//! The subscriptions that one client has.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::view::{Prepared, Subscription, SubscriptionId};

/// The subscriptions of a client, by their ids.
#[derive(Default)]
pub(super) struct Subscriptions(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None` for one whose answer is not on its way yet.
    open: BTreeMap<SubscriptionId, Option<Subscription>>,
    /// Places of those that are being prepared.
    reserved: usize,
}

/// A place for one that is being prepared.
pub(super) struct Place<'a>(&'a Subscriptions);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.lock().reserved -= 1;
    }
}

impl Subscriptions {
    /// A place among at most `limit`.
    pub(super) fn reserve(&self, limit: usize) -> Option<Place<'_>> {
        let mut state = self.lock();
        (state.open.len() + state.reserved < limit).then(|| {
            state.reserved += 1;
            Place(self)
        })
    }

    /// Notes one that is prepared: it may be ended from now on.
    pub(super) fn expect(&self, id: SubscriptionId) {
        self.lock().open.insert(id, None);
    }

    /// Lets one begin, if it was not ended meanwhile.
    pub(super) fn begin(&self, prepared: Prepared) {
        if let Some(subscription) = self.lock().open.get_mut(&prepared.id) {
            *subscription = Some(prepared.activate());
        }
    }

    /// Ends one; tells whether it was there.
    pub(super) fn end(&self, id: SubscriptionId) -> bool {
        let ended = self.lock().open.remove(&id);
        ended.is_some()
    }

    /// Whether there is none, nor one that is being prepared.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.open.is_empty() && state.reserved == 0
    }

    /// Ends all.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut self.lock().open);
        drop(all);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What is in it is whole at every moment, so a panic elsewhere cannot have spoilt it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
