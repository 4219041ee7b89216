//! The counts of filters that clients poll.

use super::{
    Metrics,
    labels::{FILTER_ENDS, FILTER_KINDS, FILTER_LIMITS},
};

impl Metrics {
    /// There are so many filters: of blocks, of logs, of transactions. They take so many bytes, and
    /// that many are kept for them.
    pub fn filters(&self, network: &str, counts: [usize; 3], bytes: usize, backlog: usize) {
        for (kind, count) in FILTER_KINDS.into_iter().zip(counts) {
            self.instruments.filters(network, kind).set(count as u64);
        }
        self.instruments.filter_bytes(network).set(bytes as u64);
        self.instruments.filter_backlog_bytes(network).set(backlog as u64);
    }

    /// A filter was not made for this limit.
    pub fn filter_refused(&self, network: &str, reason: &str) {
        debug_assert!(FILTER_LIMITS.contains(&reason), "{reason} does not begin at 0");
        self.instruments.filters_refused_total(network, reason).inc();
    }

    /// A filter was dropped.
    pub fn filter_dropped(&self, network: &str, reason: &str) {
        debug_assert!(FILTER_ENDS.contains(&reason), "{reason} does not begin at 0");
        self.instruments.filters_dropped_total(network, reason).inc();
    }
}
