//! The instruments of what stays open: clients' WebSockets and their subscriptions.

use prometric::{Counter, Gauge, Histogram};
use prometric_derive::metrics;

use super::{Metrics, guard::Guard};

#[metrics(scope = "steadfast")]
pub(super) struct Live {
    /// Client WebSockets open now.
    #[metric]
    ws_connections: Gauge,
    /// Client WebSockets ever opened.
    #[metric]
    ws_connections_total: Counter,
    /// Client WebSockets refused, because ws.max_connections was reached.
    #[metric]
    ws_connections_refused_total: Counter,
    /// Subscriptions of WebSocket clients open now, by kind: newHeads, logs, or other.
    #[metric(labels = ["kind"])]
    subscriptions: Gauge,
    /// Blocks that a reorganisation took out.
    #[metric(buckets = [1.0, 2.0, 3.0, 5.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0])]
    reorg_depth: Histogram,
}

impl Metrics {
    /// Counts a client's WebSocket as open for as long as the guard lives.
    pub fn websocket(&self) -> impl Drop + Send + use<> {
        self.live.ws_connections_total().inc();
        Guard::new(self.live.ws_connections.clone(), Vec::new())
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
