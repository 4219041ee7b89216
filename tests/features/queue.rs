//! Calls that wait, because no node serves or because the node that has them is slow.

use std::time::Duration;

use cucumber::{then, when};
use reqwest::Method;
use serde_json::json;
use steadfast::domain::layer::Layer;
use tokio::time::timeout;

use crate::{
    calls::address,
    network::stretch,
    world::{Proxy, Reply, eventually, reply, soon},
};

/// Calls and requests that wait, if any ever did.
async fn count_held(proxy: &Proxy) -> Option<f64> {
    let mut held = None;
    for layer in ["el", "cl"] {
        let of_layer = proxy.metric(&format!("steadfast_held_calls{{layer=\"{layer}\",network=\"default\"}}")).await;
        held = held.into_iter().chain(of_layer).reduce(|a, b| a + b);
    }
    held
}

#[when(expr = "{int} calls come, one after the other")]
async fn come(proxy: &mut Proxy, count: usize) {
    for number in 1..=count {
        proxy.waiting.push(match proxy.layer() {
            Layer::El => tokio::spawn(proxy.call("eth_getBalance", &json!([address(number), "latest"]))),
            Layer::Cl => tokio::spawn(reply(proxy.beacon(Method::GET, &header(number)))),
        });
        held(proxy, number).await;
    }
}

/// The header of that slot.
fn header(slot: usize) -> String {
    format!("/eth/v1/beacon/headers/{slot}")
}

/// Whether it is what was asked for, and no error.
fn is_good(reply: &Reply) -> bool {
    let json = reply.json();
    reply.status == 200 && (json["result"].is_string() || json["data"].is_object())
}

#[then(expr = "{int} calls are held")]
async fn held(proxy: &mut Proxy, count: usize) {
    let proxy = &*proxy;
    eventually(&format!("{count} calls are held"), soon(), async || match count_held(proxy).await {
        Some(held) if held as usize == count => Ok(()),
        other => Err(format!("{other:?}, and {} calls have ended", ended(proxy))),
    })
    .await;
    assert_eq!(ended(proxy), 0, "calls ended that should wait");
}

fn ended(proxy: &Proxy) -> usize {
    proxy.waiting.iter().filter(|call| call.is_finished()).count()
}

#[then(expr = "every call that waited is answered by {word}")]
async fn answered_by(proxy: &mut Proxy, name: String) {
    let mut expected = arrivals(proxy);
    let mut seen = all_seen(proxy, &name, &expected).await;
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected);
}

/// For a node with one connection: requests over several are seen in the order in which the node
/// reads its connections, whatever the order in which they were written.
#[then(expr = "every call that waited is answered by {word}, in the order of their arrival")]
async fn in_order(proxy: &mut Proxy, name: String) {
    let expected = arrivals(proxy);
    assert_eq!(all_seen(proxy, &name, &expected).await, expected);
}

/// The calls that wait, as a node records them, in the order of their arrival.
fn arrivals(proxy: &Proxy) -> Vec<(String, String)> {
    let numbers = 1..=proxy.waiting.len();
    match proxy.layer() {
        Layer::El => {
            numbers.map(|n| ("eth_getBalance".to_owned(), json!([address(n), "latest"]).to_string())).collect()
        }
        Layer::Cl => numbers.map(|n| (format!("GET {}", header(n)), String::new())).collect(),
    }
}

/// Those of `calls` that reached a node, in the order in which it saw them, when all that waited
/// have been answered.
async fn all_seen(proxy: &mut Proxy, name: &str, calls: &[(String, String)]) -> Vec<(String, String)> {
    assert!(calls.len() > 1);
    for reply in all(proxy).await {
        assert!(is_good(&reply), "{reply:?}");
    }
    let held = count_held(proxy).await;
    assert_eq!(held, Some(0.0), "still held");
    let requests = proxy.node(name).requests().into_iter().map(|request| (request.method, request.params));
    requests.filter(|call| calls.contains(call)).collect()
}

#[then("every call that waited is answered")]
async fn answered(proxy: &mut Proxy) {
    let replies = all(proxy).await;
    assert!(!replies.is_empty());
    for reply in replies {
        assert!(is_good(&reply), "{reply:?}");
    }
}

#[then(expr = "every call that waited gets error {int} for the reason {word}")]
async fn refused(proxy: &mut Proxy, code: i64, reason: String) {
    let replies = all(proxy).await;
    assert!(!replies.is_empty());
    for reply in replies {
        let error = &reply.json()["error"];
        assert!(error["code"] == code && error["data"]["reason"] == *reason, "{reply:?}");
        proxy.last = Some(reply);
    }
}

/// The replies to all calls that were left waiting.
async fn all(proxy: &mut Proxy) -> Vec<Reply> {
    let mut replies = Vec::new();
    for call in proxy.waiting.drain(..) {
        replies.push(timeout(soon(), call).await.expect("a call that waits is answered").unwrap());
    }
    replies
}

#[when(expr = "a call has reached {word}, which owes the answer")]
async fn reached(proxy: &mut Proxy, name: String) {
    let (request, method) = proxy.who_are_you();
    let pretend = proxy.net().pretend().is_ok();
    // A node that hangs cannot be asked. The proxy tells of the calls that it has there, or had.
    let (at_node, layer) = (format!(r#",network="default",node="{name}"}}"#), proxy.layer().as_str());
    let at_node = format!(r#"steadfast_node_in_flight{{layer="{layer}"{at_node}"#);
    let attempts = async |proxy: &Proxy| proxy.attempts("").await.get(&name).copied().unwrap_or_default();
    let before = if pretend { proxy.node(&name).count(method) } else { attempts(proxy).await };
    proxy.waiting.push(tokio::spawn(reply(request)));
    let proxy = &*proxy;
    eventually(&format!("a call reaches {name}"), soon(), async || {
        let is_there = match pretend {
            true => proxy.node(&name).count(method) > before,
            false => proxy.metric(&at_node).await >= Some(1.0) || attempts(proxy).await > before,
        };
        if is_there { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    assert!(!pretend || ended(proxy) == 0, "it was answered already");
}

#[then(expr = "that call is answered by {word} within {int} ms")]
async fn moved(proxy: &mut Proxy, name: String, millis: u64) {
    let call = proxy.waiting.pop().expect("a call waits");
    let reply = timeout(stretch(Duration::from_millis(millis)), call).await.expect("answered in time").unwrap();
    assert_eq!(proxy.who_answered(&reply), Ok(name), "{reply:?}");
}
