//! When compressed bytes leave, and answers that have no coding but their own.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::Notify,
    time::{sleep, timeout},
};

use super::{ON, answer, begun, decoded, long};
use crate::common::{
    SOON,
    client::{Client, call, with_headers},
    origin::{Origin, Reply},
    rest::{self, Exchange, Node, over, request},
    sim::{Net, Proxy},
};

/// The chunks that have come, without their framing. The last one may be cut.
fn unchunked(mut read: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = read.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&read[..end]).unwrap(), 16).unwrap();
        read = &read[end + 2..];
        let (chunk, rest) = read.split_at(size.min(read.len()));
        body.extend_from_slice(chunk);
        read = rest.get(2..).unwrap_or_default();
    }
    body
}

/// Reads for so long.
async fn read_for<S: AsyncRead + Unpin>(client: &mut Client<S>, time: Duration) {
    let reading = async { while client.io.read_buf(&mut client.read).await.unwrap() > 0 {} };
    assert!(timeout(time, reading).await.is_err(), "the connection has ended");
}

#[tokio::test(start_paused = true)]
async fn a_late_call_holds_no_compressed_answer_back() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| {
        let (result, id) = (long(2000), seen.id());
        match seen.method().as_str() {
            "eth_getLogs" => Reply::act(async move |mut io| {
                sleep(Duration::from_secs(6)).await;
                let answer = crate::common::origin::ok(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":[]}}"#));
                tokio::io::AsyncWriteExt::write_all(&mut io, &answer).await.unwrap();
                Some(io)
            }),
            _ => Reply::result(seen, &result),
        }
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], ON).await;
    let calls: Vec<_> = (1..=10).map(|id| call(id, "eth_call", "[]")).collect();
    let body = format!("[{},{}]", calls.join(","), call(11, "eth_getLogs", "[{}]"));
    let answers: Vec<_> = (1..=10).map(|id| answer(id, 2000)).collect();
    for coding in ["gzip", "zstd"] {
        let mut client = proxy.client().await;
        client.send(with_headers("/", &format!("Accept-Encoding: {coding}\r\n"), body.as_bytes())).await;
        let head = client.head().await;
        assert!(head.contains(&format!("content-encoding: {coding}")), "{head}");
        read_for(&mut client, Duration::from_secs(1)).await;
        let first = unchunked(&client.read);
        // All ten are there, and go out together.
        assert_eq!(begun(&first, coding), format!("[{}", answers.join(",")), "{coding}");
        assert!(client.read.len() < first.len() + 100, "{coding}: many pieces");
        read_for(&mut client, Duration::from_secs(6)).await;
        let whole = begun(&unchunked(&client.read), coding);
        assert!(whole.ends_with(r#"{"jsonrpc":"2.0","id":11,"result":[]}]"#), "{coding}: {whole}");
    }
}

#[tokio::test]
async fn pieces_of_a_beacon_state_leave_as_they_come() {
    const FIRST: &str = "{\"data\":[1,2,3";
    for coding in ["gzip", "zstd"] {
        let has_read = Arc::new(Notify::new());
        let goes_on = has_read.clone();
        let node = Node::start(move |mut exchange: Exchange| {
            let goes_on = goes_on.clone();
            async move {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
                exchange.send(format!("{head}{:x}\r\n{FIRST}\r\n", FIRST.len())).await;
                goes_on.notified().await;
                exchange.send("2\r\n]}\r\n0\r\n\r\n").await;
                Some(exchange)
            }
        })
        .await;
        let proxy = over(&[&node], ON).await;
        let mut client = proxy.client().await;
        let accepted = format!("accept-encoding: {coding}\r\n");
        client.send(request("GET", "/eth/v2/debug/beacon/states/head", &accepted, "")).await;
        assert!(client.head().await.contains(&format!("content-encoding: {coding}")));
        let first = async {
            while begun(&unchunked(&client.read), coding) != FIRST {
                client.io.read_buf(&mut client.read).await.unwrap();
            }
        };
        timeout(SOON, first).await.expect("the first piece is held back");
        has_read.notify_one();
        let whole = async {
            while !client.read.ends_with(b"\r\n0\r\n\r\n") {
                client.io.read_buf(&mut client.read).await.unwrap();
            }
        };
        timeout(SOON, whole).await.unwrap();
        assert_eq!(begun(&unchunked(&client.read), coding), format!("{FIRST}]}}"));
    }
}

/// An answer of 10,000 bytes.
fn fixed_body() -> String {
    format!(r#"{{"data":"{}"}}"#, "x".repeat(9_989))
}

#[tokio::test]
async fn answers_that_a_node_has_fixed_stay_as_they_are() {
    let node = Node::start(|exchange: Exchange| async move {
        let target = exchange.asked.target.clone();
        let (status, field) = match target.rsplit('/').next().unwrap() {
            "etag" => ("200 OK", "etag: \"a\"\r\n"),
            "fixed" => ("200 OK", "cache-control: public, No-Transform\r\n"),
            "range" => ("206 Partial Content", "content-range: bytes 0-9999/20000\r\n"),
            "coded" => ("200 OK", "content-encoding: br\r\n"),
            _ => ("200 OK", "accept-ranges: bytes\r\n"),
        };
        let body = if exchange.asked.method == "HEAD" { String::new() } else { fixed_body() };
        let fields = format!("content-type: application/json\r\n{field}content-length: 10000\r\n");
        exchange.reply(format!("HTTP/1.1 {status}\r\n{fields}\r\n{body}")).await
    })
    .await;
    let proxy = over(&[&node], ON).await;
    let ask = async |path: &str| {
        rest::send(&proxy, request("GET", &format!("/eth/v1/x/{path}"), "accept-encoding: gzip\r\n", "")).await
    };
    for (path, coding) in [("etag", None), ("fixed", None), ("range", None), ("coded", Some("br"))] {
        let got = ask(path).await;
        assert_eq!((got.header("content-encoding"), got.header("content-length")), (coding, Some("10000")), "{path}");
        assert_eq!((got.body.len(), got.header("vary")), (10_000, None), "{path}");
    }
    let got = ask("open").await;
    assert_eq!(decoded(&got, Some("gzip")), fixed_body());
    // The length and the ranges of a plain answer say nothing of a compressed one.
    assert_eq!((got.header("content-length"), got.header("accept-ranges")), (None, None));
    assert_eq!(got.header("vary"), Some("accept-encoding"));
    // The head alone is that of the plain answer.
    let mut client = proxy.client().await;
    client.send(request("HEAD", "/eth/v1/x/open", "accept-encoding: gzip\r\n", "")).await;
    let head = client.head().await.to_ascii_lowercase();
    assert!(head.contains("content-length: 10000") && !head.contains("content-encoding"), "{head}");
    assert!(head.contains("vary: accept-encoding"), "{head}");
}
