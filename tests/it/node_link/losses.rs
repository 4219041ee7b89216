//! Every way in which a connection can end is the same to those who use the link.

use std::time::Duration;

use futures_util::{FutureExt, SinkExt, StreamExt};
use steadfast::net::{
    link::{Error, MAX_MESSAGE, News},
    system::System,
};
use tokio::{
    io::AsyncWriteExt,
    net::TcpListener,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::peer::{Linked, PIPE, Peer, SOON, TIMEOUTS, linked, target};

/// Ends the connection in some way, and keeps of it what must stay open.
type Ending = Box<dyn FnOnce(Peer, &Linked) -> std::pin::Pin<Box<dyn Future<Output = Option<Peer>> + '_>>>;

fn ending<F: Future<Output = Option<Peer>> + 'static>(end: impl FnOnce(Peer) -> F + 'static) -> Ending {
    Box::new(move |peer, _| Box::pin(end(peer)))
}

/// Bytes as they are.
fn raw(bytes: Vec<u8>) -> Ending {
    ending(async move |mut peer: Peer| {
        peer.socket.get_mut().write_all(&bytes).await.unwrap();
        Some(peer)
    })
}

/// The ways: a name, what is done, how long until it must show, and what the status says of it.
fn endings() -> Vec<(&'static str, Ending, Duration, &'static str)> {
    let at_once = Duration::ZERO;
    let length = (MAX_MESSAGE as u64 + 1).to_be_bytes();
    let too_long = [&b"\x81\x7f"[..], &length, &vec![b' '; MAX_MESSAGE + 1]].concat();
    vec![
        (
            "a graceful close",
            ending(async |mut peer: Peer| {
                let close = CloseFrame { code: CloseCode::Away, reason: "s3cret".into() };
                peer.socket.send(Message::Close(Some(close))).await.unwrap();
                // The closing handshake is answered.
                let answer = timeout(SOON, peer.socket.next()).await.unwrap();
                assert!(matches!(answer, Some(Ok(Message::Close(_)))), "{answer:?}");
                Some(peer)
            }),
            at_once,
            "closed the link with code 1001",
        ),
        (
            "a close without a code",
            ending(async |mut peer: Peer| {
                peer.socket.send(Message::Close(None)).await.unwrap();
                Some(peer)
            }),
            at_once,
            "closed the link",
        ),
        ("the end of the stream", ending(async |_peer| None), at_once, "lost"),
        (
            "a reset",
            ending(async |peer: Peer| {
                peer.reset();
                None
            }),
            at_once,
            "connection reset",
        ),
        (
            "the end in the middle of a frame",
            ending(async |mut peer: Peer| {
                peer.socket.get_mut().write_all(b"\x81\x7e\x01\x00{\"id\":").await.unwrap();
                None
            }),
            at_once,
            "lost",
        ),
        // The node lives, but nothing comes through any more.
        (
            "a half-open connection",
            ending(async |peer: Peer| Some(peer)),
            TIMEOUTS.ping + TIMEOUTS.pong,
            "no sign of life",
        ),
        // A call that this answered would wait in vain.
        ("a text over the limit that is no answer", raw(too_long), at_once, "over the limit"),
        ("a frame that is none", raw(b"\xf3\x00".to_vec()), at_once, "lost"),
        ("a text that is not UTF-8", raw(b"\x81\x02\xff\xfe".to_vec()), at_once, "lost"),
        ("bytes that are no text", raw(b"\x82\x02\xff\xfe".to_vec()), at_once, "no text"),
        (
            "garbage",
            ending(async |mut peer: Peer| {
                peer.send("<!-- this is not JSON {").await;
                Some(peer)
            }),
            at_once,
            "no JSON-RPC",
        ),
        (
            "an order from above",
            Box::new(|peer, linked| {
                linked.link.cut("mute");
                Box::pin(async { Some(peer) })
            }),
            at_once,
            "mute",
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn however_a_connection_ends_the_next_one_takes_over() {
    for (name, end, after, why) in endings() {
        let (linked, mut node, mut peer) = linked().await;
        let (feed, ()) = tokio::join!(linked.link.subscribe("eth_subscribe", "[]".into()), peer.grant("0x1"));
        let mut feed = feed.unwrap();
        let mut calls: Vec<_> =
            (0..3).map(|_| Box::pin(linked.link.call(br#"{"id":1,"method":"eth_call"}"#, Some(6..7)))).collect();
        for call in &mut calls {
            assert!(call.as_mut().now_or_never().is_none());
            peer.asked("eth_call").await;
        }
        assert_eq!(linked.metric("link_up"), "1");

        let started = Instant::now();
        let kept = end(peer, &linked).await;
        linked.until(false).await;
        let took = started.elapsed();
        assert!(took >= after && took <= after + Duration::from_millis(10), "{name}: {took:?}");
        assert_eq!(linked.metric("link_up"), "0", "{name}");
        let said = linked.why();
        assert!(said.contains(why) && !said.contains("s3cret"), "{name}: {said}");
        for call in calls {
            assert_eq!(timeout(SOON, call).await.expect(name), Err(Error::Lost), "{name}");
        }
        assert_eq!(timeout(SOON, feed.next()).await.expect(name), Some(News::Lost), "{name}");
        assert_eq!(linked.link.call(b"{}", None).await, Err(Error::NotSent), "{name}");
        drop(kept);

        let mut peer = node.accept().await;
        peer.grant("0x1").await;
        peer.event("0x1", "1").await;
        assert_eq!(feed.next().await, Some(News::Back), "{name}");
        assert_eq!(feed.next().await, Some(News::Event("1".into())), "{name}");
        let status = linked.link.changes().borrow().clone();
        assert_eq!((status.up, status.epoch, status.why_down), (true, 2, None), "{name}");
        assert_eq!(linked.metric("link_up"), "1", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_nothing_is_left_and_gets_no_unsent_call() {
    let (linked, _node, peer) = linked().await;
    let long = format!(r#"{{"id":1,"method":"eth_call","params":["{}"]}}"#, "x".repeat(4 * PIPE));
    let mut first = Box::pin(linked.link.call(long.as_bytes(), Some(6..7)));
    assert!(first.as_mut().now_or_never().is_none());
    sleep(Duration::from_millis(1)).await;
    let started = Instant::now();
    let mut second = Box::pin(linked.link.call(br#"{"id":1,"method":"eth_call"}"#, Some(6..7)));
    assert!(second.as_mut().now_or_never().is_none());
    assert_eq!(timeout(SOON, first).await.unwrap(), Err(Error::Lost));
    assert_eq!(timeout(SOON, second).await.expect("an answer"), Err(Error::NotSent));
    assert!(started.elapsed() <= TIMEOUTS.write + Duration::from_millis(10), "{:?}", started.elapsed());
    assert!(linked.why().contains("taken nothing"), "{}", linked.why());
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn a_slow_node_is_not_taken_for_a_dead_one() {
    let (linked, _node, mut peer) = linked().await;
    // A long call that the node takes bit by bit, far longer than the time limit of one that takes
    // nothing.
    let long = format!(r#"{{"id":1,"method":"eth_call","params":["{}"]}}"#, "x".repeat(10 * PIPE));
    let raw = long.as_bytes();
    let started = Instant::now();
    let (answer, ()) = tokio::join!(linked.link.call(raw, Some(6..7)), async {
        let mut taken = Vec::new();
        while taken.len() < long.len() {
            sleep(Duration::from_secs(2)).await;
            let mut piece = vec![0; PIPE];
            let length = tokio::io::AsyncReadExt::read(peer.socket.get_mut(), &mut piece).await.unwrap();
            assert!(length > 0, "the link is lost: {}", linked.why());
            taken.extend_from_slice(&piece[..length]);
        }
        // And an answer of which a bit comes now and then.
        let text = format!(r#"{{"id":1,"result":"{}"}}"#, "y".repeat(200));
        let head = [&b"\x81\x7e"[..], &(text.len() as u16).to_be_bytes()].concat();
        let bytes = [head, text.into_bytes()].concat();
        for piece in bytes.chunks(20) {
            let written = peer.socket.get_mut().write_all(piece).await;
            assert!(written.is_ok(), "the link is lost: {}", linked.why());
            sleep(TIMEOUTS.ping * 9 / 10).await;
        }
    });
    assert!(answer.unwrap().text.len() > 200);
    assert!(started.elapsed() > TIMEOUTS.ping * 5);
    assert_eq!(linked.link.changes().borrow().epoch, 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_that_answers_pings_is_kept() {
    let (linked, _node, mut peer) = linked().await;
    let (mut pings, started) = (0, Instant::now());
    while pings < 10 {
        match timeout(SOON, peer.socket.next()).await.expect("a ping") {
            Some(Ok(Message::Ping(_))) => pings += 1,
            other => panic!("{other:?}"),
        }
        peer.socket.flush().await.unwrap();
    }
    assert!(started.elapsed() >= TIMEOUTS.ping * 10);
    assert_eq!(linked.link.changes().borrow().epoch, 1);
    assert!(linked.link.is_up());
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_had_to_wait_is_given_its_time_from_when_it_left() {
    let (linked, _node, mut peer) = linked().await;
    // The frame fills the pipe to the last byte.
    let raw = format!("{{\"method\":\"{}\"}}", "x".repeat(PIPE - 8 - 13));
    assert_eq!(linked.link.call(raw.as_bytes(), None).await, Ok(Default::default()));
    sleep(TIMEOUTS.ping + TIMEOUTS.pong + Duration::from_secs(1)).await;
    assert_eq!(peer.text().await.unwrap(), raw);
    let ping = timeout(SOON, peer.socket.next()).await.expect("a ping");
    assert!(matches!(ping, Some(Ok(Message::Ping(_)))), "{ping:?}");
    peer.socket.flush().await.unwrap();
    sleep(TIMEOUTS.pong).await;
    assert_eq!(linked.link.changes().borrow().epoch, 1);
    assert!(linked.link.is_up(), "{}", linked.why());
}

#[tokio::test(start_paused = true)]
async fn odd_messages_that_harm_nobody_are_passed_over() {
    let (linked, _node, mut peer) = linked().await;
    for text in
        [r#"{"message":"welcome"}"#, r#"{"id":null,"error":{"code":-32700,"message":"x"}}"#, r#"{"id":99,"result":1}"#]
    {
        peer.send(text).await;
    }
    peer.socket.send(Message::Ping("x".into())).await.unwrap();
    let pong = timeout(SOON, peer.socket.next()).await.expect("a pong");
    assert!(matches!(pong, Some(Ok(Message::Pong(_)))), "{pong:?}");
    let (answer, ()) = tokio::join!(linked.link.call(br#"{"id":1,"method":"a"}"#, Some(6..7)), async {
        let id = peer.asked("a").await;
        // Answers may come in binary frames.
        peer.socket.send(Message::binary(format!("{{\"id\":{id},\"result\":1}}"))).await.unwrap();
    });
    assert_eq!(answer.unwrap().with_id(b"1"), r#"{"id":1,"result":1}"#);
}

#[tokio::test]
async fn a_reset_of_a_real_socket_is_a_loss() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let linked = Linked::start(std::sync::Arc::new(System), target(&url));
    let mut peer = Peer::accept(listener.accept().await.unwrap().0).await;
    linked.until(true).await;
    let mut call = Box::pin(linked.link.call(br#"{"id":1,"method":"a"}"#, Some(6..7)));
    assert!(call.as_mut().now_or_never().is_none());
    peer.asked("a").await;
    peer.socket.get_mut().set_zero_linger().unwrap();
    drop(peer);
    assert_eq!(timeout(SOON, call).await.unwrap(), Err(Error::Lost));
    let mut peer = Peer::accept(listener.accept().await.unwrap().0).await;
    linked.until(true).await;
    assert_eq!(linked.link.call(b"{}", None).await, Ok(Default::default()));
    assert_eq!(peer.text().await.unwrap(), "{}");
}
