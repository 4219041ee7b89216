//! Requests of every other shape, served by hyper: other methods, web pages (with an `Origin`), bodies in chunks, and all that is
//! malformed or too long. Requests to the beacon API go on to the door that answers them, and connections that are to go on as
//! WebSockets to the door that takes them over.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioTimer;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, timeout},
};

use super::{
    ARRIVAL, IDLE, STALL, Service, answer,
    reply::{Content, Reply},
    stall::Stall,
};
use crate::{
    call::alarm::Alarm,
    domain::refusal::Refusal,
    door::{
        Admitted, NotAdmitted, Takeover,
        readiness::{Detail, Readiness},
        site::Site,
    },
    net::{BoxIo, exchange::Broken},
};

/// How a connection ends here.
pub(super) enum Ended {
    Closed,
    /// Another door has it from here on.
    TakenOver {
        io: BoxIo,
        read: Bytes,
        by: Takeover,
    },
}

/// Serves the connection from here to its end, or until it is taken over.
pub(super) async fn serve(io: BoxIo, read: Bytes, service: &Service) -> Result<Ended, hyper::Error> {
    let taken = Mutex::new(None);
    let respond = service_fn(|request| {
        let taken = &taken;
        Box::pin(async move {
            let site = service.site.load_full();
            Ok::<_, Infallible>(if asks_to_switch(&request) && site.websockets(request.uri().path()).is_some() {
                let admitted = service.usher.admit(&site, &request, forwarded(&site, request.headers()));
                switch(admitted, taken)
            } else {
                respond(site, request, service).await
            })
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(Stall::new(io, read, STALL), respond);
    let mut closing = service.closing.clone();
    // Both arms are cancel-safe; after the second, the first goes on alone.
    let ended = tokio::select! {
        biased;
        outcome = poll_fn(|context| connection.poll_without_shutdown(context)) => Some(outcome),
        _ = closing.wait_for(|closing| *closing) => None,
    };
    if ended.transpose()?.is_none() {
        Pin::new(&mut connection).graceful_shutdown();
        poll_fn(|context| connection.poll_without_shutdown(context)).await?;
    }
    let parts = connection.into_parts();
    let (io, unread) = parts.io.into_parts();
    let by = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(match by {
        // What hyper has read comes before what was not given to it.
        Some(by) => Ended::TakenOver { io, read: [parts.read_buf, unread].concat().into(), by },
        None => {
            let mut io = io;
            // The client may be gone already.
            let _ = timeout(STALL, io.shutdown()).await;
            Ended::Closed
        }
    })
}

/// Whether the request asks to go on as a WebSocket.
fn asks_to_switch(request: &Request<Incoming>) -> bool {
    let asked = request.headers().get_all(header::UPGRADE).iter();
    request.method() == Method::GET && asked.flat_map(|value| value.as_bytes().split(|&b| b == b',')).any(is_websocket)
}

fn is_websocket(protocol: &[u8]) -> bool {
    protocol.trim_ascii().eq_ignore_ascii_case(b"websocket")
}

/// Answers a request to switch; who takes the connection over is left in `taken`.
fn switch(admitted: Result<Admitted, NotAdmitted>, taken: &Mutex<Option<Takeover>>) -> Response<Streamed> {
    match admitted {
        Ok(Admitted { headers, takeover }) => {
            let mut response = plain(StatusCode::SWITCHING_PROTOCOLS, "");
            response.headers_mut().extend(headers.into_iter().map(|(name, value)| (Some(name), value)));
            *taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover);
            response
        }
        Err(NotAdmitted { status, why, hint }) => {
            let mut response = plain(status, why);
            if let Some((name, value)) = hint {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            response
        }
    }
}

async fn respond(site: Arc<Site>, request: Request<Incoming>, service: &Service) -> Response<Streamed> {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin.as_ref().filter(|origin| site.origins.allow(origin.as_bytes())).cloned();
    let is_beacon = site.beacon(request.uri().path()).is_some();
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, path) if let Some(part) = health_of(path) => {
            health(&service.readiness, part, request.uri().query())
        }
        (&Method::OPTIONS, _) if is_beacon && allowed.is_some() => preflight(&request, "GET, HEAD, POST, DELETE"),
        _ if is_beacon => (service.beacon)(site, request).await.map(|piped| Streamed::new(Content::Piped(piped))),
        (_, path) if site.calls(path).is_none() => plain(StatusCode::NOT_FOUND, "no such network\n"),
        (&Method::OPTIONS, _) if allowed.is_some() => preflight(&request, "POST"),
        (&Method::POST, _) if origin.is_some() && allowed.is_none() && !is_json(request.headers()) => {
            // Any web page could have sent it without asking first.
            plain(StatusCode::FORBIDDEN, "a web page of this origin may not call here; see cors.origins\n")
        }
        (&Method::POST, _) => call(&site, request).await,
        _ => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "calls are sent by POST\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            response
        }
    };
    if let Some(origin) = allowed {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if is_beacon {
            // The version of a block's fork, for one, stands in a header only.
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        }
    }
    response
}

async fn call(site: &Site, request: Request<Incoming>) -> Response<Streamed> {
    let arrived = Instant::now();
    let Some(calls) = site.calls(request.uri().path()).cloned() else {
        return plain(StatusCode::NOT_FOUND, "no such network\n");
    };
    let headers = forwarded(site, request.headers());
    match collect(request.into_body(), site.max_body).await {
        Ok(body) => {
            let reply = answer(&calls, body, &headers, arrived, &mut Alarm::default()).await;
            framed(reply)
        }
        Err(Unread::TooLong) => {
            let mut response = framed(Reply::refused(&Refusal::Limit { name: "max_body", limit: site.max_body }, None));
            // The rest of the body is not waited for.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
        Err(Unread::Lost) => plain(StatusCode::BAD_REQUEST, "the body did not come whole\n"),
        Err(Unread::Late) => plain(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"),
    }
}

enum Unread {
    TooLong,
    Lost,
    Late,
}

async fn collect(mut body: Incoming, limit: usize) -> Result<Bytes, Unread> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Unread::TooLong);
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = timeout(ARRIVAL, body.frame()).await.map_err(|_| Unread::Late)? {
        let Ok(piece) = frame.map_err(|_| Unread::Lost)?.into_data() else { continue };
        if whole.len() + piece.len() > limit {
            return Err(Unread::TooLong);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// The lines to send along: neither hop-by-hop ones nor those that `Connection` names.
fn forwarded(site: &Site, headers: &HeaderMap) -> Vec<u8> {
    let named = |name: &str| {
        headers.get_all(header::CONNECTION).iter().any(|value| {
            value
                .as_bytes()
                .split(|&b| b == b',')
                .any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
        })
    };
    let mut lines = Vec::new();
    for (name, value) in headers.iter().filter(|(name, _)| site.forwards(name.as_str()) && !named(name.as_str())) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
    lines
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    kind.split(|&b| b == b';').next().is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"application/json"))
}

fn preflight(request: &Request<Incoming>, methods: &'static str) -> Response<Streamed> {
    let mut response = plain(StatusCode::NO_CONTENT, "");
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    if let Some(asked) = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    response
}

/// What follows `/health` in a path that asks for it.
fn health_of(path: &str) -> Option<&str> {
    path.strip_prefix("/health").filter(|part| part.is_empty() || part.starts_with('/'))
}

fn health(readiness: &Readiness, part: &str, query: Option<&str>) -> Response<Streamed> {
    let (status, told) = readiness.answer(part, query, Detail::Verdicts);
    let mut response = Response::new(Streamed::new(Content::Ready(format!("{told:#}\n").into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Streamed> {
    let mut response = Response::new(Streamed::new(Content::Ready(Bytes::from_static(text.as_bytes()))));
    *response.status_mut() = status;
    if !text.is_empty() {
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    response
}

fn framed(reply: Reply) -> Response<Streamed> {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::OK);
    let later = reply.retry_after;
    let mut response = Response::new(Streamed::new(reply.body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = later {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// A reply's content as hyper wants it, with a deadline on each further piece.
struct Streamed {
    content: Content,
    alarm: Alarm,
    due: Option<Instant>,
}

impl Streamed {
    fn new(content: Content) -> Self {
        Self { content, alarm: Alarm::default(), due: None }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Self { content, alarm, due } = &mut *self;
        content.poll_in_time(context, alarm, due).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.content.length() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.content.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
