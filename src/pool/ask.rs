//! Asking a node something on our own account.

use std::{future::poll_fn, ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{
    health::{Fault, Trouble},
    node::Node,
    own_question::OwnQuestion,
    paid::{Paid, afford, spent},
};
use crate::{
    domain::{
        answer::{Blame, Envelope, Lacked, NodeError},
        beacon_form::{Form, is_page},
        call_id::{CallId, Outbound},
        quota,
    },
    metrics::Payer,
    net::{
        http::{Broken, Error, Gate, Head, Post, Progress, Response, Sending, Unread, Upstream},
        link::{self, Link},
        node_connections::Rank,
    },
};

/// Where the id stands in a request of ours, which begins with `{"jsonrpc":"2.0","id":1`.
pub const ID: Range<usize> = 22..23;

/// The error that a node returned to a question of ours, in words without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRefusal {
    /// The JSON-RPC error code; 0 where there was none.
    pub code: i64,
    /// Whether the node offers the method, as far as the error tells.
    pub is_offered: bool,
    /// Whether the node says that a block that the question names, or data of the block, is
    /// lacking.
    pub lacks_data: bool,
    /// The node's own message.
    pub message: String,
    /// For people: the question, and the node's message.
    pub text: String,
}

/// Calls `method` at `node` with `params`, a JSON array. The answer is the text of the result,
/// `null` where there is none, or the error that the node returned. The caller limits the time, as
/// a rule by the clock of `question`.
///
/// # Errors
/// When no JSON-RPC response of at most `max_bytes` came.
pub async fn ask(
    question: OwnQuestion<'_>,
    node: &Node,
    method: &str,
    params: &str,
    max_bytes: usize,
) -> Result<Result<Bytes, NodeRefusal>, Trouble> {
    ask_as(Rank::Own, question, node, method, params, max_bytes).await
}

/// [`ask`] with this rank among the requests that wait for a connection.
///
/// # Errors
/// As [`ask`].
pub(super) async fn ask_as(
    rank: Rank,
    mut question: impl Gate,
    node: &Node,
    method: &str,
    params: &str,
    max_bytes: usize,
) -> Result<Result<Bytes, NodeRefusal>, Trouble> {
    let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let cost = afford(node, method).await?;
    let mut question = Paid::new(&mut question, node, cost, Payer::Own);
    match &node.upstream {
        Some(upstream) => {
            let answer = post(node, upstream, (rank, &mut question), method, request.as_bytes(), max_bytes).await;
            if question.is_refused() { Err(spent()) } else { answer }
        }
        None => {
            // A link carries any number of questions at once.
            poll_fn(|context| question.poll_open(context)).await;
            if question.is_refused() {
                return Err(spent());
            }
            let body = call(node, method, request.as_bytes(), max_bytes).await?;
            let told = told(answer(&body, None, node, method), (200, None), false, node, method);
            told.map_err(|trouble| with_wait(trouble, &body))
        }
    }
}

/// Judges an answer by its HTTP status and by the time for which the node asks to be left alone.
/// `has_no_node`: a gateway's page says that there is no node behind the gateway.
fn told(
    answer: Result<Result<Bytes, (NodeRefusal, bool)>, Trouble>,
    (status, wait): (u16, Option<Duration>),
    has_no_node: bool,
    node: &Node,
    method: &str,
) -> Result<Result<Bytes, NodeRefusal>, Trouble> {
    if is_refusal(status, wait) {
        return Err(refusing(node, &format!("{method}: HTTP status {status}"), wait));
    }
    let refused = |error: NodeRefusal| match status {
        200 => Ok(Err(error)),
        status if says_no(status) => Ok(Err(NodeRefusal { is_offered: false, ..error })),
        _ => Err(failing(node, &format!("{method}: HTTP status {status}"))),
    };
    match answer {
        Ok(Ok(result)) if status == 200 => Ok(Ok(result)),
        Ok(Err((error, true))) => Err(refusing(node, &error.text, wait)),
        Ok(Err((error, false))) => refused(error),
        Err(trouble) if status == 200 || has_no_node || matches!(trouble.fault, Fault::Resting(_)) => Err(trouble),
        Ok(Ok(_)) | Err(_) => {
            let message = format!("HTTP status {status}");
            let text = format!("{method}: {message}");
            refused(NodeRefusal { code: 0, is_offered: false, lacks_data: false, text, message })
        }
    }
}

