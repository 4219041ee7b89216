//! Which node should serve what all clients share.

use std::collections::BTreeMap;

use tokio::time::{Duration, Instant};

use crate::pool::{Pool, node::Node};

/// How long a node that refused is not asked again.
const FORGET: Duration = Duration::from_secs(60);

/// Nodes that refused or failed, until when they are not asked.
#[derive(Default)]
pub(super) struct Avoided(BTreeMap<usize, Instant>);

impl Avoided {
    pub(super) fn add(&mut self, node: usize, now: Instant) {
        self.add_for(node, FORGET, now);
    }

    pub(super) fn add_for(&mut self, node: usize, time: Duration, now: Instant) {
        self.0.insert(node, now + time);
    }

    /// Whether `node` is one of them.
    pub(super) fn has(&self, node: usize, now: Instant) -> bool {
        self.0.get(&node).is_some_and(|until| now < *until)
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Of the nodes that `can` serve it and that do not refuse: the one that serves the calls, or else the best.
    pub(super) fn choose(&self, pool: &Pool, can: impl Fn(&Node) -> bool, now: Instant) -> Option<usize> {
        let snapshot = pool.snapshot();
        (0..snapshot.nodes.len())
            .filter(|node| can(&pool.nodes[*node]) && !self.has(*node, now))
            .filter_map(|node| {
                let rank = snapshot.nodes[node].rank(pool.nodes[node].traffic.told(), pool.served())?;
                Some((snapshot.active != Some(node), rank, node))
            })
            .min()
            .map(|(.., node)| node)
    }
}
