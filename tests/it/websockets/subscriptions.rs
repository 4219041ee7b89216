//! Subscriptions, as far as the door is concerned: ids, order, limits, and what is left when a client is gone.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Fault, Options};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::tungstenite::Message;

use super::answer;
use crate::common::{
    client::call,
    sim::{Net, Proxy},
    until,
    ws::{Ws, frame},
};

/// Two nodes of a chain that grows when asked, and a proxy before them.
async fn network(settings: &str) -> (Net, Devnet, Proxy) {
    let net = Net::default();
    let devnet = Devnet::start(Options::default(), Arc::new(net.clone())).await.unwrap();
    let nodes: String = devnet
        .nodes()
        .map(|node| {
            format!(
                "[[el.primary]]\nname = \"{}\"\nhttp = \"{}\"\nws = \"{}\"\n",
                node.name(),
                node.http_url(),
                node.ws_url()
            )
        })
        .collect();
    let proxy = Proxy::launch(&net, &[settings, &nodes].concat()).await;
    until("every node is up", async || proxy.verdicts().await.iter().all(|verdict| verdict == "up")).await;
    (net, devnet, proxy)
}

async fn subscriptions(proxy: &Proxy) -> f64 {
    proxy.metric("steadfast_subscriptions", "").await
}

fn number(head: &Value) -> u64 {
    u64::from_str_radix(&head["number"].as_str().unwrap()[2..], 16).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_client_hears_new_heads_by_its_id_until_it_unsubscribes() {
    let (_net, devnet, proxy) = network("").await;
    let mut ws = proxy.ws().await;
    let id = ws.subscribe(r#"["newHeads"]"#).await;
    let digits = id.strip_prefix("0x").unwrap();
    assert!(digits.len() <= 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()), "{id}");
    assert_eq!(subscriptions(&proxy).await, 1.0);
    for _ in 0..3 {
        devnet.chain().mine(1);
        let (own, head) = ws.notification().await;
        assert_eq!((own, number(&head)), (id.clone(), devnet.chain().head().number));
    }
    // As a number it is the same, however it is written; other clients write it so.
    let padded = format!("[\"0x{digits:0>64}\"]");
    assert_eq!(ws.ask(call(9, "eth_unsubscribe", &padded)).await, answer(9, "true"));
    assert_eq!(subscriptions(&proxy).await, 0.0);
    for params in [&*padded, "[\"0x1\"]", "[\"x\"]", "[1]", "[]"] {
        assert_eq!(ws.ask(call("null", "eth_unsubscribe", params)).await, answer("null", "false"), "{params}");
    }
    devnet.chain().mine(1);
    sleep(Duration::from_secs(3)).await;
    assert!(ws.is_silent().await);
    // No node hears of any of it.
    assert_eq!(devnet.nodes().map(|node| node.count("eth_unsubscribe")).sum::<u64>(), 0);
}

#[tokio::test(start_paused = true)]
async fn subscriptions_begin_and_end_in_batches_and_binary_messages() {
    let (_net, devnet, proxy) = network("").await;
    let mut ws = proxy.ws().await;
    let subscribe = |id: u32, kind: &str| call(id, "eth_subscribe", &format!("[\"{kind}\"]"));
    let batch =
        format!("[{},{},{}]", subscribe(1, "newHeads"), call(2, "eth_gasPrice", "[]"), subscribe(3, "newHeads"));
    let answers: Vec<Value> = serde_json::from_str(&ws.ask(batch).await).unwrap();
    ws.message(Message::binary(subscribe(4, "newHeads").into_bytes())).await;
    let last: Value = serde_json::from_str(&ws.text().await).unwrap();
    let ids: Vec<String> =
        [&answers[0], &answers[2], &last].iter().map(|answer| answer["result"].as_str().unwrap().to_owned()).collect();
    devnet.chain().mine(1);
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(ws.notification().await.0);
    }
    heard.sort();
    let mut expected = ids.clone();
    expected.sort();
    assert_eq!(heard, expected);
    let end = |id: u32, of: &str| call(id, "eth_unsubscribe", &format!("[\"{of}\"]"));
    let batch = format!("[{},{},{}]", end(5, &ids[0]), end(6, &ids[0]), end(7, &ids[2]));
    let ended = format!("[{},{},{}]", answer(5, "true"), answer(6, "false"), answer(7, "true"));
    assert_eq!(ws.ask(batch).await, ended);
    devnet.chain().mine(1);
    assert_eq!(ws.notification().await.0, ids[1]);
    assert!(ws.is_silent().await);
}

