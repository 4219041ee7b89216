//! A pretend execution node for `bench/ws.sh`: calls over HTTP and over WebSocket, and `newHeads` when it is told to.
//!
//! `bench_ws_origin PORT` serves on `127.0.0.1:PORT` and takes orders on standard input, until that ends:
//! `push COUNT MILLISECONDS` makes so many blocks, one each so many milliseconds, and says `pushed LAST`; `count` says
//! `connections N subscriptions N`. A new block's `extraData` is the time at which the node began to tell it, in nanoseconds, so
//! that whoever receives the header knows how long it was on its way.
//!
//! It costs as little as possible, understands only what it is sent by the programs it is measured with, and is no model for anything
//! else. What would make a figure wrong ends it.

mod frame;
mod words;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    process::exit,
    rc::Rc,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use words::{now, raw};

/// The head when the node starts.
const START: u64 = 20_000_000;
/// Seconds between the blocks that were there at the start.
const BLOCK_TIME: u64 = 12;
const MAX_REQUEST: usize = 1 << 20;
/// Each connection may have one subscription, and it is called the same on all, as small numbers are on some nodes.
const SUBSCRIPTION: &str = r#""0x1""#;

struct Node {
    /// Unix time at the start, in seconds.
    epoch: u64,
    /// When each block since the start was told, in nanoseconds.
    told: RefCell<Vec<u64>>,
    connections: Cell<usize>,
    subscribers: RefCell<BTreeMap<usize, Rc<Peer>>>,
}

/// A client of the node over WebSocket.
struct Peer {
    stream: TcpStream,
    /// Part of an answer is still to be written, so nothing may come between.
    amid: Cell<bool>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|p| p.parse().ok()).ok_or(io::ErrorKind::InvalidInput)?;
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    let listener = socket.listen(4096)?;
    tokio::task::LocalSet::new().run_until(serve(listener)).await
}

async fn serve(listener: TcpListener) -> io::Result<()> {
    let node = Rc::new(Node {
        epoch: now() / 1_000_000_000,
        told: RefCell::default(),
        connections: Cell::new(0),
        subscribers: RefCell::default(),
    });
    let mut orders = words::orders();
    let mut next = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                next += 1;
                let (node, id) = (node.clone(), next);
                // A connection that fails concerns only its client.
                tokio::task::spawn_local(async move { connection(stream, &node, id).await });
            }
            order = orders.recv() => match order {
                Some(order) => obey(&order, &node),
                None => return Ok(()),
            },
        }
    }
}

fn obey(order: &str, node: &Rc<Node>) {
    let words: Vec<&str> = order.split_whitespace().collect();
    match words[..] {
        ["count"] => {
            println!("connections {} subscriptions {}", node.connections.get(), node.subscribers.borrow().len());
        }
        ["push", count, pause] => {
            let (Ok(count), Ok(pause)) = (count.parse::<u64>(), pause.parse()) else { fail("no numbers") };
            let node = node.clone();
            tokio::task::spawn_local(async move {
                let mut clock = tokio::time::interval(Duration::from_millis(pause));
                for _ in 0..count {
                    clock.tick().await;
                    node.push();
                }
                println!("pushed {}", node.head());
            });
        }
        _ => fail("no such order"),
    }
}

fn fail(why: &str) -> ! {
    eprintln!("bench_ws_origin: {why}");
    exit(1)
}

impl Node {
    fn head(&self) -> u64 {
        START + self.told.borrow().len() as u64
    }

