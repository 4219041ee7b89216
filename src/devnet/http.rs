//! HTTP answers, and how faults spoil them.

use std::{convert::Infallible, io::Write, sync::Arc, time::Duration};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{Stream, stream};
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};

use super::{
    fault::{Fault, Faults},
    node::Dropped,
};

/// Largest request body that is read.
pub(super) const MOST_BODY: usize = 64 << 20;
/// Until the first half of a cut body has surely left.
const CUT_PAUSE: Duration = Duration::from_millis(5);

/// The body of an answer. Its error drops the connection.
pub(super) type Body = UnsyncBoxBody<Bytes, Dropped>;

/// An answer with a whole body.
pub(super) fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {}).boxed_unsync();
    with_body(status, content_type, body)
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    answer(status, "application/json", body)
}

/// An answer whose body comes in pieces.
pub(super) fn streamed(
    content_type: &'static str,
    pieces: impl Stream<Item = Result<Bytes, Dropped>> + Send + 'static,
) -> Response<Body> {
    use futures_util::StreamExt;
    with_body(StatusCode::OK, content_type, BodyExt::boxed_unsync(StreamBody::new(pieces.map(|p| p.map(Frame::data)))))
}

fn with_body(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// The answer of a node whose fault refuses every request unread; none: no such fault.
pub(super) fn refusal(faults: &Faults) -> Option<Response<Body>> {
    if faults.has(&Fault::Failing) {
        let page = "<html><body><h1>500 Internal Server Error</h1></body></html>";
        return Some(answer(StatusCode::INTERNAL_SERVER_ERROR, "text/html", page));
    }
    if let Some(seconds) = faults.rate_limited() {
        return Some(too_many(Some(seconds)));
    }
    faults.has(&Fault::Garbage).then(|| json(StatusCode::OK, GARBAGE))
}

/// The answer of a node that was asked too much, and may say when to come again.
pub(super) fn too_many(retry_after: Option<u64>) -> Response<Body> {
    let mut response = answer(StatusCode::TOO_MANY_REQUESTS, "text/plain", "Too Many Requests");
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// The body of a node that answers garbage.
pub(super) const GARBAGE: &str = "<!-- this is not JSON {";

/// The answer with its body cut in half: the head announces the whole length, then the connection
/// is dropped.
pub(super) async fn cut(response: Response<Body>) -> Response<Body> {
    let (mut head, mut body) = response.into_parts();
    let mut start = Vec::new();
    // Streams need not end: their first piece is enough.
    let streamed = http_body::Body::size_hint(&body).exact().is_none();
    while let Some(Ok(frame)) = body.frame().await {
        start.extend_from_slice(&frame.into_data().unwrap_or_default());
        if streamed {
            break;
        }
    }
    if !streamed {
        head.headers.insert(header::CONTENT_LENGTH, start.len().into());
    }
    start.truncate(start.len().div_ceil(2));
    let pieces = stream::unfold(Some(Bytes::from(start)), |start| async move {
        match start {
            Some(start) => Some((Ok(Frame::data(start)), None)),
            None => {
                tokio::time::sleep(CUT_PAUSE).await;
                Some((Err(Dropped), None))
            }
        }
    });
    Response::from_parts(head, BodyExt::boxed_unsync(StreamBody::new(pieces)))
}

/// The answer compressed, unless its body is a stream.
pub(super) async fn gzipped(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if http_body::Body::size_hint(&body).exact().is_none_or(|length| length == 0) {
        return Response::from_parts(head, body);
    }
    let Ok(body) = body.collect().await else { return Response::from_parts(head, Body::default()) };
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let _ = encoder.write_all(&body.to_bytes());
    let coded = encoder.finish().unwrap_or_default();
    head.headers.insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
    head.headers.remove(header::CONTENT_LENGTH);
    let body = Full::new(Bytes::from(coded)).map_err(|never: Infallible| match never {}).boxed_unsync();
    Response::from_parts(head, body)
}

/// Reads a request's body; none if the body is too large or the connection broke.
pub(super) async fn read(body: Incoming) -> Option<Bytes> {
    http_body_util::Limited::new(body, MOST_BODY).collect().await.ok().map(http_body_util::Collected::to_bytes)
}

/// Headers to record.
pub(super) fn shared(headers: &HeaderMap) -> Arc<HeaderMap> {
    Arc::new(headers.clone())
}
