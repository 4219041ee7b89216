//! An attempt at one consensus node: the outcome, and whether client or node is to blame.

use std::{io, sync::Arc, time::Duration};

use http::{HeaderMap, Method, header};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{
    answer::{Answer, Hold},
    room::Room,
    time_limit::{TimeLimit, is_urgent, is_wanted_whole},
    upload::Upload,
};
use crate::{
    domain::{
        beacon_form::{Form, Wanted},
        beacon_route::{Class, Route},
        client::Peer,
        node_id::NodeId,
        subject::{Kept, Subject},
        target::Target,
    },
    exchange::{attempt_count::Count, pick::Pick, trace::Trace},
    metrics::{AttemptOutcome, Payer},
    net::{
        http::{Body, Error, Progress, Request as Upstreamed, Response, Sending, Timeouts},
        node_connections::{Caller, Rank},
    },
    pool::{
        Pool,
        ask::{is_refusal, trouble, wait},
        health::{Fault, Trouble},
        node::Node,
        own_question::OwnQuestion,
        paid::Paid,
        resting::Kind,
    },
};

/// How long the head of an answer may take where the work may be long: nodes have worked on states
/// for nine minutes. A dead node is found sooner, by its silence to probes.
const HEAD: Duration = Duration::from_secs(15 * 60);
/// How long a node may take none of the body.
const IDLE: Duration = Duration::from_secs(30);
/// The age, in slots, at which every healthy node has long had a block.
pub(super) const OLD: u64 = 64;
/// How long a node that went out is still waited for, when the request must not go to another node.
const OUT_NODE_TIMEOUT: Duration = Duration::from_secs(10);

/// A request to the beacon API, but for its body.
#[derive(Clone, Debug)]
pub struct Request {
    /// The rules for the request.
    pub route: Route,
    /// The HTTP method.
    pub method: Method,
    /// Path, from `/eth/` on, and query.
    pub target: Target,
    /// The headers that nodes get.
    pub headers: HeaderMap,
    /// The client's connection, which has a share of the connections to nodes; `None` for a request
    /// of our own.
    pub caller: Option<Arc<Caller>>,
    /// The client's address, where that is known; `None` for a request of our own.
    pub client: Option<Peer>,
    /// The notes for the request's line in the access log, if the request has a line.
    pub trace: Option<Arc<Trace>>,
    /// The nodes that the caller picked for a read.
    pub pick: Option<Box<Pick>>,
}

impl Request {
    /// The request without the codings that the client takes: the proxy reads the answer.
    pub(super) fn readable(&self) -> Self {
        let mut request = self.clone();
        request.headers.remove(header::ACCEPT_ENCODING);
        request
    }
}

/// The outcome of an attempt.
pub(super) enum Sent {
    /// An answer for the client.
    Answered(Answer),
    /// A bad answer that is due to the node, in this form: another node may have a better one, and
    /// then this node may be to blame. The request had no effect.
    OfTheNode(Answer, Form, Option<Trouble>),
    /// The node refused the request for quota or room, and may have given a time to wait. The
    /// request had no effect.
    Refused(Answer, Option<Duration>),
    /// No byte of the request left; with evidence against the node, if there is any.
    Nothing(Option<Trouble>),
    /// The request may have arrived, and no answer came; with evidence against the node, if there
    /// is any.
    Lost(Option<Trouble>),
    /// No answer came in time.
    Late(Trouble),
    /// The client did not send the whole body.
    Unsent(io::Error),
}

impl Sent {
    /// The evidence against the node in words, if there is any.
    fn words(&self) -> Option<&str> {
        match self {
            Self::OfTheNode(_, _, trouble) | Self::Nothing(trouble) | Self::Lost(trouble) => {
                trouble.as_ref().map(|trouble| &*trouble.text)
            }
            Self::Late(trouble) => Some(&trouble.text),
            Self::Answered(_) | Self::Refused(..) | Self::Unsent(_) => None,
        }
    }

