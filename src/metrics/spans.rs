//! The counts of spans.

use super::{Metrics, SpanLoss};

impl Metrics {
    /// The collector took so many spans.
    pub fn spans_exported(&self, count: u64) {
        self.instruments.spans_exported_total().inc_by(count);
    }

    /// So many spans were lost.
    pub fn spans_lost(&self, why: SpanLoss, count: u64) {
        self.instruments.spans_lost_total(why.as_str()).inc_by(count);
    }
}
