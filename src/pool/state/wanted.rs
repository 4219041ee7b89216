//! When nodes that are probed lazily are wanted, and the verdict on them meanwhile.

use std::time::Duration;

use tokio::time::Instant;

use super::{Effect, Known, PoolState};
use crate::{
    domain::{node_id::NodeId, verdict::Verdict},
    pool::{head::Report, node::Node},
};

/// How late a node's news may be, beyond the time between two probes, within the lag limit.
const NEWS: Duration = Duration::from_secs(1);
/// A node that is asked rarely is not given more time for that.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);
/// A node without a new block for this number of block times is in doubt, but not sooner than this.
const STILL_BLOCKS: u32 = 3;
const SHORTEST_STILL: Duration = Duration::from_secs(3);

/// How old a report may be where nodes are probed this often.
pub(super) fn freshness(interval: Duration) -> Duration {
    interval.min(LONGEST_INTERVAL) + NEWS
}

impl PoolState {
    /// Takes note of how often the nodes are probed. Reports may be as old as the time between two
    /// probes of the nodes that are probed most often.
    pub(super) fn note_paces(&mut self, nodes: &[Node]) {
        let usual = self.interval;
        let interval = |node: &Node| node.settings().probe_interval.unwrap_or(usual);
        let steady = nodes.iter().filter(|node| !node.is_lazy()).map(interval).min();
        let shortest = steady.unwrap_or(usual);
        self.limit.time = freshness(shortest);
        for (known, node) in self.known.iter_mut().zip(nodes) {
            (known.is_lazy, known.is_seldom) = (node.is_lazy(), node.is_lazy() || interval(node) > shortest);
        }
    }

    /// Decides whether lazy nodes are wanted: while calls go to one, and while each other node that
    /// is up is in doubt. When that begins, the lazy nodes are probed at once.
    pub(super) fn decide_about_lazy(&mut self, nodes: &[Node], effects: &mut Vec<Effect>) {
        let lazy = || NodeId::all(nodes.len()).filter(|node| nodes[*node].is_lazy());
        let is_at_one = self.active.is_some_and(|active| nodes[active].is_lazy());
        let is_sound = |known: &Known| !known.is_lazy && self.is_sound(known);
        let wants = lazy().next().is_some() && (is_at_one || !self.known.iter().any(is_sound));
        if wants && !std::mem::replace(&mut self.wants_lazy, wants) {
            effects.extend(lazy().map(Effect::ProbeNow));
        }
        self.wants_lazy = wants;
    }

    /// Whether calls may rely on the node: up, well at the last probe, and with a head that moves.
    fn is_sound(&self, known: &Known) -> bool {
        let still = self.memory.block_time().map(|time| (time * STILL_BLOCKS).max(SHORTEST_STILL));
        let stands_still = known
            .report
            .zip(still)
            .is_some_and(|(report, still)| report.heard.saturating_duration_since(report.moved) > still);
        known.verdict.is_usable() && !known.cordons.any() && !known.health.is_shaken() && !stands_still
    }

    /// Takes the reports out that are too old to be compared with others, as those of idle nodes
    /// between two looks. These nodes keep the verdicts that followed from the reports at the time.
    pub(super) fn take_out_old(&self, reports: &mut Vec<Report>, verdicts: &mut [Option<Verdict>], now: Instant) {
        reports.retain(|report| {
            let known = &self.known[report.node];
            let is_old = known.is_seldom && now.saturating_duration_since(report.heard) > self.limit.time;
            if is_old {
                verdicts[report.node.0].get_or_insert(known.standing.unwrap_or(Verdict::Up));
            }
            !is_old
        });
    }
}
