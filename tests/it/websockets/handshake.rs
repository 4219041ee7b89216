//! Who gets a WebSocket, and where.

use super::{answer, echo};
use crate::common::{
    client::{Client, call},
    origin::{Origin, Reply},
    proxy::nodes,
    sim::{Net, Proxy},
    until,
    ws::{ACCEPT, Ws, frame, upgrade},
};

/// The status and the body with which the request is answered.
async fn refusal(proxy: &Proxy, request: &str) -> (u16, String) {
    let mut client = proxy.client().await;
    client.send(request).await;
    let response = client.response().await;
    (response.status, response.text())
}

#[tokio::test(start_paused = true)]
async fn every_path_of_a_network_leads_to_its_websockets() {
    let net = Net::default();
    let main = Origin::within(&net, |seen| Reply::result(seen, "\"main\"")).await;
    let base = Origin::within(&net, |seen| Reply::result(seen, "\"base\"")).await;
    let settings = format!(
        "[[el.primary]]\nname = \"a\"\nhttp = \"{}\"\n[[networks.base.el.primary]]\nname = \"b\"\nhttp = \"{}\"\n",
        main.url(),
        base.url()
    );
    let proxy = Proxy::launch(&net, &settings).await;
    for (path, network) in [
        ("/", "main"),
        ("/ws", "main"),
        ("/el", "main"),
        ("/el/ws", "main"),
        ("/el/ws/", "main"),
        ("/ws?key=1", "main"),
        ("/base", "base"),
        ("/base/ws", "base"),
        ("/base/el/ws", "base"),
    ] {
        let mut ws = Ws::open(proxy.client().await.io, path).await;
        assert_eq!(ws.ask(call(7, "eth_call", "[]")).await, answer(7, &format!("\"{network}\"")), "{path}");
    }
    for path in ["/unknown", "/unknown/ws", "/ws/ws/ws", "/eth/v1/node/version", "/health/ws"] {
        let (status, _) = refusal(&proxy, &upgrade(path, "")).await;
        assert_ne!(status, 101, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_handshake_is_that_of_the_standard() {
    let (_net, _origin, proxy) = echo("").await;
    let mut client = proxy.client().await;
    client.send(upgrade("/", "Sec-WebSocket-Extensions: permessage-deflate\r\n")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let has = |line: &str| head.lines().any(|own| own.eq_ignore_ascii_case(line));
    assert!(has("connection: upgrade") && has("upgrade: websocket"), "{head}");
    assert!(has(&format!("sec-websocket-accept: {ACCEPT}")), "{head}");
    // Nothing was agreed on that the client offered.
    assert!(!head.to_ascii_lowercase().contains("extensions"), "{head}");
}

#[tokio::test(start_paused = true)]
async fn improper_upgrade_request_is_refused_with_a_reason() {
    let (_net, _origin, proxy) = echo("").await;
    let good = upgrade("/", "");
    for (from, to, status) in [
        ("Version: 13", "Version: 8", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        ("dGhlIHNhbXBsZSBub25jZQ==", "short", 400),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        ("Connection: keep-alive, Upgrade", "Connection: keep-alive", 400),
        ("Upgrade: WebSocket", "Upgrade: h2c", 200),
        ("GET ", "PUT ", 405),
    ] {
        let request = good.replacen(from, to, 1);
        assert_ne!(request, good, "{from}");
        assert_eq!(refusal(&proxy, &request).await.0, status, "{to:?} for {from:?}");
    }
    let mut client = proxy.client().await;
    client.send(good.replace("Version: 13", "Version: 8")).await;
    assert_eq!(client.response().await.header("sec-websocket-version"), Some("13"));
    // The connection is HTTP's still.
    assert_eq!(client.post(call(1, "eth_call", "[]")).await.text(), answer(1, "[]"));
}

#[tokio::test(start_paused = true)]
async fn a_web_page_connects_only_if_its_origin_is_allowed() {
    let (_net, _origin, proxy) = echo("[ws]\nallow_origins = [\"https://app.example\"]\n").await;
    let (_net, _origin, closed) = echo("[cors]\norigins = [\"*\"]\n").await;
    let asks = async |proxy: &Proxy, headers: &str| {
        let mut client = proxy.client().await;
        client.send(upgrade("/", headers)).await;
        client.head().await[9..12].to_owned()
    };
    assert_eq!(asks(&proxy, "").await, "101");
    assert_eq!(asks(&proxy, "Origin: https://app.example\r\n").await, "101");
    assert_eq!(asks(&proxy, "Origin: https://evil.example\r\n").await, "403");
    assert_eq!(asks(&proxy, "Origin: null\r\n").await, "403");
    assert_eq!(asks(&proxy, "Origin: https://app.example\r\nOrigin: https://evil.example\r\n").await, "403");
    assert_eq!(asks(&closed, "Origin: https://app.example\r\n").await, "403");
}

#[tokio::test(start_paused = true)]
async fn frames_that_come_with_the_request_are_not_lost() {
    let (_net, _origin, proxy) = echo("").await;
    let bytes = [upgrade("/", "").into_bytes(), frame(0x81, call(1, "eth_call", "[\"a\"]").as_bytes())].concat();
    for cut in (0..=bytes.len()).step_by(7) {
        let mut client = proxy.client().await;
        client.send(&bytes[..cut]).await;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        client.send(&bytes[cut..]).await;
        client.head().await;
        assert_eq!(client.frame().await, (0x81, answer(1, "[\"a\"]").into()), "cut at {cut}");
    }
    // A call by HTTP before it is another matter.
    let mut client: Client<_> = proxy.client().await;
    assert_eq!(client.post(call(1, "eth_call", "[]")).await.text(), answer(1, "[]"));
    client.send(&bytes).await;
    client.head().await;
    assert_eq!(client.frame().await, (0x81, answer(1, "[\"a\"]").into()));
}

#[tokio::test(start_paused = true)]
async fn headers_of_the_upgrade_are_forwarded_with_its_calls() {
    let (_net, origin, proxy) = echo("[calls]\nforward_headers = [\"x-team\"]\n").await;
    let mut client = proxy.client().await;
    client.send(upgrade("/", "X-Team: blue\r\nX-Request-Id: r1\r\nCookie: secret\r\n")).await;
    client.head().await;
    client.send(frame(0x81, call(1, "eth_call", "[]").as_bytes())).await;
    client.frame().await;
    let seen = &origin.seen()[0];
    assert_eq!((seen.header("x-team"), seen.header("x-request-id")), (vec!["blue"], vec!["r1"]));
    assert_eq!((seen.header("cookie"), seen.header("sec-websocket-key")), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn one_websocket_too_many_is_refused_until_another_leaves() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| Reply::result(seen, "[]")).await;
    let settings = ["max_connections = 3\n", &nodes([origin.url()]), "[ws]\nmax_connections = 5\n"].concat();
    let proxy = Proxy::launch(&net, &settings).await;
    until("it is up", async || proxy.verdicts().await == ["up"]).await;
    let mut all = Vec::new();
    for _ in 0..5 {
        let mut ws = proxy.ws().await;
        // One with a subscription is never idle.
        ws.ask(call(1, "eth_subscribe", "[\"newHeads\"]")).await;
        all.push(ws);
    }
    // WebSockets do not use up what HTTP may have.
    assert_eq!(proxy.post(call(1, "eth_call", "[]")).await.text(), answer(1, "[]"));
    let (status, text) = refusal(&proxy, &upgrade("/", "")).await;
    assert_eq!(status, 503);
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    let data = &told["error"]["data"];
    assert_eq!((&told["error"]["code"], &data["reason"]), (&(-32005).into(), &"ws.max_connections".into()), "{text}");
    assert_eq!(proxy.metric("steadfast_ws_connections_refused_total", "").await, 1.0);
    assert_eq!(proxy.metric("steadfast_ws_connections", "").await, 5.0);
    all.pop();
    until("one has left", async || proxy.metric("steadfast_ws_connections", "").await == 4.0).await;
    let mut ws = proxy.ws().await;
    assert_eq!(ws.ask(call(1, "eth_call", "[]")).await, answer(1, "[]"));
    assert_eq!(proxy.metric("steadfast_ws_connections_total", "").await, 6.0);
}

#[tokio::test(start_paused = true)]
async fn the_longest_idle_websocket_makes_room_for_the_next() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| Reply::result(seen, "[]")).await;
    let settings = [&nodes([origin.url()]), "[ws]\nmax_connections = 3\n"].concat();
    let proxy = Proxy::launch(&net, &settings).await;
    until("it is up", async || proxy.verdicts().await == ["up"]).await;
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(proxy.ws().await);
    }
    all[0].ask(call(1, "eth_subscribe", "[\"newHeads\"]")).await;
    for id in [1, 2] {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(all[3 - id].ask(call(1, "eth_call", "[]")).await, answer(1, "[]"));
    }
    let mut next = proxy.ws().await;
    assert_eq!(next.ask(call(1, "eth_call", "[]")).await, answer(1, "[]"));
    let (code, why) = all.pop().unwrap().closed().await;
    assert!(code == 1013 && why.contains("makes room"), "{code} {why}");
    assert_eq!(all[1].ask(call(2, "eth_call", "[]")).await, answer(2, "[]"));
}
