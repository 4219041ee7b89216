//! An execution node's port: JSON-RPC over HTTP, and WebSockets on the same port, whatever the
//! path.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    eth::{self, Context},
    fault::{Fault, Faults},
    hanging_io::HangingIo,
    http::{self as answers, Body},
    node::{Dropped, Node},
    record::Transport,
    rpc::{self, Answer, Call, Label, Message, RpcError},
    ws,
};

/// Blobs above this are streamed, and so of unknown length.
const WHOLE_BLOB: u64 = 1 << 20;
/// Largest blob in a batch or a WebSocket message, and largest at all.
const MOST_HELD_BLOB: u64 = 64 << 20;
const MOST_BLOB: u64 = 16 << 30;

/// A WebSocket to be, once the answer 101 is written.
type Upgrade = Arc<Mutex<Option<(OnUpgrade, Arc<HeaderMap>)>>>;

/// Serves one connection until it ends.
pub(super) async fn serve(node: Arc<Node>, io: HangingIo) {
    let upgrade = Upgrade::default();
    let service = service_fn(|request| handle(node.clone(), request, upgrade.clone()));
    let mut server = http1::Builder::new();
    server.header_read_timeout(None);
    // A client that goes away, and a fault that drops the connection, are no errors here.
    let _ = server.serve_connection(TokioIo::new(io), service).with_upgrades().await;
    let upgrade = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((upgraded, headers)) = upgrade
        && let Ok(io) = upgraded.await
    {
        ws::run(node, TokioIo::new(io), headers).await;
    }
}

async fn handle(node: Arc<Node>, mut request: Request<Incoming>, upgrade: Upgrade) -> Result<Response<Body>, Dropped> {
    if let Some(key) = websocket_key(request.headers()) {
        let faults = node.admit(Duration::ZERO).await?;
        if let Some(refusal) = answers::refusal(&faults) {
            return Ok(refusal);
        }
        let headers = answers::shared(request.headers());
        let slot = hyper::upgrade::on(&mut request);
        *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some((slot, headers));
        return Ok(switching(&key));
    }
    if request.method() != Method::POST {
        return Ok(answers::answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "POST a JSON-RPC request\n"));
    }
    let (head, body) = request.into_parts();
    let Some(body) = answers::read(body).await else {
        return Ok(answers::answer(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", "content length too large\n"));
    };
    let message = Message::parse(&body);
    record(&node, Transport::Http, &message, &Arc::new(head.headers));
    let wish = sleep_wish(&node.faults(), &message);
    let faults = node.admit(wish).await?;
    if let Some(refusal) = answers::refusal(&faults) {
        return Ok(refusal);
    }
    if let Some((.., retry_after)) = faults.credits()
        && !node.spends(&faults, message.calls().count())
    {
        return Ok(answers::too_many(retry_after));
    }
    let ordered = message.calls().find_map(|call| faults.http_status(&call.method, params(call)));
    if let Some(status) = ordered.and_then(|status| StatusCode::from_u16(status).ok()) {
        return Ok(answers::answer(status, "text/plain", "by order of the devnet\n"));
    }
    let mut response = execute(&node, &faults, &message);
    if faults.has(&Fault::Gzip) {
        response = answers::gzipped(response).await;
    }
    if cuts(&faults, &message) {
        return Err(Dropped);
    }
    if faults.has(&Fault::CutMidBody) { Ok(answers::cut(response).await) } else { Ok(response) }
}

fn execute(node: &Arc<Node>, faults: &Faults, message: &Message) -> Response<Body> {
    let mut context = Context::new(node, faults, None);
    if let Some((label, length)) = single_blob(message, faults) {
        if length > MOST_BLOB {
            return answers::json(StatusCode::OK, message.answer(|_| RpcError::params("blob too large").into()));
        }
        let pieces = std::iter::once(Bytes::from(rpc::blob_head(&label)))
            .chain(rpc::blob(length))
            .chain(std::iter::once(Bytes::from_static(rpc::BLOB_TAIL.as_bytes())));
        return answers::streamed("application/json", stream::iter(pieces.map(Ok)));
    }
    answers::json(StatusCode::OK, message.answer_as(|call| label(faults, call), |call| held(context.answer(call))))
}

/// The id that the answer to the call carries.
pub(super) fn label(faults: &Faults, call: &Call) -> Label {
    faults.label(&call.method, params(call))
}

/// The label and length of a blob that is to be streamed.
fn single_blob(message: &Message, faults: &Faults) -> Option<(String, u64)> {
    let Message::One(rpc::Item::Call(call)) = message else { return None };
    if call.method != "dev_blob" || faults.rpc_error().is_some() {
        return None;
    }
    let length = super::params::Params::of(call).ok()?.number(0).ok()?;
    (length > WHOLE_BLOB).then_some((call.label(label(faults, call))?, length))
}

/// The answer, or an error if the answer is too large to be held in memory.
pub(super) fn held(answer: Answer) -> Answer {
    match answer {
        Answer::Blob(length) if length > MOST_HELD_BLOB => RpcError::params("blob too large here").into(),
        answer => answer,
    }
}

pub(super) fn record(node: &Node, transport: Transport, message: &Message, headers: &Arc<HeaderMap>) {
    for call in message.calls() {
        node.records.add(transport, &call.method, params(call), headers);
    }
}

/// The extra time that the message's calls take, in sum: the sleep that a call asks for, and the
/// delay that faults add to its method.
pub(super) fn sleep_wish(faults: &Faults, message: &Message) -> Duration {
    message.calls().map(|call| eth::sleep_wish(call) + faults.slow_over(&call.method, params(call))).sum()
}

/// Whether a fault loses the answer to this message.
pub(super) fn cuts(faults: &Faults, message: &Message) -> bool {
    message.calls().any(|call| faults.cuts(&call.method, params(call)))
}

fn params(call: &Call) -> &str {
    call.params.as_ref().map_or("", |params| params.get())
}

/// The key of a request to open a WebSocket.
fn websocket_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let upgrade = headers.get(header::UPGRADE)?.as_bytes();
    if !upgrade.eq_ignore_ascii_case(b"websocket") {
        return None;
    }
    headers.get(header::SEC_WEBSOCKET_KEY).cloned()
}

fn switching(key: &HeaderValue) -> Response<Body> {
    let mut response = answers::answer(StatusCode::SWITCHING_PROTOCOLS, "text/plain", "");
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}
