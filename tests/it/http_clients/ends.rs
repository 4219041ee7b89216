//! Clients that close their sending side, as scripts do, and wait for their answer.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::answer;
use crate::common::{
    self,
    client::{ROUNDABOUT, call, chunked, post, with_headers},
    devnet,
    origin::{Origin, Reply},
    proxy::{Proxy, nodes},
    rest::{self, Exchange, Node},
    sim::{self, Net},
    until,
};

/// All that comes for these bytes, behind which nothing is sent.
async fn last_words(proxy: &Proxy, bytes: &[u8]) -> String {
    let mut io = TcpStream::connect(proxy.addr()).await.unwrap();
    io.write_all(bytes).await.unwrap();
    io.shutdown().await.unwrap();
    let mut all = Vec::new();
    timeout(common::SOON, io.read_to_end(&mut all)).await.expect("the connection is not closed").unwrap();
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_is_answered() {
    let origin = Origin::start(|seen| {
        // Of a length that is held back, and of one that streams.
        let length = if seen.params() == "[\"long\"]" { 1_000_000 } else { 10 };
        let bytes = common::origin::ok(answer(seen.id(), &format!("\"{}\"", "x".repeat(length))));
        Reply::act(async move |mut io| {
            sleep(Duration::from_millis(100)).await;
            io.write_all(&bytes).await.ok()?;
            Some(io)
        })
    })
    .await;
    let node = Node::start(|exchange: Exchange| async {
        sleep(Duration::from_millis(100)).await;
        exchange.reply(rest::json("200 OK", "\"beacon\"")).await
    })
    .await;
    let proxy = Proxy::over([origin.url()], &rest::nodes(&[node.url()])).await;
    let long = call(1, "eth_call", "[\"long\"]");
    let bodies =
        [call(1, "eth_call", "[]"), call(1, "eth_sendTransaction", "[]"), long.clone(), format!("[{long},{long}]")];
    for body in bodies {
        let ways = [
            post("/", body.as_bytes()),
            with_headers("/", ROUNDABOUT, body.as_bytes()),
            chunked("", body.as_bytes(), 9),
        ];
        for bytes in ways {
            let said = last_words(&proxy, &bytes).await;
            let mut expected = if body.contains("long") { 1_000_000 } else { 10 };
            expected *= body.matches("long").count().max(1);
            assert!(said.starts_with("HTTP/1.1 200 "), "{body}: {said:.200}");
            assert_eq!(said.replace("x-steadfast-node", "").matches('x').count(), expected, "{body}: {said:.200}");
        }
    }
    for bytes in [
        rest::request("GET", "/eth/v1/node/version", "", ""),
        rest::request("POST", "/eth/v2/beacon/blocks", "", "body"),
        b"POST /eth/v2/beacon/blocks HTTP/1.1\r\nHost: p\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
            .to_vec(),
    ] {
        assert!(last_words(&proxy, &bytes).await.ends_with("\"beacon\""));
    }
    assert_eq!(node.asked().len(), 3);
}

#[tokio::test]
async fn all_that_came_before_the_end_is_answered() {
    let origin = Origin::echo().await;
    let proxy = Proxy::over([origin.url()], "").await;
    let one = |id: u32| post("/", call(id, "eth_call", "[]").as_bytes());
    let other = chunked("", call(9, "eth_call", "[]").as_bytes(), 9);
    let said = last_words(&proxy, &[one(1), one(2), other.clone(), one(3)].concat()).await;
    assert_eq!(said.matches("\"result\"").count(), 4, "{said}");
    // And a request that is cut short is not.
    for cut in [&one(1)[..60], &one(1)[..one(1).len() - 1], &other[..other.len() - 3]] {
        let before = origin.seen().len();
        assert!(!last_words(&proxy, cut).await.contains("200 OK"));
        assert_eq!(origin.seen().len(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_cut_or_late_is_answered_in_the_same_words() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| Reply::result(seen, "1")).await;
    let proxy = sim::Proxy::over(&net, [origin.url()], "").await;
    for (is_cut, status, words) in
        [(true, 400, "the body did not come whole"), (false, 408, "the body did not come in time")]
    {
        let mut told = Vec::new();
        for fields in ["", ROUNDABOUT] {
            let mut client = proxy.client().await;
            client.send(format!("POST / HTTP/1.1\r\nHost: p\r\n{fields}Content-Length: 100\r\n\r\n{{")).await;
            if is_cut {
                client.io.shutdown().await.unwrap();
            }
            let response = client.response().await;
            assert_eq!(response.status, status, "{fields}");
            let message = response.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
            assert!(message.contains(words), "{fields}: {message}");
            assert!(client.is_closed().await, "{fields}");
            told.push(response.json());
        }
        assert_eq!(told[0], told[1]);
    }
    assert_eq!(origin.count("eth_call"), 0);
}

#[tokio::test]
async fn a_stream_of_events_ends_when_its_client_closes_its_side() {
    let options = steadfast::devnet::Options { consensus: 1, execution: 0, ..Default::default() };
    let network = devnet(options).await;
    let proxy = Proxy::launch(&rest::nodes(&[network.cl(0).http_url()])).await;
    let streams = async || {
        let text = proxy.admin("GET /metrics").await.text();
        text.lines().find_map(|line| line.strip_prefix("steadfast_sse_streams ")).map(str::to_owned)
    };
    let mut client = proxy.client().await;
    client.send(rest::request("GET", "/eth/v1/events?topics=head", "", "")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    until("the stream is open", async || streams().await.as_deref() == Some("1")).await;
    client.io.shutdown().await.unwrap();
    until("the stream is over", async || streams().await.as_deref() == Some("0")).await;
}

#[tokio::test]
async fn refused_connection_gets_an_answer_before_the_end() {
    let origin = Origin::start(|seen| match seen.method().as_str() {
        "eth_getLogs" => Reply::act(async |_io| std::future::pending().await),
        _ => Reply::result(seen, "1"),
    })
    .await;
    let proxy = Proxy::start(&format!("max_connections = 1\n{}", nodes([origin.url()]))).await;
    let mut busy = proxy.client().await;
    busy.send(post("/", call(1, "eth_getLogs", "[]").as_bytes())).await;
    until("the node has the call", async || origin.count("eth_getLogs") == 1).await;
    let mut other = proxy.client().await;
    let told = other.response().await;
    assert_eq!((told.status, told.header("retry-after")), (503, Some("1")));
    assert_eq!(told.json()["error"]["data"]["reason"], "max_connections");
    assert!(other.is_closed().await);
}
