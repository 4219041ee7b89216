//! Headers that the operator adds or lets through.

use http::{HeaderName, HeaderValue};

use super::{problem::Invalid, secret::Secret};

/// Headers that belong to one connection, to the message's framing or to a handshake: Steadfast writes them itself.
const OWN: [&str; 19] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header name that may be set or forwarded.
pub(super) fn name(text: &str) -> Result<HeaderName, Invalid> {
    let name = HeaderName::try_from(text).map_err(|_| Invalid("is not a header name"))?;
    if OWN.contains(&name.as_str()) {
        return Err(Invalid("is a header that belongs to the connection or the message: Steadfast writes it itself"));
    }
    Ok(name)
}

/// A header value: not empty, visible ASCII with spaces and tabs between.
pub(super) fn value(text: &str) -> Result<Secret<HeaderValue>, Invalid> {
    let visible = |b: u8| b == b'\t' || (b' '..=b'~').contains(&b);
    if text.is_empty() || text.trim() != text || !text.bytes().all(visible) {
        return Err(Invalid(
            "is not a header value: it must be visible ASCII without a line break, and not begin or end with a space \
             (a secret read from a file often ends in a line break)",
        ));
    }
    let mut value = HeaderValue::try_from(text).map_err(|_| Invalid("is not a header value"))?;
    value.set_sensitive(true);
    Ok(Secret::new(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_connection_cannot_be_set() {
        for text in ["Authorization", "x-api-key", "cookie", "origin"] {
            assert_eq!(name(text).unwrap().as_str(), text.to_ascii_lowercase());
        }
        for text in OWN.into_iter().chain(["Host", "Transfer-Encoding", "", "a b", "x:y", "é"]) {
            assert!(name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_header_value_is_visible_ascii() {
        assert_eq!(value("Bearer abc").unwrap().expose(), "Bearer abc");
        assert!(value("Bearer abc").unwrap().expose().is_sensitive());
        for text in ["", " a", "a ", "a\n", "a\r\nb: c", "a\0", "é", "\u{7f}"] {
            assert!(value(text).is_err(), "{text:?}");
        }
    }
}
