//! What a client subscribes to over a WebSocket, and what it is told.

use std::{collections::BTreeSet, sync::atomic::Ordering::Relaxed, time::Duration};

use cucumber::{given, then, when};
use serde_json::{Value, json};
use steadfast::{devnet::Fault, domain::layer::Layer};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    heard::{Heads, Heard, Logs, Subscription, Told},
    network::{NotHere, here},
    world::{Named, Proxy, eventually, soon},
};

#[given(regex = r"^a (primary|backup) (\S+) with (a WebSocket|nothing but a WebSocket)$")]
async fn node_with_websocket(proxy: &mut Proxy, tier: String, name: String, what: String) {
    let tier = if tier == "primary" { "primary" } else { "backup" };
    let url = if what == "a WebSocket" { "http://{addr}" } else { "" };
    let more = r#"ws = "ws://{ws}""#.to_owned();
    proxy.nodes.push(Named { name, layer: Layer::El, tier, url: url.into(), more });
}

#[given(expr = "{word} gives out small subscription ids")]
async fn small_ids(proxy: &mut Proxy, name: String) {
    proxy.network().await;
    proxy.node(&name).set_small_ids(true);
}

#[when(expr = "{word} comes up again, but loses its answers to {word}")]
async fn comes_up(proxy: &mut Proxy, name: String, method: String) {
    let node = proxy.node(&name);
    node.clear_records();
    node.set_fault(Fault::cut_answer(&[&method]));
    node.clear_fault("down");
    timeout(soon(), node.settled()).await.expect("the node listens");
}

#[then(expr = "{word} is asked for {word} and its answer is lost, {int} times")]
async fn is_lost(proxy: &mut Proxy, name: String, method: String, times: u64) {
    let node = proxy.node(&name);
    eventually("it is asked and its answers are lost", soon(), async || match node.count(&method) {
        asked if asked >= times => Ok(()),
        _ => Err(format!("{:?}", node.counts())),
    })
    .await;
}

/// The params of a subscription as scenarios call it.
fn params(proxy: &Proxy, what: &str) -> Value {
    match what.strip_prefix("logs of contract ") {
        Some(number) => {
            let contract = here(proxy.net().contract(number.parse().unwrap()));
            json!(["logs", {"address": contract}])
        }
        None if what == "logs" => {
            // Without contracts there is nothing to hear.
            here(proxy.net().contract(1));
            json!(["logs", {}])
        }
        None => json!([what]),
    }
}

#[given(regex = r"^(\w+) subscribes to (\w+|logs of contract \d)$")]
#[when(regex = r"^(\w+) subscribes to (\w+|logs of contract \d)$")]
async fn subscribes(proxy: &mut Proxy, name: String, what: String) {
    let params = params(proxy, &what);
    if what == "newPendingTransactions" {
        // Without transactions there is nothing to hear.
        here(proxy.net().contract(1));
    }
    let socket = proxy.socket_mut(&name);
    let text = socket.request("eth_subscribe", &params);
    let before = socket.heard().given;
    let reply = socket.exchange(text).await;
    assert_eq!(socket.heard().given, before + 1, "{reply:?}");
    proxy.last = Some(reply);
}

#[given(expr = "{word} subscribes {int} times to {word}")]
async fn subscribes_often(proxy: &mut Proxy, name: String, times: usize, what: String) {
    for _ in 0..times {
        subscribes(proxy, name.clone(), what.clone()).await;
    }
}

#[given(expr = "{word} fetches every block that it hears of")]
async fn fetches(proxy: &mut Proxy, name: String) {
    proxy.socket(&name).fetches.store(true, Relaxed);
}

#[when(expr = "{word} unsubscribes from {word}, and is told {word}")]
async fn unsubscribes(proxy: &mut Proxy, name: String, what: String, told: String) {
    let socket = proxy.socket_mut(&name);
    let id = {
        let heard = socket.heard();
        let mut known = heard.subscriptions.iter();
        known.find(|(_, subscription)| subscription.params[0] == *what).expect("it was subscribed").0.clone()
    };
    unsubscribe(proxy, &name, &id, &told).await;
    proxy.dropped = Some(id);
}

#[when(expr = "{word} unsubscribes from the same once more, and is told {word}")]
async fn unsubscribes_again(proxy: &mut Proxy, name: String, told: String) {
    let id = proxy.dropped.clone().expect("something was unsubscribed from");
    unsubscribe(proxy, &name, &id, &told).await;
}

