//! Gauges of things that are open.

use prometric::Gauge;

/// A gauge that is one higher for as long as this lives.
pub(super) struct Guard {
    gauge: Gauge,
    labels: Vec<String>,
}

impl Guard {
    pub(super) fn new(gauge: Gauge, labels: Vec<String>) -> Self {
        let guard = Self { gauge, labels };
        guard.gauge.inc(&guard.labels());
        guard
    }

    fn labels(&self) -> Vec<&str> {
        self.labels.iter().map(String::as_str).collect()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.gauge.dec(&self.labels());
    }
}
