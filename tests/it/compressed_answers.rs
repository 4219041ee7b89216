//! Nodes, or what stands before them, that compress their answers though they are asked not to.

use std::{io::Read, sync::Arc};

use crate::common::{
    client::call,
    origin::{Origin, Reply},
    sim::{Net, Proxy},
    until,
};
use flate2::{
    Compression,
    read::{GzDecoder, GzEncoder, ZlibEncoder},
};
use serde_json::Value;
use steadfast::devnet::{Devnet, Fault, Options};

fn answer(id: impl std::fmt::Display, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

fn gzip(text: &str) -> Vec<u8> {
    let mut coded = Vec::new();
    GzEncoder::new(text.as_bytes(), Compression::default()).read_to_end(&mut coded).unwrap();
    coded
}

fn zlib(text: &str) -> Vec<u8> {
    let mut coded = Vec::new();
    ZlibEncoder::new(text.as_bytes(), Compression::default()).read_to_end(&mut coded).unwrap();
    coded
}

/// A response with this body in chunks of `size`.
fn chunked(coding: &str, body: &[u8], size: usize) -> Vec<u8> {
    let chunks = body.chunks(size).map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ntransfer-encoding: chunked\r\n\r\n");
    [head.into_bytes(), chunks.collect::<Vec<_>>().concat(), b"0\r\n\r\n".to_vec()].concat()
}

#[tokio::test(start_paused = true)]
async fn answers_of_a_node_that_always_compresses_are_plain() {
    let net = Net::default();
    let options = Options { consensus: 1, ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let (el, cl) = (devnet.el(0), devnet.cl(0));
    for node in [el, cl] {
        node.set_fault(Fault::Gzip);
    }
    let settings = format!(
        "[[el.primary]]\nname = \"el-1\"\nhttp = \"{}\"\nws = \"{}\"\n[[cl.primary]]\nname = \"cl-1\"\nhttp = \"{}\"\n",
        el.http_url(),
        el.ws_url(),
        cl.http_url()
    );
    let proxy = Proxy::launch(&net, &settings).await;
    let verdict = async |side: &str| {
        proxy.admin("/status").await.json()["networks"][0][side]["nodes"][0]["verdict"].as_str() == Some("up")
    };
    until("both are up", async || verdict("el").await && verdict("cl").await).await;
    let single = proxy.post(call(1, "eth_chainId", "[]")).await;
    assert_eq!((single.text(), single.header("content-encoding")), (answer(1, "\"0x539\""), None));
    let batch = proxy.post(format!("[{},{}]", call(2, "eth_chainId", "[]"), call(3, "dev_ping", "[]"))).await.json();
    assert_eq!((&batch[0]["result"], &batch[1]["error"]["code"]), (&"0x539".into(), &(-32601).into()));
    let socket: Value = serde_json::from_str(&proxy.ws().await.ask(call(4, "eth_chainId", "[]")).await).unwrap();
    assert_eq!(socket["result"], "0x539");
    let long = proxy.post(call(5, "dev_blob", "[900000]")).await.json();
    assert!(long["result"].as_str().unwrap().len() >= 900_000);
    // A client that asks for nothing gets the answer plain. One that asks for it gets the answer of
    // an unknown route as the node gives it, and a plain answer where the proxy reads it.
    let mut client = proxy.client().await;
    let mut ask = async |path: &str, fields: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")).await;
        client.response().await
    };
    for (path, coding) in [("/eth/v1/beacon/genesis", None), ("/eth/v1/no/such/path", Some("gzip"))] {
        let plain = ask(path, "").await;
        assert_eq!(plain.header("content-encoding"), None, "{path}");
        assert!(plain.json().is_object(), "{path}");
        let coded = ask(path, "Accept-Encoding: gzip\r\n").await;
        assert_eq!(coded.header("content-encoding"), coding, "{path}");
        let mut text = coded.text();
        if coding.is_some() {
            text.clear();
            GzDecoder::new(&coded.body[..]).read_to_string(&mut text).unwrap();
        }
        assert_eq!((text, coded.status), (plain.text(), plain.status));
    }
    for node in [el, cl] {
        let requests = node.requests();
        assert!(requests.len() > 5);
        let said = |request: &steadfast::devnet::Request| {
            let all: Vec<_> =
                request.headers.get_all("accept-encoding").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
            all.join(",")
        };
        let others: Vec<_> = requests.iter().filter(|request| said(request) != "identity").map(said).collect();
        assert_eq!(others, if node.name() == cl.name() { vec!["gzip"] } else { Vec::new() });
    }
}

#[tokio::test(start_paused = true)]
async fn answers_of_any_length_and_errors_are_decoded() {
    for (coding, code) in [("gzip", gzip as fn(&str) -> Vec<u8>), ("deflate", zlib)] {
        for (length, size) in [(10, 1), (300_000, 1000), (3_000_000, 7)] {
            let net = Net::default();
            let result: String =
                (0..length / 8).map(|n: u32| format!("{:08x}", n.wrapping_mul(2_654_435_761))).collect();
            let said = format!("\"{result}\"");
            let node =
                Origin::within(&net, move |seen| Reply::Bytes(chunked(coding, &code(&answer(seen.id(), &said)), size)))
                    .await;
            let proxy = Proxy::over(&net, [node.url()], "").await;
            let mut client = proxy.client().await;
            for id in 1..4 {
                let got = client.post(call(id, "eth_call", "[]")).await;
                assert!(
                    got.text() == answer(id, &format!("\"{result}\"")),
                    "{coding} {length}: {} bytes",
                    got.body.len()
                );
            }
            assert_eq!(
                node.seen().iter().map(|seen| seen.connection).collect::<std::collections::BTreeSet<_>>().len(),
                1
            );
        }
    }
    let net = Net::default();
    let node = Origin::within(&net, |seen| {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":3,"message":"reverted"}}}}"#, seen.id());
        Reply::Bytes(chunked("gzip", &gzip(&text), 100))
    })
    .await;
    let proxy = Proxy::over(&net, [node.url()], "").await;
    assert_eq!(proxy.post(call(1, "eth_call", "[]")).await.json()["error"]["message"], "reverted");
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_answer_is_the_nodes_fault() {
    // Without an id, so that nothing but the coding is wrong with it.
    let plain = r#"{"jsonrpc":"2.0","result":"coded"}"#;
    let whole = gzip(plain);
    let bodies = [
        ("br", b"\x0b\x02\x80hello\x03".to_vec()),
        ("br", plain.as_bytes().to_vec()),
        ("zstd", whole.clone()),
        ("gzip, gzip", whole.clone()),
        ("gzip", plain.as_bytes().to_vec()),
        ("gzip", whole[..whole.len() - 3].to_vec()),
        ("deflate", b"no".to_vec()),
    ];
    for (coding, body) in bodies {
        let net = Net::default();
        let bad = Origin::within(&net, move |_| {
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n", body.len());
            Reply::Bytes([head.into_bytes(), body.clone()].concat())
        })
        .await;
        let well = Origin::within(&net, |seen| Reply::result(seen, "\"well\"")).await;
        let proxy = Proxy::over(&net, [bad.url(), well.url()], "").await;
        assert_eq!(proxy.post(call(1, "eth_call", "[]")).await.text(), answer(1, "\"well\""), "{coding}");
        assert_eq!((bad.seen().len(), well.seen().len()), (1, 1), "{coding}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_swells_is_bounded_as_a_plain_one_is() {
    let net = Net::default();
    let node = Origin::within(&net, |seen| Reply::result(seen, "1")).await;
    let proxy = Proxy::over(&net, [node.url()], "").await;
    let bomb = gzip(&answer(1, &format!("\"{}\"", "0".repeat(64 << 20))));
    assert!(bomb.len() < 100_000);
    node.ail(Some(
        [
            format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", bomb.len()).into_bytes(),
            bomb,
        ]
        .concat(),
    ));
    until("it is down", async || proxy.verdicts().await == ["down"]).await;
    let why = proxy.side().await["nodes"][0]["last_error"]["message"].take();
    assert!(why.as_str().unwrap().contains("longer than"), "{why}");
}
