//! Moments of one replica.

use std::{fmt, time::Duration};

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

/// Whole milliseconds of a setting.
pub(super) fn millis(of: Duration) -> u64 {
    of.as_millis().try_into().unwrap_or(u64::MAX)
}