    /// Whether a node says in the API's form that the request is at fault, or that the node does
    /// not have the data.
    pub(super) fn blames_the_request(&self) -> bool {
        match self {
            Self::Answered(answer) | Self::OfTheNode(answer, Form::Node, _) => {
                (400..500).contains(&answer.status) && !matches!(answer.status, 401 | 403 | 407 | 408)
            }
            _ => false,
        }
    }

    /// Whether the node failed for a reason that may pass within the time of a request: the node
    /// was busy, could not be reached, was lost, or a gateway answered in its place.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::OfTheNode(answer, form, _) => !matches!(answer.status, 500 | 501) && form.is_passing(answer.status),
            Self::Refused(..) | Self::Nothing(_) | Self::Lost(_) => true,
            Self::Answered(_) | Self::Late(_) | Self::Unsent(_) => false,
        }
    }
}

/// Sends `request` to one node of `pool`, and has the pool note how the node did.
///
/// A request whose work is not long, and that may go to another node, must be answered within
/// `time_limit`.
pub(super) async fn attempt(
    pool: &Arc<Pool>,
    index: NodeId,
    request: &Request,
    upload: &mut Upload,
    time_limit: Duration,
) -> Sent {
    attempt_holding(pool, index, request, upload, time_limit, None).await
}

/// [`attempt`], with `room` for an answer that is useless unless whole, and for long words.
pub(super) async fn attempt_holding(
    pool: &Arc<Pool>,
    index: NodeId,
    request: &Request,
    upload: &mut Upload,
    time_limit: Duration,
    room: Option<&Arc<Room>>,
) -> Sent {
    let node = &pool.nodes[index];
    let started = Instant::now();
    let mut count = Count::new(node, kind(request).id(), started, request.trace.as_deref());
    let repeatable = request.route.is_repeatable();
    let goes_out = node.goes_out();
    if node.is_out() {
        // The node went out after the choice.
        return Sent::Nothing(None);
    }
    if let Some(trace) = &request.trace {
        trace.asked(&node.name);
    }
    let headers = count.headers(&request.headers);
    // A client's request that waits for a connection is counted as one that waits.
    let _owed = request.caller.is_some().then(|| node.traffic.track(started));
    let out = async {
        goes_out.await;
        if !repeatable {
            sleep(OUT_NODE_TIMEOUT).await;
        }
    };
    // Both arms are cancel-safe: an exchange given up closes its connection.
    let sent = tokio::select! {
        biased;
        sent = exchange(pool, index, request, headers.as_ref(), upload, time_limit, room) => {
            count.outcome = match &sent {
                Sent::Answered(_) => AttemptOutcome::Answered,
                Sent::OfTheNode(..) => AttemptOutcome::NodeFault,
                Sent::Refused(..) => AttemptOutcome::Refused,
                Sent::Nothing(_) => AttemptOutcome::Unreachable,
                Sent::Lost(_) => AttemptOutcome::Dropped,
                Sent::Late(_) => AttemptOutcome::Timeout,
                Sent::Unsent(_) => AttemptOutcome::Abandoned,
            };
            count.failed(sent.words());
            sent
        }
        () = out => Sent::Lost(None),
    };
    drop(count);
    match &sent {
        Sent::Nothing(Some(trouble)) => pool.call_failed(index, kind(request), trouble.clone(), None),
        // The request itself may have made the node drop the connection, so the node is only
        // probed.
        Sent::Lost(Some(_)) => pool.probe_now(index),
        // Requests for all nodes are refused for limits of their own, as a relay's.
        Sent::Refused(..) if request.route.class == Class::Everywhere => {}
        Sent::Refused(_, wait) => pool.call_refused(index, kind(request), longest_rest(pool, request, *wait)),
        Sent::Answered(_) => pool.call_answered_since(index, kind(request), started),
        _ => {}
    }
    sent
}

