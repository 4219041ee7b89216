//! One node's HTTP side: how to reach it, and the idle connections to it.

use std::{
    cell::Cell,
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, header::ACCEPT_ENCODING};
use tokio::time::{Instant, timeout};

pub use super::course::Progress;
use super::{
    Dial, Endpoint,
    coding::{Coding, Decoder},
    course::Course,
    descriptors,
    exchange::{Broken, Conn},
    outgoing::Patience,
    places::{Caller, Place, Places, Rank},
    request::{Body, Request},
    tls::Tls,
    wire::Head,
};
use crate::{
    config::Url,
    domain::{
        call_id::{CallId, Outbound},
        target::Target as RequestTarget,
    },
};

thread_local! {
    /// Which shard of idle connections this thread uses: a connection is best used by the runtime that opened it.
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

/// Chooses this thread's shard; workers count from 1, everything else shares 0.
pub fn set_worker(index: usize) {
    SHARD.set(index);
}

/// This thread's shard: a worker's number, from 1, or 0 for any other thread.
pub fn worker() -> usize {
    SHARD.get()
}

/// What to connect to, and what every request to it carries.
pub struct Target {
    /// Host and port.
    pub endpoint: Endpoint,
    /// TLS, if the node is reached by `https`.
    pub tls: Option<Tls>,
    /// The node's URL, below whose path requests go. May hold secrets.
    pub url: Url,
    /// Headers for every request: name and value. May hold secrets.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The places for connections there.
    pub places: Arc<Places>,
}

/// A node as an HTTP server.
pub struct Upstream {
    target: Target,
    dial: Arc<dyn Dial>,
    connect_timeout: Duration,
    /// Value of the `Host` header.
    host: String,
    /// The head of a JSON-RPC request up to the length of the body.
    post: Vec<u8>,
    /// The number of the last call's id.
    last_id: AtomicU64,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({})", self.target.endpoint)
    }
}

/// Why a request has no response, and so whether it may be sent again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection: nothing was sent.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// No connection in time: nothing was sent.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The node takes no more connections, and none became free in time: nothing was sent.
    #[error("all connections that the node takes are in use")]
    NoPlace,
    /// Nobody wants it any more: nothing was sent.
    #[error("the call is not wanted any more")]
    Unwanted,
    /// The exchange broke: the request may have had its effect.
    #[error("{broken}")]
    Broken {
        /// How.
        broken: Broken,
    },
}

impl Error {
    /// Whether a byte of the request may have reached the node.
    pub fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Broken { .. })
    }
}

/// A JSON-RPC request to a node.
#[derive(Clone, Copy)]
pub struct Post<'a> {
    /// Headers beside the node's own, each a complete line with its line end. Where both name one, the node's own goes.
    pub headers: &'a [u8],
    /// The body.
    pub body: Outbound<'a>,
    /// How often it may be sent.
    pub sending: Sending,
    /// Whose it is.
    pub rank: Rank,
    /// The client, if it is a client's.
    pub caller: Option<&'a Arc<Caller>>,
}

/// How often a request may be sent, and over which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// Again, where a connection turns out to be closed.
    Freely,
    /// Once, over a connection that is opened for it, because an idle one may just be closing.
    Fresh,
}

/// Holds a request back until its turn has come, when it has a connection to go over.
pub trait Gate: Send {
    /// Ready when the request may be written.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Whether the request, though it is its turn, must not be written any more.
    fn is_shut(&self) -> bool {
        false
    }

    /// All of the request has left. May be called more than once.
    fn written(&mut self);
}

/// The gate that is always open.
impl Gate for () {
    fn poll_open(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn written(&mut self) {}
}

impl<G: Gate> Gate for Option<G> {
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.as_mut().map_or(Poll::Ready(()), |gate| gate.poll_open(context))
    }

    fn written(&mut self) {
        self.iter_mut().for_each(G::written);
    }
}

/// A response whose head has come.
pub struct Response {
    /// Status and fields.
    pub head: Head,
    /// Until the response is dropped, however much of it has come: the reader may find that the connection is of no more use.
    conn: Option<Conn>,
    /// Whether all of the body has come; what is coded may not have gone out yet.
    has_come: bool,
    decoder: Option<Box<Decoder>>,
    upstream: Arc<Upstream>,
}

