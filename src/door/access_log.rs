//! The access log: a line for each request, or for one in so many; and the spans of requests, which
//! tell the same to a collector. While both are off, a request costs two comparisons.

use std::{
    fmt::Write as _,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use ::http::{HeaderMap, HeaderValue, Method, Request};
use tokio::time::Instant;
use tracing::info;

use crate::{
    config::{Addresses, Log},
    domain::client::Peer,
    exchange::trace::{MAX_TRACE, Notes, SpanContext, TRACEPARENT, Trace, value_of},
    spans::{Finished, Sampler, Spans},
};

/// The target of the access log's lines.
pub const TARGET: &str = module_path!();
/// The header that names a request.
const REQUEST_ID: &str = "x-request-id";
const FORWARDED: &str = "x-forwarded-for";

/// The rules of the access log and of spans.
pub struct Access {
    /// Requests of which the first has a line; 0: none has.
    one_in: u64,
    /// The proxies whose word on their clients' addresses is believed.
    trusted: Addresses,
    /// Requests so far.
    count: AtomicU64,
    /// Makes ids that differ from those of other processes.
    ids: RandomState,
    /// Decides which requests have a span; `None`: none has.
    sampler: Option<Sampler>,
}

/// The records that a request has: a line, a span or both.
pub struct Wanted {
    is_logged: bool,
    span: Option<(SpanContext, Arc<Spans>)>,
}

impl Access {
    /// The rules of these settings, and of `sampler` for spans.
    pub fn new(log: &Log, sampler: Option<Sampler>) -> Self {
        let (one_in, trusted) = (log.access, log.trusted_proxies.clone());
        Self { one_in, trusted, count: AtomicU64::new(0), ids: RandomState::new(), sampler }
    }

    /// Whether any request has a line or a span.
    pub fn is_on(&self) -> bool {
        self.one_in != 0 || self.sampler.is_some()
    }

    /// The records of the request that has just come, which has these headers; `None` without any.
    pub fn wanted<'v>(&self, header: impl Fn(&str) -> Option<&'v [u8]>) -> Option<Wanted> {
        let is_logged = self.one_in != 0 && self.count.fetch_add(1, Relaxed).is_multiple_of(self.one_in);
        let span = self.sampler.as_ref().and_then(|sampler| Some((sampler.sample(header)?, sampler.spans().clone())));
        (is_logged || span.is_some()).then_some(Wanted { is_logged, span })
    }

    /// The same for a request with these header lines, which go to nodes.
    pub fn wanted_of(&self, lines: &[u8]) -> Option<Wanted> {
        self.wanted(|name| value_of(lines, name))
    }

    /// The client behind `peer`. Each trusted proxy names the address before its own at the end of
    /// the header `x-forwarded-for`; what stands further in front may be made up by the client.
    pub fn client<'v>(&self, peer: Peer, forwarded: impl Iterator<Item = &'v [u8]>) -> Peer {
        let mut client = peer.to_canonical();
        let values: Vec<&[u8]> = forwarded.collect();
        let hops = values.iter().rev().flat_map(|value| value.rsplit(|&byte| byte == b','));
        for hop in hops {
            if !self.trusted.contains(client) {
                break;
            }
            let Some(before) = address(hop) else { break };
            client = Peer::Ip(before.to_canonical());
        }
        client
    }

    /// The same, by the headers of a request.
    pub fn client_of(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        self.client(peer, headers.get_all(FORWARDED).iter().map(HeaderValue::as_bytes))
    }

    /// The line of a request with these header lines, which go to nodes. If the client gave the
    /// request no id and the log has the line, the lines have a new one from here on.
    pub fn line_of(&self, wanted: Wanted, door: &'static str, client: Peer, lines: &mut Vec<u8>) -> Box<Line> {
        if wanted.is_logged && value_of(lines, REQUEST_ID).is_none() {
            for part in [REQUEST_ID, ": ", &self.new_id(), "\r\n"] {
                lines.extend_from_slice(part.as_bytes());
            }
        }
        let method = (door == "http").then_some(Method::POST);
        Line::new(wanted, (door, method), client, |name| value_of(lines, name))
    }

    /// The line of a request in another form, if this request has one. The code that answers the
    /// request finds a [`Trace`] among its extensions.
    pub fn line_of_request<B>(&self, peer: Peer, request: &mut Request<B>) -> Option<Box<Line>> {
        let headers = request.headers_mut();
        let own = short(headers, REQUEST_ID).cloned();
        let made = || HeaderValue::from_str(&self.new_id()).ok().filter(|_| self.one_in != 0);
        // A WebSocket keeps its id for all its messages, so each has one. Nodes get this one alone.
        if let Some(id) = own.or_else(made) {
            headers.insert(REQUEST_ID, id);
        }
        let headers = request.headers();
        let value = |name: &str| short(headers, name).map(HeaderValue::as_bytes);
        let wanted = self.wanted(value)?;
        let line = Line::new(wanted, ("http", Some(request.method().clone())), self.client_of(peer, headers), value);
        request.extensions_mut().insert(line.trace.clone());
        Some(line)
    }

    fn new_id(&self) -> String {
        format!("{:016x}", self.ids.hash_one(self.count.fetch_add(self.one_in, Relaxed)))
    }
}

/// Whether the header of this name tells of the addresses behind a proxy.
pub fn is_forwarded(name: &str) -> bool {
    name.eq_ignore_ascii_case(FORWARDED)
}

