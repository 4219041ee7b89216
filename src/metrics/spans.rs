//! The counts of spans.

use super::{Metrics, SpanLoss};

impl Metrics {
    /// The collector took `count` spans.
    pub fn spans_exported(&self, count: u64) {
        self.instruments.spans_exported_total().inc_by(count);
    }

    /// `count` spans were lost.
    pub fn spans_lost(&self, why: SpanLoss, count: u64) {
        self.instruments.spans_lost_total(why.as_str()).inc_by(count);
    }
}
