//! What passes for a node's answer, at every door, on a network of memory under a simulated clock.

use std::{
    ops::Add,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::common::{
    client::call,
    origin::{Origin, Reply, Seen, chain, ok, response},
    sim::{Net, Proxy},
    until,
};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep},
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
async fn a_non_answer_is_asked_of_another_node_at_every_door() {
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
async fn a_node_one_answer_behind_mixes_no_clients_answers() {
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
async fn a_clients_id_reaches_no_node_and_returns_unchanged() {
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
        (
            "an object that streams",
            format!(r#"{{"result":{{"id":5,"x":[{long},{{"id":6}}]}}}}"#),
            format!(r#"{{"result":{{"id":5,"x":[{long},{{"id":6}}]}},"id":"c"}}"#),
        ),
        (
            "a long object",
            format!(r#"{{"result":{{"x":{},"id":5}}}}"#, &long[..30_000].to_owned().add("\"")),
            format!(r#"{{"id":"c","result":{{"x":{},"id":5}}}}"#, &long[..30_000].to_owned().add("\"")),
        ),
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
async fn an_id_before_more_members_gives_way_to_the_clients() {
    for length in [1, 30_000, 600_000] {
        let long = "l".repeat(length);
        for more in
            [r#""more":{"id":5}"#, r#""more":[1]"#, r#""a":{},"b":[{}]"#, r#""more":"MANY""#, r#""more":["MANY"]"#]
        {
            for chunk in [7, 1_000, usize::MAX] {
                let (net, result) = (Net::default(), format!("[\"{long}\"]"));
                let more = more.replace("MANY", &"m".repeat(6_000));
                let make = move |id: &str| format!(r#"{{"result":{result},"id":{id},{more}}} {}"#, "\n");
                let expected = make("\"c\"");
                let origin = Origin::within(&net, move |seen| {
                    let body = make(&seen.id()).into_bytes();
                    let chunks = body
                        .chunks(chunk.max(length / 1_000).min(body.len()))
                        .map(|part| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
                    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
                    Reply::Bytes([head].into_iter().chain(chunks).chain([b"0\r\n\r\n".to_vec()]).flatten().collect())
                })
                .await;
                let proxy = Proxy::over(&net, [origin.url()], "").await;
                for door in DOORS {
                    let text = at(door, &proxy, "\"c\"", READ).await;
                    let is_it = text.trim_end() == expected.trim_end();
                    assert!(is_it, "{length}, {chunk}, {door}: …{}", &text[text.len().saturating_sub(200)..]);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_that_turns_out_to_be_none_never_ends_well() {
    let long = format!("\"{}\"", "l".repeat(600_000));
    type Make = fn(&str, &str) -> String;
    let makes: [(&str, Make, &str); 8] = [
        ("without an end", |id, long| format!(r#"{{"id":{id},"result":[{long}"#), "ends"),
        ("another id behind", |id, long| format!(r#"{{"result":{long},"id":{id}1}}"#), "ends"),
        ("another id before more", |id, long| format!(r#"{{"result":{long},"id":{id}1,"more":{{}}}}"#), "ends"),
        ("two ids", |id, long| format!(r#"{{"result":{long},"id":{id},"id":{id}}}"#), "ends"),
        ("an id without an end", |id, long| format!(r#"{{"result":{long},"id":{id}{}}}"#, "1".repeat(9_000)), "ends"),
        ("more behind the end", |id, long| format!(r#"{{"result":{long},"id":{id}}}{{}}"#), "ends"),
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
            client.send(crate::common::client::post("/", call(1, READ, "[]").as_bytes())).await;
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

/// Three nodes that do as `scripts` say with a read.
async fn three(net: &Net, scripts: [Script; 3]) -> (Vec<Origin>, Proxy) {
    let mut origins = Vec::new();
    for script in scripts {
        origins.push(Origin::within(net, script).await);
    }
    let proxy = Proxy::over(net, origins.iter().map(Origin::url), "").await;
    until("all are up", async || proxy.verdicts().await == ["up", "up", "up"]).await;
    (origins, proxy)
}

type Script = fn(&Seen) -> Reply;

fn odd(seen: &Seen) -> Reply {
    Reply::error(seen, -32099, "words that nobody has heard before")
}

fn well(seen: &Seen) -> Reply {
    Reply::result(seen, "\"well\"")
}

#[tokio::test(start_paused = true)]
async fn an_unknown_error_is_asked_of_one_more_node_at_every_door() {
    for door in DOORS {
        let net = Net::default();
        let (origins, proxy) = three(&net, [odd, well, well]).await;
        assert_eq!(at(door, &proxy, "1", READ).await, answer(1, "\"well\""), "{door}");
        assert_eq!(origins.iter().map(|origin| origin.count(READ)).collect::<Vec<_>>(), [1, 1, 0], "{door}");

        let second: Script = |seen| Reply::error(seen, -32098, "the second node's own words");
        let (origins, proxy) = three(&net, [odd, second, well]).await;
        let text = at(door, &proxy, "1", READ).await;
        assert!(text.contains("words that nobody has heard before"), "{door}: {text}");
        assert_eq!(origins.iter().map(|origin| origin.count(READ)).collect::<Vec<_>>(), [1, 1, 0], "{door}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_revert_and_what_is_not_a_read_are_not_asked_twice() {
    let net = Net::default();
    let revert: Script = |seen| Reply::error(seen, 3, "execution reverted");
    let (origins, proxy) = three(&net, [revert, well, well]).await;
    assert!(at("single", &proxy, "1", READ).await.contains("execution reverted"));
    assert_eq!(origins[1].count(READ), 0);
    let (origins, proxy) = three(&net, [odd, well, well]).await;
    assert!(at("single", &proxy, "1", "eth_sendTransaction").await.contains("words that nobody"));
    assert_eq!(origins[1].count("eth_sendTransaction"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_null_for_shown_data_is_not_believed_if_a_node_has_it() {
    let null: Script = |seen| Reply::result(seen, "null");
    let net = Net::default();
    for (method, params) in [
        ("eth_getBlockByNumber", r#"["0x2",false]"#),
        ("eth_getBlockReceipts", r#"["0x2"]"#),
        ("eth_getTransactionByBlockNumberAndIndex", r#"["0x2","0x0"]"#),
        ("eth_getBlockTransactionCountByNumber", r#"["0x2"]"#),
    ] {
        let (origins, proxy) = three(&net, [null, well, well]).await;
        for origin in &origins {
            origin.head().store(5, SeqCst);
        }
        until("the head is known", async || proxy.side().await["head"] == 5).await;
        assert_eq!(proxy.post(call(1, method, params)).await.text(), answer(1, "\"well\""), "{method}");
    }
    // Above all heads a null is the truth.
    let (origins, proxy) = three(&net, [null, well, well]).await;
    let text = proxy.post(call(1, "eth_getBlockByNumber", r#"["0xffffff",false]"#)).await.text();
    assert_eq!(text, answer(1, "null"));
    assert_eq!(origins[1].count("eth_getBlockByNumber"), 0);
}

#[tokio::test(start_paused = true)]
async fn data_no_node_has_yet_is_asked_again_for_two_seconds() {
    let net = Net::default();
    for (comes_after, expected) in [(0.7, "\"there\""), (5.0, "null")] {
        let dawn = Instant::now();
        let origin = Origin::within(&net, move |seen| {
            let is_there = dawn.elapsed() >= Duration::from_secs_f64(1.0 + comes_after);
            Reply::result(seen, if is_there { "\"there\"" } else { "null" })
        })
        .await;
        let proxy = Proxy::over(&net, [origin.url()], "").await;
        sleep(Duration::from_secs(1).saturating_sub(dawn.elapsed())).await;
        let asked = Instant::now();
        let text = proxy.post(call(1, "eth_getBlockByNumber", r#"["0x64",false]"#)).await.text();
        assert_eq!(text, answer(1, expected));
        assert!(asked.elapsed() <= Duration::from_millis(2100), "{:?}", asked.elapsed());
        assert!((2..10).contains(&origin.count("eth_getBlockByNumber")), "{}", origin.count("eth_getBlockByNumber"));
    }
}

/// A node that takes so long over a read, and answers all else at once.
async fn slow(net: &Net, seconds: u64) -> Origin {
    Origin::within(net, move |seen| {
        let bytes = ok(answer(seen.id(), "\"well\""));
        let wait = if seen.method() == READ { seconds } else { 0 };
        Reply::act(async move |mut io| {
            sleep(Duration::from_secs(wait)).await;
            io.write_all(&bytes).await.ok()?;
            Some(io)
        })
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_long_call_is_begun_once_and_answered() {
    for door in DOORS {
        for count in [1, 3] {
            let net = Net::default();
            let mut origins = Vec::new();
            for _ in 0..count {
                origins.push(slow(&net, 15).await);
            }
            let _chain = chain(&origins);
            let proxy = Proxy::over(&net, origins.iter().map(Origin::url), "").await;
            assert_eq!(at(door, &proxy, "1", READ).await, answer(1, "\"well\""), "{door}, {count} nodes");
            let begun: usize = origins.iter().map(|origin| origin.count(READ)).sum();
            assert_eq!(begun, 1, "{door}, {count} nodes");
            assert!(proxy.verdicts().await.iter().all(|verdict| verdict == "up"), "{door}, {count} nodes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_swallowed_call_is_begun_elsewhere_before_its_deadline() {
    for door in DOORS {
        let net = Net::default();
        let origins = [slow(&net, 3600).await, slow(&net, 1).await];
        let _chain = chain(&origins);
        let proxy = Proxy::over(&net, origins.iter().map(Origin::url), "").await;
        let asked = Instant::now();
        assert_eq!(at(door, &proxy, "1", READ).await, answer(1, "\"well\""), "{door}");
        assert!(asked.elapsed() < Duration::from_secs(22), "{door}: {:?}", asked.elapsed());
        assert_eq!([origins[0].count(READ), origins[1].count(READ)], [1, 1], "{door}");
    }
}
