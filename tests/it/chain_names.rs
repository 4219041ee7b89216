//! A network's names are answered from the pool's knowledge, at once and on every door: no node is
//! asked for them.

use std::{sync::Arc, time::Duration};

use crate::common::{
    client::call,
    sim::{Net, Proxy},
    until, ws,
};
use serde_json::Value;
use steadfast::devnet::{Devnet, Fault, Options};
use tokio::time::{Instant, sleep};

const CHAIN: &str = "eth_chainId";
const VERSION: &str = "net_version";

/// A proxy before one pretend node, which had time to tell all that it is asked at the start.
async fn network(fault: Option<Fault>, more: &str) -> (Net, Devnet, Proxy) {
    let net = Net::default();
    let devnet = Devnet::start(Options { execution: 1, ..Options::default() }, Arc::new(net.clone())).await.unwrap();
    fault.into_iter().for_each(|fault| devnet.el(0).set_fault(fault));
    let proxy = Proxy::over(&net, [devnet.el(0).http_url().as_str()], more).await;
    sleep(Duration::from_secs(1)).await;
    devnet.el(0).clear_records();
    (net, devnet, proxy)
}

/// Clients' calls of `method` that reached the node: the pool's own ones for the chain come with
/// its probes only.
fn reached(devnet: &Devnet, method: &str) -> u64 {
    devnet.el(0).count(method)
}

#[tokio::test(start_paused = true)]
async fn chain_id_and_network_id_are_answered_without_a_node() {
    let (_net, devnet, proxy) = network(None, "").await;
    devnet.el(0).set_fault(Fault::slow(500));
    let asked = Instant::now();
    for id in ["1", "\"a\\\"}\"", "1.50e400", "123456789012345678901234567890", "-0", "null", "\"\""] {
        for (method, result) in [(CHAIN, "0x539"), (VERSION, "1337")] {
            let expected = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{result}"}}"#);
            for params in ["[]", " [ ] "] {
                let answer = proxy.post(call(id, method, params)).await;
                assert_eq!((answer.status, answer.text()), (200, expected.clone()));
            }
            let bare = format!(r#"{{"id":{id},"method":"{method}"}}"#);
            assert_eq!(proxy.post(&bare).await.text(), expected);
            assert_eq!(proxy.post(format!("[{bare},{bare}]")).await.text(), format!("[{expected},{expected}]"));
            let mut ws = proxy.ws().await;
            assert_eq!(ws.ask(bare.clone()).await, expected);
            assert_eq!(ws.ask(format!("[{bare}]")).await, format!("[{expected}]"));
        }
    }
    assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
    assert_eq!((reached(&devnet, CHAIN), reached(&devnet, VERSION)), (0, 0));
    let metrics = proxy.admin("/metrics").await.text();
    let counted = r#"steadfast_calls_total{layer="el",method="eth_chainId",network="default",outcome="result"} 49"#;
    assert!(metrics.contains(counted), "{}", metrics.lines().filter(|l| l.contains(CHAIN)).collect::<String>());
}

#[tokio::test(start_paused = true)]
async fn no_notification_overtakes_the_answer_to_an_earlier_call() {
    let (_net, devnet, proxy) = network(None, "").await;
    // Blocks are pushed at once, and all else takes its time.
    let node = devnet.el(0);
    let both = format!("[[el.primary]]\nname = \"el-1\"\nhttp = \"{}\"\nws = \"{}\"\n", node.http_url(), node.ws_url());
    proxy.reload(&both).await;
    until("blocks are pushed", async || node.subscriptions() == 1).await;
    sleep(Duration::from_secs(3)).await;
    node.set_fault(Fault::slow(50));
    let mut ws: ws::Ws<_> = proxy.ws().await;
    ws.subscribe(r#"["newHeads"]"#).await;
    for method in [CHAIN, VERSION] {
        ws.send(call(7, method, "[]")).await;
        devnet.chain().mine(1);
        let (first, second) = (ws.text().await, ws.text().await);
        assert!(first.contains("\"id\":7") && second.contains("eth_subscription"), "{first} {second}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_with_params_or_without_id_go_to_a_node() {
    let (_net, devnet, proxy) = network(None, "").await;
    proxy.post(call(1, CHAIN, "[\"latest\"]")).await;
    assert_eq!(proxy.post(format!(r#"{{"jsonrpc":"2.0","method":"{CHAIN}"}}"#)).await.text(), "");
    until("both reached the node", async || reached(&devnet, CHAIN) == 2).await;
    let (_net, _devnet, proxy) = network(None, "[calls]\nblocked = [\"eth_chainId\"]\n").await;
    let answer: Value = proxy.post(call(1, CHAIN, "[]")).await.json();
    assert_eq!(answer["error"]["code"], -32601, "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_network_id_that_is_not_the_chain_id_is_the_nodes_to_tell() {
    let (_net, devnet, proxy) = network(Some(Fault::network_id(1)), "").await;
    for count in 1..4 {
        assert_eq!(proxy.post(call(1, VERSION, "[]")).await.json()["result"], "1");
        assert_eq!(reached(&devnet, VERSION), count);
    }
    assert_eq!(proxy.post(call(1, CHAIN, "[]")).await.json()["result"], "0x539");
    assert_eq!(reached(&devnet, CHAIN), 0);
}

#[tokio::test(start_paused = true)]
async fn the_chain_id_is_known_while_no_node_serves() {
    let (net, devnet, proxy) = network(None, "").await;
    devnet.el(0).set_fault(Fault::Down);
    until("it is out", async || proxy.side().await["active"].is_null()).await;
    let asked = Instant::now();
    assert_eq!(proxy.post(call(1, CHAIN, "[]")).await.json()["result"], "0x539");
    assert!(asked.elapsed() < Duration::from_millis(50));
    // A proxy that has heard of no node yet lets the call wait for one.
    let settings = crate::common::proxy::nodes([devnet.el(0).http_url().as_str()]);
    let other = Proxy::launch(&net, &settings).await;
    let mut client = other.client().await;
    client.send(crate::common::client::post("/", call(1, CHAIN, "[]").as_bytes())).await;
    sleep(Duration::from_secs(3)).await;
    devnet.el(0).clear_faults();
    assert_eq!(client.response().await.json()["result"], "0x539");
}
