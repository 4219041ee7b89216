//! Requests of every other shape, served by hyper: other methods, web pages (with an `Origin`),
//! bodies in chunks, and all requests that are malformed, too long or to be refused. Requests to
//! the beacon API go on to the door that answers them, and connections that become WebSockets to
//! the door that takes them over.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    task::{Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    Asker, Client, IDLE, STALL, Service, answer,
    bridge::{Bridge, End, Refusal as Refused, Rest, STAND_IN, Watch, bridge},
    collect::{Unread, collect},
    compress::Wanted,
    cut, gate,
    reply::{Content, Reply},
    streamed::Streamed,
};
use crate::{
    call::{alarm::Alarm, outbox_calls::Passed},
    domain::{client::Peer, refusal::Refusal},
    door::{
        self, Admitted, NotAdmitted, Takeover,
        access_log::Line,
        crowd::Seated,
        last_words,
        readiness::{Detail, Readiness},
        site::Site,
        stall::Stall,
    },
    exchange::pick::NODE_HEADER,
    memory::Cut,
    net::BoxIo,
};

/// The end of a connection in hyper.
pub(super) enum Ended {
    Closed,
    /// Another door serves the connection from here on.
    TakenOver {
        io: BoxIo,
        read: Bytes,
        by: Takeover,
    },
}

/// How long a read of the beacon API goes on that has no answer yet when the client closes its
/// side. Clients that give up look the same as scripts that close their side and wait.
const LEFT: Duration = Duration::from_secs(5);
/// The longest head of a request, without a long query; also the size of one read.
const MAX_REQUEST_HEAD: usize = 64 * 1024;
/// Serves the connection from here to its end, or until another door takes over.
pub(super) async fn serve(
    io: BoxIo,
    read: Bytes,
    service: &Service,
    client: Client<'_>,
) -> Result<Ended, hyper::Error> {
    let Client { memory, caller, place, peer } = client;
    let taken = Mutex::new(None);
    let (bridge, watch) = bridge(Stall::new(io, read, STALL), service.long_lines.clone(), memory.incoming());
    let respond = service_fn(|mut request: Request<Incoming>| {
        let (turn, long) = watch.begin(request.body().size_hint().exact());
        if let Some(long) = long.filter(|_| request.uri().query() == Some(STAND_IN)) {
            request.extensions_mut().insert(long);
        }
        let (taken, watch) = (&taken, &watch);
        Box::pin(async move {
            // Doors do not know each other: a request to another door carries account and client
            // along.
            request.extensions_mut().insert(memory.clone());
            request.extensions_mut().insert(caller.clone());
            let whole = request.body().is_end_stream();
            let asked = place.asked();
            // The code that takes a body notes when the body is whole.
            request.extensions_mut().insert(asked.seated().clone());
            if whole && !asked.seated().begins() {
                // The connection is ended in this moment.
                pending::<()>().await;
            } else if !whole {
                place.refreshes(Instant::now());
            }
            let line = line(service, peer, &mut request);
            let compressing = compressing(service, &request);
            let mut response = answered(service, request, watch, taken, peer).await;
            // An answer that has begun may take longer.
            watch.reads(false);
            if let Some((site, wanted, method)) = compressing {
                let client = caller.address();
                service.encoders.compress(&mut response, &wanted, &method, &site.compression, client);
            }
            response.body_mut().line = line.map(|mut line| {
                line.status = Some(response.status().as_u16());
                line
            });
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                // The connection has a place at the other door already.
                place.leave();
            } else if watch.has_left() && !asked.seated().begins() {
                // The client had closed its side, and the connection is ended for another.
                pending::<()>().await;
            }
            response.body().running().inspect(|running| watch.runs(running));
            response.body_mut().turn = Some((turn, asked));
            if response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream") {
                watch.streams();
            }
            if !whole && (response.status().is_client_error() || response.status().is_server_error()) {
                watch.linger();
            }
            Ok::<_, Infallible>(response)
        })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .half_close(true)
        // Otherwise hyper copies pieces together and advances over them before they are written,
        // which would notify receipts too early.
        .writev(true)
        .max_buf_size(MAX_REQUEST_HEAD)
        .serve_connection(bridge, respond);
    let mut closing = service.closing.clone();
    // Both arms are cancel-safe; after the second arm, the first goes on alone.
    let driven = tokio::select! {
        biased;
        driven = drive(&mut connection, &watch, client) => Some(driven),
        _ = closing.wait_for(|closing| *closing) => None,
    };
    let driven = match driven {
        Some(driven) => driven,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            drive(&mut connection, &watch, client).await
        }
    };
    let unparsed = connection.into_parts().read_buf;
    let by = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
    let outcome = match driven {
        Driven::Lost => return Ok(Ended::Closed),
        Driven::Cut(why) => {
            service.cut_off(why);
            return Ok(Ended::Closed);
        }
        Driven::Over(outcome) => outcome,
    };
    let is_wrong = outcome.as_ref().is_err_and(hyper::Error::is_parse);
    let Rest { mut io, read, unwritten, refusal, lingers, too_slow } = watch.finish(is_wrong);
    too_slow.inspect(|why| service.metrics.client_ended(*why));
    if let Some(by) = by.filter(|_| outcome.is_ok()) {
        // Bytes that hyper has read come before bytes that hyper was not given.
        return Ok(Ended::TakenOver { io, read: [unparsed, read].concat().into(), by });
    }
    let last = refusal.map_or(unwritten, |refusal| in_our_form(&refusal).into());
    last_words::say(&mut io, &last, lingers).await;
    outcome.map(|()| Ended::Closed)
}

