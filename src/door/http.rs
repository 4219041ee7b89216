//! Calls over HTTP/1.1.
//!
//! A connection begins in the [`lane`], which serves plain calls in one future with one buffer. The
//! first request of another shape hands it over to hyper (in [`other`]) for good. Both ask the same
//! [`Service`].

mod batch;
mod bridge;
mod collect;
mod compress;
mod fast_lane;
mod gate;
mod hyper_server;
mod reply;
mod streamed;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::StatusCode;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use self::{
    batch::Batch,
    compress::Encoders,
    fast_lane::{Lane, Left},
    hyper_server::Ended,
    reply::Reply,
};
use crate::{
    call::{
        Calls, Outcome, Terms,
        alarm::Alarm,
        client_message::{ClientMessage, Entry},
        filter_calls::AnswerRoom,
        outbox_calls::Passed,
    },
    domain::{
        client::Peer,
        method::{Class, Method},
        refusal::Refusal,
        rpc::{self, Body, Request},
    },
    door::{ARRIVAL, BeaconHandler, STALL, UpgradeHandler, crowd::Place, last_words, readiness::Readiness, site::Site},
    exchange::trace::Trace,
    memory::{Account, Budget, Cut},
    metrics::{self, Metrics},
    net::{BoxFuture, BoxIo, node_connections::Caller},
};

/// How long a client may leave its connection idle.
const IDLE: Duration = Duration::from_secs(120);

/// The setting that bounds connections, which refusals name.
const MAX_CONNECTIONS: &str = "max_connections";
/// Long request lines that are held at once.
const LONG_LINES: usize = 256;

/// Serves clients' connections.
#[derive(Clone)]
pub struct Service {
    site: Arc<ArcSwap<Site>>,
    metrics: Arc<Metrics>,
    /// The memory that clients make the proxy hold.
    memory: Arc<Budget>,
    /// Turns true when the proxy goes down: no connection takes another request then.
    closing: watch::Receiver<bool>,
    /// Answers the health questions of load balancers.
    readiness: Readiness,
    /// The handler for requests to the beacon API.
    beacon: BeaconHandler,
    /// The door that takes over connections that become WebSockets.
    upgrades: Arc<dyn UpgradeHandler>,
    /// Places for request lines that are too long for hyper.
    long_lines: Arc<Semaphore>,
    encoders: Encoders,
}

impl Service {
    /// A service for the networks of `site`, whose clients may take so much `memory`, until
    /// `closing` turns true. `readiness` answers load balancers, requests to the beacon API go to
    /// `beacon`, and connections that become WebSockets to `upgrades`.
    pub fn new(
        site: Arc<ArcSwap<Site>>,
        metrics: Arc<Metrics>,
        memory: Arc<Budget>,
        closing: watch::Receiver<bool>,
        readiness: Readiness,
        beacon: BeaconHandler,
        upgrades: Arc<dyn UpgradeHandler>,
    ) -> Self {
        let long_lines = Arc::new(Semaphore::new(LONG_LINES));
        let encoders = Encoders::default();
        Self { site, metrics, memory, closing, readiness, beacon, upgrades, long_lines, encoders }
    }

    /// Serves a connection of this client, which has `place` among all connections, to its end.
    pub fn serve(self, io: BoxIo, peer: Peer, caller: Arc<Caller>, place: Place) -> impl Future<Output = ()> + Send {
        let open = self.metrics.connection();
        // An `async fn` would have room for its arguments twice.
        async move {
            // Each stage is boxed, so that a WebSocket, which may last for days, does not keep the
            // memory that HTTP needed.
            let memory = Account::of(&self.memory, Some(peer));
            place.is_told_by(&memory);
            let client = Client { memory: &memory, caller: &caller, place: &place, peer };
            let outcome = match Box::pin(Lane::new(io, &self, client).run()).await {
                Ok(Left::Closed) => Ok(Ended::Closed),
                Ok(Left::Other { io, read }) => {
                    Box::pin(hyper_server::serve(io, read, &self, client)).await.map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            match outcome {
                Ok(Ended::Closed) => {}
                Ok(Ended::TakenOver { io, read, by }) => {
                    drop((open, self, memory, caller, place));
                    by(io, read).await;
                }
                Err(error) => tracing::debug!(%peer, error, "client connection ended"),
            }
        }
    }

    /// Counts a connection that has to give up its memory or its place, and returns the refusal for
    /// its client.
    fn cut_off(&self, why: Cut) -> Refusal {
        match why {
            Cut::Full(full) => {
                self.metrics.client_ended(metrics::Ended::Memory);
                full.into()
            }
            Cut::Crowded => {
                self.metrics.client_ended(metrics::Ended::Share);
                Refusal::Limit { name: MAX_CONNECTIONS, limit: self.site.load().max_connections }
            }
        }
    }

    fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }
}

/// A client's connection, for the code that serves it.
#[derive(Clone, Copy)]
struct Client<'a> {
    /// The account for the bytes that the client makes the proxy hold.
    memory: &'a Arc<Account>,
    /// The client's share of the connections to nodes.
    caller: &'a Arc<Caller>,
    /// The connection's place among all.
    place: &'a Place,
    peer: Peer,
}

