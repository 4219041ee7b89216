//! What clients may ask of their transactions.

use super::*;
use steadfast::devnet::Fault;

#[tokio::test(start_paused = true)]
async fn the_status_tells_state_history_nodes_and_block() {
    let scene = Scene::start(ON).await;
    let hash = scene.sent(3).await;
    scene.mine(1).await;
    scene.until_state(hash, "mined").await;
    let status = scene.status(hash).await;
    assert_eq!((&status["hash"], &status["nonce"]), (&json!(hash), &json!("0x3")), "{status}");
    let history = status["history"].as_array().unwrap();
    let seqs: Vec<u64> = history.iter().map(|step| step["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3]);
    assert!(history[1]["node"].as_str().unwrap().starts_with("el-"), "{status}");
    assert!(history[2]["block"]["number"].is_string(), "{status}");
    assert_eq!(scene.ask(STATUS, &format!("[\"{}\"]", B256::ZERO)).await["result"], Value::Null);
    for params in ["[]", "[\"0x12\"]", "[1]"] {
        assert_eq!(error(&scene.ask(STATUS, params).await).0, -32602, "{params}");
    }
}

/// A transaction of ours that nodes do not know is never `null`.
#[tokio::test(start_paused = true)]
async fn a_kept_transaction_is_shown_pending_where_nodes_know_none() {
    let scene = Scene::start("[outbox]\nack = \"disk\"\n").await;
    for index in 0..3 {
        scene.node(index).set_fault(Fault::refuse(&[SEND]));
    }
    let (_, hash) = transaction(0);
    scene.sent(0).await;
    let answer = scene.ask("eth_getTransactionByHash", &format!("[\"{hash}\"]")).await;
    let shown = &answer["result"];
    assert_eq!((&shown["hash"], &answer["id"]), (&json!(hash), &json!(2)), "{answer}");
    assert_eq!((&shown["blockHash"], &shown["blockNumber"]), (&Value::Null, &Value::Null));
    let sender = steadfast::domain::signed_transaction::SignedTransaction::decode(
        &steadfast::domain::hex::bytes(&transaction(0).0).unwrap(),
        &steadfast::domain::signed_transaction::Limits { chain_id: None, bytes: 1 << 20, blob_bytes: 1 << 20 },
    );
    let sender = format!("{:#x}", sender.unwrap().sender);
    assert_eq!(shown["from"].as_str().unwrap().to_lowercase(), sender);
    assert_eq!((&shown["type"], &shown["nonce"], &shown["gas"]), (&json!("0x2"), &json!("0x0"), &json!("0x5208")));
    assert_eq!((&shown["chainId"], &shown["maxPriorityFeePerGas"]), (&json!("0x539"), &json!("0x1")));
    let other = scene.ask("eth_getTransactionByHash", &format!("[\"{}\"]", B256::ZERO)).await;
    assert_eq!(other["result"], Value::Null);
    let batch = format!("[{}]", call(9, "eth_getTransactionByHash", &format!("[\"{hash}\"]")));
    let batch = scene.proxy().post(batch).await.json();
    assert_eq!(batch[0]["result"]["hash"], json!(hash), "{batch}");
    for index in 0..3 {
        scene.node(index).set_fault(Fault::Down);
    }
    scene.until_verdicts(["down"; 3]).await;
    let answer = scene.ask("eth_getTransactionByHash", &format!("[\"{hash}\"]")).await;
    assert_eq!((&answer["result"]["hash"], &answer["id"]), (&json!(hash), &json!(2)), "no node is left: {answer}");
    let other = scene.ask("eth_getTransactionByHash", &format!("[\"{}\"]", B256::ZERO)).await;
    assert!(other["error"].is_object(), "nobody knows: {other}");
}

/// Each transition once, from the first to the last, over the death of the node that served.
#[tokio::test(start_paused = true)]
async fn a_subscriber_hears_of_each_transition_once_over_a_failover() {
    let scene = Scene::start(ON).await;
    let hash = scene.sent(0).await;
    let mut ws = scene.proxy().ws().await;
    let id = ws.subscribe(&format!("[\"steadfast_transaction\",\"{hash}\"]")).await;
    let mut states = Vec::new();
    let mut hear = async |count: usize| {
        while states.len() < count {
            let (subscription, step) = ws.notification().await;
            assert_eq!(subscription, id);
            states.push(step["state"].as_str().unwrap().to_owned());
            assert_eq!(step["seq"], states.len(), "{step}");
        }
    };
    hear(2).await;
    scene.node(0).set_fault(Fault::Down);
    scene.until_verdicts(["down", "up", "up"]).await;
    scene.mine(1).await;
    hear(3).await;
    scene.mine(2).await;
    hear(4).await;
    scene.devnet.chain().mine(200);
    scene.mine(2).await;
    hear(5).await;
    assert_eq!(states, ["accepted", "sent", "mined", "confirmed", "final"]);
    assert!(ws.is_silent().await);
}

/// A block makes two transitions at once.
#[tokio::test(start_paused = true)]
async fn a_subscriber_hears_of_transitions_in_order() {
    let scene = Scene::start("[outbox]\nconfirmations = 1\n").await;
    let hash = scene.sent(0).await;
    let mut ws = scene.proxy().ws().await;
    ws.subscribe(&format!("[\"steadfast_transaction\",\"{hash}\"]")).await;
    scene.mine(1).await;
    for (seq, expected) in (1..).zip(["accepted", "sent", "mined", "confirmed"]) {
        let (_, step) = ws.notification().await;
        assert_eq!((&step["state"], &step["seq"]), (&json!(expected), &json!(seq)), "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_to_no_transaction_is_refused() {
    let scene = Scene::start(ON).await;
    let mut ws = scene.proxy().ws().await;
    let unknown = ws.ask(call(1, "eth_subscribe", &format!("[\"steadfast_transaction\",\"{}\"]", B256::ZERO))).await;
    assert!(unknown.contains("unknown_transaction"), "{unknown}");
    let wrong = ws.ask(call(2, "eth_subscribe", "[\"steadfast_transaction\",\"0x1\"]")).await;
    assert!(wrong.contains("-32602"), "{wrong}");
}

/// A wallet that asks for its next nonce behind an acknowledgement does not take the same twice.
#[tokio::test(start_paused = true)]
async fn the_count_of_what_waits_has_the_outbox_in_it() {
    let scene = Scene::start("[outbox]\nack = \"disk\"\n").await;
    for index in 0..3 {
        scene.node(index).set_fault(steadfast::devnet::Fault::slow_over(20_000, &[SEND]));
    }
    let hash = scene.sent(0).await;
    let sender = scene.status(hash).await["from"].as_str().unwrap().to_owned();
    let count = async |tag: &str| {
        let params = format!("[\"{sender}\",\"{tag}\"]");
        scene.ask("eth_getTransactionCount", &params).await["result"].clone()
    };
    assert_eq!((count("pending").await, count("latest").await), (json!("0x1"), json!("0x0")));
    scene.sent(1).await;
    assert_eq!(count("pending").await, "0x2");
}
