//! Headers that the operator adds or lets through.

use http::{HeaderName, HeaderValue};

use super::{problem::Invalid, reader::Reader, secret::Secret};

/// Headers that belong to one connection, to the message's framing or to a handshake: Steadfast
/// writes them itself.
const OWN: [&str; 20] = [
    "accept-encoding",
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

/// Whether the value of the header `name`, in lower case, is a credential.
pub fn names_a_credential(name: &str) -> bool {
    CREDENTIALS.iter().any(|part| name.contains(part))
}

/// Parts of header names that tell a credential.
const CREDENTIALS: [&str; 9] =
    ["auth", "key", "token", "secret", "cookie", "password", "credential", "session", "signature"];
/// From so many characters on a word that looks drawn by lot is a credential.
const RANDOM: usize = 16;

/// The value of the header `name`: not empty, visible ASCII with spaces and tabs between. A
/// credential is marked as sensitive. A value is a credential by the header's name, by its form, or
/// because the value was `filled_in` from the environment.
pub(super) fn value(name: &str, text: &str, filled_in: bool) -> Result<Secret<HeaderValue>, Invalid> {
    let visible = |b: u8| b == b'\t' || (b' '..=b'~').contains(&b);
    if text.is_empty() || text.trim() != text || !text.bytes().all(visible) {
        return Err(Invalid(
            "is not a header value: it must be visible ASCII without a line break, and not begin or end with a space \
             (a secret read from a file often ends in a line break)",
        ));
    }
    let mut value = HeaderValue::try_from(text).map_err(|_| Invalid("is not a header value"))?;
    let name = name.to_ascii_lowercase();
    value.set_sensitive(filled_in || names_a_credential(&name) || text.split_whitespace().any(is_random));
    Ok(Secret::new(value))
}

/// Whether a word looks drawn by lot: a long run of letters and digits, mixed.
fn is_random(word: &str) -> bool {
    let hyphenless: String = word.chars().filter(|c| *c != '-').collect();
    let is_hex = hyphenless.len() >= RANDOM
        && hyphenless.bytes().all(|b| b.is_ascii_hexdigit())
        && hyphenless.bytes().any(|b| b.is_ascii_digit())
        && hyphenless.bytes().any(|b| b.is_ascii_alphabetic());
    let mixed = |run: &str| {
        let count = |is: fn(&u8) -> bool| run.bytes().filter(is).count();
        let (digits, upper, lower) =
            (count(u8::is_ascii_digit), count(u8::is_ascii_uppercase), count(u8::is_ascii_lowercase));
        run.len() >= RANDOM && (digits > 2 && upper + lower > 2 || upper > 2 && lower > 2 && digits > 0)
    };
    is_hex || word.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '+').any(mixed)
}

/// The table `headers`: names and values, each name once.
pub(super) fn table(r: &mut Reader<'_>) -> Vec<(HeaderName, Secret<HeaderValue>)> {
    let mut headers: Vec<(HeaderName, Secret<HeaderValue>)> = Vec::new();
    for (key, path, text, filled_in) in r.strings("headers") {
        let reading = r.reading();
        let value = value(&key, &text, filled_in).map_err(|wrong| reading.fail(&path, wrong.to_string()));
        let name = name(&key).map_err(|wrong| reading.fail(&path, wrong.to_string()));
        let (Ok(name), Ok(value)) = (name, value) else { continue };
        if headers.iter().any(|(other, _)| *other == name) {
            reading.fail(&path, "is there already: header names are the same in upper and lower case");
        } else {
            headers.push((name, value));
        }
    }
    headers
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
        assert_eq!(value("x", "Bearer abc", false).unwrap().expose(), "Bearer abc");
        for text in ["", " a", "a ", "a\n", "a\r\nb: c", "a\0", "é", "\u{7f}"] {
            assert!(value("x", text, false).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_credential_is_known_by_name_looks_and_origin() {
        for (name, text, filled_in, is_one) in [
            ("Authorization", "Bearer abc", false, true),
            ("X-Api-Key", "team", false, true),
            ("x-access-TOKEN", "1", false, true),
            ("Cookie", "a=b", false, true),
            ("X-Team", "blue", true, true),
            ("X-Team", "blue", false, false),
            ("X-Shard", "0020", false, false),
            ("X-Client", "execution layer", false, false),
            ("X-Version", "2024-01-01T00:00:00Z", false, false),
            ("X-Pool", "eth-mainnet-archive-01", false, false),
            ("User-Agent", "Mozilla/5.0 (internationalization)", false, false),
            ("X-Id", "0123456789abcdef0123456789abcdef", false, true),
            ("X-Id", "550e8400-e29b-41d4-a716-446655440000", false, true),
            ("X-Id", "id=q9ZrT3vLx0Wb7nKp", false, true),
        ] {
            let value = value(name, text, filled_in).unwrap();
            assert_eq!(value.expose().is_sensitive(), is_one, "{name}: {text}");
        }
    }
}
