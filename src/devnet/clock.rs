//! The chain's wall clock: read once, then moved by tokio's time, so that a simulation controls the
//! clock.

use tokio::time::Instant;

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
        Self { start_millis: u64::try_from(since.as_millis()).unwrap_or(u64::MAX), started: Instant::now() }
    }

    /// Unix seconds now.
    pub(super) fn unix(&self) -> u64 {
        self.millis() / 1000
    }

    /// Unix milliseconds now.
    pub(super) fn millis(&self) -> u64 {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.start_millis.saturating_add(elapsed)
    }
}
