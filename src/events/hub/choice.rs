//! Which node's stream to have.

use std::{collections::BTreeMap, time::Duration};

use fastrand::Rng;
use tokio::time::Instant;

use crate::pool::Pool;

/// How often a pause may double.
const DOUBLINGS: u32 = 6;
/// A node is better known than to be avoided for longer.
const LONGEST: Duration = Duration::from_secs(300);

/// Nodes that are not asked for events for a while.
pub(super) struct Avoided {
    /// Until when, and how often in a row it came to that.
    nodes: BTreeMap<usize, (Instant, u32)>,
    rng: Rng,
}

impl Avoided {
    pub(super) fn new(seed: u64) -> Self {
        Self { nodes: BTreeMap::new(), rng: Rng::with_seed(seed) }
    }

    /// Avoids a node for `pause`, for longer if it has just been avoided, give or take a quarter.
    pub(super) fn add(&mut self, node: usize, pause: Duration, now: Instant) {
        let (until, times) = self.nodes.get(&node).copied().unwrap_or((now, 0));
        let longer = pause * 2_u32.pow(times.min(DOUBLINGS));
        let jittered = longer.min(LONGEST).mul_f64(0.75 + self.rng.f64() / 2.0);
        self.nodes.insert(node, (until.max(now + jittered), times.saturating_add(1)));
    }

    /// The node's stream does what it should.
    pub(super) fn forgive(&mut self, node: usize) {
        self.nodes.remove(&node);
    }

    /// All nodes are others now.
    pub(super) fn forget(&mut self) {
        self.nodes.clear();
    }

    /// The node that serves the calls or will as soon as events come from it, or the best other one if that is to be avoided; `None` if all are. One that the rules find
    /// unusable is none while any is usable: it would tell heads of long ago, or of its own invention, as a reorganisation.
    pub(super) fn choose(&self, pool: &Pool, now: Instant) -> Option<usize> {
        let snapshot = pool.snapshot();
        let is_free = |node: &usize| self.nodes.get(node).is_none_or(|(until, _)| *until <= now);
        let active = snapshot.moving.filter(is_free).or(snapshot.active.filter(is_free));
        active.or_else(|| {
            let any_usable = snapshot.nodes.iter().any(|facts| facts.verdict.is_usable() && !facts.cordoned);
            let ranks = snapshot.nodes.iter().enumerate().filter_map(|(node, facts)| {
                let told = pool.nodes[node].traffic.told();
                Some((facts.rank(told, pool.served())?, node))
            });
            let may_tell = |node: &usize| is_free(node) && (!any_usable || snapshot.nodes[*node].verdict.is_usable());
            ranks.filter(|(_, node)| may_tell(node)).min().map(|(_, node)| node)
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
            avoided.add(3, Duration::from_millis(100), now);
            let pause = avoided.nodes[&3].0 - now;
            let middle = Duration::from_millis(100 << times.min(6));
            assert!(pause >= least.max(middle.mul_f64(0.75)) && pause <= middle.mul_f64(1.26), "{times}: {pause:?}");
            least = pause;
        }
        avoided.forgive(3);
        assert!(avoided.nodes.is_empty());
    }
}
