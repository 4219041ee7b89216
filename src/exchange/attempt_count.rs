//! The count of attempts at a node, also of those that are dropped.

use tokio::time::Instant;

use crate::{metrics::AttemptOutcome, pool::node::Node};

/// Counts one attempt when the attempt ends.
pub struct Count<'a> {
    node: &'a Node,
    started: Instant,
    /// How the attempt ended; abandoned, unless another outcome is set.
    pub outcome: AttemptOutcome,
}

impl<'a> Count<'a> {
    /// An attempt at `node` that began at `started`.
    pub fn new(node: &'a Node, started: Instant) -> Self {
        Self { node, started, outcome: AttemptOutcome::Abandoned }
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.node.metrics.ended(self.outcome, self.started.elapsed().as_secs_f64());
    }
}
