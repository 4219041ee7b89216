//! The time of `eth_sendRawTransaction` with an outbox beside that without one, for
//! `bench/outbox.sh`.
//!
//! `bench_outbox [--anvil URL] [SECONDS [ROUNDS [SENDERS]]]` starts three proxies in one process, has
//! so many senders send one transaction after the other through each proxy in turns, and prints a
//! table. Every sender has a key and a connection of its own. The nodes are two pretend ones of the
//! same process, or the anvil at the URL.

use std::{
    env, io,
    net::SocketAddr,
    ops::Range,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, Signature};
use k256::ecdsa::SigningKey;
use steadfast::{
    app::{App, World},
    config::Config,
    devnet::{Devnet, Options},
    domain::hex::encode,
    net::system::System,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

const CHAIN: u64 = 1337;

/// The settings of the proxies, by their names.
const PROXIES: [(&str, &str); 3] =
    [("no outbox", ""), ("ack = \"node\"", "ack = \"node\"\n"), ("ack = \"disk\"", "ack = \"disk\"\n")];

#[tokio::main]
async fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let anvil = words.iter().position(|word| word == "--anvil").and_then(|at| words.get(at + 1));
    let numbers: Vec<u64> = words.iter().filter_map(|number| number.parse().ok()).collect();
    let number = |place: usize, usual| numbers.get(place).copied().unwrap_or(usual);
    let (seconds, rounds, senders) = (number(0, 3), number(1, 5), number(2, 100));
    let pretend = async || {
        let options = Options { execution: 2, block_time: Some(Duration::from_millis(250)), ..Options::default() };
        Devnet::start(options, Arc::new(System)).await
    };
    let devnet = if anvil.is_none() { Some(pretend().await?) } else { None };
    let urls = devnet.iter().flat_map(Devnet::nodes).map(|node| node.http_url()).chain(anvil.cloned());
    let nodes: String = urls.map(|url| format!("[[el.primary]]\nhttp = \"{url}\"\n")).collect();
    let dir = env::temp_dir().join(format!("steadfast-bench-{}", std::process::id()));
    let mut apps = Vec::new();
    for (place, (_, settings)) in PROXIES.iter().enumerate() {
        let outbox = if settings.is_empty() {
            String::new()
        } else {
            format!("[outbox]\ndir = {:?}\n{settings}", dir.join(place.to_string()).display().to_string())
        };
        let text = format!("listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n{outbox}{nodes}");
        let config = Config::parse(&text, &|_| None).map_err(|wrong| io::Error::other(wrong.to_string()))?;
        let app = App::start(config, World::real(2), None).await;
        apps.push(app.map_err(|why| io::Error::other(why.to_string()))?);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut took = vec![Vec::new(); PROXIES.len()];
    for round in 0..rounds {
        for turn in 0..apps.len() {
            // Each proxy is the first of a round as often as the others: what a node has to do for the
            // transactions before takes time too.
            let place = (round as usize + turn) % apps.len();
            let app = &apps[place];
            // A transaction is new to each proxy and in each round.
            let first_key = 1 + (round * PROXIES.len() as u64 + place as u64) * senders;
            if let Some(url) = anvil {
                fund(url, first_key..first_key + senders).await?;
            }
            took[place].extend(load(app.addr(), first_key, senders, Duration::from_secs(seconds)).await);
        }
    }
    println!("| proxy | transactions/s | p50 ms | p99 ms | p50, to no outbox |\n|---|--:|--:|--:|--:|");
    let mut base = None;
    for ((name, _), took) in PROXIES.iter().zip(&mut took) {
        took.sort_unstable();
        let at = |part: usize| took.get(took.len() * part / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let (rate, half) = (took.len() as f64 / (seconds * rounds) as f64, at(50));
        let base = *base.get_or_insert(half);
        println!("| {name} | {rate:.0} | {half:.2} | {:.2} | {:.2} |", at(99), half / base);
    }
    for app in apps {
        app.shutdown().await;
    }
    std::fs::remove_dir_all(PathBuf::from(&dir))
}

/// The times that answers took, of all senders together.
async fn load(addr: SocketAddr, first_key: u64, senders: u64, time: Duration) -> Vec<Duration> {
    let mut tasks = JoinSet::new();
    for key in first_key..first_key + senders {
        tasks.spawn(async move { send(addr, key, time).await.expect("a sender goes on to the end") });
    }
    tasks.join_all().await.concat()
}

/// The key of this number.
fn key(number: u64) -> SigningKey {
    let mut secret = [1; 32];
    secret[..8].copy_from_slice(&number.to_be_bytes());
    SigningKey::from_slice(&secret).expect("a key")
}

/// Has anvil give the senders of these keys more than they spend.
async fn fund(url: &str, keys: Range<u64>) -> io::Result<()> {
    let calls: Vec<String> = keys
        .map(|number| {
            let sender = Address::from_private_key(&key(number));
            let params = format!(r#"["{sender}","0xffffffffffffffffffff"]"#);
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"anvil_setBalance","params":{params}}}"#)
        })
        .collect();
    let body = format!("[{}]", calls.join(","));
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await?;
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    if answer.contains(r#""error""#) { Err(io::Error::other(answer)) } else { Ok(()) }
}

#[expect(clippy::disallowed_methods, reason = "a stand-alone tool that no simulation runs")]
async fn send(addr: SocketAddr, number: u64, time: Duration) -> io::Result<Vec<Duration>> {
    let key = key(number);
    let mut stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (mut took, mut read, end) = (Vec::new(), vec![0; 4096], Instant::now() + time);
    for nonce in 0.. {
        let raw = signed(&key, nonce);
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_sendRawTransaction","params":["{raw}"]}}"#);
        let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        let begun = Instant::now();
        stream.write_all([head, body].concat().as_bytes()).await?;
        // The answer is short, and so comes in one piece.
        let length = stream.read(&mut read).await?;
        let answer = String::from_utf8_lossy(&read[..length]);
        if !answer.contains(r#""result":"0x"#) {
            return Err(io::Error::other(answer.into_owned()));
        }
        took.push(begun.elapsed());
        if Instant::now() > end {
            break;
        }
    }
    Ok(took)
}

fn signed(key: &SigningKey, nonce: u64) -> String {
    let tx = TxEip1559 {
        chain_id: CHAIN,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 30_000_000_000,
        to: Address::repeat_byte(7).into(),
        ..TxEip1559::default()
    };
    let (signature, parity) = key.sign_prehash_recoverable(tx.signature_hash().as_slice()).expect("a signature");
    encode(TxEnvelope::from(tx.into_signed(Signature::from((signature, parity)))).encoded_2718())
}
