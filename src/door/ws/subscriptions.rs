//! The subscriptions that one client has.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::view::{Prepared, Subscription, SubscriptionId};
use crate::{
    domain::refusal::Refusal,
    memory::{Account, Claim},
};

/// Bytes of what the subscriptions of one client are of, at most: filters of logs are looked at
/// with every block.
const MOST_BYTES: usize = 4 << 20;

/// The subscriptions of a client, by their ids.
#[derive(Default)]
pub(super) struct Subscriptions(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None` for one whose answer is not on its way yet; each with the bytes that it takes.
    open: BTreeMap<SubscriptionId, (Option<Subscription>, usize)>,
    /// Places of those that are being prepared.
    reserved: usize,
    claim: Option<Box<Claim>>,
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

    /// Notes one that is prepared and takes so many bytes of `memory`: it may be ended from now on.
    ///
    /// # Errors
    /// When there is no room for it.
    pub(super) fn expect(&self, id: SubscriptionId, bytes: usize, memory: &Arc<Account>) -> Result<(), Refusal> {
        let mut state = self.lock();
        let claim = state.claim.get_or_insert_with(|| Box::new(memory.incoming()));
        let all = claim.bytes() + bytes;
        if all > MOST_BYTES {
            return Err(Refusal::Limit { name: "subscription_bytes", limit: MOST_BYTES });
        }
        claim.resize(all)?;
        state.open.insert(id, (None, bytes));
        Ok(())
    }

    /// Lets one begin, if it was not ended meanwhile.
    pub(super) fn begin(&self, prepared: Prepared) {
        if let Some((subscription, _)) = self.lock().open.get_mut(&prepared.id) {
            *subscription = Some(prepared.activate());
        }
    }

    /// Ends one; tells whether it was there.
    pub(super) fn end(&self, id: SubscriptionId) -> bool {
        let ended = {
            let mut state = self.lock();
            let ended = state.open.remove(&id);
            if let (Some((_, bytes)), Some(claim)) = (&ended, &mut state.claim) {
                claim.set(claim.bytes() - bytes);
            }
            ended
        };
        ended.is_some()
    }

    /// Whether there is none, nor one that is being prepared.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.open.is_empty() && state.reserved == 0
    }

    /// Ends all.
    pub(super) fn clear(&self) {
        let all = {
            let mut state = self.lock();
            state.claim = None;
            std::mem::take(&mut state.open)
        };
        drop(all);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What is in it is whole at every moment, so a panic elsewhere cannot have spoilt it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a method opens a subscription or closes one.
pub(super) enum Scribe {
    On,
    Off,
}

pub(super) fn scribe(method: &str) -> Option<Scribe> {
    if method.ends_with("_subscribe") {
        Some(Scribe::On)
    } else if method.ends_with("_unsubscribe") {
        Some(Scribe::Off)
    } else {
        None
    }
}
