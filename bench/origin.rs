//! A pretend node that costs as little as possible, for `bench/run.sh`: an execution node, and under `/eth/` a consensus node.
//!
//! It answers a small call, a large one, and what a proxy's health checks ask, over HTTP/1.1 with keep-alive. It understands only
//! what it is sent by the programs it is measured with, and is no model for anything else.
//!
//! `bench_origin PORT` serves on `127.0.0.1:PORT` until it is killed.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const CHAIN_ID: &str = "0x539";
/// The head when the origin starts.
const START: u64 = 20_000_000;
/// Seconds between blocks.
const BLOCK_TIME: u64 = 12;
const LARGE: usize = 100_000;
/// How large answers are cut when their length is not said: as nodes do that stream their JSON.
const CHUNK: usize = 4096;
const MAX_REQUEST: usize = 1 << 20;

/// What is the same for all connections.
struct Node {
    started: Instant,
    /// Unix time at the start.
    epoch: u64,
    /// What follows the id in a large answer: first with its length known, then in chunks.
    large: Bytes,
    chunked: Bytes,
    /// A beacon block.
    block: Bytes,
}

/// A route of the beacon API.
#[derive(Clone, Copy)]
enum Route {
    Duties,
    Block,
    Header,
    Genesis,
    Spec,
    Syncing,
    Health,
}

impl Route {
    fn of(path: &str) -> Self {
        match path.split('?').next().unwrap_or_default().trim_start_matches("/eth/") {
            path if path.contains("/duties/") => Self::Duties,
            "v2/beacon/blocks/head" => Self::Block,
            "v1/beacon/genesis" => Self::Genesis,
            "v1/config/spec" => Self::Spec,
            "v1/node/syncing" => Self::Syncing,
            path if path.starts_with("v1/beacon/headers") => Self::Header,
            _ => Self::Health,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|p| p.parse().ok()).ok_or(io::ErrorKind::InvalidInput)?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let node = Arc::new(Node::new());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let node = node.clone();
        // A connection that fails concerns only its client.
        tokio::spawn(async move { serve(stream, &node).await });
    }
}

impl Node {
    #[expect(clippy::disallowed_methods, reason = "a stand-alone tool that no simulation runs")]
    fn new() -> Self {
        let epoch = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs();
        let large = large();
        let mut chunked = Vec::with_capacity(large.len() + 1024);
        for piece in large.chunks(CHUNK) {
            chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            chunked.extend_from_slice(piece);
            chunked.extend_from_slice(b"\r\n");
        }
        chunked.extend_from_slice(b"0\r\n\r\n");
        Self { started: Instant::now(), epoch, block: block().into(), large: large.into(), chunked: chunked.into() }
    }

    /// Number and time of the newest block.
    fn head(&self) -> (u64, u64) {
        let blocks = self.started.elapsed().as_secs() / BLOCK_TIME;
        (START + blocks, self.epoch + blocks * BLOCK_TIME)
    }

    /// The answer to one call, in the order in which it is sent: head and what is made for this call, then what is shared.
    fn answer(&self, body: &[u8], out: &mut Vec<u8>) -> Bytes {
        let id = raw(body, br#""id":"#).unwrap_or(b"null");
        let method = raw(body, br#""method":"#).unwrap_or(br#""""#);
        let (number, _) = self.head();
        let result = match method {
            br#""eth_getLogs""# => {
                head(out, Some(OPENING.len() + id.len() + self.large.len()));
                out.extend_from_slice(OPENING);
                out.extend_from_slice(id);
                return self.large.clone();
            }
            br#""eth_getBlockReceipts""# => {
                head(out, None);
                out.extend_from_slice(format!("{:x}\r\n", OPENING.len() + id.len()).as_bytes());
                out.extend_from_slice(OPENING);
                out.extend_from_slice(id);
                out.extend_from_slice(b"\r\n");
                return self.chunked.clone();
            }
            br#""eth_blockNumber""# => format!(r#""result":"{number:#x}""#),
            br#""eth_chainId""# => format!(r#""result":"{CHAIN_ID}""#),
            br#""eth_syncing""# => r#""result":false"#.to_owned(),
            br#""net_version""# => r#""result":"1337""#.to_owned(),
            br#""web3_clientVersion""# => r#""result":"bench_origin/1""#.to_owned(),
            br#""eth_getBlockByNumber""# | br#""eth_getBlockByHash""# => match self.asked(body) {
                Some(asked) if asked <= number => format!(r#""result":{}"#, self.block(asked)),
                _ => r#""result":null"#.to_owned(),
            },
            _ => r#""error":{"code":-32601,"message":"the method does not exist"}"#.to_owned(),
        };
        head(out, Some(OPENING.len() + id.len() + result.len() + 2));
        for part in [OPENING, id, b",", result.as_bytes(), b"}"] {
            out.extend_from_slice(part);
        }
        Bytes::new()
    }

