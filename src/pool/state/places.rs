//! Where nodes are by their slots, for the rules of the clock.

use super::{super::clock, PoolState, Report};
use crate::domain::verdict::Verdict;

impl PoolState {
    /// The slot of the wall clock.
    pub(super) fn clock(&self, unix: u64) -> Option<u64> {
        self.chain.as_ref()?.beacon.as_ref()?.slot_at(unix)
    }

    /// Where the nodes of these reports are, and whether each is credible.
    pub(super) fn places(&self, reports: &[Report], credible: impl Fn(usize) -> bool) -> Vec<clock::Place> {
        let place = |(place, report): (usize, &Report)| clock::Place {
            slot: report.number,
            heard: report.heard,
            moved: report.moved,
            sync_distance: self.known[report.node].condition.sync_distance,
            credible: credible(place),
            suspect: self.known[report.node].verdict == Verdict::Suspect,
        };
        reports.iter().enumerate().map(place).collect()
    }
}
