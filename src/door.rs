//! Floor 8, doors: framing and limits.

pub mod access_log;
pub mod admin;
pub mod beacon;
pub mod crowd;
pub mod http;
mod last_words;
pub mod readiness;
mod refusal_status;
pub mod site;
mod stall;
pub mod ws;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::Stream;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use self::site::Site;
use crate::{
    call::outbox_calls::Passed,
    domain::{client::Peer, refusal::Refusal},
    exchange::trace::Trace,
    memory::Account,
    net::{BoxFuture, BoxIo, http::Broken, node_connections::Caller},
};

/// How long a new connection may say nothing, how long the head of a request may take to come, and
/// how long a body or a message may stand still in the middle.
const ARRIVAL: Duration = Duration::from_secs(20);
/// How long a client may take none of its answer, and how long a node's answer may stand still in
/// the middle; and how long an answer is waited for on behalf of a client that has closed its side.
const STALL: Duration = Duration::from_secs(30);

/// A handler for requests of the beacon API, which come over the connections of the HTTP door.
/// Doors do not know each other; `app` gives this handler to the HTTP door.
pub type BeaconHandler = fn(Arc<Site>, Request<Incoming>) -> BoxFuture<'static, Response<BeaconBody>>;

/// A handler for requests that ask for another protocol: a door that takes over whole connections
/// from the HTTP door.
pub trait UpgradeHandler: Send + Sync + 'static {
    /// Whether the connection of this request, which asks for another protocol, is taken over.
    /// `headers` are the request's lines to send along with calls, `peer` is the client.
    /// If another connection is about to make room, the answer waits for that, for a moment at
    /// most.
    ///
    /// # Errors
    /// With the answer to give instead; the connection stays with HTTP.
    fn admit<'a>(
        &'a self,
        site: &'a Site,
        request: &'a Request<Incoming>,
        headers: Passed,
        peer: Peer,
    ) -> BoxFuture<'a, Result<Admitted, NotAdmitted>>;
}

/// A connection that is taken over after the head of a 101 response.
pub struct Admitted {
    /// The response's headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Serves the connection from there on.
    pub takeover: Takeover,
}

/// Serves a connection that HTTP has let go, given its stream and the bytes read already.
pub type Takeover = Box<dyn FnOnce(BoxIo, Bytes) -> BoxFuture<'static, ()> + Send>;

/// Why a connection is not taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAdmitted {
    /// The HTTP status.
    pub status: StatusCode,
    /// Why.
    pub why: Refusal,
    /// A header that names an acceptable value.
    pub hint: Option<(HeaderName, &'static str)>,
}

/// The query of a request, where a `Uri` cannot hold the query: kept among the request's
/// extensions.
#[derive(Debug)]
pub struct LongQuery {
    text: Box<str>,
    /// A place among few, because memory allows few such queries.
    _place: OwnedSemaphorePermit,
}

impl LongQuery {
    /// A query that has a place.
    pub fn new(query: &str, place: OwnedSemaphorePermit) -> Self {
        Self { text: query.into(), _place: place }
    }
}

/// The query of a request, of any length.
pub fn query<B>(request: &Request<B>) -> Option<&str> {
    let long = request.extensions().get::<Arc<LongQuery>>();
    long.map_or_else(|| request.uri().query(), |long| Some(&long.text))
}

/// The streamed body of a [`BeaconHandler`]'s response.
pub struct BeaconBody {
    pieces: Pin<Box<dyn Stream<Item = Result<Bytes, Broken>> + Send>>,
    length: Option<u64>,
}

impl BeaconBody {
    /// A body that comes piece by piece, `length` bytes in all where the length is known.
    pub fn new(pieces: impl Stream<Item = Result<Bytes, Broken>> + Send + 'static, length: Option<u64>) -> Self {
        Self { pieces: Box::pin(pieces), length }
    }

    /// A body in memory.
    pub fn whole(body: Bytes) -> Self {
        let length = body.len() as u64;
        Self::new(futures_util::stream::iter((length > 0).then_some(Ok(body))), Some(length))
    }

    /// Bytes in all, where the length is known.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The next piece.
    pub fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        self.pieces.as_mut().poll_next(context)
    }
}

/// The account of the connection that the request came over.
fn account<B>(request: &Request<B>) -> Arc<Account> {
    request.extensions().get::<Arc<Account>>().cloned().unwrap_or_else(Account::unlimited)
}

/// The client's connection that the request came over.
fn caller<B>(request: &Request<B>) -> Arc<Caller> {
    request.extensions().get::<Arc<Caller>>().cloned().unwrap_or_default()
}

/// The notes for the request's line in the access log, if the request has a line.
fn trace<B>(request: &Request<B>) -> Option<Arc<Trace>> {
    request.extensions().get::<Arc<Trace>>().cloned()
}

/// The headers that `Connection` names: these belong to one connection, and go no further.
fn named_by_connection(headers: &HeaderMap) -> impl Iterator<Item = HeaderName> {
    let options =
        headers.get_all(header::CONNECTION).into_iter().flat_map(|value| value.as_bytes().split(|&b| b == b','));
    options.filter_map(|option| HeaderName::from_bytes(option.trim_ascii()).ok())
}