#[when(expr = "{word} unsubscribes by the id {string}, and is told {word}")]
async fn unsubscribes_from_id(proxy: &mut Proxy, name: String, id: String, told: String) {
    unsubscribe(proxy, &name, &id, &told).await;
}

async fn unsubscribe(proxy: &mut Proxy, name: &str, id: &str, told: &str) {
    let socket = proxy.socket_mut(name);
    let text = socket.request("eth_unsubscribe", &json!([id]));
    let reply = socket.exchange(text).await;
    assert_eq!(reply.json()["result"].to_string(), told, "{reply:?}");
}

#[when(expr = "{word} sends {int} batches of a call and two subscriptions, while blocks are mined")]
async fn batches(proxy: &mut Proxy, name: String, count: usize) {
    let filter = params(proxy, "logs");
    for _ in 0..count {
        let socket = proxy.socket_mut(&name);
        let requests = [
            socket.request("eth_subscribe", &json!(["newHeads"])),
            socket.request("eth_getBlockByNumber", &json!(["0x3", false])),
            socket.request("eth_subscribe", &filter),
        ];
        socket.send(format!("[{}]", requests.join(","))).await;
        let network = proxy.net().clone();
        here(network.mine(1).await);
        // The next block must find the batch on its way.
        tokio::task::yield_now().await;
        here(network.mine(1).await);
    }
    proxy.socket(&name).settled().await;
}

#[then(expr = "{word} was given {int} subscriptions, with different ids")]
async fn given_ids(proxy: &mut Proxy, name: String, count: usize) {
    let heard = proxy.socket(&name).heard();
    assert_eq!((heard.given, heard.subscriptions.len()), (count, count));
}

fn told<'a, T>(heard: &'a Heard, pick: impl Fn(&'a Told) -> Option<&'a T>) -> &'a T {
    heard
        .subscriptions
        .values()
        .find_map(|subscription| pick(&subscription.told))
        .expect("there is such a subscription")
}

fn heads(heard: &Heard) -> &Heads {
    told(heard, |told| if let Told::Heads(heads) = told { Some(heads) } else { None })
}

fn logs(heard: &Heard) -> &Logs {
    told(heard, |told| if let Told::Logs(logs) = told { Some(logs) } else { None })
}

/// Where blocks are named by their numbers, the chain must be the scenario's own.
fn ours(proxy: &Proxy) {
    if !proxy.net().is_ours() {
        here(Err(NotHere::new("the chain has blocks that the scenario does not ask for")))
    }
}

#[when(expr = "{word} has heard of {int} more block(s)")]
#[then(expr = "{word} hears of {int} more block(s)")]
async fn hears(proxy: &mut Proxy, name: String, more: usize) {
    let socket = proxy.socket(&name);
    let before = heads(&socket.heard()).all.len();
    eventually(&format!("{name} hears of {more} more blocks"), soon(), async || {
        let heard = socket.heard();
        let all = &heads(&heard).all;
        if all.len() >= before + more { Ok(()) } else { Err(format!("{all:?}, {before} of them before")) }
    })
    .await;
}

