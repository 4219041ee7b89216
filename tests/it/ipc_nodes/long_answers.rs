//! Answers over IPC that are too long to be kept.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use steadfast::{
    domain::address::Address,
    net::{Accept, Listen, link::MAX_MESSAGE},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, split},
    task::JoinSet,
};

use crate::common::{
    client::call,
    origin::{Origin, Reply},
    sim::{Net, Proxy},
    until,
};

/// A node with an IPC socket alone, whose logs are longer than a link takes. It signs a transaction
/// when it has next given logs.
struct Node {
    methods: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl Node {
    async fn start(net: &Net) -> Self {
        let address = Address::Unix { path: std::path::Path::new("/run/el-1.ipc").into(), mode: Address::MODE };
        let mut listener = net.bind(address).await.unwrap();
        let methods: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, mut task) = (methods.clone(), JoinSet::new());
        task.spawn(async move { serve(&mut *listener, &seen).await });
        Self { methods, _task: task }
    }

    fn count(&self, method: &str) -> usize {
        self.methods.lock().unwrap().iter().filter(|seen| *seen == method).count()
    }
}

async fn serve(listener: &mut dyn Accept, seen: &Mutex<Vec<String>>) {
    loop {
        let (incoming, _) = listener.accept().await.unwrap();
        let (read, mut write) = split(incoming.open().unwrap());
        let mut lines = BufReader::new(read).lines();
        let mut unsigned: Vec<Value> = Vec::new();
        while let Ok(Some(line)) = lines.next_line().await {
            let request: Value = serde_json::from_str(&line).unwrap();
            let (method, id) = (request["method"].as_str().unwrap(), request["id"].clone());
            seen.lock().unwrap().push(method.to_owned());
            let answer =
                |id: &Value, result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
            let text = match method {
                "eth_chainId" => answer(&id, json!("0x539")),
                "eth_syncing" => answer(&id, json!(false)),
                "eth_getBlockByNumber" => answer(
                    &id,
                    json!({
                        "number": "0x64", "hash": format!("0x{:064x}", 100), "parentHash": format!("0x{:064x}", 99),
                        "timestamp": "0x1",
                    }),
                ),
                "eth_sendTransaction" => {
                    unsigned.push(id);
                    continue;
                }
                "eth_getLogs" => {
                    // As some nodes do, this one writes the id at the end.
                    let mut text = format!("{{\"jsonrpc\":\"2.0\",\"result\":[\"{}", "x".repeat(MAX_MESSAGE));
                    text += &format!("\"],\"id\":{id}}}");
                    unsigned.drain(..).for_each(|id| text += &answer(&id, json!("0x5167")));
                    text
                }
                _ => answer(&id, json!("0x1")),
            };
            // The proxy may have left.
            if write.write_all(text.as_bytes()).await.is_err() {
                break;
            }
        }
    }
}

const SETTINGS: &str = "[[el.primary]]\nname = \"el-1\"\nipc = \"/run/el-1.ipc\"\n";

#[tokio::test(start_paused = true)]
async fn a_long_answer_over_ipc_costs_no_other_call() {
    let net = Net::default();
    let node = Node::start(&net).await;
    let proxy = Arc::new(Proxy::launch(&net, SETTINGS).await);
    until("it is up", async || proxy.verdicts().await == ["up"]).await;
    let caller = proxy.clone();
    let sent = tokio::spawn(async move { caller.post(call(1, "eth_sendTransaction", "[{}]")).await.json() });
    until("the node has the transaction", async || node.count("eth_sendTransaction") == 1).await;
    let refused = proxy.post(call(2, "eth_getLogs", "[{}]")).await;
    assert_eq!(refused.status, 200);
    let refused = refused.json();
    let error = &refused["error"];
    assert_eq!((&error["code"], &error["data"]["reason"]), (&json!(-32005), &json!("link_message")), "{refused}");
    let sent = sent.await.unwrap();
    assert_eq!(sent["result"], "0x5167", "the transaction's answer came behind the logs: {sent}");
    assert_eq!((proxy.verdicts().await, node.count("eth_getLogs")), (vec!["up".to_owned()], 1));
    assert!(proxy.metric("steadfast_link_reconnects_total", "el-1").await < 0.5);
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_over_ipc_is_had_over_http() {
    let net = Net::default();
    let node = Node::start(&net).await;
    let other = Origin::within(&net, |seen| Reply::result(seen, "\"by HTTP\"")).await;
    let backup = format!("[[el.backup]]\nname = \"el-2\"\nhttp = \"{}\"\n", other.url());
    let proxy = Proxy::launch(&net, &format!("{SETTINGS}{backup}")).await;
    until("both are up", async || proxy.verdicts().await == ["up", "up"]).await;
    let answer = proxy.post(call(2, "eth_getLogs", "[{}]")).await.json();
    assert_eq!(answer["result"], "by HTTP", "{answer}");
    assert_eq!((proxy.verdicts().await[0].as_str(), node.count("eth_getLogs")), ("up", 1));
}
