//! A proxy as the binary builds it, in the test's own process.

use std::{fmt::Write, net::SocketAddr};

use serde_json::Value;
use steadfast::{
    app::{App, World},
    config::Config,
    devnet::Devnet,
};
use tokio::net::TcpSocket;

use super::{
    client::{Client, Response},
    until,
    ws::Ws,
};

/// A running proxy.
pub struct Proxy {
    pub app: App,
}

impl Proxy {
    /// Starts with `settings` (TOML, without addresses) and waits until every node of it was heard
    /// or given up.
    pub async fn start(settings: &str) -> Self {
        let proxy = Self::launch(settings).await;
        until("a node serves", async || proxy.side().await["active"].is_string()).await;
        proxy
    }

    /// Starts with `settings` and waits for nothing.
    pub async fn launch(settings: &str) -> Self {
        let app = App::start(config(settings), World::real(2), None).await.unwrap();
        Self { app }
    }

    /// A proxy before primaries `el-1`, `el-2`, … at these URLs, with `more` settings behind.
    pub async fn over<'a>(urls: impl IntoIterator<Item = &'a str>, more: &str) -> Self {
        Self::start(&[nodes(urls), more.to_owned()].concat()).await
    }

    pub fn addr(&self) -> SocketAddr {
        self.app.addr()
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.addr()).await
    }

    /// A client at the loopback address that ends in `host`.
    pub async fn client_at(&self, host: u8) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, host], 0).into()).unwrap();
        Client::over(socket.connect(self.addr()).await.unwrap())
    }

    /// A WebSocket at `/`.
    pub async fn ws(&self) -> Ws {
        Ws::dial(self.addr()).await
    }

    /// A call on a connection of its own.
    pub async fn post(&self, body: impl AsRef<[u8]>) -> Response {
        self.client().await.post(body).await
    }

    /// The answer of the operator's side.
    pub async fn admin(&self, request: &str) -> Response {
        let mut client = Client::connect(self.app.admin_addr()).await;
        client
            .send(format!("{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
            .await;
        client.response().await
    }

    /// The execution side of the first network in `/status`.
    pub async fn side(&self) -> Value {
        self.admin("GET /status").await.json()["networks"][0]["el"].take()
    }

    /// A node in `/status`.
    pub async fn node(&self, name: &str) -> Value {
        let side = self.side().await;
        let nodes = side["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["name"] == name).unwrap_or_else(|| panic!("no {name} in {side}")).clone()
    }

    /// Waits until `/status` gives the node this verdict.
    pub async fn until_node(&self, name: &str, verdict: &str) {
        let what = format!("{name} is {verdict}");
        until(&what, async || self.node(name).await["verdict"] == verdict).await;
    }

    /// Calls that wait on nodes now, over all nodes.
    pub async fn in_flight(&self) -> u64 {
        let side = self.side().await;
        side["nodes"].as_array().unwrap().iter().map(|node| node["in_flight"].as_u64().unwrap()).sum()
    }
}

/// Settings of primaries at these URLs.
pub fn nodes<'a>(urls: impl IntoIterator<Item = &'a str>) -> String {
    urls.into_iter()
        .enumerate()
        .map(|(i, url)| format!("[[el.primary]]\nname = \"el-{}\"\nhttp = \"{url}\"\n", i + 1))
        .collect()
}

/// Settings of the primaries `el-1` and `el-2` and the backup `el-3`, behind `more`.
pub fn two_primaries_and_a_backup(devnet: &Devnet, more: &str) -> String {
    let mut settings = more.to_owned();
    for (tier, index) in [("primary", 0), ("primary", 1), ("backup", 2)] {
        let node = devnet.el(index);
        let (name, url) = (node.name(), node.http_url());
        writeln!(settings, "[[el.{tier}]]\nname = \"{name}\"\nhttp = \"{url}\"").unwrap();
    }
    settings
}

/// The settings with free ports. Settings that begin with `listen` keep that.
pub fn config(settings: &str) -> Config {
    let listen = if settings.starts_with("listen") { "" } else { "listen = \"127.0.0.1:0\"\n" };
    let text = format!("admin.listen = \"127.0.0.1:0\"\n{listen}{settings}");
    Config::parse(&text, &|_| None).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}
