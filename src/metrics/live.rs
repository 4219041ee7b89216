//! The instruments of what stays open: clients' WebSockets and their subscriptions.

use prometric::{Counter, Gauge, Histogram};
use prometric_derive::metrics;

use super::{Metrics, guard::Guard};

#[metrics(scope = "steadfast")]
pub(super) struct Live {
    #[metric(help = "Client WebSockets open now.")]
    ws_connections: Gauge,
    #[metric(help = "Client WebSockets ever opened.")]
    ws_connections_total: Counter,
    #[metric(help = "Client WebSockets refused, because `ws.max_connections` was reached.")]
    ws_connections_refused_total: Counter,
    #[metric(
        labels = ["kind"],
        help = "Subscriptions of WebSocket clients open now: `newHeads`, `logs`, `other` (those that only a node \
                can give, such as `newPendingTransactions`)."
    )]
    subscriptions: Gauge,
    #[metric(
        buckets = [1.0, 2.0, 3.0, 5.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0],
        help = "Blocks that a reorganisation took out."
    )]
    reorg_depth: Histogram,
}

impl Metrics {
    /// Counts a client's WebSocket as open for as long as the guard lives.
    pub fn websocket(&self) -> impl Drop + Send + use<> {
        self.live.ws_connections_total().inc();
        Guard::new(self.live.ws_connections.clone(), Vec::new())
    }

    /// Begins the counts of WebSockets at 0.
    pub(super) fn begin_websockets(&self) {
        self.live.ws_connections().add(0_u64);
        self.live.ws_connections_total().inc_by(0_u64);
        self.live.ws_connections_refused_total().inc_by(0_u64);
    }

    /// Begins the count of subscriptions of this kind at 0.
    pub(super) fn begin_subscriptions(&self, kind: &str) {
        self.live.subscriptions(kind).add(0_u64);
    }

    /// A client's WebSocket was one too many.
    pub fn websocket_refused(&self) {
        self.live.ws_connections_refused_total().inc();
    }

    /// `count` messages came from clients.
    pub fn messages_in(&self, count: u64) {
        self.messages[0].inc_by(count);
    }

    /// `count` messages went to clients.
    pub fn messages_out(&self, count: u64) {
        self.messages[1].inc_by(count);
    }

    /// Counts a client's subscription of this kind (newHeads, logs, other) as open for as long as
    /// the guard lives.
    pub fn subscription(&self, kind: &'static str) -> impl Drop + Send + Sync + use<> {
        Guard::new(self.live.subscriptions.clone(), vec![kind.to_owned()])
    }

    /// A reorganisation took out `depth` blocks.
    pub fn reorg_depth(&self, depth: usize) {
        self.live.reorg_depth().observe(depth as f64);
    }
}
