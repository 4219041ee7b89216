//! The pretend network as its clients see it: real HTTP and real WebSockets on loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{io, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use steadfast::{
    devnet::{Devnet, Fault, Hash, Node, Options, Transport},
    net::tcp::Tcp,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// Long enough for anything that is to come.
const SOON: Duration = Duration::from_secs(5);
/// Long enough to say that nothing comes.
const SILENCE: Duration = Duration::from_millis(150);

async fn devnet() -> Devnet {
    start(Options::default()).await
}

async fn start(options: Options) -> Devnet {
    Devnet::start(options, Arc::new(Tcp)).await.unwrap()
}

fn http() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

async fn post(node: &Node, body: impl Into<reqwest::Body>) -> reqwest::Result<reqwest::Response> {
    http().post(node.http_url()).body(body).timeout(SOON).send().await
}

async fn call(node: &Node, method: &str, params: Value) -> Value {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let text = post(node, body.to_string()).await.unwrap().text().await.unwrap();
    serde_json::from_str(&text).unwrap()
}

async fn result(node: &Node, method: &str, params: Value) -> Value {
    let answer = call(node, method, params).await;
    assert!(answer.get("error").is_none(), "{method}: {answer}");
    answer["result"].clone()
}

async fn head(node: &Node) -> u64 {
    number(&result(node, "eth_blockNumber", json!([])).await)
}

