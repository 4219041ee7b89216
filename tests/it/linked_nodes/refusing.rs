//! A node that serves calls over its WebSocket and no subscriptions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use steadfast::{domain::node_id::NodeId, net::Listen};
use tokio::{task::JoinSet, time::sleep};
use tokio_tungstenite::{accept_async, tungstenite::Message};

use super::heads::start;
use crate::common::{
    sim::{Net, Proxy},
    until,
};

/// The secret in its URL.
const KEY: &str = "sup3rs3cretkey";

/// The requests that it got.
#[derive(Default)]
struct Asked {
    connections: AtomicU64,
    subscriptions: AtomicU64,
    head: AtomicU64,
}

async fn node(net: &Net, asked: Arc<Asked>) -> (u16, JoinSet<()>) {
    let mut listener = net.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let port = listener.local_addr().port();
    let serve = async move {
        let mut connections = JoinSet::new();
        loop {
            let (incoming, _) = listener.accept().await.unwrap();
            asked.connections.fetch_add(1, SeqCst);
            let asked = asked.clone();
            connections.spawn(async move {
                let mut socket = accept_async(incoming.open().unwrap()).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    let Message::Text(text) = message else { continue };
                    let call: Value = serde_json::from_str(&text).unwrap();
                    let answer = asked.answer(call["method"].as_str().unwrap());
                    let mut response = json!({ "jsonrpc": "2.0", "id": call["id"] });
                    match answer {
                        Ok(result) => response["result"] = result,
                        Err(error) => response["error"] = error,
                    }
                    socket.send(Message::text(response.to_string())).await.unwrap();
                }
            });
        }
    };
    (port, JoinSet::from_iter([serve]))
}

impl Asked {
    fn answer(&self, method: &str) -> Result<Value, Value> {
        let head = self.head.load(SeqCst);
        let hash = |number: u64| format!("0x{number:064x}");
        match method {
            "eth_getBlockByNumber" => Ok(json!({
                "number": format!("0x{head:x}"), "hash": hash(head), "parentHash": hash(head.saturating_sub(1)),
                "timestamp": format!("0x{:x}", 1_799_999_000 + head),
            })),
            "eth_syncing" => Ok(json!(false)),
            "eth_chainId" => Ok(json!("0x539")),
            "net_version" => Ok(json!("1337")),
            "eth_subscribe" => {
                self.subscriptions.fetch_add(1, SeqCst);
                Err(json!({ "code": -32601, "message": format!("the method eth_subscribe does not exist at {KEY}") }))
            }
            "eth_call" => Err(json!({ "code": 3, "message": format!("reverted at {KEY}") })),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_subscription_to_heads_is_no_fault() {
    let net = Net::default();
    let asked = Arc::new(Asked::default());
    let (port, _serving) = node(&net, asked.clone()).await;
    let settings = format!("[[el.primary]]\nws = \"ws://127.0.0.1:{port}\"\n");
    let (pool, _running, _) = start(&net, &settings, Duration::from_secs(1));
    let head = || pool.snapshot().nodes[0].head.as_ref().map(|head| head.number);
    until("it is up", async || pool.snapshot().nodes[0].verdict.is_usable()).await;
    for height in 1..60 {
        asked.head.store(height, SeqCst);
        sleep(Duration::from_secs(1)).await;
        assert!(head().unwrap() + 1 >= height, "{:?} after {height}", head());
    }
    assert!(pool.snapshot().nodes[0].verdict.is_usable() && !pool.is_pushing(NodeId(0)));
    assert_eq!((asked.connections.load(SeqCst), asked.subscriptions.load(SeqCst)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_node_does_not_repeat_its_key() {
    let net = Net::default();
    let (port, _serving) = node(&net, Arc::default()).await;
    let proxy = Proxy::launch(&net, &format!("[[el.primary]]\nws = \"ws://127.0.0.1:{port}/{KEY}\"\n")).await;
    until("it is up", async || proxy.verdicts().await == ["up"]).await;
    let mut client = proxy.ws().await;
    for (id, method, params, message) in [
        ("1", "eth_call", "[]", "reverted at ***"),
        ("\"a\"", "eth_call", "[]", "reverted at ***"),
        ("1.50", "eth_subscribe", "[\"newPendingTransactions\"]", "the method eth_subscribe does not exist at ***"),
    ] {
        let asked = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        let text = client.ask(asked).await;
        assert!(text.contains(&format!("\"id\":{id}")) && text.contains(message), "{method}: {text}");
    }
}
