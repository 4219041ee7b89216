//! A stream of one node, as the hub sees the stream.

use std::sync::Arc;

use tokio::{task::AbortHandle, time::Instant};

use super::super::topics::Names;
use crate::{domain::node_id::NodeId, pool::Pool};

/// A head that a node has, by its probes, and that its stream has not reported.
pub(super) struct Unheard {
    /// The head's slot.
    pub(super) slot: u64,
    pub(super) since: Instant,
    /// Whether the node was asked for its head because of that.
    pub(super) is_asked: bool,
}

/// A stream that is being opened or read. Ends on drop.
pub(super) struct Stream {
    pub(super) id: u64,
    /// The pool of the node: an earlier one than the hub's, while a reload takes effect.
    pub(super) pool: Arc<Pool>,
    pub(super) node: NodeId,
    pub(super) topics: Names,
    pub(super) running: bool,
    /// Since when the pool has been ahead of the last head of this stream.
    pub(super) behind: Option<Instant>,
    pub(super) slot: u64,
    /// A head of the node that the stream has not reported.
    pub(super) unheard: Option<Unheard>,
    /// How often the stream has reported a slot ahead of the clock.
    pub(super) ahead: u32,
    pub(super) task: AbortHandle,
}

impl Stream {
    pub(super) fn is_of(&self, pool: &Arc<Pool>, node: NodeId) -> bool {
        self.node == node && Arc::ptr_eq(&self.pool, pool)
    }

    /// Whether the stream's node is usable.
    pub(super) fn is_well(&self) -> bool {
        self.pool.snapshot().nodes[self.node].verdict.is_usable()
    }

    pub(super) fn name(&self) -> &str {
        &self.pool.nodes[self.node].name
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}
