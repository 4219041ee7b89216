//! A consensus node over raw TCP: it answers probes as a well one would, and everything else as an
//! async script says.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{ports::free_addr, proxy::Proxy, until};

type Script = dyn Fn(Exchange) -> Pin<Box<dyn Future<Output = Option<Exchange>> + Send>> + Send + Sync;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Request line and fields, without the blank line.
    pub head: String,
    /// The body, as far as the script has read it.
    pub body: Vec<u8>,
    /// The how manieth request on its connection it is, from 0; probes count.
    pub turn: usize,
}

impl Asked {
    /// All values of a field.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let fields = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }

    fn is_probe(&self) -> bool {
        self.method == "GET" && self.header("user-agent").iter().any(|agent| agent.starts_with("steadfast/"))
    }
}

/// How much of a request's body is still to come.
enum Left {
    Bytes(u64),
    Chunks,
    Nothing,
}

/// A request whose head has come, on its connection.
pub struct Exchange {
    pub asked: Asked,
    io: TcpStream,
    read: Vec<u8>,
    left: Left,
    shared: Arc<Shared>,
    place: usize,
}

impl Exchange {
    /// The next piece of the body; none at its end, or when the peer is gone.
    pub async fn piece(&mut self) -> Option<Vec<u8>> {
        match self.left {
            Left::Nothing => None,
            Left::Bytes(left) => {
                if self.read.is_empty() && !self.fill().await {
                    return None;
                }
                let rest = self.read.split_off(self.read.len().min(usize::try_from(left).unwrap()));
                let piece = std::mem::replace(&mut self.read, rest);
                let left = left - piece.len() as u64;
                self.left = if left == 0 { Left::Nothing } else { Left::Bytes(left) };
                Some(piece)
            }
            Left::Chunks => {
                let size = self.line().await?;
                let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("a chunk of size {size:?}"));
                while self.read.len() < size {
                    if !self.fill().await {
                        return None;
                    }
                }
                let rest = self.read.split_off(size);
                let piece = std::mem::replace(&mut self.read, rest);
                assert_eq!(self.line().await?, "", "a chunk longer than its size");
                if size == 0 {
                    self.left = Left::Nothing;
                    return None;
                }
                Some(piece)
            }
        }
    }

    /// Reads the body to its end, and records it. `false` when it did not come whole.
    pub async fn body(&mut self) -> bool {
        while let Some(piece) = self.piece().await {
            self.asked.body.extend(piece);
        }
        self.shared.asked.lock().unwrap()[self.place].body = self.asked.body.clone();
        matches!(self.left, Left::Nothing)
    }

    /// Writes; `false` when the peer is gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.io.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Reads the body, answers, and goes on.
    pub async fn reply(mut self, response: impl AsRef<[u8]>) -> Option<Self> {
        (self.body().await && self.send(response).await).then_some(self)
    }

    /// Answers nothing, for as long as the peer stays.
    pub async fn hang(mut self) -> Option<Self> {
        while self.fill().await {}
        None
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|window| window == b"\r\n") {
                let rest = self.read.split_off(end + 2);
                let line = std::mem::replace(&mut self.read, rest);
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn fill(&mut self) -> bool {
        self.read.reserve(128 * 1024);
        self.io.read_buf(&mut self.read).await.is_ok_and(|count| count > 0)
    }
}

struct Shared {
    script: Box<Script>,
    asked: Mutex<Vec<Asked>>,
    syncing: AtomicBool,
    /// How many peers it says it has.
    peers: AtomicUsize,
    slot_seconds: AtomicU64,
    slots_per_epoch: AtomicU64,
    /// Probes are not answered.
    dead: AtomicBool,
    /// Probes are refused for quota.
    resting: AtomicBool,
    open: AtomicUsize,
}

/// A running node. Dropping it closes its port and its connections.
pub struct Node {
    port: u16,
    shared: Arc<Shared>,
    task: JoinSet<()>,
}

