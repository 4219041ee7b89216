//! The HTTP client: the HTTP side of one node, its address, and the connections to the node.

mod coding;
mod connection;
pub mod head;
mod reconnect;
mod request;
mod response;
mod upload;

use std::{
    fmt,
    future::poll_fn,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Method, header::ACCEPT_ENCODING};
use tokio::time::{Instant, timeout};

use self::reconnect::Reconnect;
pub use self::{
    connection::{Broken, Conn},
    head::{Framing, Head},
    reconnect::Progress,
    request::{Body, Request},
    response::{Response, Unread},
    upload::{Pieces, Timeouts},
};
use super::{
    Dial, Endpoint, descriptors,
    node_connections::{Caller, NodeConnections, Permit, Rank},
    tls::Tls,
};
use crate::{
    config::Url,
    domain::{
        call_id::{CallId, Outbound},
        target::Target as RequestTarget,
    },
};

/// The server to connect to, and the fixed parts of every request to it.
pub struct Target {
    /// Host and port.
    pub endpoint: Endpoint,
    /// TLS, if the node is reached by `https`.
    pub tls: Option<Tls>,
    /// The node's URL, below whose path requests go. May hold secrets.
    pub url: Url,
    /// Headers for every request: name and value. May hold secrets.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The connections there.
    pub connections: Arc<NodeConnections>,
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

/// Why a request has no response. The kind of error decides whether the request may be sent again.
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
    /// The call is not wanted any more: nothing was sent.
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
    /// Headers beside the node's own, each a complete line with its line end. Where both name one,
    /// the node's own goes.
    pub headers: &'a [u8],
    /// The body.
    pub body: Outbound<'a>,
    /// How often the request may be sent.
    pub sending: Sending,
    /// The rank among the requests that wait for a connection.
    pub rank: Rank,
    /// The client, if the request is a client's.
    pub caller: Option<&'a Arc<Caller>>,
    /// Whether the request waits for a connection until its caller gives it up.
    pub in_line: bool,
}

/// How often a request may be sent, and over which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// Again, where a connection turns out to be closed.
    Repeatable,
    /// Once, over a new connection, because an idle one may just be closing.
    Once,
}

/// Holds a request back, after a connection was found for it, until its turn has come.
pub trait Gate: Send {
    /// A connection is looked for, once more where the one before was lost.
    fn closes(&mut self) {}

    /// Ready when the request may be written.
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()>;

    /// Whether the request must not be written any more, though its turn has come.
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
    fn closes(&mut self) {
        self.iter_mut().for_each(G::closes);
    }

    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.as_mut().map_or(Poll::Ready(()), |gate| gate.poll_open(context))
    }

    fn is_shut(&self) -> bool {
        self.as_ref().is_some_and(G::is_shut)
    }

    fn written(&mut self) {
        self.iter_mut().for_each(G::written);
    }
}

impl Upstream {
    /// Prepares to talk to `target`. A connection has `connect_timeout` to come about, TLS
    /// included.
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

    /// The connections to the node.
    pub fn connections(&self) -> &Arc<NodeConnections> {
        &self.target.connections
    }

    /// Sends a JSON-RPC request, once `gate` is open, and waits for the response's head. A request
    /// that may be sent twice is sent again when an idle connection turns out to be closed, or when
    /// the node seems to be full. The caller bounds the call in time; `progress` says how far the
    /// request came.
    ///
    /// # Errors
    /// Tells whether the request may have arrived.
    pub async fn post(
        self: &Arc<Self>,
        post: Post<'_>,
        gate: &mut impl Gate,
        progress: &mut Progress,
    ) -> Result<Response, Error> {
        let mut reconnect = Reconnect::new(self, post.sending, post.rank, post.caller, None, progress);
        reconnect.in_line = post.in_line;
        loop {
            gate.closes();
            let mut conn = reconnect.conn().await?;
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
            reconnect.sent();
            match conn.send(write, post.body.0, false, || gate.written()).await {
                Ok(head) => return Response::new(head, conn, self, true),
                Err(broken) => reconnect.lost(broken, conn).await?,
            }
        }
    }

