//! The JSON texts of a link: the kind of a node's message, found without a tree, and the link's own
//! id in the place of a caller's.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::MAX_MESSAGE;
use crate::domain::{
    answer::{self, Ending},
    json::{Malformed, Scanner},
};

/// A node's response to a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The response as the node wrote it, with the link's own id. Empty for a notification.
    pub text: Bytes,
    /// Where that id stands.
    pub id: Range<usize>,
}

impl Response {
    /// The response with the caller's `id` in the place of the link's own, all other bytes
    /// unchanged.
    pub fn with_id(&self, id: &[u8]) -> Bytes {
        let mut text = BytesMut::with_capacity(self.text.len() - self.id.len() + id.len());
        text.put_slice(&self.text[..self.id.start]);
        text.put_slice(id);
        text.put_slice(&self.text[self.id.end..]);
        text.freeze()
    }
}

/// The kind of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A response: where its id stands.
    Answer(Range<usize>),
    /// A subscription's notification: where the subscription's id and the result stand.
    Note { subscription: Range<usize>, result: Range<usize> },
    /// An object of another kind, such as an error without an id.
    Other,
}

/// Finds the kind of `text`, which is valid UTF-8. The text behind the id of a response is not
/// looked at.
///
/// # Errors
/// When the text is no JSON object.
pub(super) fn read(text: &[u8]) -> Result<Frame, Malformed> {
    let mut scanner = Scanner::of_answer(text);
    scanner.space();
    scanner.expect(b'{', "expected an object")?;
    let (mut other, mut is_call, mut first) = (Frame::Other, false, true);
    while let Some(key) = scanner.member(first)? {
        first = false;
        match key.raw {
            // The value may be long. Nodes that do not write the id in front of the value write it
            // at the end.
            b"result" | b"error" => {
                if let Ending::Whole(Some(id)) = answer::ending(text)
                    && &text[id.clone()] != b"null"
                {
                    return Ok(Frame::Answer(id));
                }
            }
            b"method" => is_call = true,
            b"params" if scanner.peek() == Some(b'{') => {
                other = params(&mut scanner)?;
                continue;
            }
            _ => {}
        }
        let value = place(&mut scanner)?;
        if key.raw == b"id" && !is_call && &text[value.clone()] != b"null" {
            return Ok(Frame::Answer(value));
        }
    }
    scanner.end()?;
    Ok(other)
}

/// A notification, if the members of `params` are those of one.
fn params(scanner: &mut Scanner<'_>) -> Result<Frame, Malformed> {
    let (mut subscription, mut result, mut first) = (None, None, true);
    scanner.expect(b'{', "expected an object")?;
    while let Some(key) = scanner.member(first)? {
        first = false;
        let value = place(scanner)?;
        match key.raw {
            b"subscription" => subscription = Some(value),
            b"result" => result = Some(value),
            _ => {}
        }
    }
    Ok(match (subscription, result) {
        (Some(subscription), Some(result)) => Frame::Note { subscription, result },
        _ => Frame::Other,
    })
}

/// Where the next value stands.
fn place(scanner: &mut Scanner<'_>) -> Result<Range<usize>, Malformed> {
    let start = scanner.offset();
    scanner.value()?;
    Ok(start..scanner.offset())
}

/// The kind of an object without an id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unlabelled {
    /// An answer with the id put in, and the place of the id.
    Answer(Bytes, Range<usize>),
    /// A result of an unknown call.
    Result,
    Other,
}

