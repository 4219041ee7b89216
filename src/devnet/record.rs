//! The requests that a node received, for tests to look at.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

/// Requests kept; the oldest go first.
const KEPT_REQUESTS: usize = 10_000;
/// Bytes of params and bodies kept over all requests.
const KEPT_BYTES: usize = 16 << 20;
/// Different methods counted; any further one is counted as `other`.
const COUNTED: usize = 1000;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As an HTTP request.
    Http,
    /// In a WebSocket message.
    Ws,
    /// On the IPC socket.
    Ipc,
}

/// A request as the node received it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The transport that carried the request.
    pub transport: Transport,
    /// The JSON-RPC method; on consensus nodes the HTTP method and path, as in `GET
    /// /eth/v1/node/syncing`.
    pub method: String,
    /// The params' bytes, empty if none; on consensus nodes the query.
    pub params: String,
    /// The request's body; kept only by consensus nodes.
    pub body: Bytes,
    /// Headers of the HTTP request, or of the one that opened the WebSocket.
    pub headers: Arc<HeaderMap>,
    /// When the request came.
    pub at: Instant,
}

/// The requests of one node, and its connections.
#[derive(Default)]
pub(super) struct Records {
    requests: Mutex<Kept>,
    open: AtomicU64,
    opened: AtomicU64,
    refused: AtomicU64,
    websockets: AtomicU64,
    subscriptions: AtomicU64,
}

#[derive(Default)]
struct Kept {
    ring: VecDeque<Request>,
    bytes: usize,
    counts: BTreeMap<String, u64>,
}

impl Records {
    pub(super) fn add(&self, transport: Transport, method: &str, params: &str, headers: &Arc<HeaderMap>) {
        self.add_with_body(transport, method, params, headers, Bytes::new());
    }

    pub(super) fn add_with_body(
        &self,
        transport: Transport,
        method: &str,
        params: &str,
        headers: &Arc<HeaderMap>,
        body: Bytes,
    ) {
        let request = Request {
            transport,
            method: method.to_owned(),
            params: params.to_owned(),
            body,
            headers: headers.clone(),
            at: Instant::now(),
        };
        let mut kept = self.kept();
        let counted = if kept.counts.len() < COUNTED || kept.counts.contains_key(method) { method } else { "other" };
        match kept.counts.get_mut(counted) {
            Some(count) => *count += 1,
            None => _ = kept.counts.insert(counted.to_owned(), 1),
        }
        kept.bytes += request.params.len() + request.body.len();
        kept.ring.push_back(request);
        while kept.ring.len() > KEPT_REQUESTS || kept.bytes > KEPT_BYTES {
            let Some(oldest) = kept.ring.pop_front() else { break };
            kept.bytes -= oldest.params.len() + oldest.body.len();
        }
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.kept().ring.iter().cloned().collect()
    }

    pub(super) fn count(&self, method: &str) -> u64 {
        self.kept().counts.get(method).copied().unwrap_or(0)
    }

    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.kept().counts.clone()
    }

    pub(super) fn clear(&self) {
        *self.kept() = Kept::default();
    }

    pub(super) fn connections(&self) -> (u64, u64) {
        (self.open.load(Ordering::SeqCst), self.opened.load(Ordering::SeqCst))
    }

    pub(super) fn websockets(&self) -> u64 {
        self.websockets.load(Ordering::SeqCst)
    }

    pub(super) fn subscriptions(&self) -> u64 {
        self.subscriptions.load(Ordering::SeqCst)
    }

    /// Counts a connection for as long as the guard lives.
    pub(super) fn connection(&self) -> Gauge<'_> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        Gauge::new(&self.open)
    }

    /// Counts a connection that was closed at once.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::SeqCst)
    }

    /// Counts a WebSocket for as long as the guard lives.
    pub(super) fn websocket(&self) -> Gauge<'_> {
        Gauge::new(&self.websockets)
    }

    /// Counts a subscription or event stream for as long as the guard lives.
    pub(super) fn subscription(self: &Arc<Self>) -> SubscriptionGauge {
        self.subscriptions.fetch_add(1, Ordering::SeqCst);
        SubscriptionGauge(self.clone())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds one to a count for as long as the gauge lives.
pub(super) struct Gauge<'a>(&'a AtomicU64);

impl<'a> Gauge<'a> {
    fn new(value: &'a AtomicU64) -> Self {
        value.fetch_add(1, Ordering::SeqCst);
        Self(value)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Adds one to the subscriptions for as long as the gauge lives.
pub(super) struct SubscriptionGauge(Arc<Records>);

impl Drop for SubscriptionGauge {
    fn drop(&mut self) {
        self.0.subscriptions.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_are_bounded_and_counts_go_on() {
        let records = Records::default();
        let headers = Arc::default();
        for i in 0..KEPT_REQUESTS + 5 {
            records.add(Transport::Http, "eth_call", &i.to_string(), &headers);
        }
        assert_eq!(records.requests().len(), KEPT_REQUESTS);
        assert_eq!(records.requests()[0].params, "5");
        assert_eq!(records.count("eth_call"), KEPT_REQUESTS as u64 + 5);
        records.add(Transport::Http, "big", &"x".repeat(KEPT_BYTES), &headers);
        assert_eq!(records.requests().len(), 1);
        records.clear();
        assert_eq!((records.requests().len(), records.count("eth_call")), (0, 0));
    }
}
