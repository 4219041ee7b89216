//! What all clients together may make the proxy hold.

use serde_json::Value;

use crate::common::{
    client::{call, with_headers},
    origin::{Origin, Reply},
    proxy::nodes,
    sim::{Net, Proxy},
    until,
};

const HELD: &str = "steadfast_client_memory_bytes";
const REFUSED: &str = "steadfast_client_memory_refused_total";

async fn echo(net: &Net) -> (Origin, Proxy) {
    let origin = Origin::within(net, |seen| Reply::result(seen, &seen.params())).await;
    let proxy = Proxy::launch(net, &format!("max_client_memory = \"1MiB\"\n{}", nodes([origin.url()]))).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    (origin, proxy)
}

/// The beginning of a call of a million bytes: so many of them.
fn beginning(headers: &str, length: usize) -> Vec<u8> {
    let params = format!("[\"{}\"]", "a".repeat(1_000_000));
    let request = with_headers("/", headers, call(1, "eth_call", &params).as_bytes());
    request[..length].to_vec()
}

#[tokio::test(start_paused = true)]
async fn bodies_beyond_the_memory_for_all_are_refused() {
    // The second shape is not the lane's.
    for headers in ["", "connection: keep-alive, x-a\r\n"] {
        let net = Net::default();
        let (origin, proxy) = echo(&net).await;
        // What is only announced takes nothing.
        let mut clients = Vec::new();
        for _ in 0..50 {
            let mut client = proxy.client().await;
            client.send(beginning("", 300)).await;
            clients.push(client);
        }
        let mut first = proxy.client().await;
        first.send(beginning("", 400_000)).await;
        until("it is counted", async || proxy.metric(HELD, "").await >= 400_000.0).await;
        let mut second = proxy.client().await;
        second.send(beginning(headers, 600_000)).await;
        let refused = second.response().await;
        let error: Value = refused.json();
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{headers:?}: {error}");
        assert_eq!(error["error"]["data"]["reason"], "max_client_memory");
        assert!(second.is_closed().await);
        assert!(proxy.metric(REFUSED, "").await >= 1.0);
        // Small calls are served all the same.
        assert_eq!(proxy.post(call(2, "eth_call", "[2]")).await.status, 200);
        assert_eq!(origin.seen().len(), 1);
        drop((first, clients));
        until("all is given back", async || proxy.metric(HELD, "").await == 0.0).await;
        let mut third = proxy.client().await;
        third.send(beginning(headers, 600_000)).await;
        until("there is room again", async || proxy.metric(HELD, "").await >= 600_000.0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn long_answers_beyond_the_memory_for_all_are_refused() {
    let net = Net::default();
    let long = format!("\"{}\"", "a".repeat(250_000));
    let origin = Origin::within(&net, move |seen| Reply::result(seen, &long)).await;
    let proxy = Proxy::launch(&net, &format!("max_client_memory = \"1MiB\"\n{}", nodes([origin.url()]))).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    // They read nothing of what they asked for.
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = proxy.client().await;
        client.send(with_headers("/", "", call(1, "eth_call", "[]").as_bytes())).await;
        clients.push(client);
    }
    until("their answers are held", async || proxy.metric(HELD, "").await >= 700_000.0).await;
    let mut late = proxy.client().await;
    late.send(with_headers("/", "", format!("[{}]", vec![call(1, "eth_call", "[]"); 3].join(",")).as_bytes())).await;
    let text = late.response().await.text();
    assert!(text.contains("max_client_memory"), "{} bytes", text.len());
    drop((clients, late));
    until("all is given back", async || proxy.metric(HELD, "").await == 0.0).await;
}
