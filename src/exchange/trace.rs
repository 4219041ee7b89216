//! The way of one request of a client, noted for its line in the access log and for its span.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::{
    domain::trace_context::{SpanId, TraceParent},
    metrics::{AttemptOutcome, CallOutcome},
};

/// The header that names the trace and the sender's span.
pub const TRACEPARENT: &str = "traceparent";
/// The header with other programs' notes on the trace.
pub const TRACESTATE: &str = "tracestate";
/// The attempts of one request that have a span each. Further ones are counted.
const MAX_ATTEMPTS: usize = 32;
/// The most bytes of the words on an attempt's or a request's failure.
const MAX_WORDS: usize = 200;

/// Bytes of the value of a header that names a request, at most. A longer value goes to no line of
/// the log, and with a call to no node.
pub const MAX_TRACE: usize = 256;

/// The notes on one request, which may be a batch of calls.
#[derive(Debug, Default)]
pub struct Trace {
    notes: Mutex<Notes>,
    span: Option<SpanContext>,
}

/// The place of a request's span in its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace and the request's own span.
    pub own: TraceParent,
    /// The client's span, if the client gave one.
    pub parent: Option<SpanId>,
    /// The client's `tracestate`, if the trace is the client's.
    pub state: Option<String>,
}

/// The notes: each method, node and outcome stands there once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The methods, or groups of routes.
    pub methods: Vec<&'static str>,
    /// The nodes that were asked, in the order of their first attempts.
    pub nodes: Vec<Arc<str>>,
    /// The outcomes of the calls.
    pub outcomes: Vec<CallOutcome>,
    /// The notes for the request's span; empty without one.
    pub span: SpanNotes,
}

/// The notes that only a span has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanNotes {
    /// The network and layer of the request.
    pub side: Option<(Arc<str>, &'static str)>,
    /// The proxy's own words for the first refused call.
    pub refusal: Option<Box<str>>,
    /// The attempts, in the order of their ends.
    pub attempts: Vec<Attempt>,
    /// The number of attempts, those with no place in `attempts` too.
    pub attempt_count: usize,
}

/// An attempt at one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The id of the attempt's span, under which the node's own spans stand.
    pub id: SpanId,
    /// The node.
    pub node: Arc<str>,
    /// The beginning.
    pub began: Instant,
    /// The end: the head of the answer, or the failure.
    pub ended: Instant,
    /// How the attempt ended.
    pub outcome: AttemptOutcome,
    /// The failure in words without secrets, if there are any.
    pub words: Option<Box<str>>,
}

impl Trace {
    /// The notes on a request that has a span, where there is a context.
    pub fn of(span: Option<SpanContext>) -> Self {
        Self { span, notes: Mutex::default() }
    }

    /// The place of the request's span in its trace, if the request has a span.
    pub fn span(&self) -> Option<&SpanContext> {
        self.span.as_ref()
    }

    /// A node is asked.
    pub fn asked(&self, node: &Arc<str>) {
        add(&mut self.lock().nodes, node.clone());
    }

    /// A call ended so.
    pub fn ended(&self, method: &'static str, outcome: CallOutcome) {
        let mut notes = self.lock();
        add(&mut notes.methods, method);
        add(&mut notes.outcomes, outcome);
    }

    /// The request is one for the nodes of this side.
    pub fn of_side(&self, network: &Arc<str>, layer: &'static str) {
        if self.span.is_some() {
            self.lock().span.side.get_or_insert_with(|| (network.clone(), layer));
        }
    }

    /// A call was refused in these words.
    pub fn refused(&self, words: impl FnOnce() -> String) {
        if self.span.is_some() {
            self.lock().span.refusal.get_or_insert_with(|| cut(words()));
        }
    }

    /// An id for the span of an attempt that begins; `None` where the request has no span.
    pub fn attempt_id(&self) -> Option<SpanId> {
        self.span.as_ref().and_then(|_| SpanId::new(fastrand::u64(..)))
    }

    /// An attempt ended.
    pub fn attempted(&self, mut attempt: Attempt) {
        let notes = &mut self.lock().span;
        notes.attempt_count += 1;
        if notes.attempts.len() < MAX_ATTEMPTS {
            attempt.words = attempt.words.map(|words| cut(words.into()));
            notes.attempts.push(attempt);
        }
    }

