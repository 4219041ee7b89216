//! The time that a node takes for its answers, method by method, for the choice of the fastest.
//!
//! Rule: what counts is an average over the last calls of the same method, and it halves with each
//! ten seconds without such a call. Reason: a trace takes a node a hundred times as long as a block
//! number, and a node that was slow once is never asked again unless its time is forgotten.
//! Example: a node takes 80 ms for `eth_call`, and another takes 10 ms and gets all calls. After 30
//! seconds the first one counts as if it took 10 ms, and is tried.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use crate::domain::method::{Method, MethodId};

/// The time after which half of an average is forgotten.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// The weight of a new time is one part of so many.
const PARTS: u64 = 8;

/// The times that a node takes for its answers, by the method's place in its table, or the
/// group's of a request.
pub(super) struct Latencies {
    epoch: Instant,
    /// The average in microseconds in the upper half, and in the lower half the half-lives from
    /// `epoch` to the last call. Of two calls that end together one may be lost.
    averages: [AtomicU64; Method::COUNT + 1],
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self { epoch: Instant::now(), averages: [const { AtomicU64::new(0) }; Method::COUNT + 1] }
    }

    /// Notes that a call took this long.
    pub(super) fn note(&self, method: MethodId, took: Duration, now: Instant) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, u64::from(u32::MAX));
        let average = match self.micros(method, now) {
            0 => took,
            before => (before * (PARTS - 1) + took).div_ceil(PARTS),
        };
        self.averages[method.0].store(average << 32 | self.half_lives(now), Relaxed);
    }

    /// The average in microseconds; 0 where no call of the method has been heard of for long.
    pub(super) fn micros(&self, method: MethodId, now: Instant) -> u64 {
        let average = self.averages[method.0].load(Relaxed);
        let age = self.half_lives(now).saturating_sub(average & u64::from(u32::MAX));
        (average >> 32).checked_shr(u32::try_from(age).unwrap_or(u32::MAX)).unwrap_or(0)
    }

    fn half_lives(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.epoch).as_secs() / HALF_LIFE.as_secs();
        passed.min(u64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: MethodId = MethodId(3);
    const TRACE: MethodId = MethodId(4);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[tokio::test(start_paused = true)]
    async fn an_average_is_a_methods_own_and_follows_its_calls() {
        let (latencies, now) = (Latencies::new(), Instant::now());
        assert_eq!(latencies.micros(CALL, now), 0);
        latencies.note(CALL, millis(8), now);
        latencies.note(TRACE, millis(900), now);
        assert_eq!(latencies.micros(CALL, now), 8_000);
        latencies.note(CALL, millis(16), now);
        assert_eq!(latencies.micros(CALL, now), 9_000);
        for _ in 0..60 {
            latencies.note(CALL, millis(1), now);
        }
        assert!(latencies.micros(CALL, now) < 1_010, "{}", latencies.micros(CALL, now));
        assert_eq!(latencies.micros(TRACE, now), 900_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_that_was_not_heard_of_again_is_forgotten() {
        let (latencies, now) = (Latencies::new(), Instant::now());
        latencies.note(CALL, millis(80), now);
        for (seconds, micros) in [(9, 80_000), (10, 40_000), (30, 10_000), (3600, 0), (u64::from(u32::MAX) * 20, 0)] {
            assert_eq!(latencies.micros(CALL, now + Duration::from_secs(seconds)), micros, "after {seconds} s");
        }
        let later = now + Duration::from_secs(20);
        latencies.note(CALL, millis(20), later);
        assert_eq!(latencies.micros(CALL, later), 20_000);
    }

    #[tokio::test(start_paused = true)]
    async fn no_time_is_too_short_or_too_long() {
        let (latencies, now) = (Latencies::new(), Instant::now());
        latencies.note(CALL, Duration::ZERO, now);
        assert_eq!(latencies.micros(CALL, now), 1);
        for _ in 0..200 {
            latencies.note(CALL, Duration::MAX, now);
        }
        assert!(latencies.micros(CALL, now) > u64::from(u32::MAX) - PARTS);
    }
}
