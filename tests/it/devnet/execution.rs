//! An execution node that is well.

use alloy_primitives::{B256, keccak256};
use serde_json::{Value, json};
use steadfast::devnet::Transport;

use super::client::{Ws, call, devnet, head, http, number, post, result};

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
    let contract = format!("{:#x}", net.chain().contracts()[0]);
    let wish = json!([{"fromBlock": "earliest", "address": contract, "topics": [null, all[0]["topics"][1]]}]);
    let some = result(node, "eth_getLogs", wish).await;
    let expected: Vec<_> =
        all.iter().filter(|log| log["address"] == contract && log["topics"][1] == all[0]["topics"][1]).collect();
    assert_eq!(json!(some), json!(expected));
}

#[tokio::test]
async fn raw_transactions_are_mined_once_and_known_by_their_node() {
    let net = devnet().await;
    let raw = "0x02f86b0102";
    let hash = result(net.el(0), "eth_sendRawTransaction", json!([raw])).await;
    assert_eq!(hash, keccak256([0x02, 0xf8, 0x6b, 0x01, 0x02]).to_string());
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
    let from = format!("{:#x}", net.chain().account(0));
    let wish = json!([{"from": from, "to": format!("{:#x}", net.chain().account(1)), "value": "0x1"}]);
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
        ("eth_getLogs", json!([{"blockHash": B256::ZERO.to_string()}]), -32000),
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
async fn requests_are_recorded_with_their_headers() {
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
