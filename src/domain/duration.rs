//! Durations as whole milliseconds.

use std::time::Duration;

/// The whole milliseconds of a duration; the highest number for a duration that has more.
pub fn millis(of: Duration) -> u64 {
    u64::try_from(of.as_millis()).unwrap_or(u64::MAX)
}