/// The first value of a header that names a request, among those that are not too long.
fn short<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h HeaderValue> {
    headers.get_all(name).iter().find(|value| value.len() <= MAX_TRACE)
}

/// `10.0.0.1`, `10.0.0.1:80`, `::1`, `[::1]`, `[::1]:80`.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    plain.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// A request's line and span, which are recorded when the request is over: when this is dropped.
pub struct Line {
    is_logged: bool,
    /// Where the span goes, if the request has a span.
    spans: Option<Arc<Spans>>,
    door: &'static str,
    method: Option<Method>,
    client: Peer,
    request_id: String,
    traceparent: Option<String>,
    began: Instant,
    /// The HTTP status, once there is one. Messages of WebSockets have none.
    pub status: Option<u16>,
    /// Bytes of the answer's body that were given to the client.
    pub bytes: u64,
    /// The notes of the code that answers the request.
    pub trace: Arc<Trace>,
}

impl Line {
    fn new<'v>(
        wanted: Wanted,
        (door, method): (&'static str, Option<Method>),
        client: Peer,
        header: impl Fn(&str) -> Option<&'v [u8]>,
    ) -> Box<Self> {
        let Wanted { is_logged, span } = wanted;
        let (context, spans) = span.unzip();
        let text = |value| String::from_utf8_lossy(value).into_owned();
        Box::new(Self {
            is_logged,
            spans,
            door,
            method,
            client,
            request_id: header(REQUEST_ID).map(text).unwrap_or_default(),
            traceparent: header(TRACEPARENT).map(text),
            began: Instant::now(),
            status: None,
            bytes: 0,
            trace: Arc::new(Trace::of(context)),
        })
    }

    fn write(&self, notes: &Notes) {
        let Notes { methods, nodes, outcomes, span: _ } = notes;
        let method = listed(methods.iter().copied());
        let node = listed(nodes.iter().map(|node| &**node));
        let outcome = listed(outcomes.iter().map(|outcome| outcome.as_str()));
        let ms = self.began.elapsed().as_micros() as f64 / 1000.0;
        info!(
            client = %self.client,
            door = self.door,
            method,
            node,
            status = self.status,
            outcome,
            ms,
            bytes = self.bytes,
            request_id = self.request_id,
            traceparent = self.traceparent,
            "request"
        );
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let notes = self.trace.notes();
        if self.is_logged {
            self.write(&notes);
        }
        if let (Some(spans), Some(context)) = (self.spans.take(), self.trace.span()) {
            spans.take(Finished {
                context: context.clone(),
                began: self.began,
                ended: Instant::now(),
                door: self.door,
                method: self.method.take(),
                client: self.client,
                request_id: std::mem::take(&mut self.request_id),
                status: self.status,
                bytes: self.bytes,
                notes,
            });
        }
    }
}

/// The words with commas between; `None` without any.
fn listed<'w>(words: impl Iterator<Item = &'w str>) -> Option<String> {
    let mut list = String::new();
    for word in words {
        let _ = write!(list, "{}{word}", if list.is_empty() { "" } else { "," });
    }
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(settings: &str) -> Access {
        let settings = format!("[[el.primary]]\nhttp = \"http://127.0.0.1:1\"\n[log]\n{settings}");
        Access::new(&crate::config::Config::parse(&settings, &|_| None).unwrap().log, None)
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let access = access("trusted_proxies = [\"10.0.0.0/8\", \"2001:db8::1\"]");
        for (peer, forwarded, client) in [
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            // The client made the first up.
            ("10.0.0.1", &["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["1.1.1.1", "203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            ("2001:db8::1", &["[2001:db8::9]:4000"], "2001:db8::9"),
            ("10.0.0.1", &["203.0.113.9:1234"], "203.0.113.9"),
            ("10.0.0.1", &["unknown, 10.0.0.3"], "10.0.0.3"),
            ("10.0.0.1", &["10.0.0.2,10.0.0.3"], "10.0.0.2"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
        ] {
            let found = access.client(Peer::Ip(peer.parse().unwrap()), forwarded.iter().map(|value| value.as_bytes()));
            assert_eq!(found, Peer::Ip(client.parse().unwrap()), "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn one_request_in_so_many_has_a_line() {
        let lines = |settings| {
            let access = access(settings);
            (0..100).filter(|_| access.wanted_of(b"").is_some()).count()
        };
        assert_eq!([lines(""), lines("access = 0"), lines("access = 1"), lines("access = 20")], [0, 0, 100, 5]);
    }

    #[test]
    fn a_request_without_an_id_gets_one_that_goes_along() {
        let access = access("access = 1");
        let id = |lines: &[u8]| String::from_utf8(value_of(lines, REQUEST_ID).unwrap().to_vec()).unwrap();
        let (mut one, mut other, mut own) = (b"a: b\r\n".to_vec(), Vec::new(), b"X-Request-Id: mine\r\n".to_vec());
        let peer = Peer::Ip("192.0.2.1".parse().unwrap());
        for lines in [&mut one, &mut other, &mut own] {
            let wanted = access.wanted_of(lines).unwrap();
            let line = access.line_of(wanted, "http", peer, lines);
            assert_eq!(line.request_id, id(lines));
        }
        assert_eq!((id(&one).len(), id(&own)), (16, "mine".to_owned()));
        assert_ne!(id(&one), id(&other));
    }
}
