//! Which node a shared subscription should be at.

use std::collections::BTreeMap;

use tokio::time::{Duration, Instant};

use crate::pool::Pool;

/// How long a node that refused is not asked again.
const FORGET: Duration = Duration::from_secs(60);

/// Nodes that refused, until when they are not asked.
#[derive(Default)]
pub(super) struct Avoided(BTreeMap<usize, Instant>);

impl Avoided {
    pub(super) fn add(&mut self, node: usize, now: Instant) {
        self.0.insert(node, now + FORGET);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Of the nodes whose link is up and that do not refuse: the one that serves the calls, or else the best.
    pub(super) fn choose(&self, pool: &Pool, now: Instant) -> Option<usize> {
        let snapshot = pool.snapshot();
        (0..snapshot.nodes.len())
            .filter(|node| pool.nodes[*node].link.as_ref().is_some_and(|link| link.is_up()))
            .filter(|node| self.0.get(node).is_none_or(|until| *until <= now))
            .filter_map(|node| {
                let rank = snapshot.nodes[node].rank(pool.nodes[node].traffic.told(), pool.served())?;
                Some((snapshot.active != Some(node), rank, node))
            })
            .min()
            .map(|(.., node)| node)
    }
}