async fn exchange(
    pool: &Arc<Pool>,
    index: NodeId,
    request: &Request,
    headers: Option<&HeaderMap>,
    upload: &mut Upload,
    time_limit: Duration,
    room: Option<&Arc<Room>>,
) -> Sent {
    let node = &pool.nodes[index];
    let began = Instant::now();
    let is_endless = matches!(TimeLimit::of(request), TimeLimit::Long | TimeLimit::Work);
    let limit = if is_endless { HEAD } else { time_limit };
    let late = || {
        let text = format!("no answer to a request within {limit:?}");
        Sent::Late(Trouble { fault: Fault::Silent, text })
    };
    let mut progress = Progress::default();
    let outcome = ask(node, request, headers, upload, limit, &mut progress).await;
    if let Some(error) = upload.failure() {
        return Sent::Unsent(error);
    }
    let response = match outcome {
        // The node takes no more connections, which is no silence.
        None if progress.waits => return Sent::Nothing(Some(Trouble::full())),
        None => return late(),
        Some(Ok(response)) => response,
        Some(Err(error)) if error.may_have_arrived() => return Sent::Lost(Some(trouble(node, &error))),
        Some(Err(error)) => return Sent::Nothing(Some(trouble(node, &error))),
    };
    node.traffic.touch(Instant::now());
    let wait = wait(&response.head);
    let hold = match () {
        () if is_message(request) => Hold::Word,
        () if is_wanted_whole(request) => Hold::Whole,
        () => Hold::Begin,
    };
    let read = Answer::read(response, pool, index, room.map(|room| room.answer(request.client)), hold);
    // The part of the answer that is held has the same time as the answer's head.
    let read = if is_endless { Ok(read.await) } else { timeout_at(began + limit, read).await };
    let Ok(read) = read else { return late() };
    match read {
        Ok(mut answer) => {
            answer.notes_sending(progress.again);
            classify(request, answer, wait, pool.snapshot().head.unwrap_or(0))
        }
        Err(broken) => Sent::Lost(Some(trouble(node, &Error::Broken { broken }))),
    }
}

/// Sends the request, with `headers` in the place of its own if there are any, and waits for the
/// head of the response; `None` when that took too long.
async fn ask(
    node: &Node,
    request: &Request,
    headers: Option<&HeaderMap>,
    upload: &mut Upload,
    limit: Duration,
    progress: &mut Progress,
) -> Option<Result<Response, Error>> {
    let Some(upstream) = &node.upstream else {
        return Some(Err(Error::Connect(io::Error::other("it has no HTTP URL"))));
    };
    let body = upload.body();
    let timeouts = Timeouts { idle: IDLE, head: limit };
    let is_streamed = matches!(body, Body::Streamed { .. });
    let head = Upstreamed {
        method: &request.method,
        target: &request.target,
        headers: headers.unwrap_or(&request.headers),
        // A signed message means the same when it comes twice, so a used connection will do.
        sending: match request.route.class {
            Class::Publish if is_streamed => Sending::Once,
            Class::Read | Class::Everywhere | Class::Publish => Sending::Repeatable,
            Class::Once => Sending::Once,
        },
        // Without a client the request is ours.
        rank: if request.caller.is_some() { Rank::Call } else { Rank::Own },
        caller: request.caller.as_ref(),
    };
    let mut own = request.caller.is_none().then(|| OwnQuestion::new(None, Some(&node.traffic)));
    let payer = if own.is_some() { Payer::Own } else { Payer::Call };
    let mut gate = Paid::new(&mut own, node, node.cost(""), payer);
    let asked = upstream.request(head, body, timeouts, &mut gate, progress);
    // A streamed body takes the time that the client needs to send; the node's share of the time is
    // bounded by `timeouts`.
    if is_streamed { Some(asked.await) } else { timeout(limit, asked).await.ok() }
}

/// Whether the request says something to nodes, whose success is a few words.
fn is_message(request: &Request) -> bool {
    matches!(request.route.class, Class::Publish | Class::Everywhere)
}

