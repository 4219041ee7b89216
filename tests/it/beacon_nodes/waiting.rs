//! Requests that wait for a connection to a full node: the wait is no silence of the node.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, time::timeout};

use crate::common::{
    client::Client,
    proxy::Proxy,
    rest::{Exchange, Node, json, over, request, send, status},
    until,
};

const DATA: &str = "/eth/v1/validator/attestation_data?slot=1&committee_index=0";
const EXITS: &str = "/eth/v1/beacon/pool/voluntary_exits";
const STATE: &str = "/eth/v2/debug/beacon/states/head";

/// A node that hangs over states until the gate is closed, and answers all else with its name.
async fn node(name: &'static str, gate: &Arc<Semaphore>) -> Node {
    let gate = gate.clone();
    Node::paced(1, move |exchange: Exchange| {
        let gate = gate.clone();
        async move {
            if exchange.asked.target == STATE {
                let _ = gate.acquire().await;
            }
            exchange.reply(json("200 OK", name)).await
        }
    })
    .await
}

/// Fills up the first node; the requests that do so.
async fn fill_up(proxy: &Proxy, first: &Node, second: &Node) -> Vec<Client> {
    let mut states = Vec::new();
    while second.count() == 0 {
        let mut client = proxy.client().await;
        let before = first.count();
        client.send(request("GET", STATE, "", "")).await;
        states.push(client);
        until("a node has the request", async || first.count() > before || second.count() > 0).await;
    }
    states
}

/// Whether a request waits for a connection to the first node.
async fn waits(proxy: &Proxy) -> bool {
    status(proxy, "cl-1").await["connections"]["waiting"] != 0
}

#[tokio::test]
async fn a_node_is_not_charged_for_requests_that_waited_for_it() {
    for (method, path) in [("GET", DATA), ("POST", EXITS)] {
        let gate = Arc::new(Semaphore::new(0));
        let (first, second) = (node(r#"{"data":1}"#, &gate).await, node(r#"{"data":2}"#, &gate).await);
        let proxy = over(&[&first, &second], "[calls]\nmax_node_connections = 4\n").await;
        let _states = fill_up(&proxy, &first, &second).await;
        // More of these than are evidence against a node.
        for _ in 0..6 {
            until("nothing waits", async || !waits(&proxy).await).await;
            let answer = send(&proxy, request(method, path, "", "")).await;
            assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":2}"#), "{path}");
        }
        gate.close();
        until("the first node is free", async || status(&proxy, "cl-1").await["in_flight"] == 0).await;
        let answer = timeout(Duration::from_secs(5), send(&proxy, request(method, path, "", ""))).await.unwrap();
        assert_eq!(answer.text(), r#"{"data":1}"#, "{path}: requests still go to the first node");
    }
}
