//! A client of the beacon API's events: one HTTP response, read for as long as the scenario lasts.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use cucumber::{given, then, when};
use serde_json::Value;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    network::here,
    world::{Proxy, eventually, soon},
};

/// What has come in one response. Reading ends with this.
pub struct Listener {
    heard: Arc<Mutex<Heard>>,
    _reading: JoinSet<()>,
}

#[derive(Default)]
struct Heard {
    text: String,
    /// Why no more will come.
    over: Option<String>,
}

impl Listener {
    fn new(mut response: reqwest::Response) -> Self {
        let heard = Arc::<Mutex<Heard>>::default();
        let (into, mut reading) = (heard.clone(), JoinSet::new());
        reading.spawn(async move {
            let over = loop {
                match response.chunk().await {
                    Ok(Some(piece)) => into.lock().unwrap().text.push_str(std::str::from_utf8(&piece).unwrap()),
                    Ok(None) => break "it ended".to_owned(),
                    Err(error) => break format!("{error:?}"),
                }
            };
            into.lock().unwrap().over = Some(over);
        });
        Self { heard, _reading: reading }
    }

    /// The events of a topic so far. Fails when the response is over.
    fn of(&self, topic: &str) -> Vec<Value> {
        let heard = self.heard.lock().unwrap();
        assert_eq!(heard.over, None, "the response is over");
        // The last piece may be half an event.
        let whole = heard.text.rfind("\n\n").map_or("", |end| &heard.text[..end]);
        let data = whole.split("\n\n").filter_map(|event| event.strip_prefix(&format!("event: {topic}\ndata: ")));
        data.map(|data| serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"))).collect()
    }

    fn numbers(&self, topic: &str, key: &str) -> Vec<u64> {
        self.of(topic).iter().map(|data| data[key].as_str().unwrap().parse().unwrap()).collect()
    }

    fn slots(&self, topic: &str) -> Vec<u64> {
        self.numbers(topic, "slot")
    }
}

#[given(expr = "a client listens to {word}")]
async fn listens(proxy: &mut Proxy, topics: String) {
    // No timeout: the response has no end.
    let client = steadfast::net::post::plain().build().unwrap();
    let url = format!("http://{}/eth/v1/events?topics={topics}", proxy.addr());
    let response = client.get(url).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    proxy.listener = Some(Listener::new(response));
}

#[then(expr = "the client hears of {int} more slot(s)")]
#[when(expr = "the client has heard of {int} more slot(s)")]
async fn hears(proxy: &mut Proxy, more: usize) {
    let listener = proxy.listener.as_ref().expect("a client listens");
    let before = listener.slots("head").len();
    eventually(&format!("{more} more slots"), soon(), async || match listener.slots("head") {
        slots if slots.len() >= before + more => Ok(()),
        slots => Err(format!("{slots:?}, {before} of them before")),
    })
    .await;
}

#[then(expr = "the events come from {word} alone")]
async fn come_from(proxy: &mut Proxy, name: String) {
    stream_at(proxy, &name).await;
}

#[when(expr = "blocks are mined, one every {int} ms, until the events come from {word} alone")]
async fn mined_until(proxy: &mut Proxy, millis: u64, name: String) {
    let proxy = &*proxy;
    let mining = async {
        loop {
            here(proxy.net().mine(1).await);
            sleep(Duration::from_millis(millis)).await;
        }
    };
    tokio::select! {
        () = stream_at(proxy, &name) => {}
        () = mining => {}
    }
}

/// Waits until there is one stream of a node, and this is the node.
async fn stream_at(proxy: &Proxy, name: &str) {
    eventually(&format!("the events come from {name}"), soon(), async || {
        let names = proxy.names();
        let streams: Vec<_> = names.iter().map(|node| (node, proxy.node(node).subscriptions())).collect();
        let right = streams.iter().all(|(node, streams)| *streams == u64::from(*node == name));
        if right { Ok(()) } else { Err(format!("{streams:?}: {:#}", proxy.status().await)) }
    })
    .await;
}

#[when(expr = "the chain's last {int} blocks are replaced")]
async fn reorganised(proxy: &mut Proxy, depth: u64) {
    here(proxy.net().reorganise(depth, depth + 1).await);
}

#[then("the client hears of the chain's last slot")]
async fn hears_last(proxy: &mut Proxy) {
    let listener = proxy.listener.as_ref().expect("a client listens");
    let last = proxy.net().height();
    eventually("the chain's last slot", soon(), async || match listener.slots("head") {
        slots if slots.last() == Some(&last) => Ok(()),
        slots => Err(format!("{last} after {slots:?}")),
    })
    .await;
}

#[then(expr = "the client hears of the slots {word} in this order")]
async fn hears_in_order(proxy: &mut Proxy, slots: String) {
    let expected: Vec<u64> = slots.split(',').map(|slot| slot.parse().unwrap()).collect();
    let listener = proxy.listener.as_ref().expect("a client listens");
    eventually("these slots", soon(), async || {
        let (heads, blocks) = (listener.slots("head"), listener.slots("block"));
        if heads.len() >= expected.len() && blocks.len() >= expected.len() { Ok(()) } else { Err(format!("{heads:?}")) }
    })
    .await;
    assert_eq!(listener.slots("head"), expected);
    assert_eq!(listener.slots("block"), expected);
}

#[then(expr = "the client hears of one reorganisation, {int} slots deep")]
async fn one_reorganisation(proxy: &mut Proxy, depth: u64) {
    let listener = proxy.listener.as_ref().expect("a client listens");
    assert_eq!(listener.numbers("chain_reorg", "depth"), [depth]);
}

#[then("it has heard of every slot once, in order, and in one response")]
async fn whole(proxy: &mut Proxy) {
    let listener = proxy.listener.as_ref().expect("a client listens");
    let heads = listener.slots("head");
    let [first, .., last] = heads[..] else { panic!("not two slots: {heads:?}") };
    // On a real chain some slots may have no block.
    assert_eq!(heads, here(proxy.net().slots(first, last).await));
    let roots = |topic| listener.of(topic).iter().map(|data| data["block"].clone()).collect::<Vec<_>>();
    let (head_roots, mut block_roots) = (roots("head"), roots("block"));
    // A block is told before its head, and this may be between the two.
    block_roots.truncate(head_roots.len());
    assert_eq!(head_roots, block_roots);
    assert_eq!(listener.of("chain_reorg").len(), 0);
}

#[then("it has heard of every finalized checkpoint once, in order")]
async fn finalized(proxy: &mut Proxy) {
    let listener = proxy.listener.as_ref().expect("a client listens");
    let epochs = listener.numbers("finalized_checkpoint", "epoch");
    assert!(epochs.len() > 1 && epochs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{epochs:?}");
}
