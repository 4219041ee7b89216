//! The counts of filters that clients poll.

use super::Metrics;

impl Metrics {
    /// There are so many filters: of blocks, of logs, of transactions. They take so many bytes, and
    /// so many are kept for them.
    pub fn filters(&self, network: &str, counts: [usize; 3], bytes: usize, backlog: usize) {
        for (kind, count) in ["blocks", "logs", "transactions"].into_iter().zip(counts) {
            self.plain.filters(network, kind).set(count as u64);
        }
        self.plain.filter_bytes(network).set(bytes as u64);
        self.plain.filter_backlog_bytes(network).set(backlog as u64);
    }

    /// A filter was not made for this limit.
    pub fn filter_refused(&self, network: &str, reason: &str) {
        self.plain.filters_refused_total(network, reason).inc();
    }

    /// A filter was dropped.
    pub fn filter_dropped(&self, network: &str, reason: &str) {
        self.plain.filters_dropped_total(network, reason).inc();
    }
}
