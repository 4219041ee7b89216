//! The response side of the JSON-RPC envelope: looked at only as far as needed to tell a result
//! from an error.

mod node_error;

use std::ops::Range;

pub use self::node_error::{Blame, Lacked, NodeError};
use super::json::Scanner;

/// The outcome as far as the first bytes of a node's response tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// A result, at `value`, and the id if the id stands before the result.
    Result {
        /// Byte range of the id.
        id: Option<Range<usize>>,
        /// Offset of the first byte of the result.
        value: usize,
    },
    /// No result, or not for certain: an error, or a null result, which may stand beside one. The
    /// whole tells.
    Unsure,
    /// More bytes are needed.
    Incomplete,
    /// Not a JSON-RPC response.
    Alien,
}

/// Looks at the beginning of a response.
pub fn peek(text: &[u8]) -> Beginning {
    look(text).unwrap_or_else(|at_end| if at_end { Beginning::Incomplete } else { Beginning::Alien })
}

/// `Err(true)` when the text ended before anything was told.
fn look(text: &[u8]) -> Result<Beginning, bool> {
    let mut scanner = Scanner::of_answer(text);
    scanner.space();
    if !scanner.take(b'{') {
        return Err(scanner.is_at_end());
    }
    let mut id = None;
    let mut first = true;
    loop {
        let member = scanner.member(first);
        let Ok(member) = member else { return Err(scanner.is_at_end()) };
        first = false;
        let Some(key) = member else { return Err(false) };
        let start = scanner.offset();
        match (key.raw, scanner.peek()) {
            (b"result" | b"error", None) => return Err(true),
            (b"result", Some(b'n')) => return Ok(Beginning::Unsure),
            (b"result", Some(_)) => return Ok(Beginning::Result { id, value: start }),
            // Some nodes write `"error":null` beside a result.
            (b"error", Some(byte)) if byte != b'n' => return Ok(Beginning::Unsure),
            _ => {}
        }
        if scanner.value().is_err() {
            return Err(scanner.is_at_end());
        }
        if key.raw == b"id" {
            // A number may go on in bytes that are still to come.
            if scanner.is_at_end() {
                return Err(true);
            }
            id = Some(start..scanner.offset());
        }
    }
}

/// A complete response, every byte of which was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where the id stands, if there is one.
    pub id: Option<Range<usize>>,
    /// The outcome that the response states.
    pub content: Content,
}

/// The outcome that a response states, and the places of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A result.
    Result(Range<usize>),
    /// An error object.
    Error(Range<usize>),
}

impl Envelope {
    /// Reads a complete response: one JSON object in UTF-8 with a result or an error object, and
    /// not with both.
    ///
    /// # Errors
    /// Says why the text is no response.
    pub fn read(text: &[u8]) -> Result<Self, &'static str> {
        if std::str::from_utf8(text).is_err() {
            return Err("the answer is not UTF-8");
        }
        let mut scanner = Scanner::of_answer(text);
        scanner.space();
        if !scanner.take(b'{') {
            return Err("the answer is not a JSON object");
        }
        let (mut id, mut result, mut error, mut first) = (None, None, None, true);
        loop {
            let Ok(member) = scanner.member(first) else { return Err("the answer is not JSON") };
            let Some(key) = member else { break };
            first = false;
            let start = scanner.offset();
            let Ok(value) = scanner.value() else { return Err("the answer is not JSON") };
            let slot = match key.raw {
                b"id" => &mut id,
                b"result" => &mut result,
                b"error" if value != b"null" => &mut error,
                _ => continue,
            };
            if slot.replace(start..scanner.offset()).is_some() {
                return Err("the answer has a member twice");
            }
        }
        if scanner.end().is_err() {
            return Err("more than one JSON value came as the answer");
        }
        let content = match (result, error) {
            (Some(result), None) => Content::Result(result),
            (Some(result), Some(_)) if text[result.clone()] != *b"null" => {
                return Err("the answer has a result and an error");
            }
            (_, Some(error)) if text[error.start] == b'{' => Content::Error(error),
            (_, Some(_)) => return Err("the answer's error is not an object"),
            (None, None) => return Err("the answer has neither a result nor an error"),
        };
        Ok(Self { id, content })
    }
}

