//! Single calls and batches, to the byte.

use std::time::Duration;

use cucumber::{gherkin::Step, given, then, when};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    network::{here, stretch},
    world::{Proxy, eventually, reply, soon},
};

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

fn text(step: &Step) -> String {
    step.docstring.as_ref().expect("a text").trim().to_owned()
}

#[when("a client sends:")]
async fn sends(proxy: &mut Proxy, step: &Step) {
    proxy.last = Some(proxy.post(text(step)).await);
}

#[when(expr = "a client calls {word}")]
async fn calls(proxy: &mut Proxy, method: String) {
    proxy.last = Some(proxy.call(&method, &json!([])).await);
}

#[when("a client asks which node answers")]
async fn asks(proxy: &mut Proxy) {
    let before = proxy.answered().await;
    proxy.last = Some(reply(proxy.who_are_you().0).await);
    proxy.find_teller(&before).await;
}

#[when(expr = "a client sends {int} calls without an id, one after the other")]
async fn without_id(proxy: &mut Proxy, count: usize) {
    for _ in 0..count {
        let reply = proxy.post(r#"{"jsonrpc":"2.0","method":"eth_gasPrice"}"#).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    }
}

#[when(expr = "a client sends a body of {int} bytes")]
async fn long_body(proxy: &mut Proxy, bytes: usize) {
    proxy.last = Some(proxy.post(padded(bytes)).await);
}

/// A call of exactly so many bytes.
pub fn padded(bytes: usize) -> String {
    let (head, tail) = (r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[""#, r#""]}"#);
    format!("{head}{}{tail}", "x".repeat(bytes - head.len() - tail.len()))
}

#[when(expr = "a client sends {int} bytes in pieces, and does not say how many come")]
async fn chunked(proxy: &mut Proxy, bytes: usize) {
    let body = padded(bytes).into_bytes();
    let pieces = body.chunks(100).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect::<Vec<_>>();
    let request = http::Request::post("/").header("host", "proxy");
    let stream = futures_util::stream::iter(pieces);
    let body = http_body_util::StreamBody::new(futures_util::StreamExt::map(stream, |piece| {
        piece.map(|piece| hyper::body::Frame::data(bytes::Bytes::from(piece)))
    }));
    let socket = tokio::net::TcpStream::connect(proxy.addr()).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(socket);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let driver = tokio::spawn(connection);
    let started = tokio::time::Instant::now();
    let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    driver.abort();
    let body = String::from_utf8(body.to_vec()).unwrap();
    proxy.last = Some(crate::world::Reply { status, retry_after: false, body, took: started.elapsed() });
}

#[when(expr = "a client sends the HTTP method {word}")]
async fn http_method(proxy: &mut Proxy, method: String) {
    let request = proxy.client.request(method.parse().unwrap(), format!("http://{}", proxy.addr()));
    let started = tokio::time::Instant::now();
    let response = request.send().await.unwrap();
    let (status, body) = (response.status().as_u16(), response.text().await.unwrap());
    proxy.last = Some(crate::world::Reply { status, retry_after: false, body, took: started.elapsed() });
}

#[when(expr = "a client sends a batch of {int} calls")]
async fn batch(proxy: &mut Proxy, count: usize) {
    proxy.last = Some(proxy.post(batch_of(count)).await);
}

pub fn batch_of(count: usize) -> String {
    let call = |id| json!({"jsonrpc": "2.0", "id": id, "method": "eth_getBalance", "params": [address(id), "latest"]});
    json!((0..count).map(call).collect::<Vec<_>>()).to_string()
}

/// A different account for each number.
pub fn address(number: usize) -> String {
    format!("0x{number:040x}")
}

#[when(expr = "a batch of {int} calls is under way, {int} of them at {word}")]
async fn batch_under_way(proxy: &mut Proxy, count: usize, there: u64, name: String) {
    proxy.waiting.push(tokio::spawn(proxy.post(batch_of(count))));
    let proxy = &*proxy;
    eventually("the batch is under way", soon(), async || match proxy.node(&name).count("eth_getBalance") {
        seen if seen >= there => Ok(()),
        seen => Err(format!("{seen} of {there}")),
    })
    .await;
}

#[then(expr = "the batch is answered whole and in order")]
async fn whole_batch(proxy: &mut Proxy) {
    let reply = proxy.waiting.pop().expect("a batch was sent").await.unwrap();
    let answers = reply.json();
    let answers = answers.as_array().unwrap_or_else(|| panic!("no batch: {reply:?}"));
    assert!(!answers.is_empty());
    for (id, answer) in answers.iter().enumerate() {
        assert_eq!(answer["id"], id, "{answer}");
        assert!(answer["result"].is_string(), "{answer}");
    }
}

#[then("the answer is, byte for byte:")]
async fn answer_is(proxy: &mut Proxy, step: &Step) {
    assert_eq!(proxy.last.as_ref().expect("a reply").body, text(step));
}

#[then("the answers are, in this order:")]
async fn answers_are(proxy: &mut Proxy, step: &Step) {
    let reply = proxy.last.clone().expect("a reply");
    let answers: Vec<Envelope<'_>> = serde_json::from_str(&reply.body).unwrap_or_else(|e| panic!("{e}: {reply:?}"));
    let seen: Vec<(String, String)> = answers
        .iter()
        .map(|answer| {
            let outcome = match (answer.result, answer.error) {
                (Some(result), None) => result.get().to_owned(),
                (None, Some(error)) => serde_json::from_str::<Value>(error.get()).unwrap()["code"].to_string(),
                _ => panic!("neither a result nor an error: {reply:?}"),
            };
            (answer.id.get().to_owned(), outcome)
        })
        .collect();
    let rows = &step.table.as_ref().expect("a table").rows[1..];
    let expected: Vec<_> = rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(seen, expected, "{reply:?}");
    assert_eq!(reply.status, 200);
}

#[then(expr = "the answer has {int} entries, each with its own id")]
async fn entries(proxy: &mut Proxy, count: usize) {
    let reply = proxy.last.as_ref().expect("a reply").json();
    let answers = reply.as_array().expect("a batch");
    assert_eq!(answers.len(), count);
    for (id, answer) in answers.iter().enumerate() {
        assert!(answer["id"] == id && answer["result"].is_string(), "{answer}");
    }
}

#[then("the client gets an empty answer with HTTP status 200")]
async fn empty(proxy: &mut Proxy) {
    let reply = proxy.last.as_ref().expect("a reply");
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
}

#[then(expr = "the client gets HTTP status {int}")]
async fn http_status(proxy: &mut Proxy, status: u16) {
    let reply = proxy.last.as_ref().expect("a reply");
    assert_eq!(reply.status, status, "{reply:?}");
}

#[then(expr = "the client is told to come back later")]
async fn later(proxy: &mut Proxy) {
    let reply = proxy.last.as_ref().expect("a reply");
    assert!(reply.retry_after, "no Retry-After: {reply:?}");
}

#[then(expr = "the client gets error {int}")]
async fn error(proxy: &mut Proxy, code: i64) {
    let reply = proxy.last.as_ref().expect("a reply");
    assert_eq!(reply.json()["error"]["code"], code, "{reply:?}");
}

#[then(expr = "the client gets error {int} for the reason {word}")]
async fn error_with_reason(proxy: &mut Proxy, code: i64, reason: String) {
    error(proxy, code).await;
    let reply = proxy.last.as_ref().expect("a reply");
    assert_eq!(reply.json()["error"]["data"]["reason"], *reason, "{reply:?}");
}

#[then("the client gets a result")]
async fn result(proxy: &mut Proxy) {
    let reply = proxy.last.as_ref().expect("a reply");
    assert!(reply.json().get("result").is_some_and(|result| !result.is_null()), "{reply:?}");
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[then(expr = "the client is answered by {word}")]
async fn answered_by(proxy: &mut Proxy, name: String) {
    let reply = proxy.last.as_ref().expect("a reply");
    assert_eq!(proxy.who_answered(reply), Ok(name), "{reply:?}");
}

#[then(expr = "the answer took from {int} to {int} ms")]
async fn took(proxy: &mut Proxy, least: u64, most: u64) {
    let took = proxy.last.as_ref().expect("a reply").took;
    let most = stretch(Duration::from_millis(most));
    assert!(took >= Duration::from_millis(least) && took <= most, "{took:?}");
}

#[given(expr = "{word} has been asked for {word} {int} time(s)")]
#[then(expr = "{word} has been asked for {word} {int} time(s)")]
async fn asked(proxy: &mut Proxy, name: String, method: String, times: u64) {
    assert_eq!(here(proxy.net().asked(proxy.at(&name), &method)), times, "{method} at {name}");
}

#[then("each of these ids comes back byte for byte, with a result, an error and in a batch:")]
async fn ids(proxy: &mut Proxy, step: &Step) {
    for row in &step.table.as_ref().expect("a table").rows {
        let id = &row[0];
        let one = |method: &str| format!(r#"{{"jsonrpc":"2.0", "id" : {id} ,"method":"{method}","params":[]}}"#);
        for (method, word) in
            [("eth_gasPrice", "result"), ("eth_chainId", "result"), ("admin_peers", "error"), ("eth_call", "error")]
        {
            let reply = proxy.post(one(method)).await;
            let answer: Envelope<'_> = serde_json::from_str(&reply.body).unwrap_or_else(|e| panic!("{e}: {reply:?}"));
            assert_eq!(answer.id.get(), id, "{method}: {reply:?}");
            assert_eq!(answer.result.is_some(), word == "result", "{method}: {reply:?}");
        }
        let reply = proxy.post(format!("[{},{}]", one("eth_gasPrice"), one("admin_peers"))).await;
        let answers: Vec<Envelope<'_>> = serde_json::from_str(&reply.body).unwrap_or_else(|e| panic!("{e}: {reply:?}"));
        assert_eq!([answers[0].id.get(), answers[1].id.get()], [id, id], "{reply:?}");
    }
}

#[then("each of these methods is refused and reaches no node:")]
async fn refused(proxy: &mut Proxy, step: &Step) {
    let before = foreign(proxy);
    for row in &step.table.as_ref().expect("a table").rows {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}","params":[]}}"#, row[0]);
        for body in [body.clone(), format!("[{body}]")] {
            let reply = proxy.post(body).await;
            let answer = reply.json();
            let answer = if answer.is_array() { &answer[0] } else { &answer };
            assert_eq!(answer["error"]["code"], -32601, "{}: {reply:?}", row[0]);
        }
    }
    assert_eq!(foreign(proxy), before);
}

#[then("each of these requests is refused as no request and reaches no node:")]
async fn malformed(proxy: &mut Proxy, step: &Step) {
    let before = foreign(proxy);
    for row in &step.table.as_ref().expect("a table").rows {
        let reply = proxy.post(row[0].clone()).await;
        assert_eq!(reply.json()["error"]["code"], -32600, "{}: {reply:?}", row[0]);
        assert_eq!(reply.status, 400, "{}: {reply:?}", row[0]);
        let reply = proxy.post(format!("[{}]", row[0])).await;
        assert_eq!(reply.json()[0]["error"]["code"], -32600, "{}: {reply:?}", row[0]);
    }
    assert_eq!(foreign(proxy), before);
}

/// What nodes were asked that is no probe.
fn foreign(proxy: &Proxy) -> Vec<String> {
    let methods = proxy.pretend().nodes().flat_map(|node| node.counts().into_keys());
    methods
        .filter(|method| !["eth_getBlockByNumber", "eth_syncing", "eth_chainId", "net_version"].contains(&&**method))
        .collect()
}
