//! The errors that the proxy itself answers with, as JSON-RPC bodies. Status codes beside them are
//! the doors' business.

use std::fmt::Write as _;

/// The name of the limit on an answer over a link to a node, which is no setting.
pub const LINK_MESSAGE: &str = "link_message";

/// Why a call gets no node's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The body is not JSON; says why.
    NotJson(String),
    /// A text is JSON and no request; says why.
    NotARequest(&'static str),
    /// The method is on the block list.
    Blocked(String),
    /// The settings of all nodes rule the method out.
    NotOffered(String),
    /// The caller picked a node that there is not; says which.
    NoSuchNode(String),
    /// Subscriptions need a connection that can carry notifications.
    NeedsWebSocket,
    /// The params are wrong; says how.
    Params(String),
    /// There is no filter of this id, or none any more.
    NoFilter,
    /// All nodes that could serve the subscription refused: the words of the first node.
    OfNodes {
        /// The error code.
        code: i32,
        /// The message.
        message: String,
    },
    /// The outbox does not take the transaction: says why.
    NotKept {
        /// The error code.
        code: i32,
        /// The message.
        message: String,
        /// The word for programs.
        reason: &'static str,
    },
    /// No node answered the call, inside the hold time or after all attempts; says why.
    Unserved(Unserved),
    /// No node accepted the call: the HTTP status that the last node gave instead of a JSON-RPC
    /// answer.
    Rejected(u16),
    /// All nodes that could serve refuse calls for quota, and rest for so many seconds more.
    Resting(u32),
    /// The call's deadline passed.
    Deadline,
    /// The call may have had its effect, and no answer came.
    OutcomeUnknown,
    /// The proxy is going down.
    ShuttingDown,
    /// A limit of the configuration; the key's name and its value.
    Limit {
        /// The configuration key of the limit.
        name: &'static str,
        /// The limit, in the key's unit (calls or bytes).
        limit: usize,
    },
}

/// Why no node answered a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// No node may serve: all are down, or none was heard yet.
    NoNode,
    /// The nodes that answer serve another chain.
    OtherChain,
    /// The operator has taken out the nodes that could serve.
    Cordoned,
    /// Nodes may serve, and all attempts at them failed.
    Failed,
    /// The nodes take no more connections.
    Full,
    /// This machine lacks a resource for a connection to a node, for example file descriptors.
    Exhausted,
}

impl Unserved {
    /// Whether there was no node to ask.
    pub fn is_for_want_of_a_node(self) -> bool {
        matches!(self, Self::NoNode | Self::OtherChain | Self::Cordoned)
    }

    fn reason(self) -> &'static str {
        match self {
            Self::NoNode => "no_node",
            Self::OtherChain => "other_chain",
            Self::Cordoned => "cordoned",
            Self::Failed => "attempts_failed",
            Self::Full => "nodes_full",
            Self::Exhausted => "out_of_resources",
        }
    }

    /// The error in words.
    pub fn message(self) -> &'static str {
        match self {
            Self::NoNode => "no node can serve this call now",
            Self::OtherChain => "no node can serve this call now: those that answer serve another chain",
            Self::Cordoned => "no node can serve this call now: the operator has taken out those that could",
            Self::Failed => "all attempts to have a node answer this call failed",
            Self::Full => "the nodes take no more connections now",
            Self::Exhausted => "the proxy lacks resources for a node connection (file descriptors)",
        }
    }
}

impl Refusal {
    /// The JSON-RPC error code.
    pub fn code(&self) -> i32 {
        match self {
            Self::NotJson(_) => -32700,
            Self::NotARequest(_) => -32600,
            Self::Blocked(_) | Self::NotOffered(_) | Self::NeedsWebSocket => -32601,
            Self::Unserved(_) | Self::Rejected(_) | Self::Deadline | Self::OutcomeUnknown | Self::ShuttingDown => {
                -32002
            }
            Self::Resting(_) | Self::Limit { .. } => -32005,
            Self::Params(_) | Self::NoSuchNode(_) => -32602,
            Self::NoFilter => -32000,
            Self::OfNodes { code, .. } | Self::NotKept { code, .. } => *code,
        }
    }

