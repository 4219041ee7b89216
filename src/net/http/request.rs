//! A request of any kind, and how its head is written. JSON-RPC calls have a shorter way, see
//! [`super::Post`].

use std::sync::Arc;

use http::{HeaderMap, Method, header};

use super::{Sending, upload::Pieces};
use crate::{
    domain::target::Target,
    net::node_connections::{Caller, Rank},
};

/// A request to a node, but for its body.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query below the node's own URL.
    pub target: &'a Target,
    /// End-to-end headers. If the node's own headers have one of the same name, the node's own
    /// replaces it. Headers of the message's framing must not be among these.
    pub headers: &'a HeaderMap,
    /// How often the request may be sent. A request with a streamed body is sent once in any case.
    pub sending: Sending,
    /// The rank among the requests that wait for a connection.
    pub rank: Rank,
    /// The client, if the request is a client's.
    pub caller: Option<&'a Arc<Caller>>,
}

/// A request's body.
pub enum Body<'a> {
    /// In memory, or empty.
    Whole(&'a [u8]),
    /// Coming piece by piece.
    Streamed {
        /// The pieces.
        pieces: Pieces<'a>,
        /// Bytes in all, where that is known; in chunks otherwise.
        length: Option<u64>,
    },
}

/// How a body is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

impl Body<'_> {
    pub(super) fn framing(&self) -> Framing {
        match self {
            Self::Whole(body) => Framing::Length(body.len() as u64),
            Self::Streamed { length: Some(length), .. } => Framing::Length(*length),
            Self::Streamed { length: None, .. } => Framing::Chunked,
        }
    }
}

impl Request<'_> {
    /// Writes the head, blank line included, with the headers of a node's `own` in the place of the
    /// client's.
    pub(super) fn write_head(
        &self,
        out: &mut Vec<u8>,
        target: &str,
        host: &str,
        own: &[(String, Vec<u8>)],
        framing: Framing,
    ) {
        let names = |name: &str| own.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
        put(&[self.method.as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\nhost: "]);
        put(&[host.as_bytes(), b"\r\n"]);
        if !self.headers.contains_key(header::USER_AGENT) && !names("user-agent") {
            put(&[b"user-agent: steadfast/", env!("CARGO_PKG_VERSION").as_bytes(), b"\r\n"]);
        }
        if !self.headers.contains_key(header::ACCEPT_ENCODING) {
            put(&[b"accept-encoding: identity\r\n"]);
        }
        for (name, value) in own {
            put(&[name.as_bytes(), b": ", value, b"\r\n"]);
        }
        for (name, value) in self.headers.iter().filter(|(name, _)| !names(name.as_str())) {
            put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
        let has_body = matches!(*self.method, Method::POST | Method::PUT | Method::PATCH);
        match framing {
            Framing::Length(0) if !has_body => {}
            Framing::Length(length) => put(&[b"content-length: ", length.to_string().as_bytes(), b"\r\n"]),
            Framing::Chunked => put(&[b"transfer-encoding: chunked\r\n"]),
        }
        put(&[b"\r\n"]);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(method: Method, headers: &[(&'static str, &'static str)], framing: Framing) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let target = Target::parse("/key/eth/v1/x?a=b").unwrap();
        let request = Request {
            method: &method,
            target: &target,
            headers: &map,
            sending: Sending::Repeatable,
            rank: Rank::Call,
            caller: None,
        };
        let own = [("Authorization".to_owned(), b"Bearer own".to_vec())];
        let mut out = Vec::new();
        request.write_head(&mut out, target.as_str(), "node:5052", &own, framing);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_node_gets_its_own_headers_in_the_place_of_the_clients() {
        let headers = [("accept", "a"), ("accept", "b"), ("authorization", "theirs"), ("user-agent", "vc/1")];
        let own_coding = head(Method::GET, &[("accept-encoding", "gzip")], Framing::Length(0));
        assert!(own_coding.contains("accept-encoding: gzip\r\n") && !own_coding.contains("identity"));
        assert_eq!(
            head(Method::GET, &headers, Framing::Length(0)),
            "GET /key/eth/v1/x?a=b HTTP/1.1\r\nhost: node:5052\r\naccept-encoding: identity\r\nAuthorization: Bearer own\r\n\
             accept: a\r\naccept: b\r\nuser-agent: vc/1\r\n\r\n"
        );
    }

    #[test]
    fn a_body_is_announced_even_empty_where_one_is_expected() {
        for (method, framing, line) in [
            (Method::POST, Framing::Length(7), Some("content-length: 7\r\n\r\n")),
            (Method::POST, Framing::Length(0), Some("content-length: 0\r\n\r\n")),
            (Method::GET, Framing::Length(3), Some("content-length: 3\r\n\r\n")),
            (Method::DELETE, Framing::Length(0), None),
            (Method::PUT, Framing::Chunked, Some("transfer-encoding: chunked\r\n\r\n")),
        ] {
            let head = head(method.clone(), &[], framing);
            match line {
                Some(line) => assert!(head.ends_with(line), "{head}"),
                None => assert!(!head.contains("length") && !head.contains("transfer-encoding"), "{head}"),
            }
            assert!(head.contains("\r\nuser-agent: steadfast/"));
        }
    }
}
