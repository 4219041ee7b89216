//! Calls that wait, because no node serves or because the node that has them is slow.

use std::time::Duration;

use cucumber::{then, when};
use reqwest::Method;
use serde_json::json;
use steadfast::domain::layer::Layer;
use tokio::time::timeout;

use crate::{
    calls::address,
    world::{Proxy, Reply, SOON, eventually, reply},
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
    eventually(&format!("{count} calls are held"), SOON, async || match count_held(proxy).await {
        Some(held) if held as usize == count => Ok(()),
        other => Err(format!("{other:?}, and {} calls have ended", ended(proxy))),
    })
    .await;
    assert_eq!(ended(proxy), 0, "calls ended that should wait");
}

fn ended(proxy: &Proxy) -> usize {
    proxy.waiting.iter().filter(|call| call.is_finished()).count()
}

#[then(expr = "every call that waited is answered by {word}, in the order of their arrival")]
async fn in_order(proxy: &mut Proxy, name: String) {
    let count = proxy.waiting.len();
    assert!(count > 1);
    for reply in all(proxy).await {
        assert!(is_good(&reply), "{reply:?}");
    }
    let calls = proxy.node(&name).requests().into_iter().map(|request| (request.method, request.params));
    let expected: Vec<_> = (1..=count)
        .map(|number| match proxy.layer() {
            Layer::El => ("eth_getBalance".to_owned(), json!([address(number), "latest"]).to_string()),
            Layer::Cl => (format!("GET {}", header(number)), String::new()),
        })
        .collect();
    let seen: Vec<_> = calls.filter(|call| expected.contains(call)).collect();
    assert_eq!(seen, expected);
    let held = count_held(proxy).await;
    assert_eq!(held, Some(0.0), "still held");
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
        replies.push(timeout(SOON, call).await.expect("a call that waits is answered").unwrap());
    }
    replies
}

#[when(expr = "a call has reached {word}, which owes the answer")]
async fn reached(proxy: &mut Proxy, name: String) {
    let (request, method) = proxy.who_are_you();
    let before = proxy.node(&name).count(method);
    proxy.waiting.push(tokio::spawn(reply(request)));
    let proxy = &*proxy;
    eventually(&format!("a call reaches {name}"), SOON, async || {
        if proxy.node(&name).count(method) > before { Ok(()) } else { Err("not yet".into()) }
    })
    .await;
    assert_eq!(ended(proxy), 0, "it was answered already");
}

#[then(expr = "that call is answered by {word} within {int} ms")]
async fn moved(proxy: &mut Proxy, name: String, millis: u64) {
    let call = proxy.waiting.pop().expect("a call waits");
    let reply = timeout(Duration::from_millis(millis), call).await.expect("answered in time").unwrap();
    assert_eq!(proxy.who_answered(&reply), Ok(name), "{reply:?}");
}