#[then(regex = r"^(\w+) hears of the blocks ([\d,]+), in this order$")]
async fn hears_these(proxy: &mut Proxy, name: String, blocks: String) {
    ours(proxy);
    let expected: Vec<u64> = blocks.split(',').map(|number| number.parse().unwrap()).collect();
    let socket = proxy.socket(&name);
    eventually(&format!("{name} hears of these"), soon(), async || {
        let heard = socket.heard();
        let all = &heads(&heard).all;
        if all.len() >= expected.len() { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;
    assert_eq!(heads(&socket.heard()).all, expected);
}

#[then(regex = r"^the logs of the blocks ([\d,]+) are taken back from (\w+), in this order$")]
async fn taken_back(proxy: &mut Proxy, blocks: String, name: String) {
    let expected: Vec<u64> = blocks.split(',').map(|number| number.parse().unwrap()).collect();
    let socket = proxy.socket(&name);
    eventually(&format!("they are taken back from {name}"), soon(), async || {
        let mut blocks: Vec<u64> = logs(&socket.heard()).removed.iter().map(|log| log.0).collect();
        blocks.dedup();
        if blocks == expected { Ok(()) } else { Err(format!("{blocks:?}")) }
    })
    .await;
}

/// Waits until each subscription that is `concerned` is `right`.
async fn all(
    proxy: &Proxy,
    name: &str,
    what: &str,
    concerned: impl Fn(&Told) -> bool,
    right: impl Fn(&Subscription) -> Result<(), String>,
) {
    eventually(&format!("{name}: {what}"), soon(), async || each(proxy, name, &concerned, &right)).await;
}

/// Whether each subscription that is `concerned` is `right`.
fn each(
    proxy: &Proxy,
    name: &str,
    concerned: impl Fn(&Told) -> bool,
    right: impl Fn(&Subscription) -> Result<(), String>,
) -> Result<(), String> {
    let heard = proxy.socket(name).heard();
    let mut subscriptions = heard.subscriptions.iter().filter(|(_, subscription)| concerned(&subscription.told));
    assert!(subscriptions.clone().next().is_some(), "{name} has no such subscription");
    subscriptions.try_for_each(|(id, subscription)| {
        right(subscription).map_err(|why| format!("{id}, {}: {why}", subscription.params))
    })
}

#[then(expr = "{word} has missed nothing, and heard nothing twice")]
async fn complete(proxy: &mut Proxy, name: String) {
    let proxy = &*proxy;
    let concerned = |told: &Told| !matches!(told, Told::Other(_));
    eventually("what was told adds up to the chain", soon(), async || {
        let from = proxy.socket(&name).heard().subscriptions.values().map(Subscription::from).min();
        let chain = here(proxy.net().canonical(from.unwrap_or_default()).await);
        each(proxy, &name, concerned, |subscription| subscription.adds_up(&chain))
    })
    .await;
}

#[then(expr = "{word} goes on to hear on all {int} subscriptions, by the ids that it was given")]
async fn goes_on(proxy: &mut Proxy, name: String, count: usize) {
    let now = Instant::now();
    let ids: BTreeSet<String> = proxy.socket(&name).heard().subscriptions.keys().cloned().collect();
    assert_eq!(ids.len(), count, "{ids:?}");
    let proxy = &*proxy;
    if proxy.socket(&name).heard().subscriptions.values().any(|subscription| matches!(subscription.told, Told::Logs(_)))
    {
        // Without contracts there is nothing to hear.
        here(proxy.net().contract(1));
    }
    // What is told by another id breaks a promise.
    let heard = all(
        proxy,
        &name,
        "each is heard on",
        |_| true,
        |subscription| match subscription.last {
            Some(last) if last > now => Ok(()),
            last => Err(format!("last heard on {:?} ago", last.map(|last| last.elapsed()))),
        },
    );
    let living = async {
        loop {
            here(proxy.net().news().await);
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = heard => {}
        () = living => {}
    }
}

#[then(expr = "{word} hears of a gap up to block {int}, and of every block after it")]
async fn gap(proxy: &mut Proxy, name: String, number: u64) {
    here(proxy.net().mine(3).await);
    let head = here(proxy.net().canonical(number).await).head();
    let socket = proxy.socket(&name);
    eventually(&format!("{name} hears of the blocks after the gap"), soon(), async || {
        let heard = socket.heard();
        let Heads { gaps, chain: told, .. } = heads(&heard);
        let last = told.last().map(|head| head.0);
        match matches!(gaps[..], [(_, after)] if after == number) && last == Some(head) {
            true => Ok(()),
            false => Err(format!("gaps {gaps:?}, at {last:?}")),
        }
    })
    .await;
    let heard = socket.heard();
    let told: Vec<u64> = heads(&heard).chain.iter().map(|head| head.0).collect();
    assert_eq!(told, (number..=head).collect::<Vec<_>>());
}

#[then(expr = "the proxy has skipped {int} gap")]
async fn skipped(proxy: &mut Proxy, count: usize) {
    let skipped = proxy.metric(r#"steadfast_gaps_skipped_total{network="default"}"#).await;
    assert_eq!(skipped.map(|skipped| skipped as usize), Some(count));
}

#[then(expr = "every node has {int} subscription(s) of the proxy's")]
async fn upstream(proxy: &mut Proxy, count: u64) {
    for name in proxy.names() {
        assert_eq!(proxy.node(&name).subscriptions(), count, "{name}");
    }
}