    /// The answer of a consensus node, as of [`Self::answer`].
    fn beacon(&self, route: Route, out: &mut Vec<u8>) -> Bytes {
        let (slot, _) = self.head();
        let data = match route {
            Route::Block => {
                head(out, Some(self.block.len()));
                return self.block.clone();
            }
            Route::Duties => {
                let duty = |index: u64| {
                    format!(r#"{{"pubkey":"0x{index:096x}","validator_index":"{index}","slot":"{slot}"}}"#)
                };
                format!("[{}]", (0..4).map(duty).collect::<Vec<_>>().join(","))
            }
            Route::Header => format!(
                r#"{{"root":"0x{slot:064x}","canonical":true,"header":{{"message":{{"slot":"{slot}","parent_root":"0x{:064x}"}}}}}}"#,
                slot - 1
            ),
            Route::Genesis => {
                let time = self.epoch - START * BLOCK_TIME;
                format!(r#"{{"genesis_time":"{time}","genesis_validators_root":"0x{:064x}"}}"#, 1)
            }
            Route::Spec => {
                format!(r#"{{"SECONDS_PER_SLOT":"{BLOCK_TIME}","SLOTS_PER_EPOCH":"32","DEPOSIT_CHAIN_ID":"1337"}}"#)
            }
            Route::Syncing => format!(r#"{{"head_slot":"{slot}","sync_distance":"0","is_syncing":false}}"#),
            Route::Health => String::new(),
        };
        if data.is_empty() {
            head(out, Some(0));
        } else {
            let text = format!(r#"{{"execution_optimistic":false,"data":{data}}}"#);
            head(out, Some(text.len()));
            out.extend_from_slice(text.as_bytes());
        }
        Bytes::new()
    }

    /// The number of the block that is asked for. A hash is a number here, too.
    fn asked(&self, body: &[u8]) -> Option<u64> {
        let param = std::str::from_utf8(raw(body, br#""params":["#)?).ok()?.trim_matches('"');
        match param {
            "latest" | "pending" => Some(self.head().0),
            "safe" | "finalized" => Some(self.head().0 - 64),
            "earliest" => Some(0),
            hex => u64::from_str_radix(hex.strip_prefix("0x")?, 16).ok(),
        }
    }

    /// A header whose hash is its number, so that blocks link to their parents without being kept.
    fn block(&self, number: u64) -> String {
        let (head, time) = self.head();
        let timestamp = time.saturating_sub((head - number) * BLOCK_TIME);
        let parent = number.saturating_sub(1);
        format!(
            concat!(
                r#"{{"number":"{n:#x}","hash":"0x{n:064x}","parentHash":"0x{p:064x}","timestamp":"{t:#x}","#,
                r#""difficulty":"0x0","extraData":"0x","gasLimit":"0x1c9c380","gasUsed":"0x0","baseFeePerGas":"0x7","#,
                r#""logsBloom":"0x{z:0512}","miner":"0x{z:040}","mixHash":"0x{z:064}","nonce":"0x{z:016}","#,
                r#""receiptsRoot":"0x{z:064}","sha3Uncles":"0x{z:064}","stateRoot":"0x{z:064}","#,
                r#""transactionsRoot":"0x{z:064}","size":"0x220","transactions":[],"uncles":[]}}"#
            ),
            n = number,
            p = parent,
            t = timestamp,
            z = 0,
        )
    }
}

const OPENING: &[u8] = br#"{"jsonrpc":"2.0","id":"#;

/// The rest of an answer of 100 kB: logs, as a client that asks for many gets them.
fn large() -> Vec<u8> {
    let mut text = br#","result":["#.to_vec();
    let mut index = 0u32;
    while text.len() < LARGE - 700 {
        let log = format!(
            concat!(
                r#"{{"address":"0x{:040x}","topics":["0x{:064x}","0x{:064x}"],"data":"0x{:0128x}","blockNumber":"0x1312d00","#,
                r#""transactionHash":"0x{:064x}","transactionIndex":"0x{:x}","blockHash":"0x{:064x}","logIndex":"0x{:x}","#,
                r#""removed":false}},"#
            ),
            index, index, index, index, index, index, index, index
        );
        text.extend_from_slice(log.as_bytes());
        index += 1;
    }
    text.extend_from_slice(br#"""#);
    text.resize(LARGE - 3, b' ');
    text.extend_from_slice(br#""]}"#);
    text
}

/// A block of 100 kB: most of it are attestations.
fn block() -> Vec<u8> {
    let attestation = |index: u64| {
        format!(
            concat!(
                r#"{{"aggregation_bits":"0x{:0256x}","data":{{"slot":"{}","index":"0","beacon_block_root":"0x{:064x}","#,
                r#""source":{{"epoch":"1","root":"0x{:064x}"}},"target":{{"epoch":"2","root":"0x{:064x}"}}}},"#,
                r#""signature":"0x{:0192x}"}}"#
            ),
            index, START, index, index, index, index
        )
    };
    let mut text = br#"{"version":"electra","execution_optimistic":false,"finalized":false,"data":{"message":{"slot":"1","body":{"attestations":["#.to_vec();
    let mut index = 0;
    while text.len() < LARGE {
        text.extend_from_slice(attestation(index).as_bytes());
        text.push(b',');
        index += 1;
    }
    text.pop();
    text.extend_from_slice(br#"]}},"signature":"0x00"}}"#);
    text
}

fn head(out: &mut Vec<u8>, length: Option<usize>) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nVary: Origin\r\n");
    match length {
        Some(n) => out.extend_from_slice(format!("Content-Length: {n}\r\n\r\n").as_bytes()),
        None => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n"),
    }
}

/// The JSON scalar that follows `key`, as it stands.
fn raw<'a>(body: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let rest = body[memmem::find(body, key)? + key.len()..].trim_ascii_start();
    let end = if rest.first() == Some(&b'"') {
        1 + memchr::memchr(b'"', &rest[1..])? + 1
    } else {
        rest.iter().position(|b| matches!(b, b',' | b'}') || b.is_ascii_whitespace())?
    };
    Some(&rest[..end])
}

async fn serve(mut stream: TcpStream, node: &Node) -> io::Result<()> {
    let mut buf = vec![0; 8192];
    let mut out = Vec::with_capacity(1024);
    let mut filled = 0;
    loop {
        let Some((route, start, end)) = request(&buf[..filled])? else {
            if filled == buf.len() {
                buf.resize(filled * 2, 0);
            }
            match stream.read(&mut buf[filled..]).await? {
                0 => return Ok(()),
                n => filled += n,
            }
            continue;
        };
        out.clear();
        let shared = match route {
            Some(route) => node.beacon(route, &mut out),
            None => node.answer(&buf[start..end], &mut out),
        };
        if shared.is_empty() {
            stream.write_all(&out).await?;
        } else {
            stream.write_all_buf(&mut Buf::chain(&out[..], shared)).await?;
        }
        buf.copy_within(end..filled, 0);
        filled -= end;
    }
}

/// The beacon route of the first request, if it is for one, and where the body begins and ends, once it is all there.
fn request(buf: &[u8]) -> io::Result<Option<(Option<Route>, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Request::new(&mut headers);
    let start = match parsed.parse(buf).map_err(io::Error::other)? {
        httparse::Status::Complete(n) => n,
        httparse::Status::Partial => return Ok(None),
    };
    let length = parsed.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|h| std::str::from_utf8(h.value).ok()?.trim().parse().ok()).unwrap_or(0);
    if length > MAX_REQUEST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let route = parsed.path.filter(|path| path.starts_with("/eth/")).map(Route::of);
    Ok((buf.len() >= start + length).then_some((route, start, start + length)))
}
