//! The address of a node, whose secrets stay inside.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderValue, uri::PathAndQuery};

use super::{problem::Invalid, secret::Secret};
use crate::domain::target::Target;

/// Path segments that are shown; every other one may be a key.
const SHOWN_SEGMENTS: [&str; 24] = [
    "v1",
    "v2",
    "v3",
    "v4",
    "rpc",
    "jsonrpc",
    "eth",
    "ws",
    "http",
    "api",
    "ext",
    "bc",
    "mainnet",
    "sepolia",
    "holesky",
    "hoodi",
    "execution",
    "consensus",
    "beacon",
    "archive",
    "full",
    "node",
    "el",
    "cl",
];

/// How a node is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP in the clear.
    Http,
    /// HTTP over TLS.
    Https,
    /// WebSocket in the clear.
    Ws,
    /// WebSocket over TLS.
    Wss,
}

impl Scheme {
    /// The scheme's name before `://`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Ws => "ws",
            Self::Wss => "wss",
        }
    }

    /// Whether TLS is laid over the connection.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Wss)
    }

    /// Whether the scheme is `ws` or `wss`.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }

    fn default_port(self) -> u16 {
        if self.is_tls() { 443 } else { 80 }
    }
}

/// A checked `http`, `https`, `ws` or `wss` address. `Debug` and `Display` are redacted: scheme,
/// host and port are shown, of the path only well-known segments, of the query and the user
/// information nothing.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    host: Arc<str>,
    port: u16,
    target: Secret<PathAndQuery>,
    basic_auth: Option<Secret<HeaderValue>>,
    user_info: Secret<Box<str>>,
}

impl Url {
    /// Scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name in lower case, IPv4 address, or IPv6 address without brackets.
    pub fn host(&self) -> &Arc<str> {
        &self.host
    }

    /// TCP port: the one written, or the scheme's own.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query for the request line, as the operator wrote them. Begins with `/`.
    pub fn target(&self) -> &Secret<PathAndQuery> {
        &self.target
    }

    /// The `Authorization` header that the URL's user and password ask for.
    pub fn basic_auth(&self) -> Option<&Secret<HeaderValue>> {
        self.basic_auth.as_ref()
    }

    /// Every part that `Display` does not show: user and password, as written and decoded, path
    /// segments, and values of the query. The node's texts are searched for these parts.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = String> {
        let target = self.target.expose();
        let segments = target.path().split('/').filter(|segment| !SHOWN_SEGMENTS.contains(segment));
        let values =
            target.query().unwrap_or_default().split('&').map(|pair| pair.split_once('=').map_or(pair, |p| p.1));
        let user_info = self.user_info.expose();
        let user = std::iter::once(&**user_info).chain(user_info.split(':'));
        let written: Vec<String> = segments.chain(values).chain(user).map(str::to_owned).collect();
        let decoded: Vec<String> =
            written.iter().map(|text| String::from_utf8_lossy(&percent_decode(text)).into_owned()).collect();
        written.into_iter().chain(decoded)
    }

    /// Value of the `Host` header: IPv6 in brackets, and the port if the port is not the scheme's
    /// own.
    pub fn authority(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        let host = &self.host;
        if self.port == self.scheme.default_port() {
            format!("{open}{host}{close}")
        } else {
            format!("{open}{host}{close}:{}", self.port)
        }
    }

    /// The request target of `request` under this URL: `/eth/v1/node/syncing` under
    /// `https://cl.example/key?a=b` is `/key/eth/v1/node/syncing?a=b`; when both have a query, this
    /// URL's comes first.
    pub fn join(&self, request: &Target) -> String {
        let own = self.target.expose();
        let mut joined = format!("{}{}", own.path().trim_end_matches('/'), request.path());
        for (separator, query) in ['?', '&'].into_iter().zip([own.query(), request.query()].into_iter().flatten()) {
            joined.push(separator);
            joined.push_str(query);
        }
        joined
    }
}

