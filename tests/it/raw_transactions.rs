//! Signed transactions to several nodes at once, and to nodes that take over or come back. On a
//! network of memory under a simulated clock; each pretend node has a mempool of its own.

mod returning;
mod sending;

use std::sync::Arc;

use alloy_primitives::keccak256;

use crate::common::{
    client::{Response, call},
    proxy::two_primaries_and_a_backup,
    sim::{Net, Proxy},
    until,
};
use serde_json::Value;
use steadfast::{
    devnet::{Devnet, Node, Options},
    domain::hex::encode,
};

const SEND: &str = "eth_sendRawTransaction";
const SENDS: &str = "steadfast_raw_transaction_sends_total";

/// A transaction of this number, as the pretend chain takes it, and its hash.
fn transaction(number: u16) -> (String, String) {
    let [high, low] = number.to_be_bytes();
    let raw = [2, 0xc2, high, low];
    (encode(raw), keccak256(raw).to_string())
}

fn hash(number: u16) -> String {
    transaction(number).1
}

fn hashes(numbers: impl IntoIterator<Item = u16>) -> Vec<String> {
    numbers.into_iter().map(hash).collect()
}

/// The call that sends the transaction of this number, with the number as its id.
fn send(number: u16) -> String {
    call(number, SEND, &format!("[\"{}\"]", transaction(number).0))
}

/// Three nodes, and a proxy before them.
struct Scene {
    devnet: Devnet,
    proxy: Proxy,
}

impl Scene {
    async fn start(more: &str) -> Self {
        let net = Net::default();
        let options = Options { execution: 3, own_mempools: true, ..Options::default() };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let proxy = Proxy::launch(&net, &two_primaries_and_a_backup(&devnet, more)).await;
        let scene = Self { devnet, proxy };
        scene.until_verdicts(["up", "up", "up"]).await;
        scene
    }

    async fn until_verdicts(&self, verdicts: [&str; 3]) {
        until(&format!("the nodes are {verdicts:?}"), async || self.proxy.verdicts().await == verdicts).await;
    }

    fn node(&self, index: usize) -> &Arc<Node> {
        self.devnet.el(index)
    }

    fn mempool(&self, index: usize) -> Vec<String> {
        self.node(index).mempool().iter().map(ToString::to_string).collect()
    }

    /// Waits until the mempool of a node holds just these transactions, in the order of their
    /// arrival at the network.
    async fn until_mempool(&self, index: usize, numbers: impl IntoIterator<Item = u16>) {
        let expected = hashes(numbers);
        until(&format!("{} has {expected:?}", self.node(index).name()), async || self.mempool(index) == expected).await;
    }

    async fn send(&self, number: u16) -> Response {
        self.proxy.post(send(number)).await
    }

    /// Sends a transaction and expects its hash.
    async fn sent(&self, number: u16) {
        let answer = self.send(number).await.json();
        assert_eq!((&answer["result"], &answer["id"]), (&hash(number).into(), &number.into()), "{answer}");
    }

    fn counts(&self) -> [u64; 3] {
        [0, 1, 2].map(|index| self.node(index).count(SEND))
    }

    /// How many words of nodes were counted with these labels.
    async fn words(&self, labels: &str) -> u64 {
        self.proxy.metric(SENDS, labels).await as u64
    }
}

fn error(answer: &Value) -> (i64, &str) {
    (answer["error"]["code"].as_i64().unwrap_or_default(), answer["error"]["message"].as_str().unwrap_or_default())
}
