//! The response side of the JSON-RPC envelope: looked at only as far as needed to tell a result from an error.

use std::{borrow::Cow, ops::Range};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::Scanner;

/// What the first bytes of a node's response tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A result. `id` is where the id stands, when it came before the result; `value` is where the result begins.
    Result {
        /// Byte range of the id.
        id: Option<Range<usize>>,
        /// Offset of the first byte of the result.
        value: usize,
    },
    /// An error object, not yet read: see [`NodeError::read`].
    Error,
    /// More bytes are needed.
    Incomplete,
    /// Not a JSON-RPC response.
    Alien,
}

/// Looks at the beginning of a response.
pub fn peek(text: &[u8]) -> Answer {
    look(text).unwrap_or_else(|at_end| if at_end { Answer::Incomplete } else { Answer::Alien })
}

/// `Err(true)` when the text ended before anything was told.
fn look(text: &[u8]) -> Result<Answer, bool> {
    let mut scanner = Scanner::new(text);
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
        match key.raw {
            b"result" => {
                return if scanner.is_at_end() { Err(true) } else { Ok(Answer::Result { id, value: start }) };
            }
            b"error" => match scanner.peek() {
                None => return Err(true),
                // Some nodes write `"error":null` beside a result.
                Some(b'n') => {}
                Some(_) => return Ok(Answer::Error),
            },
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

/// Where the id stands when it is the last member of the response, told from the end: the members before it are not read.
/// `tail` is the end of a complete response.
pub fn trailing_id(tail: &[u8]) -> Option<Range<usize>> {
    let text = tail.trim_ascii_end();
    let body = text.strip_suffix(b"}")?.trim_ascii_end();
    let start = match body.last()? {
        b'"' => (0..body.len() - 1).rev().find(|&at| body[at] == b'"' && !is_escaped(body, at))?,
        _ => body.iter().rposition(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')))? + 1,
    };
    let before = body[..start].trim_ascii_end().strip_suffix(b":")?.trim_ascii_end().strip_suffix(b"\"id\"")?;
    let key_is_whole = matches!(before.trim_ascii_end().last()?, b',' | b'{');
    (key_is_whole && start < body.len()).then_some(start..body.len())
}

/// Where the id stands among the members of a complete response, wherever it is.
pub fn id(text: &[u8]) -> Option<Range<usize>> {
    let mut scanner = Scanner::new(text);
    scanner.space();
    scanner.take(b'{').then_some(())?;
    let mut first = true;
    while let Ok(Some(key)) = scanner.member(first) {
        first = false;
        let start = scanner.offset();
        scanner.value().ok()?;
        if key.raw == b"id" {
            return Some(start..scanner.offset());
        }
    }
    None
}

fn is_escaped(text: &[u8], at: usize) -> bool {
    text[..at].iter().rev().take_while(|&&b| b == b'\\').count() % 2 == 1
}

/// A JSON-RPC error that a node returned.
#[derive(Debug, Deserialize)]
pub struct NodeError<'a> {
    /// The error code.
    #[serde(default)]
    pub code: i64,
    /// The message, for people and for [`NodeError::blame`].
    #[serde(borrow, default)]
    pub message: Cow<'a, str>,
    /// Whatever else the node attached.
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
}

/// Whom an error speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The call: every node would say so.
    Caller,
    /// The node: another may answer.
    Node,
}

impl<'a> NodeError<'a> {
    /// Reads the error of a complete response. `None` when it has none that can be read.
    pub fn read(text: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Response<'a> {
            #[serde(borrow)]
            error: NodeError<'a>,
        }
        serde_json::from_slice::<Response<'a>>(text).ok().map(|response| response.error)
    }

    /// Whom the error speaks of: internal errors, limits and missing state are the node's, all else the caller's.
    pub fn blame(&self) -> Blame {
        const OF_THE_NODE: [&str; 22] = [
            "txpool is full",
            "transaction pool is full",
            "mempool is full",
            "missing trie node",
            "header not found",
            "header for hash not found",
            "unknown block",
            "block not found",
            "state not available",
            "state is not available",
            "historical state",
            "state histories haven't been fully indexed",
            "required historical state unavailable",
            "pruned",
            "not synced",
            "still syncing",
            "is syncing",
            "rate limit",
            "too many requests",
            "capacity exceeded",
            "daily request count exceeded",
            "request timed out",
        ];
        // Some nodes report a revert as an internal error; the data of a revert is the contract's word to the caller.
        if self.says("revert") || self.is_already_known() {
            return Blame::Caller;
        }
        match self.code {
            -32603 | -32005 | -32002 | 429 => Blame::Node,
            _ if OF_THE_NODE.iter().any(|words| self.says(words)) => Blame::Node,
            _ => Blame::Caller,
        }
    }

    /// Whether a node says that it holds this very transaction already.
    pub fn is_already_known(&self) -> bool {
        [
            "already known",
            "known transaction",
            "alreadyknown",
            "already imported",
            "already in mempool",
            "already exists",
        ]
        .iter()
        .any(|words| self.says(words))
    }

    /// Whether a node refuses a transaction for its very bytes, as every node would.
    pub fn is_of_the_bytes(&self) -> bool {
        const OF_THE_BYTES: [&str; 9] = [
            "rlp",
            "decod",
            "invalid sender",
            "invalid signature",
            "invalid chain id",
            "invalid argument",
            "intrinsic gas too low",
            "transaction type not supported",
            "oversized data",
        ];
        self.code == -32602 || OF_THE_BYTES.iter().any(|words| self.says(words))
    }

    /// Whether the message holds `words`, which are in lower case.
    fn says(&self, words: &str) -> bool {
        self.message.as_bytes().windows(words.len()).any(|window| window.eq_ignore_ascii_case(words.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_told_before_its_end() {
        assert_eq!(peek(br#"{"jsonrpc":"2.0","id":1,"result":"0x"#), Answer::Result { id: Some(22..23), value: 33 });
        assert_eq!(peek(br#"{"jsonrpc":"2.0","result":{"id":1},"id":2}"#), Answer::Result { id: None, value: 26 });
        assert_eq!(
            peek(br#" { "error" : null , "id" : "a\"b" , "result" : null }"#),
            Answer::Result { id: Some(27..33), value: 47 }
        );
    }

    #[test]
    fn every_prefix_of_a_response_is_incomplete_or_right() {
        for text in
            [r#"{"jsonrpc":"2.0","id":12,"result":"0x1"}"#, r#" {"id":1.5e3,"error":{"code":-1,"message":"x"}}"#]
        {
            let whole = peek(text.as_bytes());
            for end in 0..text.len() {
                let seen = peek(&text.as_bytes()[..end]);
                assert!(seen == Answer::Incomplete || seen == whole, "{} {seen:?}", &text[..end]);
            }
        }
    }

    #[test]
    fn what_is_no_response_is_alien() {
        for text in ["<html>", "{}", "[]", "null", r#"{"id":1}"#, r#"{"jsonrpc":"2.0" x"#, "Internal Server Error"] {
            assert_eq!(peek(text.as_bytes()), Answer::Alien, "{text}");
        }
        assert_eq!(peek(b""), Answer::Incomplete);
    }

    #[test]
    fn an_id_at_the_end_is_found_from_the_end() {
        for (text, id) in [
            (r#"{"result":"x","id":12}"#, Some("12")),
            (r#"{"result":[1], "id" : -1.5e+3 } "#, Some("-1.5e+3")),
            (r#"{"result":[1],"id":"a\"b"}"#, Some(r#""a\"b""#)),
            (r#"{"result":[1],"id":null}"#, Some("null")),
            (r#"{"id":1,"result":"x"}"#, None),
            (r#"{"id":1,"result":"\"id\":5"}"#, None),
            (r#"{"id":1,"result":{"id":5}}"#, None),
            (r#"{"result":1,"a\"id":5}"#, None),
            (r#"{"result":1,"id":}"#, None),
            ("}", None),
            ("", None),
        ] {
            assert_eq!(trailing_id(text.as_bytes()).map(|r| &text[r]), id, "{text}");
        }
    }

    #[test]
    fn an_id_is_found_wherever_it_is() {
        for (text, place) in [
            (r#"{"result":{"id":5},"id":12,"jsonrpc":"2.0"}"#, Some("12")),
            (r#" { "id" : null , "error" : {} }"#, Some("null")),
            (r#"{"result":{"id":5}}"#, None),
            ("[]", None),
        ] {
            assert_eq!(id(text.as_bytes()).map(|place| &text[place]), place, "{text}");
        }
    }

    #[test]
    fn errors_are_blamed_on_the_node_or_on_the_caller() {
        for (code, message, blame) in [
            (-32603, "Internal error", Blame::Node),
            (-32603, "execution reverted: nope", Blame::Caller),
            (3, "execution reverted", Blame::Caller),
            (-32005, "limit exceeded", Blame::Node),
            (-32603, "already known", Blame::Caller),
            (-32000, "txpool is full", Blame::Node),
            (-32000, "missing trie node 12ab (path )", Blame::Node),
            (-32000, "Header Not Found", Blame::Node),
            (-32000, "insufficient funds for gas * price + value", Blame::Caller),
            (-32602, "invalid argument 0", Blame::Caller),
            (-32601, "the method x does not exist/is not available", Blame::Caller),
        ] {
            let error = NodeError { code, message: message.into(), data: None };
            assert_eq!(error.blame(), blame, "{code} {message}");
        }
    }

    #[test]
    fn an_error_is_read_whole() {
        let error = NodeError::read(br#"{"id":1,"error":{"code":3,"message":"execution \"reverted\"","data":"0x08"}}"#)
            .unwrap();
        assert_eq!(
            (error.code, error.message.as_ref(), error.data.unwrap().get()),
            (3, "execution \"reverted\"", "\"0x08\"")
        );
        assert!(NodeError::read(br#"{"id":1,"error":"text"}"#).is_none());
        let known = |message: &'static str| NodeError { code: -32000, message: message.into(), data: None };
        assert!(known("already known").is_already_known());
        assert!(known("ALREADY_EXISTS: already known").is_already_known());
        assert!(known("rlp: value size exceeds available input length").is_of_the_bytes());
        assert!(!known("nonce too low: next nonce 5, tx nonce 3").is_of_the_bytes());
    }
}
