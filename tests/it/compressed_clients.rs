//! Answers compressed for the clients that ask for it.

mod bytes_in_time;
mod encoders;

use std::{io::Read, sync::Arc};

use flate2::read::GzDecoder;
use steadfast::devnet::{Devnet, Options};

use crate::common::{
    client::{ROUNDABOUT, Response, call, with_headers},
    origin::{Origin, Reply},
    sim::{Net, Proxy},
    until,
};

const ON: &str = "[compression]\ncodings = [\"zstd\", \"gzip\"]\nmin_size = \"1KiB\"\n";

/// A result of so many bytes, which does not shrink to nothing.
fn long(length: usize) -> String {
    let words = (0_u64..).flat_map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes());
    let text: Vec<u8> = words.take(length).collect();
    format!("\"0x{}\"", String::from_utf8(text).unwrap())
}

/// A node whose answers are as long as their params say.
async fn node(net: &Net) -> Origin {
    Origin::within(net, |seen| {
        let length = seen.params().trim_matches(['[', ']', '"']).parse().unwrap();
        Reply::result(seen, &long(length))
    })
    .await
}

fn answer(id: u64, length: usize) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{}}}"#, long(length))
}

/// The text of these compressed bytes, which may end before their end.
fn begun(coded: &[u8], coding: &str) -> String {
    let mut plain = Vec::new();
    match coding {
        // An end before its time is an error, after all bytes that came.
        "gzip" => _ = GzDecoder::new(coded).read_to_end(&mut plain),
        _ => {
            let (mut context, mut room) = (zstd_safe::DCtx::create(), vec![0; 1 << 20]);
            let mut input = zstd_safe::InBuffer::around(coded);
            loop {
                let mut out = zstd_safe::OutBuffer::around(&mut room[..]);
                context.decompress_stream(&mut out, &mut input).unwrap();
                plain.extend_from_slice(out.as_slice());
                if input.pos() == coded.len() && out.pos() < 1 << 20 {
                    break;
                }
            }
        }
    }
    String::from_utf8(plain).unwrap()
}

/// The text of the answer, whose coding must be this.
fn decoded(response: &Response, coding: Option<&str>) -> String {
    assert_eq!(response.header("content-encoding"), coding, "{:?}", response.headers);
    let mut plain = Vec::new();
    match coding {
        Some("gzip") => drop(GzDecoder::new(&response.body[..]).read_to_end(&mut plain).unwrap()),
        Some(_) => {
            let mut room = vec![0; 16 << 20];
            let length = zstd_safe::decompress(&mut room[..], &response.body).unwrap();
            plain.extend_from_slice(&room[..length]);
        }
        None => plain.clone_from(&response.body),
    }
    String::from_utf8(plain).unwrap()
}

async fn ask(proxy: &Proxy, headers: &str, body: impl AsRef<[u8]>) -> Response {
    let mut client = proxy.client().await;
    client.send(with_headers("/", headers, body.as_ref())).await;
    client.response().await
}

#[tokio::test(start_paused = true)]
async fn answers_have_the_coding_that_the_client_likes_best() {
    let net = Net::default();
    let origin = node(&net).await;
    let proxy = Proxy::over(&net, [origin.url()], ON).await;
    // Short, whole in memory, and streamed.
    for length in [2000, 100_000, 3_000_000] {
        for (accepted, coding) in [
            ("gzip", Some("gzip")),
            ("zstd", Some("zstd")),
            ("gzip, zstd, br", Some("zstd")),
            ("zstd;q=0.5, gzip", Some("gzip")),
            ("gzip;q=0", None),
            ("br", None),
            ("identity", None),
            ("identity, gzip;q=0.5", None),
        ] {
            let got =
                ask(&proxy, &format!("Accept-Encoding: {accepted}\r\n"), call(1, "eth_call", &format!("[{length}]")))
                    .await;
            assert!(decoded(&got, coding) == answer(1, length), "{accepted} {length}");
            assert!(coding.is_none() || got.body.len() < length, "{accepted} {length}: {}", got.body.len());
            assert_eq!(got.header("vary"), (accepted != "identity").then_some("accept-encoding"), "{accepted}");
        }
    }
    // Without a wish, on the fast path and beside it.
    for headers in ["", ROUNDABOUT] {
        let got = ask(&proxy, headers, call(1, "eth_call", "[5000]")).await;
        assert_eq!(decoded(&got, None), answer(1, 5000));
    }
}

