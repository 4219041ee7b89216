//! Why a subscription is refused, as the error of a JSON-RPC response.

use std::fmt::Write as _;

use bytes::Bytes;

use crate::domain::refusal::Refusal;

/// Why a subscription is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionRefusal {
    /// The params are wrong; the text is the error's message.
    Params(String),
    /// No node offers this subscription; the text is the error's message.
    Unsupported(&'static str),
    /// No node could serve in time.
    NoNode,
    /// Nodes serve, but none granted or refused the subscription in time.
    NotGranted,
    /// The subscription would exceed this limit.
    Limit(&'static str),
    /// The outbox refuses; its error.
    Own(Refusal),
    /// The node's own error object.
    Node(Bytes),
}

impl SubscriptionRefusal {
    /// The response, answering `id`.
    pub fn body(&self, id: &[u8]) -> Vec<u8> {
        if let Self::Own(refusal) = self {
            return refusal.body(Some(id));
        }
        let mut body = br#"{"jsonrpc":"2.0","id":"#.to_vec();
        body.extend_from_slice(id);
        body.extend_from_slice(br#","error":"#);
        match self {
            Self::Own(_) => {}
            Self::Node(error) => body.extend_from_slice(error),
            Self::Params(why) => body.extend_from_slice(own(-32602, why, None).as_bytes()),
            Self::Unsupported(why) => body.extend_from_slice(own(-32601, why, None).as_bytes()),
            Self::NoNode => {
                let error = own(-32002, "no node can serve this subscription now", Some("no_node"));
                body.extend_from_slice(error.as_bytes());
            }
            Self::NotGranted => {
                let error = own(-32002, "no node granted or refused this subscription in time", Some("not_granted"));
                body.extend_from_slice(error.as_bytes());
            }
            Self::Limit(limit) => {
                body.extend_from_slice(own(-32005, "limit exceeded", Some(limit)).as_bytes());
            }
        }
        body.push(b'}');
        body
    }
}

fn own(code: i32, message: &str, reason: Option<&str>) -> String {
    let message = serde_json::Value::String(message.to_owned());
    let mut error = format!(r#"{{"code":{code},"message":{message}"#);
    if let Some(reason) = reason {
        let _ = write!(error, r#","data":{{"reason":"{reason}"}}"#);
    }
    error.push('}');
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_the_id_and_the_nodes_error_unchanged() {
        let body = |refused: SubscriptionRefusal| String::from_utf8(refused.body(b"1.50")).unwrap();
        for (refused, code) in [
            (SubscriptionRefusal::Params("\"quoted\"".into()), -32602),
            (SubscriptionRefusal::Unsupported("no"), -32601),
            (SubscriptionRefusal::NoNode, -32002),
            (SubscriptionRefusal::NotGranted, -32002),
            (SubscriptionRefusal::Limit("x"), -32005),
        ] {
            let json: serde_json::Value = serde_json::from_str(&body(refused)).unwrap();
            assert_eq!((&json["error"]["code"], &json["id"]), (&code.into(), &1.5.into()));
        }
        let error = r#"{ "code":-1, "message":"x" }"#;
        let expected = format!(r#"{{"jsonrpc":"2.0","id":1.50,"error":{error}}}"#);
        assert_eq!(body(SubscriptionRefusal::Node(error.into())), expected);
    }
}
