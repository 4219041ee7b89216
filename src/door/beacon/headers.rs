//! The headers that pass: all end-to-end headers, but for those that one side must not have of the
//! other.

use http::{HeaderMap, HeaderName, header};

use crate::config::names_a_credential;

/// Headers of one connection or of the message's framing, which each side writes anew.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// The headers of a client's request that go to nodes. Credentials are left out, but for those that
/// `is_configured` names: nodes have several owners, and the node that serves today would get the
/// credentials.
pub(super) fn for_nodes(client: &HeaderMap, is_configured: impl Fn(&str) -> bool) -> HeaderMap {
    passing(client, |name| {
        // The proxy itself answers for the rights of web pages.
        let of_the_page = name == "origin" || name.starts_with("access-control-");
        // A node could not check these, because the client writes them.
        let of_the_client = matches!(name, "forwarded" | "x-real-ip") || name.starts_with("x-forwarded-");
        !of_the_page && !of_the_client && (!names_a_credential(name) || is_configured(name))
    })
}

/// Headers that may leak the node's own URL, which may hold a key and is of no use to a client.
const WHEREABOUTS: [&str; 4] = ["location", "content-location", "refresh", "link"];

/// The headers of a node's answer that go to the client. `tells_length`: also the length of a body
/// that is not there.
pub(super) fn for_client(node: &HeaderMap, tells_length: bool) -> HeaderMap {
    let mut headers = passing(node, |name| {
        name != "set-cookie" && !name.starts_with("access-control-") && !WHEREABOUTS.contains(&name)
    });
    if tells_length && let Some(length) = node.get(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, length.clone());
    }
    headers
}

/// The end-to-end headers that may pass, in their order.
fn passing(headers: &HeaderMap, may_pass: impl Fn(&str) -> bool) -> HeaderMap {
    let passes = |name: &HeaderName| {
        let name = name.as_str();
        !HOP_BY_HOP.contains(&name) && !name.starts_with("proxy-") && may_pass(name)
    };
    let passing = headers.iter().filter(|(name, _)| passes(name)).map(|(name, value)| (name.clone(), value.clone()));
    let mut passing: HeaderMap = passing.collect();
    // Removed one by one, because `Connection` may name very many headers.
    for named in crate::door::named_by_connection(headers) {
        passing.remove(named);
    }
    passing
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn map(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_node_gets_what_is_meant_for_it() {
        let client = map(&[
            ("accept", "application/octet-stream;q=1,application/json;q=0.9"),
            ("eth-consensus-version", "electra"),
            ("eth-x", "1"),
            ("eth-x", "2"),
            ("x-request-id", "7"),
            ("content-type", "application/octet-stream"),
            ("content-encoding", "gzip"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("authorization", "Bearer a"),
            ("cookie", "a=b"),
            ("x-access-token", "a"),
            ("apikey", "a"),
            ("x-auth-key", "a"),
            ("x-secret-token", "a"),
            ("private-token", "a"),
            ("x-password", "a"),
            ("proxy-authorization", "b"),
            ("proxy-connection", "keep-alive"),
            ("origin", "https://app.example"),
            ("host", "proxy"),
            ("expect", "100-continue"),
        ]);
        let mut expected = map(&[
            ("accept", "application/octet-stream;q=1,application/json;q=0.9"),
            ("eth-consensus-version", "electra"),
            ("eth-x", "1"),
            ("eth-x", "2"),
            ("x-request-id", "7"),
            ("content-type", "application/octet-stream"),
            ("content-encoding", "gzip"),
        ]);
        assert_eq!(for_nodes(&client, |_| false), expected);
        expected.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        assert_eq!(for_nodes(&client, |name| name == "authorization"), expected);
    }

    #[test]
    fn a_client_gets_what_the_node_says_of_the_answer() {
        let node = map(&[
            ("eth-consensus-version", "electra"),
            ("content-type", "application/octet-stream"),
            ("content-length", "5"),
            ("etag", "\"1\""),
            ("vary", "accept"),
            ("set-cookie", "a=b"),
            ("location", "/v2/KEY/eth/v1/node/version"),
            ("content-location", "/v2/KEY/x"),
            ("access-control-allow-origin", "*"),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
        ]);
        let expected = [
            ("eth-consensus-version", "electra"),
            ("content-type", "application/octet-stream"),
            ("etag", "\"1\""),
            ("vary", "accept"),
        ];
        assert_eq!(for_client(&node, false), map(&expected));
        assert_eq!(for_client(&node, true), map(&[&expected[..], &[("content-length", "5")]].concat()));
    }
}
