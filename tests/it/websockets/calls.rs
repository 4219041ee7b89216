//! Calls, one by one, many at a time and in batches.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep},
};
use tokio_tungstenite::tungstenite::Message;

use super::{answer, echo};
use crate::common::{
    client::call,
    origin::{Origin, Reply, ok},
    proxy::nodes,
    sim::{Net, Proxy},
    until,
};

#[tokio::test(start_paused = true)]
async fn ids_and_params_come_back_byte_for_byte() {
    let (_net, origin, proxy) = echo("").await;
    let mut ws = proxy.ws().await;
    for id in ["1", "-0", "1.50e400", "123456789012345678901234567890", r#""a\u0041\"}""#, "null", r#""""#] {
        let request = |id: &str| format!(r#"{{ "params" : [ {{"b":1, "a" : "é"}} ],"id":{id} ,"method":"eth_call" }}"#);
        assert_eq!(ws.ask(request(id)).await, answer(id, r#"[ {"b":1, "a" : "é"} ]"#));
        assert_eq!(origin.seen().pop().unwrap().sent_as("1"), request("1"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_id_may_be_used_again_and_again_even_at_once() {
    let (_net, _origin, proxy) = echo("").await;
    let mut ws = proxy.ws().await;
    for n in 0..50 {
        ws.send(call(1, "eth_call", &format!("[{n}]"))).await;
    }
    let mut answers = BTreeSet::new();
    for _ in 0..50 {
        answers.insert(ws.text().await);
    }
    assert_eq!(answers, (0..50).map(|n| answer(1, &format!("[{n}]"))).collect());
    assert!(ws.is_silent().await);
}

#[tokio::test(start_paused = true)]
async fn a_binary_message_is_a_call_and_its_answer_is_text() {
    let (_net, _origin, proxy) = echo("").await;
    let mut ws = proxy.ws().await;
    ws.message(Message::binary(call(3, "eth_call", "[1]").into_bytes())).await;
    assert_eq!(ws.next().await.unwrap().unwrap(), Message::text(answer(3, "[1]")));
    ws.message(Message::binary(vec![0xff, 0xfe])).await;
    let error: Value = serde_json::from_str(&ws.text().await).unwrap();
    assert_eq!((&error["error"]["code"], &error["id"]), (&(-32700).into(), &Value::Null));
}

#[tokio::test(start_paused = true)]
async fn message_that_is_no_call_gets_its_error() {
    let (_net, origin, proxy) = echo("").await;
    let mut ws = proxy.ws().await;
    for (text, code, id) in [
        ("{", -32700, "null"),
        ("", -32700, "null"),
        ("5", -32600, "null"),
        ("[]", -32600, "null"),
        (r#"{"id":4}"#, -32600, "4"),
        (r#"{"id":4,"method":"eth_call","Method":"x"}"#, -32600, "4"),
        (r#"{"id":"x","method":"admin_addPeer","params":[]}"#, -32601, "\"x\""),
    ] {
        let error: Value = serde_json::from_str(&ws.ask(text).await).unwrap();
        assert_eq!((error["error"]["code"].as_i64(), error["id"].to_string().as_str()), (Some(code), id), "{text}");
    }
    assert_eq!(origin.methods(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn notifications_are_not_answered() {
    let (_net, origin, proxy) = echo("").await;
    let mut ws = proxy.ws().await;
    let silent = r#"{"jsonrpc":"2.0","method":"eth_call","params":[1]}"#;
    ws.send(silent).await;
    ws.send(format!("[{silent},{silent}]")).await;
    until("they have arrived", async || origin.count("eth_call") == 3).await;
    assert_eq!(ws.ask(format!("[{silent},{}]", call(1, "eth_call", "[2]"))).await, format!("[{}]", answer(1, "[2]")));
    assert!(ws.is_silent().await);
}

#[tokio::test(start_paused = true)]
async fn a_batch_keeps_its_order_and_may_mix_anything() {
    let net = Net::default();
    // The later a call comes, the sooner the node answers.
    let origin = Origin::within(&net, |seen| {
        let reply = answer(seen.id(), &seen.params());
        let wait = Duration::from_millis(50u64.saturating_sub(seen.id().parse().unwrap_or(0)));
        Reply::act(async move |mut io| {
            sleep(wait).await;
            io.write_all(&ok(reply)).await.ok()?;
            Some(io)
        })
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    let mut ws = proxy.ws().await;
    let calls: Vec<_> = (0..40).map(|id| call(id, "eth_call", "[]")).collect();
    let batch = format!(r#"[ {},{{"method":"eth_call"}} , 7,{{"id":41,"method":"admin_peers"}}]"#, calls.join(" ,\n"));
    // A single call behind it does not wait for it.
    ws.send(batch).await;
    ws.send(call(49, "eth_call", "[]")).await;
    assert_eq!(ws.text().await, answer(49, "[]"));
    let answers: Vec<Value> = serde_json::from_str(&ws.text().await).unwrap();
    let ids: Vec<String> = answers.iter().map(|answer| answer["id"].to_string()).collect();
    let expected: Vec<String> = (0..40).map(|id| id.to_string()).chain(["null".to_owned(), "41".to_owned()]).collect();
    assert_eq!(ids, expected);
    assert_eq!(
        (answers[40]["error"]["code"].as_i64(), answers[41]["error"]["code"].as_i64()),
        (Some(-32600), Some(-32601))
    );
    assert!(answers[..40].iter().all(|answer| answer["result"].is_array()));
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_too_long_is_refused_whole() {
    let (_net, origin, proxy) = echo("[calls]\nmax_batch = 3\n").await;
    let mut ws = proxy.ws().await;
    let batch = |count: usize| format!("[{}]", vec![call(1, "eth_call", "[]"); count].join(","));
    let error: Value = serde_json::from_str(&ws.ask(batch(4)).await).unwrap();
    assert_eq!(error["error"]["data"]["reason"], "max_batch");
    assert_eq!(origin.methods(), [""; 0]);
    assert_eq!(ws.ask(batch(3)).await, format!("[{}]", vec![answer(1, "[]"); 3].join(",")));
}

#[tokio::test(start_paused = true)]
async fn calls_run_side_by_side_and_a_slow_one_holds_up_no_other() {
    let net = Net::default();
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (running.clone(), most.clone());
    let origin = Origin::within(&net, move |seen| {
        let (reply, wait) = (answer(seen.id(), "1"), if seen.params() == "[0]" { 5_000 } else { 200 });
        let (now, peak) = (now.clone(), peak.clone());
        Reply::act(async move |mut io| {
            peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            sleep(Duration::from_millis(wait)).await;
            now.fetch_sub(1, SeqCst);
            io.write_all(&ok(reply)).await.ok()?;
            Some(io)
        })
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    let mut ws = proxy.ws().await;
    let asked = Instant::now();
    for id in 0..100 {
        ws.send(call(id, "eth_call", &format!("[{id}]"))).await;
    }
    let mut answered = BTreeSet::new();
    for _ in 1..100 {
        answered.insert(ws.text().await);
    }
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(answered, (1..100).map(|id| answer(id, "1")).collect());
    assert_eq!(ws.text().await, answer(0, "1"));
    assert_eq!(most.load(SeqCst), 64);
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_comes_whole_though_its_node_is_lost() {
    let net = Net::default();
    let body = |id: String| answer(id, &format!("\"{}\"", "x".repeat(2 << 20)));
    // Half of the answer, and no more.
    let bad = Origin::within(&net, move |seen| {
        let mut bytes = ok(body(seen.id()));
        bytes.truncate(1 << 20);
        Reply::Last(bytes)
    })
    .await;
    let good = Origin::within(&net, move |seen| Reply::body(body(seen.id()))).await;
    let proxy = Proxy::over(&net, [good.url()], "").await;
    let mut ws = proxy.ws().await;
    assert_eq!(ws.ask(call(5, "eth_call", "[]")).await, body("5".into()));
    let half = Proxy::over(&net, [bad.url()], "[calls]\nattempts = 3\n").await;
    let mut ws = half.ws().await;
    let error: Value = serde_json::from_str(&ws.ask(call(6, "eth_call", "[]")).await).unwrap();
    assert_eq!((error["error"]["data"]["reason"].as_str(), error["id"].as_i64()), (Some("attempts_failed"), Some(6)));
    assert_eq!(bad.count("eth_call"), 3);
    // What may have had its effect is not asked for again.
    let error: Value = serde_json::from_str(&ws.ask(call(7, "eth_sendTransaction", "[]")).await).unwrap();
    assert_eq!(error["error"]["data"]["reason"], "outcome_unknown");
    assert_eq!(bad.count("eth_sendTransaction"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_that_stops_is_had_from_another_node() {
    let net = Net::default();
    let body = |id: String| answer(id, &format!("\"{}\"", "x".repeat(2 << 20)));
    let bad = Origin::within(&net, move |seen| {
        let mut bytes = ok(body(seen.id()));
        bytes.truncate(1 << 20);
        if seen.method() == "eth_getBlockReceipts" {
            return Reply::Last(bytes);
        }
        // All else that it is asked for it answers, so it stays the active one.
        Reply::act(async move |mut io| {
            io.write_all(&bytes).await.ok()?;
            std::future::pending().await
        })
    })
    .await;
    let good = Origin::within(&net, move |seen| Reply::body(body(seen.id()))).await;
    let proxy = Proxy::over(&net, [bad.url(), good.url()], "[calls]\nattempt_timeout = \"3s\"\n").await;
    let mut ws = proxy.ws().await;
    let asked = Instant::now();
    assert_eq!(ws.ask(call(1, "eth_call", "[]")).await, body("1".into()));
    assert!(asked.elapsed() <= Duration::from_millis(3100), "{:?}", asked.elapsed());
    let asked = Instant::now();
    assert_eq!(ws.ask(call(2, "eth_getBlockReceipts", "[\"0x1\"]")).await, body("2".into()));
    assert!(asked.elapsed() <= Duration::from_millis(100), "{:?}", asked.elapsed());
    assert_eq!((bad.count("eth_call"), bad.count("eth_getBlockReceipts")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_that_drips_is_had_from_another_node() {
    let net = Net::default();
    let body = |id: String| answer(id, &format!("\"{}\"", "x".repeat(2 << 20)));
    let drips = Origin::within(&net, move |seen| {
        let bytes = ok(body(seen.id()));
        Reply::act(async move |mut io| {
            let (first, rest) = bytes.split_at(1 << 20);
            io.write_all(first).await.ok()?;
            for byte in rest {
                sleep(Duration::from_secs(2)).await;
                io.write_all(&[*byte]).await.ok()?;
            }
            Some(io)
        })
    })
    .await;
    let good = Origin::within(&net, move |seen| Reply::body(body(seen.id()))).await;
    let proxy = Proxy::over(&net, [drips.url(), good.url()], "[calls]\nattempt_timeout = \"10s\"\n").await;
    let mut ws = proxy.ws().await;
    let asked = Instant::now();
    assert_eq!(ws.ask(call(1, "eth_call", "[]")).await, body("1".into()));
    // A byte gives no more than the least rate asks for it.
    assert!(asked.elapsed() <= Duration::from_secs(11), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_broke_off_takes_no_room_from_the_next() {
    const LENGTH: usize = 500_000;
    let net = Net::default();
    let body = |id: String| answer(id, &format!("\"{}\"", "x".repeat(LENGTH)));
    let bad = Origin::within(&net, move |seen| {
        let mut bytes = ok(body(seen.id()));
        bytes.truncate(LENGTH - 10_000);
        Reply::Last(bytes)
    })
    .await;
    let good = Origin::within(&net, move |seen| Reply::body(body(seen.id()))).await;
    let urls = [bad.url(), good.url()];
    // There is room for one, while it passes and when it has come, but not for two.
    let proxy = Proxy::launch(&net, &format!("max_client_memory = \"1MiB\"\n{}", nodes(urls))).await;
    until("the nodes are up", async || proxy.verdicts().await == ["up", "up"]).await;
    let mut ws = proxy.ws().await;
    let ask = call(1, "eth_getBlockReceipts", "[\"0x1\"]");
    assert_eq!(ws.ask(ask.clone()).await, body("1".into()));
    assert_eq!(bad.count("eth_getBlockReceipts"), 1);
    until("all is given back", async || proxy.metric("steadfast_client_memory_bytes", "").await == 0.0).await;
    // In a batch as well.
    assert_eq!(ws.ask(format!("[{ask}]")).await, format!("[{}]", body("1".into())));
}

#[tokio::test(start_paused = true)]
async fn answers_that_break_off_count_among_the_attempts_of_one_call() {
    let net = Net::default();
    let half = Origin::within(&net, |seen| {
        let mut bytes = ok(answer(seen.id(), &format!("\"{}\"", "x".repeat(2 << 20))));
        bytes.truncate(1 << 20);
        Reply::Last(bytes)
    })
    .await;
    let silent = Origin::within(&net, |_| Reply::Last(Vec::new())).await;
    let proxy = Proxy::over(&net, [silent.url(), half.url()], "[calls]\nattempts = 3\n").await;
    let mut ws = proxy.ws().await;
    let error: Value = serde_json::from_str(&ws.ask(call(6, "eth_call", "[]")).await).unwrap();
    assert_eq!(error["error"]["data"]["reason"], "attempts_failed");
    // An attempt over a connection that was idle is sent once more over a new one.
    let asked = (half.count("eth_call"), silent.count("eth_call"));
    assert!(asked.0 == 1 && (2..=4).contains(&asked.1), "{asked:?}");
    assert_eq!(proxy.metric("steadfast_calls_total", "method=\"eth_call\"").await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_broken_off_at_a_reloads_node_is_had_elsewhere() {
    let net = Net::default();
    let body = |id: String| answer(id, &format!("\"{}\"", "x".repeat(2 << 20)));
    let away = "http://127.0.0.1:9";
    let half = Origin::within(&net, move |seen| {
        let mut bytes = ok(body(seen.id()));
        bytes.truncate(1 << 20);
        Reply::Last(bytes)
    })
    .await;
    let good = Origin::within(&net, move |seen| Reply::body(body(seen.id()))).await;
    let settings = |urls: &[&str]| format!("[calls]\nhold = \"20s\"\n{}", nodes(urls.iter().copied()));
    let proxy = Proxy::launch(&net, &settings(&[away])).await;
    let mut ws = proxy.ws().await;
    ws.send(call(1, "eth_call", "[]")).await;
    sleep(Duration::from_secs(1)).await;
    // The node that breaks off has an index which the pool before the reload does not have.
    proxy.reload(&settings(&[away, half.url(), good.url()])).await;
    assert_eq!(ws.text().await, body("1".into()));
    assert_eq!((half.count("eth_call"), good.count("eth_call")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn held_calls_leave_in_the_order_in_which_they_came() {
    let net = Net::default();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let order = seen.clone();
    let origin = Origin::within(&net, move |call| {
        order.lock().unwrap().push(call.params());
        Reply::result(call, "1")
    })
    .await;
    origin.ail(Some(b"HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec()));
    let proxy = Proxy::launch(&net, &crate::common::proxy::nodes([origin.url()])).await;
    let mut ws = proxy.ws().await;
    sleep(Duration::from_secs(1)).await;
    for id in 0..50 {
        // Each opens a connection of its own, so that none overtakes another on its way.
        let call = |id: u32| call(id, "eth_sendTransaction", &format!("[{id}]"));
        ws.send(if id % 5 == 0 { format!("[{},{}]", call(id * 2), call(id * 2 + 1)) } else { call(id * 2) }).await;
    }
    until("all wait", async || proxy.metric("steadfast_held_calls", "").await == 60.0).await;
    origin.ail(None);
    for _ in 0..50 {
        ws.text().await;
    }
    let seen: Vec<u64> =
        seen.lock().unwrap().iter().map(|params| params.trim_matches(|c| "[]".contains(c)).parse().unwrap()).collect();
    assert!(seen.len() == 60 && seen.is_sorted(), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn messages_are_counted_both_ways() {
    let (_net, _origin, proxy) = echo("").await;
    let mut ws = proxy.ws().await;
    for _ in 0..3 {
        ws.ask(call(1, "eth_call", "[]")).await;
    }
    ws.send(r#"{"jsonrpc":"2.0","method":"eth_call"}"#).await;
    until("the last is counted", async || proxy.metric("steadfast_ws_messages_total", "in").await == 4.0).await;
    assert_eq!(proxy.metric("steadfast_ws_messages_total", "out").await, 3.0);
}