/// The connection of a response that came whole is free for the next request.
impl Drop for Response {
    fn drop(&mut self) {
        let spent = if self.has_come { self.conn.take() } else { None };
        if let Some(conn) = spent.and_then(|conn| conn.recycle(&self.head)) {
            self.upstream.target.places.give_back(conn);
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({})", self.head.status)
    }
}

impl Upstream {
    /// Prepares to talk to `target`. A connection has `connect_timeout` to come about, TLS included.
    pub fn new(target: Target, dial: Arc<dyn Dial>, connect_timeout: Duration) -> Arc<Self> {
        let host = target.url.authority();
        let mut common = format!(
            "host: {host}\r\nuser-agent: steadfast/{}\r\naccept-encoding: identity\r\n",
            env!("CARGO_PKG_VERSION")
        )
        .into_bytes();
        for (name, value) in &target.headers {
            common.extend_from_slice(name.as_bytes());
            common.extend_from_slice(b": ");
            common.extend_from_slice(value);
            common.extend_from_slice(b"\r\n");
        }
        let mut post = format!("POST {} HTTP/1.1\r\n", target.url.target().expose()).into_bytes();
        post.extend_from_slice(&common);
        post.extend_from_slice(b"content-type: application/json\r\ncontent-length: ");
        Arc::new(Self { target, dial, connect_timeout, host, post, last_id: AtomicU64::new(0) })
    }

    /// An id for one call to this node.
    pub fn call_id(&self) -> CallId {
        CallId::new(self.last_id.fetch_add(1, Relaxed) + 1)
    }

    /// The places for connections to it.
    pub fn places(&self) -> &Arc<Places> {
        &self.target.places
    }

    /// Sends a JSON-RPC request, once `gate` is open, and waits for the response's head. One that may be sent twice is, when an idle
    /// connection was closed meanwhile, or when the node seems to be full. The caller bounds it in time; `progress` tells how far it came.
    ///
    /// # Errors
    /// Tells whether the request may have arrived.
    pub async fn post(
        self: &Arc<Self>,
        post: Post<'_>,
        gate: &mut impl Gate,
        progress: &mut Progress,
    ) -> Result<Response, Error> {
        let mut course = Course::new(self, post.sending, post.rank, post.caller, None, progress);
        loop {
            let mut conn = course.conn().await?;
            poll_fn(|context| gate.poll_open(context)).await;
            if gate.is_shut() {
                return Err(Error::Unwanted);
            }
            let write = |out: &mut Vec<u8>| {
                out.extend_from_slice(&self.post);
                out.extend_from_slice(CallId::new(post.body.length() as u64).as_bytes());
                out.extend_from_slice(b"\r\n");
                if self.target.headers.is_empty() {
                    out.extend_from_slice(post.headers);
                } else {
                    self.add_others(out, post.headers);
                }
                out.extend_from_slice(b"\r\n");
            };
            course.sets_out();
            match conn.send(write, post.body.0, false, || gate.written()).await {
                Ok(head) => return Response::new(head, conn, self, true),
                Err(broken) => course.lost(broken, conn).await?,
            }
        }
    }

    /// Asks for what is at `target`, below the node's own URL, as a probe, and waits for the response's head. The caller bounds it in
    /// time.
    ///
    /// # Errors
    /// A GET may be asked again whatever they say.
    pub async fn get(self: &Arc<Self>, target: &RequestTarget) -> Result<Response, Error> {
        let headers = &HeaderMap::new();
        let request = Request { method: &Method::GET, target, headers, fresh: false, rank: Rank::Probe, caller: None };
        // Nothing is streamed.
        let patience = Patience { idle: Duration::ZERO, head: Duration::ZERO };
        self.request(request, Body::Whole(&[]), patience, &mut Progress::default()).await
    }

    /// Sends a request of any kind and waits for the response's head, as [`Upstream::post`] does. A body that is streamed is sent once.
    /// The caller bounds it in time; `patience` is for a body that is streamed, of which only the exchange knows how far it has come.
    ///
    /// # Errors
    /// Tells whether the request may have arrived. If it cannot have, nothing was taken of a streamed body.
    pub async fn request(
        self: &Arc<Self>,
        request: Request<'_>,
        mut body: Body<'_>,
        patience: Patience,
        progress: &mut Progress,
    ) -> Result<Response, Error> {
        let own = &self.target;
        let joined = own.url.join(request.target);
        let to_head = request.method == Method::HEAD;
        let framing = body.framing();
        let is_streamed = matches!(body, Body::Streamed { .. });
        // The time that a client takes to send its body is not bounded by the caller.
        let until = is_streamed.then(|| Instant::now() + patience.idle);
        let sending = if request.fresh || is_streamed { Sending::Fresh } else { Sending::Freely };
        let mut course = Course::new(self, sending, request.rank, request.caller, until, progress);
        loop {
            let mut conn = course.conn().await?;
            let write = |out: &mut Vec<u8>| request.write_head(out, &joined, &self.host, &own.headers, framing);
            course.sets_out();
            let head = match &mut body {
                Body::Whole(body) => conn.send(write, [body, b"", b""], to_head, || {}).await,
                Body::Streamed { pieces, length } => {
                    conn.stream(write, pieces.as_mut(), length.is_none(), patience, to_head).await
                }
            };
            match head {
                // Who asked for a coding gets it.
                Ok(head) => return Response::new(head, conn, self, !request.headers.contains_key(ACCEPT_ENCODING)),
                Err(broken) => course.lost(broken, conn).await?,
            }
        }
    }

