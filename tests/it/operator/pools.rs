//! Nodes that the operator takes out, adds and removes, and the metrics and logs of the switches
//! between them.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Fault, Options};
use tokio::time::{Instant, sleep};

use super::answer;
use crate::common::{
    client::call,
    origin::{Origin, Reply},
    proxy::nodes,
    sim::{Net, Proxy},
    until,
};

async fn devnet(net: &Net) -> Devnet {
    Devnet::start(Options { execution: 3, ..Options::default() }, Arc::new(net.clone())).await.unwrap()
}

fn settings(devnet: &Devnet, places: &[usize]) -> String {
    let node = |place: &usize| {
        let node = devnet.el(*place);
        let (http, ws) = (node.http_url(), node.ws_url());
        format!("[[el.primary]]\nname = \"{}\"\nhttp = \"{http}\"\nws = \"{ws}\"\n", node.name())
    };
    places.iter().map(node).collect()
}

async fn until_active(proxy: &Proxy, node: &str) {
    until(&format!("calls go to {node}"), async || proxy.side().await["active"] == node).await;
}

/// From, to and reason of the last switch.
async fn last_switch(proxy: &Proxy) -> [Value; 3] {
    let mut side = proxy.side().await;
    ["from", "to", "reason"].map(|key| side["last_switch"][key].take())
}

fn switch(from: Option<&str>, to: Option<&str>, reason: &str) -> [Value; 3] {
    [json!(from), json!(to), json!(reason)]
}

#[tokio::test(start_paused = true)]
async fn a_cordoned_node_gets_no_new_calls_and_stays_probed() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let proxy = Proxy::launch(&net, &settings(&devnet, &[0, 1])).await;
    until_active(&proxy, "el-1").await;
    assert_eq!(proxy.operate("/nodes/el-1/cordon").await.json()["warning"], Value::Null);
    // The change has taken effect with the answer.
    let node = proxy.node("el-1").await;
    assert_eq!((&node["cordoned"], &node["usable"]), (&true.into(), &false.into()));
    devnet.el(0).clear_records();
    for id in 0..20 {
        assert_eq!(proxy.post(call(id, "eth_gasPrice", "[]")).await.status, 200);
    }
    assert_eq!(devnet.el(0).count("eth_gasPrice"), 0);
    let labels = "layer=\"el\",network=\"default\",node=\"el-1\"";
    assert!((proxy.metric("steadfast_node_cordoned", labels).await - 1.0).abs() < 0.1);
    // The findings of probes still show.
    devnet.el(0).set_fault(Fault::Syncing);
    until("it is found to sync", async || proxy.node("el-1").await["verdict"] == "syncing").await;
    devnet.el(0).clear_faults();
    until("it is found well", async || proxy.node("el-1").await["verdict"] == "up").await;
    assert_eq!(proxy.side().await["active"], "el-2");
    proxy.operate("/nodes/el-1/uncordon").await;
    assert_eq!(proxy.side().await["active"], "el-1");
    assert!(proxy.metric("steadfast_node_cordoned", labels).await < 0.1);
}

