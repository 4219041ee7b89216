//! Pauses and penalties that double: between attempts to connect, to ask, to stream.

use std::time::Duration;

/// Two to the power of `times`, but no more than `most`.
pub fn factor(times: u32, most: u32) -> u32 {
    1_u32.checked_shl(times).unwrap_or(most).min(most)
}

/// `first`, doubled so many `times`, but no more than `longest`.
pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(factor(times, u32::MAX)).min(longest)
}

/// Doubling pauses from a first to a longest one.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    /// Draws each pause between half and all of its full length.
    jitter: Option<fastrand::Rng>,
}

impl Backoff {
    /// Pauses of exactly `first`, twice that, and so on up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first, jitter: None }
    }

    /// The same, with each pause drawn between half and all of its length: connections that were
    /// lost together do not come back together. The draws follow from `seed`.
    pub fn jittered(first: Duration, longest: Duration, seed: u64) -> Self {
        Self { jitter: Some(fastrand::Rng::with_seed(seed)), ..Self::new(first, longest) }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        self.pause_within(self.longest)
    }

    /// The next pause with another longest one, for a cause that passes sooner or later than
    /// others.
    pub fn pause_within(&mut self, longest: Duration) -> Duration {
        let pause = self.next.min(longest);
        self.next = doubled(pause, 1, longest);
        match &mut self.jitter {
            Some(rng) => pause.mul_f64(0.5 + rng.f64() / 2.0),
            None => pause,
        }
    }

    /// Raises the bounds: the next pause is `first` at least, and pauses double up to `longest`.
    pub fn slow_down(&mut self, first: Duration, longest: Duration) {
        (self.next, self.longest) = (self.next.max(first), longest);
    }

    /// The next pause is the first one again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(250));
        let pauses: Vec<u128> = (0..7).map(|_| backoff.pause().as_millis()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 250, 250]);
        backoff.reset();
        assert_eq!(backoff.pause().as_millis(), 10);
        let pauses: Vec<u128> = (0..7)
            .map(|_| {
                backoff.slow_down(FIRST, LONGEST);
                backoff.pause().as_millis()
            })
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
    }

    #[test]
    fn a_doubled_pause_never_passes_its_bound() {
        let pauses = [0, 1, 4, 5, 31, 32, u32::MAX].map(|times| doubled(FIRST, times, LONGEST).as_millis());
        assert_eq!(pauses, [100, 200, 1600, 2000, 2000, 2000, 2000]);
        assert_eq!([0, 1, 4, 5, 32, u32::MAX].map(|times| factor(times, 16)), [1, 2, 16, 16, 16, 16]);
    }

    #[test]
    fn jittered_pauses_differ_between_seeds_and_stay_in_bounds() {
        let pauses = |seed| {
            let mut backoff = Backoff::jittered(FIRST, LONGEST, seed);
            (0..8).map(|_| backoff.pause()).collect::<Vec<_>>()
        };
        for seed in 0..50 {
            for (n, pause) in pauses(seed).into_iter().enumerate() {
                let most = LONGEST.min(FIRST * (1 << n));
                assert!(pause >= most / 2 && pause <= most, "{n}: {pause:?}");
            }
        }
        assert_ne!(pauses(1), pauses(2));
        assert_eq!(pauses(3), pauses(3));
    }

    #[test]
    fn a_longer_bound_holds_for_its_own_pauses_only() {
        let mut backoff = Backoff::jittered(FIRST, LONGEST, 1);
        let waited: Duration = (0..60).map(|_| backoff.pause_within(MINUTE)).sum();
        assert!(waited > 20 * MINUTE, "60 pauses within {waited:?}");
        assert!(backoff.pause() <= LONGEST);
    }
}
