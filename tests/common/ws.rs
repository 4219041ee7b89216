//! A WebSocket client: calls, subscriptions and what comes of them, each wait with a deadline; and
//! raw frames for what no library sends.

use std::{collections::VecDeque, net::SocketAddr};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Bytes, Error, Message,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use super::{SOON, client::Client, client::call};

/// A connection.
pub struct Ws<S = TcpStream> {
    pub socket: WebSocketStream<S>,
    /// Notifications that came while an answer was awaited.
    pub kept: VecDeque<Value>,
}

impl Ws {
    /// Connects to `/` at `addr`.
    pub async fn dial(addr: SocketAddr) -> Self {
        Self::open(TcpStream::connect(addr).await.unwrap(), "/").await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Ws<S> {
    /// Becomes a WebSocket at `path`.
    pub async fn open(io: S, path: &str) -> Self {
        Self::try_open(io, path).await.unwrap_or_else(|error| panic!("no WebSocket at {path}: {error}"))
    }

    /// Tries to.
    pub async fn try_open(io: S, path: &str) -> Result<Self, Error> {
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None).read_buffer_size(16 << 10);
        let opening = client_async_with_config(format!("ws://proxy{path}"), io, Some(config));
        let (socket, _) = timeout(SOON, opening).await.expect("no answer to the upgrade")?;
        Ok(Self { socket, kept: VecDeque::new() })
    }

    pub async fn send(&mut self, text: impl Into<String>) {
        self.message(Message::text(text.into())).await;
    }

    pub async fn message(&mut self, message: Message) {
        timeout(SOON, self.socket.send(message)).await.expect("the write stalls").unwrap();
    }

    /// The next message of any kind; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        timeout(SOON * 4, self.socket.next()).await.expect("nothing comes")
    }

    /// The next text, whatever it is.
    pub async fn text(&mut self) -> String {
        loop {
            match self.next().await {
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no text: {other:?}"),
            }
        }
    }

    /// The next text that is no notification. Those are kept.
    pub async fn answer(&mut self) -> String {
        loop {
            let text = self.text().await;
            match serde_json::from_str::<Value>(&text) {
                Ok(value) if value.get("method").is_some() => self.kept.push_back(value),
                _ => return text,
            }
        }
    }

    /// Sends `text` and waits for its answer.
    pub async fn ask(&mut self, text: impl Into<String>) -> String {
        self.send(text).await;
        self.answer().await
    }

    /// A call's result.
    pub async fn call(&mut self, method: &str, params: &str) -> Value {
        let answer = self.ask(call(1, method, params)).await;
        let value: Value = serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
        assert!(value["error"].is_null(), "{method}: {answer}");
        value["result"].clone()
    }

    /// Subscribes; the id.
    pub async fn subscribe(&mut self, params: &str) -> String {
        let id = self.call("eth_subscribe", params).await;
        id.as_str().unwrap_or_else(|| panic!("no id: {id}")).to_owned()
    }

    /// The next notification: the subscription's id and the result.
    pub async fn notification(&mut self) -> (String, Value) {
        let mut value = match self.kept.pop_front() {
            Some(value) => value,
            None => serde_json::from_str(&self.text().await).unwrap(),
        };
        assert!(value["method"].is_string() && value.get("id").is_none(), "no notification: {value}");
        let params = &mut value["params"];
        (params["subscription"].as_str().unwrap().to_owned(), params["result"].take())
    }

    /// The code and the reason with which the connection is closed; what comes before is passed
    /// over.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                    return (code.into(), reason.to_string());
                }
                Some(Ok(Message::Close(None))) => return (1005, String::new()),
                Some(Ok(_)) => {}
                other => panic!("ended without a close frame: {other:?}"),
            }
        }
    }

    /// Waits until the other side has ended the connection too.
    pub async fn gone(&mut self) {
        while let Some(Ok(_)) = self.next().await {}
    }

    /// Whether nothing comes for a while.
    pub async fn is_silent(&mut self) -> bool {
        self.kept.is_empty() && timeout(std::time::Duration::from_millis(50), self.socket.next()).await.is_err()
    }
}

/// The request that asks for a WebSocket at `path`, with `headers` besides, each with its line end.
pub fn upgrade(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: proxy\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// The answer that accepts the request of [`upgrade`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A frame as a client writes it: the first byte is flags and opcode.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            bytes.push(0xfe);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0xff);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Asks for a WebSocket, and goes on as raw bytes.
    pub async fn upgraded(mut self, path: &str) -> Self {
        self.send(upgrade(path, "")).await;
        let head = self.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.to_ascii_lowercase().contains(&format!("sec-websocket-accept: {}", ACCEPT.to_ascii_lowercase())));
        self
    }

    /// The next frame as it came: its first byte, and its payload.
    pub async fn frame(&mut self) -> (u8, Bytes) {
        let [first, second] = self.bytes(2).await[..] else { unreachable!() };
        let length = match second {
            126 => self.bytes(2).await.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            127 => self.bytes(8).await.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            short => usize::from(short),
        };
        (first, self.bytes(length).await.into())
    }

    /// The code of the close frame that comes next, or among what comes next.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            let (first, payload) = self.frame().await;
            if first == 0x88 {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    }
}