/// The content that a success of the request with this status must have.
fn wanted(request: &Request, status: u16) -> Wanted {
    let path = request.target.path();
    let is_status = matches!(request.method, Method::HEAD | Method::OPTIONS) || path.ends_with("/node/health");
    // The node says by 204 that it has seen no block, and that there is nothing to attest.
    let is_no_block = status == 204 && path.ends_with("/validator/payload_attestation_data");
    match () {
        () if is_status || is_no_block => Wanted::Status,
        () if is_message(request) => Wanted::Success,
        () if request.route.has_data => Wanted::Data,
        () => Wanted::Content,
    }
}

/// Whether a status says that this node lacks data that another may have: the node has pruned the
/// data, never had them, or does not offer the route.
fn lacks(request: &Request, status: u16, head: u64) -> bool {
    let route = &request.route;
    if route.class != Class::Read {
        return false;
    }
    match status {
        // Nimbus says 400 for want of an aggregate, a block or a state, and where its own clock is
        // late.
        400 | 405 => true,
        404 | 410 => match Subject::of(request.target.path(), 1) {
            Some(Subject { kept: Kept::Blobs | Kept::States, .. }) => true,
            // A recent slot without a block is for the client to judge: the request may have come
            // too soon, or too late.
            Some(subject @ Subject { kept: Kept::Blocks, id, .. }) => id.starts_with("0x") || subject.is_old(head, OLD),
            // Nodes of other versions offer other routes. A 404 for the genesis is an answer.
            None => matches!(route.group, "config" | "debug" | "light_client" | "rewards" | "validator"),
        },
        _ => false,
    }
}

/// The kind of requests that a node refuses together with this one.
pub(super) fn kind(request: &Request) -> Kind {
    Kind::of_route(&request.route)
}

/// How long the node rests that asks to be left alone for `wait`. The next duty comes sooner than
/// a gateway's limit ends, so such a request is tried again within a slot.
fn longest_rest(pool: &Pool, request: &Request, wait: Option<Duration>) -> Option<Duration> {
    if is_urgent(request) { wait.map(|wait| wait.min(pool.slot() / 4)) } else { wait }
}

/// Whether client or node is to blame for an answer, where the chain is at `head`.
fn classify(request: &Request, answer: Answer, wait: Option<Duration>, head: u64) -> Sent {
    let status = answer.status;
    if is_refusal(status, wait) && request.route.class != Class::Once {
        return Sent::Refused(answer, wait);
    }
    let form = answer.form(wanted(request, status));
    let is_no_word = form != Form::Node;
    let is_of_the_proxy = || !request.headers.contains_key(header::AUTHORIZATION);
    let of_the_node = match request.route.class {
        // Of a node's health the status is the answer. A refusal for want of credentials: unless
        // the client sent its own, another node may accept the proxy's.
        Class::Read | Class::Everywhere => match status {
            // A redirect goes to an address as the node sees itself; a client knows only the proxy.
            300..=303 | 305..=399 | 408 | 500.. => true,
            401 | 403 | 407 => is_no_word || is_of_the_proxy(),
            _ => is_no_word || lacks(request, status, head),
        },
        // The same message may be given to another node, after any failure of this node or of a
        // gateway before it. Only a node's judgement of the message itself is final.
        Class::Publish => match status {
            200..=299 | 400 | 409 | 422 => is_no_word,
            401 | 403 | 407 => is_no_word || is_of_the_proxy(),
            _ => true,
        },
        Class::Once => false,
    };
    if !of_the_node {
        return Sent::Answered(answer);
    }
    // In the API's own form it is the node that speaks, of this request; otherwise what stands
    // before it, or a node that is not well. A 4xx may be due to the request all the same.
    let trouble = matches!(status, ..400 | 500..).then(|| Trouble {
        fault: if form == Form::Foreign { Fault::Failing } else { Fault::Erring },
        text: format!("a request was answered with HTTP status {status}, which another node could answer"),
    });
    Sent::OfTheNode(answer, form, trouble)
}
