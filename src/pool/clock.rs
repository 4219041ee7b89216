//! The clock rule: consensus nodes are late by the time of day too, since every slot has its time.
//!
//! The rule, in one place. `near` is the lag limit in slots. A node is *late* when its head is more
//! than `near` + 2 slots behind the slot of a clock: our own clock, or the node's, from which the
//! node computes its `sync_distance`. A late node lags when another node, whose head is believed,
//! is more than `near` slots ahead and not late by the same clock, and the late node was asked
//! since the other got there. Example with a limit of 3: the clock is at slot 100, node a at 99 and
//! node b at 90; b is 10 behind, and lags.
//!
//! So when all nodes are late, none lags by this rule: slots were missed, the chain stands still,
//! or a clock is wrong. The rule finds a node that is behind at once, even if most nodes are; the
//! head rule would first have to see the chain move. This rule does not overrule the head rule: a
//! head that is not believed stays so, even if the clock confirms the head.
//!
//! A node is *early* when its head is as far ahead of our clock as a late one is behind. Its head
//! is not believed when at least as many other nodes, asked since the node got there, are neither
//! early nor late, by our clock and by their own, and the head is more than `near` slots ahead of
//! all of those: then the early node's clock is wrong, or the node lies. Nodes that are nearer to
//! one another see the same chain, and our own clock may be a little slow. When most nodes are
//! early, our own clock may be wrong, and no node is judged by our clock.

use tokio::time::Instant;

/// How many slots later than the lag limit is late: the slot that runs, and one that was missed.
const GRACE: u64 = 2;

/// Where a node is.
#[derive(Clone, Copy, Debug)]
pub struct SlotReport {
    /// Its head.
    pub slot: u64,
    /// When the node last reported the head.
    pub heard: Instant,
    /// When the node's head got there.
    pub moved: Instant,
    /// How far the node says that its head is behind.
    pub sync_distance: u64,
    /// Whether the head rule believes the head.
    pub credible: bool,
    /// Whether the node was suspect before.
    pub suspect: bool,
}

/// Which of `places` are early and so not believed. `clock` is the slot of the wall clock.
pub fn early(places: &[SlotReport], near: u64, clock: Option<u64>) -> Vec<bool> {
    let Some(clock) = clock else { return vec![false; places.len()] };
    let is_near =
        |place: &&SlotReport| !is_late(place.slot.abs_diff(clock), near) && !is_late(place.sync_distance, near);
    let best = places.iter().filter(is_near).map(|place| place.slot).max();
    let is_early = |place: &SlotReport| {
        let is_beyond = best.is_none_or(|best| place.slot > best.saturating_add(near));
        is_ahead(place, near, clock) && is_beyond
    };
    let count = places.iter().filter(|place| is_early(place)).count();
    // A node that was suspect already may go on ahead of the clock; it stays suspect without new
    // answers of the others.
    let moved = places.iter().filter(|place| is_early(place) && !place.suspect).map(|place| place.moved).max();
    let is_on_time = |place: &&SlotReport| is_near(place) && moved.is_none_or(|moved| place.heard > moved);
    let counts = places.iter().filter(is_on_time).count() >= count;
    places.iter().map(|place| counts && is_early(place)).collect()
}

/// Whether a node is as far ahead of our clock as a late one is behind it.
pub fn is_ahead(place: &SlotReport, near: u64, clock: u64) -> bool {
    is_late(place.slot.saturating_sub(clock), near)
}

/// Whether a node that is `distance` slots behind a clock is late.
pub fn is_late(distance: u64, near: u64) -> bool {
    distance > near.saturating_add(GRACE)
}

