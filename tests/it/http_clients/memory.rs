//! What all clients together may make the proxy hold.

use std::future::pending;

use serde_json::Value;
use tokio::{io::AsyncReadExt, time::timeout};

use crate::common::{
    SOON,
    client::{ROUNDABOUT, call, with_headers},
    origin::{Origin, Reply},
    proxy::nodes,
    sim::{Net, Proxy},
    until,
    ws::{frame, upgrade},
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

/// A client that makes the proxy hold 600 kB, more than half of what clients may: what it sends, and what it hears when that has to go.
struct Greedy {
    what: &'static str,
    is_websocket: bool,
    bytes: Vec<u8>,
    hears: &'static str,
}

#[tokio::test(start_paused = true)]
async fn client_that_holds_most_gives_way_to_smaller_ones() {
    const ROOM: usize = 600_000;
    let padded = |method: &str| call(7, method, &format!("[\"{}\"]", "a".repeat(ROOM)));
    let unfinished = |headers: &str| with_headers("/", headers, padded("eth_call").as_bytes())[..ROOM].to_vec();
    let whole = |headers: &str, method: &str| with_headers("/", headers, padded(method).as_bytes());
    let batch = |headers: &str, method: &str| {
        let calls = format!("[{},{}]", padded(method), call(8, "eth_call", "[]"));
        with_headers("/", headers, calls.as_bytes())
    };
    let http = |what, bytes, hears| Greedy { what, is_websocket: false, bytes, hears };
    let ws = |what, bytes| Greedy { what, is_websocket: true, bytes, hears: "" };
    let (limit, unknown) = ("max_client_memory", "outcome_unknown");
    let message = frame(0x81, padded("eth_getLogs").as_bytes());
    for Greedy { what, is_websocket, bytes, hears } in [
        http("a body", unfinished(""), limit),
        http("a body beside the lane", unfinished(ROUNDABOUT), limit),
        http("a read under way", whole("", "eth_getLogs"), limit),
        http("a read under way beside the lane", whole(ROUNDABOUT, "eth_getLogs"), limit),
        http("a transaction under way", whole("", "eth_sendRawTransaction"), unknown),
        http("one under way beside the lane", whole(ROUNDABOUT, "eth_sendRawTransaction"), unknown),
        http("a batch of reads", batch("", "eth_getLogs"), limit),
        http("a batch of reads beside the lane", batch(ROUNDABOUT, "eth_getLogs"), limit),
        http("a batch with a transaction", batch("", "eth_sendRawTransaction"), unknown),
        http("one with a transaction beside the lane", batch(ROUNDABOUT, "eth_sendRawTransaction"), unknown),
        ws("a message", message[..ROOM].to_vec()),
        ws("a message under way", message),
    ] {
        let net = Net::default();
        let origin = Origin::within(&net, |seen| match seen.method().as_str() {
            "eth_getLogs" | "eth_sendRawTransaction" => Reply::act(async |_io| pending().await),
            _ => Reply::result(seen, "\"well\""),
        })
        .await;
        let proxy = Proxy::launch(&net, &format!("max_client_memory = \"1MiB\"\n{}", nodes([origin.url()]))).await;
        until("the node is up", async || proxy.verdicts().await == ["up"]).await;
        let mut greedy = proxy.client().await;
        if is_websocket {
            greedy.send(upgrade("/", "")).await;
            assert!(greedy.head().await.starts_with("HTTP/1.1 101 "));
        }
        greedy.send(bytes).await;
        until("it is counted", async || proxy.metric(HELD, "").await >= ROOM as f64).await;
        let held = proxy.metric(HELD, "").await;
        assert!(held <= 786_432.0, "{what}: three quarters are for what clients send, and {held} are held");
        // Who holds less has its room at once, by either way through the door.
        let params = format!("[\"{}\"]", "b".repeat(250_000));
        for headers in ["", ROUNDABOUT] {
            let mut other = proxy.client().await;
            other.send(with_headers("/", headers, call(2, "eth_call", &params).as_bytes())).await;
            let response = other.response().await;
            assert_eq!(response.status, 200, "{what}, {headers:?}: {}", response.text());
        }
        if is_websocket {
            assert_eq!(greedy.close_code().await, 1013, "{what}");
        } else {
            let heard = greedy.response().await;
            assert_eq!(heard.json()["error"]["data"]["reason"], hears, "{what}");
            assert_eq!(heard.status, if hears == limit { 503 } else { 200 }, "{what}");
            assert_eq!(
                heard.json()["id"],
                if what.contains("under way") { Value::from(7) } else { Value::Null },
                "{what}"
            );
            assert!(greedy.is_closed().await, "{what}");
        }
        let ended = proxy.metric("steadfast_client_connections_ended_total", "reason=\"memory\"").await;
        assert!((ended - 1.0).abs() < 0.5, "{what}: {ended}");
        until("all is given back", async || proxy.metric(HELD, "").await == 0.0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_takes_gives_way_to_others() {
    let (single, batch) = (call(7, "eth_getLogs", "[]"), format!("[{}]", call(7, "eth_getLogs", "[]")));
    for body in [single, batch] {
        untaken_gives_way("", &body).await;
        untaken_gives_way(ROUNDABOUT, &body).await;
    }
}

/// A client asks for a long answer by `body`, and takes none of it.
async fn untaken_gives_way(way: &str, body: &str) {
    const LONG: usize = 250_000;
    let what = format!("{way:?} {body}");
    let net = Net::default();
    let origin = Origin::within(&net, |seen| match seen.method().as_str() {
        "eth_getLogs" => Reply::result(seen, &format!("\"{}\"", "a".repeat(LONG))),
        _ => Reply::result(seen, "\"well\""),
    })
    .await;
    let proxy = Proxy::launch(&net, &format!("max_client_memory = \"320KiB\"\n{}", nodes([origin.url()]))).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let mut reader = proxy.client().await;
    reader.send(with_headers("/", way, body.as_bytes())).await;
    until(&format!("counted: {what}"), async || proxy.metric(HELD, "").await >= 200_000.0).await;
    let params = format!("[\"{}\"]", "b".repeat(35_000));
    for headers in ["", ROUNDABOUT] {
        let mut other = proxy.client().await;
        other.send(with_headers("/", headers, call(2, "eth_call", &params).as_bytes())).await;
        let response = other.response().await;
        assert_eq!(response.status, 200, "{headers:?}: {what}: {}", response.text());
    }
    let ended = proxy.metric("steadfast_client_connections_ended_total", "reason=\"memory\"").await;
    assert!((ended - 1.0).abs() < 0.5, "{what}: {ended}");
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = timeout(SOON, reader.io.read_to_end(&mut rest)).await.expect("the connection is not ended");
    assert!(rest.len() < LONG, "{what}: {} bytes of what was given up", rest.len());
    until("all is given back", async || proxy.metric(HELD, "").await == 0.0).await;
}
