//! The access log, and the ids of requests.

use serde_json::{Value, json};
use steadfast::app::{App, World};

use crate::common::{
    client::{Client, Response, call, chunked, with_headers},
    log::Log,
    origin::{Origin, Reply},
    proxy::{config, nodes},
    rest,
    sim::{Net, Proxy},
    until,
    ws::Ws,
};

async fn node(net: &Net) -> Origin {
    Origin::within(net, |seen| match &*seen.method() {
        "eth_gasPrice" => Reply::error(seen, -32000, "no price"),
        _ => Reply::result(seen, "\"well\""),
    })
    .await
}

async fn proxy(net: &Net, origin: &Origin, settings: &str) -> Proxy {
    Proxy::over(net, [origin.url()], &format!("\n[log]\n{settings}\n")).await
}

async fn ask(proxy: &Proxy, host: u8, headers: &str, body: &str) -> Response {
    let mut client = proxy.client_at(host).await;
    client.send(with_headers("/", headers, body.as_bytes())).await;
    client.response().await
}

/// The lines of the access log, of which there will be so many.
async fn lines(log: &Log, count: usize) -> Vec<Value> {
    until("the lines are there", async || log.saying("request").len() >= count).await;
    assert_eq!(log.saying("request").len(), count);
    log.saying("request")
}

