//! The control server, as curl sees it.

use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Fault, Options};
use tokio::net::TcpStream;

use super::client::{http, result, start};

struct Control {
    net: Devnet,
    url: String,
}

impl Control {
    async fn start() -> Self {
        let control = Some("127.0.0.1:0".parse().unwrap());
        let net = start(Options { consensus: 1, control, ..Options::default() }).await;
        let url = format!("http://{}", net.control_addr().unwrap());
        Self { net, url }
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let answer = http().request(method, format!("{}{path}", self.url)).body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn post(&self, path: &str) -> Value {
        let (status, answer) = self.ask("POST", path, "").await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }
}

#[tokio::test]
async fn nodes_are_listed_with_their_urls_heads_and_faults() {
    let control = Control::start().await;
    control.post("/nodes/el-2/lag/4").await;
    let (status, list) = control.ask("GET", "/", "").await;
    assert_eq!((status, &list["chain"]["head"]), (200, &json!(10)));
    let nodes = list["nodes"].as_array().unwrap();
    assert_eq!(nodes.iter().map(|node| node["name"].as_str().unwrap()).collect::<Vec<_>>(), ["el-1", "el-2", "cl-1"]);
    assert_eq!(nodes[0]["http"], control.net.el(0).http_url());
    assert_eq!(nodes[0]["ws"], control.net.el(0).ws_url());
    assert_eq!((&nodes[1]["head"], &nodes[1]["faults"]), (&json!(6), &json!([{"fault": "lag", "blocks": 4}])));
}

#[tokio::test]
async fn a_transaction_is_reorganised_out_by_its_hash() {
    let control = Control::start().await;
    let hash = control.net.chain().submit(vec![1, 2, 3]).unwrap();
    control.post("/mine/2").await;
    let answer = control.post(&format!("/reorg-out/{hash}")).await;
    assert_eq!((&answer["head"], answer["removed"].as_array().unwrap().len()), (&json!(13), 2));
    for (path, why) in [
        (format!("/reorg-out/{hash}"), "no block of the chain has this transaction"),
        ("/reorg-out/7".to_owned(), "\"7\" is not a transaction's hash"),
    ] {
        let (status, answer) = control.ask("POST", &path, "").await;
        assert_eq!((status, &answer["error"]), (400, &json!(why)));
    }
}

#[tokio::test]
async fn faults_are_set_and_cleared_and_felt_when_the_answer_comes() {
    let control = Control::start().await;
    let node = control.net.el(0);
    control.post("/nodes/el-1/down").await;
    assert!(TcpStream::connect(node.addr()).await.is_err());
    control.post("/nodes/el-1/up").await;
    assert!(TcpStream::connect(node.addr()).await.is_ok());
    let (status, _) = control.ask("POST", "/nodes/el-1/faults", r#"{"fault":"wrong_chain","chain_id":9}"#).await;
    assert_eq!((status, node.active_faults()), (200, vec![Fault::wrong_chain(9)]));
    control.post("/nodes/el-1/lie/7").await;
    control.ask("DELETE", "/nodes/el-1/faults/wrong-chain", "").await;
    assert_eq!(node.active_faults(), [Fault::lie(7)]);
    control.ask("DELETE", "/nodes/el-1/faults", "").await;
    assert_eq!(node.active_faults(), []);
}

#[tokio::test]
async fn the_chain_is_mined_and_reorganised() {
    let control = Control::start().await;
    assert_eq!(control.post("/mine").await["head"], 11);
    assert_eq!(control.post("/mine/3").await["head"], 14);
    let reorg = control.post("/reorg/2").await;
    assert_eq!((&reorg["head"], reorg["removed"].as_array().unwrap().len()), (&json!(15), 2));
    assert_eq!(control.post("/reorg/2/1").await["head"], 14);
    assert_eq!(control.post("/miss/2").await, json!({"first": 15, "slots": 2}));
    assert_eq!(control.net.chain().head().number, 14);
}

#[tokio::test]
async fn requests_are_counted_by_method() {
    let control = Control::start().await;
    result(control.net.el(0), "eth_chainId", json!([])).await;
    let (_, counts) = control.ask("GET", "/nodes/el-1/requests", "").await;
    assert_eq!(counts, json!({"eth_chainId": 1}));
}

#[tokio::test]
async fn bad_input_gets_a_clear_error() {
    let control = Control::start().await;
    for (method, path, body, status, says) in [
        ("GET", "/nothing", "", 404, "GET /nothing"),
        ("POST", "/nodes/el-9/down", "", 404, "el-1, el-2, cl-1"),
        ("POST", "/nodes/el-1/sad", "", 400, "sad"),
        ("POST", "/nodes/el-1/lag", "", 400, "lag/10"),
        ("POST", "/nodes/el-1/lag/x", "", 400, "not a number"),
        ("POST", "/nodes/el-1/faults", "{", 400, "EOF"),
        ("POST", "/nodes/el-1/faults", r#"{"fault":"lag"}"#, 400, "blocks"),
        ("POST", "/mine/x", "", 400, "not a number"),
        ("POST", "/mine/99999999", "", 400, "at most"),
        ("POST", "/miss/65", "", 400, "at most"),
        ("POST", "/reorg/11", "", 400, "only 10"),
        ("DELETE", "/mine", "", 404, "DELETE /mine"),
    ] {
        let (got, answer) = control.ask(method, path, body).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(says), "{method} {path}: {answer}");
    }
}
