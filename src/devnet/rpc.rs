//! JSON-RPC's envelope, as nodes read and write it.

use std::{fmt::Write, sync::Arc};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// The content of one HTTP body or WebSocket message.
pub(super) enum Message {
    One(Item),
    Batch(Vec<Item>),
}

/// A call, or the error that answers a malformed one.
pub(super) enum Item {
    Call(Call),
    Bad(Option<Box<RawValue>>, RpcError),
}

/// A well-formed request. A request without an id gets no answer.
pub(super) struct Call {
    pub(super) id: Option<Box<RawValue>>,
    pub(super) method: String,
    pub(super) params: Option<Box<RawValue>>,
}

/// The outcome of a call.
pub(super) enum Answer {
    /// The result's JSON.
    Json(Arc<str>),
    /// A string result of so many characters.
    Blob(u64),
    Error(RpcError),
}

/// The kind of id that an answer carries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    /// The call's.
    Own,
    /// Another call's.
    Alien,
    /// Nothing.
    Absent,
}

/// A JSON-RPC error.
#[derive(Debug)]
pub(super) struct RpcError {
    pub(super) code: i64,
    pub(super) message: String,
    pub(super) data: Option<Value>,
}

impl RpcError {
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    pub(super) fn params(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }
}

impl From<Value> for Answer {
    fn from(value: Value) -> Self {
        Self::Json(value.to_string().into())
    }
}

impl From<RpcError> for Answer {
    fn from(error: RpcError) -> Self {
        Self::Error(error)
    }
}

#[derive(Deserialize)]
struct Envelope {
    /// A present `null` is an id; an absent one is none.
    #[serde(default, deserialize_with = "present")]
    id: Option<Box<RawValue>>,
    method: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    params: Option<Box<RawValue>>,
}

fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(from).map(Some)
}

impl Message {
    pub(super) fn parse(text: &[u8]) -> Self {
        let batch = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        if !batch {
            return match serde_json::from_slice::<&RawValue>(text) {
                Ok(one) => Self::One(Item::parse(one)),
                Err(error) => Self::One(Item::Bad(None, RpcError::new(-32700, format!("parse error: {error}")))),
            };
        }
        match serde_json::from_slice::<Vec<&RawValue>>(text) {
            Ok(items) if items.is_empty() => Self::One(Item::Bad(None, RpcError::new(-32600, "empty batch"))),
            Ok(items) => Self::Batch(items.into_iter().map(Item::parse).collect()),
            Err(error) => Self::One(Item::Bad(None, RpcError::new(-32700, format!("parse error: {error}")))),
        }
    }

    pub(super) fn calls(&self) -> impl Iterator<Item = &Call> {
        let items = match self {
            Self::One(item) => std::slice::from_ref(item),
            Self::Batch(items) => items,
        };
        items.iter().filter_map(|item| if let Item::Call(call) = item { Some(call) } else { None })
    }

    /// Executes each call and writes the whole answer; empty if none of them wants one.
    pub(super) fn answer(&self, execute: impl FnMut(&Call) -> Answer) -> String {
        self.answer_as(|_| Label::Own, execute)
    }

    /// The same, with ids as `label` wants them.
    pub(super) fn answer_as(&self, label: impl Fn(&Call) -> Label, mut execute: impl FnMut(&Call) -> Answer) -> String {
        let mut out = String::new();
        match self {
            Self::One(item) => item.answer(&mut out, &label, &mut execute),
            Self::Batch(items) => {
                for item in items {
                    let before = out.len();
                    out.push(if before == 0 { '[' } else { ',' });
                    let prefixed = out.len();
                    item.answer(&mut out, &label, &mut execute);
                    if out.len() == prefixed {
                        out.truncate(before);
                    }
                }
                if !out.is_empty() {
                    out.push(']');
                }
            }
        }
        out
    }
}

impl Item {
    fn parse(raw: &RawValue) -> Self {
        match serde_json::from_str::<Envelope>(raw.get()) {
            Ok(Envelope { id, method: Some(Value::String(method)), params }) => Self::Call(Call { id, method, params }),
            Ok(Envelope { id, .. }) => Self::Bad(id, RpcError::new(-32600, "invalid request")),
            Err(_) => Self::Bad(None, RpcError::new(-32600, "invalid request")),
        }
    }

    fn answer(&self, out: &mut String, label: &impl Fn(&Call) -> Label, execute: &mut impl FnMut(&Call) -> Answer) {
        match self {
            Self::Bad(id, error) => write_error(out, &member(id.as_ref().map_or("null", |id| id.get())), error),
            Self::Call(call) => {
                let answer = execute(call);
                let Some(id) = call.label(label(call)) else { return };
                match answer {
                    Answer::Json(json) => write_result(out, &id, &json),
                    Answer::Blob(length) => {
                        out.push_str(&blob_head(&id));
                        let characters = usize::try_from(length).unwrap_or(0);
                        out.extend(BLOB_LINE.chars().cycle().take(characters));
                        out.push_str(BLOB_TAIL);
                    }
                    Answer::Error(error) => write_error(out, &id, &error),
                }
            }
        }
    }
}

