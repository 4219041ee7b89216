//! What one client may cost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, time::sleep};

use super::{answer, echo, lengths, string};
use crate::common::{
    client::call,
    origin::{Origin, Reply, ok},
    proxy::nodes,
    sim::{Net, Proxy},
    until,
    ws::frame,
};

#[tokio::test(start_paused = true)]
async fn a_message_over_the_limit_closes_with_1009_at_once() {
    let (_net, origin, proxy) = echo("[ws]\nmax_message = \"1KiB\"\n").await;
    let pad = |length: usize| {
        let mut text = call(1, "eth_call", "[]");
        text.push_str(&" ".repeat(length - text.len()));
        text
    };
    let mut ws = proxy.ws().await;
    assert_eq!(ws.ask(pad(1024)).await, answer(1, "[]"));
    ws.send(pad(1025)).await;
    assert_eq!(ws.closed().await.0, 1009);
    ws.gone().await;
    // Its head is enough, and pieces are added up.
    let whole = frame(0x81, &[b' '; 100_000]);
    let pieces = [frame(0x01, &[b' '; 1000]), frame(0x00, &[b' '; 24]), frame(0x80, b" ")].concat();
    for bytes in [&whole[..14], &pieces[..]] {
        let mut client = proxy.client().await.upgraded("/").await;
        client.send(bytes).await;
        assert_eq!(client.close_code().await, 1009);
    }
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn messages_beyond_the_memory_for_all_close_with_1013() {
    const HELD: &str = "steadfast_client_memory_bytes";
    let net = Net::default();
    let origin = Origin::within(&net, |seen| Reply::result(seen, &seen.params())).await;
    let proxy = Proxy::launch(&net, &format!("max_client_memory = \"1MiB\"\n{}", nodes([origin.url()]))).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let message = frame(0x81, &[b' '; 1_000_000]);
    let mut clients = Vec::new();
    // What is only announced takes nothing.
    for length in [20].repeat(50).into_iter().chain([400_000]) {
        let mut client = proxy.client().await.upgraded("/").await;
        client.send(&message[..length]).await;
        clients.push(client);
    }
    until("it is counted", async || proxy.metric(HELD, "").await >= 400_000.0).await;
    let mut other = proxy.client().await.upgraded("/").await;
    other.send(&message[..600_000]).await;
    assert_eq!(other.close_code().await, 1013);
    // Small calls are served all the same.
    let mut ws = proxy.ws().await;
    assert_eq!(ws.ask(call(1, "eth_call", "[]")).await, answer(1, "[]"));
    drop(clients);
    until("all is given back", async || proxy.metric(HELD, "").await == 0.0).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_over_the_limit_is_an_error_for_that_call_alone() {
    let (_net, _origin, proxy) = echo("[ws]\nmax_outbound = \"1MiB\"\n").await;
    let mut ws = proxy.ws().await;
    let params = |size: usize| format!("[\"{}\"]", "x".repeat(size));
    let reason = |text: &str| serde_json::from_str::<Value>(text).unwrap()["error"]["data"]["reason"].clone();
    for size in [1 << 20, 3 << 20] {
        assert_eq!(reason(&ws.ask(call(1, "eth_call", &params(size))).await), "max_outbound");
    }
    let fits = params(1_000_000);
    assert_eq!(ws.ask(call(2, "eth_call", &fits)).await, answer(2, &fits));
    let batch =
        format!("[{},{},{}]", call(3, "eth_call", &fits), call(4, "eth_call", &fits), call(5, "eth_call", "[]"));
    let answers: Vec<Value> = serde_json::from_str(&ws.ask(batch).await).unwrap();
    assert!(answers[0]["result"].is_array() && answers[2]["result"].is_array());
    assert_eq!((&answers[1]["error"]["data"]["reason"], &answers[1]["id"]), (&"max_outbound".into(), &4.into()));
}

#[tokio::test(start_paused = true)]
async fn answers_too_long_for_a_batch_take_no_room_from_others() {
    const CALLS: usize = 60;
    let net = Net::default();
    let long = string(600_000);
    let origin = Origin::within(&net, move |seen| Reply::result(seen, &long)).await;
    // There is room for the calls under way, but not for all answers.
    let settings = format!("max_client_memory = \"16MiB\"\n{}[ws]\nmax_outbound = \"1MiB\"\n", nodes([origin.url()]));
    let proxy = Proxy::launch(&net, &settings).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let batch = format!("[{}]", vec![call(1, "eth_call", "[]"); CALLS].join(","));
    let answers: Vec<Value> = serde_json::from_str(&proxy.ws().await.ask(batch).await).unwrap();
    assert!(answers[0]["result"].is_string() && answers.len() == CALLS);
    for answer in &answers[1..] {
        assert_eq!(answer["error"]["data"]["reason"], "max_outbound");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_gets_all_long_answers_ending_at_once() {
    let (_net, _origin, proxy) = lengths("[ws]\nmax_outbound = \"1MiB\"\n").await;
    let mut ws = proxy.ws().await;
    for id in 0..60 {
        ws.send(call(id, "eth_call", "[200000]")).await;
    }
    for _ in 0..60 {
        assert!(ws.text().await.ends_with("x\"}"));
    }
}

#[tokio::test(start_paused = true)]
async fn more_calls_than_may_be_under_way_wait_for_their_turn() {
    let net = Net::default();
    let (arrived, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, gate) = (arrived.clone(), open.clone());
    let origin = Origin::within(&net, move |seen| {
        count.fetch_add(1, SeqCst);
        let (reply, gate) = (answer(seen.id(), "1"), gate.clone());
        Reply::act(async move |mut io| {
            while !gate.load(SeqCst) {
                sleep(Duration::from_millis(10)).await;
            }
            io.write_all(&ok(reply)).await.ok()?;
            Some(io)
        })
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    let mut ws = proxy.ws().await;
    for id in 0..400 {
        ws.send(call(id, "eth_call", "[]")).await;
    }
    sleep(Duration::from_millis(500)).await;
    assert_eq!(arrived.load(SeqCst), 64);
    open.store(true, SeqCst);
    for _ in 0..400 {
        assert!(ws.text().await.contains("\"result\":1"));
    }
}

#[tokio::test(start_paused = true)]
async fn with_no_turn_left_pings_are_answered_and_calls_refused() {
    let net = Net::default();
    let origin = Origin::within(&net, |_| Reply::act(async |_io| std::future::pending().await)).await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    let mut client = proxy.client().await.upgraded("/").await;
    // A batch counts with all its calls, and a short one still has its place behind it.
    let batch = format!("[{}]", vec![call(1, "eth_call", "[]"); 50].join(","));
    for _ in 0..2 {
        client.send(frame(0x81, batch.as_bytes())).await;
    }
    sleep(Duration::from_millis(500)).await;
    assert_eq!(proxy.in_flight().await, 16, "the width of one batch");
    for id in 0..1100 {
        client.send(frame(0x81, call(id, "eth_call", "[]").as_bytes())).await;
    }
    // 1,024 wait, of which 50 are the second batch's.
    for id in 974..1100 {
        let (first, text) = client.frame().await;
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(first == 0x81 && text.contains("-32005") && text.contains("max_calls"), "{text}");
        assert!(text.contains(&format!("\"id\":{id},")) || text.contains(&format!("\"id\":{id}}}")), "{id}: {text}");
    }
    client.send(frame(0x89, b"there?")).await;
    assert_eq!(client.frame().await, (0x8a, "there?".into()));
    client.send(frame(0x88, &1000u16.to_be_bytes())).await;
    assert_eq!(client.close_code().await, 1000);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_closed_and_hurts_no_other() {
    let (_net, origin, proxy) = lengths("[ws]\nmax_outbound = \"4MiB\"\nping_interval = \"10m\"\n").await;
    let mut slow = proxy.ws().await;
    for id in 0..30 {
        slow.send(call(id, "eth_call", "[1000000]")).await;
        sleep(Duration::from_millis(10)).await;
    }
    let mut other = proxy.ws().await;
    for id in 0..100 {
        assert_eq!(other.ask(call(id, "eth_call", "[1]")).await, answer(id, "\"x\""));
    }
    // It is not even read, so that what it keeps waiting stays bounded.
    assert!(origin.seen().len() - 100 < 10, "{}", origin.seen().len());
    sleep(Duration::from_secs(29)).await;
    assert_eq!(proxy.metric("steadfast_ws_connections", "").await, 2.0);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(proxy.metric("steadfast_ws_connections", "").await, 1.0);
    assert_eq!(proxy.metric("steadfast_slow_clients_closed_total", "").await, 1.0);
    assert_eq!(other.ask(call(7, "eth_call", "[1]")).await, answer(7, "\"x\""));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_little_but_takes_it_is_served() {
    let (_net, _origin, proxy) = lengths("[ws]\nmax_outbound = \"4MiB\"\nping_interval = \"10m\"\n").await;
    let mut client = proxy.client().await.upgraded("/").await;
    client.send(frame(0x81, call(1, "eth_call", "[500000]").as_bytes())).await;
    // Longer in all than a write may stall.
    let mut taken = 0;
    while taken < 500_000 {
        taken += client.bytes(20_000).await.len();
        sleep(Duration::from_secs(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn long_answers_stay_at_the_node_if_the_client_stalls() {
    for batches in [false, true] {
        let net = Net::default();
        let given = Arc::new(AtomicUsize::new(0));
        let count = given.clone();
        let origin = Origin::within(&net, move |seen| {
            let (reply, count) = (answer(seen.id(), &format!("\"{}\"", "x".repeat(1_000_000))), count.clone());
            Reply::act(async move |mut io| {
                io.write_all(&ok(reply)).await.ok()?;
                count.fetch_add(1, SeqCst);
                Some(io)
            })
        })
        .await;
        let proxy = Proxy::over(&net, [origin.url()], "[ws]\nmax_outbound = \"4MiB\"\n").await;
        let mut ws = proxy.ws().await;
        for id in 0..100 {
            let call = call(id, "eth_call", "[]");
            ws.send(if batches { format!("[{call},{call}]") } else { call }).await;
        }
        sleep(Duration::from_secs(5)).await;
        assert!(
            given.load(SeqCst) <= 16,
            "{} answers of 1 MB wait for a client that may have 4 MiB",
            given.load(SeqCst)
        );
        for _ in 0..100 {
            assert!(ws.text().await.trim_end_matches(']').ends_with("x\"}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_counts_whole_until_its_last_byte_is_written() {
    const LENGTH: usize = 2_000_000;
    // A few bytes of each connection are not counted.
    const COUNTED: f64 = (LENGTH - 10_000) as f64;
    let (_net, _origin, proxy) = lengths("").await;
    let held = async || proxy.metric("steadfast_client_memory_bytes", "").await;
    let mut client = proxy.client().await.upgraded("/").await;
    client.send(frame(0x81, call(1, "eth_call", &format!("[{LENGTH}]")).as_bytes())).await;
    until("the message is counted", async || held().await >= COUNTED).await;
    // Nearly all of it is taken, and the rest keeps all of it in memory.
    client.bytes(LENGTH - 200_000).await;
    sleep(Duration::from_millis(100)).await;
    assert!(held().await >= COUNTED, "{}", held().await);
    client.bytes(200_000).await;
    until("all is given back", async || held().await == 0.0).await;
}

#[tokio::test(start_paused = true)]
async fn the_small_answers_of_a_batch_count_together() {
    let net = Net::default();
    let small = string(3000);
    let origin = Origin::within(&net, move |seen| Reply::result(seen, &small)).await;
    let proxy = Proxy::launch(&net, &format!("max_client_memory = \"1MiB\"\n{}", nodes([origin.url()]))).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let batch = |count: usize| format!("[{}]", vec![call(1, "eth_call", "[]"); count].join(","));
    let mut ws = proxy.ws().await;
    assert!(ws.ask(batch(100)).await.len() > 300_000);
    ws.send(batch(900)).await;
    assert_eq!(ws.closed().await.0, 1013);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_no_pongs_is_sent_no_more_of_them() {
    const PINGS: usize = 20_000;
    let (_net, _origin, proxy) = echo("[ws]\nmax_outbound = \"64KiB\"\n").await;
    let mut client = proxy.client().await.upgraded("/").await;
    let pings = frame(0x89, &[b'p'; 125]).repeat(PINGS / 100);
    for _ in 0..100 {
        client.send(&pings).await;
    }
    client.send(frame(0x88, &1000u16.to_be_bytes())).await;
    let mut pongs = 0;
    while client.frame().await.0 == 0x8a {
        pongs += 1;
    }
    // As many as wait here and on the way, of 127 bytes each.
    assert!((500..2500).contains(&pongs), "{pongs}");
}

#[tokio::test(start_paused = true)]
async fn filters_find_no_more_memory_than_there_is_for_all() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| Reply::result(seen, &seen.params())).await;
    let proxy = Proxy::launch(&net, &format!("max_client_memory = \"256KiB\"\n{}", nodes([origin.url()]))).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let mut ws = proxy.ws().await;
    let mut refused = Value::Null;
    let mut ids = Vec::new();
    for from in 0..100 {
        let addresses: Vec<_> = (0..500).map(|at| format!("\"0x{:040x}\"", from * 500 + at)).collect();
        let params = format!("[\"logs\",{{\"address\":[{}]}}]", addresses.join(","));
        let mut answer: Value = serde_json::from_str(&ws.ask(call(1, "eth_subscribe", &params)).await).unwrap();
        if answer["error"].is_object() {
            refused = answer["error"].take();
            break;
        }
        ids.push(answer["result"].as_str().unwrap().to_owned());
    }
    assert_eq!(refused["data"]["reason"], "max_client_memory", "{refused}, after {}", ids.len());
    assert!(ids.len() > 2);
    for id in ids {
        assert_eq!(ws.call("eth_unsubscribe", &format!("[\"{id}\"]")).await, true);
    }
    ws.subscribe("[\"logs\",{}]").await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_with_its_refusals_is_within_the_limit() {
    const LIMIT: usize = 64 << 10;
    let (_net, _origin, proxy) = echo("[ws]\nmax_outbound = \"64KiB\"\n").await;
    let mut ws = proxy.ws().await;
    let params = format!("[\"{}\"]", "x".repeat(1000));
    let batch = |count: usize| {
        let calls: Vec<String> = (0..count).map(|id| call(id, "eth_call", &params)).collect();
        format!("[{},7,{{\"jsonrpc\":\"2.0\",\"method\":\"eth_call\"}}]", calls.join(","))
    };
    let text = ws.ask(batch(300)).await;
    assert!((LIMIT - 2000..=LIMIT).contains(&text.len()), "{} bytes", text.len());
    let answers: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(answers.len(), 301);
    for (id, answer) in answers[..300].iter().enumerate() {
        assert_eq!(answer["id"], id);
        assert!(answer["result"].is_array() || answer["error"]["data"]["reason"] == "max_outbound", "{answer}");
    }
    // Not even refusals fit: one says so for all.
    let one: Value = serde_json::from_str(&ws.ask(batch(900)).await).unwrap();
    assert_eq!((&one["id"], &one["error"]["data"]["reason"]), (&Value::Null, &"max_outbound".into()), "{one}");
    assert_eq!(ws.ask(call(1, "eth_call", "[]")).await, answer(1, "[]"));
}
