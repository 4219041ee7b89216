//! How a WebSocket ends: by the client's word, by its breach of the rules, by its silence, or with the proxy.

use std::{future::pending, time::Duration};

use serde_json::Value;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep},
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{answer, echo};
use crate::common::{
    client::{Client, call},
    origin::{Origin, Reply, ok},
    proxy::nodes,
    sim::{Net, Proxy},
    until,
    ws::frame,
};

async fn open(proxy: &Proxy) -> f64 {
    proxy.metric("steadfast_ws_connections", "").await
}

#[tokio::test(start_paused = true)]
async fn a_close_is_answered_in_kind_and_ends_calls_under_way() {
    let net = Net::default();
    let origin = Origin::within(&net, |_| Reply::act(async |_io| pending().await)).await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    for (code, expected) in [(Some(1000_u16), 1000), (Some(4321), 4321), (None, 1005)] {
        let mut ws = proxy.ws().await;
        ws.send(call(1, "eth_call", "[]")).await;
        until("the node has it", async || proxy.in_flight().await == 1).await;
        ws.message(Message::Close(code.map(|code| CloseFrame { code: CloseCode::from(code), reason: "bye".into() })))
            .await;
        assert_eq!(ws.closed().await.0, expected);
        ws.gone().await;
        until("the call is gone", async || proxy.in_flight().await == 0).await;
        assert_eq!(open(&proxy).await, 0.0);
    }
}

/// What breaks the rules, the code for it, and what is wrong.
fn breaches() -> Vec<(Vec<u8>, u16, &'static str)> {
    vec![
        ([&[0x81, 2][..], b"{}"].concat(), 1002, "no mask"),
        (frame(0xc1, b"{}"), 1002, "a reserved bit"),
        (frame(0x83, b"{}"), 1002, "an unknown opcode"),
        (frame(0x8b, b""), 1002, "an unknown control opcode"),
        (frame(0x80, b"{}"), 1002, "nothing to continue"),
        ([frame(0x01, b"{"), frame(0x81, b"}")].concat(), 1002, "a message in a message"),
        (frame(0x09, b""), 1002, "a ping in pieces"),
        (frame(0x89, &[0; 126]), 1002, "a long ping"),
        (frame(0x81, &[b'"', 0xc3, 0x28, b'"']), 1007, "a text that is no text"),
        (frame(0x81, &[0xff]), 1007, "a byte that is no text"),
        (frame(0x81, &[b'x'; 2000]), 1009, "a long message"),
        ([frame(0x01, &[b'x'; 700]), frame(0x80, &[b'x'; 700])].concat(), 1009, "a message that grows long"),
    ]
}

/// Close frames that no client may send.
fn bad_closes() -> Vec<(Vec<u8>, u16, &'static str)> {
    vec![
        (frame(0x88, &[3]), 1002, "half a close code"),
        (frame(0x88, &[3, 0xed]), 1002, "a close code that is none"),
        (frame(0x88, &[3, 0xe8, 0xff]), 1007, "a reason that is no text"),
        (frame(0x88, &[0; 126]), 1002, "a long close frame"),
        (frame(0x08, &[3, 0xe8]), 1002, "a close frame in pieces"),
    ]
}

