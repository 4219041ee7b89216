//! Nodes that speak HTTP badly, hang up at the wrong moment, or answer with something else than an
//! answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::common::{
    client::{Broken, Client, call, post},
    origin::{Origin, Reply, Seen, ok, response},
    proxy::Proxy,
    until,
};
use tokio::{io::AsyncWriteExt, task::JoinSet, time::sleep};

fn answer(id: impl std::fmt::Display, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// Writes `bytes`, and closes after that if `last`.
fn reply(bytes: impl Into<Vec<u8>>, last: bool) -> Reply {
    if last { Reply::Last(bytes.into()) } else { Reply::Bytes(bytes.into()) }
}

/// A well node's answer in these tests.
async fn well() -> Origin {
    Origin::start(|seen| Reply::result(seen, "\"well\"")).await
}

/// A node by `script`, a well one behind it, and the proxy.
async fn first_and_well(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> (Origin, Origin, Proxy) {
    let (first, well) = (Origin::start(script).await, well().await);
    let proxy = Proxy::over([first.url(), well.url()], "").await;
    for node in ["el-1", "el-2"] {
        proxy.until_node(node, "up").await;
    }
    (first, well, proxy)
}

#[tokio::test]
async fn a_node_that_closes_idle_connections_costs_no_call() {
    // Without a word of warning: the connection just ends behind each answer, or at the next
    // request.
    let closes = Origin::start(|seen| Reply::Last(ok(answer(seen.id(), &seen.params())))).await;
    let times_out = Origin::start(|seen| match seen.turn {
        0 => Reply::result(seen, &seen.params()),
        _ => Reply::Last(Vec::new()),
    })
    .await;
    for origin in [&closes, &times_out] {
        let proxy = Proxy::over([origin.url()], "").await;
        let mut client = proxy.client().await;
        let mut expected = 0;
        for id in 0..60 {
            let (method, params) = if id % 3 == 1 { ("eth_sendTransaction", "[{}]") } else { ("eth_call", "[7]") };
            let response = client.post(call(id, method, params)).await;
            assert_eq!(response.text(), answer(id, params), "{method} {id}");
            expected += usize::from(method == "eth_sendTransaction");
            // Now and then so soon that the end of the connection is still on its way.
            sleep(Duration::from_millis(id % 4)).await;
        }
        let sent = origin.methods().iter().filter(|method| *method == "eth_sendTransaction").count();
        assert_eq!(sent, expected, "a transaction was sent twice");
        assert_eq!(proxy.node("el-1").await["verdict"], "up");
    }
}

#[tokio::test]
async fn a_used_connection_lost_after_a_silence_was_not_stale() {
    let (first, _well, proxy) = first_and_well(|seen| match seen.turn {
        0 => Reply::result(seen, "\"first\""),
        _ => Reply::act(|io| async move {
            sleep(Duration::from_millis(600)).await;
            drop(io);
            None
        }),
    })
    .await;
    for calls in 1..20 {
        let answer = proxy.post(call(calls, "eth_call", "[7]")).await.text();
        // The node had the call, and another answers it: it is not asked for the same again.
        assert_eq!(first.count("eth_call"), calls);
        if answer.contains("well") {
            return;
        }
    }
    panic!("no connection was used twice");
}

#[tokio::test]
async fn half_an_answer_is_made_good_by_another_node() {
    let whole = |seen: &Seen| answer(seen.id(), &format!("\"{}\"", "h".repeat(100_000)));
    type Half = Box<dyn Fn(&Seen) -> Vec<u8> + Send + Sync>;
    let halves: Vec<(&str, Half)> = vec![
        ("nothing", Box::new(|_| Vec::new())),
        ("half a head", Box::new(|_| b"HTTP/1.1 200 OK\r\nContent-Le".to_vec())),
        ("half of a length", Box::new(move |seen| ok(whole(seen))[..50_000].to_vec())),
        (
            "all but a byte",
            Box::new(move |seen| {
                let whole = ok(whole(seen));
                whole[..whole.len() - 1].to_vec()
            }),
        ),
        (
            "no last chunk",
            Box::new(move |seen| {
                let whole = whole(seen);
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{whole}\r\n", whole.len())
                    .into_bytes()
            }),
        ),
        (
            "half a chunk",
            Box::new(move |seen| {
                let whole = whole(seen);
                let half = &whole[..whole.len() / 2];
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{half}", whole.len()).into_bytes()
            }),
        ),
        (
            "half of what has no length",
            Box::new(move |seen| {
                let whole = whole(seen);
                format!("HTTP/1.1 200 OK\r\n\r\n{}", &whole[..whole.len() / 2]).into_bytes()
            }),
        ),
    ];
    for (name, half) in halves {
        let (first, well, proxy) = first_and_well(move |seen| Reply::Last(half(seen))).await;
        let response = proxy.post(call(1, "eth_call", "[]")).await;
        assert!(response.text() == answer(1, "\"well\""), "{name}: {} bytes came", response.body.len());
        assert!(!first.seen().is_empty() && well.seen().len() == 1, "{name}");
        let sent = proxy.post(call(2, "eth_sendTransaction", "[{}]")).await.json();
        assert_eq!(sent["error"]["data"]["reason"], "outcome_unknown", "{name}: {sent}");
        assert_eq!(well.seen().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_long_answer_that_breaks_off_is_never_passed_off_as_whole() {
    for chunks in [false, true] {
        let (_first, _well, proxy) = first_and_well(move |seen| {
            let whole = answer(seen.id(), &format!("\"{}\"", "h".repeat(2_000_000)));
            let framing = if chunks {
                format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", whole.len())
            } else {
                format!("Content-Length: {}\r\n\r\n", whole.len())
            };
            Reply::Last(format!("HTTP/1.1 200 OK\r\n{framing}{}", &whole[..1_500_000]).into_bytes())
        })
        .await;
        let mut client = proxy.client().await;
        client.send(post("/", call(1, "eth_call", "[]").as_bytes())).await;
        let broken = client.try_response().await;
        assert!(matches!(broken, Err(Broken::Closed(_) | Broken::Reset)), "{chunks}");
        assert_eq!(proxy.in_flight().await, 0);
    }
}

#[tokio::test]
async fn answers_come_through_whole_however_the_node_frames_them() {
    type Frame = fn(&str) -> (Vec<u8>, bool);
    let frames: [(&str, Frame); 13] = [
        ("connection: close", |body| (response("200 OK", "Connection: close\r\n", body), true)),
        ("http/1.0", |body| (format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into(), true)),
        ("no length until close", |body| (format!("HTTP/1.1 200 OK\r\n\r\n{body}").into(), true)),
        ("chunks of one byte", |body| {
            let chunks: String = body.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
            (format!("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n{chunks}0\r\n\r\n").into(), false)
        }),
        ("chunks with extensions and trailers", |body| {
            let length = body.len();
            let chunks = format!("{length:04X};a=b\r\n{body}\r\n0;c\r\nX-Trailer: t\r\n\r\n");
            (format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}").into(), false)
        }),
        ("100 Continue before", |body| ([b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), ok(body)].concat(), false)),
        ("several interim responses", |body| {
            let interim = b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
            ([interim.to_vec(), ok(body)].concat(), false)
        }),
        ("huge headers", |body| (response("200 OK", &format!("X-Huge: {}\r\n", "h".repeat(50_000)), body), false)),
        ("many headers", |body| (response("200 OK", &"X-Many: h\r\n".repeat(100), body), false)),
        ("one length twice", |body| (response("200 OK", &format!("Content-Length: {}\r\n", body.len()), body), false)),
        ("no reason", |body| (response("200", "", body), false)),
        ("another good status", |body| (response("201 Created", "", body), false)),
        ("space around", |body| (ok(format!(" \n{body}\n\n")), false)),
    ];
    for (name, frame) in frames {
        let (first, well, proxy) = first_and_well(move |seen| {
            let (bytes, last) = frame(&answer(seen.id(), "\"framed\""));
            reply(bytes, last)
        })
        .await;
        let mut client = proxy.client().await;
        for id in 0..5 {
            let response = client.post(call(id, "eth_call", "[]")).await;
            assert_eq!(response.text().trim(), answer(id, "\"framed\""), "{name}");
        }
        assert_eq!((first.seen().len(), well.seen().len()), (5, 0), "{name}");
    }
}

#[tokio::test]
async fn a_call_without_an_answer_is_asked_of_another_node() {
    let html = "<html><body>Bad Gateway</body></html>";
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("204", b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        ("304", b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec()),
        ("301", response("301 Moved", "Location: http://elsewhere/\r\n", "")),
        ("401", response("401 Unauthorized", "", r#"{"message":"no key"}"#)),
        ("403", response("403 Forbidden", "", "blocked")),
        (
            "403 with an error",
            response("403 Forbidden", "", r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}"#),
        ),
        ("404", response("404 Not Found", "", "404 page not found")),
        ("429", response("429 Too Many Requests", "Retry-After: 1\r\n", "")),
        ("429 with an error", response("429 Too", "", r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"m"}}"#)),
        ("500", response("500 Oops", "", r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"m"}}"#)),
        ("500 with a result", response("500 Oops", "", r#"{"jsonrpc":"2.0","id":1,"result":1}"#)),
        ("502 with a page", response("502 Bad Gateway", "content-type: text/html\r\n", html)),
        ("503", response("503 Busy", "", "")),
        ("200 with a page", ok(html)),
        ("200 with nothing", ok("")),
        ("200 with null", ok("null")),
        ("200 with an array", ok("[]")),
        ("200 with neither", ok(r#"{"jsonrpc":"2.0","id":1}"#)),
        ("200 with a page of 400 kB", ok("x".repeat(400_000))),
        ("no http", b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()),
        ("101", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n".to_vec()),
        ("a status of 999", response("999 Request denied", "", answer(1, "1"))),
        ("a status of 600", response("600 Odd", "", answer(1, "1"))),
        ("a status of 42", response("042 Odd", "", answer(1, "1"))),
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}".to_vec()),
        (
            "a length and chunks",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        ),
        ("an endless head", [&b"HTTP/1.1 200 OK\r\n"[..], &b"a: b\r\n".repeat(30_000)].concat()),
        ("a wrong chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n".to_vec()),
    ];
    for (name, bytes) in cases {
        let (first, well, proxy) = first_and_well(move |_| Reply::Last(bytes.clone())).await;
        let response = proxy.post(call(1, "eth_call", "[]")).await;
        assert_eq!((response.status, response.text()), (200, answer(1, "\"well\"")), "{name}");
        assert_eq!((first.seen().len(), well.seen().len()), (1, 1), "{name}");
        proxy.post(call(2, "eth_sendTransaction", "[{}]")).await.json();
        assert_eq!((first.seen().len(), well.seen().len()), (2, 1), "{name}: a transaction went to a second node");
    }
}

#[tokio::test]
async fn bytes_behind_an_answer_are_nobodys_answer() {
    let foreign = ok(answer(0, "\"foreign\""));
    let late = foreign.clone();
    let at_once = Origin::start(move |seen| Reply::Bytes([ok(answer(seen.id(), "1")), foreign.clone()].concat())).await;
    let later = Origin::start(move |seen| {
        let (own, foreign) = (ok(answer(seen.id(), "1")), late.clone());
        Reply::act(async move |mut io| {
            io.write_all(&own).await.ok()?;
            sleep(Duration::from_millis(5)).await;
            io.write_all(&foreign).await.ok()?;
            Some(io)
        })
    })
    .await;
    for origin in [&at_once, &later] {
        let proxy = Proxy::over([origin.url()], "").await;
        let mut client = proxy.client().await;
        for id in 1..20 {
            assert_eq!(client.post(call(id, "eth_call", "[]")).await.text(), answer(id, "1"));
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn an_early_answer_to_a_long_request_is_taken() {
    // The node answers, and hangs up, before it has read the body.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let well = well().await;
    let proxy = Proxy::over([well.url(), &url], "").await;
    let _early = JoinSet::from_iter([async move {
        loop {
            let (mut io, _) = listener.accept().await.unwrap();
            let _ = io.write_all(&response("413 Too Large", "connection: close\r\n", "too large")).await;
        }
    }]);
    let long = call(1, "eth_call", &format!("[\"{}\"]", "l".repeat(3_000_000)));
    assert_eq!(proxy.post(long).await.text(), answer(1, "\"well\""));
}

/// Ids that nodes and JSON libraries like to write in another way.
const IDS: [&str; 8] =
    ["12345678901234567890123", "1.50", "-0", "1e2", "null", r#""a\u0041\/\"}""#, r#""""#, r#""é\u00e9""#];

#[tokio::test]
async fn ids_come_back_byte_for_byte_wherever_the_node_writes_them() {
    type Body = fn(&str, &str) -> String;
    let places: [(&str, Body); 4] = [
        ("in front", |id, result| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)),
        ("behind", |id, result| format!("{{\"jsonrpc\":\"2.0\",\"result\":{result},\"id\": {id} }}\n")),
        ("behind, and not last", |id, result| format!(r#"{{"result":{result},"id":{id},"jsonrpc":"2.0"}}"#)),
        ("behind, and far from the end", |id, result| {
            format!(r#"{{"result":{result},"id":{id},"jsonrpc":"2.0","node":"{}"}}"#, "n".repeat(300))
        }),
    ];
    let mut wrong = Vec::new();
    for (place, body) in places {
        for (size, chunks) in [(10, false), (300_000, false), (300_000, true), (600_000, true)] {
            let result = format!(r#"{{"id":5,"x":"\"id\":7}}{}"}}"#, "r".repeat(size));
            let said = result.clone();
            let origin = Origin::start(move |seen| {
                let body = body(&seen.id(), &said);
                if !chunks {
                    return Reply::body(body);
                }
                let pieces: Vec<u8> = body
                    .as_bytes()
                    .chunks(10_007)
                    .flat_map(|piece| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())
                    .collect();
                let head = &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"[..];
                Reply::Bytes([head, &pieces, b"0\r\n\r\n"].concat())
            })
            .await;
            let proxy = Proxy::over([origin.url()], "").await;
            let mut client = proxy.client().await;
            for id in IDS {
                let text = client.post(call(id, "eth_call", "[]")).await.text();
                if text != body(id, &result) {
                    wrong.push(format!("{place}, {size} bytes, chunks: {chunks}, id {id}"));
                }
            }
            let batch = format!("[{},{}]", call(IDS[0], "eth_call", "[]"), call(IDS[1], "eth_call", "[]"));
            let expected = format!("[{},{}]", body(IDS[0], &result), body(IDS[1], &result));
            if client.post(batch).await.text() != expected {
                wrong.push(format!("{place}, {size} bytes, chunks: {chunks}, in a batch"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn results_pass_unchanged_in_every_order_of_members() {
    let bodies = [
        r#"{"jsonrpc":"2.0","id":1,"error":null,"result":"0x1"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":"0x1","error":null}"#,
        r#"{"result":{"b":1,"a":2},"id":1,"jsonrpc":"2.0"}"#,
        "{ \"id\" : 1 ,\n\t\"result\" : null , \"jsonrpc\" : \"2.0\" }",
        r#"{"jsonrpc":"2.0","id":1,"result":[1.0,1e400,123456789012345678901234567890,"\u00e9é"]}"#,
        r#"{"id":1,"jsonrpc":"2.0","result":{"error":{"code":-32603,"message":"missing trie node"}}}"#,
    ];
    let asked = Arc::new(AtomicUsize::new(0));
    let (first, well, proxy) =
        first_and_well(move |seen| Reply::answer(seen, bodies[asked.fetch_add(1, SeqCst)])).await;
    let mut client = proxy.client().await;
    for body in bodies {
        assert_eq!(client.post(call(1, "eth_call", "[]")).await.text(), body);
    }
    assert_eq!((first.seen().len(), well.seen().len()), (bodies.len(), 0));
}

#[tokio::test]
async fn an_error_is_asked_of_another_node_unless_it_is_the_calls() {
    let cases = [
        (-32603, "Internal error", true),
        (-32005, "limit exceeded", true),
        (-32000, "missing trie node 0a1b (path ) state 0x12 is not available", true),
        (-32000, "header not found", true),
        (-32000, "required historical state unavailable", true),
        (3, "execution reverted", false),
        (-32602, "missing value for required argument 0", true),
        (-32601, "the method eth_foo does not exist/is not available", true),
        (-32000, "insufficient funds for gas * price + value", true),
    ];
    for (code, message, of_the_node) in cases {
        let (first, well, proxy) = first_and_well(move |seen| Reply::error(seen, code, message)).await;
        let answered = proxy.post(call(1, "eth_call", "[]")).await;
        assert_eq!((first.seen().len(), well.seen().len()), (1, usize::from(of_the_node)), "{message}");
        if of_the_node {
            assert_eq!(answered.text(), answer(1, "\"well\""), "{message}");
        } else {
            assert_eq!(answered.json()["error"]["message"], message);
        }
    }
}

#[tokio::test]
async fn when_every_node_errs_the_first_real_answer_goes_back() {
    let words = "{ \"error\" : {\"message\":\"missing trie node\", \"data\" : [1.50], \"code\":-32000},\n \"id\":1, \"jsonrpc\":\"2.0\"}\n";
    let page = Origin::start(|_| Reply::Bytes(response("502 Bad Gateway", "", "<html>"))).await;
    let first = Origin::start(move |seen| Reply::answer(seen, words)).await;
    let second = Origin::start(|seen| Reply::error(seen, -32603, "second")).await;
    let proxy = Proxy::over([page.url(), first.url(), second.url()], "").await;
    for node in ["el-1", "el-2", "el-3"] {
        proxy.until_node(node, "up").await;
    }
    let answered = proxy.post(call(1, "eth_call", "[]")).await;
    assert_eq!((answered.status, answered.text()), (200, words.to_owned()));
    assert_eq!((page.seen().len(), first.seen().len(), second.seen().len()), (1, 1, 1));
    // With nothing but pages, the error is the proxy's own, and says so.
    let proxy = Proxy::over([page.url()], "").await;
    let answered = proxy.post(call("\"x\"", "eth_call", "[]")).await;
    assert_eq!((answered.status, answered.header("retry-after")), (503, Some("1")));
    assert_eq!(answered.json()["id"], "x");
    assert_eq!(answered.json()["error"]["code"], -32002);
}

const MIB: usize = 1 << 20;

#[tokio::test]
async fn a_client_that_does_not_read_yet_gets_all_of_50_mb_later() {
    for framed_by_length in [true, false] {
        let written = Arc::new(AtomicUsize::new(0));
        let count = written.clone();
        let origin = Origin::start(move |seen| {
            let head = format!(r#"{{"jsonrpc":"2.0","id":{},"result":""#, seen.id());
            let count = count.clone();
            Reply::act(async move |mut io| {
                let total = head.len() + 50 * MIB + 2;
                let framing = if framed_by_length {
                    format!("Content-Length: {total}\r\n\r\n")
                } else {
                    format!("Transfer-Encoding: chunked\r\n\r\n{total:x}\r\n")
                };
                io.write_all(format!("HTTP/1.1 200 OK\r\n{framing}{head}").as_bytes()).await.ok()?;
                let piece = vec![b's'; 64 * 1024];
                for _ in 0..50 * MIB / piece.len() {
                    io.write_all(&piece).await.ok()?;
                    count.fetch_add(piece.len(), SeqCst);
                }
                io.write_all(if framed_by_length { b"\"}" } else { b"\"}\r\n0\r\n\r\n" }).await.ok()?;
                Some(io)
            })
        })
        .await;
        let proxy = Proxy::over([origin.url()], "").await;
        let mut client = proxy.client().await;
        client.send(post("/", call(3, "debug_traceBlockByNumber", "[]").as_bytes())).await;
        // Writes stop when the sockets' buffers are full.
        let mut before = usize::MAX;
        until("the node has to wait", async || {
            sleep(Duration::from_millis(150)).await;
            let now = written.load(SeqCst);
            std::mem::replace(&mut before, now) == now && now > 0
        })
        .await;
        assert!(before < 30 * MIB, "{before} bytes went into memory");
        // Others are served meanwhile.
        assert!(proxy.side().await["active"].is_string());
        let answered = client.response().await;
        assert_eq!(answered.header("content-length").is_some(), framed_by_length);
        let (head, blob) = answered.body.split_at(answered.body.len() - 50 * MIB - 2);
        assert_eq!(head, br#"{"jsonrpc":"2.0","id":3,"result":""#);
        assert!(blob.ends_with(b"\"}") && blob[..50 * MIB].iter().all(|byte| *byte == b's'));
        assert!(client.is_silent().await);
    }
}

#[tokio::test]
async fn a_client_that_vanishes_in_the_middle_leaves_nothing_behind() {
    let origin = Origin::start(|seen| match seen.params().as_str() {
        // Answers late.
        "[\"late\"]" => {
            let bytes = ok(answer(seen.id(), "1"));
            Reply::act(async move |mut io| {
                sleep(Duration::from_millis(700)).await;
                io.write_all(&bytes).await.ok()?;
                Some(io)
            })
        }
        // Streams without end.
        _ => Reply::act(async |mut io| {
            io.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"id\":1,\"result\":\"").await.ok()?;
            while io.write_all(&[b's'; 10_000]).await.is_ok() {}
            None
        }),
    })
    .await;
    let proxy = Proxy::over([origin.url()], "").await;
    let connections = async || {
        let metrics = proxy.admin("GET /metrics").await.text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("steadfast_http_connections "));
        line.map(|number| number.parse::<u64>().unwrap())
    };
    // A gauge shows from its first use on.
    drop(proxy.client().await);
    until("the gauge of connections shows", async || connections().await == Some(0)).await;
    for batch in [false, true] {
        let mut clients: Vec<Client> = Vec::new();
        for id in 0..20 {
            let mut client = proxy.client().await;
            let late = call(id, "eth_call", "[\"late\"]");
            let request = if batch { format!("[{late},{late}]") } else { late };
            client.send(post("/", request.as_bytes())).await;
            clients.push(client);
        }
        until("the calls wait", async || proxy.in_flight().await >= 20).await;
        for client in clients {
            client.io.set_zero_linger().unwrap();
        }
        until("no call is counted any more", async || proxy.in_flight().await == 0).await;
        until("no connection is", async || connections().await == Some(0)).await;
    }
    let mut clients: Vec<Client> = Vec::new();
    let idle = origin.open();
    for id in 0..10 {
        let mut client = proxy.client().await;
        client.send(post("/", call(id, "eth_call", "[\"endless\"]").as_bytes())).await;
        clients.push(client);
    }
    until("the streams flow", async || origin.open() >= 10).await;
    sleep(Duration::from_millis(200)).await;
    drop(clients);
    until("the node's connections are closed", async || origin.open() <= idle).await;
    until("the clients' are", async || connections().await == Some(0)).await;
    assert_eq!(proxy.in_flight().await, 0);
}
