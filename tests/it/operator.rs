//! The operator's side of a running proxy: reloads, limits, secrets, and the admin port.

mod access_log;
mod addresses;
mod file;
mod generated;
mod health;
mod log_rate;
mod pools;
pub(crate) mod process;
mod reference;
mod refusals;
mod seats;
mod shares;
#[cfg(target_os = "linux")]
mod supervisor;
mod terminal;
mod words;

use std::{future::pending, net::SocketAddr, time::Duration};

use crate::common::{
    client::{Client, ROUNDABOUT, call, post, with_headers},
    origin::{Origin, Reply, chain, ok, response},
    proxy::{self, nodes},
    sim::{Net, Proxy},
    until,
};
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep},
};

fn answer(id: impl std::fmt::Display, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

async fn well(net: &Net) -> Origin {
    Origin::within(net, |seen| Reply::result(seen, "\"well\"")).await
}

/// A node that answers probes, and calls never.
async fn stuck(net: &Net) -> Origin {
    Origin::within(net, |_| Reply::act(async |_io| pending().await)).await
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_goes_on_at_the_nodes_that_a_reload_brings() {
    for method in ["eth_call", "eth_sendTransaction"] {
        for headers in ["", ROUNDABOUT] {
            for batch in [false, true] {
                let net = Net::default();
                let good = well(&net).await;
                let proxy = Proxy::launch(&net, &nodes(["http://127.0.0.1:1"])).await;
                let single = call(1, method, "[]");
                let body = if batch { format!("[{single}]") } else { single };
                let mut client = proxy.client().await;
                client.send(with_headers("/", headers, body.as_bytes())).await;
                until("it waits", async || proxy.metric("steadfast_held_calls", "").await >= 1.0).await;
                sleep(Duration::from_secs(1)).await;
                proxy.reload(&nodes([good.url()])).await;
                let reloaded = Instant::now();
                let text = client.response().await.text();
                let expected = answer(1, "\"well\"");
                assert_eq!(text, if batch { format!("[{expected}]") } else { expected }, "{method}, {headers:?}");
                assert!(reloaded.elapsed() < Duration::from_millis(100), "{:?}", reloaded.elapsed());
                assert_eq!(good.methods(), [method]);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_at_a_hanging_node_is_saved_after_a_reload_too() {
    // The node that hangs is replaced, or stays; the one that saves is there already, or comes.
    for (before, after) in [(vec![0, 1], vec![1]), (vec![0, 1], vec![1, 0]), (vec![0], vec![1]), (vec![0], vec![0, 1])]
    {
        let net = Net::default();
        let origins = [stuck(&net).await, well(&net).await];
        let _chain = chain(&origins);
        let settings = |of: &[usize]| nodes(of.iter().map(|node| origins[*node].url()));
        let proxy = Proxy::launch(&net, &settings(&before)).await;
        until("all are up", async || proxy.verdicts().await.iter().all(|verdict| verdict == "up")).await;
        let mut client = proxy.client().await;
        let asked = Instant::now();
        client.send(post("/", call(1, "eth_call", "[]").as_bytes())).await;
        until("it is on its way", async || origins[0].seen().len() == 1).await;
        origins[0].mute();
        sleep(Duration::from_millis(200)).await;
        proxy.reload(&settings(&after)).await;
        let text = client.response().await.text();
        let took = asked.elapsed();
        assert_eq!(text, answer(1, "\"well\""), "{before:?} to {after:?}");
        assert!(took < Duration::from_secs(4), "{before:?} to {after:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_at_a_node_that_a_reload_removes_gets_its_answer() {
    for method in ["eth_call", "eth_sendTransaction"] {
        let net = Net::default();
        let slow = Origin::within(&net, |seen| {
            let bytes = ok(answer(seen.id(), "\"slow\""));
            Reply::act(async move |mut io| {
                sleep(Duration::from_secs(7)).await;
                io.write_all(&bytes).await.ok()?;
                Some(io)
            })
        })
        .await;
        let good = well(&net).await;
        let proxy = Proxy::over(&net, [slow.url()], "").await;
        let mut client = proxy.client().await;
        client.send(post("/", call(1, method, "[{}]").as_bytes())).await;
        until("it is on its way", async || slow.seen().len() == 1).await;
        proxy.reload(&nodes([good.url()])).await;
        assert_eq!(proxy.post(call(2, method, "[{}]")).await.text(), answer(2, "\"well\""));
        assert_eq!(client.response().await.text(), answer(1, "\"slow\""), "{method}");
        assert_eq!((slow.seen().len(), good.seen().len()), (1, 1), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_as_the_settings_last_read_say() {
    let net = Net::default();
    let origin = stuck(&net).await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    let mut client = proxy.client().await;
    client.send(post("/", call(1, "eth_sendTransaction", "[{}]").as_bytes())).await;
    until("it is on its way", async || origin.seen().len() == 1).await;
    proxy.reload(&format!("shutdown_grace = \"2s\"\n{}", nodes([origin.url()]))).await;
    let told = Instant::now();
    proxy.app.shutdown().await;
    let took = told.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn one_client_too_many_is_closed_and_counted_while_all_are_busy() {
    const REFUSED: &str = "steadfast_http_connections_refused_total";
    let net = Net::default();
    let origin = stuck(&net).await;
    let settings = format!("max_connections = 3\n{}", nodes([origin.url()]));
    let proxy = Proxy::launch(&net, &settings).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let mut clients = Vec::new();
    for id in 0..3 {
        let mut client = proxy.client().await;
        // A client leaves the fast path.
        let headers = if id == 1 { ROUNDABOUT } else { "" };
        client.send(with_headers("/", headers, call(id, "eth_sendTransaction", "[]").as_bytes())).await;
        clients.push(client);
    }
    until("all are busy", async || proxy.in_flight().await == 3).await;
    for count in 1..=2 {
        let mut other = proxy.client().await;
        assert_eq!(other.response().await.status, 503, "one more was let in");
        assert!(other.is_closed().await);
        let refused = proxy.metric(REFUSED, "").await;
        assert!((refused - f64::from(count)).abs() < 0.5, "{refused}");
    }
    // Their calls end, and who has nothing under way makes room. The limit can be raised while the
    // proxy runs.
    sleep(Duration::from_secs(40)).await;
    assert_eq!(proxy.client().await.post("{}").await.status, 400);
    let crowded = proxy.metric("steadfast_client_connections_ended_total", "reason=\"crowded\"").await;
    assert!((crowded - 1.0).abs() < 0.5, "{crowded}");
    proxy.reload(&settings.replace("max_connections = 3", "max_connections = 10")).await;
    assert_eq!(proxy.client().await.post("{}").await.status, 400);
    let crowded = proxy.metric("steadfast_client_connections_ended_total", "reason=\"crowded\"").await;
    assert!((crowded - 1.0).abs() < 0.5, "{crowded}");
}

#[tokio::test(start_paused = true)]
async fn secrets_that_a_node_echoes_are_not_shown() {
    // In an Authorization header without its scheme, decoded from a URL, in short, and across the
    // end of a long text.
    let secrets = ["T0pSecretToken", "us3r-name", "p4ss/word", "k3y-in-path", "q1z9", "x-h3ader-value"];
    for long in std::iter::once(0).chain((230..=252).step_by(2)) {
        for secret in secrets {
            let net = Net::default();
            let origin = well(&net).await;
            let words = format!("{}invalid credential {secret}!", "w".repeat(long));
            let error = format!(r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":-32000,"message":"{words}"}}}}"#);
            origin.ail(Some(ok(&error)));
            let port = origin.port();
            let nodes = format!(
                "[[el.primary]]\nname = \"a\"\nhttp = \"http://us3r-name:p4ss%2Fword@127.0.0.1:{port}/v3/k3y-in-path?q=q1z9\"\n\
                 headers = {{ X-Key = \"x-h3ader-value\" }}\n\
                 [[el.backup]]\nname = \"b\"\nhttp = \"http://127.0.0.1:{port}\"\n\
                 headers = {{ Authorization = \"Bearer T0pSecretToken\" }}\n"
            );
            let proxy = Proxy::launch(&net, &nodes).await;
            until("both are down for it", async || {
                let side = proxy.side().await;
                side["nodes"].as_array().unwrap().iter().all(|node| node["last_error"].is_object())
            })
            .await;
            let side = proxy.side().await;
            let node = &side["nodes"][usize::from(secret == secrets[0])];
            let message = node["last_error"]["message"].as_str().unwrap();
            // A piece of it would do to recognise it.
            assert!(!message.contains(&secret[..4]), "{long}: {message}");
            assert!(long > 0 || message.contains("invalid credential ***"), "{message}");
            assert!(!node["url"].as_str().unwrap().contains(secret), "{node}");
        }
    }
}

/// The status of the operator's side's answer to a GET with this `Host` line, or without one.
async fn asked_as(addr: SocketAddr, method: &str, host: Option<&str>) -> u16 {
    let mut client = Client::connect(addr).await;
    let (version, host) = host.map_or(("1.0", String::new()), |host| ("1.1", format!("Host: {host}\r\n")));
    client.send(format!("{method} HTTP/{version}\r\n{host}Content-Length: 0\r\nConnection: close\r\n\r\n")).await;
    client.response().await.status
}

#[tokio::test]
async fn the_admin_port_on_loopback_answers_to_no_other_name() {
    let origin = Origin::echo().await;
    let proxy = proxy::Proxy::over([origin.url()], "").await;
    let addr = proxy.app.admin_addr();
    let port = addr.port();
    for method in ["GET /status", "GET /metrics", "POST /undrain", "POST /nodes/el-1/uncordon"] {
        for host in ["127.0.0.1", "localhost", "LocalHost", "[::1]", "10.1.2.3"] {
            for host in [host.to_owned(), format!("{host}:{port}")] {
                assert_eq!(asked_as(addr, method, Some(&host)).await, 200, "{method} as {host}");
            }
        }
        assert_eq!(asked_as(addr, method, None).await, 200, "{method}");
        for host in [
            "evil.example",
            "localhost.evil.example",
            "evil-localhost",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "localhost:1@evil.example",
            "1.2.3",
            "127.1.evil",
        ] {
            for host in [host.to_owned(), format!("{host}:{port}")] {
                let status = asked_as(addr, method, Some(&host)).await;
                assert!(matches!(status, 400 | 403), "{method} as {host}: {status}");
            }
        }
    }
}

#[tokio::test]
async fn the_admin_port_refuses_what_is_no_http_in_its_own_form() {
    let origin = Origin::echo().await;
    let proxy = proxy::Proxy::over([origin.url()], "").await;
    let addr = proxy.app.admin_addr();
    let get = |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    let (no_http, too_long) = ("this is no request of HTTP/1.1", "the head of the request is too long");
    for (request, status, words) in [
        ("\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03\r\n\r\n".to_owned(), 400, no_http),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400, no_http),
        ("GET\r\n\r\n".to_owned(), 400, no_http),
        (get("/status", "no colon\r\n"), 400, no_http),
        (get("/status", "Content-Length: x\r\n"), 400, no_http),
        (get("/status", &"A: b\r\n".repeat(200)), 431, too_long),
        (get("/status", &format!("A: {}\r\n", "b".repeat(900_000))), 431, too_long),
        (get(&format!("/{}", "b".repeat(70_000)), ""), 414, "the request line is too long"),
    ] {
        for is_first in [true, false] {
            let mut client = Client::connect(addr).await;
            if !is_first {
                client.send(get("/livez", "")).await;
                assert_eq!(client.response().await.text(), "ok\n");
            }
            client.send(&request).await;
            let response = client.response().await;
            let name = &request[..request.len().min(40)];
            assert_eq!(response.status, status, "{name}, first: {is_first}: {response:?}");
            assert_eq!(response.header("content-type"), Some("application/json"), "{name}");
            assert_eq!(response.json()["error"], words, "{name}");
            assert!(client.is_closed().await, "{name}");
        }
    }
}

#[tokio::test]
async fn a_page_of_a_rebound_name_can_drain_nothing() {
    let origin = Origin::echo().await;
    let proxy = proxy::Proxy::over([origin.url()], "").await;
    let addr = proxy.app.admin_addr();
    for host in ["evil.example", "localhost"] {
        let host = format!("{host}:{}", addr.port());
        let mut client = Client::connect(addr).await;
        let fields = format!("Host: {host}\r\nOrigin: http://{host}\r\nContent-Length: 0\r\n");
        client.send(format!("POST /drain HTTP/1.1\r\n{fields}\r\n")).await;
        let expected = if host.starts_with("evil") { 403 } else { 200 };
        assert_eq!(client.response().await.status, expected, "{host}");
        assert_eq!(proxy.admin("GET /readyz").await.status, if expected == 403 { 200 } else { 503 });
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_repeats_a_key_reaches_the_client_without_it() {
    const KEYS: [&str; 2] = ["sup3rs3cretkey", "t0k3n0fth3node"];
    let net = Net::default();
    let words = KEYS.map(|key| format!("no such route: /v2/{key}")).concat();
    let said = words.clone();
    let origin = Origin::within(&net, move |seen| match &*seen.method() {
        "eth_call" => Reply::error(seen, 3, &said),
        "eth_getLogs" => Reply::error(seen, -32603, &said),
        "eth_getCode" => {
            let body =
                format!(r#"{{"error":{{"code":-32005,"message":"{said}"}},"id":{},"jsonrpc":"2.0"}}"#, seen.id());
            Reply::Bytes(response("429 Too Many Requests", "", body))
        }
        _ => Reply::result(seen, &format!("\"{said}\"")),
    })
    .await;
    let url = format!("{}/v2/{}", origin.url(), KEYS[0]);
    let headers = format!("headers = {{ Authorization = \"Bearer {}\" }}\n", KEYS[1]);
    let proxy = Proxy::over(&net, [&*url], &headers).await;
    for id in ["7", "\"t0k3n0fth3node\"", "1.50"] {
        for method in ["eth_call", "eth_getLogs", "eth_getCode"] {
            let text = proxy.post(call(id, method, "[]")).await.text();
            assert!(text.contains("no such route: /v2/***no such route: /v2/***"), "{method}: {text}");
            assert!(text.contains(&format!("\"id\":{id}")), "{method}: {text}");
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
        // The node is left alone for a while after it refused, and then has its say again.
        sleep(Duration::from_secs(60)).await;
        // A result is data, and goes as it came.
        assert_eq!(proxy.post(call(id, "eth_getBalance", "[]")).await.text(), answer(id, &format!("\"{words}\"")));
    }
}
