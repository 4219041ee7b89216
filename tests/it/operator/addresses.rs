//! Full doors: the client's address that has most of a door gives way to one that has few.

use std::{future::pending, sync::Arc, time::Duration};

use serde_json::Value;
use steadfast::devnet::{Devnet, Options};
use tokio::time::sleep;

use super::answer;
use crate::common::{
    client::{ROUNDABOUT, call, post, with_headers},
    origin::{Origin, Reply},
    proxy::nodes,
    sim::{Net, Proxy},
    until,
    ws::Ws,
};

/// A node that answers `eth_call`, and other calls never.
async fn node(net: &Net) -> Origin {
    Origin::within(net, |seen| match seen.method().as_str() {
        "eth_call" => Reply::result(seen, "\"well\""),
        _ => Reply::act(async |_io| pending().await),
    })
    .await
}

async fn proxy(net: &Net, origin: &Origin, more: &str) -> Proxy {
    let proxy = Proxy::launch(net, &format!("{more}\n{}", nodes([origin.url()]))).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    proxy
}

/// The text of a `/metrics` line.
async fn ended_for_share(proxy: &Proxy) -> bool {
    let text = proxy.admin("/metrics").await.text();
    text.contains("steadfast_client_connections_ended_total{reason=\"share\"} 1")
}

#[tokio::test(start_paused = true)]
async fn a_door_full_of_calls_is_open_to_another_address() {
    for (headers, method) in [("", "eth_getLogs"), (ROUNDABOUT, "eth_getLogs"), ("", "eth_sendTransaction")] {
        let net = Net::default();
        let origin = node(&net).await;
        let proxy = proxy(&net, &origin, "max_connections = 6").await;
        let mut greedy = Vec::new();
        for id in 0..6 {
            let mut client = proxy.client_at(1).await;
            client.send(with_headers("/", headers, call(id, method, "[]").as_bytes())).await;
            greedy.push(client);
            until("the node has the call", async || origin.count(method) == id + 1).await;
        }
        let mut more = proxy.client_at(1).await;
        assert_eq!(more.response().await.status, 503, "its own address has no more");
        let mut honest = proxy.client_at(2).await;
        assert_eq!(honest.post(call(1, "eth_call", "[]")).await.text(), answer(1, "\"well\""));
        // The newest is told why, and what is known of its call; the others go on.
        let mut newest = greedy.pop().unwrap();
        let told = newest.response().await;
        let error = &told.json()["error"];
        if method == "eth_getLogs" {
            assert_eq!((told.status, &error["data"]["reason"]), (503, &Value::from("max_connections")), "{error}");
            assert!(told.header("retry-after").is_some());
        } else {
            assert_eq!(error["data"]["reason"], "outcome_unknown", "{error}");
        }
        assert_eq!(told.json()["id"], 5);
        assert!(newest.is_closed().await && ended_for_share(&proxy).await);
        for client in &mut greedy {
            assert!(client.is_silent().await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_shared_address_each_connection_is_a_client() {
    let net = Net::default();
    let origin = node(&net).await;
    let more = "max_connections = 6\nshared_addresses = [\"10.0.0.0/24\"]";
    let proxy = proxy(&net, &origin, more).await;
    let mut busy = Vec::new();
    for id in 0..6 {
        let mut client = proxy.client_at(1).await;
        client.send(post("/", call(id, "eth_getLogs", "[]").as_bytes())).await;
        busy.push(client);
    }
    until("the node has the calls", async || origin.count("eth_getLogs") == 6).await;
    assert_eq!(proxy.client_at(2).await.response().await.status, 503);
    for client in &mut busy {
        assert!(client.is_silent().await);
    }
}

#[tokio::test(start_paused = true)]
async fn websockets_of_one_address_leave_some_to_another() {
    let net = Net::default();
    let origin = node(&net).await;
    let proxy = proxy(&net, &origin, "ws.max_connections = 4").await;
    let mut greedy = Vec::new();
    for _ in 0..4 {
        let mut ws = Ws::open(proxy.client_at(1).await.io, "/").await;
        ws.subscribe("[\"newHeads\"]").await;
        greedy.push(ws);
    }
    assert!(Ws::try_open(proxy.client_at(1).await.io, "/").await.is_err());
    let mut honest = Ws::open(proxy.client_at(2).await.io, "/").await;
    assert_eq!(honest.call("eth_call", "[]").await, "well");
    assert_eq!(greedy.pop().unwrap().closed().await.0, 1013);
    assert!(ended_for_share(&proxy).await);
    for ws in &mut greedy {
        assert_eq!(ws.call("eth_call", "[]").await, "well");
    }
}

#[tokio::test(start_paused = true)]
async fn event_streams_of_one_address_leave_some_to_another() {
    let net = Net::default();
    let devnet = Devnet::start(Options { consensus: 1, ..Options::default() }, Arc::new(net.clone())).await.unwrap();
    let url = devnet.cl(0).http_url();
    let settings = format!("max_connections = 8\n[[cl.primary]]\nname = \"cl-1\"\nhttp = \"{url}\"\n");
    let proxy = Proxy::launch(&net, &settings).await;
    let up = async || proxy.admin("/status").await.json()["networks"][0]["cl"]["nodes"][0]["verdict"] == "up";
    until("the node is up", up).await;
    let open = async |host: u8| {
        let mut client = proxy.client_at(host).await;
        client.send("GET /eth/v1/events?topics=head HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let head = client.head().await;
        (client, head.starts_with("HTTP/1.1 200"))
    };
    let mut greedy = Vec::new();
    for _ in 0..4 {
        let (client, is_open) = open(1).await;
        assert!(is_open);
        greedy.push(client);
    }
    assert!(!open(1).await.1, "half of the door is for others than streams");
    let (mut honest, is_open) = open(2).await;
    assert!(is_open, "streams of one address keep another out");
    sleep(Duration::from_millis(100)).await;
    let mut newest = greedy.pop().unwrap();
    let is_over = async || newest.try_response().await.is_err();
    until("the newest stream is over", is_over).await;
    assert!(ended_for_share(&proxy).await);
    // The others go on.
    devnet.chain().mine(1);
    for client in greedy.iter_mut().chain([&mut honest]) {
        assert!(!client.bytes(20).await.is_empty());
    }
}
