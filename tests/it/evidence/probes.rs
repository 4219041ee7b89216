//! How nodes are asked how they are, and what is made of it: silence, the chain, whether they sync.

use std::{sync::Arc, time::Duration};

use steadfast::devnet::{Devnet, Fault, Options};
use tokio::time::{Instant, sleep};

use super::answer;
use crate::common::{
    self,
    client::call,
    origin::{Origin, Reply},
    sim::{Net, Proxy},
    until,
};

#[tokio::test(start_paused = true)]
async fn a_node_slow_with_probes_is_not_silent_but_a_hanging_one_is() {
    for (timeout, slow, limit) in [(2, 1500, 3200), (2, 1900, 3200), (6, 2500, 7200), (6, 5800, 7200)] {
        let net = Net::default();
        let options = Options { execution: 1, ..Options::default() };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let node = devnet.el(0);
        let health = format!("health = {{ timeout = \"{timeout}s\" }}\n");
        let url = node.http_url();
        let proxy = Proxy::over(&net, [], &(health + &common::proxy::nodes([&*url]))).await;
        until("it is up", async || proxy.verdicts().await == ["up"]).await;
        node.set_fault(Fault::slow(slow));
        for _ in 0..600 {
            sleep(Duration::from_millis(100)).await;
            assert_eq!((proxy.verdicts().await, proxy.in_flight().await), (vec!["up".to_owned()], 0), "{slow} ms");
        }
        node.clear_faults();
        sleep(Duration::from_secs(10)).await;
        node.set_fault(Fault::Hang);
        let start = Instant::now();
        until("it is out", async || proxy.verdicts().await == ["down"]).await;
        let took = start.elapsed().as_millis();
        assert!(took < limit, "out after {took} ms, of a probe's {timeout} s");
    }
}