/// Whether an HTTP status means that the node refuses for quota, or for its load at this moment.
pub fn is_refusal(status: u16, wait: Option<Duration>) -> bool {
    matches!(status, 402 | 429) || (status == 503 && wait.is_some())
}

/// Whether an HTTP status means that the node does not offer the request.
pub fn says_no(status: u16) -> bool {
    matches!(status, 400..=499 | 501) && !matches!(status, 401 | 407 | 408) && !is_refusal(status, None)
}

/// For how long a refusal asks to be left alone.
pub fn wait(head: &Head) -> Option<Duration> {
    if head.status < 300 {
        return None;
    }
    quota::retry_after(&head.header("retry-after")?, head.header("date").as_deref())
}

async fn post(
    node: &Node,
    upstream: &Arc<Upstream>,
    (rank, gate): (Rank, &mut impl Gate),
    method: &str,
    body: &[u8],
    max_bytes: usize,
) -> Result<Result<Bytes, NodeRefusal>, Trouble> {
    let own = upstream.call_id();
    let post = Post {
        headers: &[],
        body: Outbound::new(body, Some(ID), &own),
        sending: Sending::Repeatable,
        rank,
        caller: None,
        in_line: false,
    };
    let outcome = upstream.post(post, gate, &mut Progress::default()).await;
    let mut response = outcome.map_err(|error| trouble(node, &error))?;
    let (status, wait) = (response.head.status, wait(&response.head));
    let body = read(node, method, &mut response, max_bytes).await?;
    let answer = answer(&body, Some(&own), node, method);
    if status == 200 && answer.is_err() {
        // The next bytes on the connection may be the answer to this question.
        response.condemn();
    }
    let is_page = is_page(response.head.header("content-type").as_deref(), &body);
    let has_no_node = is_page && Form::Foreign.is_passing(status);
    told(answer, (status, wait), has_no_node, node, method).map_err(|trouble| with_wait(trouble, &body))
}

/// The trouble with the wait that a refusal asks for in its words, where no header does.
fn with_wait(trouble: Trouble, body: &[u8]) -> Trouble {
    match trouble {
        Trouble { fault: Fault::Resting(None), text } => {
            Trouble { fault: Fault::Resting(quota::wait_in_words(body)), text }
        }
        trouble => trouble,
    }
}

/// Asks over the link. A link that is down is waited for until its next attempt to connect has
/// failed.
async fn call(node: &Node, method: &str, body: &[u8], max_bytes: usize) -> Result<Bytes, Trouble> {
    let Some(link) = &node.link else { return Err(failing(node, "has no URL")) };
    node.linked().await.map_err(|text| Trouble { fault: Fault::Unreachable, text })?;
    let answer = link.call(body, Some(ID)).await;
    if answer.is_ok() {
        node.traffic.probe_settled();
    }
    match answer {
        Ok(answer) if answer.text.len() > max_bytes => Err(too_long(node, method, max_bytes)),
        Ok(answer) => Ok(answer.text),
        Err(link::Error::TooLong) => Err(too_long(node, method, link::MAX_MESSAGE)),
        Err(error) => Err(link_trouble(node, link, error)),
    }
}

