//! The place of one connection to a node, which goes with the connection.

use std::{
    fmt,
    sync::{Weak, atomic::Ordering::Relaxed},
};

use tokio::time::Instant;

use super::{Places, share::Part};

/// The place of one connection; dropping the place frees it.
pub struct Place {
    /// A weak reference: idle connections are stored in the places, and would keep them alive.
    pub(super) places: Weak<Places>,
    pub(super) refused: bool,
    /// Counts the connection for the client that uses it.
    pub(super) user: Option<Part>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The client's share must be free before the next waiter is chosen.
        self.user = None;
        if let Some(places) = self.places.upgrade() {
            places.release(self.refused);
        }
    }
}

impl Place {
    /// Reports that the node closed this new connection without a byte; `certain`: before the
    /// request was written. Returns whether the node may have lacked room, because other
    /// connections are open. The number of the others is then the bound.
    pub fn refused(&mut self, certain: bool) -> bool {
        let Some(places) = self.places.upgrade() else { return false };
        let mut state = places.lock();
        let others = state.open.saturating_sub(1);
        self.refused = others > 0;
        state.bound.refused(others, certain, Instant::now());
        places.note(&state);
        places.is_learnt.store(state.bound.is_learnt(), Relaxed);
        self.refused
    }
}
