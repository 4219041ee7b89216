//! What of the port of the beacon API is not for clients, and how much of it may stand in one line.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::watch;

use crate::common::{
    client::Client,
    proxy::Proxy,
    rest::{Exchange, Node, ask, json, nodes, over, request, send},
    until,
};

#[tokio::test]
async fn the_keymanagers_paths_and_odd_methods_reach_no_node() {
    let node = Node::always(json("200 OK", r#"{"data":{}}"#)).await;
    let proxy = over(&[&node], "").await;
    for (method, path, status) in [
        ("GET", "/eth/v1/keystores", 404),
        ("POST", "/eth/v1/keystores", 404),
        ("POST", "/eth/v1/key%73tores", 404),
        ("GET", "/cl/eth/v1//KeyStores/", 404),
        ("POST", "/eth/v1/remotekeys", 404),
        ("POST", "/eth/v1/validator/0x93/feerecipient", 404),
        ("GET", "/eth/v1/validator/0x93/gas_limit", 404),
        ("POST", "/eth/v1/validator/0x93/graffiti", 404),
        ("POST", "/eth/v1/validator/0x93/voluntary_exit", 404),
        ("DELETE", "/eth/v1/keystores", 405),
        ("DELETE", "/eth/v1/node/version", 405),
        ("PUT", "/eth/v1/node/version", 405),
        ("PATCH", "/eth/v1/node/version", 405),
        ("TRACE", "/eth/v1/node/version", 405),
        ("CONNECT", "/eth/v1/node/version", 405),
        ("BREW", "/eth/v1/node/version", 405),
    ] {
        let answer = ask(&proxy, method, path).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &status.into()), "{method} {path}");
        assert_eq!(answer.header("allow"), (status == 405).then_some("GET, HEAD, POST, OPTIONS"), "{method} {path}");
    }
    assert_eq!(node.count(), 0);
    let open = "[beacon]\nblocked = []\nmethods = [\"GET\", \"DELETE\"]\n";
    let proxy = over(&[&node], open).await;
    for (method, status) in [("GET", 200), ("DELETE", 200), ("POST", 405)] {
        assert_eq!(ask(&proxy, method, "/eth/v1/keystores").await.status, status, "{method}");
    }
}

/// A node that tells how long the line was that it was asked by.
async fn measuring() -> Node {
    Node::start(|exchange: Exchange| {
        let length = exchange.asked.target.len().to_string();
        exchange.reply(json("200 OK", &length))
    })
    .await
}

fn keys(length: usize) -> String {
    let start = "/eth/v1/beacon/states/head/validators?id=";
    let keys: String =
        (0..length).map(|at| if at % 99 == 98 { ',' } else { char::from(b'a' + (at % 6) as u8) }).collect();
    format!("{start}{}", &keys[..length - start.len()])
}

#[tokio::test]
async fn a_long_request_line_reaches_the_node_whole() {
    let node = measuring().await;
    let proxy = over(&[&node], "").await;
    let mut client = proxy.client().await;
    // Before, between and behind others on one connection; a thousand keys are 101 kB.
    for length in [100, 8_000, 8_300, 60_000, 65_534, 65_600, 101_416, 131_000, 200] {
        let target = keys(length);
        client.send(request("GET", &target, "x-a: b\r\n", "")).await;
        assert_eq!(client.response().await.text(), length.to_string());
        let seen = node.asked().pop().unwrap();
        assert!(seen.target == target && seen.header("x-a") == ["b"], "{length}");
        client.send(request("POST", "/eth/v1/beacon/states/head/validators", "", "[]")).await;
        assert_eq!(client.response().await.status, 200);
    }
    // In pieces, and below a node's own query.
    let settings = format!("[[cl.primary]]\nname = \"cl-1\"\nhttp = \"{}/key?a=b\"\n", node.url());
    let proxy = Proxy::launch(&settings).await;
    let mut client = proxy.client().await;
    let long = keys(90_000);
    for piece in request("GET", &long, "", "").chunks(7_777) {
        client.send(piece).await;
    }
    client.response().await;
    assert_eq!(node.asked().pop().unwrap().target, format!("/key{}", long.replace("?id", "?a=b&id")));
}

