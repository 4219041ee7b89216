//! What an execution node's answers say of one another: counts of transactions, gas, withdrawals.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use steadfast::devnet::Node;

use super::client::{call, devnet, number, result};

async fn block(node: &Node, number: u64, full: bool) -> Value {
    result(node, "eth_getBlockByNumber", json!([format!("{number:#x}"), full])).await
}

fn error(answer: &Value) -> (i64, &str) {
    let error = &answer["error"];
    (error["code"].as_i64().unwrap_or_default(), error["message"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn nonces_count_the_transactions_of_a_sender() {
    let net = devnet().await;
    let node = net.el(0);
    let account = format!("{:#x}", net.chain().account(0));
    let send = json!([{"from": account, "to": format!("{:#x}", net.chain().contracts()[0])}]);
    result(node, "eth_sendTransaction", send.clone()).await;
    result(node, "eth_sendTransaction", send.clone()).await;
    result(node, "eth_sendRawTransaction", json!(["0x02f86b0102"])).await;
    net.chain().mine(1);
    result(node, "eth_sendTransaction", send.clone()).await;
    // What was sent is in other blocks then, by the same nonces.
    net.chain().reorg(2).unwrap();
    result(node, "eth_sendTransaction", send).await;
    let pending = result(node, "eth_getTransactionCount", json!([account, "pending"])).await;
    assert_eq!(number(&pending), 4);
    let head = net.chain().mine(1).number;
    let mut sent = BTreeMap::<String, u64>::new();
    for height in 1..=head {
        for transaction in block(node, height, true).await["transactions"].as_array().unwrap() {
            let sender = transaction["from"].as_str().unwrap();
            let count = sent.entry(sender.to_owned()).or_default();
            assert_eq!(number(&transaction["nonce"]), *count, "{sender} in block {height}");
            *count += 1;
            // The next block may have more of them.
            let later = result(node, "eth_getTransactionCount", json!([sender, format!("{height:#x}")])).await;
            assert!(number(&later) >= *count, "{sender} in block {height}");
        }
    }
    assert_eq!(sent[&account], 4);
    for (sender, count) in sent {
        let told = result(node, "eth_getTransactionCount", json!([sender, "latest"])).await;
        assert_eq!(number(&told), count, "{sender}");
    }
}

#[tokio::test]
async fn fee_histories_tell_what_blocks_have_used() {
    let net = devnet().await;
    let node = net.el(0);
    let history = result(node, "eth_feeHistory", json!(["0x4", "0x9", [0, 12.5, 100]])).await;
    assert_eq!(history["oldestBlock"], "0x6");
    let ratios =
        |of: &str| -> Vec<f64> { history[of].as_array().unwrap().iter().map(|r| r.as_f64().unwrap()).collect() };
    let (gas, blobs) = (ratios("gasUsedRatio"), ratios("blobGasUsedRatio"));
    assert_eq!((gas.len(), blobs.len()), (4, 4));
    for (place, height) in (6..=9).enumerate() {
        let block = block(node, height, false).await;
        let used = number(&block["gasUsed"]) as f64 / number(&block["gasLimit"]) as f64;
        assert!(used > 0.0 && (gas[place] - used).abs() < 1e-9, "{height}: {} and {used}", gas[place]);
        // Electra has room for nine blobs.
        let used = number(&block["blobGasUsed"]) as f64 / f64::from(9 << 17);
        assert!((blobs[place] - used).abs() < 1e-9, "{height}: {} and {used}", blobs[place]);
    }
    assert!(blobs.iter().any(|used| *used > 0.0) && blobs.contains(&0.0), "{blobs:?}");
    for (list, entries) in [("baseFeePerGas", 5), ("baseFeePerBlobGas", 5), ("reward", 4)] {
        assert_eq!(history[list].as_array().unwrap().len(), entries, "{list}");
    }
    assert_eq!(history["reward"][0].as_array().unwrap().len(), 3);
    let without = result(node, "eth_feeHistory", json!(["0x1", "latest", []])).await;
    assert_eq!(without.get("reward"), None, "{without}");
    assert_eq!(result(node, "eth_feeHistory", json!(["0x400", "0x2"])).await["oldestBlock"], "0x0");
}

#[tokio::test]
async fn wrong_percentiles_are_refused_as_geth_does() {
    let net = devnet().await;
    let many: Vec<f64> = (0..101).map(|index| f64::from(index) / 2.0).collect();
    for (percentiles, expected) in [
        (json!([101]), (-32000, "invalid reward percentile: 101.000000")),
        (json!([-1, 5]), (-32000, "invalid reward percentile: -1.000000")),
        (json!([20, 10]), (-32000, "invalid reward percentile: #0:20.000000 >= #1:10.000000")),
        (json!([10, 10]), (-32000, "invalid reward percentile: #0:10.000000 >= #1:10.000000")),
        (json!(many), (-32000, "invalid reward percentile: over the query limit 100")),
        (json!(["10"]), (-32602, "invalid argument 2: not a list of numbers")),
        (json!(10), (-32602, "invalid argument 2: not a list of numbers")),
    ] {
        let answer = call(net.el(0), "eth_feeHistory", json!(["0x1", "latest", percentiles])).await;
        assert_eq!(error(&answer), expected, "{percentiles}");
    }
}

#[tokio::test]
async fn a_filter_of_logs_needs_a_range_that_can_be() {
    let net = devnet().await;
    for (wish, is_right) in [
        (json!({"fromBlock": "0x5", "toBlock": "0x4"}), false),
        (json!({"fromBlock": "latest", "toBlock": "0x4"}), false),
        (json!({"toBlock": "0x4"}), false),
        (json!({"fromBlock": "new"}), false),
        (json!({"fromBlock": "0x5", "toBlock": "0x5"}), true),
        (json!({"fromBlock": "0x5", "toBlock": "0xffff"}), true),
        (json!({"fromBlock": "0x5"}), true),
        (json!({}), true),
    ] {
        let answer = call(net.el(0), "eth_newFilter", json!([wish])).await;
        assert_eq!(answer["result"].is_string(), is_right, "{wish}: {answer}");
        assert!(is_right || error(&answer).0 == -32602, "{wish}: {answer}");
    }
}

#[tokio::test]
async fn a_raw_transaction_has_a_type_and_a_body() {
    let net = devnet().await;
    for raw in ["0x", "0x02"] {
        let answer = call(net.el(0), "eth_sendRawTransaction", json!([raw])).await;
        assert_eq!(error(&answer), (-32000, "typed transaction too short"), "{raw}");
    }
    assert!(net.chain().mempool().is_empty());
}

#[tokio::test]
async fn every_block_but_the_first_pays_a_withdrawal() {
    let net = devnet().await;
    let first = block(net.el(0), 0, false).await;
    assert_eq!(first["withdrawals"], json!([]));
    for height in 1..=10 {
        let block = block(net.el(0), height, false).await;
        assert_eq!(block["withdrawals"][0]["index"], format!("{:#x}", height - 1));
        assert_ne!(block["withdrawalsRoot"], first["withdrawalsRoot"]);
    }
}
