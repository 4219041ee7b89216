//! Clients that go before they have their answer, over real sockets.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Fault, Options};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::sleep};

use super::{
    doors::{DOORS, Door},
    setup::POLL,
};
use crate::common::{
    client::{Client, call},
    devnet,
    proxy::Proxy,
    until,
    ws::Ws,
};

/// How a client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parting {
    /// It closes both sides.
    Close,
    /// It resets the connection.
    Reset,
    /// It closes its side, and waits for the answer.
    Half,
    /// It has sent much of a further request, and closes both sides.
    Burst,
}

struct Setup {
    net: Devnet,
    proxy: Proxy,
}

impl Setup {
    async fn new() -> Self {
        let net = devnet(Options { execution: 1, block_time: None, ..Options::default() }).await;
        let proxy = Proxy::over([net.el(0).http_url().as_str()], "").await;
        Self { net, proxy }
    }

    async fn ask(&self, method: &str, params: &Value) -> Value {
        let mut answer: Value = self.proxy.post(call(1, method, &params.to_string())).await.json();
        answer["result"].take()
    }

    /// Has a poll of each of `filters` of logs wait for a block's logs, each at its door, by a
    /// client that goes before they come. Returns what those were told that can have been.
    async fn poll_and_go(&self, filters: &[(Door, Parting, Value)]) -> Vec<Value> {
        let heads = self.ask("eth_newBlockFilter", &json!([])).await;
        self.net.el(0).set_fault(Fault::slow_over(800, &["eth_getLogs"]));
        self.net.chain().mine(1);
        until("the block is known", async || self.ask(POLL, &json!([heads])).await != json!([])).await;
        let told = join_all(filters.iter().map(async |(door, parting, filter)| {
            let poll = call(2, POLL, &json!([filter]).to_string());
            let request = door.request(&[poll, call(3, "eth_chainId", "[]")]);
            let mut io = TcpStream::connect(self.proxy.addr()).await.unwrap();
            if door.is_socket() {
                let mut client = Ws::open(io, "/").await;
                client.send(String::from_utf8(request).unwrap()).await;
                io = client.socket.into_inner();
            } else {
                io.write_all(&request).await.unwrap();
            }
            if *parting == Parting::Burst {
                io.write_all(&door.burst()).await.unwrap();
            }
            sleep(Duration::from_millis(100)).await;
            if *parting == Parting::Half {
                io.shutdown().await.unwrap();
                let answer: Value = Client::over(io).response().await.json();
                return if door.is_batch() { answer[0].clone() } else { answer }["result"].take();
            }
            if *parting == Parting::Reset {
                io.set_zero_linger().unwrap();
            }
            Value::Null
        }));
        let told = told.await;
        // The answers that nobody waits for come to nothing.
        sleep(Duration::from_secs(2)).await;
        self.net.el(0).clear_faults();
        told
    }

    /// A filter of logs for each of these.
    async fn filters(&self, doors: impl IntoIterator<Item = (Door, Parting)>) -> Vec<(Door, Parting, Value)> {
        let made = doors
            .into_iter()
            .map(async |(door, parting)| (door, parting, self.ask("eth_newFilter", &json!([{}])).await));
        join_all(made).await
    }

    /// The logs of the newest block, as a node tells them.
    async fn logs(&self) -> Value {
        let newest = format!("{:#x}", self.net.chain().head().number);
        let logs = self.ask("eth_getLogs", &json!([{"fromBlock": newest}])).await;
        assert!(logs.as_array().is_some_and(|logs| !logs.is_empty()), "{logs}");
        logs
    }
}

#[tokio::test]
async fn a_poll_lost_with_its_client_comes_again_at_every_door() {
    let setup = Setup::new().await;
    let goes = DOORS
        .into_iter()
        .flat_map(|door| [Parting::Close, Parting::Reset, Parting::Burst].map(|parting| (door, parting)));
    let filters = setup.filters(goes).await;
    setup.poll_and_go(&filters).await;
    let logs = setup.logs().await;
    for (door, parting, filter) in filters {
        assert_eq!(setup.ask(POLL, &json!([filter])).await, logs, "{door:?} {parting:?}");
        assert_eq!(setup.ask(POLL, &json!([filter])).await, json!([]), "{door:?} {parting:?}");
    }
}

#[tokio::test]
async fn a_client_that_closes_its_side_alone_has_its_answer_once() {
    let setup = Setup::new().await;
    // A WebSocket is over with one of its sides.
    let filters = DOORS.into_iter().filter(|door| !door.is_socket()).map(|door| (door, Parting::Half));
    let filters = setup.filters(filters).await;
    let told = setup.poll_and_go(&filters).await;
    let logs = setup.logs().await;
    for ((door, _, filter), told) in filters.iter().zip(told) {
        assert_eq!(told, logs, "{door:?}");
        assert_eq!(setup.ask(POLL, &json!([filter])).await, json!([]), "{door:?}");
    }
}