/// Reads the answer to the question that was sent with the id `own`; over a link, the link has
/// compared the ids. For an error, returns also whether the error is about quota.
fn answer(
    body: &Bytes,
    own: Option<&CallId>,
    node: &Node,
    method: &str,
) -> Result<Result<Bytes, (NodeRefusal, bool)>, Trouble> {
    /// Not there, or not supported.
    const NOT_OFFERED: [i64; 2] = [-32601, -32004];
    #[derive(Deserialize)]
    struct RpcResponse<'a> {
        #[serde(borrow)]
        result: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<NodeError<'a>>,
    }
    let envelope = Envelope::read(body).map_err(|why| match quota::is_quota_in_words(body) {
        true => refusing(node, &format!("{method}: {}", String::from_utf8_lossy(body)), None),
        false => failing(node, &format!("{method}: {why}")),
    })?;
    let is_foreign = |own: &CallId| envelope.id.is_some_and(|id| !own.is_answered_by(&body[id]));
    if own.is_some_and(is_foreign) {
        return Err(failing(node, &format!("{method}: the answer is to another call")));
    }
    let answer: RpcResponse<'_> = serde_json::from_slice(body)
        .map_err(|_| failing(node, &format!("{method}: the answer is not a JSON-RPC response")))?;
    Ok(match answer {
        RpcResponse { error: Some(error), .. } => {
            let text = node.redact_text(&format!("{method}: error {}: {}", error.code, error.message));
            let is_offered = !NOT_OFFERED.contains(&error.code);
            let is_quota = quota::is_quota(error.code, &error.message);
            let lacks_data = matches!(error.blame(), Blame::Lacking(Lacked::Block | Lacked::Data));
            let (code, message) = (error.code, node.redact_text(&error.message));
            Err((NodeRefusal { code, is_offered, lacks_data, message, text }, is_quota))
        }
        RpcResponse { result: Some(result), .. } => Ok(body.slice_ref(result.get().as_bytes())),
        // `Option` reads a null result as none.
        RpcResponse { .. } => Ok(Bytes::from_static(b"null")),
    })
}

/// The whole body of the answer to `asked`.
pub(super) async fn read(
    node: &Node,
    asked: &str,
    response: &mut Response,
    max_bytes: usize,
) -> Result<Bytes, Trouble> {
    let heard = || node.traffic.touch(Instant::now());
    heard();
    response.whole(max_bytes, heard).await.map_err(|unread| match unread {
        Unread::TooLong => too_long(node, asked, max_bytes),
        Unread::Broken(broken) => trouble(node, &Error::Broken { broken }),
    })
}

fn too_long(node: &Node, asked: &str, max_bytes: usize) -> Trouble {
    failing(node, &format!("{asked}: the answer is longer than {max_bytes} bytes"))
}

/// The trouble with a node whose answer makes no sense.
pub(super) fn failing(node: &Node, text: &str) -> Trouble {
    Trouble { fault: Fault::Failing, text: node.redact_text(text) }
}

/// The trouble with a node that refuses for quota.
pub(super) fn refusing(node: &Node, text: &str, wait: Option<Duration>) -> Trouble {
    Trouble { fault: Fault::Resting(wait), text: node.redact_text(text) }
}

/// The trouble with a node after a failed exchange.
pub fn trouble(node: &Node, error: &Error) -> Trouble {
    let fault = match error {
        Error::Connect(error) if is_ours(error) => Fault::Ours,
        Error::Connect(_) => Fault::Unreachable,
        Error::ConnectTimeout(_) => Fault::Silent,
        Error::NoPlace => Fault::Full,
        // The client is the cause.
        Error::Unwanted => Fault::Ours,
        Error::Broken { broken: Broken::Lost { .. }, .. } => Fault::Dropped,
        Error::Broken { broken: Broken::NotHttp(_), .. } => Fault::Failing,
    };
    Trouble { fault, text: node.redact_text(&error.to_string()) }
}

/// The trouble with a node whose link did not bring a call back.
pub fn link_trouble(node: &Node, link: &Link, error: link::Error) -> Trouble {
    match error {
        // The node reads nothing, or more calls came at once than can wait.
        link::Error::NotSent if link.is_up() => {
            Trouble { fault: Fault::Silent, text: "too much waits to be written to the link".to_owned() }
        }
        link::Error::NotSent => Trouble { fault: Fault::Unreachable, text: node.why_link_is_down() },
        link::Error::Lost => Trouble { fault: Fault::Dropped, text: node.why_link_is_down() },
        link::Error::TooLong => failing(node, &error.to_string()),
    }
}

/// Whether a connection failed because this machine ran out of something: descriptors, ports,
/// buffers or memory.
fn is_ours(error: &std::io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = if cfg!(target_os = "linux") { 105 } else { 55 };
    matches!(error.kind(), std::io::ErrorKind::AddrNotAvailable | std::io::ErrorKind::OutOfMemory)
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_this_machine_does_not_count_against_a_node() {
        for (code, ours) in [(24, true), (23, true), (111, false), (113, false)] {
            assert_eq!(is_ours(&std::io::Error::from_raw_os_error(code)), ours, "{code}");
        }
    }
}
