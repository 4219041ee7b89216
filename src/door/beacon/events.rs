//! `/eth/v1/events`: a stream of the proxy's own, which outlives the streams of nodes.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};

use super::{BeaconBody, Problem, query};
use crate::{
    door::{
        crowd::Seated,
        site::{Served, Site},
    },
    events::{HEADERS, NoStream, topics},
};

/// A stream lasts for as long as its client likes, so only half of the door's connections may be
/// streams.
const STREAMS_DIVISOR: usize = 2;
const FULL: &str = "half of max_connections are event streams already, which is as many as may be";

/// Opens a stream, which lasts until the client leaves. HEAD has the headers of GET, without the
/// events.
pub(super) async fn answer<B>(
    site: &Site,
    network: &Served,
    request: &Request<B>,
) -> Result<Response<BeaconBody>, Problem> {
    let is_head = *request.method() == Method::HEAD;
    if !is_head && *request.method() != Method::GET {
        let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "events are asked for by GET").response();
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    let Some(events) = &network.events else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "the network has no consensus nodes behind this address"));
    };
    let topics = topics::parse(query(request).unwrap_or_default());
    let topics = topics.map_err(|why| Problem::new(StatusCode::BAD_REQUEST, why))?;
    let memory = crate::door::account(request);
    let seated = request.extensions().get::<Seated>();
    let share = (site.max_connections / STREAMS_DIVISOR).max(1);
    let stream = match seated.filter(|_| !is_head).map(|seated| seated.streams(share)) {
        Some(None) => return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, FULL)),
        stream => stream.flatten(),
    };
    match events.subscribe(topics).await.map(|events| events.counted(&memory)) {
        Ok(events) => {
            let events = events.map(move |event| {
                let _is_open = &stream;
                Ok(event)
            });
            let body = if is_head { BeaconBody::new(stream::empty(), None) } else { BeaconBody::new(events, None) };
            let mut response = Response::new(body);
            response
                .headers_mut()
                .extend(HEADERS.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))));
            Ok(response)
        }
        Err(NoStream::NoNode) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no consensus node sends events now"))
        }
        Err(NoStream::Topic(status, body)) => Ok(refused(status, body)),
    }
}

/// The refusal of a topic that the node does not know, in the node's words.
fn refused(status: u16, body: Bytes) -> Response<BeaconBody> {
    let mut response = Response::new(BeaconBody::whole(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
