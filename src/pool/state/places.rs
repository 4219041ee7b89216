//! Where nodes are by their slots, for the rules of the clock.

use super::{super::clock, Effect, PoolState, Report};
use crate::domain::verdict::Verdict;

impl PoolState {
    /// The slot of the wall clock.
    pub(super) fn clock(&self, unix: u64) -> Option<u64> {
        self.chain.as_ref()?.beacon.as_ref()?.slot_at(unix)
    }

    /// Has the log say once that our clock is behind all nodes.
    pub(super) fn doubt_clock(
        &mut self,
        places: &[clock::SlotReport],
        near: u64,
        unix: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(clock) = self.clock(unix) else { return };
        let least = places.iter().map(|place| place.slot.saturating_sub(clock)).min();
        let slots = least.filter(|_| places.iter().all(|place| clock::is_ahead(place, near, clock)));
        if let (Some(slots), false) = (slots, self.is_clock_slow) {
            effects.push(Effect::ClockIsSlow(slots));
        }
        self.is_clock_slow = slots.is_some();
    }

    /// Where the nodes of these reports are, and whether each is credible.
    pub(super) fn places(&self, reports: &[Report], credible: impl Fn(usize) -> bool) -> Vec<clock::SlotReport> {
        let place = |(place, report): (usize, &Report)| clock::SlotReport {
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
