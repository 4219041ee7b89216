//! Spans in the form of OTLP, by the semantic conventions of OpenTelemetry for RPC and HTTP as far
//! as these fit.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};
use tokio::time::Instant;

use super::Finished;
use crate::{
    domain::layer::Layer,
    exchange::trace::Attempt,
    metrics::{AttemptOutcome, CallOutcome},
};

/// Bits of a span's flags: the parent is known, and is of another process.
const REMOTE_IS_KNOWN: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// The same moment by both clocks.
#[derive(Clone, Copy)]
pub(super) struct Anchor {
    pub(super) instant: Instant,
    /// Nanoseconds since 1970.
    pub(super) unix_nanos: u64,
}

impl Anchor {
    fn unix_nanos(self, then: Instant) -> u64 {
        let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let ago = nanos(self.instant.saturating_duration_since(then));
        self.unix_nanos.saturating_sub(ago).saturating_add(nanos(then.saturating_duration_since(self.instant)))
    }
}

/// The message with these spans, from the process `instance`.
pub(super) fn message(finished: &[Finished], anchor: Anchor, instance: &str) -> ExportTraceServiceRequest {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = vec![
        text("service.name", "steadfast"),
        text("service.version", version),
        text("service.instance.id", instance),
    ];
    let scope = InstrumentationScope { name: "steadfast".into(), version: version.into(), ..Default::default() };
    let spans = finished.iter().flat_map(|finished| {
        let attempts = finished.notes.span.attempts.iter().map(|attempt| attempted(finished, attempt, anchor));
        std::iter::once(request(finished, anchor)).chain(attempts)
    });
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: spans.collect(), ..Default::default() }];
    let resource = Some(Resource { attributes, ..Default::default() });
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }] }
}

/// The span of a client's request.
fn request(finished: &Finished, anchor: Anchor) -> Span {
    let Finished { context, method, client, request_id, notes, .. } = finished;
    let side = notes.span.side.as_ref();
    let is_call = side.is_some_and(|(_, layer)| *layer == Layer::El.as_str());
    let verb = method.as_ref().map(|method| method.as_str());
    let only = if let [method] = notes.methods[..] { Some(method) } else { None };
    let name = match (only, verb) {
        (Some(group), Some(verb)) if !is_call => format!("{verb} {group}"),
        (Some(method), _) => method.to_owned(),
        (None, _) if !notes.methods.is_empty() => "batch".to_owned(),
        (None, verb) => verb.unwrap_or("message").to_owned(),
    };
    let mut attributes = vec![
        text("network.protocol.name", if finished.door == "ws" { "websocket" } else { finished.door }),
        text("client.address", &client.to_string()),
        number("http.response.body.size", finished.bytes),
    ];
    attributes.extend(verb.map(|verb| text("http.request.method", verb)));
    attributes.extend(finished.status.map(|status| number("http.response.status_code", status.into())));
    if is_call {
        attributes.extend([text("rpc.system", "jsonrpc"), text("rpc.jsonrpc.version", "2.0")]);
        attributes.extend(only.map(|method| text("rpc.method", method)));
    }
    if only.is_none() && !notes.methods.is_empty() {
        attributes.push(texts("steadfast.methods", notes.methods.iter().copied()));
    }
    attributes.extend(only.filter(|_| !is_call).map(|group| text("steadfast.route", group)));
    if let Some((network, layer)) = side {
        attributes.extend([text("steadfast.network", network), text("steadfast.layer", layer)]);
    }
    if !notes.nodes.is_empty() {
        attributes.push(texts("steadfast.nodes", notes.nodes.iter().map(|node| &**node)));
    }
    attributes.push(number("steadfast.attempts", notes.span.attempt_count as u64));
    if !notes.outcomes.is_empty() {
        let words: Vec<&str> = notes.outcomes.iter().map(|outcome| outcome.as_str()).collect();
        attributes.push(text("steadfast.outcome", &words.join(",")));
    }
    if !request_id.is_empty() {
        attributes.push(text("steadfast.request_id", request_id));
    }
    let failure = notes.outcomes.iter().find(|outcome| is_failure(**outcome));
    attributes.extend(failure.map(|outcome| text("error.type", outcome.as_str())));
    Span {
        trace_id: context.own.trace.bytes().to_vec(),
        span_id: context.own.span.bytes().to_vec(),
        trace_state: context.state.clone().unwrap_or_default(),
        parent_span_id: context.parent.map_or_else(Vec::new, |parent| parent.bytes().to_vec()),
        flags: u32::from(context.own.flags()) | REMOTE_IS_KNOWN | if context.parent.is_some() { IS_REMOTE } else { 0 },
        name,
        kind: SpanKind::Server.into(),
        start_time_unix_nano: anchor.unix_nanos(finished.began),
        end_time_unix_nano: anchor.unix_nanos(finished.ended),
        attributes,
        status: failure.map(|_| failed(notes.span.refusal.as_deref())),
        ..Default::default()
    }
}

/// The span of an attempt at a node.
fn attempted(finished: &Finished, attempt: &Attempt, anchor: Anchor) -> Span {
    let context = &finished.context;
    let Attempt { id, node, began, ended, outcome, words } = attempt;
    let mut attributes =
        vec![text("steadfast.node", node), text("peer.service", node), text("steadfast.outcome", outcome.as_str())];
    // An attempt that was given up has not failed: another one may have been faster.
    let is_failure = !matches!(outcome, AttemptOutcome::Answered | AttemptOutcome::Abandoned);
    if is_failure {
        attributes.push(text("error.type", outcome.as_str()));
    }
    Span {
        trace_id: context.own.trace.bytes().to_vec(),
        span_id: id.bytes().to_vec(),
        trace_state: context.state.clone().unwrap_or_default(),
        parent_span_id: context.own.span.bytes().to_vec(),
        flags: u32::from(context.own.flags()) | REMOTE_IS_KNOWN,
        name: format!("attempt {node}"),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: anchor.unix_nanos(*began),
        end_time_unix_nano: anchor.unix_nanos(*ended),
        attributes,
        status: is_failure.then(|| failed(words.as_deref())),
        ..Default::default()
    }
}

/// Whether the proxy failed its client. Errors of nodes, refusals of the client's request and a
/// client that leaves are no faults of the proxy.
fn is_failure(outcome: CallOutcome) -> bool {
    match outcome {
        CallOutcome::NoNode | CallOutcome::Failed | CallOutcome::Deadline | CallOutcome::OutcomeUnknown => true,
        CallOutcome::Result | CallOutcome::NodeError | CallOutcome::Refused | CallOutcome::Gone => false,
    }
}

fn failed(words: Option<&str>) -> Status {
    Status { message: words.unwrap_or_default().to_owned(), code: StatusCode::Error.into() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: u64) -> KeyValue {
    attribute(key, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)))
}

fn texts<'v>(key: &str, values: impl Iterator<Item = &'v str>) -> KeyValue {
    let values = values.map(|value| AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    attribute(key, Value::ArrayValue(ArrayValue { values: values.collect() }))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}
