//! A client's message before its calls begin: a single call, a batch, or nothing that can be
//! called. Both doors read their messages here, so a message is refused for the same reasons and in
//! the same words over HTTP and over a WebSocket.

use crate::domain::{
    refusal::Refusal,
    rpc::{self, Body, NotARequest, Request},
};

/// How many calls of a batch run, or wait with their answers for those before them, at the same
/// time: over HTTP and over a WebSocket.
pub const WIDTH: usize = 16;

/// An entry of a batch: a call, or the reason why the entry is none.
pub type Entry<'a> = Result<Request<'a>, NotARequest<'a>>;

/// A message, as far as a door has to know.
#[derive(Debug)]
pub enum ClientMessage<'a> {
    /// A single call.
    Single(Request<'a>),
    /// The entries of a batch: at least one, and at most as many as a batch may have.
    Batch(Vec<Entry<'a>>),
    /// No node is asked. The message is answered with this refusal and this id.
    Refused(Refusal, Option<&'a [u8]>),
}

impl<'a> ClientMessage<'a> {
    /// Reads a message, whose batch may have `max_batch` entries.
    pub fn read(text: &'a [u8], max_batch: usize) -> Self {
        match rpc::peek(text, max_batch) {
            Err(malformed) => Self::Refused(Refusal::NotJson(malformed.to_string()), None),
            Ok(Body::Single(Ok(request))) => Self::Single(request),
            Ok(Body::Single(Err(wrong))) => Self::Refused(Refusal::NotARequest(wrong.why), wrong.id),
            Ok(Body::Batch(entries)) if entries.is_empty() => {
                Self::Refused(Refusal::NotARequest("the batch is empty"), None)
            }
            Ok(Body::Batch(entries)) if entries.len() > max_batch => {
                Self::Refused(Refusal::Limit { name: "max_batch", limit: max_batch }, None)
            }
            Ok(Body::Batch(entries)) => Self::Batch(entries),
        }
    }

    /// The calls in the message; a message that is refused as a whole counts as one.
    pub fn calls(&self) -> usize {
        match self {
            Self::Single(_) | Self::Refused(..) => 1,
            Self::Batch(entries) => entries.len(),
        }
    }

    /// The answer to the message if each of its calls is refused for the same reason; empty where
    /// every call is a notification.
    pub fn refuse(&self, refusal: &Refusal) -> Vec<u8> {
        match self {
            Self::Single(request) => request.id.map(|id| refusal.body(Some(id))).unwrap_or_default(),
            Self::Refused(_, id) => refusal.body(*id),
            Self::Batch(entries) => {
                let of = |entry: &Entry<'_>| match entry {
                    Ok(request) => request.id.map(|id| refusal.body(Some(id))),
                    Err(wrong) => Some(refusal.body(wrong.id)),
                };
                let answers: Vec<_> = entries.iter().filter_map(of).collect();
                if answers.is_empty() { Vec::new() } else { [&b"["[..], &answers.join(&b','), b"]"].concat() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = r#"{"jsonrpc":"2.0","id":7,"method":"eth_chainId"}"#;
    const NOTE: &str = r#"{"jsonrpc":"2.0","method":"eth_chainId"}"#;

    fn refused(text: &str) -> (String, Option<String>) {
        let ClientMessage::Refused(refusal, id) = ClientMessage::read(text.as_bytes(), 2) else { panic!("{text}") };
        (refusal.message(), id.map(|id| String::from_utf8_lossy(id).into_owned()))
    }

    #[test]
    fn a_message_is_one_call_a_batch_or_refused() {
        assert!(matches!(ClientMessage::read(CALL.as_bytes(), 2), ClientMessage::Single(_)));
        let two = format!("[{CALL},{NOTE}]");
        assert!(matches!(ClientMessage::read(two.as_bytes(), 2), ClientMessage::Batch(entries) if entries.len() == 2));
        assert!(matches!(ClientMessage::read(b"{", 2), ClientMessage::Refused(Refusal::NotJson(_), None)));
        assert_eq!(refused(r#"{"id":7,"method":1}"#).1.as_deref(), Some("7"));
        assert!(refused("[]").0.contains("the batch is empty"));
        let three = format!("[{CALL},{CALL},{CALL}]");
        assert!(refused(&three).0.contains("max_batch"));
    }

    #[test]
    fn each_call_of_a_message_is_refused_by_its_id() {
        let refuse = |text: &str| {
            let answer = ClientMessage::read(text.as_bytes(), 2).refuse(&Refusal::Deadline);
            String::from_utf8(answer).unwrap()
        };
        assert!(refuse(CALL).contains(r#""id":7"#));
        assert_eq!(refuse(NOTE), "");
        assert_eq!(refuse(&format!("[{NOTE}]")), "");
        assert!(refuse(&format!("[{CALL},1]")).starts_with("[{"));
        assert_eq!(refuse(&format!("[{CALL},1]")).matches("error").count(), 2);
        assert!(refuse("{").contains(r#""id":null"#));
    }

    #[test]
    fn a_batch_counts_by_its_calls_and_anything_else_as_one() {
        let calls = |text: &str| ClientMessage::read(text.as_bytes(), 2).calls();
        assert_eq!(calls(&format!("[{CALL},{NOTE}]")), 2);
        assert_eq!((calls(CALL), calls("[]"), calls("{"), calls(&format!("[{CALL},{CALL},{CALL}]"))), (1, 1, 1, 1));
    }
}
