//! Counts of a network's news to clients: events that were made up, and blocks that could not be
//! had.

use super::Metrics;

impl Metrics {
    /// A missed block was made up.
    pub fn backfilled(&self, network: &str) {
        self.plain.backfilled_blocks_total(network).inc();
    }

    /// A reorganisation was told.
    pub fn reorged(&self, network: &str) {
        self.plain.reorgs_total(network).inc();
    }

    /// A gap was skipped.
    pub fn gap_skipped(&self, network: &str) {
        self.plain.gaps_skipped_total(network).inc();
    }

    /// A node told an event that cannot be borne out.
    pub fn doubtful_event(&self, network: &str, reason: &str) {
        self.plain.doubtful_events_total(network, reason).inc();
    }

    /// No node gave the logs of a block.
    pub fn logs_given_up(&self, network: &str) {
        self.plain.logs_given_up_total(network).inc();
    }

    /// A node wrote so many logs in its own way.
    pub fn odd_logs(&self, network: &str, count: u64) {
        self.plain.odd_logs_total(network).inc_by(count);
    }

    /// A block has logs that its bloom filter does not have.
    pub fn bloom_contradicted(&self, network: &str) {
        self.plain.bloom_contradictions_total(network).inc();
    }
}
