//! A block that a client of another proxy was shown, and that no node of this pool is known to
//! have: calls wait for a node that has reached the block.
//!
//! The wait is bounded as for a better node: two block times, 2 s at most. Where the wait was in
//! vain, the nodes of this proxy are steadily behind, and calls do not wait again for a while.

use std::time::Duration;

use tokio::time::Instant;

use crate::pool::{
    late_primary::{MAX_WAIT, longest_wait},
    preference::Preference,
    snapshot::Wait,
};

/// The first and the longest time after a wait in vain in which calls do not wait again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(16 * 60));

/// The wait for such a block.
#[derive(Clone, Debug, Default)]
pub(super) struct Elsewhere {
    since: Option<Instant>,
    not_before: Option<Instant>,
    /// The last pause; none after a wait that had its end.
    pause: Option<Duration>,
}

impl Elsewhere {
    /// Another proxy has shown a higher block.
    pub(super) fn shown(&mut self, now: Instant) {
        if self.not_before.is_none_or(|at| now >= at) {
            self.since.get_or_insert(now);
        }
    }

    /// Calls have waited for as long as they may.
    pub(super) fn in_vain(&mut self, now: Instant) {
        if self.since.take().is_some() {
            let pause = self.pause.map_or(PAUSES.0, |pause| (2 * pause).min(PAUSES.1));
            (self.pause, self.not_before) = (Some(pause), Some(now + pause));
        }
    }

    /// Whether calls wait. `best` is the node that would serve, `near` how far it may be below.
    pub(super) fn step(
        &mut self,
        best: Option<Preference>,
        near: u64,
        block_time: Option<Duration>,
        now: Instant,
    ) -> Option<Wait> {
        let since = self.since?;
        let longest = longest_wait(block_time.unwrap_or(MAX_WAIT));
        match best {
            Some(best) if best.below_served == 0 => (self.since, self.pause) = (None, None),
            Some(best) if best.badness == 0 && best.below_served <= near => {
                if now < since + longest {
                    return Some(Wait { since, longest });
                }
                self.in_vain(now);
            }
            // There are other reasons to wait, or none to hope.
            _ => self.since = None,
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tier;

    fn best(below_served: u64) -> Option<Preference> {
        Some(Preference { badness: 0, below_served, tier: Tier::Primary })
    }

    #[test]
    fn calls_wait_for_a_block_that_was_shown_elsewhere() {
        let (mut elsewhere, start) = (Elsewhere::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(elsewhere.step(best(1), 5, Some(second), start), None);
        elsewhere.shown(start);
        let wait = Wait { since: start, longest: MAX_WAIT };
        assert_eq!(elsewhere.step(best(1), 5, Some(second), start + second), Some(wait));
        assert_eq!(elsewhere.step(best(0), 5, Some(second), start + second), None);
        assert_eq!(elsewhere.step(best(1), 5, Some(second), start + second), None);
        elsewhere.shown(start);
        assert_eq!(elsewhere.step(best(6), 5, Some(second), start), None, "far below, there is no hope");
    }

    #[test]
    fn after_a_wait_in_vain_calls_do_not_wait_again_for_a_while() {
        let (mut elsewhere, start) = (Elsewhere::default(), Instant::now());
        elsewhere.shown(start);
        assert_eq!(elsewhere.step(best(1), 5, None, start + MAX_WAIT), None);
        let waits = |elsewhere: &mut Elsewhere, at: Instant| {
            elsewhere.shown(at);
            elsewhere.step(best(1), 5, None, at).is_some()
        };
        let next = start + MAX_WAIT + PAUSES.0;
        assert!(!waits(&mut elsewhere, next - Duration::from_millis(1)));
        assert!(waits(&mut elsewhere, next));
        elsewhere.in_vain(next);
        assert!(!waits(&mut elsewhere, next + PAUSES.0));
        assert!(waits(&mut elsewhere, next + 2 * PAUSES.0));
    }
}
