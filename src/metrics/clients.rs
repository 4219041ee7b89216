//! The counts of client connections, of the memory that clients take, and of what they are sent.

use std::sync::atomic::Ordering::Relaxed;

use super::{Ended, Metrics, guard::Guard};

impl Metrics {
    /// Counts a client connection as open for as long as the guard lives.
    pub fn connection(&self) -> impl Drop + use<> {
        self.instruments.http_connections_total().inc();
        Guard::new(self.instruments.http_connections.clone(), Vec::new())
    }

    /// A client connection was one too many.
    pub fn connection_refused(&self) {
        self.instruments.http_connections_refused_total().inc();
    }

    /// From now on a scrape asks `measure` what clients make the proxy hold: bytes, how many there
    /// may be, and how often some were refused.
    pub fn measure_memory(&self, measure: impl Fn() -> [usize; 3] + Send + Sync + 'static) {
        // Asked for once.
        let _ = self.memory.set(Box::new(measure));
    }

    pub(super) fn note_memory(&self) {
        let [held, limit, refused] = self.memory.get().map_or([0; 3], |measure| measure());
        self.instruments.client_memory_bytes().set(held as u64);
        self.instruments.client_memory_limit_bytes().set(limit as u64);
        let counted = self.memory_refused.swap(refused as u64, Relaxed);
        self.instruments.client_memory_refused_total().inc_by((refused as u64).saturating_sub(counted));
    }

    /// A client connection was ended, for this reason.
    pub fn client_ended(&self, why: Ended) {
        self.instruments.client_connections_ended_total(why.as_str()).inc();
    }

    /// Counts a client's event stream as open for as long as the guard lives.
    pub fn sse_stream(&self) -> impl Drop + Send + use<> {
        Guard::new(self.instruments.sse_streams.clone(), Vec::new())
    }

    /// `count` clients were told an event.
    pub fn notified(&self, kind: &str, count: u64) {
        self.instruments.notifications_total(kind).inc_by(count);
    }

    /// The WebSocket or event stream of a slow client was closed.
    pub fn slow_client_closed(&self) {
        self.instruments.slow_clients_closed_total().inc();
    }
}