fn number(quantity: &Value) -> u64 {
    u64::from_str_radix(quantity.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

struct Ws(WebSocketStream<TcpStream>);

impl Ws {
    async fn open(node: &Node) -> Self {
        Self::try_open(node).await.unwrap()
    }

    async fn try_open(node: &Node) -> Result<Self, tokio_tungstenite::tungstenite::Error> {
        let stream = TcpStream::connect(node.addr()).await.map_err(tokio_tungstenite::tungstenite::Error::Io)?;
        let (socket, _) = client_async(format!("{}/any/path", node.ws_url()), stream).await?;
        Ok(Self(socket))
    }

    async fn send(&mut self, id: u64, method: &str, params: Value) {
        let text = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string();
        self.0.send(Message::text(text)).await.unwrap();
    }

    async fn next(&mut self) -> Value {
        let message = timeout(SOON, self.0.next()).await.expect("a message in time").unwrap().unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.send(1, method, params).await;
        let answer = self.next().await;
        assert_eq!(answer["id"], 1, "{answer}");
        answer["result"].clone()
    }

    async fn subscribe(&mut self, params: Value) -> String {
        self.call("eth_subscribe", params).await.as_str().unwrap().to_owned()
    }

    /// The next event of the subscription.
    async fn event(&mut self, id: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["method"], "eth_subscription", "{message}");
        assert_eq!(message["params"]["subscription"], id, "{message}");
        message["params"]["result"].clone()
    }

    async fn is_silent(&mut self) -> bool {
        timeout(SILENCE, self.0.next()).await.is_err()
    }

    async fn is_dropped(&mut self) -> bool {
        let ended = timeout(SOON, async { while let Some(Ok(_)) = self.0.next().await {} }).await;
        ended.is_ok()
    }
}

#[tokio::test]
async fn a_chain_is_read_over_http() {
    let net = devnet().await;
    let node = net.el(0);
    assert_eq!(head(node).await, 10);
    assert_eq!(result(node, "eth_chainId", json!([])).await, "0x539");
    assert_eq!(result(node, "net_version", json!([])).await, "1337");
    assert_eq!(result(node, "eth_syncing", json!([])).await, false);
    assert!(result(node, "web3_clientVersion", json!([])).await.as_str().unwrap().contains("el-1"));
    assert_eq!(result(net.el(1), "dev_nodeName", json!([])).await, "el-2");
    let latest = result(node, "eth_getBlockByNumber", json!(["latest", false])).await;
    let by_hash = result(net.el(1), "eth_getBlockByHash", json!([latest["hash"], true])).await;
    assert_eq!(by_hash["number"], "0xa");
    assert_eq!(by_hash["transactions"][0]["hash"], latest["transactions"][0]);
    let parent = result(node, "eth_getBlockByNumber", json!(["0x9", false])).await;
    assert_eq!(latest["parentHash"], parent["hash"]);
    for tag in ["earliest", "safe", "finalized", "pending"] {
        assert!(result(node, "eth_getBlockByNumber", json!([tag, false])).await.is_object(), "{tag}");
    }
    assert_eq!(result(node, "eth_getBlockByNumber", json!(["0xb", false])).await, Value::Null);
}

#[tokio::test]
async fn logs_are_found_by_range_by_hash_and_in_receipts() {
    let net = devnet().await;
    let node = net.el(0);
    let all = result(node, "eth_getLogs", json!([{"fromBlock": "0x1", "toBlock": "latest"}])).await;
    let all = all.as_array().unwrap();
    assert!(all.len() > 20);
    let latest = result(node, "eth_getBlockByNumber", json!(["latest", false])).await;
    let of_latest: Vec<_> = all.iter().filter(|log| log["blockHash"] == latest["hash"]).cloned().collect();
    assert_eq!(
        result(node, "eth_getLogs", json!([{"blockHash": latest["hash"]}])).await,
        Value::Array(of_latest.clone())
    );
    let receipts = result(node, "eth_getBlockReceipts", json!(["latest"])).await;
    let in_receipts: Vec<_> =
        receipts.as_array().unwrap().iter().flat_map(|r| r["logs"].as_array().unwrap().clone()).collect();
    assert_eq!(in_receipts, of_latest);
    let one = result(node, "eth_getTransactionReceipt", json!([receipts[0]["transactionHash"]])).await;
    assert_eq!(one, receipts[0]);
    let contract = net.chain().contracts()[0].to_string();
    let wish = json!([{"fromBlock": "earliest", "address": contract, "topics": [null, all[0]["topics"][1]]}]);
    let some = result(node, "eth_getLogs", wish).await;
    let expected: Vec<_> =
        all.iter().filter(|log| log["address"] == contract && log["topics"][1] == all[0]["topics"][1]).collect();
    assert_eq!(json!(some), json!(expected));
}

#[tokio::test]
async fn raw_transactions_are_mined_once_and_remembered_by_the_node_that_got_them() {
    let net = devnet().await;
    let raw = "0x02f86b0102";
    let hash = result(net.el(0), "eth_sendRawTransaction", json!([raw])).await;
    assert_eq!(hash, Hash::of(&[0x02, 0xf8, 0x6b, 0x01, 0x02]).to_string());
    let again = call(net.el(1), "eth_sendRawTransaction", json!([raw])).await;
    assert_eq!((&again["error"]["code"], &again["error"]["message"]), (&json!(-32000), &json!("already known")));
    assert_eq!(net.el(0).raw_transactions().len(), 1);
    assert!(net.el(1).raw_transactions().is_empty());
    assert_eq!(result(net.el(1), "eth_getTransactionReceipt", json!([hash])).await, Value::Null);
    let waiting = result(net.el(1), "eth_getTransactionByHash", json!([hash])).await;
    assert_eq!((&waiting["hash"], &waiting["blockHash"]), (&hash, &Value::Null));
    let block = net.chain().mine(1);
    let receipt = result(net.el(1), "eth_getTransactionReceipt", json!([hash])).await;
    assert_eq!(receipt["blockHash"], block.hash.to_string());
    assert_eq!(result(net.el(1), "eth_getTransactionByHash", json!([hash])).await["blockNumber"], "0xb");
}

#[tokio::test]
async fn a_transaction_of_an_unlocked_account_is_new_each_time() {
    let net = devnet().await;
    let from = net.chain().account(0).to_string();
    let wish = json!([{"from": from, "to": net.chain().account(1).to_string(), "value": "0x1"}]);
    let before = number(&result(net.el(0), "eth_getTransactionCount", json!([from, "latest"])).await);
    let one = result(net.el(0), "eth_sendTransaction", wish.clone()).await;
    let two = result(net.el(0), "eth_sendTransaction", wish).await;
    assert_ne!(one, two);
    assert_eq!(net.chain().unlocked_transactions().len(), 2);
    let pending = number(&result(net.el(0), "eth_getTransactionCount", json!([from, "pending"])).await);
    assert_eq!(pending, before + 2);
}

#[tokio::test]
async fn errors_have_the_codes_of_real_nodes() {
    let net = devnet().await;
    let dead = json!([{"to": "0x000000000000000000000000000000000000dEaD"}, "latest"]);
    let cases = [
        ("eth_nonsense", json!([]), -32601),
        ("eth_subscribe", json!(["newHeads"]), -32601),
        ("eth_getBlockByNumber", json!([]), -32602),
        ("eth_getBlockByNumber", json!(["newest"]), -32602),
        ("eth_getBlockByHash", json!(["0x12"]), -32602),
        ("eth_getBalance", json!(["0x12"]), -32602),
        ("eth_sendRawTransaction", json!(["zz"]), -32602),
        ("eth_call", dead, 3),
        ("eth_call", json!([{"to": "0x0000000000000000000000000000000000000001"}, "0xffff"]), -32000),
        ("eth_getLogs", json!([{"blockHash": Hash::default().to_string()}]), -32000),
    ];
    for (method, params, code) in cases {
        let answer = call(net.el(0), method, params.clone()).await;
        assert_eq!(answer["error"]["code"], code, "{method} {params}: {answer}");
        assert_eq!(answer["error"].get("data").is_some(), code == 3, "{method} {params}: {answer}");
    }
}

#[tokio::test]
async fn batches_keep_their_order_and_calls_without_id_get_nothing() {
    let net = devnet().await;
    let batch = r#"[{"jsonrpc":"2.0","id":"a","method":"eth_chainId"},{"method":"eth_chainId"},1,{"id":2.50,"method":"dev_nodeName"}]"#;
    let text = post(net.el(0), batch).await.unwrap().text().await.unwrap();
    assert_eq!(
        text,
        r#"[{"jsonrpc":"2.0","id":"a","result":"0x539"},{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"invalid request"}},{"jsonrpc":"2.0","id":2.50,"result":"el-1"}]"#
    );
    let nothing = post(net.el(0), r#"{"jsonrpc":"2.0","method":"eth_chainId"}"#).await.unwrap();
    assert_eq!((nothing.status().as_u16(), nothing.content_length()), (200, Some(0)));
    assert_eq!(net.el(0).count("eth_chainId"), 3);
}

#[tokio::test]
async fn large_answers_are_chunked_and_small_ones_have_a_length() {
    let net = devnet().await;
    for (length, chunked) in [(1000_u64, false), (3_000_000, true)] {
        let body = json!({"id": 1, "method": "dev_blob", "params": [length]}).to_string();
        let answer = post(net.el(0), body).await.unwrap();
        assert_eq!(answer.content_length().is_none(), chunked);
        let value: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(value["result"].as_str().unwrap().len() as u64, length);
    }
}

#[tokio::test]
async fn what_was_asked_is_recorded_with_its_headers() {
    let net = devnet().await;
    let body = r#"{"id":1,"method":"eth_call","params":[{"to":"0x01"},  "latest"]}"#;
    http().post(net.el(0).http_url()).header("x-request-id", "abc").body(body).send().await.unwrap();
    let mut ws = Ws::open(net.el(0)).await;
    ws.call("eth_chainId", json!([])).await;
    let requests = net.el(0).requests();
    assert_eq!((requests[0].transport, requests[0].method.as_str()), (Transport::Http, "eth_call"));
    assert_eq!(requests[0].params, r#"[{"to":"0x01"},  "latest"]"#);
    assert_eq!(requests[0].headers["x-request-id"], "abc");
    assert_eq!((requests[1].transport, requests[1].method.as_str()), (Transport::Ws, "eth_chainId"));
    assert!(requests[1].headers.contains_key("sec-websocket-key"));
    assert_eq!((net.el(0).count("eth_call"), net.el(1).count("eth_call")), (1, 0));
    net.el(0).clear_records();
    assert_eq!((net.el(0).count("eth_call"), net.el(0).requests().len()), (0, 0));
    assert_eq!((net.el(0).websockets_open(), net.el(0).connections_total()), (1, 2));
}

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
    node.set_fault(Fault::RateLimited);
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
    assert_eq!(net.chain().mempool(), [Hash::of(&[0x12, 0x34])]);
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
