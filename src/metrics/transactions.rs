//! The counts of raw transactions that nodes were sent.

use super::Metrics;

/// Why a node was sent a raw transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendReason {
    /// A client's call went to several nodes at once.
    Call,
    /// The node took over or came back, and an earlier transaction may be missing there.
    Again,
    /// The outbox sends a transaction that it keeps.
    Outbox,
}

impl SendReason {
    /// All reasons.
    pub(super) const ALL: [Self; 3] = [Self::Call, Self::Again, Self::Outbox];

    /// The reason's label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Again => "again",
            Self::Outbox => "outbox",
        }
    }
}

impl Metrics {
    /// A node was sent a raw transaction, and this was its word.
    pub fn raw_transaction_sent(&self, network: &str, reason: SendReason, word: &str) {
        debug_assert!(super::labels::SEND_WORDS.contains(&word), "{word} does not begin at 0");
        self.instruments.raw_transaction_sends_total(network, reason.as_str(), word).inc();
    }

    /// So many raw transactions are remembered, of so many bytes.
    pub fn raw_transactions_remembered(&self, network: &str, count: usize, bytes: usize) {
        self.instruments.remembered_transactions(network).set(count as u64);
        self.instruments.remembered_transaction_bytes(network).set(bytes as u64);
    }
}
