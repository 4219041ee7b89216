//! What one client has of a node's connections, where it may have many calls under way at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// One part in so many of the connections is kept for clients that have none: they find one free, whatever the others do, and one
/// client alone has nearly all of them.
const PART_KEPT: usize = 4;

/// A client that may have many calls under way at once.
#[derive(Debug, Default)]
pub struct Caller(Mutex<Vec<Share>>);

/// What a client has at one node.
#[derive(Debug)]
struct Share {
    /// The number of the node's places.
    places: u64,
    used: usize,
    waiting: usize,
}

/// One more connection in use, or call that waits, until this is dropped.
#[derive(Debug)]
pub(super) struct Part {
    caller: Arc<Caller>,
    places: u64,
    waits: bool,
}

impl Caller {
    /// Counts a connection of these places as in use.
    pub(super) fn uses(self: &Arc<Self>, places: u64) -> Part {
        self.change(places, |share| share.used += 1);
        Part { caller: self.clone(), places, waits: false }
    }

    /// Counts a call that waits for a connection; tells how many waited before.
    pub(super) fn waits(self: &Arc<Self>, places: u64) -> (Part, usize) {
        let mut before = 0;
        self.change(places, |share| {
            before = share.waiting;
            share.waiting += 1;
        });
        (Part { caller: self.clone(), places, waits: true }, before)
    }

    /// Whether it has no connection there, and no call that waits for one.
    pub(super) fn has_none(&self, places: u64) -> bool {
        self.lock().iter().all(|share| share.places != places || share.used + share.waiting == 0)
    }

    /// Whether it may have one more connection of at most `limit`, where so many are free. That is asked only of those that have some.
    pub(super) fn may_have_more(&self, places: u64, limit: usize, free: impl FnOnce() -> usize) -> bool {
        let used = self.lock().iter().find(|share| share.places == places).map_or(0, |share| share.used);
        used == 0 || free() > limit / PART_KEPT
    }

    fn change(&self, places: u64, change: impl FnOnce(&mut Share)) {
        let mut shares = self.lock();
        let at = shares.iter().position(|share| share.places == places).unwrap_or_else(|| {
            shares.push(Share { places, used: 0, waiting: 0 });
            shares.len() - 1
        });
        change(&mut shares[at]);
        // Few nodes are called at once, and a client may live longer than they.
        if shares[at].used == 0 && shares[at].waiting == 0 && shares.len() > 1 {
            shares.swap_remove(at);
        }
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the list.
    fn lock(&self) -> MutexGuard<'_, Vec<Share>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.caller.change(self.places, |share| match self.waits {
            true => share.waiting -= 1,
            false => share.used -= 1,
        });
    }
}
