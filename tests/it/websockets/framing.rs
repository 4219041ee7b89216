//! Frames, however they are cut.

use std::time::Duration;

use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

use super::{answer, echo, lengths};
use crate::common::{client::call, ws::frame};

#[tokio::test(start_paused = true)]
async fn a_message_cut_at_any_byte_is_the_same_message() {
    let (_net, _origin, proxy) = echo("").await;
    let mut client = proxy.client().await.upgraded("/").await;
    let long = format!("[\"{}\"]", "y".repeat(200));
    let bytes = frame(0x81, call(1, "eth_call", &long).as_bytes());
    for cut in 1..bytes.len() {
        client.send(&bytes[..cut]).await;
        sleep(Duration::from_millis(1)).await;
        client.send(&bytes[cut..]).await;
        assert_eq!(client.frame().await, (0x81, answer(1, &long).into()), "cut at {cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_in_pieces_is_one_and_pings_may_come_between_them() {
    let (_net, origin, proxy) = echo("").await;
    let mut client = proxy.client().await.upgraded("/").await;
    let text = call(1, "eth_call", "[\"é\"]");
    for at_once in [true, false] {
        for size in [1, 3, 50] {
            let mut bytes = Vec::new();
            let pieces: Vec<_> = text.as_bytes().chunks(size).collect();
            for (i, piece) in pieces.iter().enumerate() {
                let first = if i == 0 { 0x01 } else { 0x00 } | if i + 1 == pieces.len() { 0x80 } else { 0 };
                bytes.extend(frame(first, piece));
                bytes.extend(frame(0x89, &[i as u8]));
                bytes.extend(frame(0x8a, b""));
            }
            if at_once {
                client.send(&bytes).await;
            } else {
                for byte in bytes {
                    client.send([byte]).await;
                    sleep(Duration::from_millis(1)).await;
                }
            }
            let mut answers = 0;
            for _ in 0..=pieces.len() {
                match client.frame().await {
                    (0x8a, pong) => assert_eq!(pong.len(), 1),
                    (0x81, text) => {
                        assert_eq!(text, answer(1, "[\"é\"]"));
                        answers += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(answers, 1);
        }
    }
    // An empty frame is a piece, too.
    let bytes = [frame(0x01, b""), frame(0x00, b""), frame(0x00, text.as_bytes()), frame(0x80, b"")].concat();
    client.send(bytes).await;
    assert_eq!(client.frame().await, (0x81, answer(1, "[\"é\"]").into()));
    assert!(origin.seen().iter().all(|seen| seen.sent_as("1") == text));
}

#[tokio::test(start_paused = true)]
async fn many_messages_in_one_write_are_all_served() {
    let (_net, _origin, proxy) = echo("").await;
    let mut client = proxy.client().await.upgraded("/").await;
    let bytes: Vec<u8> = (0..2000).flat_map(|id| frame(0x81, call(id, "eth_call", "[]").as_bytes())).collect();
    client.send(bytes).await;
    let mut ids: Vec<u64> = Vec::new();
    for _ in 0..2000 {
        let (_, text) = client.frame().await;
        ids.push(serde_json::from_slice::<serde_json::Value>(&text).unwrap()["id"].as_u64().unwrap());
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..2000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn messages_of_every_size_come_and_go_unchanged() {
    let (_net, _origin, proxy) = echo("").await;
    let mut ws = proxy.ws().await;
    for size in [0, 1, 100, 125, 126, 4000, 8190, 8192, 8200, 16_384, 16_400, 65_535, 65_536, 70_000, 1 << 20, 5 << 20]
    {
        let params = format!("[\"{}\"]", "z".repeat(size));
        let text = ws.ask(call(1, "eth_call", &params)).await;
        assert!(text == answer(1, &params), "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn pongs_find_their_place_between_long_answers() {
    let (_net, _origin, proxy) = lengths("").await;
    let mut ws = proxy.ws().await;
    for n in 0..40 {
        ws.send(call(n, "eth_call", if n % 2 == 0 { "[300000]" } else { "[10]" })).await;
    }
    let (mut pongs, mut texts) = (0, 0);
    while texts < 40 || pongs < 40 {
        match ws.next().await.unwrap().unwrap() {
            Message::Pong(payload) => {
                assert_eq!(payload[..], [pongs]);
                pongs += 1;
            }
            Message::Text(text) => {
                assert!(text.ends_with("x\"}"));
                // Much of what follows is on its way now.
                ws.message(Message::Ping(vec![texts].into())).await;
                texts += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}
