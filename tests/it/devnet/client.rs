//! What the tests ask with.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use steadfast::{
    devnet::{Devnet, Node, Options},
    net::system::System,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// Long enough for anything that is to come.
pub const SOON: Duration = Duration::from_secs(5);
/// Long enough to say that nothing comes.
pub const SILENCE: Duration = Duration::from_millis(150);

pub async fn devnet() -> Devnet {
    start(Options::default()).await
}

pub async fn start(options: Options) -> Devnet {
    Devnet::start(options, Arc::new(System)).await.unwrap()
}

pub fn http() -> reqwest::Client {
    steadfast::net::post::plain().build().unwrap()
}

pub async fn post(node: &Node, body: impl Into<reqwest::Body>) -> reqwest::Result<reqwest::Response> {
    http().post(node.http_url()).body(body).timeout(SOON).send().await
}

pub async fn call(node: &Node, method: &str, params: Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let text = post(node, body.to_string()).await.unwrap().text().await.unwrap();
    serde_json::from_str(&text).unwrap()
}

pub async fn result(node: &Node, method: &str, params: Value) -> Value {
    let answer = call(node, method, params).await;
    assert!(answer.get("error").is_none(), "{method}: {answer}");
    answer["result"].clone()
}

pub async fn head(node: &Node) -> u64 {
    number(&result(node, "eth_blockNumber", json!([])).await)
}

pub fn number(quantity: &Value) -> u64 {
    u64::from_str_radix(quantity.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

pub struct Ws(pub WebSocketStream<TcpStream>);

impl Ws {
    pub async fn open(node: &Node) -> Self {
        Self::try_open(node).await.unwrap()
    }

    pub async fn try_open(node: &Node) -> Result<Self, tokio_tungstenite::tungstenite::Error> {
        let stream = TcpStream::connect(node.addr()).await.map_err(tokio_tungstenite::tungstenite::Error::Io)?;
        let (socket, _) = client_async(format!("{}/any/path", node.ws_url()), stream).await?;
        Ok(Self(socket))
    }

    pub async fn send(&mut self, id: u64, method: &str, params: Value) {
        let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        self.0.send(Message::text(text)).await.unwrap();
    }

    pub async fn next(&mut self) -> Value {
        let message = timeout(SOON, self.0.next()).await.expect("a message in time").unwrap().unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.send(1, method, params).await;
        let answer = self.next().await;
        assert_eq!(answer["id"], 1, "{answer}");
        answer["result"].clone()
    }

    pub async fn subscribe(&mut self, params: Value) -> String {
        self.call("eth_subscribe", params).await.as_str().unwrap().to_owned()
    }

    /// The next event of the subscription.
    pub async fn event(&mut self, id: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["method"], "eth_subscription", "{message}");
        assert_eq!(message["params"]["subscription"], id, "{message}");
        message["params"]["result"].clone()
    }

    pub async fn is_silent(&mut self) -> bool {
        timeout(SILENCE, self.0.next()).await.is_err()
    }

    pub async fn is_dropped(&mut self) -> bool {
        let ended = timeout(SOON, async { while let Some(Ok(_)) = self.0.next().await {} }).await;
        ended.is_ok()
    }
}