#[tokio::test]
async fn a_query_that_stands_for_a_long_one_is_only_what_it_is() {
    let node = measuring().await;
    let proxy = over(&[&node], "").await;
    let mut client = proxy.client().await;
    let short = "/eth/v1/node/version?steadfast-long-query";
    for (target, seen) in
        [(short.to_owned(), short.to_owned()), (keys(20_000), keys(20_000)), (short.into(), short.into())]
    {
        client.send(request("GET", &target, "", "")).await;
        assert_eq!(client.response().await.status, 200);
        assert_eq!(node.asked().pop().unwrap().target, seen);
    }
    // What could not stand in a line is not taken out of one either.
    for line in ["GET /eth/v1/x?TWO WORDS HTTP/1.1", "GET /eth/v1/x?A\u{7f} HTTP/1.1", "GET /eth/v1/x?A#b HTTP/1.1"] {
        let line = line.replace("TWO", &"A".repeat(10_000)).replace("?A", &format!("?{}", "A".repeat(10_000)));
        let answer = send(&proxy, format!("{line}\r\nhost: p\r\n\r\n").into_bytes()).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (400, &400.into()),
            "{:?}: {}",
            &line[line.len() - 20..],
            answer.text()
        );
    }
    assert_eq!(node.count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_request_lines_have_few_places_and_give_them_back() {
    let (open, arrived) = (watch::Sender::new(false), Arc::new(AtomicUsize::new(0)));
    let node = Node::start({
        let (opened, arrived) = (open.subscribe(), arrived.clone());
        move |exchange: Exchange| {
            let (mut opened, arrived) = (opened.clone(), arrived.clone());
            async move {
                if exchange.asked.target.len() > 10_000 {
                    arrived.fetch_add(1, Relaxed);
                    opened.wait_for(|open| *open).await.ok()?;
                }
                exchange.reply(json("200 OK", r#"{"data":{}}"#)).await
            }
        }
    })
    .await;
    let proxy = Proxy::launch(&nodes(&[node.url()])).await;
    let whole = request("GET", &keys(20_000), "", "");
    // Lines that do not end take no place.
    let mut halves = Vec::new();
    for _ in 0..300 {
        let mut client = proxy.client().await;
        client.send(&whole[..18_000]).await;
        halves.push(client);
    }
    let mut under_way: Vec<Client> = Vec::new();
    for _ in 0..256 {
        let mut client = proxy.client().await;
        client.send(&whole).await;
        under_way.push(client);
    }
    until("all are at the node", async || arrived.load(Relaxed) == 256).await;
    let refused = send(&proxy, whole.clone()).await;
    let code = &refused.json()["code"];
    assert_eq!((refused.status, refused.header("retry-after"), code), (503, Some("1"), &503.into()));
    // Short ones need none.
    assert_eq!(ask(&proxy, "GET", "/eth/v1/node/version").await.status, 200);
    open.send_replace(true);
    for mut client in under_way {
        assert_eq!(client.response().await.status, 200);
    }
    until("they have their places back", async || send(&proxy, whole.clone()).await.status == 200).await;
}

#[tokio::test]
async fn long_request_lines_behind_one_another_are_all_answered() {
    let node = measuring().await;
    let proxy = over(&[&node], "").await;
    let lengths = [100, 60_000, 131_000, 8_300, 200, 90_000];
    let body = "x".repeat(20_000);
    let mut all = Vec::new();
    for length in lengths {
        all.extend(request("GET", &keys(length), "", ""));
        all.extend(request("POST", "/eth/v1/beacon/states/head/validators", "", &body));
    }
    let mut client = proxy.client().await;
    let (mut reads, mut writes) = tokio::io::split(client.io);
    let sends = async {
        tokio::io::AsyncWriteExt::write_all(&mut writes, &all).await.unwrap();
    };
    client = {
        let mut reader = Client::over(tokio::io::join(&mut reads, tokio::io::sink()));
        let answers = async {
            for length in lengths {
                assert_eq!(reader.response().await.text(), length.to_string());
                assert_eq!(reader.response().await.status, 200, "behind {length}");
            }
        };
        tokio::join!(sends, answers);
        Client::over(reads.unsplit(writes))
    };
    client.send(request("GET", &keys(70_000), "", "")).await;
    assert_eq!(client.response().await.text(), "70000");
}

#[tokio::test]
async fn a_head_that_finds_no_memory_is_told_so() {
    let node = measuring().await;
    let proxy = limited(&node).await;
    let refused = send(&proxy, request("GET", &keys(100_000), "", "")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["message"], "max_client_memory is reached: come again");
}

async fn limited(node: &Node) -> Proxy {
    let settings = format!("max_client_memory = \"64KiB\"\n{}", nodes(&[node.url()]));
    let proxy = Proxy::launch(&settings).await;
    until("the node is up", async || ask(&proxy, "GET", "/eth/v1/node/version").await.status == 200).await;
    proxy
}
