//! Counts of a network's news to clients: events that were made up, and blocks that could not be
//! had.

use super::{Metrics, labels::DOUBT_REASONS};

impl Metrics {
    /// A missed block was made up.
    pub fn backfilled(&self, network: &str) {
        self.instruments.backfilled_blocks_total(network).inc();
    }

    /// A reorganisation was told.
    pub fn reorged(&self, network: &str) {
        self.instruments.reorgs_total(network).inc();
    }

    /// A gap was skipped.
    pub fn gap_skipped(&self, network: &str) {
        self.instruments.gaps_skipped_total(network).inc();
    }

    /// A node sent an event that no node confirmed.
    pub fn doubtful_event(&self, network: &str, reason: &str) {
        debug_assert!(DOUBT_REASONS.contains(&reason), "{reason} does not begin at 0");
        self.instruments.doubtful_events_total(network, reason).inc();
    }

    /// No node gave the logs of a block.
    pub fn logs_given_up(&self, network: &str) {
        self.instruments.logs_given_up_total(network).inc();
    }

    /// A node wrote so many logs in its own way.
    pub fn odd_logs(&self, network: &str, count: u64) {
        self.instruments.odd_logs_total(network).inc_by(count);
    }

    /// A block has logs that its bloom filter does not have.
    pub fn bloom_contradicted(&self, network: &str) {
        self.instruments.bloom_contradictions_total(network).inc();
    }
}
