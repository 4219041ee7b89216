//! Each fault, as a client sees it.

use std::{io, time::Duration};

use alloy_primitives::keccak256;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use steadfast::devnet::{Fault, Options};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

use super::client::{SILENCE, SOON, Ws, call, devnet, head, number, post, result};

#[tokio::test]
async fn a_node_that_is_down_refuses_and_comes_back_on_the_same_port() {
    let net = devnet().await;
    let node = net.el(0);
    let mut ws = Ws::open(node).await;
    let waiting = tokio::spawn({
        let node = node.clone();
        async move { post(&node, r#"{"id":1,"method":"dev_sleep","params":[60000]}"#).await }
    });
    while node.count("dev_sleep") == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..3 {
        node.set_fault(Fault::Down);
        timeout(SOON, node.settled()).await.unwrap();
        let refused = TcpStream::connect(node.addr()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        // Another socket that was given the port would be taken for the node.
        let taken = TcpSocket::new_v4().unwrap().bind(node.addr()).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(node.connections_open(), 0);
        node.clear_faults();
        timeout(SOON, node.settled()).await.unwrap();
        assert_eq!(head(node).await, 10);
    }
    assert!(ws.is_dropped().await);
    assert!(timeout(SOON, waiting).await.unwrap().unwrap().is_err());
    assert_eq!(head(net.el(1)).await, 10);
}

#[tokio::test]
async fn dropping_the_network_closes_every_socket() {
    let net = devnet().await;
    let node = net.el(0).clone();
    let mut ws = Ws::open(&node).await;
    drop(net);
    assert!(ws.is_dropped().await);
    while TcpStream::connect(node.addr()).await.is_ok() {
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_node_that_hangs_reads_and_never_answers() {
    let net = devnet().await;
    let node = net.el(0);
    let mut ws = Ws::open(node).await;
    let mut idle = Ws::open(node).await;
    let heads = idle.subscribe(json!(["newHeads"])).await;
    node.set_fault(Fault::Hang);
    ws.0.send(Message::Ping("x".into())).await.unwrap();
    ws.send(7, "eth_chainId", json!([])).await;
    let waiting = tokio::spawn({
        let node = node.clone();
        async move { post(&node, r#"{"id":1,"method":"eth_blockNumber"}"#).await }
    });
    net.chain().mine(1);
    assert!(ws.is_silent().await && idle.is_silent().await);
    assert!(!waiting.is_finished());
    assert_eq!((node.count("eth_chainId"), node.count("eth_blockNumber")), (1, 1), "requests are read");
    let upgrade = timeout(SILENCE, Ws::try_open(node)).await;
    assert!(upgrade.is_err(), "a new WebSocket hangs too");
    node.clear_faults();
    assert!(timeout(SOON, waiting).await.unwrap().unwrap().is_err(), "the hanging request is dropped");
    assert!(ws.is_dropped().await, "so is the socket that was owed an answer");
    assert_eq!(idle.event(&heads).await["number"], "0xb", "a socket that was owed nothing goes on");
    assert_eq!(head(node).await, 11);
}

#[tokio::test]
async fn a_request_that_waits_already_hangs_when_the_hang_begins() {
    let net = devnet().await;
    let node = net.el(0).clone();
    let waiting = tokio::spawn({
        let node = node.clone();
        async move { post(&node, r#"{"id":1,"method":"dev_sleep","params":[100]}"#).await }
    });
    while node.count("dev_sleep") == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    node.set_fault(Fault::Hang);
    sleep(Duration::from_millis(250)).await;
    assert!(!waiting.is_finished());
    node.clear_faults();
    assert!(timeout(SOON, waiting).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn faults_of_the_head_change_what_a_node_sees_and_no_other() {
    let net = devnet().await;
    let node = net.el(0);
    let number_of_latest =
        async || number(&result(node, "eth_getBlockByNumber", json!(["latest", false])).await["number"]);
    node.set_fault(Fault::lag(3));
    assert_eq!((head(node).await, number_of_latest().await), (7, 7));
    assert_eq!(result(node, "eth_getBlockByNumber", json!(["0x8", false])).await, Value::Null);
    let unseen = net.chain().block(8).unwrap();
    assert_eq!(result(node, "eth_getBlockByHash", json!([unseen.hash.to_string(), false])).await, Value::Null);
    assert_eq!(head(net.el(1)).await, 10);
    node.clear_faults();
    assert_eq!(head(node).await, 10);

    node.set_fault(Fault::Freeze);
    net.chain().mine(2);
    net.chain().reorg(5).unwrap();
    assert_eq!(head(node).await, 10);
    let theirs = result(net.el(1), "eth_getBlockByNumber", json!(["0xa", false])).await;
    let ours = result(node, "eth_getBlockByNumber", json!(["0xa", false])).await;
    assert_ne!(ours["hash"], theirs["hash"], "a frozen node stays on the old branch");
    node.clear_fault("freeze");
    assert_eq!(head(node).await, 13);

    node.set_fault(Fault::lie(100));
    assert_eq!((head(node).await, number_of_latest().await), (113, 113));
    assert_eq!(result(node, "eth_getBlockByNumber", json!(["0xd", false])).await["number"], "0xd");
}

#[tokio::test]
async fn nodes_on_another_branch_have_other_blocks_at_a_height() {
    let net = devnet().await;
    let node = net.el(0);
    let mut ws = Ws::open(node).await;
    let heads = ws.subscribe(json!(["newHeads"])).await;
    node.set_fault(Fault::branch(2));
    let both = async |number: &str| {
        let block = async |index: usize| result(net.el(index), "eth_getBlockByNumber", json!([number, false])).await;
        (block(0).await, block(1).await)
    };
    let (ours, theirs) = both("0x8").await;
    assert_eq!(ours["hash"], theirs["hash"]);
    let mut parent = ours["hash"].clone();
    net.chain().mine(1);
    for number in ["0x9", "0xa", "0xb"] {
        let (ours, theirs) = both(number).await;
        assert_ne!(ours["hash"], theirs["hash"], "{number}");
        assert_eq!(ours["parentHash"], parent, "{number}");
        assert_eq!(ws.event(&heads).await["hash"], ours["hash"], "{number}");
        assert_eq!(result(node, "eth_getBlockByHash", json!([ours["hash"], false])).await["number"], number);
        parent = ours["hash"].clone();
    }
    node.clear_fault("branch");
    let (ours, theirs) = both("0xb").await;
    assert_eq!(ours["hash"], theirs["hash"]);
    assert_eq!(ws.event(&heads).await["number"], "0x9", "it comes back by a reorganisation");
}

#[tokio::test]
async fn a_late_node_sees_and_tells_each_block_later_than_others() {
    let net = devnet().await;
    let node = net.el(0);
    node.set_fault(Fault::late(300));
    assert_eq!(head(node).await, 10, "it is late with news, not behind");
    let mut ws = Ws::open(node).await;
    let heads = ws.subscribe(json!(["newHeads"])).await;
    let mined = tokio::time::Instant::now();
    net.chain().mine(2);
    assert_eq!((head(net.el(1)).await, head(node).await), (12, 10));
    assert_eq!(ws.event(&heads).await["number"], "0xb");
    assert_eq!(ws.event(&heads).await["number"], "0xc");
    assert!(mined.elapsed() >= Duration::from_millis(300), "{:?}", mined.elapsed());
    assert_eq!(head(node).await, 12);
    net.chain().mine(1);
    node.clear_fault("late");
    assert_eq!(ws.event(&heads).await["number"], "0xd");
}

#[tokio::test]
async fn faults_of_the_answer_are_seen_by_http_clients() {
    let net = devnet().await;
    let node = net.el(0);
    let ask = async || {
        let answer = post(node, r#"{"id":1,"method":"eth_chainId"}"#).await.unwrap();
        let retry = answer.headers().contains_key("retry-after");
        (answer.status().as_u16(), retry, answer.text().await.unwrap())
    };
    node.set_fault(Fault::Failing);
    let (status, _, body) = ask().await;
    assert_eq!((status, serde_json::from_str::<Value>(&body).is_err()), (500, true));
    node.clear_faults();
    node.set_fault(Fault::Garbage);
    let (status, _, body) = ask().await;
    assert_eq!((status, serde_json::from_str::<Value>(&body).is_err()), (200, true));
    node.clear_faults();
    node.set_fault(Fault::rate_limited(1));
    let (status, retry, _) = ask().await;
    assert_eq!((status, retry), (429, true));
    node.clear_faults();
    node.set_fault(Fault::rpc_error(-32603, "oh \"no\""));
    assert_eq!(call(node, "eth_chainId", json!([])).await["error"], json!({"code": -32603, "message": "oh \"no\""}));
    node.clear_faults();
    node.set_fault(Fault::wrong_chain(5));
    assert_eq!(result(node, "eth_chainId", json!([])).await, "0x5");
    assert_eq!(result(node, "net_version", json!([])).await, "5");
    node.set_fault(Fault::Syncing);
    let status = result(node, "eth_syncing", json!([])).await;
    assert!(number(&status["highestBlock"]) > number(&status["currentBlock"]));
    node.clear_faults();
    assert_eq!(ask().await.2, r#"{"jsonrpc":"2.0","id":1,"result":"0x539"}"#);
}

#[tokio::test]
async fn slow_delays_each_answer_alone_and_ends_at_once() {
    let net = devnet().await;
    let node = net.el(0);
    node.set_fault(Fault::slow(200));
    let began = tokio::time::Instant::now();
    let mut ws = Ws::open(node).await;
    for id in 0..20 {
        ws.send(id, "eth_chainId", json!([])).await;
    }
    for _ in 0..20 {
        ws.next().await;
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(400), "the handshake and the calls: {took:?}");
    assert!(took < Duration::from_secs(2), "the calls do not queue: {took:?}");
    node.set_fault(Fault::slow(60_000));
    ws.send(1, "eth_chainId", json!([])).await;
    assert!(ws.is_silent().await);
    node.clear_faults();
    assert_eq!(ws.next().await["result"], "0x539");
}

#[tokio::test]
async fn a_cut_answer_is_executed_and_lost() {
    let net = devnet().await;
    let node = net.el(0);
    node.set_fault(Fault::cut_answer(&[]));
    let raw = json!({"id": 1, "method": "eth_sendRawTransaction", "params": ["0x1234"]}).to_string();
    let mut socket = TcpStream::connect(node.addr()).await.unwrap();
    let request = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{raw}", raw.len());
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    // The end may be a reset.
    let _ = timeout(SOON, socket.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"", "not one byte");
    assert_eq!(net.chain().mempool(), [keccak256([0x12, 0x34])]);
    assert_eq!(head(node).await, 10, "probes get through");
    node.set_fault(Fault::cut_answer(&["eth_chainId"]));
    assert_eq!(result(node, "eth_gasPrice", json!([])).await, "0x3b9aca00");
    assert!(post(node, r#"{"id":1,"method":"eth_chainId"}"#).await.is_err());
    let mut ws = Ws::open(node).await;
    ws.send(1, "eth_chainId", json!([])).await;
    assert!(ws.is_dropped().await);
}

#[tokio::test]
async fn a_cut_body_breaks_off_half_way() {
    let net = devnet().await;
    net.el(0).set_fault(Fault::CutMidBody);
    for length in [10_000, 3_000_000] {
        let body = json!({"id": 1, "method": "dev_blob", "params": [length]}).to_string();
        let mut answer = post(net.el(0), body).await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        assert!(answer.chunk().await.unwrap().is_some(), "some of it comes");
        while let Ok(piece) = answer.chunk().await {
            assert!(piece.is_some(), "the body ended as if it were whole");
        }
    }
    let mut ws = Ws::open(net.el(0)).await;
    ws.send(1, "eth_chainId", json!([])).await;
    assert!(timeout(SOON, ws.0.next()).await.unwrap().is_none_or(|message| message.is_err()));
}

#[tokio::test]
async fn request_half_sent_when_a_hang_began_is_never_finished() {
    let net = devnet().await;
    let node = net.el(0);
    let mut pinged = Ws::open(node).await;
    let body = json!({"id": 1, "method": "dev_blob", "params": [1_u64 << 30]}).to_string();
    let mut blob = post(node, body).await.unwrap();
    blob.chunk().await.unwrap();
    node.set_fault(Fault::Hang);
    pinged.0.send(Message::Ping("x".into())).await.unwrap();
    // What had left the node before the hang still comes.
    while timeout(SILENCE, blob.chunk()).await.is_ok() {}
    assert!(pinged.is_silent().await);
    node.clear_faults();
    let rest = timeout(SOON, async { while let Ok(Some(_)) = blob.chunk().await {} }).await;
    assert!(rest.is_ok(), "the connection goes on");
    assert!(pinged.is_dropped().await, "a pong was owed");
    let open = async {
        while node.connections_open() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, open).await.unwrap();
}

#[tokio::test]
async fn answers_carry_a_wrong_id_or_none_over_both_transports() {
    let net = devnet().await;
    let node = net.el(0);
    let mut ws = Ws::open(node).await;
    let ask = json!({"id": 7, "method": "eth_gasPrice"}).to_string();
    for (fault, id) in [(Fault::alien_id(&[]), json!(8)), (Fault::no_id(&[]), Value::Null)] {
        node.set_fault(fault.clone());
        let answer: Value = post(node, ask.clone()).await.unwrap().json().await.unwrap();
        assert_eq!((&answer["result"], &answer["id"]), (&json!("0x3b9aca00"), &id));
        ws.send(7, "eth_gasPrice", json!([])).await;
        let answer = ws.next().await;
        assert_eq!((&answer["result"], &answer["id"]), (&json!("0x3b9aca00"), &id));
        assert_eq!(answer.get("id").is_some(), id != Value::Null);
        assert_eq!(head(node).await, 10, "probes are answered as they should be");
        node.clear_fault(&fault.name());
    }
    let text = json!({"id": "a", "method": "eth_gasPrice"}).to_string();
    node.set_fault(Fault::alien_id(&["eth_gasPrice"]));
    let answer: Value = post(node, text).await.unwrap().json().await.unwrap();
    assert_eq!(answer["id"], "another call");
}

#[tokio::test]
async fn the_newest_blocks_are_announced_and_null() {
    let net = devnet().await;
    let (node, whole) = (net.el(0), net.el(1));
    node.set_fault(Fault::nulls(2));
    assert_eq!(head(node).await, 10);
    for (number, is_null) in [("0x8", false), ("0x9", true), ("0xa", true), ("latest", false)] {
        let block = result(node, "eth_getBlockByNumber", json!([number, false])).await;
        assert_eq!(block.is_null(), is_null, "{number}");
        assert_eq!(result(node, "eth_getBlockReceipts", json!([number])).await.is_null(), is_null, "{number}");
        let block = result(whole, "eth_getBlockByNumber", json!([number, false])).await;
        let is_null = is_null || number == "latest";
        assert_eq!(result(node, "eth_getBlockByHash", json!([block["hash"], false])).await.is_null(), is_null);
        for transaction in block["transactions"].as_array().unwrap() {
            assert_eq!(result(node, "eth_getTransactionByHash", json!([transaction])).await.is_null(), is_null);
            assert_eq!(result(node, "eth_getTransactionReceipt", json!([transaction])).await.is_null(), is_null);
        }
    }
}

#[tokio::test]
async fn a_forgetful_node_has_no_mempool_and_the_others_have_theirs() {
    let net = devnet().await;
    let (one, two) = (net.el(0), net.el(1));
    let first = result(one, "eth_sendRawTransaction", json!(["0x0201"])).await;
    one.set_fault(Fault::Forgetful);
    let second = result(one, "eth_sendRawTransaction", json!(["0x0202"])).await;
    for hash in [&first, &second] {
        assert_eq!(result(one, "eth_getTransactionByHash", json!([hash])).await, json!(null));
        assert_eq!(result(two, "eth_getTransactionByHash", json!([hash])).await["hash"], *hash);
    }
    assert_eq!((one.mempool().len(), two.mempool().len()), (0, 2));
    two.set_fault(Fault::Forgetful);
    assert!(net.chain().mempool().is_empty(), "no node has them any more");
    result(two, "eth_sendRawTransaction", json!(["0x0203"])).await;
    assert!(net.chain().mempool().is_empty(), "nor does the other keep what is handed on");
    one.clear_fault("forgetful");
    result(two, "eth_sendRawTransaction", json!(["0x0203"])).await;
    assert_eq!((one.mempool().len(), two.mempool().len()), (1, 0));
    net.chain().mine(1);
    for hash in [first, second] {
        assert_eq!(result(one, "eth_getTransactionReceipt", json!([hash])).await, json!(null));
    }
}

#[tokio::test]
async fn a_mempool_of_its_own_is_empty_after_a_restart() {
    let net = crate::common::devnet(Options { own_mempools: true, ..Options::default() }).await;
    let (one, two) = (net.el(0), net.el(1));
    let hash = result(one, "eth_sendRawTransaction", json!(["0x0201"])).await;
    assert_eq!((one.mempool().len(), two.mempool().len()), (1, 0));
    assert_eq!(result(two, "eth_sendRawTransaction", json!(["0x0201"])).await, hash, "new to this node");
    let again = call(two, "eth_sendRawTransaction", json!(["0x0201"])).await;
    assert_eq!(again["error"]["message"], "already known");
    two.restart().await;
    assert_eq!((one.mempool().len(), two.mempool().len(), net.chain().mempool().len()), (1, 0, 1));
    let block = net.chain().mine(1);
    assert_eq!(result(two, "eth_getTransactionReceipt", json!([hash])).await["blockHash"], block.hash.to_string());
    let mined = call(two, "eth_sendRawTransaction", json!(["0x0201"])).await;
    assert_eq!(mined["error"]["message"], "already known");
}
