//! The outbox in the proxy: a transaction that was accepted outlives nodes, mempools and the proxy.
//! On a network of memory under a simulated clock, with a disk that can fail; each pretend node has
//! a mempool of its own.

mod accepting;
mod asking;
mod clocks;
mod disk;
mod draining;
mod following;
mod kept;
mod left;
mod lying;
mod much;
mod refusing;
mod sending;
mod tenants;
mod told;

use std::{sync::Arc, time::Duration};

use alloy_primitives::B256;
use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Node, Options};
use tokio::time::{Instant, sleep};

use crate::common::{
    client::{Response, call, with_headers},
    proxy::two_primaries_and_a_backup,
    signed,
    sim::{Net, Proxy},
    until,
};

const SEND: &str = "eth_sendRawTransaction";
const STATUS: &str = "steadfast_getTransactionStatus";
/// The settings that turn the outbox on.
const ON: &str = "[outbox]\nconfirmations = 2\n";

/// A transaction of the sender with this key, as a client signs it.
fn signed(key: u8, nonce: u64, tip: u128) -> (String, B256) {
    signed::transaction(1337, key, nonce, tip)
}

/// The sender's transaction of this nonce.
fn transaction(nonce: u64) -> (String, B256) {
    signed(1, nonce, 1)
}

fn hash(nonce: u64) -> B256 {
    transaction(nonce).1
}

fn send(raw: &str) -> String {
    call(1, SEND, &format!("[\"{raw}\"]"))
}

/// Three nodes, and a proxy with an outbox before them.
struct Scene {
    net: Net,
    devnet: Devnet,
    proxy: Option<Proxy>,
    settings: String,
}

impl Scene {
    async fn start(more: &str) -> Self {
        let scene = Self::prepare(more).await;
        scene.until_verdicts(["up", "up", "up"]).await;
        scene
    }

    async fn prepare(more: &str) -> Self {
        let net = Net::default();
        let options = Options { execution: 3, own_mempools: true, ..Options::default() };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let settings = two_primaries_and_a_backup(&devnet, more);
        let proxy = Some(Proxy::launch(&net, &settings).await);
        Self { net, devnet, proxy, settings }
    }

    fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().unwrap()
    }

    /// Ends the proxy in order, and starts another on the same disk.
    async fn restart(&mut self) {
        self.stop().await;
        self.proxy = Some(Proxy::launch(&self.net, &self.settings).await);
    }

    async fn stop(&mut self) {
        self.proxy.take().unwrap().app.shutdown().await;
    }

    /// Ends the proxy as a loss of power does, and starts another on what the disk has.
    async fn lose_power(&mut self) {
        self.net.1.cut_power(7);
        drop(self.proxy.take());
        self.proxy = Some(Proxy::launch(&self.net, &self.settings).await);
    }

    async fn until_verdicts(&self, verdicts: [&str; 3]) {
        until(&format!("the nodes are {verdicts:?}"), async || self.proxy().verdicts().await == verdicts).await;
    }

    fn node(&self, index: usize) -> &Arc<Node> {
        self.devnet.el(index)
    }

    async fn until_mempool(&self, index: usize, expected: &[B256]) {
        let what = format!("{} has {expected:?}", self.node(index).name());
        until(&what, async || self.node(index).mempool() == expected).await;
    }

    async fn send(&self, raw: &str) -> Value {
        self.proxy().post(send(raw)).await.json()
    }

    /// Sends the sender's transaction of this nonce, and expects its hash.
    async fn sent(&self, nonce: u64) -> B256 {
        let (raw, hash) = transaction(nonce);
        let answer = self.send(&raw).await;
        assert_eq!((&answer["result"], &answer["id"]), (&json!(hash), &json!(1)), "{answer}");
        hash
    }

    async fn ask(&self, method: &str, params: &str) -> Value {
        self.proxy().post(call(2, method, params)).await.json()
    }

    async fn status(&self, hash: B256) -> Value {
        self.ask(STATUS, &format!("[\"{hash}\"]")).await["result"].take()
    }

    async fn state(&self, hash: B256) -> String {
        self.status(hash).await["state"].as_str().unwrap_or("none").to_owned()
    }

    /// Waits until a transaction has come to this state.
    async fn until_state(&self, hash: B256, state: &str) {
        let start = Instant::now();
        loop {
            let now = self.status(hash).await;
            let history = now["history"].as_array();
            if history.is_some_and(|history| history.iter().any(|step| step["state"] == state)) {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "still not {state}: {now}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The states of a transaction, in their order.
    async fn history(&self, hash: B256) -> Vec<String> {
        let status = self.status(hash).await;
        let history = status["history"].as_array().unwrap_or_else(|| panic!("{status}"));
        history.iter().map(|step| step["state"].as_str().unwrap().to_owned()).collect()
    }

    /// Mines blocks, each after a while, as the proxy's probes see them.
    async fn mine(&self, count: u64) {
        for _ in 0..count {
            self.devnet.chain().mine(1);
            sleep(Duration::from_millis(1500)).await;
        }
    }
}

/// An error's code, reason and message.
fn error(answer: &Value) -> (i64, &'static str, &'static str) {
    let error = &answer["error"];
    let word = |value: &Value| -> &'static str { Box::leak(value.as_str().unwrap_or_default().into()) };
    (error["code"].as_i64().unwrap_or_default(), word(&error["data"]["reason"]), word(&error["message"]))
}
