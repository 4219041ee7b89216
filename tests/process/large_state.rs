//! A state of a gigabyte through the proxy as a process of its own: it streams, and leaves no trace in memory.

use std::{net::SocketAddr, sync::Arc};

use crate::common::{
    SOON,
    binary::{ADDRESSES, Binary},
    client::Client,
    rest::{Exchange, Node, nodes, request},
    until,
};
use tokio::{io::AsyncReadExt, sync::Notify, time::timeout};

const STATE: &str = "/eth/v2/debug/beacon/states/head";
const TOTAL: usize = 1 << 30;
/// What is sent at a time. An odd length, so that a piece that is lost or comes twice shows.
const PIECE: usize = (1 << 20) - 1;
/// What the process may need for it.
const MOST_GROWTH: u64 = 8 << 20;

/// Runs the binary before this node, and tells where clients connect.
async fn run(node: &Node) -> (Binary, SocketAddr) {
    let process = Binary::run(&[ADDRESSES, &nodes(&[node.url()])].concat());
    until("it says where it listens", async || process.address("clients").is_some()).await;
    let addr = process.address("clients").unwrap();
    (process, addr)
}

/// Forgets the most memory that was in use so far; tells how much is in use now.
fn forget_peak(process: &Binary) -> u64 {
    std::fs::write(format!("/proc/{}/clear_refs", process.id()), "5").unwrap();
    process.figure("VmHWM")
}

/// A node that sends the first piece of a state, waits for `seen`, and sends the rest; whatever else it is asked, little.
async fn node(in_chunks: bool, seen: Arc<Notify>) -> Node {
    let piece: Arc<[u8]> = piece().into();
    Node::start(move |mut exchange: Exchange| {
        let (seen, piece) = (seen.clone(), piece.clone());
        async move {
            if exchange.asked.target != STATE {
                return exchange.reply(crate::common::rest::json("200 OK", "{}")).await;
            }
            let framing = if in_chunks { "transfer-encoding: chunked" } else { "content-length: 1073741824" };
            let kind = "content-type: application/octet-stream";
            exchange.send(format!("HTTP/1.1 200 OK\r\n{kind}\r\n{framing}\r\n\r\n")).await;
            let mut left = TOTAL;
            while left > 0 {
                let length = left.min(PIECE);
                if in_chunks {
                    exchange.send(format!("{length:x}\r\n")).await;
                }
                if !exchange.send(&piece[..length]).await {
                    return None;
                }
                if in_chunks {
                    exchange.send("\r\n").await;
                }
                if left == TOTAL {
                    seen.notified().await;
                }
                left -= length;
            }
            if in_chunks {
                exchange.send("0\r\n\r\n").await;
            }
            Some(exchange)
        }
    })
    .await
}

fn piece() -> Vec<u8> {
    (0..PIECE).map(|i| ((i >> 8) ^ i) as u8).collect()
}

/// The body of a response as it comes.
struct Body {
    client: Client,
    in_chunks: bool,
    /// Bytes of the present chunk, or of the body, that are still to come.
    left: usize,
    buffer: Vec<u8>,
}

impl Body {
    async fn open(addr: SocketAddr, in_chunks: bool) -> Self {
        let mut client = Client::connect(addr).await;
        client.send(request("GET", STATE, "", "")).await;
        let mut body = Self { client, in_chunks, left: 0, buffer: vec![0; 1 << 18] };
        assert_eq!(body.line().await, "HTTP/1.1 200 OK");
        loop {
            match &*body.line().await.to_ascii_lowercase() {
                "" => return body,
                "content-length: 1073741824" if !in_chunks => body.left = TOTAL,
                "transfer-encoding: chunked" if !in_chunks => panic!("the length is not passed on"),
                _ => {}
            }
        }
    }

    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(timeout(SOON, self.client.io.read_u8()).await.expect("a line in time").unwrap());
        }
        line.truncate(line.len() - 2);
        String::from_utf8(line).unwrap()
    }

    /// The next bytes, at most `most`; none at the end.
    async fn next(&mut self, most: usize) -> &[u8] {
        if self.in_chunks && self.left == 0 {
            self.left = usize::from_str_radix(&self.line().await, 16).unwrap();
            if self.left == 0 {
                assert_eq!(self.line().await, "");
                return &[];
            }
        }
        let most = most.min(self.left).min(self.buffer.len());
        if most == 0 {
            return &[];
        }
        let count = timeout(SOON, self.client.io.read(&mut self.buffer[..most])).await.expect("bytes in time").unwrap();
        assert!(count > 0, "closed before its end");
        self.left -= count;
        if self.in_chunks && self.left == 0 {
            assert_eq!(self.line().await, "");
        }
        &self.buffer[..count]
    }
}

async fn passes(in_chunks: bool) {
    let seen = Arc::new(Notify::new());
    let node = node(in_chunks, seen.clone()).await;
    let (process, addr) = run(&node).await;
    // What any request needs is there before the state is asked for.
    let mut client = Client::connect(addr).await;
    client.send(request("GET", "/eth/v1/node/version", "", "")).await;
    assert_eq!(client.response().await.status, 200);
    let before = forget_peak(&process);

    let expected = piece();
    let mut body = Body::open(addr, in_chunks).await;
    // The node sends no more until this has come: it cannot have waited for the rest.
    assert_eq!(body.next(1).await, &expected[..1]);
    seen.notify_one();
    let mut at = 1;
    while at < TOTAL {
        let bytes = body.next(PIECE - at % PIECE).await;
        assert!(!bytes.is_empty(), "it ends after {at} bytes");
        assert!(*bytes == expected[at % PIECE..][..bytes.len()], "at {at}");
        at += bytes.len();
    }
    assert!(body.next(1).await.is_empty());
    let grown = process.figure("VmHWM") - before;
    assert!(grown < MOST_GROWTH, "memory grew by {grown} bytes");
}

#[tokio::test]
async fn a_state_of_known_length_streams_and_leaves_no_memory() {
    passes(false).await;
}

#[tokio::test]
async fn a_state_in_chunks_streams_and_leaves_no_memory() {
    passes(true).await;
}
