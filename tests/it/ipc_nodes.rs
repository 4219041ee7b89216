//! Nodes that are reached by their IPC sockets. What failovers do with them is among the tests of
//! WebSockets.

mod long_answers;

use std::sync::Arc;

use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Fault, Options, Transport};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixListener,
};

use super::unix_sockets::Folder;
use crate::common::{
    client::call,
    proxy,
    sim::{Net, Proxy},
    until,
    witness::GAS_PRICE,
};

/// A node with an IPC socket, and a proxy that has that, and with `http` its port besides.
async fn before(net: &Net, has_http: bool) -> (Devnet, Proxy) {
    let options = Options { execution: 1, ipc: Some("/run".into()), ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let http = if has_http { format!("http = \"{}\"\n", devnet.el(0).http_url()) } else { String::new() };
    let settings = format!("[[el.primary]]\nname = \"el-1\"\nipc = \"/run/el-1.ipc\"\n{http}");
    let proxy = Proxy::launch(net, &settings).await;
    until("it is up", async || proxy.verdicts().await == ["up"]).await;
    (devnet, proxy)
}

/// How requests for `method` came to the node.
fn came_by(devnet: &Devnet, method: &str) -> Vec<Transport> {
    let requests = devnet.el(0).requests();
    requests.iter().filter(|request| request.method == method).map(|request| request.transport).collect()
}

#[tokio::test(start_paused = true)]
async fn calls_batches_probes_and_subscriptions_go_over_ipc() {
    let net = Net::default();
    let (devnet, proxy) = before(&net, false).await;
    for id in ["1", "\"a\\\"}\"", "1.50e400", "null"] {
        let answer = proxy.post(call(id, "eth_gasPrice", "[]")).await;
        let expected = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{GAS_PRICE}"}}"#);
        assert_eq!((answer.status, answer.text()), (200, expected));
    }
    let batch = format!("[{},{}]", call(1, "eth_gasPrice", "[]"), call("\"x\"", "net_version", "[]"));
    let expected =
        format!(r#"[{{"jsonrpc":"2.0","id":1,"result":"{GAS_PRICE}"}},{{"jsonrpc":"2.0","id":"x","result":"1337"}}]"#);
    assert_eq!(proxy.post(batch).await.text(), expected);
    let mut ws = proxy.ws().await;
    let heads = ws.subscribe("[\"newHeads\"]").await;
    let pending = ws.subscribe("[\"newPendingTransactions\"]").await;
    devnet.chain().mine(1);
    let (id, head) = ws.notification().await;
    assert_eq!((id, &head["number"]), (heads, &json!(format!("{:#x}", devnet.chain().head().number))));
    let raw = ws.call("eth_sendRawTransaction", "[\"0x02c20180\"]").await;
    let (id, hash) = ws.notification().await;
    assert_eq!((id, hash), (pending, raw));
    assert!(devnet.el(0).requests().iter().all(|request| request.transport == Transport::Ipc));
    assert_eq!(proxy.node("el-1").await["url"], "ipc:/run/el-1.ipc");
}

#[tokio::test(start_paused = true)]
async fn with_http_beside_it_ipc_is_for_heads_and_subscriptions() {
    let net = Net::default();
    let (devnet, proxy) = before(&net, true).await;
    assert_eq!(proxy.post(call(1, "eth_gasPrice", "[]")).await.status, 200);
    until("it has subscribed", async || !came_by(&devnet, "eth_subscribe").is_empty()).await;
    assert_eq!(came_by(&devnet, "eth_gasPrice"), [Transport::Http]);
    assert!(came_by(&devnet, "eth_subscribe").iter().all(|by| *by == Transport::Ipc));
    // Without HTTP the node is out, since calls go there.
    devnet.el(0).set_fault(Fault::Down);
    until("it is out", async || proxy.verdicts().await == ["down"]).await;
    devnet.el(0).clear_faults();
    until("it is back", async || proxy.verdicts().await == ["up"]).await;
}

/// A node as few are: answers come in small pieces or several at once, with and without lines
/// between, and a notification comes in the middle of it all.
async fn odd_node(listener: UnixListener) {
    let (io, _) = listener.accept().await.unwrap();
    let (read, mut write) = io.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut held: Vec<u8> = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        let request: Value = serde_json::from_str(&line).unwrap();
        let result = match request["method"].as_str().unwrap() {
            "eth_chainId" => json!("0x1"),
            "eth_syncing" => json!(false),
            "eth_getBlockByNumber" => json!({
                "number": "0x64", "hash": format!("0x{:064x}", 100), "parentHash": format!("0x{:064x}", 99),
                "timestamp": "0x1",
            }),
            "eth_subscribe" => json!("0x9"),
            _ => request["params"].clone(),
        };
        let answer = json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }).to_string();
        held.extend(answer.bytes());
        held.extend(b"{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"subscription\":\"0x8\",\"result\":1}}");
        for piece in std::mem::take(&mut held).chunks(7) {
            write.write_all(piece).await.unwrap();
            write.flush().await.unwrap();
        }
    }
}

#[tokio::test]
async fn messages_of_a_real_socket_are_told_apart_however_they_come() {
    let folder = Folder::new();
    let path = folder.path("geth.ipc");
    let node = tokio::spawn(odd_node(UnixListener::bind(&path).unwrap()));
    let settings = format!("[[el.primary]]\nname = \"el-1\"\nipc = \"{}\"\n", path.display());
    let proxy = proxy::Proxy::start(&settings).await;
    let long = format!("[\"{}\"]", "x\\\"}]{[".repeat(20_000));
    let mut calls = Vec::new();
    for id in 0..50 {
        let (params, addr) = (if id % 10 == 0 { long.clone() } else { format!("[{id}]") }, proxy.addr());
        calls.push(tokio::spawn(async move {
            let mut client = crate::common::client::Client::connect(addr).await;
            let answer = client.post(call(id, "eth_call", &params)).await.json();
            let params: Value = serde_json::from_str(&params).unwrap();
            assert_eq!((&answer["id"], &answer["result"]), (&json!(id), &params));
        }));
    }
    for call in calls {
        call.await.unwrap();
    }
    // The node's end is seen at once, and its return too.
    node.abort();
    proxy.until_node("el-1", "down").await;
    let error = proxy.node("el-1").await["last_error"]["message"].as_str().unwrap().to_owned();
    assert!(error.contains("link"), "{error}");
    std::fs::remove_file(&path).unwrap();
    let _node = tokio::spawn(odd_node(UnixListener::bind(&path).unwrap()));
    proxy.until_node("el-1", "up").await;
}

#[tokio::test]
async fn check_tells_of_an_ipc_socket() {
    let folder = Folder::new();
    let (path, file) = (folder.path("geth.ipc"), folder.path("steadfast.toml"));
    let check = async || {
        let node = format!("[[el.primary]]\nname = \"el-1\"\nipc = \"{}\"\n", path.display());
        std::fs::write(&file, node).unwrap();
        super::operator::process::command(&["check", "--config", file.to_str().unwrap()]).await
    };
    let (code, table, _) = check().await;
    assert_eq!(code, 3, "{table}");
    assert!(table.contains(&format!("ipc:{}", path.display())) && table.contains("cannot connect"), "{table}");
    let listener = UnixListener::bind(&path).unwrap();
    let _garbage = tokio::spawn(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            let mut heard = [0; 4096];
            let _ = io.read(&mut heard).await;
            let _ = io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let (code, table, _) = check().await;
    assert!(code != 0 && table.contains("the node sent what is no JSON"), "{code} {table}");
}