    /// Fetches `target`, below the node's own URL, on our own account, once `gate` is open, and
    /// waits for the response's head. The caller limits the time.
    ///
    /// # Errors
    /// A GET may be sent again after any of them.
    pub async fn get(
        self: &Arc<Self>,
        target: &RequestTarget,
        rank: Rank,
        gate: &mut impl Gate,
    ) -> Result<Response, Error> {
        let headers = &HeaderMap::new();
        let request =
            Request { method: &Method::GET, target, headers, sending: Sending::Repeatable, rank, caller: None };
        // Nothing is streamed.
        let timeouts = Timeouts { idle: Duration::ZERO, head: Duration::ZERO };
        self.request(request, Body::Whole(&[]), timeouts, gate, &mut Progress::default()).await
    }

    /// Sends a request of any kind, once `gate` is open, and waits for the response's head, as
    /// [`Upstream::post`] does. A body that is streamed is sent once. The caller limits the time;
    /// `timeouts` are for a streamed body, since only the exchange knows how far the body has come.
    ///
    /// # Errors
    /// The kind of error tells whether the request may have arrived. If not, no piece was taken of
    /// a streamed body.
    pub async fn request(
        self: &Arc<Self>,
        request: Request<'_>,
        mut body: Body<'_>,
        timeouts: Timeouts,
        gate: &mut impl Gate,
        progress: &mut Progress,
    ) -> Result<Response, Error> {
        let own = &self.target;
        let joined = own.url.join(request.target);
        let to_head = request.method == Method::HEAD;
        let framing = body.framing();
        let is_streamed = matches!(body, Body::Streamed { .. });
        // The time that a client takes to send its body is not bounded by the caller.
        let until = is_streamed.then(|| Instant::now() + timeouts.idle);
        let sending = if is_streamed { Sending::Once } else { request.sending };
        let mut reconnect = Reconnect::new(self, sending, request.rank, request.caller, until, progress);
        loop {
            gate.closes();
            let mut conn = reconnect.conn().await?;
            poll_fn(|context| gate.poll_open(context)).await;
            if gate.is_shut() {
                return Err(Error::Unwanted);
            }
            let write = |out: &mut Vec<u8>| request.write_head(out, &joined, &self.host, &own.headers, framing);
            reconnect.sent();
            let head = match &mut body {
                Body::Whole(body) => conn.send(write, [body, b"", b""], to_head, || {}).await,
                Body::Streamed { pieces, length } => {
                    conn.stream(write, pieces.as_mut(), length.is_none(), timeouts, to_head).await
                }
            };
            match head {
                // A client that asked for a coding gets the coded body.
                Ok(head) => return Response::new(head, conn, self, !request.headers.contains_key(ACCEPT_ENCODING)),
                Err(broken) => reconnect.lost(broken, conn).await?,
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

    /// Opens a connection. The permit comes back when there is none.
    pub(super) async fn connect(&self, permit: Permit) -> Result<Box<Conn>, (Error, Permit)> {
        let connect = async {
            let mut dialled = self.dial.dial(&self.target.endpoint).await;
            if dialled.as_ref().is_err_and(descriptors::are_used_up) {
                // This machine lacks a resource, which is not the node's fault: closing idle
                // connections makes room.
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
            Ok(Ok(io)) => Ok(Conn::new(io, permit)),
            Ok(Err(error)) => Err((Error::Connect(error), permit)),
            Err(_) => Err((Error::ConnectTimeout(self.connect_timeout), permit)),
        }
    }

    /// Closes connections that have been idle for a while.
    pub fn sweep(&self) {
        self.target.connections.sweep();
    }

    /// Closes every idle connection, for want of descriptors.
    pub fn close_idle(&self) {
        self.target.connections.close_idle();
    }

    /// Forgets how many connections the node seemed to take, as when the node is back.
    pub fn forget_bound(&self) {
        self.target.connections.forget();
    }

    /// Closes every idle connection, as when the node is out.
    pub fn disconnect(&self) {
        self.target.connections.disconnect();
    }
}
