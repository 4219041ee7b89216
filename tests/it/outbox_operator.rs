//! The outbox as an operator sees it: over the admin side, by commands, and in what is measured.

mod commands;
mod deliveries;
mod hung_disk;
mod lists;
mod measures;
mod receiver;

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use steadfast::{
    app::{App, World},
    devnet::{Devnet, Options},
    outbox::store::{Store, pretend_disk::PretendDisk},
};

use crate::common::{
    client::{Response, call},
    devnet as start_devnet,
    proxy::{Proxy, config, nodes},
    until,
};

/// Transactions of one sender for the pretend chain, of nonces 0 and 1, each with its hash.
const SIGNED: [[&str; 2]; 2] = [
    [
        "0x02f868820539808084773594008252089470997970c51812dc3a010c7d01b50e0d17dc79c80180c080a07ccd7a55ea1adf3e8bc2049818\
         71030b0cda658d0eecb5bf2e110030fff55c8ba0522cfd9865108045f771b22b776647edad0a2e76b1b06ab8b9c6a9b75833097f",
        "0x6718bce86bdbcc27c503f1249c40bfd5f54a5640f2b39dbf4ae656f64149829a",
    ],
    [
        "0x02f86882053901808477359400825208\
         9470997970c51812dc3a010c7d01b50e0d17dc79c80180c001a08597eccb9ee1eae0f0f70803372ca69a6bc0ba7c31a2c2f98ff9e12802a6\
         7215a05190532b55cf9fc4e5ee0b434f4432a3a42f3c01147167e412194958df46b6ba",
        "0x2f3bcc0e86bfee80d4c8a6a215a304c93d931966eaec6dc89b88a9733ec1768d",
    ],
];

/// A proxy with an outbox, before a pretend chain that makes blocks only when it is told to.
struct Scene {
    proxy: Proxy,
    net: Devnet,
    /// The disk of the outbox.
    disk: PretendDisk,
    /// The settings up to those inside and behind `[outbox]`, and those.
    settings: (String, Arc<Mutex<String>>),
}

impl Scene {
    /// A scene with `more` settings inside and behind `[outbox]`.
    async fn new(more: &str) -> Self {
        let net = start_devnet(Options { execution: 2, ..Options::default() }).await;
        let urls = [0, 1].map(|node| net.el(node).http_url());
        let first = nodes(urls.iter().map(String::as_str)) + "[outbox]\nconfirmations = 2\n";
        let settings = (first, Arc::new(Mutex::new(more.to_owned())));
        // A disk of memory: commands that other tests begin would hold the lock of a file for a moment.
        let disk = PretendDisk::new();
        let opened = disk.clone();
        let open_store = Arc::new(move |_: &_| Store::over(Box::new(opened.clone())));
        let world = World { open_store, ..World::real(2) };
        let (first, more) = settings.clone();
        let source = move || Ok(config(&(first.clone() + &more.lock().unwrap())));
        let app = App::start(source().unwrap(), world, Some(Arc::new(source))).await.unwrap();
        let proxy = Proxy { app };
        until("a node serves", async || proxy.side().await["active"].is_string()).await;
        Self { proxy, net, disk, settings }
    }

    /// Reads the settings anew, with these inside and behind `[outbox]`.
    async fn reload(&self, more: &str) {
        more.clone_into(&mut self.settings.1.lock().unwrap());
        self.proxy.app.reload().await.unwrap();
    }

    /// A client sends the transaction of this nonce, and has its hash.
    async fn send(&self, nonce: usize) {
        let answer = self.send_as(nonce, "").await.json();
        assert_eq!(answer["result"], SIGNED[nonce][1], "{answer}");
    }

    /// The answer to a client with these header lines, which sends the transaction of this nonce.
    async fn send_as(&self, nonce: usize, lines: &str) -> Response {
        let body = call(1, "eth_sendRawTransaction", &json!([SIGNED[nonce][0]]).to_string());
        let length = body.len();
        let mut client = self.proxy.client().await;
        client
            .send(format!("POST / HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {length}\r\n\r\n{body}"))
            .await;
        client.response().await
    }

    /// The answer of the admin side, which must be this status.
    async fn ask(&self, request: &str, status: u16) -> Value {
        let answer = self.proxy.admin(request).await;
        assert_eq!(answer.status, status, "{request}: {}", answer.text());
        answer.json()
    }

    /// The state of the transaction of this nonce.
    async fn state(&self, nonce: usize) -> String {
        let found = self.ask(&format!("GET /outbox/{}", SIGNED[nonce][1]), 200).await;
        found["transactions"][0]["state"].as_str().unwrap().to_owned()
    }

    async fn until_state(&self, nonce: usize, state: &str) {
        until(&format!("{nonce} is {state}"), async || self.state(nonce).await == state).await;
    }
}
