//! The beacon API. Requests come over the connections of [`super::http`], which gives each to this
//! handler as a [`super::BeaconHandler`].
//!
//! Bodies stream both ways and are not looked at; SSZ and JSON pass unchanged. Errors of the
//! proxy's own have the API's form.

mod events;
mod guard;
mod headers;

use std::{io, sync::Arc, task::Poll};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::Instant;

use super::{ARRIVAL, BeaconBody, query};
use crate::{
    beacon::{self, Failure, answer::Answer, upload::Upload},
    domain::{
        beacon_route::{Class, Route},
        pace::{CLIENT_RATE, Pace},
        refusal::Refusal,
        target::Target,
    },
    door::{crowd::Seated, refusal_status, site::Site},
    exchange::pick::{NODE_HEADER, Pick},
    memory::{Account, Claim},
    metrics::CallOutcome,
    net::BoxFuture,
};

/// Answers a request.
pub fn answer(site: Arc<Site>, request: Request<Incoming>) -> BoxFuture<'static, Response<BeaconBody>> {
    Box::pin(async move { respond(&site, request).await.unwrap_or_else(Problem::response) })
}

/// An error of the proxy's own.
struct Problem(StatusCode, String, Option<u32>);

impl Problem {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self(status, message.into(), None)
    }

    fn response(self) -> Response<BeaconBody> {
        let Self(status, message, seconds) = self;
        let body = serde_json::json!({ "code": status.as_u16(), "message": message }).to_string();
        let mut response = Response::new(BeaconBody::whole(body.into()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = seconds.or((status == StatusCode::SERVICE_UNAVAILABLE).then_some(1)) {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            // The rest of the body is not waited for.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            // The client must see a failure, and a client does not publish again without need.
            Failure::Refused(Refusal::OutcomeUnknown) => {
                Self::new(StatusCode::BAD_GATEWAY, Refusal::OutcomeUnknown.message())
            }
            Failure::Refused(refusal) => {
                Self(status(&refusal), refusal.message(), refusal_status::retry_after(&refusal))
            }
            Failure::TooLong(limit) => {
                let message = format!("a message for all nodes may have {limit} bytes: send it in parts");
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
            }
            Failure::Unsent(error) if error.kind() == io::ErrorKind::TimedOut => {
                Self::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")
            }
            Failure::Unsent(_) => Self::new(StatusCode::BAD_REQUEST, "the body did not come whole"),
        }
    }
}

fn status(refusal: &Refusal) -> StatusCode {
    StatusCode::from_u16(refusal_status::status(refusal)).unwrap_or(StatusCode::BAD_GATEWAY)
}

async fn respond(site: &Site, request: Request<Incoming>) -> Result<Response<BeaconBody>, Problem> {
    let arrived = Instant::now();
    let path = request.uri().path();
    let (network, path) = site.beacon(path).ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no such route"))?;
    let plain = guard::plain(path);
    if let Some(refused) = guard::refusal(&site.rules, request.method(), &plain, path.len(), query(&request)) {
        return Ok(refused);
    }
    let before = request.uri().path().strip_suffix(path).unwrap_or_default();
    if climbs(&plain) || climbs(&guard::plain(before)) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the path must not have `.` or `..` in it"));
    }
    let network = network.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no such network"))?;
    let requests = network.beacon.as_ref();
    let requests = requests
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "the network has no consensus nodes behind this address"))?;
    let mut route = Route::of(request.method().as_str(), path);
    let (folded, mut path) = (guard::folded(&plain), path);
    let as_folded = Route::of(request.method().as_str(), &folded);
    if as_folded.class != route.class {
        // A server on the way may read the path so, and then all nodes have to hear of the request.
        (route, path) = (as_folded, folded.as_str());
    }
    if route.group == "events" {
        super::trace(&request).into_iter().for_each(|trace| trace.ended(route.group, CallOutcome::Result));
        return events::answer(site, network, &request).await;
    }
    let target = Target::new(path, query(&request));
    let target = target.ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "the path is malformed"))?;
    let headers = headers::for_nodes(request.headers(), |name| site.forwards(name));
    let mut pick = None;
    if route.class == Class::Read {
        let picking = request.headers().iter().filter(|(name, _)| site.picks_by(name));
        picking.for_each(|(name, value)| _ = Pick::note(&mut pick, name.as_str(), value.as_bytes()));
    }
    let (memory, caller, trace) = (super::account(&request), super::caller(&request), super::trace(&request));
    let (head, body) = request.into_parts();
    let mut upload = upload(body, head.extensions.get().cloned(), &memory);
    let (caller, client, method) = (Some(caller), memory.client(), head.method);
    let asked = beacon::Request { route, method, target, headers, caller, client, trace, pick };
    let mut answer = requests.run(&asked, &mut upload, arrived).await?;
    let mut claim = memory.outgoing();
    if let Err(full) = claim.resize(answer.weight()) {
        if matches!(asked.method, Method::GET | Method::HEAD) {
            return Err(Failure::Refused(full.into()).into());
        }
        // The request had an effect, and the client must see the answer.
        claim.set(answer.weight());
    }
    answer.leaves_the_room();
    let node = requests.names_nodes().then(|| HeaderValue::from_str(answer.giver()).ok()).flatten();
    let mut response = pass_on(answer, &asked.method, claim);
    if let Some(node) = node {
        response.headers_mut().insert(NODE_HEADER, node);
    }
    Ok(response)
}

