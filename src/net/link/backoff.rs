//! How long to wait between attempts to connect.

use std::time::Duration;

/// Before the first attempt after a loss.
const FIRST: Duration = Duration::from_millis(100);
/// At most.
pub(super) const LONGEST: Duration = Duration::from_secs(2);
/// At most, while the node answers the handshake with a refusal: a wrong key or too many requests do not pass in a moment.
const LONGEST_REFUSED: Duration = Duration::from_secs(60);

/// Doubling delays, each between half and all of what it may be, so that links that were lost together do not come back together.
pub(super) struct Backoff {
    rng: fastrand::Rng,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), next: FIRST }
    }

    /// `refused`: the node was there, and would not have it.
    pub(super) fn delay(&mut self, refused: bool) -> Duration {
        let longest = if refused { LONGEST_REFUSED } else { LONGEST };
        let most = self.next.min(longest);
        self.next = (most * 2).min(longest);
        most.mul_f64(0.5 + self.rng.f64() / 2.0)
    }

    /// A connection held.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_refuses_is_left_alone_for_up_to_a_minute() {
        let mut backoff = Backoff::new(1);
        let delays: Vec<_> = (0..16).map(|_| backoff.delay(true)).collect();
        assert!(delays[..12].iter().all(|delay| *delay < LONGEST_REFUSED), "{delays:?}");
        assert!(delays[12..].iter().all(|delay| *delay >= LONGEST_REFUSED / 2), "{delays:?}");
        backoff.reset();
        assert!(backoff.delay(true) <= FIRST);
    }

    #[test]
    fn delays_double_up_to_the_longest_and_differ_between_seeds() {
        let delays = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..8).map(|_| backoff.delay(false)).collect::<Vec<_>>()
        };
        for seed in 0..50 {
            for (n, delay) in delays(seed).into_iter().enumerate() {
                let most = LONGEST.min(FIRST * (1 << n));
                assert!(delay >= most / 2 && delay <= most, "{n}: {delay:?}");
            }
        }
        assert_ne!(delays(1), delays(2));
        assert_eq!(delays(3), delays(3));
        let mut backoff = Backoff::new(1);
        (0..8).for_each(|_| _ = backoff.delay(false));
        backoff.reset();
        assert!(backoff.delay(false) <= FIRST);
    }
    #[test]
    fn whoever_refuses_is_left_in_peace_and_whoever_is_only_away_is_not() {
        let mut backoff = Backoff::new(1);
        let waited: Duration = (0..60).map(|_| backoff.delay(true)).sum();
        assert!(waited > 20 * LONGEST_REFUSED, "60 refusals within {waited:?}");
        assert!(backoff.delay(false) <= LONGEST);
    }
}
