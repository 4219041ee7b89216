//! A node over raw TCP that answers as a test tells it to, and records every byte that it was sent.

use std::{
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use serde_json::{Value, value::RawValue};
use steadfast::net::{Accept, Listen, system::System};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
    task::JoinSet,
    time::{Duration, sleep},
};

use super::{ports::free_addr, sim::Net};

/// A stream of either kind, plain or TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

pub type BoxStream = Box<dyn Stream>;
type Act = Box<dyn FnOnce(BoxStream) -> Pin<Box<dyn Future<Output = Option<BoxStream>> + Send>> + Send>;
type Script = dyn Fn(&Seen) -> Reply + Send + Sync;
type Wrap = dyn Fn(BoxStream) -> Pin<Box<dyn Future<Output = Option<BoxStream>> + Send>> + Send + Sync;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Request line and fields, without the blank line.
    pub head: String,
    pub body: Vec<u8>,
    /// The how manieth connection it came on.
    pub connection: usize,
    /// The how manieth request on that connection it is, from 0; probes count.
    pub turn: usize,
}

impl Seen {
    /// All values of a field; the name in lower case.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let fields = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    fn member(&self, name: &str) -> String {
        let body: std::collections::BTreeMap<String, &RawValue> = serde_json::from_slice(&self.body).unwrap();
        body.get(name).map_or_else(String::new, |value| value.get().to_owned())
    }

    /// The body with `id` in the place of the proxy's own id.
    pub fn sent_as(&self, id: &str) -> String {
        with_id(std::str::from_utf8(&self.body).unwrap(), id)
    }

    /// The id as it was written.
    pub fn id(&self) -> String {
        self.member("id")
    }

    pub fn params(&self) -> String {
        self.member("params")
    }

    pub fn method(&self) -> String {
        self.member("method").trim_matches('"').to_owned()
    }
}

/// A JSON-RPC message with `id` in the place of its id, all else as it is.
pub fn with_id(text: &str, id: &str) -> String {
    let members: std::collections::BTreeMap<String, &RawValue> = serde_json::from_str(text).unwrap();
    let own = members["id"].get();
    let start = own.as_ptr() as usize - text.as_ptr() as usize;
    [&text[..start], id, &text[start + own.len()..]].concat()
}

/// The reaction to a request.
pub enum Reply {
    /// Write these bytes and go on.
    Bytes(Vec<u8>),
    /// Write these bytes and close.
    Last(Vec<u8>),
    /// Do as this says with the connection, which goes on if it is given back.
    Act(Act),
}

