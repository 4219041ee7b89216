//! Sends finished spans to a collector, by OTLP over HTTP, from a task of its own.
//!
//! Rule: a batch goes out when [`MAX_BATCH`] spans are there, or [`DELAY`] after its first span. A
//! collector that is down, is busy or takes longer than [`ANSWER`] is tried again after pauses that
//! double, for [`BATCH_TIMEOUT`]; then the batch is lost and counted. The log has one line of that
//! in a while. At the end of the proxy [`FLUSH`] is left for the spans that wait.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::{
    sync::{mpsc::Receiver, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::warn;

use super::{
    Finished, Spans,
    otlp::{Anchor, message},
};
use crate::{
    config::Tracing,
    domain::{backoff::Backoff, target::Target},
    metrics::{Metrics, SpanLoss, Throttle},
    net::{
        Dial, Endpoint,
        http::{Body, Error, Progress, Request, Sending, Target as Server, Timeouts, Unread, Upstream},
        node_connections::{NodeConnections, Rank},
        tls::Tls,
    },
    pool::ask::wait,
};

/// The most spans of one message, without those of attempts.
const MAX_BATCH: usize = 256;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(1);
/// How long a connection to the collector may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the collector may take to answer, connection included.
const ANSWER: Duration = Duration::from_secs(10);
/// The pauses after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long a batch is tried.
const BATCH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the end of the proxy waits for the last spans to be taken.
const FLUSH: Duration = Duration::from_secs(3);
/// The most bytes of an answer.
const MAX_ANSWER: usize = 64 << 10;
/// The path of spans below the collector's URL.
const TRACES: &str = "/v1/traces";

/// Nanoseconds since 1970.
pub type NanoClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The export to a collector. Dropping this ends the export at once.
pub struct Export {
    spans: Arc<Spans>,
    closing: watch::Sender<bool>,
    task: JoinSet<()>,
}

impl Export {
    /// Begins to export to the collector of `settings`, if there is one.
    ///
    /// # Errors
    /// When TLS to the collector cannot be set up.
    pub fn start(
        settings: &Tracing,
        dial: Arc<dyn Dial>,
        metrics: &Arc<Metrics>,
        clock: NanoClock,
    ) -> Result<Option<Self>, String> {
        let Some(collector) = Collector::new(settings, dial)? else { return Ok(None) };
        let (spans, queue) = Spans::new(metrics.clone());
        let closing = watch::Sender::new(false);
        let exporter = Exporter {
            collector,
            spans: spans.clone(),
            queue,
            closing: closing.subscribe(),
            clock,
            instance: format!("{:016x}", fastrand::u64(..)),
            throttle: Throttle::default(),
        };
        let mut task = JoinSet::new();
        task.spawn(exporter.run());
        Ok(Some(Self { spans, closing, task }))
    }

    /// Where finished spans go.
    pub fn spans(&self) -> &Arc<Spans> {
        &self.spans
    }

    /// Exports the spans that wait, as far as [`FLUSH`] allows, and ends.
    pub async fn finish(mut self) {
        self.closing.send_replace(true);
        _ = timeout(FLUSH, self.task.join_next()).await;
        self.task.shutdown().await;
        let left = self.spans.waiting.load(Relaxed);
        if left > 0 {
            self.spans.lose(SpanLoss::Shutdown, left);
            warn!(lost = left, "spans are lost: the collector did not take them before the end");
        }
    }
}

/// The collector as an HTTP server.
struct Collector {
    upstream: Arc<Upstream>,
    target: Target,
    headers: HeaderMap,
    /// Host and port, for the log.
    name: String,
}

/// Why the collector did not take a batch.
struct Refused {
    why: String,
    /// Whether the collector would refuse the batch again.
    is_final: bool,
    /// The pause that the collector asks for.
    wait: Option<Duration>,
}

impl Collector {
    fn new(settings: &Tracing, dial: Arc<dyn Dial>) -> Result<Option<Self>, String> {
        let Some(url) = &settings.endpoint else { return Ok(None) };
        let tls = match url.scheme().is_tls() {
            true => Some(Tls::new(url.host(), &[]).map_err(|error| format!("tracing.endpoint: {error}"))?),
            false => None,
        };
        let basic = url.basic_auth().map(|basic| ("authorization".to_owned(), basic.expose().as_bytes().to_vec()));
        let own = settings.headers.iter().map(|(name, value)| (name.to_string(), value.expose().as_bytes().to_vec()));
        let server = Server {
            endpoint: Endpoint::Tcp { host: url.host().clone(), port: url.port() },
            tls,
            url: url.clone(),
            headers: own.chain(basic).collect(),
            connections: NodeConnections::new(None, 0),
        };
        let target = Target::new(TRACES, None).ok_or("the path of spans is malformed")?;
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let name = url.authority();
        Ok(Some(Self { upstream: Upstream::new(server, dial, CONNECT), target, headers, name }))
    }

    /// Sends one message. Returns how many of its spans the collector refused, and why.
    async fn send(&self, body: &[u8]) -> Result<(usize, String), Refused> {
        let passing = |why: String| Refused { why, is_final: false, wait: None };
        let sent = timeout(ANSWER, self.exchange(body)).await;
        let (status, wait, answer) = sent
            .map_err(|_| passing(format!("no answer within {ANSWER:?}")))?
            .map_err(|error| passing(error.to_string()))?;
        match status {
            200..=299 => {
                // An answer that cannot be read is no refusal.
                let answer = answer.and_then(|answer| ExportTraceServiceResponse::decode(answer).ok());
                let partial = answer.and_then(|answer| answer.partial_success).unwrap_or_default();
                Ok((usize::try_from(partial.rejected_spans).unwrap_or(0), partial.error_message))
            }
            status => {
                let is_final = !matches!(status, 408 | 429 | 502 | 503 | 504);
                Err(Refused { why: format!("HTTP status {status}"), is_final, wait })
            }
        }
    }

    async fn exchange(&self, body: &[u8]) -> Result<(u16, Option<Duration>, Option<Bytes>), Error> {
        let request = Request {
            method: &Method::POST,
            target: &self.target,
            headers: &self.headers,
            sending: Sending::Repeatable,
            rank: Rank::Own,
            caller: None,
        };
        // Nothing is streamed.
        let timeouts = Timeouts { idle: Duration::ZERO, head: Duration::ZERO };
        let (mut gate, mut progress) = ((), Progress::default());
        let mut response =
            self.upstream.request(request, Body::Whole(body), timeouts, &mut gate, &mut progress).await?;
        let (status, wait) = (response.head.status, wait(&response.head));
        match response.whole(MAX_ANSWER, || {}).await {
            Ok(answer) => Ok((status, wait, Some(answer))),
            Err(Unread::TooLong) => Ok((status, wait, None)),
            Err(Unread::Broken(broken)) => Err(Error::Broken { broken }),
        }
    }
}

/// The task that exports.
struct Exporter {
    collector: Collector,
    spans: Arc<Spans>,
    queue: Receiver<Finished>,
    closing: watch::Receiver<bool>,
    clock: NanoClock,
    /// The id of this process.
    instance: String,
    throttle: Throttle,
}

impl Exporter {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while self.collect(&mut batch).await {
            self.export(&batch).await;
            batch.clear();
            self.log_losses("the collector takes too long");
        }
    }

    /// Waits for the spans of the next message; false when the proxy ends and none are left.
    async fn collect(&mut self, batch: &mut Vec<Finished>) -> bool {
        // Both arms are cancel-safe.
        tokio::select! {
            biased;
            count = self.queue.recv_many(batch, MAX_BATCH) => if count == 0 { return false },
            _ = self.closing.wait_for(|closing| *closing) => self.queue.close(),
        }
        let due = Instant::now() + DELAY;
        while batch.len() < MAX_BATCH && !self.queue.is_closed() {
            let room = MAX_BATCH - batch.len();
            // All arms are cancel-safe.
            tokio::select! {
                biased;
                count = self.queue.recv_many(batch, room) => if count == 0 { break },
                _ = self.closing.wait_for(|closing| *closing) => self.queue.close(),
                () = tokio::time::sleep_until(due) => break,
            }
        }
        // The queue is closed: its spans are there at once.
        if batch.is_empty() { self.queue.recv_many(batch, MAX_BATCH).await > 0 } else { true }
    }

    /// Sends the batch until the collector takes or refuses the spans, or `time_limit` ends.
    async fn export(&mut self, batch: &[Finished]) {
        let anchor = Anchor { instant: Instant::now(), unix_nanos: (self.clock)() };
        let body = message(batch, anchor, &self.instance).encode_to_vec();
        let (until, mut pauses) = (Instant::now() + BATCH_TIMEOUT, Backoff::new(PAUSES.0, PAUSES.1));
        loop {
            let refused = match self.collector.send(&body).await {
                Ok((rejected, why)) => {
                    // The collector counts the spans of attempts too.
                    let rejected = rejected.min(batch.len());
                    let taken = batch.len() - rejected;
                    self.spans.waiting.fetch_sub(taken, Relaxed);
                    self.spans.metrics.spans_exported(taken as u64);
                    self.spans.lose(SpanLoss::Rejected, rejected);
                    return self.log_losses(&why);
                }
                Err(refused) => refused,
            };
            let pause = pauses.pause().max(refused.wait.unwrap_or_default());
            let is_late = *self.closing.borrow() || Instant::now() + pause > until;
            if refused.is_final || is_late {
                let why = if refused.is_final { SpanLoss::Rejected } else { SpanLoss::NotTaken };
                self.spans.lose(why, batch.len());
                return self.log_losses(&refused.why);
            }
            self.log_losses(&refused.why);
            // Both arms are cancel-safe.
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.closing.wait_for(|closing| *closing) => {}
            }
        }
    }

    /// Logs the number of lost spans, if there are any and the latest line of the kind is old.
    fn log_losses(&self, why: &str) {
        if self.spans.unlogged.load(Relaxed) == 0 || self.throttle.pass().is_none() {
            return;
        }
        let lost = self.spans.unlogged.swap(0, Relaxed);
        warn!(collector = self.collector.name, why, lost, "spans are lost");
    }
}
