//! What a WebSocket is told without asking.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use steadfast::devnet::{Fault, Options};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::client::{SOON, Ws, devnet, result, start};

#[tokio::test]
async fn new_heads_are_pushed_and_can_be_fetched_at_once() {
    let net = devnet().await;
    let node = net.el(0);
    let mut ws = Ws::open(node).await;
    let id = ws.subscribe(json!(["newHeads"])).await;
    assert!(ws.is_silent().await);
    net.chain().mine(3);
    for number in 11..=13 {
        let pushed = ws.event(&id).await;
        let block = result(node, "eth_getBlockByHash", json!([pushed["hash"], false])).await;
        assert_eq!(block["number"], format!("0x{number:x}"));
        let (pushed, block) = (pushed.as_object().unwrap(), block.as_object().unwrap());
        assert!(pushed.iter().all(|(key, value)| block.get(key) == Some(value)));
        assert!(!pushed.contains_key("transactions"));
    }
    assert_eq!(ws.call("eth_unsubscribe", json!([id])).await, true);
    net.chain().mine(1);
    assert!(ws.is_silent().await);
    ws.send(5, "eth_unsubscribe", json!([id])).await;
    assert_eq!(ws.next().await["error"]["code"], -32000);
}

#[tokio::test]
async fn a_reorg_takes_back_logs_newest_first_and_tells_the_branch() {
    let net = devnet().await;
    let node = net.el(0);
    let mut heads = Ws::open(node).await;
    let heads_id = heads.subscribe(json!(["newHeads"])).await;
    let mut logs = Ws::open(node).await;
    let logs_id = logs.subscribe(json!(["logs", {}])).await;
    let old = result(node, "eth_getLogs", json!([{"fromBlock": "0x9"}])).await;
    let reorg = net.chain().reorg(2).unwrap();
    for mut log in old.as_array().unwrap().iter().rev().cloned() {
        log["removed"] = json!(true);
        assert_eq!(logs.event(&logs_id).await, log);
    }
    for log in result(node, "eth_getLogs", json!([{"fromBlock": "0x9"}])).await.as_array().unwrap() {
        assert_eq!(log["removed"], false);
        assert_eq!(logs.event(&logs_id).await, *log);
    }
    let mut parent = net.chain().block(8).unwrap().hash.to_string();
    for block in &reorg.added {
        let head = heads.event(&heads_id).await;
        assert_eq!((&head["hash"], &head["parentHash"]), (&json!(block.hash.to_string()), &json!(parent)));
        parent = block.hash.to_string();
    }
    assert!(heads.is_silent().await && logs.is_silent().await);
}

#[tokio::test]
async fn logs_are_filtered_for_each_subscriber() {
    let net = devnet().await;
    let mut ws = Ws::open(net.el(0)).await;
    let contract = format!("{:#x}", net.chain().contracts()[1]);
    let id = ws.subscribe(json!(["logs", {"address": contract}])).await;
    net.chain().mine(8);
    let wish = json!([{"fromBlock": "0xb", "address": contract}]);
    let expected = result(net.el(0), "eth_getLogs", wish).await;
    assert!(!expected.as_array().unwrap().is_empty());
    for log in expected.as_array().unwrap() {
        assert_eq!(ws.event(&id).await, *log);
    }
    assert!(ws.is_silent().await);
}

#[tokio::test]
async fn waiting_transactions_and_syncing_are_announced() {
    let net = devnet().await;
    let mut ws = Ws::open(net.el(0)).await;
    let pending = ws.subscribe(json!(["newPendingTransactions"])).await;
    let hash = result(net.el(1), "eth_sendRawTransaction", json!(["0xabcd"])).await;
    assert_eq!(ws.event(&pending).await, hash);
    ws.call("eth_unsubscribe", json!([pending])).await;
    let syncing = ws.subscribe(json!(["syncing"])).await;
    net.el(0).set_fault(Fault::Syncing);
    assert_eq!(ws.event(&syncing).await["syncing"], true);
    net.el(0).clear_faults();
    assert_eq!(ws.event(&syncing).await, false);
}

#[tokio::test]
async fn small_ids_of_two_nodes_collide_and_others_do_not() {
    let net = start(Options { small_ids: true, ..Options::default() }).await;
    let mut ids = Vec::new();
    for node in [net.el(0), net.el(1)] {
        ids.push(Ws::open(node).await.subscribe(json!(["newHeads"])).await);
        node.set_small_ids(false);
        ids.push(Ws::open(node).await.subscribe(json!(["newHeads"])).await);
    }
    assert_eq!((ids[0].as_str(), ids[2].as_str()), ("0x1", "0x1"));
    assert!(ids[1].len() > 16 && ids[3].len() > 16 && ids[1] != ids[3]);
}

