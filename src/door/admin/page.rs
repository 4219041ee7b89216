//! Which requests are no web page's doing: whoever visits one lends it the way to this side.

use http::{HeaderValue, Request, StatusCode, Version, header};

use crate::config::HostRule;

/// Refuses what a web page of another origin asks, or one that made its own name point here.
pub(super) fn check<B>(hosts: &HostRule, request: &Request<B>) -> Result<(), (StatusCode, &'static str)> {
    let headers = request.headers();
    let mut named = headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    let (host, second) = (named.next(), named.next());
    if second.is_some() || (host.is_none() && request.version() >= Version::HTTP_11) {
        return Err((StatusCode::BAD_REQUEST, "a request has one line of Host"));
    }
    let in_target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    if !host.into_iter().chain(in_target).all(|host| hosts.allows(host)) {
        return Err((StatusCode::FORBIDDEN, "ask by address or as localhost, or name the Host in `admin.hosts`"));
    }
    let is_own = |origin: &HeaderValue| {
        let origin = origin.as_bytes();
        let own = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        host.is_some() && own == host
    };
    let crosses = |site: &HeaderValue| site.as_bytes().eq_ignore_ascii_case(b"cross-site");
    if !headers.get_all(header::ORIGIN).iter().all(is_own) || headers.get_all("sec-fetch-site").iter().any(crosses) {
        return Err((StatusCode::FORBIDDEN, "a web page of another origin may not ask here"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Hosts;

    fn status(listen: &str, fields: &[(&str, &str)]) -> u16 {
        let request =
            fields.iter().fold(Request::get("/status"), |request, (name, value)| request.header(*name, *value));
        let hosts = Hosts::Names(vec!["ops.example".into()]).for_operator(listen.parse().unwrap());
        check(&hosts, &request.body(()).unwrap()).map_or_else(|(status, _)| status.as_u16(), |()| 200)
    }

    #[test]
    fn a_web_page_may_ask_nothing_wherever_this_side_listens() {
        let host = ("host", "127.0.0.1:9090");
        let (loopback, any) = ("127.0.0.1:9090", "0.0.0.0:9090");
        for listen in [loopback, any] {
            for (fields, expected) in [
                (&[host][..], 200),
                (&[("host", "ops.example:9090")], 200),
                (&[host, ("origin", "http://127.0.0.1:9090")], 200),
                (&[host, ("sec-fetch-site", "same-origin")], 200),
                (&[host, ("sec-fetch-site", "none")], 200),
                (&[], 400),
                (&[host, host], 400),
                (&[("host", "evil.example:9090")], 403),
                (&[("host", "evil.example"), ("origin", "http://evil.example")], 403),
                (&[host, ("origin", "http://evil.example")], 403),
                (&[host, ("origin", "http://127.0.0.1:3000")], 403),
                (&[host, ("origin", "null")], 403),
                (&[host, ("origin", "http://127.0.0.1:9090"), ("origin", "http://evil.example")], 403),
                (&[host, ("sec-fetch-site", "cross-site")], 403),
            ] {
                assert_eq!(status(listen, fields), expected, "{fields:?} on {listen}");
            }
        }
        assert_eq!((status(loopback, &[("host", "steadfast")]), status(any, &[("host", "steadfast")])), (403, 200));
    }
}
