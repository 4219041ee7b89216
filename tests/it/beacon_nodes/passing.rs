//! What passes unchanged, and what does not pass.

use tokio::io::AsyncReadExt;

use super::ALL_METHODS;
use crate::common::{
    rest::{Node, ask, chunked, chunks, json, over, request, response, send, status},
    until,
};

/// Bytes of every value, and those that framing is made of.
fn ssz(length: usize) -> Vec<u8> {
    b"\r\n\r\n0\r\n\r\n".iter().copied().chain((0..=255u8).cycle()).take(length).collect()
}

#[tokio::test]
async fn bodies_and_headers_pass_unchanged_in_any_framing() {
    let kinds = [
        ("application/octet-stream", ssz(100_000)),
        ("application/octet-stream", ssz(1)),
        ("application/json; charset=utf-8", b"{ \"b\" : 1,\n\t\"a\" : [ 1.0e5 ] , \"a\":null }\n".to_vec()),
        ("application/json", vec![]),
    ];
    for (kind, body) in kinds {
        for in_chunks in [false, true] {
            let fields = format!(
                "Content-Type: {kind}\r\nEth-Consensus-Version: electra\r\nX-B: 1\r\nx-b: 2\r\nETag: \"e\"\r\n"
            );
            let answer = match in_chunks {
                true => chunked("202 Accepted", &fields, &body, 777),
                false => response("202 Accepted", &fields, &body),
            };
            let node = Node::always(answer).await;
            let proxy = over(&[&node], "").await;
            let fields = format!(
                "Content-Type: {kind}\r\nAccept: application/octet-stream;q=1.0,application/json;q=0.9\r\nAccept-Encoding: gzip\r\n\
                 Content-Encoding: x\r\nEth-Consensus-Version: electra\r\nEth-X: 1\r\nETH-X: 2\r\nX-Request-Id: 7\r\n"
            );
            // A message has no answer in SSZ.
            let (target, coding) = match kind {
                "application/octet-stream" => ("/eth/v1/node/new?a=%2F%20+&b", "gzip"),
                // The proxy has to read what a node says of a block.
                _ => ("/eth/v2/beacon/blocks?broadcast_validation=gossip&a=%2F%20+&b", "identity"),
            };
            let asked = match in_chunks {
                true => {
                    let head = format!(
                        "POST {target} HTTP/1.1\r\nHost: p\r\nUser-Agent: vc/1\r\n{fields}Transfer-Encoding: chunked\r\n\r\n"
                    );
                    [head.into_bytes(), chunks(&body, 1000)].concat()
                }
                false => request("POST", target, &fields, &body),
            };
            let answer = send(&proxy, asked).await;
            assert_eq!(answer.status, 202);
            assert_eq!(answer.body, body, "{kind} {in_chunks}");
            for (name, value) in [("content-type", kind), ("eth-consensus-version", "electra"), ("etag", "\"e\"")] {
                assert_eq!(answer.header(name), Some(value));
            }
            let twice: Vec<&str> =
                answer.headers.iter().filter(|(name, _)| name == "x-b").map(|(_, value)| &**value).collect();
            assert_eq!(twice, ["1", "2"]);
            let [seen] = &node.asked()[..] else { panic!("{:?}", node.asked()) };
            assert_eq!((&*seen.method, &*seen.target), ("POST", target));
            assert_eq!(seen.body, body, "{kind} {in_chunks}");
            for (name, values) in [
                ("content-type", vec![kind]),
                ("accept", vec!["application/octet-stream;q=1.0,application/json;q=0.9"]),
                ("accept-encoding", vec![coding]),
                ("content-encoding", vec!["x"]),
                ("eth-consensus-version", vec!["electra"]),
                ("eth-x", vec!["1", "2"]),
                ("x-request-id", vec!["7"]),
                ("user-agent", vec![if in_chunks { "vc/1" } else { "test/1" }]),
            ] {
                assert_eq!(seen.header(name), values, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn credentials_and_connection_headers_stay_on_their_side() {
    let fields = "content-type: application/json\r\nset-cookie: a=b\r\naccess-control-allow-origin: https://else\r\n\
                  x-hop: 1\r\nconnection: keep-alive, x-hop\r\nkeep-alive: timeout=5\r\neth-x: 1\r\n";
    let node = Node::always(response("200 OK", fields, r#"{"data":[]}"#)).await;
    for (configured, authorization) in
        [("", None), ("calls.forward_headers = [\"authorization\"]\n", Some("Bearer theirs"))]
    {
        let proxy = over(&[&node], "").await;
        drop(proxy);
        let settings = [configured.to_owned(), crate::common::rest::nodes(&[node.url()])].concat();
        let proxy = crate::common::proxy::Proxy::launch(&settings).await;
        let fields = "authorization: Bearer theirs\r\ncookie: a=b\r\nproxy-authorization: x\r\nte: trailers\r\nx-hop: 1\r\n\
                      connection: keep-alive, X-Hop\r\nexpect: 100-continue\r\neth-x: 1\r\n";
        let answer = send(&proxy, request("GET", "/eth/v1/node/peers", fields, "")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("eth-x"), Some("1"));
        for name in ["set-cookie", "access-control-allow-origin", "x-hop", "keep-alive"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
        let seen = node.asked().pop().unwrap();
        assert_eq!(seen.header("authorization"), authorization.into_iter().collect::<Vec<_>>());
        assert_eq!(seen.header("eth-x"), ["1"]);
        for name in ["cookie", "proxy-authorization", "te", "x-hop", "connection", "expect", "content-length"] {
            assert_eq!(seen.header(name), Vec::<&str>::new(), "{name}");
        }
        assert_eq!(seen.header("host"), [node.url().trim_start_matches("http://")]);
    }
}

#[tokio::test]
async fn a_request_gets_the_nodes_own_path_and_headers() {
    let node = Node::always(json("200 OK", r#"{"data":[]}"#)).await;
    let settings = format!(
        "[calls]\nforward_headers = [\"authorization\", \"x-key\"]\n[[cl.primary]]\nname = \"cl-1\"\nhttp = \"{}/k3y/?token=t\"\n\
         headers = {{ Authorization = \"Bearer own\", X-Key = \"own\" }}\n",
        node.url()
    );
    let proxy = crate::common::proxy::Proxy::launch(&settings).await;
    let fields = "authorization: theirs\r\nx-key: theirs\r\n";
    let answer = send(&proxy, request("GET", "/eth/v1/beacon/headers?slot=1", fields, "")).await;
    assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":[]}"#));
    let seen = node.asked().pop().unwrap();
    assert_eq!(seen.target, "/k3y/eth/v1/beacon/headers?token=t&slot=1");
    assert_eq!(seen.header("authorization"), ["Bearer own"]);
    assert_eq!(seen.header("x-key"), ["own"]);
}

#[tokio::test]
async fn all_methods_may_pass_and_answers_without_a_body_have_none() {
    let node = Node::start(|exchange| {
        let answer = match &*exchange.asked.method {
            "HEAD" => b"HTTP/1.1 200 OK\r\ncontent-length: 12345\r\neth-x: 1\r\n\r\n".to_vec(),
            "DELETE" => b"HTTP/1.1 204 No Content\r\neth-x: 1\r\n\r\n".to_vec(),
            "GET" => b"HTTP/1.1 304 Not Modified\r\netag: \"e\"\r\neth-x: 1\r\n\r\n".to_vec(),
            method => response("200 OK", "eth-x: 1\r\n", method),
        };
        exchange.reply(answer)
    })
    .await;
    let proxy = over(&[&node], ALL_METHODS).await;
    let mut client = proxy.client().await;
    for (method, status, header) in [
        ("HEAD", "200", Some(("content-length", "12345"))),
        ("DELETE", "204", None),
        ("GET", "304", Some(("etag", "\"e\""))),
        ("POST", "200", None),
        ("PUT", "200", None),
        ("PATCH", "200", None),
        ("OPTIONS", "200", None),
    ] {
        client.send(request(method, "/eth/v1/node/some", "", "")).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.io.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{method}: {head}");
        assert!(head.contains("\r\neth-x: 1\r\n"), "{method}: {head}");
        if let Some((name, value)) = header {
            assert!(head.contains(&format!("\r\n{name}: {value}\r\n")), "{method}: {head}");
        }
        if status == "200" && method != "HEAD" {
            let mut body = vec![0; method.len()];
            client.io.read_exact(&mut body).await.unwrap();
            assert_eq!(body, method.as_bytes());
        }
        assert!(client.is_silent().await, "{method} has a body");
    }
    let methods: Vec<String> = node.asked().into_iter().map(|asked| asked.method).collect();
    assert_eq!(methods, ["HEAD", "DELETE", "GET", "POST", "PUT", "PATCH", "OPTIONS"]);
}

#[tokio::test]
async fn a_networks_beacon_api_is_under_its_path_and_under_cl() {
    let node = Node::always(json("200 OK", r#"{"data":"default"}"#)).await;
    let other = Node::always(json("200 OK", r#"{"data":"other"}"#)).await;
    let more = format!("[[networks.holesky.cl.primary]]\nname = \"h\"\nhttp = \"{}\"\n", other.url());
    let proxy = over(&[&node], &more).await;
    for (path, network) in [
        ("/eth/v1/node/version", r#"{"data":"default"}"#),
        ("/cl/eth/v3/validator/blocks/1", r#"{"data":"default"}"#),
        ("/holesky/eth/v1/node/version", r#"{"data":"other"}"#),
        ("/holesky/cl/eth/v2/x?y", r#"{"data":"other"}"#),
    ] {
        let answer = ask(&proxy, "GET", path).await;
        assert_eq!((answer.status, &*answer.text()), (200, network), "{path}");
    }
    let targets: Vec<String> = other.asked().into_iter().map(|asked| asked.target).collect();
    assert_eq!(targets, ["/eth/v1/node/version", "/eth/v2/x?y"]);
}

#[tokio::test]
async fn connections_are_kept_and_requests_counted_by_group() {
    let node = Node::always(json("200 OK", r#"{"data":[]}"#)).await;
    let proxy = over(&[&node], "").await;
    let mut client = proxy.client().await;
    for _ in 0..20 {
        client.send(request("GET", "/eth/v1/beacon/headers/head", "", "")).await;
        assert_eq!(client.response().await.status, 200);
    }
    until("idle connections are shared", async || node.open() < 15).await;
    let metrics = proxy.admin("GET /metrics").await.text();
    let line = r#"steadfast_calls_total{layer="cl",method="headers",network="default",outcome="result"} 20"#;
    assert!(metrics.contains(line), "{metrics}");
    assert!(
        metrics.contains(r#"steadfast_attempts_total{layer="cl",network="default",node="cl-1",outcome="answered"} 20"#),
        "{metrics}"
    );
    assert_eq!(status(&proxy, "cl-1").await["in_flight"], 0);
}
