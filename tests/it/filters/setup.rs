//! A primary and a backup, a proxy before them, and a client that polls over HTTP.

use std::sync::Arc;

use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Options};

use crate::common::{
    client::call,
    sim::{Net, Proxy},
    until,
};

pub(super) const POLL: &str = "eth_getFilterChanges";

/// How nodes are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Http,
    /// Over the WebSocket alone.
    Link,
    /// Calls over HTTP, and heads over the WebSocket.
    Both,
}

pub(super) struct Setup {
    _net: Net,
    pub(super) devnet: Devnet,
    pub(super) proxy: Proxy,
    pub(super) settings: String,
}

impl Setup {
    /// `settings` come before the nodes.
    pub(super) async fn new(way: Way, settings: &str) -> Self {
        let net = Net::default();
        let options = Options { execution: 2, consensus: 0, ..Options::default() };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let nodes = devnet.nodes().enumerate().map(|(index, node)| {
            let tier = if index == 0 { "primary" } else { "backup" };
            let http = if way == Way::Link { String::new() } else { format!("http = \"{}\"\n", node.http_url()) };
            let ws = if way == Way::Http { String::new() } else { format!("ws = \"{}\"\n", node.ws_url()) };
            format!("[[el.{tier}]]\nname = \"{}\"\n{http}{ws}", node.name())
        });
        let settings = settings.to_owned() + &nodes.collect::<String>();
        let proxy = Proxy::launch(&net, &settings).await;
        until("every node is up", async || proxy.verdicts().await.iter().all(|verdict| verdict == "up")).await;
        Self { _net: net, devnet, proxy, settings }
    }

    pub(super) async fn ask(&self, method: &str, params: &Value) -> Value {
        self.proxy.post(call(1, method, &params.to_string())).await.json()
    }

    pub(super) async fn result(&self, method: &str, params: &Value) -> Value {
        let mut answer = self.ask(method, params).await;
        assert!(answer.get("result").is_some(), "{method} {params}: {answer}");
        answer["result"].take()
    }

    /// The code and the words of an error.
    pub(super) async fn error(&self, method: &str, params: &Value) -> (i64, String) {
        let answer = self.ask(method, params).await;
        let error = &answer["error"];
        assert!(error.is_object(), "{method} {params}: {answer}");
        (error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().to_owned())
    }

    pub(super) async fn blocks(&self) -> Value {
        self.result("eth_newBlockFilter", &json!([])).await
    }

    pub(super) async fn logs(&self, filter: &Value) -> Value {
        self.result("eth_newFilter", &json!([filter])).await
    }

    /// What a poll gives.
    pub(super) async fn poll(&self, filter: &Value) -> Vec<Value> {
        self.result(POLL, &json!([filter])).await.as_array().unwrap().clone()
    }

    pub(super) async fn is_gone(&self, filter: &Value) -> bool {
        self.error(POLL, &json!([filter])).await == (-32000, "filter not found".to_owned())
    }

    /// The hash of the block at this height now.
    pub(super) fn hash(&self, number: u64) -> Value {
        self.devnet.chain().block(number).unwrap().hash.to_string().into()
    }

    pub(super) fn head(&self) -> u64 {
        self.devnet.chain().head().number
    }

    /// The hashes of the blocks above `from`.
    pub(super) fn hashes_above(&self, from: u64) -> Vec<Value> {
        (from + 1..=self.head()).map(|number| self.hash(number)).collect()
    }

    /// The logs of the blocks above `from`, as a node tells them.
    pub(super) async fn logs_above(&self, from: u64, filter: &Value) -> Vec<Value> {
        let mut filter = filter.clone();
        filter["fromBlock"] = format!("{:#x}", from + 1).into();
        self.result("eth_getLogs", &json!([filter])).await.as_array().unwrap().clone()
    }

    /// Waits until calls go to the node.
    pub(super) async fn active(&self, name: &str) {
        until("calls go there", async || self.proxy.side().await["active"] == name).await;
    }
}
