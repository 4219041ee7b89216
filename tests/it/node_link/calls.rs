//! Calls over a link.

use std::{
    collections::BTreeSet,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, SinkExt, future::join_all};
use steadfast::net::{
    BoxFuture, BoxIo, Dial, Endpoint, Io,
    link::{Error, MAX_MESSAGE, Response},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    task::yield_now,
    time::sleep,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use super::peer::{Linked, PIPE, Peer, linked, target};

/// A request with `id`, and where that stands.
fn call(id: &str, params: &str) -> (String, std::ops::Range<usize>) {
    let head = r#"{"jsonrpc":"2.0","id":"#;
    (format!(r#"{head}{id},"method":"eth_call","params":{params}}}"#), head.len()..head.len() + id.len())
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_get_their_own_answers_in_any_order() {
    let (linked, _node, mut peer) = linked().await;
    let ids = ["1", "1", "null", "\"1\"", "1.50e400", "123456789012345678901234567890", "\"a\\\"}é\"", "-0"];
    let calls: Vec<_> = (0..400).map(|n| (n, call(ids[n % ids.len()], &format!("[ {n} ]")))).collect();
    let asking = join_all(calls.iter().map(|(n, (raw, place))| {
        let link = linked.link.clone();
        async move {
            let answer = link.call(raw.as_bytes(), Some(place.clone())).await.unwrap();
            let id = ids[n % ids.len()];
            // The id is the caller's again, and all else byte for byte what the node wrote,
            // wherever it put the id.
            let expected = match n % 3 {
                0 => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"id":{n}}}}}"#),
                1 => format!(r#"{{ "result" : [{n}] , "id" : {id} }}"#),
                _ => format!(r#"{{"error":{{"code":3,"message":"{n}"}},"id":{id},"jsonrpc":"2.0"}}"#),
            };
            assert_eq!(answer.with_id(id.as_bytes()), expected);
        }
    }));
    let serving = async {
        let mut requests = Vec::new();
        for _ in 0..calls.len() {
            requests.push(peer.request().await);
        }
        let distinct: BTreeSet<u64> = requests.iter().map(|request| request["id"].as_u64().unwrap()).collect();
        assert_eq!(distinct.len(), calls.len(), "an id is used twice");
        for request in requests.iter().rev() {
            let (n, id) = (request["params"][0].as_u64().unwrap(), &request["id"]);
            let text = match n % 3 {
                0 => format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"id":{n}}}}}"#),
                1 => format!(r#"{{ "result" : [{n}] , "id" : {id} }}"#),
                _ => format!(r#"{{"error":{{"code":3,"message":"{n}"}},"id":{id},"jsonrpc":"2.0"}}"#),
            };
            peer.send(text).await;
        }
    };
    tokio::join!(asking, serving);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_long_ends_its_own_call_alone() {
    let (linked, _node, mut peer) = linked().await;
    for (id_first, frames) in [(true, 1), (false, 1), (true, 3), (false, 70)] {
        let ((long, place), (short, other)) = (call("1", "[1]"), call("2", "[2]"));
        let asking = async {
            let long = linked.link.call(long.as_bytes(), Some(place));
            futures_util::future::join(long, linked.link.call(short.as_bytes(), Some(other))).await
        };
        let serving = async {
            let (long, short) = (peer.asked("eth_call").await, peer.asked("eth_call").await);
            let result = "é".repeat(MAX_MESSAGE / 2);
            let text = match id_first {
                true => format!(r#"{{"jsonrpc":"2.0","id":{long},"result":"{result}"}}"#),
                false => format!(r#"{{"jsonrpc":"2.0","result":"{result}","id":{long}}}"#),
            };
            // Frames end within characters too.
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(text.len() / frames + 1).collect();
            for (place, piece) in pieces.iter().enumerate() {
                let code = if place == 0 { Data::Text } else { Data::Continue };
                let frame = Frame::message(piece.to_vec(), OpCode::Data(code), place + 1 == pieces.len());
                peer.socket.feed(Message::Frame(frame)).await.unwrap();
                peer.socket.send(Message::Ping(vec![1].into())).await.unwrap();
            }
            peer.answer(short, "7").await;
        };
        let ((long, short), ()) = futures_util::future::join(asking, serving).await;
        assert_eq!(long, Err(Error::TooLong), "{id_first} {frames}");
        assert!(short.unwrap().text.ends_with(b":7}"), "{id_first} {frames}");
    }
    let status = linked.link.changes().borrow().clone();
    assert_eq!((status.up, status.epoch), (true, 1));
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_out_byte_for_byte_but_for_its_id() {
    let (linked, _node, mut peer) = linked().await;
    let raw = r#"{ "params" : [ {"id":"x"} ] , "id" : "mine", "method" : "eth_call" }"#;
    let place = raw.find("\"mine\"").unwrap();
    let answer = linked.link.call(raw.as_bytes(), Some(place..place + 6));
    let (answer, sent) = tokio::join!(answer, async {
        let sent = peer.text().await.unwrap();
        let id: serde_json::Value = serde_json::from_str(&sent).unwrap();
        peer.answer(id["id"].as_u64().unwrap(), "\"0x\"").await;
        (sent, id["id"].to_string())
    });
    assert_eq!(sent.0, raw.replace("\"mine\"", &sent.1));
    assert_eq!(answer.unwrap().with_id(b"\"mine\""), r#"{"jsonrpc":"2.0","id":"mine","result":"0x"}"#);

    let raw = r#"{"method":"eth_sendTransaction","params":[]}"#;
    let written = linked.link.call(raw.as_bytes(), None).await;
    assert_eq!(written, Ok(Response::default()));
    assert_eq!(peer.text().await.unwrap(), raw);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_before_it_is_written_is_never_sent() {
    let (linked, _node, mut peer) = linked().await;
    // The node takes nothing for now, so what follows the long call waits.
    let (long, place) = call("1", &format!("[\"{}\"]", "x".repeat(4 * PIPE)));
    let mut first = Box::pin(linked.link.call(long.as_bytes(), Some(place)));
    assert!(first.as_mut().now_or_never().is_none());
    sleep(Duration::from_millis(10)).await;
    let ((dropped, at), (kept, place)) = (call("2", "[\"dropped\"]"), call("3", "[\"kept\"]"));
    let mut second = Box::pin(linked.link.call(dropped.as_bytes(), Some(at.clone())));
    let mut notified = Box::pin(linked.link.call(dropped.as_bytes(), None));
    let mut wish = Box::pin(linked.link.subscribe("eth_subscribe", "[\"dropped\"]".into()));
    let mut third = Box::pin(linked.link.call(kept.as_bytes(), Some(place)));
    assert!(second.as_mut().now_or_never().is_none());
    assert!(notified.as_mut().now_or_never().is_none());
    assert!(wish.as_mut().now_or_never().is_none());
    assert!(third.as_mut().now_or_never().is_none());
    yield_now().await;
    drop((second, notified, wish));
    let (_, third) = tokio::join!(first, async {
        tokio::join!(third, async {
            assert_eq!(peer.text().await.unwrap().len(), long.len());
            let request = peer.request().await;
            assert_eq!(request["params"][0], "kept");
            peer.answer(request["id"].as_u64().unwrap(), "3").await;
            peer.answer(1, "1").await;
            assert!(peer.is_quiet().await);
        })
        .0
    });
    assert_eq!(third.unwrap().with_id(b"3"), r#"{"jsonrpc":"2.0","id":3,"result":3}"#);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_after_its_write_takes_nothing_from_another() {
    let (linked, _node, mut peer) = linked().await;
    let (raw, place) = call("5", "[]");
    let mut dropped = Box::pin(linked.link.call(raw.as_bytes(), Some(place.clone())));
    assert!(dropped.as_mut().now_or_never().is_none());
    let first = peer.asked("eth_call").await;
    drop(dropped);
    let (answer, ()) = tokio::join!(linked.link.call(raw.as_bytes(), Some(place)), async {
        let second = peer.asked("eth_call").await;
        peer.answer(first, "\"first\"").await;
        peer.answer(second, "\"second\"").await;
    });
    assert_eq!(answer.unwrap().with_id(b"5"), r#"{"jsonrpc":"2.0","id":5,"result":"second"}"#);
}

#[tokio::test(start_paused = true)]
async fn calls_past_the_queue_are_refused_and_others_keep_their_order() {
    let (linked, _node, mut peer) = linked().await;
    let (long, place) = call("0", &format!("[\"{}\"]", "x".repeat(4 * PIPE)));
    let mut first = Box::pin(linked.link.call(long.as_bytes(), Some(place)));
    assert!(first.as_mut().now_or_never().is_none());
    sleep(Duration::from_millis(10)).await;
    let mut waiting = Vec::new();
    let refused = loop {
        let n = waiting.len();
        assert!(n < 100_000, "the queue has no bound");
        let link = linked.link.clone();
        let (raw, place) = call("1", &format!("[{n}]"));
        let mut call = Box::pin(async move { link.call(raw.as_bytes(), Some(place)).await });
        match call.as_mut().now_or_never() {
            Some(refused) => break refused,
            None => waiting.push(call),
        }
    };
    assert_eq!(refused, Err(Error::NotSent));
    peer.text().await.unwrap();
    for n in 0..waiting.len() {
        assert_eq!(peer.request().await["params"][0], n);
    }
}

/// A connection on which, once it is told to, frames come faster than they are taken.
struct Torrent {
    io: DuplexStream,
    /// Frames that are still to come.
    left: Arc<AtomicUsize>,
    /// How many were when something was first written behind them.
    left_at_write: Arc<AtomicUsize>,
}

impl AsyncRead for Torrent {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let frame = [&[0x81, EVENT.len() as u8], EVENT].concat();
        let before = into.filled().len();
        while self.left.load(SeqCst) > 0 && into.remaining() >= frame.len() {
            into.put_slice(&frame);
            self.left.fetch_sub(1, SeqCst);
        }
        if into.filled().len() > before { Poll::Ready(Ok(())) } else { Pin::new(&mut self.io).poll_read(context, into) }
    }
}

impl AsyncWrite for Torrent {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.left_at_write.fetch_max(self.left.load(SeqCst), SeqCst);
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl Io for Torrent {}

const EVENT: &[u8] = br#"{"method":"eth_subscription","params":{"subscription":"0x1","result":1}}"#;

struct Once(Mutex<Option<Torrent>>);

impl Dial for Once {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, io::Result<BoxIo>> {
        let torrent = self.0.lock().unwrap().take().expect("one dial");
        Box::pin(async { Ok(Box::new(torrent) as BoxIo) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_events_does_not_keep_a_call_from_being_written() {
    const FRAMES: usize = 20_000;
    let (io, far) = duplex(PIPE);
    let (left, left_at_write) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let torrent = Torrent { io, left: left.clone(), left_at_write: left_at_write.clone() };
    let linked = Linked::start(Arc::new(Once(Mutex::new(Some(torrent)))), target("ws://node"));
    let mut peer = Peer::accept(far).await;
    linked.until(true).await;
    let (raw, place) = call("5", "[]");
    let mut asking = Box::pin(linked.link.call(raw.as_bytes(), Some(place)));
    // The event wakes the link, and with it all others are there.
    peer.send(String::from_utf8(EVENT.to_vec()).unwrap()).await;
    left.store(FRAMES, SeqCst);
    assert!(asking.as_mut().now_or_never().is_none());
    peer.asked("eth_call").await;
    let first = left_at_write.load(SeqCst);
    assert!(first > FRAMES / 2, "the call was written when {first} of {FRAMES} events were left");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_be_sent_is_not() {
    let (linked, _node, mut peer) = linked().await;
    let endless = vec![b' '; steadfast::net::link::MAX_MESSAGE + 1];
    for raw in [&b"\xff\xfe"[..], &endless] {
        assert_eq!(linked.link.call(raw, None).await, Err(Error::NotSent));
    }
    assert!(peer.is_quiet().await);
    assert!(linked.link.is_up());
}