/// The client of a request.
#[derive(Clone, Copy)]
struct Asker<'a> {
    /// Turns true when the client has closed its side.
    left: &'a Arc<AtomicBool>,
    memory: &'a Arc<Account>,
    caller: &'a Arc<Caller>,
    /// The notes for the request's line in the access log, if the request has a line.
    trace: Option<&'a Arc<Trace>>,
}

/// Answers a request's body: a call, or a batch of calls. `headers` are lines to send along.
async fn answer(
    calls: &Arc<Calls>,
    body: &Bytes,
    headers: &Passed,
    arrived: Instant,
    asker: Asker<'_>,
    alarm: &mut Alarm,
) -> Reply {
    match ClientMessage::read(body, calls.settings().max_batch.get()) {
        ClientMessage::Refused(refusal, id) => Reply::refused(&refusal, id),
        ClientMessage::Single(request) => {
            let terms = Terms {
                headers: &headers.lines,
                tenant: headers.tenant(),
                pick: headers.pick.as_deref(),
                arrived,
                verify: calls.settings().verify,
                left: Some(asker.left),
                memory: asker.memory,
                room: AnswerRoom::ENDLESS,
                caller: Some(asker.caller),
                trace: asker.trace.map(|trace| &**trace),
            };
            match (calls.run(&request, terms, alarm).await, request.id) {
                (_, None) => Reply::empty(),
                (Outcome::Answered(answer), Some(_)) => Reply::answered(answer),
                (Outcome::Refused(refusal), id) => Reply::refused(&refusal, id),
            }
        }
        ClientMessage::Batch(entries) => batch(calls, body, &entries, headers, arrived, asker).await,
    }
}

/// Answers a batch. The box is made outside of any future, so that single calls do not pay for the
/// size of a batch.
fn batch(
    calls: &Arc<Calls>,
    body: &Bytes,
    entries: &[Entry<'_>],
    headers: &Passed,
    arrived: Instant,
    asker: Asker<'_>,
) -> BoxFuture<'static, Reply> {
    let answers = entries.iter().any(|entry| entry.as_ref().is_ok_and(|r| r.id.is_some()) || entry.is_err());
    let mut batch = match Batch::new(calls, body, entries, headers, arrived, asker) {
        Ok(batch) => Box::new(batch),
        Err(full) => return Box::pin(async move { Reply::refused(&full.into(), None) }),
    };
    Box::pin(async move {
        if !answers {
            batch.run_out().await;
            return Reply::empty();
        }
        batch.begin().await;
        Reply::batch(batch)
    })
}

/// The answer to a connection that still waits for its place when the proxy goes down.
pub fn going_down() -> Vec<u8> {
    last_words::whole(StatusCode::SERVICE_UNAVAILABLE, &Refusal::ShuttingDown.body(None))
}

/// The answer to a connection beyond `max_connections`, before its request is read.
pub fn full(limit: usize) -> Vec<u8> {
    let refusal = Refusal::Limit { name: MAX_CONNECTIONS, limit };
    last_words::whole(StatusCode::SERVICE_UNAVAILABLE, &refusal.body(None))
}

/// Answers a request that has to give up its room for other requests. The outcome of its calls is
/// unknown, unless all are reads.
fn cut(body: &Bytes, max_batch: usize, refusal: &Refusal) -> Reply {
    let is_read = |request: &Request<'_>| Method::of(&request.method).class == Class::Read;
    match rpc::peek(body, max_batch) {
        Ok(Body::Single(Ok(request))) if is_read(&request) => Reply::refused(refusal, request.id),
        Ok(Body::Single(Ok(request))) => Reply::refused(&Refusal::OutcomeUnknown, request.id),
        // A single error may answer a whole batch.
        Ok(Body::Batch(entries)) if entries.iter().flatten().all(is_read) => Reply::refused(refusal, None),
        _ => Reply::refused(&Refusal::OutcomeUnknown, None),
    }
}
