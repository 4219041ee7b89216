//! The chain's wall clock: read once, then moved by tokio's time, so that a simulation controls the
//! clock.

use tokio::time::Instant;

use crate::domain::duration::millis;

/// Unix time as of some start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start_millis: u64,
    started: Instant,
}

impl Clock {
    /// Starts at `unix` seconds.
    pub(super) fn fixed(unix: u64) -> Self {
        Self { start_millis: unix.saturating_mul(1000), started: Instant::now() }
    }

    /// Starts at the system's time.
    pub(super) fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one reading of the wall clock; a simulation gives its own")]
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self { start_millis: millis(since), started: Instant::now() }
    }

    /// Unix seconds now.
    pub(super) fn unix(&self) -> u64 {
        self.millis() / 1000
    }

    /// Unix milliseconds now.
    pub(super) fn millis(&self) -> u64 {
        self.start_millis.saturating_add(millis(self.started.elapsed()))
    }
}
