//! Long bodies: neither side is sent more than it takes, and the proxy keeps next to nothing of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use crate::common::{
    SOON,
    client::Client,
    rest::{Exchange, Node, over, request},
    until,
};

const STATE: &str = "/eth/v2/debug/beacon/states/head";
const PIECE: usize = 1 << 16;
const PIECES: u64 = 4096;
/// 256 MiB.
const TOTAL: u64 = PIECES * PIECE as u64;
/// What sockets on the way may hold, several MB each.
const ON_THE_WAY: u64 = 48 << 20;

/// The bytes from `offset` on: each tells where it is, roughly.
fn piece(offset: u64) -> Vec<u8> {
    (0..PIECE as u64).map(|i| (((offset + i) >> 8) ^ (offset + i)) as u8).collect()
}

/// A node with a state of 256 MiB, and how much of it has left the node.
async fn with_a_state(in_chunks: bool) -> (Node, Arc<AtomicU64>) {
    let left = Arc::new(AtomicU64::new(0));
    let leaving = left.clone();
    let node = Node::start(move |mut exchange: Exchange| {
        let left = leaving.clone();
        async move {
            let framing =
                if in_chunks { "transfer-encoding: chunked".into() } else { format!("content-length: {TOTAL}") };
            exchange.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")).await;
            for i in 0..PIECES {
                let mut bytes = piece(i * PIECE as u64);
                if in_chunks {
                    bytes = [format!("{PIECE:x}\r\n").as_bytes(), &bytes, b"\r\n"].concat();
                }
                if !exchange.send(bytes).await {
                    return None;
                }
                left.fetch_add(PIECE as u64, SeqCst);
            }
            if in_chunks {
                exchange.send("0\r\n\r\n").await;
            }
            Some(exchange)
        }
    })
    .await;
    (node, left)
}

/// Reads a head off the client's connection.
async fn head(client: &mut Client) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, client.io.read_u8()).await.unwrap().unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_long_state_leaves_the_node_only_as_the_client_takes_it() {
    for in_chunks in [false, true] {
        let (node, left) = with_a_state(in_chunks).await;
        let proxy = over(&[&node], "").await;
        let mut client = proxy.client().await;
        client.send(request("GET", STATE, "", "")).await;
        let head = head(&mut client).await.to_ascii_lowercase();
        assert_eq!(head.contains("transfer-encoding: chunked"), in_chunks, "{head}");
        assert_eq!(head.contains(&format!("content-length: {TOTAL}")), !in_chunks, "{head}");
        // The client takes nothing, and so the node cannot send.
        let mut before = u64::MAX;
        until("the node stands still", async || {
            sleep(Duration::from_millis(300)).await;
            before == std::mem::replace(&mut before, left.load(SeqCst))
        })
        .await;
        assert!(before < ON_THE_WAY, "{before} bytes have left the node for a client that takes none");
        let mut buffer = vec![0; 1 << 20];
        let (mut expected, mut at) = (piece(0), 0u64);
        let mut framing = Vec::new();
        while at < TOTAL {
            let count = timeout(SOON, client.io.read(&mut buffer)).await.unwrap().unwrap();
            assert!(count > 0, "closed after {at} bytes");
            let mut bytes = &buffer[..count];
            if in_chunks {
                framing.extend_from_slice(bytes);
                let (body, used) = unchunk(&framing);
                framing.drain(..used);
                for byte in body {
                    if at % PIECE as u64 == 0 {
                        expected = piece(at);
                    }
                    assert_eq!(byte, expected[(at % PIECE as u64) as usize], "at {at}");
                    at += 1;
                }
                bytes = &[];
            }
            while !bytes.is_empty() {
                let inside = (at % PIECE as u64) as usize;
                if inside == 0 {
                    expected = piece(at);
                }
                let length = bytes.len().min(PIECE - inside);
                assert!(bytes[..length] == expected[inside..inside + length], "at {at}");
                bytes = &bytes[length..];
                at += length as u64;
            }
        }
    }
}

/// The whole pieces of chunks at the beginning of `bytes`, and how long they are with their framing.
fn unchunk(bytes: &[u8]) -> (Vec<u8>, usize) {
    let (mut body, mut used) = (Vec::new(), 0);
    while let Some(end) = bytes[used..].windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[used..used + end]).unwrap(), 16).unwrap();
        let start = used + end + 2;
        if bytes.len() < start + size + 2 {
            break;
        }
        body.extend_from_slice(&bytes[start..start + size]);
        used = start + size + 2;
    }
    (body, used)
}

#[tokio::test]
async fn a_long_upload_goes_as_the_node_takes_it() {
    for in_chunks in [false, true] {
        let go = Arc::new(tokio::sync::Notify::new());
        let taking = go.clone();
        let node = Node::start(move |mut exchange: Exchange| {
            let go = taking.clone();
            async move {
                assert_eq!(exchange.asked.header("transfer-encoding").is_empty(), !in_chunks);
                go.notified().await;
                let (mut at, mut expected) = (0u64, piece(0));
                while let Some(bytes) = exchange.piece().await {
                    for byte in bytes {
                        let inside = (at % PIECE as u64) as usize;
                        if inside == 0 {
                            expected = piece(at);
                        }
                        assert_eq!(byte, expected[inside], "at {at}");
                        at += 1;
                    }
                }
                exchange.reply(crate::common::rest::response("200 OK", "", at.to_string())).await
            }
        })
        .await;
        let proxy = over(&[&node], "").await;
        let mut client = proxy.client().await;
        let pieces = PIECES / 4;
        let framing = if in_chunks {
            "transfer-encoding: chunked".into()
        } else {
            format!("content-length: {}", pieces * PIECE as u64)
        };
        client.send(format!("POST /eth/v1/some/thing HTTP/1.1\r\nhost: p\r\n{framing}\r\n\r\n")).await;
        let (mut stood_still, mut sent) = (false, 0);
        for i in 0..pieces {
            let mut bytes = piece(i * PIECE as u64);
            if in_chunks {
                bytes = [format!("{PIECE:x}\r\n").as_bytes(), &bytes, b"\r\n"].concat();
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                match timeout(Duration::from_millis(300), client.io.write(rest)).await {
                    Ok(count) => rest = &rest[count.unwrap()..],
                    Err(_) if !stood_still => {
                        stood_still = true;
                        assert!(sent < ON_THE_WAY, "{sent} bytes have left the client for a node that takes none");
                        go.notify_one();
                    }
                    Err(_) => {}
                }
            }
            sent += PIECE as u64;
        }
        assert!(stood_still, "all was taken while the node took nothing");
        if in_chunks {
            client.send("0\r\n\r\n").await;
        }
        let answer = client.response().await;
        assert_eq!((answer.status, answer.text()), (200, (pieces * PIECE as u64).to_string()));
    }
}

#[tokio::test]
async fn the_first_byte_is_passed_on_when_it_comes() {
    for framing in ["transfer-encoding: chunked", "content-length: 1000000000"] {
        let node = Node::start(move |mut exchange: Exchange| async move {
            exchange.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhello\r\n")).await;
            exchange.hang().await
        })
        .await;
        let proxy = over(&[&node], "").await;
        let mut client = proxy.client().await;
        let started = Instant::now();
        client.send(request("GET", STATE, "", "")).await;
        head(&mut client).await;
        timeout(SOON, client.io.read_u8()).await.unwrap().unwrap();
        assert!(started.elapsed() < Duration::from_millis(300), "{framing}: {:?}", started.elapsed());
    }
}