    /// Makes a block and tells all who subscribed.
    fn push(&self) {
        self.told.borrow_mut().push(now());
        let text = format!(
            r#"{{"jsonrpc":"2.0","method":"eth_subscription","params":{{"subscription":{SUBSCRIPTION},"result":{{{}}}}}}}"#,
            self.header(self.head())
        );
        let mut message = Vec::new();
        frame::write(frame::TEXT, text.as_bytes(), false, &mut message);
        for peer in self.subscribers.borrow().values() {
            if peer.amid.get() {
                fail("a subscriber takes answers too slowly");
            }
            match peer.stream.try_write(&message) {
                Ok(written) if written == message.len() => {}
                Ok(_) => fail("a subscriber takes heads too slowly"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => fail("a subscriber takes no heads"),
                // It is gone, and its own task will notice.
                Err(_) => {}
            }
        }
    }

    /// The result, or error, of a call.
    fn answer(&self, call: &[u8]) -> String {
        match raw(call, br#""method":"#).unwrap_or_default() {
            br#""eth_blockNumber""# => format!(r#""result":"{:#x}""#, self.head()),
            br#""eth_chainId""# => r#""result":"0x539""#.to_owned(),
            br#""eth_syncing""# => r#""result":false"#.to_owned(),
            br#""net_version""# => r#""result":"1337""#.to_owned(),
            br#""web3_clientVersion""# => r#""result":"bench_ws_origin/1""#.to_owned(),
            br#""eth_getBlockByNumber""# | br#""eth_getBlockByHash""# => match self.asked(call) {
                Some(asked) if asked <= self.head() => {
                    format!(r#""result":{{{},"size":"0x220","transactions":[],"uncles":[]}}"#, self.header(asked))
                }
                _ => r#""result":null"#.to_owned(),
            },
            _ => r#""error":{"code":-32601,"message":"the method does not exist"}"#.to_owned(),
        }
    }

    /// The number of the block that is asked for. A hash is a number here, too.
    fn asked(&self, call: &[u8]) -> Option<u64> {
        match raw(call, br#""params":["#)? {
            br#""latest""# | br#""pending""# => Some(self.head()),
            br#""safe""# | br#""finalized""# => Some(self.head() - 64),
            br#""earliest""# => Some(0),
            _ => words::hex(call, br#""params":["#),
        }
    }

    /// The fields of a header whose hash is its number, so that blocks link to their parents without being kept.
    fn header(&self, number: u64) -> String {
        let told = number.checked_sub(START + 1).map_or(0, |index| self.told.borrow()[index as usize]);
        let timestamp = match told {
            0 => self.epoch - START.saturating_sub(number).min(START / 2) * BLOCK_TIME,
            told => told / 1_000_000_000,
        };
        format!(
            concat!(
                r#""number":"{n:#x}","hash":"0x{n:064x}","parentHash":"0x{p:064x}","timestamp":"{t:#x}","#,
                r#""difficulty":"0x0","extraData":"0x{told:016x}","gasLimit":"0x1c9c380","gasUsed":"0x0","baseFeePerGas":"0x7","#,
                r#""logsBloom":"0x{z:0512}","miner":"0x{z:040}","mixHash":"0x{z:064}","nonce":"0x{z:016}","#,
                r#""receiptsRoot":"0x{z:064}","sha3Uncles":"0x{z:064}","stateRoot":"0x{z:064}","transactionsRoot":"0x{z:064}""#,
            ),
            n = number,
            p = number.saturating_sub(1),
            t = timestamp,
            told = told,
            z = 0,
        )
    }
}

/// What is counted while a connection is open.
struct Open<'a>(&'a Node, usize);

impl<'a> Open<'a> {
    fn new(node: &'a Node, id: usize) -> Self {
        node.connections.set(node.connections.get() + 1);
        Self(node, id)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.subscribers.borrow_mut().remove(&self.1);
    }
}

/// HTTP/1.1 with keep-alive, until the client asks for a WebSocket.
async fn connection(mut stream: TcpStream, node: &Node, id: usize) -> io::Result<()> {
    let mut read = Vec::new();
    loop {
        let Some(request) = request(&read)? else {
            if !fill(&stream, &mut read).await? {
                return Ok(());
            }
            continue;
        };
        if let Some(key) = request.key {
            let accept = derive_accept_key(&key);
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await?;
            read.drain(..request.end);
            let _open = Open::new(node, id);
            return websocket(stream, read, node, id).await;
        }
        let call = &read[request.start..request.end];
        let body = format!(r#"{{"jsonrpc":"2.0","id":{},{}}}"#, id_of(call), node.answer(call));
        let length = body.len();
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(head.as_bytes()).await?;
        read.drain(..request.end);
    }
}

struct Request {
    /// Where the body begins and ends.
    start: usize,
    end: usize,
    /// `Sec-WebSocket-Key`.
    key: Option<Vec<u8>>,
}

/// The first request, once it is all there.
fn request(buf: &[u8]) -> io::Result<Option<Request>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Request::new(&mut headers);
    let start = match parsed.parse(buf).map_err(io::Error::other)? {
        httparse::Status::Complete(n) => n,
        httparse::Status::Partial => return Ok(None),
    };
    let header = |name: &str| parsed.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    let length = header("content-length").and_then(|v| std::str::from_utf8(v).ok()?.trim().parse().ok()).unwrap_or(0);
    if length > MAX_REQUEST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let key = header("sec-websocket-key").map(<[u8]>::to_vec);
    Ok((buf.len() >= start + length).then_some(Request { start, end: start + length, key }))
}

async fn websocket(stream: TcpStream, mut read: Vec<u8>, node: &Node, id: usize) -> io::Result<()> {
    let peer = Rc::new(Peer { stream, amid: Cell::new(false) });
    let mut out = Vec::new();
    loop {
        let mut at = 0;
        while let Some(frame) = frame::read(&mut read[at..])? {
            let payload = &read[at..][frame.payload.clone()];
            match frame.opcode {
                frame::PING => frame::write(frame::PONG, payload, false, &mut out),
                frame::PONG => {}
                frame::CLOSE => return Ok(()),
                _ => {
                    let answer = peer.answer(payload, node, id);
                    let text = format!(r#"{{"jsonrpc":"2.0","id":{},{answer}}}"#, id_of(payload));
                    frame::write(frame::TEXT, text.as_bytes(), false, &mut out);
                }
            }
            at += frame.payload.end;
        }
        read.drain(..at);
        peer.write(&out).await?;
        out.clear();
        if !fill(&peer.stream, &mut read).await? {
            return Ok(());
        }
    }
}

impl Peer {
    fn answer(self: &Rc<Self>, call: &[u8], node: &Node, id: usize) -> String {
        match raw(call, br#""method":"#).unwrap_or_default() {
            br#""eth_subscribe""# if raw(call, br#""params":["#) == Some(br#""newHeads""#) => {
                if node.subscribers.borrow_mut().insert(id, self.clone()).is_some() {
                    fail("two subscriptions on one connection");
                }
                format!(r#""result":{SUBSCRIPTION}"#)
            }
            br#""eth_unsubscribe""# => format!(r#""result":{}"#, node.subscribers.borrow_mut().remove(&id).is_some()),
            _ => node.answer(call),
        }
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.amid.set(true);
                    self.stream.writable().await?;
                }
                Err(error) => return Err(error),
            }
            self.amid.set(!bytes.is_empty());
        }
        Ok(())
    }
}

/// Reads what is there, or waits for it; false at the end.
async fn fill(stream: &TcpStream, read: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        stream.readable().await?;
        let start = read.len();
        read.resize(start + 16384, 0);
        let got = stream.try_read(&mut read[start..]);
        read.truncate(start + *got.as_ref().unwrap_or(&0));
        match got {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            got => return Ok(got? > 0),
        }
    }
}

fn id_of(call: &[u8]) -> &str {
    raw(call, br#""id":"#).and_then(|id| std::str::from_utf8(id).ok()).unwrap_or("null")
}