/// The end of a connection while hyper serves the connection.
enum Driven {
    Over(Result<(), hyper::Error>),
    /// The client is gone.
    Lost,
    /// The connection's memory or place is needed for others.
    Cut(Cut),
}

async fn drive<S, F>(connection: &mut http1::Connection<Bridge, S>, watch: &Watch, client: Client<'_>) -> Driven
where
    S: hyper::service::HttpService<Incoming, ResBody = Streamed, Future = F> + Unpin,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: Unpin,
{
    let mut stalled: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|context| {
        loop {
            if let Poll::Ready(outcome) = connection.poll_without_shutdown(context) {
                return Poll::Ready(Driven::Over(outcome));
            }
            // hyper does not drive these while the client takes earlier bytes.
            watch.go_on(context);
            // A call, or the collection of its body, has polled this before, and is answered with a
            // refusal.
            if let Poll::Ready(why) = client.memory.poll_cut(context) {
                return Poll::Ready(Driven::Cut(why));
            }
            match watch.poll_end(context) {
                Poll::Pending => {}
                // The call under way may look at [`Watch::left`].
                Poll::Ready(End::Half) => {
                    client.place.departs();
                    watch.take_written();
                    stalled = Some(Box::pin(sleep(if watch.is_read() { LEFT } else { STALL })));
                    continue;
                }
                Poll::Ready(End::Lost) => return Poll::Ready(Driven::Lost),
            }
            let Some(stalled) = &mut stalled else { return Poll::Pending };
            ready!(stalled.as_mut().poll(context));
            if !watch.take_written() {
                return Poll::Ready(Driven::Lost);
            }
            stalled.set(sleep(STALL));
        }
    })
    .await
}

/// The refusal for a request that hyper refused, in the form of all refusals.
fn in_our_form(refused: &Refused) -> Vec<u8> {
    let Refused { status, why, is_beacon, is_head } = *refused;
    let body = gate::body(status, why.unwrap_or(last_words::why(status)), is_beacon);
    let mut words = last_words::whole(status, &body);
    if is_head {
        words.truncate(words.len() - body.len());
    }
    words
}

async fn answered(
    service: &Service,
    mut request: Request<Incoming>,
    watch: &Watch,
    taken: &Mutex<Option<Takeover>>,
    peer: Peer,
) -> Response<Streamed> {
    let site = service.site.load_full();
    pick_by_path(&site, &mut request);
    let is_beacon = site.beacon(request.uri().path()).is_some();
    if let Err(refused) = gate::check_host(&site, &request).and_then(|()| gate::check_transfer(&request)) {
        return refuse(&refused, is_beacon);
    }
    if gate::asks_to_switch(&request) && site.websockets(request.uri().path()).is_some() {
        let (headers, client) = (forwarded(&site, request.headers()), site.access.client_of(peer, request.headers()));
        let admitted = service.upgrades.admit(&site, &request, headers, client).await;
        return switch(admitted, taken);
    }
    if let Err(refused) = gate::check_origin(&site, &request) {
        return refuse(&refused, is_beacon);
    }
    watch.reads(is_beacon && request.method() == Method::GET);
    respond(site, request, service, &watch.left).await
}

