//! What passes for a node's answer, at every door, on a network of memory under a simulated clock.
#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod common;

use std::{
    ops::Add,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use common::{
    client::call,
    origin::{Origin, Reply, Seen, chain, ok, response},
    sim::{Net, Proxy},
};

const READ: &str = "eth_getLogs";

fn answer(id: impl std::fmt::Display, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// The doors for a call.
const DOORS: [&str; 4] = ["single", "batch", "WebSocket", "batch over WebSocket"];

/// What comes of a call of `method` at each of the doors, without a batch's brackets.
async fn at(door: &str, proxy: &Proxy, id: &str, method: &str) -> String {
    let single = call(id, method, "[]");
    let batch = format!("[{single}]");
    let text = match door {
        "single" => proxy.post(single).await.text(),
        "batch" => proxy.post(batch).await.text(),
        "WebSocket" => proxy.ws().await.ask(single).await,
        _ => proxy.ws().await.ask(batch).await,
    };
    if door.contains("batch") { text.strip_prefix('[').unwrap().strip_suffix(']').unwrap().to_owned() } else { text }
}

/// A node that does `odd` with a read, and one that answers well.
async fn odd_and_well(net: &Net, odd: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> [Origin; 2] {
    let first = Origin::within(net, move |seen| match seen.method() == READ {
        true => odd(seen),
        false => Reply::result(seen, "\"well\""),
    });
    [first.await, Origin::within(net, |seen| Reply::result(seen, "\"well\"")).await]
}

/// Answers that are none: of the call with this id.
fn aliens(id: &str) -> Vec<(&'static str, Vec<u8>)> {
    let text = |text: &str| ok(text);
    let long = "l".repeat(20_000);
    vec![
        ("the id of another call", text(&answer(format!("{id}1"), "1"))),
        ("the id of another call, behind", text(&format!(r#"{{"result":1,"id":{id}1}}"#))),
        ("the id as text", text(&answer(format!("\"{id}\""), "1"))),
        ("a second value", text(&format!("{0}{0}", answer(id, "1")))),
        ("null twice", text(&answer(id, "nullnull"))),
        ("cut JSON", text(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":[1,2"#))),
        ("an open bracket", text(&answer(id, "[1,2"))),
        ("a string as an error", text(&format!(r#"{{"id":{id},"error":"too bad"}}"#))),
        ("a result beside an error", text(&format!(r#"{{"id":{id},"result":1,"error":{{"code":1,"message":"x"}}}}"#))),
        ("neither a result nor an error", text(&format!(r#"{{"jsonrpc":"2.0","id":{id}}}"#))),
        ("a list", text(&format!("[{}]", answer(id, "1")))),
        ("no JSON", text("<html>welcome</html>")),
        ("nothing", text("")),
        ("no UTF-8", ok([answer(id, "\"X\"").replace("X\"}", "").as_bytes(), b"\xff\"}"].concat())),
        ("a long result without an end", text(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":["{long}""#))),
        ("a long result with another id behind", text(&format!(r#"{{"result":"{long}","id":{id}1}}"#))),
    ]
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_to_the_call_is_asked_of_another_node_at_every_door() {
    for at_fault in 0..aliens("1").len() {
        let net = Net::default();
        let origins = odd_and_well(&net, move |seen| Reply::Bytes(aliens(&seen.id())[at_fault].1.clone())).await;
        let _chain = chain(&origins);
        let proxy = Proxy::over(&net, origins.iter().map(Origin::url), "[health]\nfall = 100\n").await;
        let name = aliens("1")[at_fault].0;
        for door in DOORS {
            assert_eq!(at(door, &proxy, "\"own\"", READ).await, answer("\"own\"", "\"well\""), "{name}, {door}");
        }
        assert_eq!(origins[0].count(READ), DOORS.len(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_one_answer_behind_gives_no_client_the_answer_of_another() {
    let net = Net::default();
    let late = Arc::new(std::sync::Mutex::new(answer(0, "\"nothing yet\"")));
    let origins = odd_and_well(&net, move |seen| {
        let own = answer(seen.id(), &seen.params());
        Reply::body(std::mem::replace(&mut *late.lock().unwrap(), own))
    })
    .await;
    let _chain = chain(&origins);
    let proxy = Proxy::over(&net, origins.iter().map(Origin::url), "[health]\nfall = 100\n").await;
    let mut client = proxy.client().await;
    for id in 0..100 {
        let text = client.post(call(id, READ, &format!("[{id}]"))).await.text();
        assert_eq!(text, answer(id, "\"well\""), "call {id}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_connection_of_an_answer_to_another_call_is_closed() {
    let net = Net::default();
    let origins = odd_and_well(&net, |seen| Reply::body(answer(format!("{}1", seen.id()), "1"))).await;
    let _chain = chain(&origins);
    let proxy = Proxy::over(&net, origins.iter().map(Origin::url), "[health]\nfall = 100\n").await;
    for id in 0..5 {
        proxy.post(call(id, READ, "[]")).await;
    }
    let mut connections: Vec<usize> =
        origins[0].seen().iter().filter(|seen| seen.method() == READ).map(|seen| seen.connection).collect();
    connections.dedup();
    assert_eq!(connections.len(), 5, "{connections:?}");
}

#[tokio::test(start_paused = true)]
async fn no_node_sees_a_clients_id_and_the_client_gets_it_back_byte_for_byte() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| {
        assert!(seen.id().bytes().all(|byte| byte.is_ascii_digit()), "{}", seen.id());
        Reply::result(seen, "1")
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    let long = format!("\"{}\"", "i".repeat(1_000_000));
    for id in ["1", "null", "-0", "1.50e400", "123456789012345678901234567890", "\"a\\u0041\\\"}\"", "\"\"", &long] {
        for door in DOORS {
            assert_eq!(at(door, &proxy, id, READ).await, answer(id, "1"), "{door}");
        }
    }
    assert!(origin.seen().iter().all(|seen| seen.body.len() < 200));
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_an_id_gets_the_clients() {
    let long = format!("\"{}\"", "l".repeat(600_000));
    for (name, text, expected) in [
        (
            "a result",
            r#"{"jsonrpc":"2.0","result":1}"#.to_owned(),
            r#"{"id":"c","jsonrpc":"2.0","result":1}"#.to_owned(),
        ),
        ("id null", r#"{"id":null,"result":1}"#.to_owned(), r#"{"id":"c","result":1}"#.to_owned()),
        (
            "an error",
            r#"{"jsonrpc":"2.0","error":{"code":3,"message":"execution reverted"}}"#.to_owned(),
            r#"{"id":"c","jsonrpc":"2.0","error":{"code":3,"message":"execution reverted"}}"#.to_owned(),
        ),
        (
            "a long result",
            format!(r#"{{"result":{}}}"#, &long[..30_000].to_owned().add("\"")),
            format!(r#"{{"id":"c","result":{}}}"#, &long[..30_000].to_owned().add("\"")),
        ),
        ("one that streams", format!(r#"{{"result":{long}}}"#), format!(r#"{{"result":{long},"id":"c"}}"#)),
    ] {
        let net = Net::default();
        let origin = Origin::within(&net, move |_| Reply::body(&text)).await;
        let proxy = Proxy::over(&net, [origin.url()], "").await;
        for door in DOORS {
            assert_eq!(at(door, &proxy, "\"c\"", READ).await, expected, "{name}, {door}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_that_turns_out_to_be_none_never_ends_well() {
    let long = format!("\"{}\"", "l".repeat(600_000));
    type Make = fn(&str, &str) -> String;
    let makes: [(&str, Make, &str); 4] = [
        ("without an end", |id, long| format!(r#"{{"id":{id},"result":[{long}"#), "ends"),
        ("another id behind", |id, long| format!(r#"{{"result":{long},"id":{id}1}}"#), "ends"),
        ("broken in the middle", |id, long| format!(r#"{{"id":{id},"result":[{long}{long}]}}"#), "all"),
        ("no UTF-8", |id, long| format!(r#"{{"id":{id},"result":["{}",{long}]}}"#, "X"), "all"),
    ];
    for (name, make, verify) in makes {
        for chunked in [false, true] {
            let (net, long) = (Net::default(), long.clone());
            let origins = odd_and_well(&net, move |seen| {
                let mut body = make(&seen.id(), &long).into_bytes();
                body.iter_mut().filter(|byte| **byte == b'X').for_each(|byte| *byte = 0xff);
                match chunked {
                    false => Reply::Bytes(response("200 OK", "", body)),
                    true => {
                        let size = format!("{:x}\r\n", body.len());
                        let head = &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"[..];
                        Reply::Bytes([head, size.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat())
                    }
                }
            })
            .await;
            let _chain = chain(&origins);
            let settings = format!("[calls]\nverify = \"{verify}\"\n");
            let proxy = Proxy::over(&net, origins.iter().map(Origin::url), &settings).await;
            let mut client = proxy.client().await;
            client.send(common::client::post("/", call(1, READ, "[]").as_bytes())).await;
            assert!(client.try_response().await.is_err(), "{name}, chunked: {chunked}");
            // A WebSocket takes it whole first, so another node can make it good.
            assert_eq!(at("WebSocket", &proxy, "1", READ).await, answer(1, "\"well\""), "{name}, chunked: {chunked}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_null_result_beside_an_error_is_an_error() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| {
        Reply::answer(
            seen,
            r#"{"jsonrpc":"2.0","id":0,"result":null,"error":{"code":3,"message":"execution reverted"}}"#,
        )
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    for door in DOORS {
        let text = at(door, &proxy, "7", READ).await;
        assert_eq!(text, r#"{"jsonrpc":"2.0","id":7,"result":null,"error":{"code":3,"message":"execution reverted"}}"#);
    }
    let counted = proxy.metric("steadfast_calls_total", "outcome=\"node_error\"").await;
    assert!((counted - DOORS.len() as f64).abs() < 0.5, "{counted} errors were counted");
}

#[tokio::test(start_paused = true)]
async fn a_method_that_a_node_might_trim_reaches_none() {
    let net = Net::default();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let origin = Origin::within(&net, move |seen| {
        count.fetch_add(1, SeqCst);
        Reply::result(seen, "1")
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    for method in [" admin_peers", "admin_peers\\t", "\\u0000admin_peers", "eth call", &"m".repeat(129)] {
        for door in DOORS {
            let text = at(door, &proxy, "5", method).await;
            assert!(text.contains("-32600") && text.contains("\"id\":5"), "{door}: {method}: {text}");
        }
    }
    assert_eq!(asked.load(SeqCst), 0);
}
