//! Filters at every door, and answers that are lost on their way to the client.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use steadfast::devnet::Fault;
use tokio::{
    io::AsyncWriteExt,
    time::{Duration, sleep},
};

use super::setup::{POLL, Setup, Way};
use crate::common::{
    client::{ROUNDABOUT, call, post, with_headers},
    ws::Ws,
};

/// A way for calls to come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    FastLane,
    Hyper,
    Batch,
    HyperBatch,
    WebSocket,
    WebSocketBatch,
}

pub(super) const DOORS: [Door; 6] =
    [Door::FastLane, Door::Hyper, Door::Batch, Door::HyperBatch, Door::WebSocket, Door::WebSocketBatch];

impl Door {
    pub(super) fn is_batch(self) -> bool {
        matches!(self, Self::Batch | Self::HyperBatch | Self::WebSocketBatch)
    }

    pub(super) fn is_socket(self) -> bool {
        matches!(self, Self::WebSocket | Self::WebSocketBatch)
    }

    /// What a client sends that calls: a message, or a request with its head.
    pub(super) fn request(self, calls: &[String]) -> Vec<u8> {
        let body = if self.is_batch() { format!("[{}]", calls.join(",")) } else { calls[0].clone() };
        match self {
            Self::WebSocket | Self::WebSocketBatch => body.into(),
            Self::FastLane | Self::Batch => post("/", body.as_bytes()),
            Self::Hyper | Self::HyperBatch => with_headers("/", ROUNDABOUT, body.as_bytes()),
        }
    }

    /// The beginning of a further request, longer than any door reads ahead.
    pub(super) fn burst(self) -> Vec<u8> {
        const LENGTH: usize = 200_000;
        let mut request = if self.is_socket() {
            // The head of a masked frame of text.
            [&[0x81, 0xff][..], &(2 * LENGTH as u64).to_be_bytes(), &[0; 4]].concat()
        } else {
            let head = format!("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", 2 * LENGTH);
            head.into()
        };
        request.resize(request.len() + LENGTH, b' ');
        request
    }
}