/// The rules for compression, if answers are compressed, and the client's wishes.
fn compressing(service: &Service, request: &Request<Incoming>) -> Option<(Arc<Site>, Wanted, Method)> {
    let site = service.site.load();
    let wanted = || Wanted::by(request.headers());
    site.compression.is_on().then(|| (site.clone(), wanted(), request.method().clone()))
}

/// The request's line in the access log, if the request has one. Questions for the health have
/// none: balancers ask them all the time.
fn line(service: &Service, peer: Peer, request: &mut Request<Incoming>) -> Option<Box<Line>> {
    let site = service.site.load();
    if !site.access.is_on() || gate::health_of(request.uri().path()).is_some() {
        return None;
    }
    site.access.line_of_request(peer, request)
}

/// Answers a request to switch; a takeover is left in `taken`.
fn switch(admitted: Result<Admitted, NotAdmitted>, taken: &Mutex<Option<Takeover>>) -> Response<Streamed> {
    match admitted {
        Ok(Admitted { headers, takeover }) => {
            let mut response = plain(StatusCode::SWITCHING_PROTOCOLS, "");
            response.headers_mut().extend(headers.into_iter().map(|(name, value)| (Some(name), value)));
            *taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(takeover);
            response
        }
        Err(NotAdmitted { status, why, hint }) => refusal(status, why.body(None), hint.as_ref()),
    }
}

async fn respond(
    site: Arc<Site>,
    request: Request<Incoming>,
    service: &Service,
    left: &Arc<AtomicBool>,
) -> Response<Streamed> {
    // Requests of origins that may not call have been refused before.
    let allowed = request.headers().get(header::ORIGIN).cloned();
    let is_beacon = site.beacon(request.uri().path()).is_some();
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, path) if let Some(part) = gate::health_of(path) => {
            health(&service.readiness, part, request.uri().query())
        }
        (&Method::OPTIONS, _) if is_beacon && allowed.is_some() => {
            let methods: Vec<&str> = site.rules.methods.iter().map(Method::as_str).collect();
            preflight(&request, HeaderValue::from_str(&methods.join(", ")).ok())
        }
        _ if is_beacon => (service.beacon)(site, request).await.map(|body| Streamed::new(Content::Beacon(body))),
        (&Method::GET | &Method::HEAD, path) if site.is_home(path) => plain(StatusCode::OK, gate::HOME),
        (&Method::CONNECT, _) | (_, "*") => refuse(&NO_PROXY, false),
        (_, path) if site.calls(path).is_none() => refuse(&NO_NETWORK, false),
        (&Method::OPTIONS, _) if allowed.is_some() => preflight(&request, Some(HeaderValue::from_static("POST"))),
        (&Method::POST, _) => call(&site, request, service, left).await,
        _ => {
            let mut response =
                refuse(&gate::Refused::new(StatusCode::METHOD_NOT_ALLOWED, "calls are sent by POST"), false);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
            response
        }
    };
    if let Some(origin) = allowed {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if is_beacon {
            // The version of a block's fork, for example, stands in a header only.
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        }
    }
    response
}

const NO_PROXY: gate::Refused =
    gate::Refused::new(StatusCode::METHOD_NOT_ALLOWED, "calls are sent by POST: this is no proxy for any host");
const NO_NETWORK: gate::Refused = gate::Refused::new(StatusCode::NOT_FOUND, "no such network");

/// A refusal in the form that clients of the path expect.
fn refuse(refused: &gate::Refused, is_beacon: bool) -> Response<Streamed> {
    refusal(refused.status, gate::body(refused.status, refused.why, is_beacon), refused.hint.as_ref())
}