impl FromStr for Url {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.bytes().any(|b| b.is_ascii_control()) {
            return Err(Invalid(
                "has a line break or control character in it (a secret read from a file often ends in one)",
            ));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains('\\') {
            return Err(Invalid("has a space, a backslash or a non-ASCII character in it: write it percent-encoded"));
        }
        if holds_another(text) {
            return Err(Invalid(
                "holds more than one URL: a WebSocket's is a setting of its own (`ws`), and another node an entry of its own",
            ));
        }
        if text.contains('#') {
            return Err(Invalid(
                "has a `#` in it: a fragment means nothing to a node (write %23 if it belongs to a key)",
            ));
        }
        if !percent_encoding_is_whole(text) {
            return Err(Invalid("has a `%` that is not followed by two hexadecimal digits"));
        }
        let (scheme, rest) =
            text.split_once("://").ok_or(Invalid("must begin with http://, https://, ws:// or wss://"))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "ws" => Scheme::Ws,
            "wss" => Scheme::Wss,
            _ => return Err(Invalid("must begin with http://, https://, ws:// or wss://")),
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if target.contains('@') {
            return Err(Invalid(
                "has a bare `@` after its host: write %40 (and %2F for a `/`, %3F for a `?` in a password)",
            ));
        }
        let (user, host_and_port) = match authority.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, authority),
        };
        let (host, port) = split_port(host_and_port)?;
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self {
            scheme,
            host: parse_host(host)?.into(),
            port: port.map_or(Ok(scheme.default_port()), parse_port)?,
            target: Secret::new(
                PathAndQuery::try_from(target).map_err(|_| Invalid("has a path or query that no request can carry"))?,
            ),
            basic_auth: user.map(basic_auth).transpose()?,
            user_info: Secret::new(user.unwrap_or_default().into()),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = if self.basic_auth.is_some() { "***@" } else { "" };
        write!(f, "{}://{user}{}", self.scheme.as_str(), self.authority())?;
        let target = self.target.expose();
        if target.path() != "/" {
            for segment in target.path().split('/').skip(1) {
                let shown = segment.is_empty() || SHOWN_SEGMENTS.contains(&segment);
                write!(f, "/{}", if shown { segment } else { "***" })?;
            }
        }
        if target.query().is_some() {
            f.write_str("?***")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Whether a comma stands where none can, or another URL behind one.
fn holds_another(text: &str) -> bool {
    let host = text.split_once("://").map_or("", |(_, rest)| rest);
    let host = &host[..host.find(['/', '?']).unwrap_or(host.len())];
    let host = host.rsplit('@').next().unwrap_or(host);
    let is_url = |rest: &str| ["http://", "https://", "ws://", "wss://"].iter().any(|scheme| rest.starts_with(scheme));
    host.contains([',', ';']) || text.split([',', ';']).skip(1).any(is_url)
}

fn percent_encoding_is_whole(text: &str) -> bool {
    text.split('%').skip(1).all(|after| {
        let mut digits = after.bytes();
        (0..2).all(|_| digits.next().is_some_and(|b| b.is_ascii_hexdigit()))
    })
}

/// Splits `host:port` or `[v6]:port`; the brackets stay with the host.
fn split_port(text: &str) -> Result<(&str, Option<&str>), Invalid> {
    let end_of_host = if text.starts_with('[') {
        text.find(']').ok_or(Invalid("has an IPv6 address without its closing `]`"))? + 1
    } else {
        text.find(':').unwrap_or(text.len())
    };
    let (host, rest) = text.split_at(end_of_host);
    match rest.strip_prefix(':') {
        Some(port) if port.contains(':') => Err(Invalid("needs brackets around its IPv6 address: http://[::1]:8545")),
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(Invalid("has something other than a port after its `]`")),
    }
}

fn parse_port(text: &str) -> Result<u16, Invalid> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(Invalid("needs a port from 1 to 65535 after its `:`")),
    }
}

fn parse_host(text: &str) -> Result<String, Invalid> {
    if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr =
            inside.parse().map_err(|_| Invalid("has brackets around what is not an IPv6 address"))?;
        return Ok(address.to_string());
    }
    if text.is_empty() {
        return Err(Invalid("has no host"));
    }
    let label_is_good = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > 253 || !name.split('.').all(label_is_good) {
        return Err(Invalid("has a host that is neither a name nor an address"));
    }
    let last_is_a_number = name.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    if last_is_a_number && !matches!(text.parse(), Ok(IpAddr::V4(_))) {
        return Err(Invalid("has a host that looks like an IPv4 address and is none"));
    }
    Ok(text.to_ascii_lowercase())
}

