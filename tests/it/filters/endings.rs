//! Polls over WebSockets that end, or nearly overflow, while the answer is on its way.

use serde_json::{Value, json};
use tokio::{
    io::DuplexStream,
    time::{Duration, sleep},
};
use tokio_tungstenite::tungstenite::Message;

use super::setup::{POLL, Setup, Way};
use crate::common::{client::call, ws::Ws};

impl Setup {
    /// A WebSocket that takes little at once.
    async fn narrow(&self) -> Ws<DuplexStream> {
        Ws::open(self.proxy.connect_through(4096).await, "/").await
    }
}

/// What the next text tells.
async fn told(client: &mut Ws<DuplexStream>) -> Vec<Value> {
    let answer: Value = serde_json::from_str(&client.text().await).unwrap();
    answer["result"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_written_behind_a_close_is_told_once() {
    let setup = Setup::new(Way::Both, "").await;
    // A close in order, a breach of the rules, and a text that is no text.
    for end in [&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8][..], &[0xf1, 0x80, 0, 0, 0, 0], &[0x81, 0x81, 0, 0, 0, 0, 0xff]] {
        let filter = setup.logs(&json!({})).await;
        let before = setup.head();
        setup.devnet.chain().mine(100);
        sleep(Duration::from_secs(5)).await;
        let mut client = setup.narrow().await;
        client.send(call(1, POLL, &json!([filter]).to_string())).await;
        sleep(Duration::from_secs(1)).await;
        tokio::io::AsyncWriteExt::write_all(client.socket.get_mut(), end).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(told(&mut client).await, setup.logs_above(before, &json!({})).await);
        assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
        client.gone().await;
        assert_eq!(setup.poll(&filter).await, Vec::<Value>::new(), "told again after {end:x?}");
    }
}

#[tokio::test(start_paused = true)]
async fn polls_at_a_slow_websocket_that_is_closed_are_told_once() {
    for is_read in [true, false] {
        let setup = Setup::new(Way::Both, "[ws]\nmax_outbound = \"256KiB\"\n").await;
        let filters = [setup.logs(&json!({})).await, setup.logs(&json!({})).await];
        let before = setup.head();
        setup.devnet.chain().mine(100);
        sleep(Duration::from_secs(5)).await;
        let mut client = setup.narrow().await;
        client.subscribe("[\"logs\",{}]").await;
        // The first answer is half-way to the client, and the second waits behind it.
        for (n, filter) in (1..).zip(&filters) {
            client.send(call(n, POLL, &json!([filter]).to_string())).await;
            sleep(Duration::from_secs(1)).await;
        }
        for round in 0.. {
            if setup.proxy.metric("steadfast_slow_clients_closed_total", "").await > 0.0 {
                break;
            }
            assert!(round < 100, "nothing overflows");
            setup.devnet.chain().mine(20);
            sleep(Duration::from_millis(500)).await;
        }
        let mut all = [Vec::new(), Vec::new()];
        if is_read {
            all[0] = told(&mut client).await;
            assert!(!all[0].is_empty());
            assert_eq!(client.closed().await.0, 1008, "the second answer went with what waited");
            client.gone().await;
        }
        // The proxy does not wait longer for a client that reads nothing.
        sleep(Duration::from_secs(5)).await;
        drop(client);
        let expected = setup.logs_above(before, &json!({})).await;
        for (filter, all) in filters.iter().zip(&mut all) {
            while let Some(more) = Some(setup.poll(filter).await).filter(|more| !more.is_empty()) {
                all.extend(more);
            }
            assert!(*all == expected, "read: {is_read}, {} logs instead of {}", all.len(), expected.len());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_barely_fits_closes_nobody() {
    let poll = async |setup: &Setup, filter: &Value| -> Value {
        let answer = setup.proxy.ws().await.ask(call(1, POLL, &json!([filter]).to_string())).await;
        serde_json::from_str(&answer).unwrap()
    };
    let mined = async |settings: &str| {
        let setup = Setup::new(Way::Both, settings).await;
        let filter = setup.logs(&json!({})).await;
        let before = setup.head();
        setup.devnet.chain().mine(1);
        sleep(Duration::from_secs(3)).await;
        let expected = setup.logs_above(before, &json!({})).await;
        (setup, filter, json!(expected))
    };
    let (setup, filter, expected) = mined("").await;
    let answer = poll(&setup, &filter).await;
    assert_eq!(answer["result"], expected);
    let length = answer.to_string().len();
    let mut whole = 0;
    for room in (length..length + 64).step_by(8) {
        let (setup, filter, expected) = mined(&format!("[ws]\nmax_outbound = \"{room}B\"\n")).await;
        let answer = poll(&setup, &filter).await;
        if answer["result"] == expected {
            whole += 1;
            assert_eq!(poll(&setup, &filter).await["result"], json!([]));
        } else {
            assert_eq!(answer["error"]["message"], "filter not found", "{room} of {length}");
        }
    }
    assert!(whole > 0);
}