#[tokio::test(start_paused = true)]
async fn the_last_node_is_cordoned_with_a_warning_and_calls_wait() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let proxy = Proxy::launch(&net, &settings(&devnet, &[0])).await;
    until_active(&proxy, "el-1").await;
    let told = proxy.operate("/nodes/el-1/cordon").await.json();
    assert_eq!(told["cordoned"], true);
    assert!(told["warning"].as_str().unwrap().contains("calls wait for calls.hold, and fail"), "{told}");
    assert_eq!((&proxy.side().await["active"], &proxy.side().await["serves"]), (&Value::Null, &false.into()));
    let (start, mut waits) = (Instant::now(), proxy.client().await);
    let refused = proxy.post(call(1, "eth_gasPrice", "[]")).await;
    assert_eq!((refused.status, &refused.json()["error"]["data"]["reason"]), (503, &"cordoned".into()));
    assert!(start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
    // A call that waits goes on when the node is let back.
    waits.send(crate::common::client::post("/", call(2, "eth_gasPrice", "[]").as_bytes())).await;
    until("it waits", async || proxy.metric("steadfast_held_calls", "").await >= 1.0).await;
    assert_eq!(proxy.operate("/nodes/el-1/uncordon").await.status, 200);
    assert_eq!(waits.response().await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_added_leaves_the_others_as_they_were() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let proxy = Proxy::launch(&net, &settings(&devnet, &[0, 1])).await;
    until_active(&proxy, "el-1").await;
    until("both links run", async || {
        proxy.node("el-1").await["link"]["up"] == true && proxy.node("el-2").await["link"]["up"] == true
    })
    .await;
    // A node has to prove itself for longer each time that it was out, and is out again now.
    for _ in 0..3 {
        devnet.el(1).set_fault(Fault::Down);
        until("it is out", async || proxy.node("el-2").await["verdict"] == "down").await;
        devnet.el(1).clear_faults();
        until("it is back", async || proxy.node("el-2").await["verdict"] == "up").await;
    }
    devnet.el(1).set_fault(Fault::Down);
    until("it is out", async || proxy.node("el-2").await["reason"] == "down: unreachable").await;
    let needed = proxy.node("el-2").await["good_probes_needed"].clone();
    assert!(needed.as_u64().unwrap() > 4, "{needed}");
    proxy.post(call(1, "eth_gasPrice", "[]")).await;
    let (opened, switch) = (devnet.el(0).connections_total(), last_switch(&proxy).await);
    let head = proxy.node("el-1").await["head"].clone();

    proxy.reload(&settings(&devnet, &[0, 1, 2])).await;
    // As of the first moment.
    let (one, two) = (proxy.node("el-1").await, proxy.node("el-2").await);
    assert_eq!((&one["verdict"], &one["head"], &one["link"]["up"]), (&"up".into(), &head, &true.into()), "{one}");
    assert_eq!((&two["reason"], &two["good_probes_needed"]), (&"down: unreachable".into(), &needed), "{two}");
    assert_eq!((&proxy.side().await["active"], last_switch(&proxy).await), (&"el-1".into(), switch));
    until("the new one is up", async || proxy.node("el-3").await["verdict"] == "up").await;
    proxy.post(call(2, "eth_gasPrice", "[]")).await;
    sleep(Duration::from_secs(30)).await;
    // Two pools probe it for a moment, which may take a connection more.
    let anew = devnet.el(0).connections_total() - opened;
    assert!(anew <= 2, "{anew} connections were opened anew");
    assert_eq!(proxy.node("el-1").await["link"]["up"], true);
    // The rules know the node as before: it comes back after as many good probes.
    devnet.el(1).clear_faults();
    until("it is heard", async || proxy.node("el-2").await["reason"] != "down: unreachable").await;
    assert_eq!(proxy.node("el-2").await["verdict"], "down");
    sleep(Duration::from_secs(60)).await;
    until("it is back", async || proxy.node("el-2").await["verdict"] == "up").await;

    // News over the old link still counts, and the node that is gone has no connection left.
    proxy.reload(&settings(&devnet, &[1, 2])).await;
    until("it is let go", async || devnet.el(0).connections_open() == 0).await;
    assert_eq!(proxy.post(call(3, "eth_gasPrice", "[]")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_call_at_a_node_that_stays_is_answered_over_a_reload() {
    let net = Net::default();
    let slow = Origin::within(&net, |seen| {
        let bytes = crate::common::origin::ok(answer(seen.id(), "\"slow\""));
        Reply::act(async move |mut io| {
            sleep(Duration::from_secs(7)).await;
            tokio::io::AsyncWriteExt::write_all(&mut io, &bytes).await.ok()?;
            Some(io)
        })
    })
    .await;
    let other = super::well(&net).await;
    let proxy = Proxy::over(&net, [slow.url()], "").await;
    let mut client = proxy.client().await;
    client.send(crate::common::client::post("/", call(1, "eth_sendTransaction", "[{}]").as_bytes())).await;
    until("it is on its way", async || slow.seen().len() == 1).await;
    proxy.reload(&nodes([slow.url(), other.url()])).await;
    proxy.reload(&nodes([other.url(), slow.url()])).await;
    assert_eq!(client.response().await.text(), answer(1, "\"slow\""));
    assert_eq!(slow.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_a_reload_names_holds_for_nodes_that_stay() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let nodes = settings(&devnet, &[0, 1]);
    let proxy = Proxy::launch(&net, &nodes).await;
    until("both are up", async || proxy.verdicts().await == ["up", "up"]).await;
    proxy.reload(&format!("chain_id = 5\n{nodes}")).await;
    assert_eq!(proxy.verdicts().await, ["wrong_chain", "wrong_chain"]);
    proxy.reload(&nodes).await;
    assert_eq!(proxy.verdicts().await, ["up", "up"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_a_reload_removes_leaves_no_series() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let proxy = Proxy::launch(&net, &settings(&devnet, &[0, 1])).await;
    until_active(&proxy, "el-1").await;
    until("its link runs", async || proxy.node("el-1").await["link"]["up"] == true).await;
    proxy.post(call(1, "eth_gasPrice", "[]")).await;
    let series = async |node: &str| {
        let text = proxy.admin("/metrics").await.text();
        text.lines().filter(|line| line.contains(&format!("node=\"{node}\""))).count()
    };
    assert!(series("el-1").await > 20);
    proxy.reload(&settings(&devnet, &[1, 2])).await;
    assert_eq!(series("el-1").await, 0);
    assert_eq!(last_switch(&proxy).await, switch(Some("el-1"), Some("el-2"), "removed"));
    // The rest of it ends, and the node stays gone.
    sleep(Duration::from_secs(60)).await;
    assert_eq!(series("el-1").await, 0);
    assert!(series("el-2").await > 20 && series("el-3").await > 20);
    for line in proxy.admin("/metrics").await.text().lines().filter(|line| line.contains("node=\"")) {
        assert!(line.contains("network=\"default\"") && line.contains("layer=\"el\""), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_switch_is_told_as_it_was() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let proxy = Proxy::launch(&net, &settings(&devnet, &[0, 1])).await;
    let count = async |reason: &str| proxy.metric("steadfast_switches_total", &format!("reason=\"{reason}\"")).await;
    until_active(&proxy, "el-1").await;
    assert_eq!(last_switch(&proxy).await, switch(None, Some("el-1"), "start"));
    until("both are up", async || proxy.verdicts().await == ["up", "up"]).await;
    for (fault, reason) in [(Fault::Down, "down"), (Fault::Syncing, "syncing")] {
        devnet.el(0).set_fault(fault);
        until_active(&proxy, "el-2").await;
        assert_eq!(last_switch(&proxy).await, switch(Some("el-1"), Some("el-2"), reason));
        devnet.el(0).clear_faults();
        until_active(&proxy, "el-1").await;
        assert_eq!(last_switch(&proxy).await, switch(Some("el-2"), Some("el-1"), "failback"));
    }
    proxy.operate("/nodes/el-1/cordon").await;
    assert_eq!(last_switch(&proxy).await, switch(Some("el-1"), Some("el-2"), "cordoned"));
    proxy.operate("/nodes/el-2/cordon").await;
    assert_eq!(last_switch(&proxy).await, switch(Some("el-2"), None, "cordoned"));
    proxy.operate("/nodes/el-2/uncordon").await;
    assert_eq!(last_switch(&proxy).await, switch(None, Some("el-2"), "recovered"));
    proxy.operate("/nodes/el-1/uncordon").await;
    assert_eq!(last_switch(&proxy).await, switch(Some("el-2"), Some("el-1"), "failback"));
    for node in [0, 1] {
        devnet.el(node).set_fault(Fault::Down);
    }
    until("no node is left", async || proxy.side().await["active"].is_null()).await;
    assert_eq!(last_switch(&proxy).await[2], "down");
    devnet.el(1).clear_faults();
    until_active(&proxy, "el-2").await;
    assert_eq!(last_switch(&proxy).await, switch(None, Some("el-2"), "recovered"));
    for (reason, times) in [("start", 1.0), ("recovered", 2.0), ("failback", 3.0), ("cordoned", 2.0), ("syncing", 1.0)]
    {
        assert!((count(reason).await - times).abs() < 0.1, "{reason}: {}", count(reason).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_gives_nodes_that_stay_their_new_share() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let [one, two, three] = [0, 1, 2].map(|index| devnet.el(index).http_url());
    let default = nodes([&*one]);
    let base = |urls: &[&str]| -> String {
        let each = urls.iter().enumerate();
        each.map(|(at, url)| format!("[[networks.base.el.primary]]\nname = \"n-{at}\"\nhttp = \"{url}\"\n")).collect()
    };
    let proxy = Proxy::within(&net, &[&default, &*base(&[&two])].concat(), Some(400)).await;
    until_active(&proxy, "el-1").await;
    let bounds = async || {
        let status = proxy.admin("/status").await.json();
        let networks = status["networks"].as_array().unwrap().iter();
        let nodes = networks.flat_map(|network| network["el"]["nodes"].as_array().unwrap());
        nodes.map(|node| node["connections"]["bound"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let before = bounds().await;
    assert_eq!(before, [before[0]; 2]);
    proxy.post(call(1, "eth_gasPrice", "[]")).await;
    let opened = devnet.el(0).connections_total();
    // The first network goes on as it is, and of the other a node.
    proxy.reload(&[&default, &*base(&[&two, &three])].concat()).await;
    let after = bounds().await;
    assert_eq!(after, [after[0]; 3]);
    assert!(after[0] < before[0] && after[0] >= before[0] * 2 / 3 - 1, "{after:?} after {before:?}");
    // A rule for all changes nothing but the bound either.
    proxy.reload(&[&*format!("calls.max_node_connections = 7\n{default}"), &base(&[&two])].concat()).await;
    assert_eq!(bounds().await, [7, 7]);
    proxy.post(call(2, "eth_gasPrice", "[]")).await;
    assert!(devnet.el(0).connections_total() <= opened + 1, "its connections were closed");
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_waits_for_a_node_counts_one_switch() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let quick = "[health]\ninterval = \"200ms\"\ntimeout = \"2s\"\n";
    let proxy = Proxy::launch(&net, &[&settings(&devnet, &[0]), quick].concat()).await;
    let count = async |reason: &str| proxy.metric("steadfast_switches_total", &format!("reason=\"{reason}\"")).await;
    until_active(&proxy, "el-1").await;
    devnet.el(1).set_fault(Fault::Down);
    // The nodes of before serve until the new one does.
    let next = [&settings(&devnet, &[1]), quick].concat();
    tokio::join!(proxy.reload(&next), async {
        sleep(Duration::from_millis(700)).await;
        assert!(count("removed").await < 0.1, "the switch is counted before it is made");
        devnet.el(1).clear_faults();
    });
    until_active(&proxy, "el-2").await;
    sleep(Duration::from_secs(1)).await;
    for (reason, times) in [("start", 1.0), ("removed", 1.0), ("recovered", 0.0)] {
        assert!((count(reason).await - times).abs() < 0.1, "{reason}: {}", count(reason).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_a_reload_removes_leaves_no_series() {
    let net = Net::default();
    let devnet = devnet(&net).await;
    let base = format!("[[networks.base.el.primary]]\nname = \"n\"\nhttp = \"{}\"\n", devnet.el(2).http_url());
    let default = settings(&devnet, &[0]);
    let proxy = Proxy::launch(&net, &[&*default, &base].concat()).await;
    until_active(&proxy, "el-1").await;
    let series = async |network: &str| {
        let text = proxy.admin("/metrics").await.text();
        text.lines().filter(|line| line.contains(&format!("network=\"{network}\""))).count()
    };
    let ask = async || {
        let mut client = proxy.client().await;
        client.send(crate::common::client::post("/base", call(1, "eth_gasPrice", "[]").as_bytes())).await;
        client.response().await.status
    };
    until("it serves", async || ask().await == 200).await;
    assert!(series("base").await > 20);
    proxy.reload(&default).await;
    assert_eq!((series("base").await, ask().await), (0, 404));
    assert!(series("default").await > 20);
    // The node may come back.
    proxy.reload(&[&*default, &base].concat()).await;
    assert_eq!(ask().await, 200);
    assert!(series("base").await > 20);
}
