//! Answers that a node labels wrongly, or not at all: the client gets its own id, byte for byte, or
//! another node's answer.

use std::sync::Arc;

use crate::common::{
    client::call,
    sim::{Net, Proxy},
    until,
    witness::GAS_PRICE,
};
use steadfast::devnet::{Devnet, Fault, Options};

/// Ids in all shapes that clients use.
const IDS: [&str; 7] = ["1", "0", "\"a-b\"", "1234567890123456789012345678901", "1.50e3", "\"\"", "null"];
const ASKED: &str = "eth_gasPrice";

/// Two nodes that are called over HTTP or over their WebSockets, and a proxy before them.
async fn network(key: &str) -> (Net, Devnet, Proxy) {
    let net = Net::default();
    let devnet = Devnet::start(Options::default(), Arc::new(net.clone())).await.unwrap();
    let nodes = devnet.nodes().map(|node| {
        let url = if key == "http" { node.http_url() } else { node.ws_url() };
        format!("[[el.primary]]\nname = \"{}\"\n{key} = \"{url}\"\n", node.name())
    });
    let proxy = Proxy::launch(&net, &nodes.collect::<String>()).await;
    until("every node is up", async || proxy.verdicts().await.iter().all(|verdict| verdict == "up")).await;
    (net, devnet, proxy)
}

/// Asks with every id through each door, one call after the other, and in a batch.
async fn ask_all(proxy: &Proxy, nodes: &str) {
    let answer = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{GAS_PRICE}"}}"#);
    let sorted = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        value.to_string()
    };
    let mut ws = proxy.ws().await;
    for id in IDS {
        let asked = call(id, ASKED, "[]");
        for text in [proxy.post(&asked).await.text(), ws.ask(asked.clone()).await] {
            assert_eq!(sorted(&text), sorted(&answer(id)), "{nodes}");
            assert!(text.contains(&format!("\"id\":{id}")), "{nodes}: {text}");
        }
    }
    let batch = format!("[{}]", IDS.map(|id| call(id, ASKED, "[]")).join(","));
    let answers = format!("[{}]", IDS.map(answer).join(","));
    for text in [proxy.post(&batch).await.text(), ws.ask(batch.clone()).await] {
        assert_eq!(sorted(&text), sorted(&answers), "{nodes}");
        IDS.iter().for_each(|id| assert!(text.contains(&format!("\"id\":{id}")), "{nodes}: {text}"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_an_id_gets_the_clients_through_every_door() {
    let (_net, devnet, proxy) = network("http").await;
    devnet.nodes().for_each(|node| node.set_fault(Fault::no_id(&[ASKED])));
    ask_all(&proxy, "http").await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_an_id_over_a_link_finds_its_call() {
    let (_net, devnet, proxy) = network("ws").await;
    devnet.el(0).set_fault(Fault::no_id(&[ASKED]));
    ask_all(&proxy, "ws").await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_the_id_of_another_call_reaches_nobody() {
    for key in ["http", "ws"] {
        let (_net, devnet, proxy) = network(key).await;
        devnet.el(0).set_fault(Fault::alien_id(&[ASKED]));
        let ids = ["1", "\"x\""];
        for id in ids {
            let text = proxy.post(call(id, ASKED, "[]")).await.text();
            assert!(text.contains(GAS_PRICE) && text.contains(&format!("\"id\":{id}")), "{key}: {text}");
        }
        assert!(devnet.el(0).count(ASKED) >= 1 && devnet.el(1).count(ASKED) >= 2, "{key}");
        // Where no node does better, that is an error and no wrong answer.
        devnet.el(1).set_fault(Fault::alien_id(&[ASKED]));
        let text = proxy.post(call(7, ASKED, "[]")).await.text();
        assert!(text.contains("\"error\"") && text.contains("\"id\":7") && !text.contains(GAS_PRICE), "{key}: {text}");
    }
}
