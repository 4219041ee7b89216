//! A node at the far end of a link: real frames over a pipe in memory, and it does as the test
//! says.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use serde_json::Value;
use steadfast::{
    metrics::{Metrics, NodeLabels},
    net::{
        BoxFuture, BoxIo, Dial, Endpoint, Io,
        http::Target,
        link::{Link, Timeouts},
        node_connections::NodeConnections,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request, Response},
    },
};

/// Longer than anything here takes; the clock is the test's.
pub const SOON: Duration = Duration::from_secs(60);
/// Bytes on their way in each direction.
pub const PIPE: usize = 64 << 10;
/// The link's timeouts in these tests.
pub const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    write: Duration::from_secs(5),
    ping: Duration::from_secs(10),
    pong: Duration::from_secs(3),
    answer: Duration::from_secs(7),
};

/// The outcome of the next dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dials {
    Accepted,
    Refused,
    Hang,
}

/// A pipe whose reading end can be made to fail as a reset connection does.
struct Pipe {
    io: DuplexStream,
    reset: Arc<Mutex<bool>>,
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, into);
        if read.is_ready() && into.filled().len() == before && *self.reset.lock().unwrap() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        read
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl Io for Pipe {}

type Accepted = (DuplexStream, Arc<Mutex<bool>>);

struct Dialler {
    to: mpsc::Sender<Accepted>,
    dials: Arc<Mutex<Dials>>,
    dialled: Arc<AtomicUsize>,
}

impl Dial for Dialler {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            self.dialled.fetch_add(1, SeqCst);
            let dials = *self.dials.lock().unwrap();
            match dials {
                Dials::Accepted => {}
                Dials::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
                Dials::Hang => std::future::pending().await,
            }
            let (near, far) = duplex(PIPE);
            let reset = Arc::new(Mutex::new(false));
            self.to.send((far, reset.clone())).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(Pipe { io: near, reset }) as BoxIo)
        })
    }
}

/// The node: every connection that the link opens comes out here.
pub struct Node {
    accepted: mpsc::Receiver<Accepted>,
    dials: Arc<Mutex<Dials>>,
    dialled: Arc<AtomicUsize>,
}

impl Node {
    pub fn new() -> (Self, Arc<dyn Dial>) {
        let (to, accepted) = mpsc::channel(16);
        let dials = Arc::new(Mutex::new(Dials::Accepted));
        let dialled = Arc::new(AtomicUsize::new(0));
        let dialler = Dialler { to, dials: dials.clone(), dialled: dialled.clone() };
        (Self { accepted, dials, dialled }, Arc::new(dialler))
    }

    pub fn set(&self, dials: Dials) {
        *self.dials.lock().unwrap() = dials;
    }

    pub fn dialled(&self) -> usize {
        self.dialled.load(SeqCst)
    }

    /// The next connection, before any handshake.
    pub async fn raw(&mut self) -> DuplexStream {
        timeout(SOON, self.accepted.recv()).await.expect("the link dials").unwrap().0
    }

    /// The next connection as a WebSocket.
    pub async fn accept(&mut self) -> Peer {
        let (io, reset) = timeout(SOON, self.accepted.recv()).await.expect("the link dials").unwrap();
        Peer { reset, ..Peer::accept(io).await }
    }
}

/// The node's end of one connection.
pub struct Peer<S = DuplexStream> {
    pub socket: WebSocketStream<S>,
    pub target: String,
    pub headers: HeaderMap,
    reset: Arc<Mutex<bool>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    pub async fn accept(io: S) -> Self {
        let (mut target, mut headers) = (String::new(), HeaderMap::new());
        let keep = |request: &Request, response: Response| {
            (target, headers) = (request.uri().to_string(), request.headers().clone());
            Ok(response)
        };
        let socket = timeout(SOON, accept_hdr_async(io, keep)).await.expect("a handshake").unwrap();
        Self { socket, target, headers, reset: Arc::default() }
    }