    /// The header lines that go to the node of the attempt `id`: `lines`, with the attempt's span
    /// in the place of the client's.
    pub fn lines_under(&self, id: SpanId, lines: &[u8]) -> Option<Vec<u8>> {
        let span = self.span.as_ref()?;
        let mut under = Vec::with_capacity(lines.len() + 80);
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            if !span.replaces(|own| name.eq_ignore_ascii_case(own.as_bytes())) {
                under.extend_from_slice(line);
            }
        }
        under.extend_from_slice(format!("{TRACEPARENT}: {}\r\n", span.own.under(id)).as_bytes());
        Some(under)
    }

    /// The same for headers of another form.
    pub fn headers_under(&self, id: SpanId, headers: &HeaderMap) -> Option<HeaderMap> {
        let span = self.span.as_ref()?;
        let mut under = headers.clone();
        if span.replaces(|own| own == TRACESTATE) {
            under.remove(TRACESTATE);
        }
        let value = HeaderValue::from_str(&span.own.under(id).to_string()).ok()?;
        under.insert(HeaderName::from_static(TRACEPARENT), value);
        Some(under)
    }

    /// The notes so far.
    pub fn notes(&self) -> Notes {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SpanContext {
    /// Whether the client's header of a name that is `like` one of the trace's headers goes no
    /// further. The state of a trace means nothing in another one.
    fn replaces(&self, like: impl Fn(&str) -> bool) -> bool {
        like(TRACEPARENT) || (self.parent.is_none() && like(TRACESTATE))
    }
}

fn add<T: PartialEq>(all: &mut Vec<T>, value: T) {
    if !all.contains(&value) {
        all.push(value);
    }
}

/// The beginning of `words`, of at most [`MAX_WORDS`] bytes.
fn cut(mut words: String) -> Box<str> {
    words.truncate(words.floor_char_boundary(MAX_WORDS));
    words.into()
}

/// The value of the header `name` among lines as they go to nodes.
pub fn value_of<'l>(lines: &'l [u8], name: &str) -> Option<&'l [u8]> {
    lines.split(|&byte| byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let value = line[colon + 1..].trim_ascii();
        line[..colon].eq_ignore_ascii_case(name.as_bytes()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::trace_context::TraceId;

    fn context(parent: Option<u64>) -> SpanContext {
        let own = TraceParent::sampled(TraceId::new(7).unwrap(), SpanId::new(8).unwrap());
        SpanContext { own, parent: parent.and_then(SpanId::new), state: None }
    }

    #[test]
    fn a_value_is_found_among_the_lines_whatever_its_case() {
        let lines = b"X-Request-Id: a:b\r\ntraceparent: 00-1-2-01\r\n";
        assert_eq!(value_of(lines, "x-request-id"), Some(&b"a:b"[..]));
        assert_eq!(value_of(lines, "traceparent"), Some(&b"00-1-2-01"[..]));
        assert_eq!((value_of(lines, "tracestate"), value_of(b"", "a")), (None, None));
    }

    #[test]
    fn each_note_stands_once() {
        let trace = Trace::default();
        let node: Arc<str> = "el-1".into();
        for outcome in [CallOutcome::Result, CallOutcome::NoNode, CallOutcome::Result] {
            trace.asked(&node);
            trace.ended("eth_call", outcome);
        }
        trace.of_side(&node, "el");
        trace.refused(|| unreachable!("only a span has the words"));
        assert_eq!(trace.attempt_id(), None);
        let outcomes = vec![CallOutcome::Result, CallOutcome::NoNode];
        let span = SpanNotes::default();
        assert_eq!(trace.notes(), Notes { methods: vec!["eth_call"], nodes: vec![node], outcomes, span });
    }

    #[test]
    fn a_node_gets_the_attempt_in_the_place_of_the_client() {
        let lines = b"X-A: 1\r\nTraceParent: 00-1-2-01\r\ntracestate: a=b\r\n";
        let own = "traceparent: 00-00000000000000000000000000000007-0000000000000009-01\r\n";
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static("00-1-2-01"));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        for (parent, state) in [(Some(2), "tracestate: a=b\r\n"), (None, "")] {
            let (trace, id) = (Trace::of(Some(context(parent))), SpanId::new(9).unwrap());
            let under = trace.lines_under(id, lines).unwrap();
            assert_eq!(String::from_utf8(under).unwrap(), ["X-A: 1\r\n", state, own].concat());
            let under = trace.headers_under(id, &headers).unwrap();
            assert_eq!(under[TRACEPARENT].as_bytes(), value_of(own.as_bytes(), TRACEPARENT).unwrap());
            assert_eq!(under.contains_key(TRACESTATE), !state.is_empty());
        }
        assert_eq!(Trace::default().lines_under(SpanId::new(9).unwrap(), lines), None);
    }

    #[test]
    fn notes_on_attempts_are_bounded() {
        let trace = Trace::of(Some(context(None)));
        let (id, now) = (SpanId::new(1).unwrap(), Instant::now());
        for _ in 0..100 {
            let words = Some("é".repeat(1000).into());
            let outcome = AttemptOutcome::Dropped;
            trace.attempted(Attempt { id, node: "el-1".into(), began: now, ended: now, outcome, words });
        }
        let notes = trace.notes().span;
        assert_eq!((notes.attempts.len(), notes.attempt_count), (MAX_ATTEMPTS, 100));
        assert!(notes.attempts.iter().all(|attempt| attempt.words.as_ref().unwrap().len() <= MAX_WORDS));
    }
}