#[tokio::test(start_paused = true)]
async fn notifications_come_between_the_answers_to_begin_and_end() {
    let (_net, devnet, proxy) = network("").await;
    let chain = devnet.chain().clone();
    let _mining = tokio::spawn(async move {
        loop {
            chain.mine(1);
            sleep(Duration::from_millis(3)).await;
        }
    });
    let mut ws = proxy.ws().await;
    // A slow call in a batch keeps the answer, and the subscriptions with it.
    for round in 0..40 {
        let batch = round % 2 == 0;
        let subscribe = call(1, "eth_subscribe", r#"["newHeads"]"#);
        ws.send(if batch { format!("[{subscribe},{}]", call(2, "dev_sleep", "[10]")) } else { subscribe }).await;
        let first: Value = serde_json::from_str(&ws.text().await).unwrap();
        let first = if batch { &first[0] } else { &first };
        let id = first["result"].as_str().unwrap_or_else(|| panic!("round {round}: {first}")).to_owned();
        assert_eq!(ws.notification().await.0, id);
        ws.send(call(3, "eth_unsubscribe", &format!("[\"{id}\"]"))).await;
        loop {
            let value: Value = serde_json::from_str(&ws.text().await).unwrap();
            match value.get("method") {
                Some(_) => assert_eq!(value["params"]["subscription"], id),
                None => break assert_eq!(value["result"], true),
            }
        }
        sleep(Duration::from_millis(7)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_subscription_too_many_is_refused_and_leaves_the_others() {
    let (_net, devnet, proxy) = network("[ws]\nmax_subscriptions = 3\n").await;
    let mut ws = proxy.ws().await;
    let subscribe = call(1, "eth_subscribe", r#"["newHeads"]"#);
    let batch = format!("[{}]", vec![subscribe.clone(); 5].join(","));
    let answers: Vec<Value> = serde_json::from_str(&ws.ask(batch).await).unwrap();
    for (place, one) in answers.iter().enumerate() {
        assert_eq!(one["result"].is_string(), place < 3, "{answers:?}");
        assert_eq!(one["error"]["data"]["reason"] == "max_subscriptions", place >= 3, "{answers:?}");
    }
    let first = json!([answers[0]["result"]]).to_string();
    assert_eq!(ws.call("eth_unsubscribe", &first).await, true);
    ws.subscribe(r#"["newHeads"]"#).await;
    devnet.chain().mine(1);
    for _ in 0..3 {
        ws.notification().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_subscription_is_an_error_or_without_id_nothing() {
    let (_net, _devnet, proxy) = network("").await;
    let mut ws = proxy.ws().await;
    for (method, params, code) in [
        ("eth_subscribe", "[]", -32602),
        ("eth_subscribe", r#"["logs",{"address":"0x1"}]"#, -32602),
        ("admin_subscribe", r#"["peers"]"#, -32601),
    ] {
        let error: Value = serde_json::from_str(&ws.ask(call(1, method, params)).await).unwrap();
        assert_eq!(error["error"]["code"], code, "{method} {params}: {error}");
    }
    ws.send(r#"{"jsonrpc":"2.0","method":"eth_subscribe","params":["newHeads"]}"#).await;
    assert!(ws.is_silent().await);
    assert_eq!(subscriptions(&proxy).await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_closed_and_others_hear_all() {
    let (_net, devnet, proxy) = network("[ws]\nmax_outbound = \"64KiB\"\nping_interval = \"10m\"\n").await;
    let mut slow = proxy.client().await.upgraded("/").await;
    slow.send(frame(0x81, call(1, "eth_subscribe", r#"["newHeads"]"#).as_bytes())).await;
    slow.frame().await;
    let mut other = proxy.ws().await;
    other.subscribe(r#"["newHeads"]"#).await;
    let mut last = devnet.chain().head().number;
    for _ in 0..400 {
        devnet.chain().mine(1);
        let (_, head) = other.notification().await;
        last += 1;
        assert_eq!(number(&head), last);
    }
    sleep(Duration::from_secs(3)).await;
    assert_eq!(proxy.metric("steadfast_ws_connections", "").await, 1.0);
    assert_eq!(proxy.metric("steadfast_slow_clients_closed_total", "").await, 1.0);
    assert_eq!(subscriptions(&proxy).await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn full_memory_closes_who_leaves_news_and_not_who_reads() {
    const HEADS: u64 = 60;
    // Less than the news of a moment.
    let (_net, devnet, proxy) = network("max_client_memory = \"64KiB\"\nws = { ping_interval = \"10m\" }\n").await;
    let mut slow = proxy.client().await.upgraded("/").await;
    slow.send(frame(0x81, call(1, "eth_subscribe", r#"["newHeads"]"#).as_bytes())).await;
    slow.frame().await;
    let mut other = Ws::open(proxy.connect_through(1024).await, "/").await;
    other.subscribe(r#"["newHeads"]"#).await;
    let mut last = devnet.chain().head().number;
    for round in 0..3 {
        devnet.chain().mine(HEADS);
        for _ in 0..HEADS {
            let (_, head) = other.notification().await;
            last += 1;
            assert_eq!(number(&head), last, "{round}");
        }
        sleep(Duration::from_secs(2)).await;
    }
    until("one is closed", async || proxy.metric("steadfast_ws_connections", "").await == 1.0).await;
    assert_eq!(subscriptions(&proxy).await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_that_wakes_in_time_hears_why_it_was_closed() {
    let (_net, devnet, proxy) = network("[ws]\nmax_outbound = \"64KiB\"\nping_interval = \"10m\"\n").await;
    let mut slow: Ws<_> = proxy.ws().await;
    slow.subscribe(r#"["newHeads"]"#).await;
    for _ in 0..400 {
        devnet.chain().mine(1);
        sleep(Duration::from_millis(1)).await;
    }
    until("it is closed", async || proxy.metric("steadfast_slow_clients_closed_total", "").await == 1.0).await;
    let (code, reason) = slow.closed().await;
    assert_eq!(code, 1008);
    assert!(reason.contains("slow"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn subscriptions_survive_a_reload_that_replaces_every_node() {
    let (net, devnet, proxy) = network("").await;
    let mut ws = proxy.ws().await;
    let id = ws.subscribe(r#"["newHeads"]"#).await;
    devnet.chain().mine(1);
    ws.notification().await;
    let node = devnet.el(1);
    let settings =
        format!("[[el.primary]]\nname = \"other\"\nhttp = \"{}\"\nws = \"{}\"\n", node.http_url(), node.ws_url());
    proxy.reload(&settings).await;
    let mut last = devnet.chain().head().number;
    for _ in 0..5 {
        devnet.chain().mine(1);
        let (own, head) = ws.notification().await;
        last += 1;
        assert_eq!((own, number(&head)), (id.clone(), last));
    }
    drop(net);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_closes_subscribers_with_1012_at_once() {
    let (_net, _devnet, proxy) = network("").await;
    let mut ws = proxy.ws().await;
    ws.subscribe(r#"["newHeads"]"#).await;
    ws.subscribe(r#"["logs",{}]"#).await;
    let began = Instant::now();
    let Proxy { app, .. } = proxy;
    let shutdown = tokio::spawn(app.shutdown());
    assert_eq!(ws.closed().await.0, 1012);
    ws.gone().await;
    shutdown.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn status_tells_how_many_clients_and_subscriptions_there_are() {
    let (_net, _devnet, proxy) = network("").await;
    let mut all = Vec::new();
    for _ in 0..3 {
        let mut ws = proxy.ws().await;
        ws.subscribe(r#"["newHeads"]"#).await;
        ws.subscribe(r#"["logs",{}]"#).await;
        all.push(ws);
    }
    all.push(proxy.ws().await);
    let status = async || proxy.admin("/status").await.json()["websockets"].take();
    assert_eq!(status().await, json!({ "connections": 4, "subscriptions": 6 }));
    all.truncate(1);
    until("they have left", async || status().await == json!({ "connections": 1, "subscriptions": 2 })).await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_wait_leave_room_for_notifications() {
    let (_net, devnet, proxy) = network("[ws]\nmax_outbound = \"64KiB\"\n").await;
    for padding in ["x".repeat(90), "x".repeat(100)] {
        let mut ws = proxy.ws().await;
        ws.subscribe(r#"["newHeads"]"#).await;
        // More is answered than the connection and the mailbox hold.
        for id in 0..250 {
            ws.send(call(format!("\"{id}{padding}\""), "eth_getBlockByNumber", "[\"0x1\",false]")).await;
        }
        for _ in 0..5 {
            sleep(Duration::from_millis(100)).await;
            devnet.chain().mine(1);
        }
        sleep(Duration::from_millis(100)).await;
        let mut bytes = 0;
        for _ in 0..255 {
            bytes += ws.text().await.len();
        }
        assert!(bytes > 200_000, "{bytes} prove nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_may_end_and_begin_subscriptions_beside_blocked_calls() {
    let (_net, devnet, proxy) = network("").await;
    let mut ws = proxy.ws().await;
    let id = ws.subscribe(r#"["newHeads"]"#).await;
    let batch = [
        call("null", "eth_unsubscribe", &format!("[\"{id}\"]")),
        call(4, "eth_subscribe", "[\"newHeads\"]"),
        r#"{"jsonrpc":"2.0","method":"eth_unsubscribe","params":["0x1"]}"#.to_owned(),
        call(5, "admin_subscribe", "[\"x\"]"),
        call(6, "admin_peers", "[]"),
    ];
    let answers: Value = serde_json::from_str(&ws.ask(format!("[{}]", batch.join(","))).await).unwrap();
    assert_eq!((&answers[0]["result"], answers.as_array().unwrap().len()), (&true.into(), 4), "{answers}");
    for blocked in [&answers[2], &answers[3]] {
        assert_eq!(blocked["error"]["code"], -32601, "{answers}");
    }
    devnet.chain().mine(1);
    assert_eq!(ws.notification().await.0, answers[1]["result"].as_str().unwrap());
    assert!(ws.is_silent().await);
}

#[tokio::test(start_paused = true)]
async fn early_notifications_come_behind_the_answer_or_the_batch() {
    let (_net, devnet, proxy) = network("").await;
    devnet.nodes().for_each(|node| node.set_fault(Fault::eager(2, 3)));
    let mut ws = proxy.ws().await;
    for batch in [false, true] {
        let subscribe = call(1, "eth_subscribe", r#"["newPendingTransactions"]"#);
        // A slow call in a batch keeps the answer for longer than the notifications take.
        ws.send(if batch { format!("[{subscribe},{}]", call(2, "dev_sleep", "[500]")) } else { subscribe }).await;
        let first: Value = serde_json::from_str(&ws.text().await).unwrap();
        let id = if batch { &first[0]["result"] } else { &first["result"] };
        for place in 0..5_u64 {
            let (own, hash) = ws.notification().await;
            assert_eq!(own, id.as_str().unwrap());
            assert!(hash.as_str().unwrap().ends_with(&format!("{place:016x}")), "{place}: {hash}");
        }
        assert!(ws.is_silent().await);
        let id = format!("[{id}]");
        assert_eq!(ws.ask(call(3, "eth_unsubscribe", &id)).await, answer(3, "true"));
    }
}