/// A proxy before the one execution node of a pretend network, up.
async fn alone(net: &Net, settings: &str) -> (Devnet, Proxy) {
    let options = Options { execution: 1, ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let url = devnet.el(0).http_url();
    let proxy = Proxy::over(net, [], &(settings.to_owned() + &common::proxy::nodes([&*url]))).await;
    until("it is up", async || proxy.verdicts().await == ["up"]).await;
    (devnet, proxy)
}

#[tokio::test(start_paused = true)]
async fn a_node_that_gives_probes_no_result_is_out() {
    for body in ["{}", r#"{"foo":1}"#, r#"{"data":[]}"#, "[]", "7"] {
        let net = Net::default();
        let node = Origin::within(&net, |seen| Reply::result(seen, "1")).await;
        let proxy = Proxy::over(&net, [], &common::proxy::nodes([node.url()])).await;
        until("it is up", async || proxy.verdicts().await == ["up"]).await;
        node.ail(Some(common::origin::ok(body)));
        until("it is out", async || proxy.verdicts().await == ["down"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_its_time_over_everything_is_not_silent() {
    for (timeout, slow) in [(2, 1200), (2, 1900), (6, 5800)] {
        let net = Net::default();
        let settings = format!("calls.attempt_timeout = \"20s\"\nhealth = {{ timeout = \"{timeout}s\" }}\n");
        let (devnet, proxy) = alone(&net, &settings).await;
        devnet.el(0).set_fault(Fault::slow(slow));
        // Of a node that was quick until now, nobody can tell whether it will be slow or silent.
        sleep(Duration::from_millis(2 * slow)).await;
        for id in 0..20 {
            let asked = Instant::now();
            let text = proxy.post(call(id, "eth_gasPrice", "[]")).await.text();
            assert_eq!(
                (text, proxy.verdicts().await),
                (answer(id, "\"0x3b9aca00\""), vec!["up".to_owned()]),
                "{slow} ms"
            );
            assert!(asked.elapsed() < Duration::from_millis(slow + 100), "{slow} ms: {:?}", asked.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_busy_with_a_long_call_and_slow_probes_is_not_silent() {
    let net = Net::default();
    let (devnet, proxy) = alone(&net, "calls.attempt_timeout = \"20s\"\nhealth = { timeout = \"5s\" }\n").await;
    devnet.el(0).set_fault(Fault::slow(1100));
    sleep(Duration::from_secs(3)).await;
    let text = proxy.post(call(1, "dev_sleep", "[9000]")).await.text();
    assert_eq!((text, proxy.verdicts().await), (answer(1, "9000"), vec!["up".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_sends_bytes_is_not_silent_though_a_probe_hangs() {
    let net = Net::default();
    let node = Origin::within(&net, |seen| {
        let bytes = common::origin::ok(answer(seen.id(), &format!("\"{}\"", "s".repeat(1_000_000))));
        Reply::act(async move |mut io| {
            for piece in bytes.chunks(100_000) {
                tokio::io::AsyncWriteExt::write_all(&mut io, piece).await.ok()?;
                sleep(Duration::from_millis(900)).await;
            }
            Some(io)
        })
    })
    .await;
    // A regular probe that fails is another matter.
    let settings = "health = { timeout = \"20s\" }\n".to_owned() + &common::proxy::nodes([node.url()]);
    let proxy = Proxy::over(&net, [], &settings).await;
    until("it is up", async || proxy.verdicts().await == ["up"]).await;
    let mut client = proxy.client().await;
    client.send(common::client::post("/", call(1, "eth_call", "[]").as_bytes())).await;
    sleep(Duration::from_millis(100)).await;
    node.mute();
    for _ in 0..80 {
        sleep(Duration::from_millis(100)).await;
        assert_eq!(proxy.verdicts().await, ["up"]);
    }
    assert!(client.response().await.body.len() > 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_with_calls_is_out_after_two_seconds() {
    let net = Net::default();
    let (devnet, proxy) = alone(&net, "").await;
    proxy.post(call(1, "eth_gasPrice", "[]")).await;
    devnet.el(0).set_fault(Fault::Hang);
    let mut client = proxy.client().await;
    client.send(common::client::post("/", call(1, "eth_gasPrice", "[]").as_bytes())).await;
    let start = Instant::now();
    until("it is out", async || proxy.verdicts().await == ["down"]).await;
    assert!(start.elapsed() < Duration::from_millis(2300), "{:?}", start.elapsed());
}

async fn both_sides(net: &Net, nodes: usize, settings: &str) -> (Devnet, Proxy) {
    let options = Options { execution: nodes, consensus: nodes, ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let urls = |side: &str| -> Vec<String> { (0..nodes).map(|i| node(&devnet, side, i).http_url()).collect() };
    let (el, cl) = (urls("el"), urls("cl"));
    let nodes = common::proxy::nodes(el.iter().map(String::as_str)) + &common::rest::nodes(&cl);
    let proxy = Proxy::launch(net, &(settings.to_owned() + &nodes)).await;
    for side in SIDES {
        until("all are up", async || verdicts(&proxy, side).await.iter().all(|verdict| verdict == "up")).await;
    }
    (devnet, proxy)
}

const SIDES: [&str; 2] = ["el", "cl"];

fn node<'a>(devnet: &'a Devnet, side: &str, index: usize) -> &'a Arc<steadfast::devnet::Node> {
    if side == "el" { devnet.el(index) } else { devnet.cl(index) }
}

async fn verdicts(proxy: &Proxy, side: &str) -> Vec<String> {
    let side = proxy.admin("/status").await.json()["networks"][0][side].take();
    let nodes = side["nodes"].as_array().unwrap().iter();
    nodes.map(|node| node["verdict"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_changes_its_chain_is_found_within_a_minute() {
    let net = Net::default();
    let (devnet, proxy) = both_sides(&net, 2, "").await;
    for side in SIDES {
        node(&devnet, side, 0).set_fault(Fault::wrong_chain(5));
        let start = Instant::now();
        while verdicts(&proxy, side).await != ["wrong_chain", "up"] {
            assert!(start.elapsed() < Duration::from_secs(63), "{side}");
            sleep(Duration::from_millis(100)).await;
        }
        node(&devnet, side, 0).clear_faults();
        let start = Instant::now();
        while verdicts(&proxy, side).await != ["up", "up"] {
            assert!(start.elapsed() < Duration::from_secs(63), "{side}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_join_has_the_chain_asked_at_once() {
    let net = Net::default();
    let (devnet, proxy) = both_sides(&net, 2, "").await;
    for side in SIDES {
        node(&devnet, side, 0).set_fault(Fault::wrong_chain(5));
        devnet.chain().reorg(1).unwrap();
        let start = Instant::now();
        until("it is found", async || verdicts(&proxy, side).await == ["wrong_chain", "up"]).await;
        assert!(start.elapsed() < Duration::from_millis(2500), "{side}: {:?}", start.elapsed());
        node(&devnet, side, 0).clear_faults();
        devnet.chain().reorg(1).unwrap();
        until("it is back", async || verdicts(&proxy, side).await == ["up", "up"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_down_have_no_vote_on_the_chain() {
    let net = Net::default();
    let (devnet, proxy) = both_sides(&net, 3, "").await;
    for side in SIDES {
        node(&devnet, side, 2).set_fault(Fault::wrong_chain(5));
        sleep(Duration::from_secs(62)).await;
        assert_eq!(verdicts(&proxy, side).await, ["up", "up", "wrong_chain"]);
        for dead in 0..2 {
            node(&devnet, side, dead).set_fault(Fault::Down);
        }
        until("the last one serves", async || verdicts(&proxy, side).await == ["down", "down", "up"]).await;
        // A call that was there first is back, and has its place.
        node(&devnet, side, 0).clear_faults();
        until("it is home", async || verdicts(&proxy, side).await == ["up", "down", "wrong_chain"]).await;
        node(&devnet, side, 1).clear_faults();
        node(&devnet, side, 2).clear_faults();
        until("all are back", async || verdicts(&proxy, side).await[..2] == ["up", "up"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_operator_names_the_chain_no_vote_changes_it() {
    let net = Net::default();
    let (devnet, proxy) = both_sides(&net, 2, "chain_id = 1337\n").await;
    for side in SIDES {
        node(&devnet, side, 1).set_fault(Fault::wrong_chain(5));
        sleep(Duration::from_secs(62)).await;
        node(&devnet, side, 0).set_fault(Fault::Down);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(verdicts(&proxy, side).await, ["down", "wrong_chain"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_say_whether_it_syncs_is_well() {
    const SYNCING: [&str; 2] = ["eth_syncing", "GET /eth/v1/node/syncing"];
    let net = Net::default();
    let (devnet, proxy) = both_sides(&net, 1, "").await;
    let mut faults = vec![("not offered", Fault::not_offered(&SYNCING)), ("no quota", Fault::quota(&SYNCING))];
    for status in [400, 403, 404, 405, 410, 422, 501] {
        faults.push(("a status", Fault::http_status(status, &SYNCING)));
    }
    for (what, fault) in faults {
        for side in SIDES {
            node(&devnet, side, 0).set_fault(fault.clone());
        }
        for _ in 0..50 {
            sleep(Duration::from_millis(200)).await;
            for side in SIDES {
                assert_eq!(verdicts(&proxy, side).await, ["up"], "{side}, {what}: {fault:?}");
            }
        }
        devnet.nodes().for_each(|node| node.clear_faults());
    }
    // A refusal of a fact that must be known is a failure.
    for fault in [
        Fault::http_status(403, &["eth_getBlockByNumber", "GET /eth/v1/beacon/headers/head"]),
        Fault::not_offered(&["eth_getBlockByNumber", "GET /eth/v1/beacon/headers/head"]),
        Fault::http_status(500, &SYNCING),
        Fault::http_status(401, &SYNCING),
    ] {
        for side in SIDES {
            node(&devnet, side, 0).set_fault(fault.clone());
            until("it is out", async || verdicts(&proxy, side).await == ["down"]).await;
            node(&devnet, side, 0).clear_faults();
            until("it is back", async || verdicts(&proxy, side).await == ["up"]).await;
        }
        // Flapping would be held against it.
        sleep(Duration::from_secs(700)).await;
    }
}