/// The fields of these names.
fn fields(line: &Value, names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| line[name].clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn each_request_has_a_line_over_every_door() {
    let net = Net::default();
    let log = Log::start();
    let origin = node(&net).await;
    let proxy = proxy(&net, &origin, "access = 1").await;
    let one = call(1, "eth_call", "[]");
    let batch = format!("[{},{}]", call(1, "eth_call", "[]"), call(2, "eth_gasPrice", "[]"));
    let headers = "X-Request-Id: mine\r\nTraceparent: 00-abc-def-01\r\nX-Forwarded-For: 203.0.113.9\r\n";
    let mut bytes = vec![ask(&proxy, 7, headers, &one).await.body.len(), ask(&proxy, 7, "", &batch).await.body.len()];
    // Through hyper.
    let mut client = proxy.client_at(8).await;
    client.send(chunked("X-Request-Id: other\r\n", one.as_bytes(), 10)).await;
    bytes.push(client.response().await.body.len());
    let mut ws = Ws::open(proxy.client_at(9).await.io, "/").await;
    bytes.push(0);
    bytes.push(ws.ask(&one).await.len());
    bytes.push(ws.ask(&batch).await.len());
    ws.subscribe("[\"newHeads\"]").await;
    bytes.push(ask(&proxy, 7, "", "no json").await.body.len());
    let lines = lines(&log, 8).await;
    let names = ["client", "door", "method", "node", "status", "outcome", "traceparent"];
    let seen: Vec<_> = lines.iter().map(|line| fields(line, &names)).collect();
    let two = "eth_call,eth_gasPrice";
    let none = Value::Null;
    assert_eq!(
        seen,
        [
            json!(["10.0.0.7", "http", "eth_call", "el-1", 200, "result", "00-abc-def-01"]),
            json!(["10.0.0.7", "http", two, "el-1", 200, "result,node_error", none]),
            json!(["10.0.0.8", "http", "eth_call", "el-1", 200, "result", none]),
            json!(["10.0.0.9", "http", none, none, 101, none, none]),
            json!(["10.0.0.9", "ws", "eth_call", "el-1", none, "result", none]),
            json!(["10.0.0.9", "ws", two, "el-1", none, "result,node_error", none]),
            json!(["10.0.0.9", "ws", "eth_subscribe", none, none, "result", none]),
            json!(["10.0.0.7", "http", none, none, 400, none, none]),
        ]
        .map(|line| line.as_array().unwrap().clone())
    );
    let told: Vec<usize> = lines.iter().map(|line| line["bytes"].as_u64().unwrap() as usize).collect();
    bytes.insert(6, told[6]);
    assert_eq!(told, bytes);
    assert!(lines.iter().all(|line| line["ms"].is_number()), "{lines:?}");
    let ids: Vec<&str> = lines.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
    assert_eq!((ids[0], ids[2]), ("mine", "other"));
    assert!(ids[1].len() == 16 && ids[1] != ids[7], "{ids:?}");
    assert!(ids[3..7].iter().all(|id| *id == ids[3]), "a WebSocket has one id: {ids:?}");
    // The node's own log has the same ids.
    let calls: Vec<_> = origin.seen().into_iter().filter(|seen| seen.method() == "eth_call").collect();
    let at_node: Vec<_> = calls.iter().map(|seen| seen.header("x-request-id").concat()).collect();
    assert_eq!(at_node, [ids[0], ids[1], ids[2], ids[4], ids[5]]);
    assert_eq!(calls[0].header("traceparent"), ["00-abc-def-01"]);
}

#[tokio::test(start_paused = true)]
async fn the_access_log_is_off_sampled_and_switched_by_a_reload() {
    let net = Net::default();
    let log = Log::start();
    let origin = node(&net).await;
    let proxy = proxy(&net, &origin, "").await;
    let one = call(1, "eth_call", "[]");
    for _ in 0..10 {
        ask(&proxy, 7, "", &one).await;
    }
    let seen = origin.seen();
    let last = seen.iter().rfind(|seen| seen.method() == "eth_call").unwrap();
    assert_eq!(last.header("x-request-id"), Vec::<&str>::new(), "no id is made while the log is off");
    assert_eq!(log.saying("request"), Vec::<Value>::new());
    proxy.reload(&format!("{}\n[log]\naccess = 5\n", nodes([origin.url()]))).await;
    for _ in 0..20 {
        ask(&proxy, 7, "", &one).await;
    }
    lines(&log, 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_is_named_by_trusted_proxies_alone() {
    let net = Net::default();
    let log = Log::start();
    let origin = node(&net).await;
    let proxy = proxy(&net, &origin, "access = 1\ntrusted_proxies = [\"10.0.0.1\"]").await;
    let one = call(1, "eth_call", "[]");
    let headers = "X-Forwarded-For: 1.1.1.1, 203.0.113.9\r\n";
    ask(&proxy, 1, headers, &one).await;
    ask(&proxy, 2, headers, &one).await;
    let mut client = proxy.client_at(1).await;
    client.send(chunked(headers, one.as_bytes(), 10)).await;
    client.response().await;
    let clients: Vec<Value> = lines(&log, 3).await.iter().map(|line| line["client"].clone()).collect();
    assert_eq!(clients, ["203.0.113.9", "10.0.0.2", "203.0.113.9"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_of_the_beacon_api_has_a_line() {
    let net = Net::default();
    let log = Log::start();
    let options = steadfast::devnet::Options { execution: 1, consensus: 1, ..Default::default() };
    let devnet = steadfast::devnet::Devnet::start(options, std::sync::Arc::new(net.clone())).await.unwrap();
    let url = devnet.cl(0).http_url();
    let settings = format!("[[cl.primary]]\nname = \"cl-1\"\nhttp = \"{url}\"\n[log]\naccess = 1\n");
    let proxy = Proxy::launch(&net, &settings).await;
    until("it serves", async || proxy.admin("/readyz").await.status == 200).await;
    let mut client = proxy.client_at(7).await;
    client.send("GET /eth/v1/node/version HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let length = client.response().await.body.len();
    client.send("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    client.response().await;
    let line = &lines(&log, 1).await[0];
    let names = ["client", "door", "method", "node", "status", "outcome", "bytes"];
    assert_eq!(
        fields(line, &names),
        [
            json!("10.0.0.7"),
            json!("http"),
            line["method"].clone(),
            json!("cl-1"),
            json!(200),
            json!("result"),
            json!(length)
        ]
    );
    assert!(line["method"].is_string(), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_no_node_answers_is_told_with_its_ids() {
    let net = Net::default();
    let log = Log::start();
    let origin = node(&net).await;
    let proxy = Proxy::over(&net, [origin.url()], "\n[calls]\nhold = \"1s\"\n").await;
    origin.hang_up();
    drop(origin);
    let headers = "X-Request-Id: mine\r\nTraceparent: 00-abc-def-01\r\n";
    for _ in 0..3 {
        assert_eq!(ask(&proxy, 7, headers, &call(1, "vendor_newMethod", "[]")).await.status, 503);
    }
    let told = log.saying("no node answered a request");
    assert_eq!(told.len(), 1, "{told:?}");
    let names = ["layer", "method", "outcome", "request_id", "traceparent"];
    assert_eq!(fields(&told[0], &names), ["el", "vendor_newMethod", "no_node", "mine", "00-abc-def-01"]);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_too_long_goes_neither_to_the_log_nor_on() {
    let net = Net::default();
    let log = Log::start();
    let origin = node(&net).await;
    let proxy = proxy(&net, &origin, "access = 1").await;
    let one = call(1, "eth_call", "[]");
    let long = "a".repeat(20_000);
    let headers = format!("X-Request-Id: {long}\r\nTraceparent: {long}\r\n");
    let second = format!("X-Request-Id: {long}\r\nX-Request-Id: second\r\nX-Request-Id: third\r\n");
    ask(&proxy, 7, &headers, &one).await;
    // Through hyper, and by a WebSocket.
    for headers in [&headers, &second] {
        let mut client = proxy.client_at(8).await;
        client.send(chunked(headers, one.as_bytes(), 10)).await;
        client.response().await;
    }
    let mut client = proxy.client_at(9).await;
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    client
        .send(format!("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n{key}{headers}\r\n"))
        .await;
    assert!(client.head().await.contains(" 101 "));
    let lines = lines(&log, 4).await;
    let ids: Vec<&str> = lines.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
    assert!(ids.iter().all(|id| id.len() <= 16), "{:?}", ids.iter().map(|id| id.len()).collect::<Vec<_>>());
    assert_eq!(ids[2], "second");
    assert!(lines.iter().all(|line| line["traceparent"].is_null()), "{:?}", lines[1]["traceparent"]);
    // The node has the same ids.
    let calls: Vec<_> = origin.seen().into_iter().filter(|seen| seen.method() == "eth_call").collect();
    let at_node: Vec<_> = calls.iter().map(|seen| seen.header("x-request-id")).collect();
    assert_eq!(at_node, [[ids[0]], [ids[1]], [ids[2]]]);
}

#[tokio::test]
async fn a_long_id_of_a_beacon_request_fills_no_line() {
    let log = Log::start();
    let node = rest::Node::start(|exchange: rest::Exchange| async move {
        exchange.reply("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await
    })
    .await;
    let settings = [&rest::nodes(&[node.url()]), "[log]\naccess = 1\n[calls]\nhold = \"10ms\"\n"].concat();
    // On this thread, whose log is looked at.
    let world = World { threads: None, ..World::real(1) };
    let app = App::start(config(&settings), world, None).await.unwrap();
    let long = "a".repeat(20_000);
    let fields = format!("x-request-id: {long}\r\ntraceparent: {long}\r\n");
    let ask = async || {
        let mut client = Client::connect(app.addr()).await;
        client.send(rest::request("GET", "/eth/v1/beacon/headers/7", &fields, "")).await;
        client.response().await.status
    };
    until("the node serves", async || ask().await == 200).await;
    let asked = node.asked();
    drop(node);
    until("no node serves", async || ask().await == 503).await;
    let lines_of = |status: u16| {
        let lines = log.saying("request").into_iter();
        lines.filter(|line| line["status"] == status).collect::<Vec<_>>()
    };
    until("both are told", async || !lines_of(503).is_empty() && !log.saying("no node answered a request").is_empty())
        .await;
    for line in log.lines() {
        let length = line.to_string().len();
        assert!(length < 2000, "{length} bytes: {}", line["fields"]["message"]);
    }
    // The node has the id that the log has.
    assert_eq!(asked.last().unwrap().header("x-request-id"), [lines_of(200)[0]["request_id"].as_str().unwrap()]);
}
