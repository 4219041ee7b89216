//! The clock rule: consensus nodes are late by the time of day too, since every slot has its time.
//!
//! The rule, in one place. `near` is the lag limit in slots; a node is *late* when it is more than `near` + 2 slots away from where
//! the clock says that the chain is: ours, or its own, by which it tells its `sync_distance`. A late node lags when another one, whose
//! head is believed, is beyond the limit ahead of it and not late by the same clock, and the node was asked since that one got there.
//!
//! So when all are late nobody lags for it: slots were missed, the chain stands still, or a clock is wrong. It tells a node that
//! is behind from the first probe on, where the head rule has to see the chain move.

use tokio::time::Instant;

/// How many slots later than the lag limit is late: the slot that runs, and one that was missed.
const GRACE: u64 = 2;

/// Where a node is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its head.
    pub slot: u64,
    /// When it last said so.
    pub heard: Instant,
    /// When it got there.
    pub moved: Instant,
    /// How far it says it is behind.
    pub sync_distance: u64,
    /// Whether the head rule believes it.
    pub credible: bool,
}

/// Whether a node that is `distance` slots behind a clock is late.
pub fn is_late(distance: u64, near: u64) -> bool {
    distance > near.saturating_add(GRACE)
}

/// For each of `places`, by how many slots it lags behind the best by the clock; `None` if it does not, beyond the limit. `clock` is the
/// slot of the wall clock.
pub fn late(places: &[Place], near: u64, clock: Option<u64>) -> Vec<Option<u64>> {
    let best = places.iter().filter(|place| place.credible).max_by_key(|place| place.slot);
    let lag = |place: &Place| {
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
        let place = |&(slot, sync_distance): &(u64, u64)| Place { slot, heard, moved, sync_distance, credible: true };
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
            // One that is on time is enough, and it may be the second or third.
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
    fn a_head_that_is_not_believed_makes_nobody_late() {
        let now = Instant::now();
        let place = |slot, credible| Place {
            slot,
            heard: now,
            moved: now - Duration::from_secs(1),
            sync_distance: 0,
            credible,
        };
        let clock = Some(100);
        assert_eq!(late(&[place(90, true), place(100, true)], NEAR, clock), [Some(10), None]);
        assert_eq!(late(&[place(90, true), place(100, false)], NEAR, clock), [None, None]);
    }

    #[test]
    fn the_first_to_see_a_block_after_missed_slots_makes_nobody_late_who_was_not_asked_since() {
        let now = Instant::now();
        let before = now - Duration::from_secs(1);
        let first = Place { slot: 100, heard: now, moved: now, sync_distance: 0, credible: true };
        let other = |heard| Place { slot: 90, heard, moved: before, sync_distance: 0, credible: true };
        assert_eq!(late(&[first, other(before)], NEAR, Some(100)), [None, None]);
        assert_eq!(late(&[first, other(now + Duration::from_millis(1))], NEAR, Some(100)), [None, Some(10)]);
    }
}
