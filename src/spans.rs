//! Floor 6, spans: clients' requests as spans of OpenTelemetry, on their way to a collector.
//!
//! Rule: a request never waits for its span. A [`Sampler`] decides at the beginning of a request
//! whether the request has a span; a request without one allocates nothing. The finished span goes
//! into a queue of [`MAX_QUEUED`] spans, and a span that finds no room is lost and counted. A task
//! of its own empties the queue (`export`, in builds with the feature `otlp`). Example: the
//! collector hangs for an hour. Calls are answered as before, the queue is full after the first
//! 2048 spans, and all others are counted as lost.

#[cfg(feature = "otlp")]
pub mod export;
#[cfg(feature = "otlp")]
mod otlp;

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use http::Method;
use tokio::{
    sync::mpsc::{self, Receiver, Sender},
    time::Instant,
};

use crate::{
    domain::{
        client::Peer,
        trace_context::{SpanId, TraceId, TraceParent},
    },
    exchange::trace::{Notes, SpanContext, TRACEPARENT, TRACESTATE},
    metrics::{Metrics, SpanLoss},
};

/// The spans that wait for the collector, at most.
pub const MAX_QUEUED: usize = 2048;

/// A client's request that is over.
#[derive(Debug)]
pub struct Finished {
    /// The place of the span in its trace.
    pub context: SpanContext,
    /// The arrival of the request.
    pub began: Instant,
    /// The end of the answer.
    pub ended: Instant,
    /// The door: `http` or `ws`.
    pub door: &'static str,
    /// The HTTP method; a message of a WebSocket has none.
    pub method: Option<Method>,
    /// The client.
    pub client: Peer,
    /// The client's name for the request; empty without one.
    pub request_id: String,
    /// The HTTP status of the answer.
    pub status: Option<u16>,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// The way of the request.
    pub notes: Notes,
}

/// Takes finished spans for the collector.
pub struct Spans {
    queue: Sender<Finished>,
    /// Spans in the queue, and those that are being sent.
    waiting: AtomicUsize,
    /// Spans that were lost and are not in the log yet.
    unlogged: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Spans {
    /// The way to a queue, and the queue.
    pub fn new(metrics: Arc<Metrics>) -> (Arc<Self>, Receiver<Finished>) {
        let (queue, finished) = mpsc::channel(MAX_QUEUED);
        (Arc::new(Self { queue, waiting: AtomicUsize::new(0), unlogged: AtomicU64::new(0), metrics }), finished)
    }

    /// Takes a span; without room, the span is lost and counted. Never waits.
    pub fn take(&self, finished: Finished) {
        self.waiting.fetch_add(1, Relaxed);
        if self.queue.try_send(finished).is_err() {
            self.lose(SpanLoss::QueueFull, 1);
        }
    }

    /// Spans that waited were lost: this number of them.
    fn lose(&self, why: SpanLoss, count: usize) {
        self.waiting.fetch_sub(count, Relaxed);
        self.unlogged.fetch_add(count as u64, Relaxed);
        self.metrics.spans_lost(why, count as u64);
    }
}

/// Decides which requests have a span.
#[derive(Clone)]
pub struct Sampler {
    spans: Arc<Spans>,
    one_in: u64,
}

impl Sampler {
    /// Has the requests of traced clients recorded in `spans`, and one in `one_in` of all others;
    /// 0: none.
    pub fn new(spans: Arc<Spans>, one_in: u64) -> Self {
        Self { spans, one_in }
    }

    /// Where the spans go.
    pub fn spans(&self) -> &Arc<Spans> {
        &self.spans
    }

    /// The place of the span of a request with these headers; `None` for a request without a span.
    pub fn sample<'v>(&self, header: impl Fn(&str) -> Option<&'v [u8]>) -> Option<SpanContext> {
        let span = || SpanId::new(fastrand::u64(..));
        match header(TRACEPARENT).and_then(TraceParent::read) {
            Some(parent) if parent.is_sampled() => {
                let state = header(TRACESTATE).map(|state| String::from_utf8_lossy(state).into_owned());
                Some(SpanContext { own: parent.under(span()?), parent: Some(parent.span), state })
            }
            // The client has decided that its trace is not recorded.
            Some(_) => None,
            None if self.one_in == 0 => None,
            None => {
                let trace = TraceId::new(fastrand::u128(..)).filter(|trace| trace.is_drawn(self.one_in))?;
                Some(SpanContext { own: TraceParent::sampled(trace, span()?), parent: None, state: None })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

    fn sampled(one_in: u64, headers: &[(&str, String)]) -> Option<SpanContext> {
        let (spans, _queue) = Spans::new(Arc::new(Metrics::new()));
        let value = |name: &str| Some(headers.iter().find(|(own, _)| *own == name)?.1.as_bytes());
        Sampler::new(spans, one_in).sample(value)
    }

    fn finished() -> Finished {
        let now = Instant::now();
        Finished {
            context: sampled(1, &[]).unwrap(),
            began: now,
            ended: now,
            door: "http",
            method: Some(Method::POST),
            client: Peer::Ip([127, 0, 0, 1].into()),
            request_id: String::new(),
            status: Some(200),
            bytes: 1,
            notes: Notes::default(),
        }
    }

    #[test]
    fn a_client_decides_about_its_own_trace() {
        let with = |flags: &str| [(TRACEPARENT, format!("{PARENT}-{flags}")), (TRACESTATE, "a=b".to_owned())];
        for one_in in [0, 1] {
            let context = sampled(one_in, &with("01")).unwrap();
            let parent = TraceParent::read(with("01")[0].1.as_bytes()).unwrap();
            assert_eq!((context.parent, context.own.trace), (Some(parent.span), parent.trace));
            assert_ne!(context.own.span, parent.span);
            assert_eq!(context.state.as_deref(), Some("a=b"));
            assert_eq!(sampled(one_in, &with("00")), None);
        }
    }

    #[test]
    fn a_request_without_a_trace_is_sampled() {
        let malformed = [(TRACEPARENT, "00-abc-def-01".to_owned()), (TRACESTATE, "a=b".to_owned())];
        for headers in [&[][..], &malformed] {
            assert_eq!(sampled(0, headers), None);
            let context = sampled(1, headers).unwrap();
            assert!(context.own.is_sampled());
            assert_eq!((context.parent, context.state), (None, None));
        }
    }

    #[test]
    fn spans_beyond_the_queue_are_lost_and_counted() {
        let metrics = Arc::new(Metrics::new());
        let (spans, mut queue) = Spans::new(metrics.clone());
        for _ in 0..MAX_QUEUED + 3 {
            spans.take(finished());
        }
        let text = String::from_utf8(metrics.render(|_| {})).unwrap();
        assert!(text.contains("steadfast_spans_lost_total{reason=\"queue_full\"} 3\n"), "{text}");
        assert_eq!((spans.waiting.load(Relaxed), spans.unlogged.load(Relaxed)), (MAX_QUEUED, 3));
        assert!(queue.try_recv().is_ok());
    }
}
