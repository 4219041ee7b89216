//! The subscriptions of one client.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::view::{Prepared, Subscription, SubscriptionId};
use crate::{
    domain::refusal::Refusal,
    memory::{Account, Claim},
};

/// Bytes that the criteria of one client's subscriptions have, at most: each block is compared with
/// filters of logs.
const MOST_BYTES: usize = 4 << 20;

/// The subscriptions of a client, by their ids.
#[derive(Default)]
pub(super) struct Subscriptions(Mutex<State>);

#[derive(Default)]
struct State {
    /// In the order of their ids. Most clients have one or two, for which a tree's first node would
    /// have room for eleven.
    open: Vec<Open>,
    /// Places of subscriptions that are being prepared.
    reserved: usize,
    claim: Option<Box<Claim>>,
}

/// A subscription that may be ended.
struct Open {
    id: SubscriptionId,
    /// `None` until the answer with the subscription's id is on its way.
    subscription: Option<Subscription>,
    /// Bytes in memory.
    bytes: usize,
}

/// A place for a subscription that is being prepared.
pub(super) struct Reservation<'a>(&'a Subscriptions);

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.0.lock().reserved -= 1;
    }
}

impl Subscriptions {
    /// A place among at most `limit`.
    pub(super) fn reserve(&self, limit: usize) -> Option<Reservation<'_>> {
        let mut state = self.lock();
        (state.open.len() + state.reserved < limit).then(|| {
            state.reserved += 1;
            Reservation(self)
        })
    }

    /// Notes a prepared subscription of `bytes` bytes in `memory`: from now on the client may end
    /// the subscription.
    ///
    /// # Errors
    /// When there is no room for the subscription.
    pub(super) fn expect(&self, id: SubscriptionId, bytes: usize, memory: &Arc<Account>) -> Result<(), Refusal> {
        let mut state = self.lock();
        let claim = state.claim.get_or_insert_with(|| Box::new(memory.incoming()));
        let all = claim.bytes() + bytes;
        if all > MOST_BYTES {
            return Err(Refusal::Limit { name: "subscription_bytes", limit: MOST_BYTES });
        }
        claim.resize(all)?;
        // No two subscriptions have the same id.
        let at = state.place_of(id).unwrap_or_else(|at| at);
        if state.open.is_empty() {
            state.open.reserve_exact(1);
        }
        state.open.insert(at, Open { id, subscription: None, bytes });
        Ok(())
    }

    /// Lets a subscription begin, if the client has not ended it meanwhile.
    pub(super) fn begin(&self, prepared: Prepared) {
        let mut state = self.lock();
        if let Ok(at) = state.place_of(prepared.id) {
            state.open[at].subscription = Some(prepared.activate());
        }
    }

    /// Ends a subscription; returns whether the client had one of this id.
    pub(super) fn end(&self, id: SubscriptionId) -> bool {
        let ended = {
            let mut state = self.lock();
            let ended = state.place_of(id).ok().map(|at| state.open.remove(at));
            if state.open.is_empty() {
                state.open = Vec::new();
            }
            if let (Some(open), Some(claim)) = (&ended, &mut state.claim) {
                claim.set(claim.bytes() - open.bytes);
            }
            ended
        };
        ended.is_some()
    }

    /// Whether the client has no subscription, and none is being prepared.
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
        // The state is whole at every moment, so a panic elsewhere cannot have spoilt it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The place of the subscription, or the place for a new one.
    fn place_of(&self, id: SubscriptionId) -> Result<usize, usize> {
        self.open.binary_search_by_key(&id, |open| open.id)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_take_room_for_as_many_as_there_are() {
        let (subscriptions, memory) = (Subscriptions::default(), Account::unlimited());
        let id = |number: u32| SubscriptionId::read(&format!("{number:#x}")).unwrap();
        let room = || subscriptions.lock().open.capacity();
        subscriptions.expect(id(7), 10, &memory).unwrap();
        assert_eq!(room(), 1);
        assert!(size_of::<Open>() <= 128, "{}", size_of::<Open>());
        for number in [3, 9, 1, 5] {
            subscriptions.expect(id(number), 10, &memory).unwrap();
        }
        for number in [9, 1, 7, 5, 3] {
            assert!(!subscriptions.is_empty() && !subscriptions.end(id(2)));
            assert!(subscriptions.end(id(number)) && !subscriptions.end(id(number)), "{number}");
        }
        assert_eq!((room(), subscriptions.is_empty()), (0, true));
        assert_eq!(subscriptions.lock().claim.as_ref().map(|claim| claim.bytes()), Some(0));
    }
}