#[tokio::test(start_paused = true)]
async fn short_answers_are_plain_unless_the_client_takes_none() {
    let net = Net::default();
    let origin = node(&net).await;
    let proxy = Proxy::over(&net, [origin.url()], ON).await;
    for (accepted, coding) in [("gzip", None), ("gzip, identity;q=0", Some("gzip")), ("zstd, *;q=0", Some("zstd"))] {
        let got = ask(&proxy, &format!("Accept-Encoding: {accepted}\r\n"), call(1, "eth_call", "[100]")).await;
        assert_eq!(decoded(&got, coding), answer(1, 100), "{accepted}");
    }
    // No answer at all, and a refusal.
    let notification = r#"{"jsonrpc":"2.0","method":"eth_call","params":[5000]}"#;
    let got = ask(&proxy, "Accept-Encoding: gzip, identity;q=0\r\n", notification).await;
    assert_eq!((got.header("content-encoding"), got.body.len()), (None, 0));
    let got = ask(&proxy, "Accept-Encoding: gzip\r\n", "nonsense").await;
    assert_eq!((got.status, got.header("content-encoding")), (400, None));
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_compressed_as_it_passes() {
    let net = Net::default();
    let origin = node(&net).await;
    let proxy = Proxy::over(&net, [origin.url()], ON).await;
    let calls: Vec<_> = (1..=40).map(|id| call(id, "eth_call", "[20000]")).collect();
    let answers: Vec<_> = (1..=40).map(|id| answer(id, 20_000)).collect();
    let mut client = proxy.client().await;
    // The connection is kept.
    for coding in ["gzip", "zstd", "gzip"] {
        client
            .send(with_headers(
                "/",
                &format!("Accept-Encoding: {coding}\r\n"),
                format!("[{}]", calls.join(",")).as_bytes(),
            ))
            .await;
        let got = client.response().await;
        assert!(decoded(&got, Some(coding)) == format!("[{}]", answers.join(",")), "{coding}");
    }
}

#[tokio::test(start_paused = true)]
async fn answers_are_compressed_only_after_a_reload_that_says_so() {
    let net = Net::default();
    let origin = node(&net).await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    let asked = call(1, "eth_call", "[50000]");
    let got = ask(&proxy, "Accept-Encoding: gzip\r\n", &asked).await;
    assert_eq!((decoded(&got, None), got.header("vary")), (answer(1, 50_000), None));
    let nodes = crate::common::proxy::nodes([origin.url()]);
    proxy.reload(&format!("{ON}{nodes}")).await;
    assert_eq!(decoded(&ask(&proxy, "Accept-Encoding: gzip\r\n", &asked).await, Some("gzip")), answer(1, 50_000));
}

#[tokio::test(start_paused = true)]
async fn beacon_answers_are_compressed_and_events_are_not() {
    let net = Net::default();
    let devnet = Devnet::start(Options { consensus: 1, ..Options::default() }, Arc::new(net.clone())).await.unwrap();
    let settings = format!("{ON}[[cl.primary]]\nhttp = \"{}\"\n", devnet.cl(0).http_url()).replace("1KiB", "10B");
    let proxy = Proxy::launch(&net, &settings).await;
    until("it is ready", async || proxy.admin("/readyz").await.status == 200).await;
    let mut client = proxy.client().await;
    let mut ask = async |method: &str, path: &str, fields: &str| {
        client.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).await;
        client.response().await
    };
    let spec = "/eth/v1/config/spec";
    let plain = ask("GET", spec, "").await;
    assert_eq!(plain.header("vary"), Some("accept-encoding"), "a cache must know");
    let coded = ask("GET", spec, "Accept-Encoding: zstd\r\n").await;
    assert_eq!(decoded(&coded, Some("zstd")), plain.text());
    let mut events = proxy.client().await;
    events.send("GET /eth/v1/events?topics=head HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n").await;
    let head = events.head().await.to_ascii_lowercase();
    assert!(head.contains("text/event-stream") && !head.contains("content-encoding"), "{head}");
}