impl Reply {
    pub fn act<F>(act: impl FnOnce(BoxStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Option<BoxStream>> + Send + 'static,
    {
        Self::Act(Box::new(|io| Box::pin(act(io))))
    }

    /// A well-formed response with this body.
    pub fn body(body: impl AsRef<[u8]>) -> Self {
        Self::Bytes(ok(body))
    }

    /// `text`, an answer, with the id of the call seen.
    pub fn answer(seen: &Seen, text: &str) -> Self {
        Self::body(with_id(text, &seen.id()))
    }

    /// A result of the call seen.
    pub fn result(seen: &Seen, result: &str) -> Self {
        Self::body(format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, seen.id()))
    }

    /// A JSON-RPC error of the call seen.
    pub fn error(seen: &Seen, code: i64, message: &str) -> Self {
        Self::body(format!(r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":{code},"message":"{message}"}}}}"#, seen.id()))
    }
}

/// A response with status 200.
pub fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    response("200 OK", "content-type: application/json\r\n", body)
}

/// A response with these fields beside its length.
pub fn response(status: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A running node. Dropping it fails the test if a script of it panicked.
pub struct Origin {
    url: String,
    port: u16,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

struct Shared {
    script: Box<Script>,
    wrap: Option<Box<Wrap>>,
    /// The answer to everything, probes too.
    ailment: Mutex<Option<Vec<u8>>>,
    mute: AtomicBool,
    hang_up: Notify,
    seen: Mutex<Vec<Seen>>,
    bytes: Mutex<Vec<u8>>,
    head: Arc<AtomicU64>,
    opened: AtomicUsize,
    open: AtomicUsize,
    panicked: AtomicBool,
}

impl Origin {
    /// A node that answers probes as a well one would and everything else by `script`.
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::wrapped(script, None).await
    }

    /// A node that returns each call's params as its result.
    pub async fn echo() -> Self {
        Self::start(|seen| Reply::result(seen, &seen.params())).await
    }

    /// A node whose connections go through `wrap` first, such as a TLS handshake.
    pub async fn wrapped(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static, wrap: Option<Box<Wrap>>) -> Self {
        // A port that the system chose could be another server's once this node is dead.
        Self::listening(&System, free_addr(), script, wrap).await
    }

    /// A node on a network of memory.
    pub async fn within(net: &Net, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listening(net, ([127, 0, 0, 1], 0).into(), script, None).await
    }

    async fn listening(
        net: &dyn Listen,
        addr: SocketAddr,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
        wrap: Option<Box<Wrap>>,
    ) -> Self {
        let listener = net.bind(addr.into()).await.unwrap();
        let port = listener.local_addr().port();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            wrap,
            ailment: Mutex::default(),
            mute: AtomicBool::new(false),
            hang_up: Notify::new(),
            seen: Mutex::default(),
            bytes: Mutex::default(),
            head: Arc::new(AtomicU64::new(100)),
            opened: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
        });
        let mut task = JoinSet::new();
        task.spawn(accept(listener, shared.clone()));
        Self { url: format!("http://127.0.0.1:{port}"), port, shared, _task: task }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The requests so far, without probes.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The methods of the requests so far.
    pub fn methods(&self) -> Vec<String> {
        self.seen().iter().map(Seen::method).collect()
    }

    /// Every byte that came, probes included, in the order of its coming.
    pub fn bytes(&self) -> Vec<u8> {
        self.shared.bytes.lock().unwrap().clone()
    }

    pub fn set_head(&self, height: u64) {
        self.shared.head.store(height, SeqCst);
    }

    /// The height that it tells probes.
    pub fn head(&self) -> Arc<AtomicU64> {
        self.shared.head.clone()
    }

    /// From now on everything is answered with these bytes, probes too; `None`: with nothing amiss
    /// again.
    pub fn ail(&self, bytes: Option<Vec<u8>>) {
        *self.shared.ailment.lock().unwrap() = bytes;
    }

    /// From now on nothing is answered, not even probes.
    pub fn mute(&self) {
        self.shared.mute.store(true, SeqCst);
    }

    /// Closes the connections that are idle now.
    pub fn hang_up(&self) {
        self.shared.hang_up.notify_waiters();
    }

    /// How often `method` was asked for.
    pub fn count(&self, method: &str) -> usize {
        self.methods().iter().filter(|seen| *seen == method).count()
    }

    pub fn opened(&self) -> usize {
        self.shared.opened.load(SeqCst)
    }

    pub fn open(&self) -> usize {
        self.shared.open.load(SeqCst)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(!self.shared.panicked.load(SeqCst), "the pretend node's script panicked: see above");
        }
    }
}

/// A chain that these nodes follow in step, a block every two seconds; it stands still when the
/// task is dropped.
pub fn chain<'a>(origins: impl IntoIterator<Item = &'a Origin>) -> JoinSet<()> {
    let heads: Vec<_> = origins.into_iter().map(Origin::head).collect();
    JoinSet::from_iter([async move {
        loop {
            sleep(Duration::from_secs(2)).await;
            heads.iter().for_each(|head| _ = head.fetch_add(1, SeqCst));
        }
    }])
}

async fn accept(mut listener: Box<dyn Accept>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if ended.is_err() {
                    shared.panicked.store(true, SeqCst);
                }
            }
            accepted = listener.accept() => {
                let io = accepted.unwrap().0.open().unwrap();
                let number = shared.opened.fetch_add(1, SeqCst);
                connections.spawn(connection(Box::new(io), number, shared.clone()));
            }
        }
    }
}