impl Call {
    /// The answer's member `id` with its comma; none if the call has no id and so gets no answer.
    pub(super) fn label(&self, label: Label) -> Option<String> {
        let id = self.id.as_ref()?.get();
        Some(match label {
            Label::Own => member(id),
            Label::Alien => member(&alien(id)),
            Label::Absent => String::new(),
        })
    }
}

fn member(id: &str) -> String {
    format!(r#""id":{id},"#)
}

/// The id of another call: of the next if ids are counted numbers.
fn alien(id: &str) -> String {
    id.parse::<u64>().map_or_else(|_| r#""another call""#.to_owned(), |number| number.wrapping_add(1).to_string())
}

/// The start of an answer whose result is a blob; `label` is its member `id`.
pub(super) fn blob_head(label: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0",{label}"result":""#)
}

/// The end of an answer whose result is a blob.
pub(super) const BLOB_TAIL: &str = "\"}";

/// The text that blobs repeat.
const BLOB_LINE: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";

/// Lines in one piece of a blob.
const PIECE_LINES: usize = 1024;

/// A blob of `length` characters in pieces.
pub(super) fn blob(length: u64) -> impl Iterator<Item = Bytes> + Send {
    let piece = Bytes::from(BLOB_LINE.repeat(PIECE_LINES));
    let mut left = length;
    std::iter::from_fn(move || {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        left -= take as u64;
        (take > 0).then(|| piece.slice(..take))
    })
}

fn write_result(out: &mut String, label: &str, json: &str) {
    out.reserve(json.len() + label.len() + 40);
    for part in [r#"{"jsonrpc":"2.0","#, label, r#""result":"#, json, "}"] {
        out.push_str(part);
    }
}

fn write_error(out: &mut String, label: &str, error: &RpcError) {
    let message = Value::String(error.message.clone());
    // Writing to a String cannot fail.
    let _ = write!(out, r#"{{"jsonrpc":"2.0",{label}"error":{{"code":{},"message":{message}"#, error.code);
    if let Some(data) = &error.data {
        let _ = write!(out, r#","data":{data}"#);
    }
    out.push_str("}}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(text: &str) -> String {
        Message::parse(text.as_bytes()).answer(|call| Answer::Json(format!("{:?}", call.method).into()))
    }

    #[test]
    fn ids_come_back_byte_for_byte() {
        for id in ["1", "12345678901234567890123", "1.50", "\"a\\u0062\"", "null", "-0", "[1, 2]"] {
            let answer = echo(&format!(r#"{{"jsonrpc":"2.0","id": {id} ,"method":"m"}}"#));
            assert_eq!(answer, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"m"}}"#));
        }
    }

    #[test]
    fn notification_gets_no_answer() {
        assert_eq!(echo(r#"{"method":"m"}"#), "");
        assert_eq!(echo(r#"[{"method":"m"}]"#), "");
        let mixed = r#"[{"method":"a"},{"id":1,"method":"b"},{"method":"c"},{"id":2,"method":"d"}]"#;
        assert_eq!(echo(mixed), r#"[{"jsonrpc":"2.0","id":1,"result":"b"},{"jsonrpc":"2.0","id":2,"result":"d"}]"#);
    }

    #[test]
    fn malformed_messages_get_the_codes_of_the_specification() {
        let cases = [
            ("{", -32700, "null"),
            ("[1,", -32700, "null"),
            ("", -32700, "null"),
            ("[]", -32600, "null"),
            ("1", -32600, "null"),
            (r#"{"id":7}"#, -32600, "7"),
            (r#"{"id":7,"method":1}"#, -32600, "7"),
        ];
        for (text, code, id) in cases {
            let answer: Value = serde_json::from_str(&echo(text)).unwrap();
            assert_eq!(answer["error"]["code"], code, "{text}");
            assert_eq!(answer["id"].to_string(), id, "{text}");
        }
        let answer: Value = serde_json::from_str(&echo(r#"[1,{"id":2,"method":"m"}]"#)).unwrap();
        assert_eq!((&answer[0]["error"]["code"], &answer[1]["result"]), (&(-32600).into(), &"m".into()));
    }

    #[test]
    fn a_blob_has_the_length_asked_for() {
        for length in [0, 1, 65_535, 65_536, 65_537, 200_000] {
            let bytes = blob(length).collect::<Vec<_>>().concat();
            assert_eq!(bytes.len() as u64, length);
            assert!(bytes.iter().enumerate().all(|(i, byte)| *byte == BLOB_LINE.as_bytes()[i % 64]));
        }
    }
}