fn refusal(status: StatusCode, body: Vec<u8>, hint: Option<&(HeaderName, &'static str)>) -> Response<Streamed> {
    let mut response = Response::new(Streamed::new(Content::Ready(body.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some((name, value)) = hint {
        headers.insert(name.clone(), HeaderValue::from_static(value));
    }
    response
}

async fn call(
    site: &Site,
    request: Request<Incoming>,
    service: &Service,
    left: &Arc<AtomicBool>,
) -> Response<Streamed> {
    let arrived = Instant::now();
    let (memory, caller, trace) = (&door::account(&request), &door::caller(&request), door::trace(&request));
    let Some(calls) = site.calls(request.uri().path()).cloned() else { return refuse(&NO_NETWORK, false) };
    if let Err(refused) = gate::check_coding(&request) {
        return refuse(&refused, false);
    }
    let headers = forwarded(site, request.headers());
    let seated = request.extensions().get::<Seated>().cloned();
    let mut claim = memory.incoming();
    match collect(request.into_body(), site.max_body, &mut claim, seated.as_ref()).await {
        Ok(_) if seated.is_some_and(|seated| !seated.begins()) => pending().await,
        Ok(body) => {
            let (mut alarm, asker) = (Alarm::default(), Asker { left, memory, caller, trace: trace.as_ref() });
            // Both arms are cancel-safe: dropping the future gives up the call.
            let why = tokio::select! {
                biased;
                reply = answer(&calls, &body, &headers, arrived, asker, &mut alarm) => {
                    let mut response = framed(reply);
                    response.body_mut().claim = Some(claim);
                    return response;
                }
                why = poll_fn(|context| memory.poll_cut(context)) => why,
            };
            last(cut(&body, calls.settings().max_batch.get(), &service.cut_off(why)))
        }
        Err(Unread::Cut(why)) => last(Reply::refused(&service.cut_off(why), None)),
        Err(Unread::NoRoom(full)) => last(Reply::refused(&full.into(), None)),
        Err(Unread::TooLong) => last(Reply::refused(&Refusal::Limit { name: "max_body", limit: site.max_body }, None)),
        Err(Unread::Lost) => refuse(&gate::NOT_WHOLE, false),
        Err(Unread::Late) => refuse(&gate::NOT_IN_TIME, false),
    }
}

/// A reply that ends the connection, even before the rest of the request.
fn last(reply: Reply) -> Response<Streamed> {
    let mut response = framed(reply);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Turns the part of a path that picks a node into the header that does.
fn pick_by_path(site: &Site, request: &mut Request<Incoming>) {
    let Some((path, name)) = site.picked(request.uri().path()) else { return };
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    if let (Ok(uri), Ok(name)) = (format!("{path}{query}").parse(), HeaderValue::from_str(name)) {
        *request.uri_mut() = uri;
        request.headers_mut().insert(NODE_HEADER, name);
    }
}

/// The lines to send along, without hop-by-hop headers and those that `Connection` names.
fn forwarded(site: &Site, headers: &HeaderMap) -> Passed {
    let is_wanted = |name: &HeaderName| {
        site.forwards(name.as_str()) || site.tenant_header.as_ref() == Some(name) || site.picks_by(name)
    };
    let passing = headers.iter().filter(|(name, _)| is_wanted(name));
    let mut passing: HeaderMap = passing.map(|(name, value)| (name.clone(), value.clone())).collect();
    for named in door::named_by_connection(headers) {
        // A client must not leave the tenant that the gateway gave it by naming the header there.
        if site.tenant_header.as_ref() != Some(&named) {
            passing.remove(named);
        }
    }
    let mut passed = Passed::default();
    passing.iter().for_each(|(name, value)| site.pass(name.as_str(), value.as_bytes(), &mut passed));
    passed
}

fn preflight(request: &Request<Incoming>, methods: Option<HeaderValue>) -> Response<Streamed> {
    let mut response = plain(StatusCode::NO_CONTENT, "");
    let headers = response.headers_mut();
    headers.extend(methods.map(|methods| (header::ACCESS_CONTROL_ALLOW_METHODS, methods)));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    if let Some(asked) = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    response
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
    let (later, node) = (reply.retry_after, reply.node);
    let mut response = Response::new(Streamed::new(reply.body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = later {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if let Some(node) = node.and_then(|node| HeaderValue::from_str(&node).ok()) {
        response.headers_mut().insert(NODE_HEADER, node);
    }
    response
}