    /// Adds those header lines whose names the node has no value of its own for.
    fn add_others(&self, out: &mut Vec<u8>, lines: &[u8]) {
        for line in lines.split_inclusive(|&b| b == b'\n') {
            let name = line.split(|&b| b == b':').next().unwrap_or(line);
            if !self.target.headers.iter().any(|(own, _)| own.as_bytes().eq_ignore_ascii_case(name)) {
                out.extend_from_slice(line);
            }
        }
    }

    /// Opens a connection. The place comes back when there is none.
    pub(super) async fn connect(&self, place: Place) -> Result<Conn, (Error, Place)> {
        let connect = async {
            let mut dialled = self.dial.dial(&self.target.endpoint).await;
            if dialled.as_ref().is_err_and(descriptors::are_used_up) {
                // An own want is no fault of the node's: what lies idle makes room.
                self.close_idle();
                dialled = self.dial.dial(&self.target.endpoint).await;
            }
            let io = dialled?;
            match &self.target.tls {
                Some(tls) => tls.wrap(io).await,
                None => Ok(io),
            }
        };
        match timeout(self.connect_timeout, connect).await {
            Ok(Ok(io)) => Ok(Conn::new(io, place)),
            Ok(Err(error)) => Err((Error::Connect(error), place)),
            Err(_) => Err((Error::ConnectTimeout(self.connect_timeout), place)),
        }
    }

    /// Closes connections that nobody has used for a while.
    pub fn sweep(&self) {
        self.target.places.sweep();
    }

    /// Closes every idle connection, for want of descriptors.
    pub fn close_idle(&self) {
        self.target.places.close_idle();
    }

    /// Closes every idle connection, as when the node is out.
    pub fn disconnect(&self) {
        self.target.places.disconnect();
    }
}

impl Response {
    /// `decodes`: a compressed body is read all the same.
    fn new(mut head: Head, conn: Conn, upstream: &Arc<Upstream>, decodes: bool) -> Result<Self, Error> {
        let mut decoder = None;
        if decodes && head.coding != Coding::Identity && !head.framing.is_done() {
            decoder = Decoder::new(head.coding).map_err(|error| Error::Broken { broken: error.into() })?;
            head.is_decoded = true;
        }
        Ok(Self { head, conn: Some(conn), has_come: false, decoder, upstream: upstream.clone() })
    }

    /// Waits for the next piece of the body.
    ///
    /// # Errors
    /// When the body cannot be had whole.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if self.decoder.is_none() { self.poll_coded(context) } else { self.poll_decoded(context) }
    }

    fn poll_decoded(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            let Some(decoder) = &mut self.decoder else { return Poll::Ready(None) };
            let failed = match decoder.next() {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) => match ready!(self.poll_coded(context)) {
                    Some(Ok(coded)) => {
                        if let Some(decoder) = &mut self.decoder {
                            decoder.feed(coded);
                        }
                        continue;
                    }
                    Some(Err(broken)) => broken,
                    None => match self.decoder.take().map_or(Ok(None), |mut decoder| decoder.finish()) {
                        Ok(last) => return Poll::Ready(last.map(Ok)),
                        Err(error) => error.into(),
                    },
                },
                Err(error) => error.into(),
            };
            self.condemn();
            return Poll::Ready(Some(Err(failed)));
        }
    }

    /// The next piece as it came.
    fn poll_coded(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let Some(conn) = self.conn.as_mut().filter(|_| !self.has_come) else { return Poll::Ready(None) };
        let next = ready!(conn.poll_body(context, &mut self.head));
        self.has_come = match &next {
            None => true,
            Some(Ok(_)) => self.head.framing.is_done(),
            Some(Err(_)) => {
                self.conn = None;
                true
            }
        };
        Poll::Ready(next)
    }

    /// Whether all of the body has been taken.
    pub fn is_done(&self) -> bool {
        self.has_come && self.decoder.is_none()
    }

    /// Has the connection closed, also if the body has come whole: what came is no answer to the request.
    pub fn condemn(&mut self) {
        (self.conn, self.decoder) = (None, None);
        self.has_come = true;
    }
}

impl futures_util::Stream for Response {
    type Item = Result<Bytes, Broken>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Response::poll_next(self.get_mut(), context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_knows_its_number_and_any_other_thread_is_0() {
        let of_a_thread = |set: Option<usize>| {
            let run = move || {
                set.into_iter().for_each(set_worker);
                worker()
            };
            std::thread::spawn(run).join().unwrap()
        };
        assert_eq!([of_a_thread(Some(2)), of_a_thread(None)], [2, 0]);
    }
}