impl Node {
    pub async fn start<F>(script: impl Fn(Exchange) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<Exchange>> + Send + 'static,
    {
        Self::on(0, script).await
    }

    /// A node on that port.
    pub async fn on<F>(port: u16, script: impl Fn(Exchange) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<Exchange>> + Send + 'static,
    {
        Self::with(port, 12, script).await
    }

    /// A node of a chain with slots of so many seconds.
    pub async fn paced<F>(slot_seconds: u64, script: impl Fn(Exchange) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<Exchange>> + Send + 'static,
    {
        Self::with(0, slot_seconds, script).await
    }

    async fn with<F>(port: u16, slot_seconds: u64, script: impl Fn(Exchange) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<Exchange>> + Send + 'static,
    {
        // A port that the system chose could be another server's once this node is dead.
        let addr = if port == 0 { free_addr() } else { ([127, 0, 0, 1], port).into() };
        let listener = TcpListener::bind(addr).await.unwrap();
        let port = addr.port();
        let shared = Arc::new(Shared {
            script: Box::new(move |exchange| Box::pin(script(exchange))),
            asked: Mutex::default(),
            syncing: AtomicBool::new(false),
            peers: AtomicUsize::new(50),
            slot_seconds: AtomicU64::new(slot_seconds),
            slots_per_epoch: AtomicU64::new(32),
            dead: AtomicBool::new(false),
            resting: AtomicBool::new(false),
            open: AtomicUsize::new(0),
        });
        let mut task = JoinSet::new();
        let serving = shared.clone();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (io, _) = listener.accept().await.unwrap();
                io.set_nodelay(true).unwrap();
                let shared = serving.clone();
                connections.spawn(async move {
                    shared.open.fetch_add(1, SeqCst);
                    connection(io, &shared).await;
                    shared.open.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { port, shared, task }
    }

    /// A node that answers everything with this response.
    pub async fn always(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::start(move |exchange| exchange.reply(response.clone())).await
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The requests so far, without probes.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.shared.asked.lock().unwrap().len()
    }

    pub fn set_syncing(&self, syncing: bool) {
        self.shared.syncing.store(syncing, SeqCst);
    }

    pub fn set_peers(&self, peers: usize) {
        self.shared.peers.store(peers, SeqCst);
    }

    /// Whether it leaves probes unanswered.
    pub fn set_dead(&self, dead: bool) {
        self.shared.dead.store(dead, SeqCst);
    }

    /// Whether it refuses probes for quota.
    pub fn set_resting(&self, resting: bool) {
        self.shared.resting.store(resting, SeqCst);
    }

    /// How long its chain's slots are, in seconds; to be said before it is asked.
    pub fn set_pace(&self, seconds: u64) {
        self.shared.slot_seconds.store(seconds, SeqCst);
    }

    /// How many slots an epoch of its chain has; to be said before it is asked.
    pub fn set_epoch(&self, slots: u64) {
        self.shared.slots_per_epoch.store(slots, SeqCst);
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(SeqCst)
    }

    /// Closes its port and its connections.
    pub async fn stop(mut self) {
        self.task.shutdown().await;
    }
}

async fn connection(io: TcpStream, shared: &Arc<Shared>) {
    let asked = Asked { method: String::new(), target: String::new(), head: String::new(), body: Vec::new(), turn: 0 };
    let mut exchange = Exchange { asked, io, read: Vec::new(), left: Left::Nothing, shared: shared.clone(), place: 0 };
    for turn in 0.. {
        let end = loop {
            if let Some(end) = exchange.read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if !exchange.fill().await {
                return;
            }
        };
        let rest = exchange.read.split_off(end + 4);
        let head = String::from_utf8(std::mem::replace(&mut exchange.read, rest)).unwrap().trim_end().to_owned();
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        exchange.asked = Asked { method, target, head, body: Vec::new(), turn };
        let length = exchange.asked.header("content-length").first().map(|length| length.parse().unwrap());
        exchange.left = match length {
            Some(0) => Left::Nothing,
            Some(length) => Left::Bytes(length),
            None if exchange.asked.header("transfer-encoding") == ["chunked"] => Left::Chunks,
            None => Left::Nothing,
        };
        if exchange.asked.is_probe() {
            if shared.dead.load(SeqCst) {
                exchange.hang().await;
                return;
            }
            let answer = match shared.resting.load(SeqCst) {
                true => b"HTTP/1.1 429 Too Many\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n".to_vec(),
                false => probe(&exchange.asked.target, shared),
            };
            if !exchange.send(answer).await {
                return;
            }
            continue;
        }
        {
            let mut asked = shared.asked.lock().unwrap();
            exchange.place = asked.len();
            asked.push(exchange.asked.clone());
        }
        match (shared.script)(exchange).await {
            Some(next) => exchange = next,
            None => return,
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the slots of this chain are of the real time")]
fn probe(target: &str, shared: &Shared) -> Vec<u8> {
    let syncing = shared.syncing.load(SeqCst);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // The same for all nodes, and long ago.
    let genesis = (now / 1_000_000 - 1) * 1_000_000;
    let slot_seconds = shared.slot_seconds.load(SeqCst);
    let slot = (now - genesis) / slot_seconds;
    let root = |slot: u64| format!("0x{slot:064x}");
    let path = target.split('?').next().unwrap();
    let data = match &path[path.find("/eth/").unwrap()..] {
        "/eth/v1/node/health" => return response(if syncing { "206 Partial Content" } else { "200 OK" }, "", ""),
        "/eth/v1/node/syncing" => serde_json::json!({
            "head_slot": slot.to_string(), "sync_distance": "0",
            "is_syncing": syncing, "is_optimistic": false, "el_offline": false,
        }),
        "/eth/v1/beacon/headers/head" => serde_json::json!({
            "root": root(slot), "canonical": true, "header": {
                "message": {"slot": slot.to_string(), "proposer_index": "1", "parent_root": root(slot - 1),
                            "state_root": root(0), "body_root": root(0)},
                "signature": "0x",
            },
        }),
        "/eth/v1/beacon/genesis" => serde_json::json!({
            "genesis_time": genesis.to_string(), "genesis_validators_root": root(7), "genesis_fork_version": "0x00000001",
        }),
        "/eth/v1/config/spec" => serde_json::json!({
            "SECONDS_PER_SLOT": slot_seconds.to_string(), "DEPOSIT_CHAIN_ID": "1337",
            "SLOTS_PER_EPOCH": shared.slots_per_epoch.load(SeqCst).to_string(),
        }),
        "/eth/v1/node/version" => serde_json::json!({ "version": "Test/1" }),
        "/eth/v1/node/peer_count" => serde_json::json!({ "connected": shared.peers.load(SeqCst).to_string() }),
        _ => return response("404 Not Found", "content-type: application/json\r\n", r#"{"code":404,"message":"no"}"#),
    };
    json("200 OK", &serde_json::json!({ "data": data }).to_string())
}

/// A response with these fields beside its length.
pub fn response(status: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    super::origin::response(status, fields, body)
}

/// A response in JSON.
pub fn json(status: &str, body: &str) -> Vec<u8> {
    response(status, "content-type: application/json\r\n", body)
}

/// A response whose body comes in chunks of `size`.
pub fn chunked(status: &str, fields: &str, body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\n{fields}transfer-encoding: chunked\r\n\r\n").into_bytes();
    bytes.extend(chunks(body, size));
    bytes
}

/// A body in chunks of `size`.
pub fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        bytes.extend(piece);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// A request with a body of known length, as a validator client would send it.
pub fn request(method: &str, target: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = match (method, body.len()) {
        ("GET" | "HEAD" | "OPTIONS", 0) => String::new(),
        (_, length) => format!("content-length: {length}\r\n"),
    };
    let head = format!("{method} {target} HTTP/1.1\r\nhost: proxy\r\nuser-agent: test/1\r\n{fields}{length}\r\n");
    [head.as_bytes(), body].concat()
}

/// Consensus nodes at these URLs, primaries `cl-1`, `cl-2`, … .
pub fn nodes(urls: &[String]) -> String {
    urls.iter()
        .enumerate()
        .map(|(i, url)| format!("[[cl.primary]]\nname = \"cl-{}\"\nhttp = \"{url}\"\n", i + 1))
        .collect()
}

/// A proxy before these nodes, all of them up, with `more` settings behind.
pub async fn over(list: &[&Node], more: &str) -> Proxy {
    let urls: Vec<String> = list.iter().map(|node| node.url()).collect();
    let proxy = Proxy::launch(&[nodes(&urls), more.to_owned()].concat()).await;
    for i in 1..=list.len() {
        until_verdict(&proxy, &format!("cl-{i}"), "up").await;
    }
    proxy
}

/// The consensus node in `/status`.
pub async fn status(proxy: &Proxy, name: &str) -> Value {
    let side = proxy.admin("GET /status").await.json()["networks"][0]["cl"].take();
    let nodes = side["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["name"] == name).unwrap_or_else(|| panic!("no {name} in {side}")).clone()
}

/// Waits until `/status` gives the consensus node this verdict.
pub async fn until_verdict(proxy: &Proxy, name: &str, verdict: &str) {
    until(&format!("{name} is {verdict}"), async || status(proxy, name).await["verdict"] == verdict).await;
}

/// A request on a connection of its own.
pub async fn ask(proxy: &Proxy, method: &str, target: &str) -> super::client::Response {
    send(proxy, request(method, target, "", "")).await
}

/// These bytes on a connection of their own, and the response.
pub async fn send(proxy: &Proxy, bytes: impl AsRef<[u8]>) -> super::client::Response {
    let mut client = proxy.client().await;
    client.send(bytes).await;
    client.response().await
}
