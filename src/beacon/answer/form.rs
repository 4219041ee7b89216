//! Whether a success comes from a node, and says something: gateways send pages, errors and empty
//! bodies with status 200, too.
//!
//! Rule: the success of a signed message has no body, or one in JSON that says nothing of an error.
//! An answer to a question has data: no page, no error, not nothing, and in JSON no part of a text.
//! Reason: a gateway's success does not mean that something was done. Example: a gateway answers an
//! attestation with status 200 and `{"code":503,"message":"no upstream"}`. The attestation goes to
//! another node.

use std::collections::BTreeMap;

use http::{HeaderValue, header};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{Answer, HELD_BACK, is_of_kind};

/// The content that a success must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::beacon) enum Wanted {
    /// The status alone.
    Status,
    /// The success of a message.
    Success,
    /// The data asked for.
    Data,
}

/// The signs that a text in JSON is no answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Signs {
    /// The text is an error.
    is_error: bool,
    /// The data is null.
    is_null: bool,
}

impl Signs {
    /// `None` where the text is not in JSON, or not whole.
    fn read(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii();
        if text.first() != Some(&b'{') {
            let IgnoredAny = serde_json::from_slice(text).ok()?;
            return Some(Self { is_error: false, is_null: text == b"null" });
        }
        let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(text).ok()?;
        let field = |name| fields.get(name).map(|value| value.get());
        let has = |name| field(name).is_some_and(|value| !matches!(value, "null" | "false" | "\"\"" | "[]" | "{}"));
        let number = |name| field(name)?.trim_matches('"').parse::<u64>().ok();
        let is_bad = |name| number(name).is_some_and(|status| status >= 300);
        let is_failure = |word: &str| ["\"error\"", "\"fail\"", "\"failed\"", "\"failure\""].contains(&word);
        let data = field("data");
        let is_error = data.is_none_or(|data| data == "null")
            && (["code", "status", "statusCode"].into_iter().any(is_bad)
                || ["error", "errors", "failures"].into_iter().any(has)
                || field("status").is_some_and(is_failure)
                || (has("message") && number("code").is_none()));
        Some(Self { is_error, is_null: data == Some("null") })
    }
}

impl Answer {
    /// Whether a success does not come from a node, or does not have the content wanted.
    pub(in crate::beacon) fn is_foreign(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Status => self.length != Some(0) && self.is_of_another_form(),
            Wanted::Success => !self.is_success(),
            Wanted::Data => self.is_of_another_form() || self.says_nothing(),
        }
    }

    /// Whether this is a success with an empty body, and nothing shows that a gateway gave it.
    pub(in crate::beacon) fn is_empty_success(&self) -> bool {
        let is_of_a_node = self.is_json || !self.headers.contains_key(header::CONTENT_TYPE);
        self.status < 300 && self.length == Some(0) && is_of_a_node
    }

    /// Whether the answer is in another form than the API's: a page or plain text, as gateways
    /// send. A page is known by its type, or by its beginning where it has the API's type or none.
    /// An answer without a body, or without a content type, has the API's form otherwise.
    fn is_of_another_form(&self) -> bool {
        const OURS: [&[u8]; 4] =
            [b"application/json", b"application/problem+json", b"application/octet-stream", b"text/event-stream"];
        let is_ours = || OURS.iter().any(|kind| is_of_kind(&self.headers, kind));
        if is_of_kind(&self.headers, b"text/html") || self.begins_as_a_page() {
            return true;
        }
        self.length != Some(0) && self.headers.contains_key(header::CONTENT_TYPE) && !is_ours()
    }

    /// Whether the held beginning is that of a page: `<` and then a name, `!` or `?`. Bytes in SSZ
    /// may begin so by chance: there the name must be one of a page.
    pub(super) fn begins_as_a_page(&self) -> bool {
        let bytes = self.pieces.iter().flat_map(|piece| piece.iter().copied());
        let bytes = bytes.skip_while(|byte| byte.is_ascii_whitespace() || matches!(byte, 0xef | 0xbb | 0xbf));
        let begin: Vec<u8> = bytes.take(9).map(|byte| byte.to_ascii_lowercase()).collect();
        if is_of_kind(&self.headers, b"application/octet-stream") {
            return [&b"<!doctype"[..], b"<html", b"<?xml"].iter().any(|page| begin.starts_with(page));
        }
        begin.first() == Some(&b'<')
            && begin.get(1).is_none_or(|byte| byte.is_ascii_alphabetic() || b"!?".contains(byte))
    }

    /// Whether this is the success of a message.
    fn is_success(&self) -> bool {
        if self.length == Some(0) {
            return true;
        }
        if self.is_of_another_form() {
            return false;
        }
        if self.is_compressed() {
            return self.is_json;
        }
        self.in_memory()
            .is_some_and(|body| body.trim_ascii().is_empty() || Signs::read(&body).is_some_and(|signs| !signs.is_error))
    }

    /// Whether the body has no data. A long body has some.
    fn says_nothing(&self) -> bool {
        if self.length == Some(0) {
            return true;
        }
        let has_type = self.headers.contains_key(header::CONTENT_TYPE);
        if self.is_compressed() || (has_type && !self.is_json) {
            return false;
        }
        let body = self.in_memory().filter(|body| body.len() as u64 <= HELD_BACK);
        body.is_some_and(|body| match Signs::read(&body) {
            Some(signs) => signs.is_error || signs.is_null,
            None => has_type,
        })
    }

    fn is_compressed(&self) -> bool {
        self.headers.get(header::CONTENT_ENCODING).is_some_and(|how: &HeaderValue| how != "identity")
    }

    /// Whether a body that ended with its connection is whole, as JSON shows. Nothing shows that of
    /// other bodies.
    pub(super) fn is_provably_whole(&self) -> bool {
        let is_whole = |body: &[u8]| serde_json::from_slice::<IgnoredAny>(body).is_ok();
        self.length == Some(0) || (self.is_json && self.in_memory().is_some_and(|body| is_whole(&body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_a_success_are_known() {
        let (well, error, null) = ((false, false), (true, false), (false, true));
        for (text, (is_error, is_null)) in [
            (r#"{"data":{"code":500}}"#, well),
            (r#"{"code":202,"message":"broadcast, but invalid"}"#, well),
            (r#"{"execution_optimistic":false,"data":[],"message":"x"}"#, well),
            ("{}", well),
            ("[]", well),
            (" 7 ", well),
            ("null", null),
            (r#"{"data":null}"#, null),
            (r#"{"code":503,"message":"syncing"}"#, error),
            (r#"{"code":"503"}"#, error),
            (r#"{"statusCode":502}"#, error),
            (r#"{"status":"error"}"#, error),
            (r#"{"error":{"code":-32000,"message":"upstream timeout"}}"#, error),
            (r#"{"message":"no Route matched with those values"}"#, error),
            (r#"{"code":200,"message":"some","failures":[{"index":0,"message":"bad"}]}"#, error),
            (r#"{"data":null,"error":"none"}"#, (true, true)),
        ] {
            assert_eq!(Signs::read(text.as_bytes()), Some(Signs { is_error, is_null }), "{text}");
        }
        for text in ["", "Service Unavailable", r#"{"data":"#, "{]"] {
            assert_eq!(Signs::read(text.as_bytes()), None, "{text}");
        }
    }
}
