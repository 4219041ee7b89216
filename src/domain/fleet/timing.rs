//! The cluster's times, and the rule that makes them safe.
//!
//! # The rule
//!
//! ```text
//! leader:    send ──────── heartbeat * failure_threshold ────────▶ fence
//! follower:      see ──────────────── failover_timeout ─────────────────────▶ claim
//! ```
//!
//! The leader counts from the moment at which the newest stored heartbeat was sent, and a follower
//! from the moment at which the follower saw that heartbeat, which is later. So the leader stops
//! before a follower begins, by `safety_margin` at least: the time for the last effect to end, and
//! for clocks that run at different speeds. The hook that fences begins when the leader stops, and
//! may run for longer: its whole time fits in before `failover_timeout` too.

use std::{num::NonZeroU32, time::Duration};

use crate::domain::duration::millis;

use thiserror::Error;

/// The shortest heartbeat.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(50);
/// The fewest failures that make a leader stop. With one, the lease would end while the heartbeat
/// that renews the lease is on the way.
const FEWEST_FAILURES: u32 = 2;

/// The longest silence before others take over: of a setting, and of one that an entry tells.
const LONGEST_FAILOVER: Duration = Duration::from_secs(600);

/// Why times do not fit together. The keys are those of `[cluster]`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadTiming {
    /// A replica could take over before the leader has stopped.
    #[error(
        "`failover_timeout` is {failover_timeout:?} and must be more than {sum:?}, which is `heartbeat` {heartbeat:?} \
         * `failure_threshold` {failure_threshold} + `{}` {:?}", .end.0, .end.1
    )]
    FailoverTooShort {
        /// The setting.
        failover_timeout: Duration,
        /// `heartbeat * failure_threshold`, and the time for the end.
        sum: Duration,
        /// The setting.
        heartbeat: Duration,
        /// The setting.
        failure_threshold: u32,
        /// The longest of the times that the end of a leader has, with its key.
        end: (&'static str, Duration),
    },
    /// A leader that died would be followed by none for too long.
    #[error("`failover_timeout` is {0:?} and must be 10 minutes at most")]
    FailoverTooLong(Duration),
    /// The heartbeat would load the store.
    #[error("`heartbeat` is {0:?} and must be 50ms at least")]
    HeartbeatTooShort(Duration),
    /// A lease would be over before the next heartbeat is stored.
    #[error("`failure_threshold` is {0} and must be 2 at least: a lease lasts longer than one heartbeat")]
    ThresholdTooLow(u32),
    /// No time to end the last effect.
    #[error("`safety_margin` is {0:?} and must be 50ms at least")]
    MarginTooShort(Duration),
}

/// Times in milliseconds, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// Between two heartbeats.
    pub(crate) heartbeat: u64,
    /// How long a lease lasts from the sending of the heartbeat that renewed the lease.
    pub(crate) lease: u64,
    /// How long work may take to end after a fence, before the process exits.
    pub(crate) margin: u64,
    /// How long a replica is silent before others take over.
    pub(crate) failover: u64,
    /// Failures of the store in a row that make a replica fail.
    pub(crate) fall: u32,
}

impl Timing {
    /// The times of the settings. `fence_hook` is the time of the hook that fences, if there is
    /// one.
    ///
    /// # Errors
    /// The times do not keep two leaders apart, or are too short.
    pub fn new(
        heartbeat: Duration,
        failure_threshold: NonZeroU32,
        safety_margin: Duration,
        failover_timeout: Duration,
        fence_hook: Option<Duration>,
    ) -> Result<Self, BadTiming> {
        if heartbeat < SHORTEST_HEARTBEAT {
            return Err(BadTiming::HeartbeatTooShort(heartbeat));
        }
        if safety_margin < SHORTEST_HEARTBEAT {
            return Err(BadTiming::MarginTooShort(safety_margin));
        }
        let failure_threshold = failure_threshold.get();
        if failure_threshold < FEWEST_FAILURES {
            return Err(BadTiming::ThresholdTooLow(failure_threshold));
        }
        if failover_timeout > LONGEST_FAILOVER {
            return Err(BadTiming::FailoverTooLong(failover_timeout));
        }
        let lease = heartbeat.saturating_mul(failure_threshold);
        let end = match fence_hook {
            Some(time) if time > safety_margin => ("on_hook_timeout", time),
            _ => ("safety_margin", safety_margin),
        };
        let sum = lease.saturating_add(end.1);
        if failover_timeout <= sum {
            return Err(BadTiming::FailoverTooShort { failover_timeout, sum, heartbeat, failure_threshold, end });
        }
        Ok(Self {
            heartbeat: millis(heartbeat),
            lease: millis(lease),
            margin: millis(safety_margin),
            failover: millis(failover_timeout),
            fall: failure_threshold,
        })
    }