impl Setup {
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
            Door::HyperBatch => {
                client.send(with_headers("/", ROUNDABOUT, batch.as_bytes())).await;
                client.response().await.json()[1].take()
            }
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
    let setup = Setup::new(Way::Both, "").await;
    for (place, door) in DOORS.into_iter().enumerate() {
        let next = DOORS[(place + 1) % DOORS.len()];
        let blocks = setup.ask_at(door, "eth_newBlockFilter", &json!([])).await;
        let logs = setup.ask_at(door, "eth_newFilter", &json!([{}])).await;
        let before = setup.head();
        setup.devnet.chain().mine(2);
        sleep(Duration::from_secs(2)).await;
        assert_eq!(setup.ask_at(next, POLL, &json!([blocks])).await, json!(setup.hashes_above(before)), "{door:?}");
        let expected = setup.logs_above(before, &json!({})).await;
        assert_eq!(setup.ask_at(next, POLL, &json!([logs])).await, json!(expected), "{door:?}");
        let past = setup.ask_at(next, "eth_getFilterLogs", &json!([logs])).await;
        assert_eq!(past, setup.ask_at(door, "eth_getLogs", &json!([{}])).await, "{door:?}");
        for filter in [blocks, logs] {
            assert_eq!(setup.ask_at(next, POLL, &json!([filter])).await, json!([]), "what was told is told: {door:?}");
            assert_eq!(setup.ask_at(door, "eth_uninstallFilter", &json!([filter])).await, true);
            assert_eq!(setup.ask_at(next, POLL, &json!([filter])).await["error"]["code"], -32000);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_ends_in_a_batch_is_polled_before() {
    let setup = Setup::new(Way::Both, "").await;
    for over_websocket in [false, true] {
        let filter = setup.logs(&json!({})).await;
        let before = setup.head();
        setup.devnet.el(0).set_fault(Fault::slow_over(300, &["eth_getLogs"]));
        setup.devnet.chain().mine(2);
        // The heads are known, and their logs are on their way.
        sleep(Duration::from_millis(100)).await;
        let (poll, id) = (|n: u64| call(n, POLL, &json!([filter]).to_string()), json!([filter]).to_string());
        let batch = format!("[{},{},{}]", poll(1), poll(2), call(3, "eth_uninstallFilter", &id));
        let answers: Value = if over_websocket {
            serde_json::from_str(&setup.proxy.ws().await.ask(batch).await).unwrap()
        } else {
            setup.proxy.post(batch).await.json()
        };
        setup.devnet.el(0).clear_faults();
        let told: Vec<Value> = answers
            .as_array()
            .unwrap()
            .iter()
            .take(2)
            .flat_map(|one| one["result"].as_array().unwrap().clone())
            .collect();
        assert_eq!(told, setup.logs_above(before, &json!({})).await, "{answers}");
        assert_eq!(answers[2]["result"], true, "{answers}");
        assert!(setup.is_gone(&filter).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_comes_in_parts_that_its_door_can_send() {
    let limits = "max_client_memory = \"4MiB\"\n[ws]\nmax_outbound = \"64KiB\"\n[chain]\nwindow = 512\n";
    for door in DOORS {
        let most = if door.is_socket() { 16 << 10 } else { 256 << 10 };
        let setup = Setup::new(Way::Both, limits).await;
        let filter = setup.logs(&json!({})).await;
        let whole = async || {
            let (mut told, mut parts) = (Vec::new(), 0);
            loop {
                let part = setup.ask_at(door, POLL, &json!([filter])).await;
                let Some(logs) = part.as_array().filter(|logs| !logs.is_empty()) else {
                    assert_eq!(part, json!([]), "{door:?}");
                    return (told, parts);
                };
                let blocks: Vec<_> = logs.iter().map(|log| &log["blockHash"]).collect();
                assert!(part.to_string().len() <= most || blocks.iter().all(|block| *block == blocks[0]), "{door:?}");
                parts += 1;
                told.extend(logs.clone());
            }
        };
        let mine = async |blocks: usize| {
            for _ in 0..blocks / 50 {
                setup.devnet.chain().mine(50);
                sleep(Duration::from_secs(3)).await;
            }
        };
        let before = setup.head();
        mine(150).await;
        let (first, _) = whole().await;
        assert_eq!(first, setup.logs_above(before, &json!({})).await, "{door:?}");
        setup.devnet.chain().reorg_to(100, 101).unwrap();
        sleep(Duration::from_secs(5)).await;
        mine(150).await;
        let (told, parts) = whole().await;
        let kept = before + 50;
        let number = |log: &Value| u64::from_str_radix(&log["blockNumber"].as_str().unwrap()[2..], 16).unwrap();
        let gone = first.iter().rev().filter(|log| number(log) > kept).map(|log| {
            let mut log = log.clone();
            log["removed"] = true.into();
            log
        });
        let expected: Vec<Value> = gone.chain(setup.logs_above(kept, &json!({})).await).collect();
        assert!(told == expected, "{door:?}: {} instead of {}", told.len(), expected.len());
        let length = json!(expected).to_string().len();
        assert!(parts > 1 && parts <= 2 * (length / most + 1), "{door:?}: {parts} parts of {length} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn polls_of_one_batch_leave_room_for_each_other() {
    let setup = Setup::new(Way::Both, "[ws]\nmax_outbound = \"256KiB\"\n").await;
    let mut filters = Vec::new();
    for _ in 0..12 {
        filters.push((setup.logs(&json!({})).await, Vec::new()));
    }
    let before = setup.head();
    for _ in 0..3 {
        setup.devnet.chain().mine(50);
        sleep(Duration::from_secs(3)).await;
    }
    let expected = setup.logs_above(before, &json!({})).await;
    assert!(json!(expected).to_string().len() > 128 << 10, "there is too little to tell");
    let polls = filters.iter().map(|(filter, _)| call(1, POLL, &json!([filter]).to_string()));
    let batch = format!("[{}]", polls.collect::<Vec<_>>().join(","));
    let mut client = setup.proxy.ws().await;
    loop {
        let answers: Vec<Value> = serde_json::from_str(&client.ask(batch.clone()).await).unwrap();
        let mut is_over = true;
        for (answer, (_, told)) in answers.iter().zip(&mut filters) {
            let part = answer["result"].as_array().unwrap_or_else(|| panic!("{answer}"));
            is_over &= part.is_empty();
            told.extend(part.clone());
        }
        if is_over {
            break;
        }
    }
    for (_, told) in &filters {
        assert!(*told == expected, "{} logs instead of {}", told.len(), expected.len());
    }
}

#[tokio::test(start_paused = true)]
async fn polls_of_a_batch_without_room_for_all_are_told_in_turn() {
    const LIMIT: usize = 8 << 10;
    let setup = Setup::new(Way::Both, "[ws]\nmax_outbound = \"8KiB\"\n").await;
    let mut filters = Vec::new();
    for _ in 0..6 {
        filters.push((setup.logs(&json!({})).await, Vec::new()));
    }
    let before = setup.head();
    let polls = filters.iter().map(|(filter, _)| call(1, POLL, &json!([filter]).to_string()));
    let batch = format!("[{}]", polls.collect::<Vec<_>>().join(","));
    let mut client = setup.proxy.ws().await;
    let (mut refused, mut rounds) = (0, 0);
    while rounds < 60 || filters.iter().any(|(_, told)| told.is_empty()) {
        // There is more to tell than a message can bring.
        setup.devnet.chain().mine(1);
        sleep(Duration::from_secs(1)).await;
        let text = client.ask(batch.clone()).await;
        assert!(text.len() <= LIMIT, "{} bytes", text.len());
        let answers: Vec<Value> = serde_json::from_str(&text).unwrap();
        for (answer, (_, told)) in answers.iter().zip(&mut filters) {
            match answer["result"].as_array() {
                Some(part) => told.extend(part.clone()),
                None => {
                    assert_eq!(answer["error"]["data"]["reason"], "max_outbound", "{answer}");
                    refused += 1;
                }
            }
        }
        rounds += 1;
        assert!(rounds < 100, "some are told nothing");
    }
    assert!(refused > 0, "there was room for all");
    let expected = setup.logs_above(before, &json!({})).await;
    for (place, (_, told)) in filters.iter().enumerate() {
        let blocks: BTreeSet<_> = told.iter().map(|log| log["blockHash"].as_str()).collect();
        assert!(blocks.len() >= 10, "{place}: {} blocks", blocks.len());
        assert_eq!(*told, expected[..told.len()], "{place}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_finds_no_room_in_a_batch_comes_again() {
    let setup = Setup::new(Way::Both, "[ws]\nmax_outbound = \"64KiB\"\n").await;
    let filter = setup.logs(&json!({})).await;
    let before = setup.head();
    setup.devnet.chain().mine(5);
    sleep(Duration::from_secs(3)).await;
    let batch = format!("[{},{}]", call(1, "dev_blob", "[64000]"), call(2, POLL, &json!([filter]).to_string()));
    let answers: Value = serde_json::from_str(&setup.proxy.ws().await.ask(batch).await).unwrap();
    assert!(answers[0]["result"].is_string(), "{answers}");
    assert_eq!(answers[1]["error"]["data"]["reason"], "max_outbound", "{answers}");
    assert_eq!(setup.poll(&filter).await, setup.logs_above(before, &json!({})).await);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_no_answer_can_bring_ends_the_filter() {
    let setup = Setup::new(Way::Both, "[ws]\nmax_outbound = \"1KiB\"\n").await;
    let (there, here, blocks) = (setup.logs(&json!({})).await, setup.logs(&json!({})).await, setup.blocks().await);
    let before = setup.head();
    setup.devnet.chain().mine(20);
    sleep(Duration::from_secs(3)).await;
    let expected = setup.logs_above(before, &json!({})).await;
    let of_first: Vec<_> = expected.iter().filter(|log| log["blockHash"] == setup.hash(before + 1)).collect();
    assert!(json!(of_first).to_string().len() > 1024, "a block has too few logs");
    for _ in 0..2 {
        let answer = setup.ask_at(Door::WebSocket, POLL, &json!([there])).await;
        assert_eq!(answer["error"]["message"], "filter not found", "{answer}");
    }
    let dropped = setup.proxy.metric("steadfast_filters_dropped_total", "reason=\"too_long\"").await;
    assert_eq!((dropped, setup.poll(&here).await), (1.0, expected));
    let mut hashes = Vec::new();
    for _ in 0..20 {
        hashes.extend(setup.ask_at(Door::WebSocket, POLL, &json!([blocks])).await.as_array().unwrap().clone());
    }
    assert_eq!(hashes, setup.hashes_above(before));
}

#[tokio::test(start_paused = true)]
async fn a_refused_method_is_refused_though_no_node_is_asked() {
    let setup = Setup::new(Way::Http, "calls = { blocked = [\"eth_newBlockFilter\"] }\n").await;
    assert_eq!(setup.error("eth_newBlockFilter", &json!([])).await.0, -32601);
    setup.logs(&json!({})).await;
}

/// Sends `calls`, one or a batch, over a connection that takes nearly nothing, reads nothing, and
/// leaves.
async fn unread(setup: &Setup, door: Door, calls: &[String]) {
    let mut io = setup.proxy.connect_through(16).await;
    let request = door.request(calls);
    if door.is_socket() {
        let mut client = Ws::open(io, "/").await;
        client.send(String::from_utf8(request).unwrap()).await;
        sleep(Duration::from_secs(1)).await;
        drop(client);
    } else {
        io.write_all(&request).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        drop(io);
    }
    sleep(Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn changes_of_a_lost_answer_are_given_again() {
    let setup = Setup::new(Way::Both, "").await;
    for door in DOORS {
        for blocks in [1, 100] {
            let filters = [setup.logs(&json!({})).await, setup.blocks().await];
            let before = setup.head();
            setup.devnet.chain().mine(blocks);
            sleep(Duration::from_secs(5)).await;
            let [logs, hashes] = filters.each_ref().map(|filter| call(1, POLL, &json!([filter]).to_string()));
            let (first, second) = if door.is_batch() { (vec![logs, hashes], None) } else { (vec![logs], Some(hashes)) };
            unread(&setup, door, &first).await;
            if let Some(second) = second {
                unread(&setup, door, &[second]).await;
            }
            assert_eq!(setup.poll(&filters[0]).await, setup.logs_above(before, &json!({})).await, "{door:?} {blocks}");
            assert_eq!(setup.poll(&filters[1]).await, setup.hashes_above(before), "{door:?} {blocks}");
            for filter in &filters {
                assert_eq!(setup.poll(filter).await, Vec::<Value>::new());
                setup.result("eth_uninstallFilter", &json!([filter])).await;
            }
        }
    }
    assert_eq!(setup.proxy.metric("steadfast_filters_dropped_total", "").await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_websocket_whose_end_comes_with_its_poll_has_taken_nothing() {
    let setup = Setup::new(Way::Both, "").await;
    for door in DOORS.into_iter().filter(|door| door.is_socket()) {
        let filter = setup.blocks().await;
        let before = setup.head();
        setup.devnet.chain().mine(2);
        sleep(Duration::from_secs(2)).await;
        let mut client = Ws::open(setup.proxy.connect_through(1 << 20).await, "/").await;
        let poll = call(1, POLL, &json!([filter]).to_string());
        client.send(String::from_utf8(door.request(&[poll])).unwrap()).await;
        client.socket.get_mut().shutdown().await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert_eq!(setup.poll(&filter).await, setup.hashes_above(before), "{door:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn polls_that_are_lost_together_are_all_given_again() {
    for door in DOORS.into_iter().filter(|door| door.is_batch()) {
        let setup = Setup::new(Way::Both, "[ws]\nmax_outbound = \"64KiB\"\n").await;
        let filter = setup.result("eth_newFilter", &json!([{}])).await;
        let before = setup.head();
        setup.devnet.chain().mine(100);
        sleep(Duration::from_secs(5)).await;
        let polls: Vec<String> = (0..3).map(|n| call(n, POLL, &json!([filter]).to_string())).collect();
        unread(&setup, door, &polls).await;
        let mut told = Vec::new();
        for _ in 0..20 {
            told.extend(setup.poll(&filter).await);
        }
        assert_eq!(told, setup.logs_above(before, &json!({})).await, "{door:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn next_poll_waits_until_the_answer_before_has_left() {
    let setup = Setup::new(Way::Both, "").await;
    for is_quick in [false, true] {
        let filters = [setup.logs(&json!({})).await, setup.blocks().await];
        let before = setup.head();
        setup.devnet.chain().mine(3);
        sleep(Duration::from_secs(2)).await;
        let mut unread = Vec::new();
        for filter in &filters {
            let mut io = setup.proxy.connect_through(16).await;
            io.write_all(&post("/", call(1, POLL, &json!([filter]).to_string()).as_bytes())).await.unwrap();
            unread.push(io);
        }
        sleep(Duration::from_millis(500)).await;
        setup.devnet.chain().mine(2);
        sleep(Duration::from_secs(2)).await;
        let [logs, hashes] = if is_quick {
            // The connections break while the next polls wait.
            let leave = async {
                sleep(Duration::from_millis(50)).await;
                drop(unread);
            };
            let polls = async { [setup.poll(&filters[0]).await, setup.poll(&filters[1]).await] };
            tokio::join!(polls, leave).0
        } else {
            for filter in &filters {
                assert_eq!(setup.poll(filter).await, Vec::<Value>::new(), "it would come before what may be lost");
            }
            drop(unread);
            sleep(Duration::from_millis(1)).await;
            [setup.poll(&filters[0]).await, setup.poll(&filters[1]).await]
        };
        assert_eq!(logs, setup.logs_above(before, &json!({})).await);
        assert_eq!(hashes, setup.hashes_above(before));
    }
}

#[tokio::test(start_paused = true)]
async fn change_forgotten_under_a_lost_answer_ends_the_filter() {
    let setup = Setup::new(Way::Both, "[filters]\nmax_backlog_blocks = 16\n").await;
    let logs = setup.logs(&json!({})).await;
    setup.devnet.chain().mine(10);
    sleep(Duration::from_secs(5)).await;
    let poll = format!("[{},{}]", call(1, POLL, &json!([logs]).to_string()), call(2, "dev_blob", "[8000000]"));
    let mut client = setup.proxy.client().await;
    client.send(post("/", poll.as_bytes())).await;
    sleep(Duration::from_secs(1)).await;
    setup.devnet.chain().mine(12);
    sleep(Duration::from_secs(3)).await;
    drop(client);
    sleep(Duration::from_secs(1)).await;
    assert!(setup.is_gone(&logs).await, "blocks were left out in silence");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_its_poll_waits_has_taken_nothing() {
    let setup = Setup::new(Way::Both, "").await;
    let logs = setup.logs(&json!({})).await;
    let before = setup.head();
    setup.devnet.nodes().for_each(|node| node.set_fault(super::switches::slow_logs()));
    setup.devnet.chain().mine(1);
    sleep(Duration::from_millis(200)).await;
    let mut client = setup.proxy.client().await;
    client.send(post("/", call(1, POLL, &json!([logs]).to_string()).as_bytes())).await;
    sleep(Duration::from_millis(100)).await;
    drop(client);
    setup.devnet.nodes().for_each(|node| node.clear_faults());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(setup.poll(&logs).await, setup.logs_above(before, &json!({})).await);
}