/// Builds `Basic …` from `user:password`, each percent-decoded.
fn basic_auth(user_info: &str) -> Result<Secret<HeaderValue>, Invalid> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let user = percent_decode(user);
    if user.contains(&b':') {
        return Err(Invalid("has a user name with a `:` in it, which Basic authentication cannot carry"));
    }
    let pair = [user.as_slice(), b":", percent_decode(password).as_slice()].concat();
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(&pair)))
        .map_err(|_| Invalid("has a user or password that no header can carry"))?;
    value.set_sensitive(true);
    Ok(Secret::new(value))
}

/// Decodes `%XX`; the caller has checked that each `%` has its two digits.
fn percent_decode(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).unwrap_or(0) as u8;
        decoded.push(if byte == b'%' { digit() << 4 | digit() } else { byte });
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn the_parts_of_a_url_are_found() {
        for (text, scheme, host, port, authority, target) in [
            ("http://a", Scheme::Http, "a", 80, "a", "/"),
            ("https://a", Scheme::Https, "a", 443, "a", "/"),
            ("ws://a", Scheme::Ws, "a", 80, "a", "/"),
            ("wss://a/", Scheme::Wss, "a", 443, "a", "/"),
            ("HTTP://Geth_1.Example.:08545", Scheme::Http, "geth_1.example.", 8545, "geth_1.example.:8545", "/"),
            ("https://a:443/x", Scheme::Https, "a", 443, "a", "/x"),
            ("http://a:443/x", Scheme::Http, "a", 443, "a:443", "/x"),
            ("http://127.0.0.1:8545?k=v", Scheme::Http, "127.0.0.1", 8545, "127.0.0.1:8545", "/?k=v"),
            ("http://[::1]", Scheme::Http, "::1", 80, "[::1]", "/"),
            ("ws://[0:0:0:0:0:0:0:1]:8546/a//b/?c?d&e=%2F", Scheme::Ws, "::1", 8546, "[::1]:8546", "/a//b/?c?d&e=%2F"),
            ("http://u:p@a:1/%41%2f", Scheme::Http, "a", 1, "a:1", "/%41%2f"),
        ] {
            let url = url(text);
            assert_eq!(url.scheme(), scheme, "{text}");
            assert_eq!(&**url.host(), host, "{text}");
            assert_eq!(url.port(), port, "{text}");
            assert_eq!(url.authority(), authority, "{text}");
            assert_eq!(url.target().expose().as_str(), target, "{text}");
        }
    }

    #[test]
    fn a_wrong_url_is_refused_with_a_reason_and_not_shown() {
        for (text, reason) in [
            ("", "must begin with"),
            ("s3cret", "must begin with"),
            ("s3cret:8545", "must begin with"),
            ("ftp://s3cret", "must begin with"),
            ("://s3cret", "must begin with"),
            ("http:/s3cret", "must begin with"),
            ("http://", "has no host"),
            ("http:///s3cret", "has no host"),
            ("http://?s3cret", "has no host"),
            ("http://s3cret@", "has no host"),
            ("http://:8545", "has no host"),
            ("http://a:", "needs a port"),
            ("http://a:0", "needs a port"),
            ("http://a:65536", "needs a port"),
            ("http://a:+80", "needs a port"),
            ("http://a:s3cret", "needs a port"),
            ("http://::1", "needs brackets"),
            ("http://::1:8545", "needs brackets"),
            ("http://a:s3cret:b", "needs brackets"),
            ("http://[::1", "without its closing"),
            ("http://[::1]s3cret", "other than a port"),
            ("http://[s3cret]", "not an IPv6 address"),
            ("http://[127.0.0.1]", "not an IPv6 address"),
            ("http://[fe80::1%25eth0]", "not an IPv6 address"),
            ("http://a..b", "neither a name nor an address"),
            ("http://.", "neither a name nor an address"),
            ("http://s3cret%41", "neither a name nor an address"),
            ("http://a,s3cret", "more than one URL"),
            ("http://a:1,ws://s3cret", "more than one URL"),
            ("http://a:8545/s3cret,http://b", "more than one URL"),
            ("http://*.s3cret", "neither a name nor an address"),
            ("http://256.0.0.1", "looks like an IPv4 address"),
            ("http://127.1", "looks like an IPv4 address"),
            ("http://a/#s3cret", "has a `#`"),
            ("http://a/s3cret\n", "line break"),
            ("http://a/\0s3cret", "control character"),
            ("http://a/se cret", "has a space"),
            ("http://a/sécret", "non-ASCII"),
            ("http://a\\s3cret", "a backslash"),
            ("http://a/%s3cret", "has a `%`"),
            ("http://a/s3cret%4", "has a `%`"),
            ("http://u:pass/s3cret@a/", "bare `@`"),
            ("http://u:pass?s3cret@a/", "bare `@`"),
            ("http://u%3As3cret:p@a/", "user name"),
        ] {
            let error = text.parse::<Url>().expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("s3cret"), "{text}: {error}");
        }
        assert!(format!("http://{}", "a".repeat(64)).parse::<Url>().is_err());
        assert!(format!("http://a/{}", "a".repeat(70_000)).parse::<Url>().is_err());
    }

    #[test]
    fn only_what_cannot_be_a_key_is_shown() {
        for (text, shown) in [
            ("http://a", "http://a"),
            ("http://a/", "http://a"),
            ("http://a:8545/", "http://a:8545"),
            ("https://eth.example/v2/s3cret", "https://eth.example/v2/***"),
            ("https://eth.example/v2/s3cret/", "https://eth.example/v2/***/"),
            ("https://a/ext/bc/C/rpc?key=s3cret", "https://a/ext/bc/***/rpc?***"),
            ("https://s3cret@a:1/mainnet", "https://***@a:1/mainnet"),
            ("https://u:s3cret@a", "https://***@a"),
            ("https://:@a", "https://***@a"),
            ("https://a?", "https://a?***"),
            ("wss://[::1]:8546/V1/ws", "wss://[::1]:8546/***/ws"),
        ] {
            assert_eq!(url(text).to_string(), shown, "{text}");
            assert_eq!(format!("{:?}", url(text)), format!("\"{shown}\""), "{text}");
        }
    }

    #[test]
    fn user_and_password_become_basic_authentication() {
        for (text, header) in [
            ("http://Aladdin:open%20sesame@a", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("http://user@a", "Basic dXNlcjo="),
            ("http://:key@a", "Basic OmtleQ=="),
            ("http://u:a:b@a", "Basic dTphOmI="),
            ("http://u:%C3%A9%40@a", "Basic dTrDqUA="),
        ] {
            let url = url(text);
            let auth = url.basic_auth().unwrap().expose();
            assert_eq!(auth, header, "{text}");
            assert!(auth.is_sensitive());
        }
        assert_eq!(url("http://a").basic_auth(), None);
    }

    #[test]
    fn a_request_is_joined_below_the_urls_own_path() {
        for (base, request, joined) in [
            ("http://a", "/eth/v1/node/syncing", "/eth/v1/node/syncing"),
            ("http://a/key", "/eth/v1/events?topics=head", "/key/eth/v1/events?topics=head"),
            ("http://a/key/", "/x", "/key/x"),
            ("http://a/key?a=b", "/x", "/key/x?a=b"),
            ("http://a/?a=b", "/x?c=d", "/x?a=b&c=d"),
        ] {
            let request = Target::parse(request).unwrap();
            assert_eq!(url(base).join(&request), joined, "{base}");
        }
    }

    #[test]
    fn urls_that_differ_in_secrets_only_are_different() {
        assert_eq!(url("http://A:80"), url("http://a/"));
        assert_ne!(url("http://a/k1"), url("http://a/k2"));
        assert_ne!(url("http://u:1@a"), url("http://u:2@a"));
    }
}
