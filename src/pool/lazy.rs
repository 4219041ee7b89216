//! Backups that are looked at rarely, as long as no call needs them.
//!
//! Rule: an idle node is asked for its head alone, once in [`LOOK`], and for all that a probe asks
//! once in [`IN_FULL`]; its link has no feed of heads, and no question of our own goes there that
//! another node can answer. A lazy node is idle while calls do not need the node, which
//! `state::wanted` decides, and not for [`LOOK`] after a call whose first choice the node was, as
//! when the others rest or have no credits. Reason: providers count calls, and each call of a batch
//! too. Example: 2,880 heads and 24 full probes of two more calls are 2,928 calls a day, where
//! steady probes make 172,800.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Pool, node::Node};
use crate::{config::Probing, domain::node_id::NodeId};

/// From the start of one probe of an idle node to the start of its next.
pub(super) const LOOK: Duration = Duration::from_secs(30);
/// How often such a probe asks for all that a probe asks.
pub(super) const IN_FULL: Duration = Duration::from_secs(3600);

impl Node {
    /// Whether the node is looked at rarely while no call needs it.
    pub fn is_lazy(&self) -> bool {
        self.settings().probing == Probing::Lazy
    }
}

/// When a call last went to the node first, which is asked of lazy nodes alone.
#[derive(Debug, Default)]
pub(super) struct Needed(Mutex<Option<Instant>>);

impl Needed {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        // A moment is whole at every time, so a panic elsewhere cannot have spoilt it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// Whether the node is to be asked as little as can be, since no call needs it.
    pub fn is_idle(&self, node: NodeId) -> bool {
        let is_needed = || self.nodes[node].needed.lock().is_some_and(|at| at.elapsed() < LOOK);
        self.nodes[node].is_lazy() && !self.snapshot().wants_lazy && !is_needed()
    }

    /// Calls go to `node` first, or probably will. The node is not idle for a while from now on.
    pub fn needs(&self, node: NodeId) {
        if self.nodes[node].is_lazy() {
            let was_idle = self.is_idle(node);
            *self.nodes[node].needed.lock() = Some(Instant::now());
            if was_idle {
                self.probe_now(node);
            }
        }
    }

    /// From the start of one probe of the node to the start of its next, when nothing calls for one
    /// sooner.
    pub(super) fn pace(&self, node: NodeId) -> Duration {
        let interval = self.interval(node);
        if self.is_idle(node) { LOOK.max(interval) } else { interval }
    }

    /// As [`Pool::pace`], after a probe that said that the node is well, or is not, or that said
    /// nothing. An idle node whose probe contradicts its verdict, as the first failure does and the
    /// first success after an outage, is soon probed again: otherwise minutes would pass until the
    /// verdict follows.
    pub(super) fn pace_after(&self, node: NodeId, is_well: Option<bool>) -> Duration {
        let is_in = self.snapshot().nodes[node].verdict.is_in();
        if is_well.is_none_or(|is_well| is_well == is_in) { self.pace(node) } else { self.interval(node) }
    }
}
