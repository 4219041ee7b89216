//! The permit of one connection to a node, which goes with the connection.

use std::{
    fmt,
    sync::{Weak, atomic::Ordering::Relaxed},
};

use tokio::time::Instant;

use super::{NodeConnections, rank::Rank, share::Part};

/// The permit of one connection; dropping the permit frees it.
pub struct Permit {
    /// A weak reference: idle connections are stored in `connections`, and would keep them alive.
    pub(super) connections: Weak<NodeConnections>,
    /// The node closed the connection.
    pub(super) refused: bool,
    pub(super) is_link: bool,
    /// Counts the connection for the client in use of the connection.
    pub(super) user: Option<Part>,
    /// The rank of the request of our own on the connection, and since when.
    pub(super) own: Option<(Rank, Instant)>,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // The client's share must be free before the next waiter is chosen.
        self.user = None;
        if let Some(connections) = self.connections.upgrade() {
            connections.release(self);
        }
    }
}

impl Permit {
    /// Reports that the node closed this new connection without a byte; `certain`: before the
    /// request was written. Returns whether the node may have lacked room, because other
    /// connections for requests are open. The number of the others is then the bound.
    pub fn refused(&mut self, certain: bool) -> bool {
        let Some(connections) = self.connections.upgrade() else { return false };
        self.refused = true;
        let mut state = connections.lock();
        let (links, others) = (state.links, state.open.saturating_sub(state.links + 1));
        state.bound.refused(others, links, certain, Instant::now());
        connections.note(&state);
        connections.is_learnt.store(state.bound.is_learnt(), Relaxed);
        connections.is_refusing.store(true, Relaxed);
        others > 0
    }

    /// From now on the connection is a WebSocket or carries a stream without an end: no other
    /// request will go over the connection.
    pub fn becomes_link(&mut self) {
        let Some(connections) = self.connections.upgrade() else { return };
        let mut state = connections.lock();
        if let Some((rank, since)) = self.own.take() {
            state.ends_use(rank, since);
        }
        state.links += usize::from(!self.is_link);
        self.is_link = true;
        connections.note(&state);
        drop(state);
        // Where there are two, the other is for calls too from now on.
        connections.grant();
    }
}