    /// The next text that the link sends; `None` when it has closed the connection. Pings of the
    /// link are answered, but do not count.
    pub async fn text(&mut self) -> Option<String> {
        let text = async {
            loop {
                match self.socket.next().await? {
                    Ok(Message::Text(text)) => return Some(text.to_string()),
                    Ok(Message::Ping(_) | Message::Pong(_)) => {}
                    Ok(Message::Close(_)) | Err(_) => return None,
                    Ok(other) => panic!("{other:?}"),
                }
            }
        };
        timeout(SOON, text).await.expect("the link sends something")
    }

    /// The next request.
    pub async fn request(&mut self) -> Value {
        serde_json::from_str(&self.text().await.expect("the link is open")).unwrap()
    }

    /// The next request, which is for `method`: its id.
    pub async fn asked(&mut self, method: &str) -> u64 {
        let request = self.request().await;
        assert_eq!(request["method"], method, "{request}");
        request["id"].as_u64().unwrap()
    }

    /// Whether the link sends nothing for a second.
    pub async fn is_quiet(&mut self) -> bool {
        timeout(Duration::from_secs(1), self.socket.next()).await.is_err()
    }

    pub async fn send(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).await.unwrap();
    }

    pub async fn answer(&mut self, id: u64, result: &str) {
        self.send(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)).await;
    }

    pub async fn refuse(&mut self, id: u64) {
        self.send(format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{REFUSAL}}}"#)).await;
    }

    pub async fn event(&mut self, subscription: &str, event: &str) {
        let params = format!(r#"{{"subscription":"{subscription}","result":{event}}}"#);
        self.send(format!(r#"{{"jsonrpc":"2.0","method":"eth_subscription","params":{params}}}"#)).await;
    }

    /// Grants the next request, which must be to subscribe, under this id.
    pub async fn grant(&mut self, subscription: &str) {
        let id = self.asked("eth_subscribe").await;
        self.answer(id, &format!("\"{subscription}\"")).await;
    }

    /// Ends the connection as a reset does.
    pub fn reset(self) {
        *self.reset.lock().unwrap() = true;
    }
}

/// The error that [`Peer::refuse`] answers with.
pub const REFUSAL: &str = r#"{"code":-32601,"message":"the method does not exist"}"#;

/// A link and its actor's task, with metrics of their own.
pub struct Linked {
    pub link: Arc<Link>,
    pub running: JoinHandle<()>,
    pub metrics: Arc<Metrics>,
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Linked {
    /// Starts a link over `dial`.
    pub fn start(dial: Arc<dyn Dial>, target: Target) -> Self {
        let metrics = Arc::new(Metrics::new());
        let (link, actor) = Link::new(target, dial, TIMEOUTS, 7, metrics.link(LABELS));
        Self { link, running: tokio::spawn(actor.run()), metrics }
    }

    /// Waits until the link is up or down.
    pub async fn until(&self, up: bool) {
        let mut changes = self.link.changes();
        timeout(SOON, changes.wait_for(|status| status.up == up)).await.expect("it changes").unwrap();
    }

    /// Why the link is down.
    pub fn why(&self) -> String {
        self.link.changes().borrow().why_down.as_deref().unwrap_or_default().to_owned()
    }

    /// A line of the metrics, without the prefix of its name.
    pub fn metric(&self, start: &str) -> String {
        let text = String::from_utf8(self.metrics.render(|_| {})).unwrap();
        let line = text.lines().find(|line| line.starts_with(&format!("steadfast_{start}")));
        line.map(|line| line.rsplit(' ').next().unwrap().to_owned()).unwrap_or_default()
    }
}

/// The link's labels in the metrics.
pub const LABELS: NodeLabels<'_> = NodeLabels { network: "default", layer: "el", node: "el-1" };

/// The target of a link to this URL.
pub fn target(url: &str) -> Target {
    let url: steadfast::config::Url = url.parse().unwrap();
    Target {
        endpoint: Endpoint::Tcp { host: url.host().clone(), port: url.port() },
        tls: None,
        url,
        headers: Vec::new(),
        connections: NodeConnections::new(None, 0),
    }
}

/// A link, up, and the node's end of it.
pub async fn linked() -> (Linked, Node, Peer) {
    let (mut node, dial) = Node::new();
    let linked = Linked::start(dial, target("ws://node:8546"));
    let peer = node.accept().await;
    linked.until(true).await;
    (linked, node, peer)
}
