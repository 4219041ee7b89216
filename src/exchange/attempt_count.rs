//! The count of attempts at a node, also of those that are dropped.

use http::HeaderMap;
use tokio::time::Instant;

use super::trace::{Attempt, Trace};
use crate::{
    domain::{method::MethodId, trace_context::SpanId},
    metrics::AttemptOutcome,
    pool::node::Node,
};

/// Counts one attempt when the attempt ends, and notes the attempt for the request's span.
pub struct Count<'a> {
    node: &'a Node,
    method: MethodId,
    started: Instant,
    /// How the attempt ended; abandoned, unless another outcome is set.
    pub outcome: AttemptOutcome,
    /// The notes on the request, and the id of the attempt's span, if the request has a span.
    span: Option<(&'a Trace, SpanId)>,
    words: Option<Box<str>>,
}

impl<'a> Count<'a> {
    /// An attempt at `node` that began at `started`, with a call of `method` or a request of its
    /// group, and with these notes.
    pub fn new(node: &'a Node, method: MethodId, started: Instant, trace: Option<&'a Trace>) -> Self {
        let span = trace.and_then(|trace| Some((trace, trace.attempt_id()?)));
        Self { node, method, started, outcome: AttemptOutcome::Abandoned, span, words: None }
    }

    /// The header lines that go to the node, if those of the client do not.
    pub fn lines(&self, lines: &[u8]) -> Option<Vec<u8>> {
        self.span.and_then(|(trace, id)| trace.lines_under(id, lines))
    }

    /// The same for headers of another form.
    pub fn headers(&self, headers: &HeaderMap) -> Option<HeaderMap> {
        self.span.and_then(|(trace, id)| trace.headers_under(id, headers))
    }

    /// The attempt failed in these words, which hold no secret.
    pub fn failed(&mut self, words: Option<&str>) {
        if self.span.is_some() {
            self.words = words.map(Into::into);
        }
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.started);
        self.node.metrics.ended(self.outcome, took.as_secs_f64());
        if matches!(self.outcome, AttemptOutcome::Answered | AttemptOutcome::Timeout) {
            self.node.traffic.took(self.method, took, now);
        }
        if let Some((trace, id)) = self.span {
            let (node, words) = (self.node.name.clone(), self.words.take());
            let (began, ended, outcome) = (self.started, now, self.outcome);
            trace.attempted(Attempt { id, node, began, ended, outcome, words });
        }
    }
}
