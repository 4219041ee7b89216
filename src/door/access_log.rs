//! The access log: a line for each request, or for one in so many. While the log is off, a request
//! costs a comparison.

use std::{
    fmt::Write as _,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use ::http::{HeaderMap, HeaderValue, Request};
use tokio::time::Instant;
use tracing::info;

use crate::{
    config::{Addresses, Log},
    domain::client::Peer,
    exchange::trace::{MAX_TRACE, Notes, Trace, value_of},
};

/// The target of the access log's lines.
pub const TARGET: &str = module_path!();
/// The header that names a request.
const REQUEST_ID: &str = "x-request-id";
const FORWARDED: &str = "x-forwarded-for";

/// The rules of the access log.
pub struct Access {
    /// Requests of which the first has a line; 0: none has.
    one_in: u64,
    /// The proxies whose word on their clients' addresses is believed.
    trusted: Addresses,
    /// Requests so far.
    count: AtomicU64,
    /// Makes ids that differ from those of other processes.
    ids: RandomState,
}

impl Access {
    /// The rules of these settings.
    pub fn new(log: &Log) -> Self {
        let (one_in, trusted) = (log.access, log.trusted_proxies.clone());
        Self { one_in, trusted, count: AtomicU64::new(0), ids: RandomState::new() }
    }

    /// Whether any request has a line.
    pub fn is_on(&self) -> bool {
        self.one_in != 0
    }

    /// Whether the request that has just come has a line.
    pub fn takes(&self) -> bool {
        self.is_on() && self.count.fetch_add(1, Relaxed).is_multiple_of(self.one_in)
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
    /// request no id, the lines have a new one from here on.
    pub fn line_of(&self, door: &'static str, client: Peer, lines: &mut Vec<u8>) -> Box<Line> {
        if value_of(lines, REQUEST_ID).is_none() {
            for part in [REQUEST_ID, ": ", &self.new_id(), "\r\n"] {
                lines.extend_from_slice(part.as_bytes());
            }
        }
        Line::new(door, client, value_of(lines, REQUEST_ID).unwrap_or_default(), value_of(lines, "traceparent"))
    }

    /// The line of a request in another form, if this request has one. The code that answers the
    /// request finds a [`Trace`] among its extensions.
    pub fn line_of_request<B>(&self, peer: Peer, request: &mut Request<B>) -> Option<Box<Line>> {
        let headers = request.headers_mut();
        let own = short(headers, REQUEST_ID).cloned();
        // A WebSocket keeps its id for all its messages, so each has one. Nodes get this one alone.
        if let Some(id) = own.or_else(|| HeaderValue::from_str(&self.new_id()).ok()) {
            headers.insert(REQUEST_ID, id);
        }
        if !self.takes() {
            return None;
        }
        let headers = request.headers();
        let client = self.client_of(peer, headers);
        let value = |name| short(headers, name).map(HeaderValue::as_bytes);
        let line = Line::new("http", client, value(REQUEST_ID).unwrap_or_default(), value("traceparent"));
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

/// A request's line, which is written when the request is over: when this is dropped.
pub struct Line {
    door: &'static str,
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
    fn new(door: &'static str, client: Peer, request_id: &[u8], traceparent: Option<&[u8]>) -> Box<Self> {
        let text = |value| String::from_utf8_lossy(value).into_owned();
        Box::new(Self {
            door,
            client,
            request_id: text(request_id),
            traceparent: traceparent.map(text),
            began: Instant::now(),
            status: None,
            bytes: 0,
            trace: Arc::default(),
        })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Notes { methods, nodes, outcomes } = self.trace.notes();
        let method = listed(methods.into_iter());
        let node = listed(nodes.iter().map(|node| &**node));
        let outcome = listed(outcomes.into_iter().map(|outcome| outcome.as_str()));
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
        Access::new(&crate::config::Config::parse(&settings, &|_| None).unwrap().log)
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
            (0..100).filter(|_| access.takes()).count()
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
            let line = access.line_of("http", peer, lines);
            assert_eq!(line.request_id, id(lines));
        }
        assert_eq!((id(&one).len(), id(&own)), (16, "mine".to_owned()));
        assert_ne!(id(&one), id(&other));
    }
}
