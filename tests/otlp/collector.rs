//! A collector: a server that takes OTLP over HTTP, and does as it is told.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use steadfast::net::{Accept, BoxIo, Listen};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

use crate::common::{origin::response, sim::Net, until};

/// The collector's answer to each message.
#[derive(Clone, Copy)]
pub enum Mode {
    /// It takes all spans.
    Takes,
    /// It takes all spans but so many.
    Refuses(i64),
    /// It answers with this status line and these fields.
    Says(&'static str, &'static str),
    /// It reads, and never answers.
    Hangs,
}

/// A running collector.
pub struct Collector {
    pub port: u16,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

struct Shared {
    mode: Mutex<Mode>,
    heads: Mutex<Vec<String>>,
    spans: Mutex<Vec<Span>>,
}

impl Collector {
    pub async fn start(net: &Net, mode: Mode) -> Self {
        let listener = net.bind(std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).await.unwrap();
        let port = listener.local_addr().ip().unwrap().port();
        let shared = Arc::new(Shared { mode: Mutex::new(mode), heads: Mutex::default(), spans: Mutex::default() });
        let mut task = JoinSet::new();
        task.spawn(accept(listener, shared.clone()));
        Self { port, shared, _task: task }
    }

    /// The settings of a proxy that exports here, with `more` in the section.
    pub fn settings(&self, more: &str) -> String {
        format!("\n[tracing]\nendpoint = \"http://127.0.0.1:{}\"\n{more}\n", self.port)
    }

    pub fn turn(&self, mode: Mode) {
        *self.shared.mode.lock().unwrap() = mode;
    }

    /// The heads of the messages so far.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }

    /// The spans so far that were taken.
    pub fn spans(&self) -> Vec<Seen> {
        self.shared.spans.lock().unwrap().iter().cloned().map(Seen).collect()
    }

    /// The spans of requests, of which there will be so many.
    pub async fn requests(&self, count: usize) -> Vec<Seen> {
        let of_requests = || -> Vec<Seen> { self.spans().into_iter().filter(|span| span.0.kind == 2).collect() };
        until("the spans are there", async || of_requests().len() >= count).await;
        assert_eq!(of_requests().len(), count, "{:?}", self.spans());
        of_requests()
    }

    /// The spans under `parent`.
    pub fn under(&self, parent: &Seen) -> Vec<Seen> {
        self.spans().into_iter().filter(|span| span.0.parent_span_id == parent.0.span_id).collect()
    }
}

/// A span that a collector got.
#[derive(Clone, Debug)]
pub struct Seen(pub Span);

impl Seen {
    pub fn trace_id(&self) -> String {
        hex(&self.0.trace_id)
    }

    pub fn span_id(&self) -> String {
        hex(&self.0.span_id)
    }

    pub fn parent(&self) -> String {
        hex(&self.0.parent_span_id)
    }

    /// The value of an attribute in words; empty without one.
    pub fn word(&self, key: &str) -> String {
        words(&self.0.attributes, key)
    }

    /// The code and the message of the status; 0 where it is not set.
    pub fn status(&self) -> (i32, String) {
        self.0.status.clone().map_or_else(Default::default, |status| (status.code, status.message))
    }

    /// Nanoseconds from the beginning to the end.
    pub fn nanos(&self) -> u64 {
        self.0.end_time_unix_nano.checked_sub(self.0.start_time_unix_nano).unwrap()
    }
}

fn words(attributes: &[KeyValue], key: &str) -> String {
    let of = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    };
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        None => String::new(),
        Some(Value::ArrayValue(list)) => {
            list.values.into_iter().map(|value| of(value.value)).collect::<Vec<_>>().join(",")
        }
        one => of(one),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn accept(mut listener: Box<dyn Accept>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((arrived, _)) = listener.accept().await {
        connections.spawn(serve(arrived.open().unwrap(), shared.clone()));
    }
}

async fn serve(mut io: BoxIo, shared: Arc<Shared>) {
    let mut read = Vec::new();
    while let Some((head, body)) = message(&mut io, &mut read).await {
        let request = ExportTraceServiceRequest::decode(&*body).unwrap();
        shared.heads.lock().unwrap().push(head);
        let mode = *shared.mode.lock().unwrap();
        let rejected_spans = if let Mode::Refuses(count) = mode { count } else { 0 };
        let error_message = "no room".to_owned();
        let partial_success =
            (rejected_spans > 0).then_some(ExportTracePartialSuccess { rejected_spans, error_message });
        let answer = match mode {
            Mode::Hangs => return std::future::pending().await,
            Mode::Says(status, fields) => response(status, fields, ""),
            Mode::Takes | Mode::Refuses(_) => {
                let [of_the_process] = &*request.resource_spans else { panic!("{request:?}") };
                let resource = of_the_process.resource.as_ref().unwrap();
                assert_eq!(words(&resource.attributes, "service.name"), "steadfast");
                let [scope] = &*of_the_process.scope_spans else { panic!("{request:?}") };
                shared.spans.lock().unwrap().extend(scope.spans.iter().cloned());
                let answer = ExportTraceServiceResponse { partial_success }.encode_to_vec();
                response("200 OK", "content-type: application/x-protobuf\r\n", answer)
            }
        };
        if io.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// The head and the body of the next message.
async fn message(io: &mut BoxIo, read: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end].to_vec()).unwrap();
            let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let whole = end + 4 + length.parse::<usize>().unwrap();
            if read.len() >= whole {
                let rest = read.split_off(whole);
                return Some((head, std::mem::replace(read, rest).split_off(end + 4)));
            }
        }
        if io.read_buf(read).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}