/// Whether a server on the way might read a plain path as leading out of its prefix: a node's URL
/// may hold a key in its own path, and the paths beside that are not for clients.
fn climbs(plain: &str) -> bool {
    guard::steps(plain).any(|step| matches!(step, "." | ".."))
}

/// The body of a request. The connection counts as idle until the whole body has come.
fn upload(body: Incoming, seated: Option<Seated>, memory: &Arc<Account>) -> Upload {
    if body.is_end_stream() {
        return Upload::whole(Bytes::new());
    }
    let length = body.size_hint().exact();
    let mut came = seated.clone().map(|seated| (seated, Pace::new(ARRIVAL, CLIENT_RATE), Instant::now()));
    let pieces = body.into_data_stream().map_err(io::Error::other).inspect_ok(move |piece: &Bytes| {
        if let Some((seated, pace, looked)) = &mut came {
            let now = Instant::now();
            pace.moved(now - *looked, piece.len());
            *looked = now;
            // A byte makes the connection count as newer, for as long as the least rate gives that
            // byte.
            seated.refreshes(now + pace.left() - ARRIVAL);
        }
    });
    let whole = stream::poll_fn(move |_| match &seated {
        Some(seated) if !seated.begins() => Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into()))),
        _ => Poll::Ready(None),
    });
    Upload::streamed(Box::pin(pieces.chain(whole)), length).counted(memory.incoming())
}

/// Builds the response. `claim` holds the memory of the answer until its body has passed.
fn pass_on(answer: Answer, method: &Method, claim: Claim) -> Response<BeaconBody> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    // These responses have no body and may still name its length.
    let tells_length = *method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    let headers = headers::for_client(&answer.headers, tells_length);
    let length = answer.length();
    let answer = answer.inspect(move |_| _ = &claim);
    let mut response = Response::new(BeaconBody::new(answer, length));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_out_of_the_api_is_known() {
        for path in [
            "/eth/v1/../../admin",
            "/eth/v1/..",
            "/eth/v1/./node",
            "/eth/v1/%2e%2E/x",
            "/eth/v1/.%2e/x",
            "/eth/v1/..%2fx",
            "/eth/v1/x%2F..%5cx",
            "/eth/v1/x\\..\\x",
            "/eth/v1/..;/x",
            "/eth/v1/%252e%252E/x",
            "/eth/v1/%25252e%2525252e/x",
            "/eth/v1/%%32e%%32e/x",
            "/eth/v1/%25%32%65%25%32%65/%25%32%65%25%32%65/admin",
            "/eth/v1/%2525%32e/..%252525253bx/x",
        ] {
            assert!(climbs(&guard::plain(path)), "{path}");
        }
        for path in [
            "/eth/v1/node/version",
            "/eth/v1/a..b/...",
            "/eth/v1/beacon/headers/0x..",
            "/eth/v1//x",
            "/eth/v1/%252",
            "/eth/v1/%2525252",
        ] {
            assert!(!climbs(&guard::plain(path)), "{path}");
        }
    }
}