#[tokio::test(start_paused = true)]
async fn client_that_breaks_the_rules_is_closed_with_its_code() {
    let (_net, origin, proxy) = echo("[ws]\nmax_message = \"1kB\"\n").await;
    for (bytes, code, why) in breaches() {
        let mut client = proxy.client().await.upgraded("/").await;
        client.send(&bytes).await;
        assert_eq!(client.close_code().await, code, "{why}");
        // What follows is not served, and the end comes though the client does not close.
        let closed = Instant::now();
        client.send(frame(0x81, call(1, "eth_call", "[]").as_bytes())).await;
        assert!(client.is_closed().await, "{why}");
        assert_eq!(closed.elapsed().as_millis() / 100, 20, "{why}");
    }
    assert_eq!(origin.seen().len(), 0);
    until("all are gone", async || open(&proxy).await == 0.0).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_breach_the_connection_ends_when_the_client_ends_it() {
    let (_net, origin, proxy) = echo("[ws]\nmax_message = \"1kB\"\n").await;
    let at_once = |since: Instant| since.elapsed() < Duration::from_millis(10);
    for (bytes, code, why) in breaches() {
        // By its close frame, behind what it had sent before it knew, cut anywhere.
        let sent =
            [frame(0x81, call(1, "eth_call", "[]").as_bytes()), frame(0xff, b"x"), frame(0x88, &[3, 0xe8])].concat();
        for cut in [0, 1, 7, sent.len() - 5, sent.len() - 1, sent.len()] {
            let mut client = proxy.client().await.upgraded("/").await;
            let since = Instant::now();
            client.send(&[&bytes, &sent[..cut]].concat()).await;
            assert_eq!(client.close_code().await, code, "{why}");
            if cut < sent.len() {
                client.send(&sent[cut..]).await;
            }
            assert!(client.is_closed().await && at_once(since), "{why}, cut at {cut}: {:?}", since.elapsed());
        }
        // By the end of the connection.
        let mut client = proxy.client().await.upgraded("/").await;
        let since = Instant::now();
        client.send(&bytes).await;
        assert_eq!(client.close_code().await, code, "{why}");
        client.io.shutdown().await.unwrap();
        assert!(client.is_closed().await && at_once(since), "{why}: {:?}", since.elapsed());
    }
    for (bytes, code, why) in bad_closes() {
        let mut client = proxy.client().await.upgraded("/").await;
        let since = Instant::now();
        client.send(&bytes).await;
        assert_eq!(client.close_code().await, code, "{why}");
        assert!(client.is_closed().await && at_once(since), "{why}: {:?}", since.elapsed());
    }
    assert_eq!(origin.seen().len(), 0);
    until("all are gone", async || open(&proxy).await == 0.0).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_closed_for_a_reload_ends_it_by_closing_too() {
    for closes in [true, false] {
        let (_net, origin, proxy) = echo("").await;
        let mut client = proxy.client().await.upgraded("/").await;
        proxy.reload(&format!("[[networks.base.el.primary]]\nname = \"b\"\nhttp = \"{}\"\n", origin.url())).await;
        assert_eq!(client.close_code().await, 1012);
        let since = Instant::now();
        // Part of a message is under way, and a ping that is not answered any more.
        client.send(&frame(0x81, &[b'x'; 300])[..100]).await;
        sleep(Duration::from_millis(500)).await;
        client.send([vec![b'x'; 300 - 92], frame(0x89, b"x")].concat()).await;
        if closes {
            client.send(frame(0x88, &[3, 0xf4])).await;
        }
        assert!(client.is_closed().await);
        let expected = if closes { 5 } else { 20 };
        assert_eq!(since.elapsed().as_millis() / 100, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_with_what_they_carry() {
    let (_net, _origin, proxy) = echo("").await;
    let mut client = proxy.client().await.upgraded("/").await;
    for payload in [&b""[..], b"x", &[7; 125]] {
        client.send(frame(0x89, payload)).await;
        assert_eq!(client.frame().await, (0x8a, payload.to_vec().into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_and_lives_as_long_as_it_answers() {
    let (_net, _origin, proxy) = echo("[ws]\nping_interval = \"5s\"\n").await;
    let mut client = proxy.client().await.upgraded("/").await;
    let mut last = Instant::now();
    for round in 0..5 {
        assert_eq!(client.frame().await, (0x89, "".into()), "{round}");
        assert_eq!(last.elapsed().as_millis() / 100, 50, "{round}");
        sleep(Duration::from_secs(1)).await;
        client.send(frame(0x8a, b"")).await;
        last = Instant::now();
    }
    // Calls are signs of life as good as pongs.
    for id in 0..10 {
        client.send(frame(0x81, call(id, "eth_call", "[]").as_bytes())).await;
        assert_eq!(client.frame().await, (0x81, answer(id, "[]").into()));
        sleep(Duration::from_secs(3)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_client_is_noticed() {
    let (net, _origin, proxy) = echo("[ws]\nping_interval = \"5s\"\n").await;
    // It holds its end open and does nothing, as a machine whose network is gone.
    let dead = Client::over(net.connect(proxy.app.addr().port()).await.unwrap()).upgraded("/").await;
    assert_eq!(open(&proxy).await, 1.0);
    sleep(Duration::from_secs(9)).await;
    assert_eq!(open(&proxy).await, 1.0);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(open(&proxy).await, 0.0);
    drop(dead);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_long_for_its_answers_is_not_dead() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| {
        let reply = answer(seen.id(), "1");
        Reply::act(async move |mut io| {
            sleep(Duration::from_secs(25)).await;
            io.write_all(&ok(reply)).await.ok()?;
            Some(io)
        })
    })
    .await;
    let settings =
        "[calls]\ntimeout = \"60s\"\nattempt_timeout = \"30s\"\n[ws]\nping_interval = \"2s\"\nmax_calls = 300\n";
    let proxy = Proxy::over(&net, [origin.url()], settings).await;
    let mut ws = proxy.ws().await;
    for id in 0..300 {
        ws.send(call(id, "eth_sendTransaction", "[]")).await;
    }
    for _ in 0..300 {
        assert!(ws.text().await.contains("\"result\":1"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_ends_or_vanishes_leaves_nothing_behind() {
    let net = Net::default();
    let origin = Origin::within(&net, |_| Reply::act(async |_io| pending().await)).await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    for half in [true, false] {
        let mut client = proxy.client().await.upgraded("/").await;
        for id in 0..20 {
            client.send(frame(0x81, call(id, "eth_call", "[]").as_bytes())).await;
        }
        until("the node has them", async || proxy.in_flight().await == 20).await;
        if half {
            client.io.shutdown().await.unwrap();
            assert!(client.is_closed().await);
        }
        drop(client);
        until("the calls are gone", async || proxy.in_flight().await == 0).await;
        until("it is gone", async || open(&proxy).await == 0.0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_lets_calls_finish_and_then_closes_with_1012() {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| {
        let reply = answer(seen.id(), "1");
        Reply::act(async move |mut io| {
            sleep(Duration::from_secs(3)).await;
            io.write_all(&ok(reply)).await.ok()?;
            Some(io)
        })
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    let (mut idle, mut busy) = (proxy.ws().await, proxy.ws().await);
    for id in 0..10 {
        busy.send(call(id, "eth_sendTransaction", "[]")).await;
    }
    until("the node has them", async || proxy.in_flight().await == 10).await;
    let began = Instant::now();
    let Proxy { app, .. } = proxy;
    let shutdown = tokio::spawn(app.shutdown());
    assert_eq!(idle.closed().await.0, 1012);
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    for _ in 0..10 {
        assert!(busy.text().await.contains("\"result\":1"));
    }
    assert_eq!(busy.closed().await.0, 1012);
    idle.gone().await;
    busy.gone().await;
    shutdown.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_no_call_longer_than_the_grace_time() {
    let net = Net::default();
    let origin = Origin::within(&net, |_| Reply::act(async |_io| pending().await)).await;
    let proxy = Proxy::over(&net, [origin.url()], "").await;
    let settings = [nodes([origin.url()]), "shutdown_grace = \"5s\"\n".to_owned()].concat();
    drop(proxy);
    let proxy = Proxy::launch(
        &net,
        &["shutdown_grace = \"5s\"\n", &settings.replace("shutdown_grace = \"5s\"\n", "")].concat(),
    )
    .await;
    until("it is up", async || proxy.verdicts().await == ["up"]).await;
    let mut ws = proxy.ws().await;
    ws.send(call(1, "eth_sendTransaction", "[]")).await;
    until("the node has it", async || proxy.in_flight().await == 1).await;
    let began = Instant::now();
    let Proxy { app, .. } = proxy;
    let shutdown = tokio::spawn(app.shutdown());
    assert_eq!(ws.closed().await.0, 1012);
    ws.gone().await;
    shutdown.await.unwrap();
    assert!(began.elapsed() <= Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_tells_held_calls_so_and_then_closes() {
    let net = Net::default();
    let proxy = Proxy::launch(
        &net,
        "[[el.primary]]\nname = \"a\"\nhttp = \"http://127.0.0.1:1\"\n[calls]\nhold = \"60s\"\ntimeout = \"90s\"\n",
    )
    .await;
    let mut ws = proxy.ws().await;
    ws.send(call(1, "eth_call", "[]")).await;
    until("it waits", async || proxy.metric("steadfast_held_calls", "").await >= 1.0).await;
    let Proxy { app, .. } = proxy;
    let shutdown = tokio::spawn(app.shutdown());
    // In time for the answer, or at least for the close.
    let mut codes = Vec::new();
    loop {
        match ws.next().await {
            Some(Ok(Message::Text(text))) => {
                let error: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(error["error"]["data"]["reason"], "shutting_down");
            }
            Some(Ok(Message::Close(Some(close)))) => codes.push(u16::from(close.code)),
            Some(Ok(Message::Ping(_))) => {}
            other => {
                assert!(other.is_none(), "{other:?}");
                break;
            }
        }
    }
    assert_eq!(codes, [1012]);
    shutdown.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reload_closes_with_1012_only_if_the_network_goes() {
    let net = Net::default();
    let first = Origin::within(&net, |seen| Reply::result(seen, "\"first\"")).await;
    let second = Origin::within(&net, |seen| Reply::result(seen, "\"second\"")).await;
    let proxy = Proxy::over(&net, [first.url()], "").await;
    let mut ws = proxy.ws().await;
    assert_eq!(ws.ask(call(1, "eth_call", "[]")).await, answer(1, "\"first\""));
    proxy.reload(&nodes([second.url()])).await;
    assert_eq!(ws.ask(call(2, "eth_call", "[]")).await, answer(2, "\"second\""));
    assert!(ws.is_silent().await);
    let other = format!("[[networks.base.el.primary]]\nname = \"b\"\nhttp = \"{}\"\n", second.url());
    proxy.reload(&other).await;
    assert_eq!(ws.closed().await, (1012, "the network is served no longer".to_owned()));
    ws.gone().await;
}

#[tokio::test(start_paused = true)]
async fn limits_that_a_reload_changes_hold_for_those_who_are_there() {
    let (_net, origin, proxy) = echo("[ws]\nping_interval = \"10m\"\n").await;
    let mut ws = proxy.ws().await;
    proxy.reload(&[nodes([origin.url()]), "[ws]\nmax_message = \"100B\"\n".to_owned()].concat()).await;
    ws.send(call(1, "eth_call", &format!("[\"{}\"]", "x".repeat(100)))).await;
    assert_eq!(ws.closed().await.0, 1009);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_is_not_sent_when_its_client_is_gone() {
    for calls in [5, 300] {
        let net = Net::default();
        let origin = Origin::within(&net, |seen| Reply::result(seen, "1")).await;
        let proxy =
            Proxy::over(&net, [origin.url()], "[calls]\nhold = \"60s\"\ntimeout = \"90s\"\n[health]\nfall = 1\n").await;
        origin.ail(Some(b"HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n".to_vec()));
        until("it is down", async || proxy.verdicts().await != ["up"]).await;
        let mut ws = proxy.ws().await;
        for id in 0..calls {
            ws.send(call(id, "eth_sendTransaction", "[]")).await;
        }
        until("they wait", async || proxy.metric("steadfast_held_calls", "").await >= 5.0).await;
        drop(ws);
        sleep(Duration::from_secs(1)).await;
        origin.ail(None);
        until("it is up", async || proxy.verdicts().await == ["up"]).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(origin.seen().len(), 0, "of {calls}");
    }
}

#[tokio::test(start_paused = true)]
async fn whose_network_was_removed_is_told_of_a_shutdown_too() {
    let net = Net::default();
    let first = Origin::within(&net, |_| Reply::act(async |_io| pending().await)).await;
    let second = Origin::within(&net, |seen| Reply::result(seen, "\"second\"")).await;
    let proxy = Proxy::over(&net, [first.url()], "[calls]\ntimeout = \"90s\"\nattempt_timeout = \"80s\"\n").await;
    let mut ws = proxy.ws().await;
    ws.send(call(1, "eth_sendTransaction", "[]")).await;
    until("the node has it", async || proxy.in_flight().await == 1).await;
    let other = format!("[[networks.base.el.primary]]\nname = \"b\"\nhttp = \"{}\"\n", second.url());
    proxy.reload(&other).await;
    sleep(Duration::from_secs(1)).await;
    let Proxy { app, .. } = proxy;
    let shutdown = tokio::spawn(app.shutdown());
    loop {
        match ws.next().await {
            Some(Ok(Message::Close(Some(close)))) => {
                assert_eq!(u16::from(close.code), 1012);
                break;
            }
            Some(Ok(Message::Ping(_))) => {}
            other => panic!("{other:?}"),
        }
    }
    ws.gone().await;
    shutdown.await.unwrap();
}
