//! The outbox's own clock: the wall clock of the start, and from then on the time that passes.
//!
//! Rule: a wall clock that is set to another time moves this clock slowly, by a tenth of the time
//! that passes, and never back.
//!
//! Reason: deadlines, pauses and schedules are times on the disk. A wall clock that jumps a day
//! ahead would end all lives at once; one that jumps back would put off every retry.
//!
//! Examples:
//! - The wall clock jumps 25 hours ahead. A minute later this clock has moved on by 66 seconds, and
//!   a deadline of 24 hours is as far away as before.
//! - The wall clock jumps back an hour. A minute later this clock has moved on by 54 seconds, and a
//!   retry that was due in 20 seconds has been made.
//! - A machine that slept an hour catches up within ten hours.
//!
//! A restart takes the wall clock as it is: the time for which the proxy was away counts.
//! Signatures of webhooks have the wall clock's time, since receivers compare it with theirs.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{id::Millis, webhook::Clock};

/// The part of the time that passes by which the clock moves towards the wall clock.
const SLEW: u32 = 10;
/// A wall clock that differs by less is not followed: it is read in whole milliseconds.
const TOLERANCE: Duration = Duration::from_secs(1);

/// Where the clock stands.
struct Steady {
    /// Since 1970.
    at: Duration,
    read: Instant,
}

/// A clock that goes on as time passes, from the time that `wall` has now.
pub(super) fn steady(wall: Clock) -> Clock {
    let start = Steady { at: Duration::from_millis(wall().0), read: Instant::now() };
    let steady = Mutex::new(start);
    Arc::new(move || {
        // Each change is made whole under the lock.
        let mut steady = steady.lock().unwrap_or_else(PoisonError::into_inner);
        steady.pass(Duration::from_millis(wall().0), Instant::now());
        Millis(u64::try_from(steady.at.as_millis()).unwrap_or(u64::MAX))
    })
}

impl Steady {
    /// Moves on to `now`, at which the wall clock shows `wall`.
    fn pass(&mut self, wall: Duration, now: Instant) {
        let passed = now.saturating_duration_since(self.read);
        (self.read, self.at) = (now, self.at + passed);
        let lag = wall.abs_diff(self.at);
        if lag <= TOLERANCE {
            return;
        }
        let part = lag.min(passed / SLEW);
        self.at = if wall > self.at { self.at + part } else { self.at.saturating_sub(part) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use tokio::time::advance;

    use super::*;

    /// A steady clock, and how far the wall clock beneath was set ahead of the time that passes.
    fn clocks() -> (Clock, Arc<AtomicU64>) {
        let (set, start) = (Arc::new(AtomicU64::new(1_000_000_000)), Instant::now());
        let wall = {
            let set = set.clone();
            move || Millis(set.load(SeqCst) + u64::try_from(start.elapsed().as_millis()).unwrap())
        };
        (steady(Arc::new(wall)), set)
    }

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_set_moves_the_clock_slowly() {
        for (jump, expected) in [(90_000_000_i64, 66_000), (-3_600_000, 54_000), (500, 60_000)] {
            let (clock, set) = clocks();
            let before = clock();
            set.store(set.load(SeqCst).wrapping_add_signed(jump), SeqCst);
            assert_eq!(clock().since(before), 0, "no jump by {jump} ms");
            for _ in 0..60 {
                advance(Duration::from_secs(1)).await;
                clock();
            }
            assert_eq!(clock().since(before), expected, "{jump} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_catches_up_and_never_goes_back() {
        for jump in [3_600_000_i64, -3_600_000] {
            let (clock, set) = clocks();
            let (wall, mut last) = (set.load(SeqCst).wrapping_add_signed(jump), clock());
            set.store(wall, SeqCst);
            for _ in 0..11 * 60 {
                advance(Duration::from_secs(60)).await;
                assert!(clock() >= last);
                last = clock();
            }
            let lag = last.0.abs_diff(wall + 11 * 3_600_000);
            assert!(lag <= 7_000, "{jump}: {lag} ms");
        }
    }
}