struct Open<'a>(&'a AtomicUsize);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

async fn connection(io: BoxStream, number: usize, shared: Arc<Shared>) {
    shared.open.fetch_add(1, SeqCst);
    let _open = Open(&shared.open);
    let mut io = match &shared.wrap {
        None => io,
        Some(wrap) => match wrap(io).await {
            Some(io) => io,
            None => return,
        },
    };
    let mut read = Vec::new();
    for turn in 0.. {
        let seen = tokio::select! {
            seen = request(&mut io, &mut read, &shared, number, turn) => seen,
            () = shared.hang_up.notified() => return,
        };
        let Some(seen) = seen else { return };
        if shared.mute.load(SeqCst) {
            return std::future::pending().await;
        }
        let ailment = shared.ailment.lock().unwrap().clone().map(Reply::Bytes);
        let reply = match ailment.or_else(|| probe(&seen, shared.head.load(SeqCst))) {
            Some(reply) => reply,
            None => {
                shared.seen.lock().unwrap().push(seen.clone());
                (shared.script)(&seen)
            }
        };
        // The proxy may leave at any moment, and that is no fault of the script.
        match reply {
            Reply::Bytes(bytes) => {
                if io.write_all(&bytes).await.is_err() || io.flush().await.is_err() {
                    return;
                }
            }
            Reply::Last(bytes) => {
                let _ = io.write_all(&bytes).await;
                let _ = io.shutdown().await;
                return;
            }
            Reply::Act(act) => match act(io).await {
                Some(back) => io = back,
                None => return,
            },
        }
    }
}

/// Reads one request; the proxy must frame it in the one way that cannot be misread.
async fn request(
    io: &mut BoxStream,
    read: &mut Vec<u8>,
    shared: &Shared,
    connection: usize,
    turn: usize,
) -> Option<Seen> {
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end].to_vec()).unwrap();
            if head.starts_with("GET ") && head.contains("/eth/v1/node/version") {
                // Asked of a node that fails its probes: whether it is a consensus node.
                read.drain(..end + 4);
                io.write_all(&response("404 Not Found", "", "")).await.ok()?;
                continue;
            }
            let mut seen = Seen { head, body: Vec::new(), connection, turn };
            assert_eq!(seen.header("transfer-encoding"), Vec::<&str>::new(), "{}", seen.head);
            assert_eq!(seen.header("host").len(), 1, "{}", seen.head);
            let [length] = seen.header("content-length")[..] else { panic!("not one length: {}", seen.head) };
            let whole = end + 4 + length.parse::<usize>().unwrap();
            if read.len() >= whole {
                let rest = read.split_off(whole);
                seen.body = std::mem::replace(read, rest).split_off(end + 4);
                return Some(seen);
            }
        }
        let before = read.len();
        let count = io.read_buf(read).await.unwrap_or(0);
        shared.bytes.lock().unwrap().extend_from_slice(&read[before..]);
        if count == 0 {
            return None;
        }
    }
}

/// The answer to what the proxy asks for itself, from a chain whose last block is now.
#[expect(clippy::disallowed_methods, reason = "the blocks of this chain are of the real time")]
fn probe(seen: &Seen, head: u64) -> Option<Reply> {
    let result = match (seen.method().as_str(), seen.params().as_str()) {
        ("eth_getBlockByNumber", r#"["latest",false]"#) => {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            let hash = |number: u64| format!("0x{number:064x}");
            let block: Value = serde_json::json!({
                "number": format!("0x{head:x}"), "hash": hash(head), "parentHash": hash(head - 1),
                "timestamp": format!("0x{now:x}"),
            });
            block.to_string()
        }
        ("eth_syncing", "[]") => "false".into(),
        ("eth_chainId", "[]") => "\"0x539\"".into(),
        ("net_version", "[]") => "\"1337\"".into(),
        _ => return None,
    };
    Some(Reply::result(seen, &result))
}
