//! Nodes that a stream or a subscription of all clients keeps away from for a while, and the choice
//! among the others.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use crate::{
    domain::{
        backoff::factor,
        node_id::{ByNode, NodeId},
    },
    pool::{Pool, node::Node},
};

/// For how long a node that refused is avoided.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// A growing pause is at most so many times the first one.
const MAX_FACTOR: u32 = 64;
/// The longest pause that grows. After that a node may have changed.
const MAX_PAUSE: Duration = Duration::from_secs(300);

/// Nodes that are not asked for a while, by their indexes in a pool.
pub struct Avoided {
    nodes: BTreeMap<NodeId, Pause>,
    rng: Rng,
}

#[derive(Clone, Copy)]
struct Pause {
    until: Instant,
    /// How often in a row the node was avoided for a growing pause.
    times: u32,
}

/// For pauses that do not grow, of which none is drawn.
impl Default for Avoided {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Avoided {
    /// No node is avoided. Growing pauses are drawn from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { nodes: BTreeMap::new(), rng: Rng::with_seed(seed) }
    }

    /// Avoids a node that refused.
    pub fn add(&mut self, node: NodeId, now: Instant) {
        self.add_for(node, REFUSED_PAUSE, now);
    }

    /// Avoids a node for `time`.
    pub fn add_for(&mut self, node: NodeId, time: Duration, now: Instant) {
        self.nodes.insert(node, Pause { until: now + time, times: 0 });
    }

    /// Avoids a node for `pause`, give or take a quarter, and twice as long each further time until
    /// the node is forgiven.
    pub fn add_growing(&mut self, node: NodeId, pause: Duration, now: Instant) {
        let Pause { until, times } = self.nodes.get(&node).copied().unwrap_or(Pause { until: now, times: 0 });
        let longer = (pause * factor(times, MAX_FACTOR)).min(MAX_PAUSE).mul_f64(0.75 + self.rng.f64() / 2.0);
        self.nodes.insert(node, Pause { until: until.max(now + longer), times: times.saturating_add(1) });
    }

    /// Whether `node` is avoided.
    pub fn has(&self, node: NodeId, now: Instant) -> bool {
        self.nodes.get(&node).is_some_and(|pause| now < pause.until)
    }

    /// Forgives a node.
    pub fn forgive(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// Forgives all nodes, as when the pool has other nodes.
    pub fn clear(&mut self) {
        self.nodes.clear();
    }

    /// The node for a subscription that all clients share, of the nodes that `can` serve the
    /// subscription and are not avoided: the active node, or else the best.
    pub fn choose(&self, pool: &Pool, can: impl Fn(&Node) -> bool, now: Instant) -> Option<NodeId> {
        let (served, snapshot) = pool.served_and_snapshot();
        NodeId::all(snapshot.nodes.len())
            .filter(|node| can(&pool.nodes[*node]) && !self.has(*node, now))
            .filter_map(|node| {
                let preference = snapshot.nodes[node].preference(pool.nodes[node].traffic.max_height(), served)?;
                Some((snapshot.active != Some(node), preference, node))
            })
            .min()
            .map(|(.., node)| node)
    }

    /// The node for the stream of events: the node that calls go to, or will go to as soon as
    /// its events come, or else the best that is not avoided. While any node is usable, only
    /// usable nodes count: an unusable one would tell heads of long ago, or of its own invention,
    /// as a reorganisation.
    pub fn choose_stream(&self, pool: &Pool, now: Instant) -> Option<NodeId> {
        let (served, snapshot) = pool.served_and_snapshot();
        let is_free = |node: &NodeId| !self.has(*node, now);
        let active = snapshot.moving.filter(is_free).or(snapshot.active.filter(is_free));
        active.or_else(|| {
            let any_usable = snapshot.nodes.iter().any(|facts| facts.verdict.is_usable() && !facts.cordoned);
            let preferences = snapshot.nodes.by_node().filter_map(|(node, facts)| {
                let height = pool.nodes[node].traffic.max_height();
                Some((facts.preference(height, served)?, node))
            });
            let may_tell = |node: &NodeId| is_free(node) && (!any_usable || snapshot.nodes[*node].verdict.is_usable());
            preferences.filter(|(_, node)| may_tell(node)).min().map(|(_, node)| node)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_and_end_and_are_forgiven() {
        let mut avoided = Avoided::new(7);
        let now = Instant::now();
        let mut least = Duration::ZERO;
        for times in 0..10 {
            avoided.add_growing(NodeId(3), Duration::from_millis(100), now);
            let pause = avoided.nodes[&NodeId(3)].until - now;
            let middle = Duration::from_millis(100 << times.min(6));
            assert!(pause >= least.max(middle.mul_f64(0.75)) && pause <= middle.mul_f64(1.26), "{times}: {pause:?}");
            least = pause;
        }
        avoided.forgive(NodeId(3));
        assert!(avoided.nodes.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_refused_is_avoided_for_a_while() {
        let (mut avoided, now) = (Avoided::default(), Instant::now());
        avoided.add(NodeId(1), now);
        assert_eq!([1, 2].map(|node| avoided.has(NodeId(node), now)), [true, false]);
        assert!(!avoided.has(NodeId(1), now + REFUSED_PAUSE));
    }
}