/// How a long response ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The response ends as an object does. Holds the place of the id if the id stands behind the
    /// result.
    Whole(Option<Range<usize>>),
    /// The response ends as an object does, but the last member that can be read from the end may
    /// be the result or stand before the result.
    Unclear,
    /// In the middle of something.
    Torn,
}

/// Looks at `tail`, the end of a complete response whose result began before `tail`. Members are
/// read from the end: those behind the result that are no objects or arrays.
pub fn ending(tail: &[u8]) -> Ending {
    let Some(mut left) = tail.trim_ascii_end().strip_suffix(b"}") else { return Ending::Torn };
    while let Some((key, value, before)) = last_member(left) {
        match key {
            b"id" => return Ending::Whole(Some(value)),
            b"result" => return Ending::Whole(None),
            _ => left = before,
        }
    }
    Ending::Unclear
}

/// The last member of an object whose text before its closing brace is `text`, if its value is a
/// string, a number or a literal: the key, the place of the value, and the text before the member's
/// comma.
fn last_member(text: &[u8]) -> Option<(&[u8], Range<usize>, &[u8])> {
    let body = text.trim_ascii_end();
    let start = match body.last()? {
        b'"' => opening_quote(body)?,
        _ => body.iter().rposition(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')))? + 1,
    };
    let key = body[..start].trim_ascii_end().strip_suffix(b":")?.trim_ascii_end();
    let open = opening_quote(key)?;
    let before = key[..open].trim_ascii_end().strip_suffix(b",")?;
    (start < body.len()).then(|| (&key[open + 1..key.len() - 1], start..body.len(), before))
}

/// Where the string begins that `text` ends with.
fn opening_quote(text: &[u8]) -> Option<usize> {
    let inside = text.strip_suffix(b"\"").filter(|_| !is_escaped(text, text.len() - 1))?;
    (0..inside.len()).rev().find(|&at| inside[at] == b'"' && !is_escaped(inside, at))
}

fn is_escaped(text: &[u8], at: usize) -> bool {
    text[..at].iter().rev().take_while(|&&b| b == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_told_before_its_end() {
        assert_eq!(peek(br#"{"jsonrpc":"2.0","id":1,"result":"0x"#), Beginning::Result { id: Some(22..23), value: 33 });
        assert_eq!(peek(br#"{"jsonrpc":"2.0","result":{"id":1},"id":2}"#), Beginning::Result { id: None, value: 26 });
        assert_eq!(
            peek(br#" { "error" : null , "id" : "a\"b" , "result" : true }"#),
            Beginning::Result { id: Some(27..33), value: 47 }
        );
        for unsure in [r#"{"id":1,"result":null"#, r#"{"id":1,"error":{"#, r#"{"id":1,"error":"text""#] {
            assert_eq!(peek(unsure.as_bytes()), Beginning::Unsure, "{unsure}");
        }
    }

    #[test]
    fn every_prefix_of_a_response_is_incomplete_or_right() {
        for text in
            [r#"{"jsonrpc":"2.0","id":12,"result":"0x1"}"#, r#" {"id":1.5e3,"error":{"code":-1,"message":"x"}}"#]
        {
            let whole = peek(text.as_bytes());
            for end in 0..text.len() {
                let seen = peek(&text.as_bytes()[..end]);
                assert!(seen == Beginning::Incomplete || seen == whole, "{} {seen:?}", &text[..end]);
            }
        }
    }

    #[test]
    fn a_text_that_is_no_response_is_alien() {
        for text in ["<html>", "{}", "[]", "null", r#"{"id":1}"#, r#"{"jsonrpc":"2.0" x"#, "Internal Server Error"] {
            assert_eq!(peek(text.as_bytes()), Beginning::Alien, "{text}");
        }
        assert_eq!(peek(b""), Beginning::Incomplete);
    }

    #[test]
    fn a_long_response_is_judged_by_its_end() {
        for (text, id) in [
            (r#"{"result":"x","id":12}"#, Some("12")),
            (r#"{"result":[1], "id" : -1.5e+3 } "#, Some("-1.5e+3")),
            (r#"{"result":[1],"id":"a\"b"}"#, Some(r#""a\"b""#)),
            (r#"{"result":[1],"id":7,"jsonrpc":"2.0" , "error":null}"#, Some("7")),
            (r#"[1],"id":null}"#, Some("null")),
            (r#"{"id":1,"result":"x"}"#, None),
            (r#"{"id":1,"result":"\"id\":5"}"#, None),
            (r#"{"id":1,"result":"x\",\"id\":5"}"#, None),
        ] {
            match ending(text.as_bytes()) {
                Ending::Whole(place) => assert_eq!(place.map(|place| &text[place]), id, "{text}"),
                other => panic!("{other:?}: {text}"),
            }
        }
        for unclear in [
            r#"{"id":1,"result":{"id":5}}"#,
            r#"{"id":1,"result":["a","id",5]}"#,
            r#"{"result":"x","id":12,"more":{"id":5}}"#,
            r#"{"result":"x","id":12,"more":[]}"#,
            r#"{"result":1,"a\"id":5}"#,
            "}",
        ] {
            assert_eq!(ending(unclear.as_bytes()), Ending::Unclear, "{unclear}");
        }
        for torn in ["", "{\"result\":[1", "{\"result\":[1]", "{\"result\":\"a\"", "]"] {
            assert_eq!(ending(torn.as_bytes()), Ending::Torn, "{torn}");
        }
    }

    #[test]
    fn a_whole_response_is_one_object_with_a_result_or_an_error() {
        let read = |text: &str| {
            let envelope = Envelope::read(text.as_bytes())?;
            let id = envelope.id.map_or("-", |id| &text[id]).to_owned();
            Ok::<_, &str>(match envelope.content {
                Content::Result(place) => format!("{id} result {}", &text[place]),
                Content::Error(place) => format!("{id} error {}", &text[place]),
            })
        };
        for (text, expected) in [
            (r#"{"result":{"id":5},"id":12,"jsonrpc":"2.0"}"#, Ok("12 result {\"id\":5}")),
            (r#" { "id" : null , "error" : {} } "#, Ok("null error {}")),
            (r#"{"result":null}"#, Ok("- result null")),
            (r#"{"id":1,"result":null,"error":{"code":1}}"#, Ok("1 error {\"code\":1}")),
            (r#"{"id":1,"error":null,"result":"x"}"#, Ok("1 result \"x\"")),
            (r#"{"id":1,"result":"x","error":{"code":1}}"#, Err("the answer has a result and an error")),
            (r#"{"id":1,"error":"rate limited"}"#, Err("the answer's error is not an object")),
            (r#"{"id":1,"error":null}"#, Err("the answer has neither a result nor an error")),
            ("{}", Err("the answer has neither a result nor an error")),
            (r#"{"data":[]}"#, Err("the answer has neither a result nor an error")),
            ("[]", Err("the answer is not a JSON object")),
            ("7", Err("the answer is not a JSON object")),
            (r#"{"id":1,"id":2,"result":1}"#, Err("the answer has a member twice")),
            (r#"{"id":1,"result":nullnull}"#, Err("the answer is not JSON")),
            (r#"{"id":1,"result":[1,2}"#, Err("the answer is not JSON")),
            (r#"{"id":1,"result":1}{"id":2,"result":1}"#, Err("more than one JSON value came as the answer")),
            ("[]", Err("the answer is not a JSON object")),
            ("<html>", Err("the answer is not a JSON object")),
            ("", Err("the answer is not a JSON object")),
        ] {
            assert_eq!(read(text), expected.map(str::to_owned), "{text}");
        }
        assert_eq!(Envelope::read(b"{\"id\":1,\"result\":\"\xff\"}"), Err("the answer is not UTF-8"));
    }
}