#[tokio::test]
async fn binary_frames_batches_and_pings_are_served() {
    let net = devnet().await;
    let mut ws = Ws::open(net.el(0)).await;
    let batch = r#"[{"id":1,"method":"eth_subscribe","params":["newHeads"]},{"id":2,"method":"eth_chainId"}]"#;
    ws.0.send(Message::Binary(batch.into())).await.unwrap();
    let answer = timeout(SOON, ws.0.next()).await.unwrap().unwrap().unwrap();
    assert!(answer.is_text(), "{answer:?}");
    let answer: Value = serde_json::from_str(answer.to_text().unwrap()).unwrap();
    assert_eq!(answer[1]["result"], "0x539");
    net.chain().mine(1);
    assert_eq!(ws.event(answer[0]["result"].as_str().unwrap()).await["number"], "0xb");
    ws.0.send(Message::Ping("hello".into())).await.unwrap();
    let pong = timeout(SOON, ws.0.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(pong, Message::Pong("hello".into()));
    ws.0.send(Message::text("{")).await.unwrap();
    assert_eq!(ws.next().await["error"]["code"], -32700);
}

#[tokio::test]
async fn a_mute_node_answers_but_its_events_are_lost() {
    let net = devnet().await;
    let node = net.el(0);
    let mut ws = Ws::open(node).await;
    let id = ws.subscribe(json!(["newHeads"])).await;
    node.set_fault(Fault::Mute);
    net.chain().mine(2);
    assert!(ws.is_silent().await);
    assert_eq!(ws.call("eth_blockNumber", json!([])).await, "0xc");
    node.clear_faults();
    assert!(ws.is_silent().await);
    net.chain().mine(1);
    assert_eq!(ws.event(&id).await["number"], "0xd");
}

#[tokio::test]
async fn a_node_that_lagged_announces_missed_blocks_once() {
    let net = devnet().await;
    let node = net.el(0);
    let mut ws = Ws::open(node).await;
    let id = ws.subscribe(json!(["newHeads"])).await;
    node.set_fault(Fault::lag(2));
    net.chain().mine(3);
    assert_eq!(ws.event(&id).await["number"], "0xb");
    assert!(ws.is_silent().await);
    node.clear_faults();
    assert_eq!(ws.event(&id).await["number"], "0xc");
    assert_eq!(ws.event(&id).await["number"], "0xd");
    node.set_fault(Fault::lie(16));
    net.chain().mine(1);
    assert_eq!(ws.event(&id).await["number"], "0x1e");
}

#[tokio::test]
async fn a_failing_node_closes_websockets_a_limited_one_answers() {
    let net = devnet().await;
    let node = net.el(0);
    let mut ws = Ws::open(node).await;
    node.set_fault(Fault::rate_limited(1));
    ws.send(1, "eth_chainId", json!([])).await;
    assert_eq!(ws.next().await["error"]["code"], -32005);
    assert!(Ws::try_open(node).await.is_err());
    node.set_fault(Fault::Failing);
    let close = timeout(SOON, ws.0.next()).await.unwrap().unwrap().unwrap();
    let Message::Close(Some(frame)) = close else { panic!("{close:?}") };
    assert_eq!(u16::from(frame.code), 1011);
}

#[tokio::test]
async fn subscriptions_end_with_their_socket() {
    let net = devnet().await;
    let node = net.el(0);
    let mut ws = Ws::open(node).await;
    ws.subscribe(json!(["newHeads"])).await;
    assert_eq!((node.subscriptions(), node.websockets_open()), (1, 1));
    drop(ws);
    let gone = async {
        while node.subscriptions() + node.websockets_open() + node.connections_open() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, gone).await.unwrap();
}

#[tokio::test]
async fn filters_are_polled_and_belong_to_one_node() {
    let net = devnet().await;
    let node = net.el(0);
    let blocks = result(node, "eth_newBlockFilter", json!([])).await;
    let logs = result(node, "eth_newFilter", json!([{}])).await;
    assert_eq!(result(node, "eth_getFilterChanges", json!([blocks])).await, json!([]));
    let block = net.chain().mine(1);
    assert_eq!(result(node, "eth_getFilterChanges", json!([blocks])).await, json!([block.hash.to_string()]));
    assert_eq!(result(node, "eth_getFilterChanges", json!([blocks])).await, json!([]));
    let news = result(node, "eth_getFilterChanges", json!([logs])).await;
    assert_eq!(news.as_array().unwrap().len(), block.logs().count());
    let elsewhere = super::client::call(net.el(1), "eth_getFilterChanges", json!([blocks])).await;
    assert_eq!(elsewhere["error"]["message"], "filter not found");
    assert_eq!(result(node, "eth_uninstallFilter", json!([blocks])).await, true);
}

#[tokio::test]
async fn blocks_come_by_themselves_at_block_time() {
    let time = Duration::from_millis(50);
    let net = start(Options { block_time: Some(time), ..Options::default() }).await;
    let mut ws = Ws::open(net.el(0)).await;
    let id = ws.subscribe(json!(["newHeads"])).await;
    let first = ws.event(&id).await;
    let second = ws.event(&id).await;
    assert_eq!(second["parentHash"], first["hash"]);
}

#[tokio::test]
async fn notifications_come_before_the_answer_and_right_behind_it() {
    let net = devnet().await;
    net.el(0).set_fault(Fault::eager(2, 3));
    let mut ws = Ws::open(net.el(0)).await;
    ws.send(1, "eth_subscribe", json!(["newPendingTransactions"])).await;
    let mut texts = Vec::new();
    for _ in 0..6 {
        texts.push(ws.next().await);
    }
    let id = texts.remove(2)["result"].clone();
    let results: std::collections::BTreeSet<_> =
        texts.iter().map(|text| text["params"]["result"].as_str().unwrap().to_owned()).collect();
    assert!(results.len() == 5 && texts.iter().all(|text| text["params"]["subscription"] == id));
    net.el(0).set_fault(Fault::eager(0, 1));
    let id = ws.subscribe(json!(["syncing"])).await;
    assert_eq!(ws.event(&id).await, json!(false));
    let id = ws.subscribe(json!(["newHeads"])).await;
    assert!(ws.is_silent().await, "{id}");
}