/// For each of `places`, by how many slots it lags behind the best by the clock; `None` within the
/// limit. `clock` is the slot of the wall clock.
pub fn late(places: &[SlotReport], near: u64, clock: Option<u64>) -> Vec<Option<u64>> {
    let best = places.iter().filter(|place| place.credible).max_by_key(|place| place.slot);
    let lag = |place: &SlotReport| {
        let best = best?;
        let behind = best.slot.checked_sub(place.slot).filter(|&behind| behind > near)?;
        let by_ours = clock.is_some_and(|clock| {
            is_late(clock.saturating_sub(place.slot), near) && !is_late(clock.saturating_sub(best.slot), near)
        });
        let by_its_own = is_late(place.sync_distance, near) && !is_late(best.sync_distance, near);
        (place.heard > best.moved && (by_ours || by_its_own)).then_some(behind)
    };
    places.iter().map(lag).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NEAR: u64 = 3;

    /// Nodes at these slots with these sync distances, all asked after all of them moved.
    fn judged(clock: Option<u64>, nodes: &[(u64, u64)]) -> Vec<Option<u64>> {
        let moved = Instant::now();
        let heard = moved + Duration::from_secs(1);
        let place = |&(slot, sync_distance): &(u64, u64)| SlotReport {
            slot,
            heard,
            moved,
            sync_distance,
            credible: true,
            suspect: false,
        };
        late(&nodes.iter().map(place).collect::<Vec<_>>(), NEAR, clock)
    }

    #[test]
    fn a_node_lags_when_it_is_late_and_another_is_not() {
        for (clock, nodes, lags) in [
            (Some(100), vec![(100, 0), (94, 0)], vec![None, Some(6)]),
            (Some(100), vec![(100, 0), (95, 0)], vec![None, None]),
            (Some(100), vec![(96, 0), (94, 0)], vec![None, None]),
            // All are late: the chain stands still, or a clock is wrong.
            (Some(100), vec![(60, 0), (40, 0)], vec![None, None]),
            (Some(100), vec![(90, 0)], vec![None]),
            (Some(5), vec![(100, 0), (90, 0)], vec![None, None]),
            (None, vec![(100, 0), (90, 0)], vec![None, None]),
            // A single node on time is enough, and may be the second or third.
            (Some(100), vec![(90, 0), (80, 0), (99, 0)], vec![Some(9), Some(19), None]),
            // By the node's own word, whatever our clock says.
            (None, vec![(100, 0), (94, 6)], vec![None, Some(6)]),
            (None, vec![(100, 6), (94, 12)], vec![None, None]),
            (None, vec![(100, 0), (98, 6)], vec![None, None]),
        ] {
            assert_eq!(judged(clock, &nodes), lags, "{clock:?} {nodes:?}");
        }
    }

    #[test]
    fn a_node_ahead_of_the_clock_is_not_believed_beside_one_on_time() {
        for (clock, nodes, unbelieved) in [
            (Some(100), vec![(106, 0), (100, 0)], vec![true, false]),
            (Some(100), vec![(105, 0), (100, 0)], vec![false, false]),
            (Some(100), vec![(99, 0), (130, 0), (98, 0)], vec![false, true, false]),
            // Our clock is a little slow, and one of the nodes too.
            (Some(100), vec![(106, 0), (105, 0)], vec![false, false]),
            (Some(100), vec![(108, 0), (105, 0)], vec![false, false]),
            (Some(100), vec![(109, 0), (105, 0)], vec![true, false]),
            (Some(100), vec![(107, 0), (106, 0), (105, 0), (130, 0)], vec![false, false, false, true]),
            // Our clock may be wrong.
            (Some(100), vec![(130, 0), (129, 0)], vec![false, false]),
            (Some(100), vec![(130, 0), (129, 0), (100, 0)], vec![false, false, false]),
            (Some(100), vec![(130, 0)], vec![false]),
            (None, vec![(130, 0), (100, 0)], vec![false, false]),
            // The other is late, by our clock or by its own.
            (Some(100), vec![(130, 0), (94, 0)], vec![false, false]),
            (Some(100), vec![(130, 0), (100, 30)], vec![false, false]),
        ] {
            let moved = Instant::now();
            let heard = moved + Duration::from_secs(1);
            let places = |heard, suspect| {
                let place = move |&(slot, sync_distance): &(u64, u64)| SlotReport {
                    slot,
                    heard,
                    moved,
                    sync_distance,
                    credible: true,
                    suspect,
                };
                nodes.iter().map(place).collect::<Vec<_>>()
            };
            let judged = |heard, suspect| early(&places(heard, suspect), NEAR, clock);
            assert_eq!(judged(heard, false), unbelieved, "{clock:?} {nodes:?}");
            // No other node was asked since.
            assert_eq!(judged(moved, false), vec![false; nodes.len()], "{clock:?} {nodes:?}");
            assert_eq!(judged(moved, true), unbelieved, "{clock:?} {nodes:?}");
        }
    }

    #[test]
    fn a_head_that_is_not_believed_makes_nobody_late() {
        let now = Instant::now();
        let place = |slot, credible| SlotReport {
            slot,
            heard: now,
            moved: now - Duration::from_secs(1),
            sync_distance: 0,
            credible,
            suspect: false,
        };
        let clock = Some(100);
        assert_eq!(late(&[place(90, true), place(100, true)], NEAR, clock), [Some(10), None]);
        assert_eq!(late(&[place(90, true), place(100, false)], NEAR, clock), [None, None]);
    }

    #[test]
    fn after_missed_slots_a_first_block_makes_no_unasked_node_late() {
        let now = Instant::now();
        let before = now - Duration::from_secs(1);
        let first = SlotReport { slot: 100, heard: now, moved: now, sync_distance: 0, credible: true, suspect: false };
        let other =
            |heard| SlotReport { slot: 90, heard, moved: before, sync_distance: 0, credible: true, suspect: false };
        assert_eq!(late(&[first, other(before)], NEAR, Some(100)), [None, None]);
        assert_eq!(late(&[first, other(now + Duration::from_millis(1))], NEAR, Some(100)), [None, Some(10)]);
    }
}
