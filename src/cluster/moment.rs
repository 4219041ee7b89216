//! Moments of one replica.

use std::{fmt, sync::Arc};

/// A replica's clock.
pub type Clock = Arc<dyn Fn() -> Moment + Send + Sync>;

/// Milliseconds on a clock that counts up from some start, runs while the machine sleeps
/// (`CLOCK_BOOTTIME`), and is never set. Moments of two replicas do not compare.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment `millis` milliseconds later.
    pub fn after(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this moment; 0 if `earlier` is the later one.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

/// The machine's clock that runs on while the machine sleeps. A process that was frozen, or whose
/// machine was, finds its leases over.
pub fn boot_time() -> Moment {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    Moment(seconds.unwrap_or_default().saturating_mul(1000).saturating_add(nanos.unwrap_or_default() / 1_000_000))
}