    /// The word for programs, in `data.reason` where the error has data.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotJson(_) => "parse_error",
            Self::NotARequest(_) => "invalid_request",
            Self::Blocked(_) => "blocked_method",
            Self::NotOffered(_) => "method_not_offered",
            Self::NoSuchNode(_) => "no_such_node",
            Self::NeedsWebSocket => "needs_websocket",
            Self::Params(_) => "invalid_params",
            Self::NoFilter => "filter_not_found",
            Self::OfNodes { .. } => "refused_by_nodes",
            Self::NotKept { reason, .. } => reason,
            Self::Unserved(why) => why.reason(),
            Self::Rejected(_) => "rejected",
            Self::Resting(_) => "resting",
            Self::Deadline => "deadline",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::ShuttingDown => "shutting_down",
            Self::Limit { name, .. } => name,
        }
    }

    /// The error in words.
    pub fn message(&self) -> String {
        match self {
            Self::NotJson(why) => format!("parse error: {why}"),
            Self::NotARequest(why) => format!("invalid request: {why}"),
            // In geth's words, which clients know how to take.
            Self::Blocked(method) | Self::NotOffered(method) => {
                format!("the method {method} does not exist/is not available")
            }
            Self::NeedsWebSocket => "subscriptions need a WebSocket connection".into(),
            Self::Params(why) | Self::NoSuchNode(why) => why.clone(),
            // In go-ethereum's words, upon which clients make a new one.
            Self::NoFilter => "filter not found".into(),
            Self::OfNodes { message, .. } | Self::NotKept { message, .. } => message.clone(),
            Self::Unserved(why) => why.message().into(),
            Self::Rejected(status) => format!("the node did not take the call: HTTP status {status}"),
            Self::Resting(seconds) => {
                format!("the nodes refuse calls for quota and are left alone for {seconds} s more")
            }
            Self::Deadline => "no answer inside the call's deadline".into(),
            Self::OutcomeUnknown => {
                "no answer came to the call after it was sent to a node: it may or may not have taken effect".into()
            }
            Self::ShuttingDown => "the proxy is shutting down".into(),
            Self::Limit { name, limit } => format!("limit exceeded: {name} is {limit}"),
        }
    }

    /// The response body, answering `id` (`null` where there is none to answer).
    pub fn body(&self, id: Option<&[u8]>) -> Vec<u8> {
        let message = serde_json::Value::String(self.message());
        let mut body = br#"{"jsonrpc":"2.0","id":"#.to_vec();
        body.extend_from_slice(id.unwrap_or(b"null"));
        let mut rest = format!(r#","error":{{"code":{},"message":{message}"#, self.code());
        let has_data = matches!(self.code(), -32002 | -32005)
            || matches!(self, Self::NotKept { .. } | Self::NotOffered(_) | Self::NoSuchNode(_));
        if has_data && !matches!(self, Self::OfNodes { .. }) {
            let _ = write!(rest, r#","data":{{"reason":"{}"}}"#, self.reason());
        }
        rest.push_str("}}");
        body.extend_from_slice(rest.as_bytes());
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_a_response_with_the_id_as_it_came() {
        for (refusal, code, reason) in [
            (Refusal::NotJson("a \"quote\"".into()), -32700, None),
            (Refusal::NotARequest("x"), -32600, None),
            (Refusal::Blocked("admin_\n".into()), -32601, None),
            (Refusal::NotOffered("trace_\n".into()), -32601, Some("method_not_offered")),
            (Refusal::NoSuchNode("there is no node \"a\"".into()), -32602, Some("no_such_node")),
            (Refusal::Unserved(Unserved::NoNode), -32002, Some("no_node")),
            (Refusal::Unserved(Unserved::Failed), -32002, Some("attempts_failed")),
            (Refusal::Rejected(413), -32002, Some("rejected")),
            (Refusal::Resting(7), -32005, Some("resting")),
            (Refusal::Deadline, -32002, Some("deadline")),
            (Refusal::OutcomeUnknown, -32002, Some("outcome_unknown")),
            (Refusal::ShuttingDown, -32002, Some("shutting_down")),
            (Refusal::Limit { name: "max_batch", limit: 5 }, -32005, Some("max_batch")),
            (Refusal::OfNodes { code: -32005, message: "no\tno".into() }, -32005, None),
        ] {
            let body = refusal.body(Some(b"1.50"));
            assert!(body.starts_with(br#"{"jsonrpc":"2.0","id":1.50,"error":"#));
            let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(json["error"]["code"], code);
            assert_eq!(json["error"]["data"]["reason"].as_str(), reason);
        }
        assert!(Refusal::ShuttingDown.body(None).starts_with(br#"{"jsonrpc":"2.0","id":null,"#));
    }
}
