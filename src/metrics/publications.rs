//! The counts of signed messages, and of messages for all nodes.

use super::{Metrics, labels::PUBLISH_REASONS};

impl Metrics {
    /// A signed message was given to one more node.
    pub fn given_again(&self, network: &str, reason: &str) {
        debug_assert!(PUBLISH_REASONS.contains(&reason), "{reason} does not begin at 0");
        self.instruments.publications_again_total(network, reason).inc();
    }

    /// A node was told something again.
    pub fn told_again(&self, network: &str) {
        self.instruments.told_again_total(network).inc();
    }

    /// So many bytes are kept for nodes that return.
    pub fn kept(&self, network: &str, bytes: usize) {
        self.instruments.kept_bytes(network).set(bytes as u64);
    }
}