    /// How long to wait for a leader whose lease tells this `failover_timeout`: the longer of both
    /// times, and no longer than a setting may be.
    pub(crate) fn wait_for(&self, told: Option<u64>) -> u64 {
        told.unwrap_or_default().min(millis(LONGEST_FAILOVER)).max(self.failover)
    }

    /// A pause before a failed request to the store is repeated: an eighth to a quarter of a
    /// heartbeat, drawn from `seed`, so that a lease has time for several tries.
    pub(crate) fn retry_pause(&self, seed: u64) -> u64 {
        let eighth = (self.heartbeat / 8).max(1);
        eighth + mix(seed) % eighth
    }
}

/// A number that looks random and follows from `seed` (the last step of splitmix64).
pub(crate) fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(heartbeat: u64, threshold: u32, margin: u64, failover: u64) -> Result<Timing, BadTiming> {
        let [heartbeat, margin, failover] = [heartbeat, margin, failover].map(Duration::from_millis);
        Timing::new(heartbeat, threshold.try_into().unwrap(), margin, failover, None)
    }

    /// A26, A27.
    #[test]
    fn a_failover_below_the_sum_is_refused_with_the_sum() {
        assert!(timing(1000, 3, 1000, 6000).is_ok());
        assert!(timing(1000, 3, 1000, 4001).is_ok());
        let error = timing(1000, 3, 1000, 4000).unwrap_err().to_string();
        assert_eq!(
            error,
            "`failover_timeout` is 4s and must be more than 4s, which is `heartbeat` 1s * `failure_threshold` 3 + \
             `safety_margin` 1s"
        );
        assert_eq!(timing(10, 3, 1000, 6000), Err(BadTiming::HeartbeatTooShort(Duration::from_millis(10))));
        assert_eq!(timing(1000, 1, 1000, 6000), Err(BadTiming::ThresholdTooLow(1)));
        assert!(timing(1000, 2, 1000, 6000).is_ok());
        assert!(timing(1000, 3, 1000, 600_000).is_ok());
        assert_eq!(timing(1000, 3, 1000, 600_001), Err(BadTiming::FailoverTooLong(Duration::from_millis(600_001))));
        assert_eq!(timing(1000, 3, 0, 6000), Err(BadTiming::MarginTooShort(Duration::ZERO)));
    }

    /// A20: the hook that fences ends before another replica begins.
    #[test]
    fn the_hook_that_fences_counts_in_the_sum() {
        let with = |failover: u64, hook: u64| {
            let [heartbeat, failover, hook] = [1000, failover, hook].map(Duration::from_millis);
            Timing::new(heartbeat, NonZeroU32::new(3).unwrap(), heartbeat, failover, Some(hook))
        };
        assert!(with(8001, 5000).is_ok());
        let error = with(8000, 5000).unwrap_err().to_string();
        assert_eq!(
            error,
            "`failover_timeout` is 8s and must be more than 8s, which is `heartbeat` 1s * `failure_threshold` 3 + \
             `on_hook_timeout` 5s"
        );
        assert!(with(4001, 500).is_ok());
        assert!(with(4000, 500).unwrap_err().to_string().ends_with("+ `safety_margin` 1s"));
    }

    /// A32.
    #[test]
    fn a_lease_has_time_for_several_tries() {
        let timing = timing(1000, 3, 1000, 6000).unwrap();
        for seed in 0..100 {
            assert!((125..250).contains(&timing.retry_pause(seed)));
        }
    }
}
