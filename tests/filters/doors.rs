//! Filters at every door, and answers that are lost on their way to the client.

use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    time::{Duration, sleep},
};

use super::{
    common::client::{Client, ROUNDABOUT, call, post, with_headers},
    stage::{POLL, Stage, Way},
};

/// A way for calls to come in.
#[derive(Clone, Copy, Debug)]
enum Door {
    FastLane,
    Hyper,
    Batch,
    WebSocket,
    WebSocketBatch,
}

impl Stage {
    async fn ask_at(&self, door: Door, method: &str, params: &Value) -> Value {
        let one = call(1, method, &params.to_string());
        let batch = format!("[{},{one}]", call(0, "eth_chainId", "[]"));
        let mut client = self.proxy.client().await;
        let mut answer: Value = match door {
            Door::FastLane => client.post(one).await.json(),
            Door::Hyper => {
                client.send(with_headers("/", ROUNDABOUT, one.as_bytes())).await;
                client.response().await.json()
            }
            Door::Batch => client.post(batch).await.json()[1].take(),
            Door::WebSocket => serde_json::from_str(&self.proxy.ws().await.ask(one).await).unwrap(),
            Door::WebSocketBatch => {
                let mut answers: Value = serde_json::from_str(&self.proxy.ws().await.ask(batch).await).unwrap();
                answers[1].take()
            }
        };
        assert_eq!(answer["id"], 1, "{answer}");
        if answer.get("result").is_some() { answer["result"].take() } else { answer }
    }
}

#[tokio::test(start_paused = true)]
async fn every_door_serves_the_filters_of_the_network() {
    let stage = Stage::new(Way::Both, "").await;
    let doors = [Door::FastLane, Door::Hyper, Door::Batch, Door::WebSocket, Door::WebSocketBatch];
    for (place, door) in doors.into_iter().enumerate() {
        let next = doors[(place + 1) % doors.len()];
        let blocks = stage.ask_at(door, "eth_newBlockFilter", &json!([])).await;
        let logs = stage.ask_at(door, "eth_newFilter", &json!([{}])).await;
        let before = stage.head();
        stage.devnet.chain().mine(2);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(stage.ask_at(next, POLL, &json!([blocks])).await, json!(stage.hashes_above(before)), "{door:?}");
        let expected = stage.logs_above(before, &json!({})).await;
        assert_eq!(stage.ask_at(next, POLL, &json!([logs])).await, json!(expected), "{door:?}");
        let past = stage.ask_at(next, "eth_getFilterLogs", &json!([logs])).await;
        assert_eq!(past, stage.ask_at(door, "eth_getLogs", &json!([{}])).await, "{door:?}");
        for filter in [blocks, logs] {
            assert_eq!(stage.ask_at(next, POLL, &json!([filter])).await, json!([]), "what was told is told: {door:?}");
            assert_eq!(stage.ask_at(door, "eth_uninstallFilter", &json!([filter])).await, true);
            assert_eq!(stage.ask_at(next, POLL, &json!([filter])).await["error"]["code"], -32000);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_method_is_refused_though_no_node_is_asked() {
    let stage = Stage::new(Way::Http, "calls = { blocked = [\"eth_newBlockFilter\"] }\n").await;
    assert_eq!(stage.error("eth_newBlockFilter", &json!([])).await.0, -32601);
    stage.logs(&json!({})).await;
}

/// A client with a small pipe, which reads nothing: so a long answer does not leave.
async fn unread(stage: &Stage, request: Vec<u8>) {
    let mut client: Client<_> = stage.proxy.client().await;
    client.send(request).await;
    sleep(Duration::from_secs(1)).await;
    let _ = client.io.shutdown().await;
    drop(client);
    sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_answer_took_is_given_again() {
    let stage = Stage::new(Way::Both, "").await;
    for headers in ["", ROUNDABOUT] {
        for is_batch in [false, true] {
            let logs = stage.logs(&json!({})).await;
            let before = stage.head();
            stage.devnet.chain().mine(100);
            sleep(Duration::from_secs(5)).await;
            let mut poll = call(1, POLL, &json!([logs]).to_string());
            if is_batch {
                poll = format!("[{poll},{}]", call(2, "dev_blob", "[8000000]"));
            }
            let expected = stage.logs_above(before, &json!({})).await;
            assert!(json!(expected).to_string().len() > 100_000, "more than the pipe holds");
            unread(&stage, with_headers("/", headers, poll.as_bytes())).await;
            if headers.is_empty() || is_batch {
                assert_eq!(stage.poll(&logs).await, expected, "{headers:?} {is_batch}");
            }
            assert_eq!(stage.poll(&logs).await, Vec::<Value>::new());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_under_a_lost_answer_ends_the_filter() {
    let stage = Stage::new(Way::Both, "[filters]\nmax_backlog_blocks = 16\n").await;
    let logs = stage.logs(&json!({})).await;
    stage.devnet.chain().mine(10);
    sleep(Duration::from_secs(5)).await;
    let poll = format!("[{},{}]", call(1, POLL, &json!([logs]).to_string()), call(2, "dev_blob", "[8000000]"));
    let mut client = stage.proxy.client().await;
    client.send(post("/", poll.as_bytes())).await;
    sleep(Duration::from_secs(1)).await;
    stage.devnet.chain().mine(12);
    sleep(Duration::from_secs(3)).await;
    drop(client);
    sleep(Duration::from_secs(1)).await;
    assert!(stage.is_gone(&logs).await, "blocks were left out in silence");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_its_poll_waits_has_taken_nothing() {
    let stage = Stage::new(Way::Both, "").await;
    let logs = stage.logs(&json!({})).await;
    let before = stage.head();
    stage.devnet.nodes().for_each(|node| node.set_fault(super::switches::slow_logs()));
    stage.devnet.chain().mine(1);
    sleep(Duration::from_millis(200)).await;
    let mut client = stage.proxy.client().await;
    client.send(post("/", call(1, POLL, &json!([logs]).to_string()).as_bytes())).await;
    sleep(Duration::from_millis(100)).await;
    drop(client);
    stage.devnet.nodes().for_each(|node| node.clear_faults());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.poll(&logs).await, stage.logs_above(before, &json!({})).await);
}
