//! The place of one connection to a node, which goes with the connection.

use std::{
    fmt,
    sync::{Weak, atomic::Ordering::Relaxed},
};

use tokio::time::Instant;

use super::{Places, share::Part};

/// One connection's place; given up when it is dropped.
pub struct Place {
    /// Idle connections are kept there, and must not keep it.
    pub(super) places: Weak<Places>,
    pub(super) refused: bool,
    /// Whose call it is used for, if it is a client's.
    pub(super) user: Option<Part>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Before another is looked for who may have it.
        self.user = None;
        if let Some(places) = self.places.upgrade() {
            places.release(self.refused);
        }
    }
}

impl Place {
    /// The node closed this new connection without a byte; `certain`: before anything was written.
    /// Tells whether it may be for want of room, since other connections are open: then no more
    /// than those are to be open from now on.
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
