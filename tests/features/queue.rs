//! Calls that wait, because no node serves or because the node that has them is slow.

use std::time::Duration;

use cucumber::{then, when};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    calls::address,
    world::{Proxy, Reply, SOON, eventually},
};

const HELD: &str = r#"steadfast_held_calls{network="default"}"#;

#[when(expr = "{int} calls come, one after the other")]
async fn come(proxy: &mut Proxy, count: usize) {
    for number in 1..=count {
        proxy.waiting.push(tokio::spawn(proxy.call("eth_getBalance", &json!([address(number), "latest"]))));
        held(proxy, number).await;
    }
}

#[then(expr = "{int} calls are held")]
async fn held(proxy: &mut Proxy, count: usize) {
    let proxy = &*proxy;
    eventually(&format!("{count} calls are held"), SOON, async || match proxy.metric(HELD).await {
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
        assert!(reply.status == 200 && reply.json()["result"].is_string(), "{reply:?}");
    }
    let calls = proxy.node(&name).requests().into_iter().filter(|request| request.method == "eth_getBalance");
    let seen: Vec<String> = calls.map(|request| request.params).collect();
    let expected: Vec<String> = (1..=count).map(|number| json!([address(number), "latest"]).to_string()).collect();
    assert_eq!(seen, expected);
    let held = proxy.metric(HELD).await;
    assert_eq!(held, Some(0.0), "still held");
}

#[then("every call that waited is answered")]
async fn answered(proxy: &mut Proxy) {
    let replies = all(proxy).await;
    assert!(!replies.is_empty());
    for reply in replies {
        assert!(reply.status == 200 && reply.json()["result"].is_string(), "{reply:?}");
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
    let before = proxy.node(&name).count("web3_clientVersion");
    proxy.waiting.push(tokio::spawn(proxy.call("web3_clientVersion", &json!([]))));
    let proxy = &*proxy;
    eventually(&format!("a call reaches {name}"), SOON, async || {
        if proxy.node(&name).count("web3_clientVersion") > before { Ok(()) } else { Err("not yet".into()) }
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