/// Reads an object that has no id, or null for one. `only` is the id of the one call that can be
/// meant, if there is but one.
pub(super) fn labelled(text: &Bytes, only: impl FnOnce() -> Option<u64>) -> Unlabelled {
    let (mut scanner, mut first) = (Scanner::of_answer(text), true);
    let (mut null, mut has_result, mut has_error) = (None, false, false);
    scanner.space();
    if scanner.expect(b'{', "expected an object").is_err() {
        return Unlabelled::Other;
    }
    let start = scanner.offset();
    while let Ok(Some(key)) = scanner.member(first) {
        first = false;
        let Ok(value) = place(&mut scanner) else { return Unlabelled::Other };
        match key.raw {
            b"id" => null = Some(value),
            b"result" => has_result = true,
            b"error" => has_error |= &text[value] != b"null",
            b"method" => return Unlabelled::Other,
            _ => {}
        }
    }
    match only().filter(|_| has_result || has_error) {
        Some(id) => {
            let id = id.to_string();
            let (before, label, after) = match null {
                Some(null) => (null.start, id, null.end),
                None => (start, format!(r#""id":{id},"#), start),
            };
            let place = before + label.find(|c: char| c.is_ascii_digit()).unwrap_or(0);
            let digits = label.bytes().filter(u8::is_ascii_digit).count();
            let text = [&text[..before], label.as_bytes(), &text[after..]].concat();
            Unlabelled::Answer(text.into(), place..place + digits)
        }
        None if has_result && !has_error => Unlabelled::Result,
        None => Unlabelled::Other,
    }
}

/// The outcome that a response states.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Result(Bytes),
    Error(Bytes),
}

/// The result, or the error object, of a complete response.
///
/// # Errors
/// When the text has neither `result` nor `error`, or is malformed.
pub(super) fn outcome(text: &Bytes) -> Result<Outcome, Malformed> {
    let mut scanner = Scanner::of_answer(text);
    scanner.space();
    scanner.expect(b'{', "expected an object")?;
    let (mut result, mut error, mut first) = (None, None, true);
    while let Some(key) = scanner.member(first)? {
        first = false;
        let value = text.slice(place(&mut scanner)?);
        match key.raw {
            b"result" => result = Some(value),
            b"error" if &value[..] != b"null" => error = Some(value),
            _ => {}
        }
    }
    let at = scanner.offset();
    let outcome = error.map(Outcome::Error).or(result.map(Outcome::Result));
    outcome.ok_or(Malformed { what: "expected a result or an error", at })
}

/// The request `raw` with `own` in the place of its id; `None` when the request is too long or not
/// UTF-8, and so cannot be sent.
pub(super) fn with_id(raw: &[u8], id: Option<Range<usize>>, own: u64) -> Option<Utf8Bytes> {
    let mut text = Vec::with_capacity(raw.len() + 20);
    match id {
        None => text.extend_from_slice(raw),
        Some(id) => {
            text.extend_from_slice(raw.get(..id.start)?);
            text.extend_from_slice(own.to_string().as_bytes());
            text.extend_from_slice(raw.get(id.end..)?);
        }
    }
    if text.len() > MAX_MESSAGE { None } else { Utf8Bytes::try_from(text).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        match read(text.as_bytes()) {
            Ok(Frame::Answer(id)) => format!("answer {}", &text[id]),
            Ok(Frame::Note { subscription, result }) => format!("note {} {}", &text[subscription], &text[result]),
            Ok(Frame::Other) => "other".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn frames_are_told_apart_however_their_members_are_ordered() {
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":12,"result":{"id":5}}"#, "answer 12"),
            (r#" { "result" : {"id":5} , "id" : 12 } "#, "answer 12"),
            (r#"{"result":{"id":5},"id":12,"jsonrpc":"2.0"}"#, "answer 12"),
            (r#"{"error":{"code":1,"message":"}"},"id":7,"more":[{}]}"#, "answer 7"),
            (r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"x"},"id":null}"#, "other"),
            (r#"{"id":null,"error":{}}"#, "other"),
            (
                r#"{"jsonrpc":"2.0","method":"eth_subscription","params":{"subscription":"0x1","result":{"a":[1]}}}"#,
                r#"note "0x1" {"a":[1]}"#,
            ),
            (r#"{"params":{"result":"0xab","subscription":5},"method":"x_subscription"}"#, r#"note 5 "0xab""#),
            (r#"{"id":null,"method":"m","params":{"subscription":"a","result":null}}"#, r#"note "a" null"#),
            (r#"{"method":"m","id":4,"params":{"subscription":"a","result":1}}"#, r#"note "a" 1"#),
            (r#"{"method":"m","params":{"subscription":"a","error":{}}}"#, "other"),
            (r#"{"method":"m","params":["subscription","result"]}"#, "other"),
            (r#"{"message":"welcome"}"#, "other"),
            ("{}", "other"),
            ("[]", "expected an object at byte 0"),
            ("hello", "expected an object at byte 0"),
            ("", "expected an object at byte 0"),
            (r#"{"method":"m","params":{"subscription":"a"#, "unterminated string at byte 41"),
            (r#"{"message":"welcome"} {}"#, "trailing characters at byte 22"),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
    }

    #[test]
    fn a_response_says_a_result_or_an_error() {
        let outcome = |text: &'static str| outcome(&Bytes::from_static(text.as_bytes())).map_err(|error| error.what);
        assert_eq!(outcome(r#"{"id":1,"result":"0x1"}"#), Ok(Outcome::Result(Bytes::from_static(b"\"0x1\""))));
        assert_eq!(outcome(r#"{"error":null,"result":null}"#), Ok(Outcome::Result(Bytes::from_static(b"null"))));
        assert_eq!(outcome(r#"{"result":null,"error":{"a":1}}"#), Ok(Outcome::Error(Bytes::from_static(b"{\"a\":1}"))));
        assert_eq!(outcome(r#"{"id":1}"#), Err("expected a result or an error"));
        assert_eq!(outcome(r#"{"id":1,"result":"0x"#), Err("unterminated string"));
    }

    #[test]
    fn ids_of_any_shape_are_replaced_and_restored() {
        for id in ["1", "null", "\"a\\\"}\"", "1.50e400", "123456789012345678901234567890", "-0", "\"\"", "\"é\""] {
            let raw = format!(r#"{{ "id" : {id} ,"method":"eth_call","params":[{{"id":1}}] }}"#);
            let start = 9;
            let sent = with_id(raw.as_bytes(), Some(start..start + id.len()), u64::MAX).unwrap();
            assert_eq!(&*sent, r#"{ "id" : 18446744073709551615 ,"method":"eth_call","params":[{"id":1}] }"#);
            let text = Bytes::from_static(br#"{"result":[ 1 ],"id": 18446744073709551615 }"#);
            let Ok(Frame::Answer(place)) = read(&text) else { panic!("no answer") };
            let answer = Response { text, id: place };
            assert_eq!(answer.with_id(id.as_bytes()), format!(r#"{{"result":[ 1 ],"id": {id} }}"#));
        }
        assert_eq!(with_id(b"{\"method\":\"a\"}", None, 1).as_deref(), Some("{\"method\":\"a\"}"));
        assert_eq!(with_id(b"\xff", None, 1), None);
        assert_eq!(with_id(b"{}", Some(5..6), 1), None);
    }
}
