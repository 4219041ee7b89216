//! What filters and their polls mean: as in go-ethereum.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::time::{Duration, sleep};

use super::setup::{POLL, Setup, Way};
use crate::common::client::call;

#[tokio::test(start_paused = true)]
async fn a_block_filter_tells_hashes_since_it_was_made_once() {
    for way in [Way::Http, Way::Link, Way::Both] {
        let setup = Setup::new(way, "").await;
        setup.devnet.chain().mine(1);
        setup.result("eth_blockNumber", &json!([])).await;
        let filter = setup.blocks().await;
        let first = setup.head();
        assert_eq!(setup.poll(&filter).await, Vec::<Value>::new());
        for count in [1, 3] {
            let before = setup.head();
            setup.devnet.chain().mine(count);
            setup.result("eth_blockNumber", &json!([])).await;
            sleep(Duration::from_secs(2)).await;
            assert_eq!(setup.poll(&filter).await, setup.hashes_above(before), "{way:?}");
        }
        assert_eq!(setup.poll(&filter).await, Vec::<Value>::new());
        assert_eq!(setup.hashes_above(first).len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_filter_tells_what_matches_in_order() {
    let setup = Setup::new(Way::Both, "").await;
    let contract = format!("{:#x}", setup.devnet.chain().contracts()[0]);
    let wishes = [json!({}), json!({"address": contract}), json!({"fromBlock": "0x0", "toBlock": "latest"})];
    let mut filters = Vec::new();
    for wish in &wishes {
        filters.push(setup.logs(wish).await);
    }
    let before = setup.head();
    setup.devnet.chain().mine(5);
    sleep(Duration::from_secs(2)).await;
    for (wish, filter) in wishes.iter().zip(&filters) {
        let expected = setup.logs_above(before, wish).await;
        assert!(!expected.is_empty());
        assert_eq!(setup.poll(filter).await, expected, "{wish}");
        assert_eq!(setup.poll(filter).await, Vec::<Value>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_shown_a_block_polls_its_logs() {
    let setup = Setup::new(Way::Http, "").await;
    let (blocks, logs) = (setup.blocks().await, setup.logs(&json!({})).await);
    for _ in 0..5 {
        let before = setup.head();
        let hash = setup.devnet.chain().mine(1).hash;
        // The proxy has not heard of the block by itself, and the answer tells of it.
        let shown = setup.result("eth_getBlockByNumber", &json!(["latest", false])).await;
        assert_eq!(shown["hash"], hash.to_string());
        assert_eq!(setup.poll(&logs).await, setup.logs_above(before, &json!({})).await);
        assert_eq!(setup.poll(&blocks).await, setup.hashes_above(before));
    }
}

#[tokio::test(start_paused = true)]
async fn new_filter_reports_no_earlier_block() {
    let setup = Setup::new(Way::Http, "").await;
    for _ in 0..3 {
        setup.devnet.chain().mine(2);
        setup.result("eth_getBlockByNumber", &json!(["latest", false])).await;
        let (blocks, logs) = (setup.blocks().await, setup.logs(&json!({"fromBlock": "earliest"})).await);
        sleep(Duration::from_secs(3)).await;
        assert_eq!((setup.poll(&blocks).await, setup.poll(&logs).await), (vec![], vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn logs_that_went_come_as_removed_before_the_new_ones() {
    let setup = Setup::new(Way::Both, "").await;
    let (blocks, logs) = (setup.blocks().await, setup.logs(&json!({})).await);
    let before = setup.head();
    setup.devnet.chain().mine(3);
    sleep(Duration::from_secs(2)).await;
    let told = setup.poll(&logs).await;
    assert_eq!(setup.poll(&blocks).await.len(), 3);
    setup.devnet.chain().reorg_to(2, 4).unwrap();
    sleep(Duration::from_secs(2)).await;
    let standing = setup.logs_above(before + 1, &json!({})).await;
    let gone = told.iter().rev().filter(|log| log["blockNumber"] != json!(format!("{:#x}", before + 1)));
    let gone = gone.map(|log| {
        let mut log = log.clone();
        log["removed"] = true.into();
        log
    });
    assert_eq!(setup.poll(&logs).await, gone.chain(standing).collect::<Vec<_>>());
    assert_eq!(setup.poll(&blocks).await, setup.hashes_above(before + 1), "the new chain's hashes");
}

#[tokio::test(start_paused = true)]
async fn a_fork_below_a_new_filters_first_block_is_told_whole() {
    // No filter and no subscription was there before, so the follower knows a single block.
    for way in [Way::Both, Way::Http] {
        let setup = Setup::new(way, "").await;
        let (blocks, logs) = (setup.blocks().await, setup.logs(&json!({})).await);
        let before = setup.head();
        setup.devnet.chain().reorg_to(4, 5).unwrap();
        sleep(Duration::from_secs(4)).await;
        assert_eq!(setup.poll(&blocks).await, setup.hashes_above(before - 4), "{way:?}");
        assert_eq!(setup.poll(&logs).await, setup.logs_above(before - 4, &json!({})).await, "{way:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn block_added_and_removed_between_polls_is_not_sent() {
    let setup = Setup::new(Way::Both, "").await;
    let (blocks, logs) = (setup.blocks().await, setup.logs(&json!({})).await);
    let before = setup.head();
    setup.devnet.chain().mine(2);
    sleep(Duration::from_secs(2)).await;
    setup.devnet.chain().reorg_to(2, 3).unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(setup.poll(&logs).await, setup.logs_above(before, &json!({})).await);
    let hashes = setup.poll(&blocks).await;
    assert_eq!(hashes, setup.hashes_above(before));
    for hash in hashes {
        assert_eq!(setup.result("eth_getBlockByHash", &json!([hash, false])).await["hash"], hash);
    }
}

#[tokio::test(start_paused = true)]
async fn past_logs_are_those_of_the_range_that_was_asked_for() {
    let setup = Setup::new(Way::Http, "").await;
    setup.devnet.chain().mine(3);
    let head = setup.head();
    let contract = format!("{:#x}", setup.devnet.chain().contracts()[0]);
    let topic = "0x8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925";
    for wish in [
        json!({}),
        json!({"fromBlock": format!("{:#x}", head - 5), "toBlock": format!("{:#x}", head - 1)}),
        json!({"fromBlock": "earliest", "address": [contract], "topics": [null, []]}),
        json!({"fromBlock": "0x1", "toBlock": "latest", "topics": [[topic]]}),
        json!({"blockHash": setup.hash(head - 2), "address": contract}),
    ] {
        let filter = setup.logs(&wish).await;
        let expected = setup.result("eth_getLogs", &json!([wish])).await;
        for _ in 0..2 {
            assert_eq!(setup.result("eth_getFilterLogs", &json!([filter])).await, expected, "{wish}");
        }
        assert_eq!(setup.poll(&filter).await, Vec::<Value>::new(), "the past is no change");
    }
    for other in [setup.blocks().await, json!("0x1")] {
        let error = setup.error("eth_getFilterLogs", &json!([other])).await;
        assert_eq!(error, (-32000, "filter not found".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn changes_are_those_of_the_blocks_that_were_asked_for() {
    let setup = Setup::new(Way::Both, "").await;
    let head = setup.head();
    let height = |ahead: u64| format!("{:#x}", head + ahead);
    let filter = setup.logs(&json!({"fromBlock": height(2), "toBlock": height(3)})).await;
    let any = setup.logs(&json!({"blockHash": setup.hash(head)})).await;
    setup.devnet.chain().mine(5);
    sleep(Duration::from_secs(2)).await;
    let wish = json!([{"fromBlock": height(2), "toBlock": height(3)}]);
    assert_eq!(json!(setup.poll(&filter).await), setup.result("eth_getLogs", &wish).await);
    assert_eq!(setup.poll(&any).await, setup.logs_above(head, &json!({})).await, "as go-ethereum has it");
}

#[tokio::test(start_paused = true)]
async fn wrong_filter_params_are_refused_in_geths_words() {
    let setup = Setup::new(Way::Http, "").await;
    let hash = setup.hash(1);
    let five = json!([null, null, null, null, null]);
    for (method, params, expected) in [
        ("eth_newFilter", json!([]), "missing value for required argument 0"),
        ("eth_newFilter", json!([{}, {}]), "too many arguments, want at most 1"),
        ("eth_newFilter", json!([5]), "invalid argument 0: expected a filter object, not a number"),
        ("eth_newFilter", json!([five]), "invalid argument 0: expected a filter object, not an array"),
        (
            "eth_newFilter",
            json!([{"fromBlock": "0x05"}]),
            "invalid argument 0: fromBlock: hex number with leading zero digits",
        ),
        (
            "eth_newFilter",
            json!([{"blockHash": hash, "fromBlock": "0x1"}]),
            "invalid argument 0: cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other",
        ),
        (
            "eth_newFilter",
            json!([{"blockHash": "0x11"}]),
            "invalid argument 0: blockHash: hex has invalid length 1 after decoding; expected 32 for hash",
        ),
        ("eth_newFilter", json!([{"fromBlock": "0x5", "toBlock": "0x4"}]), "invalid block range params"),
        ("eth_newFilter", json!([{"toBlock": "0x4"}]), "invalid block range params"),
        ("eth_newFilter", json!([{"fromBlock": "finalized"}]), "invalid block range params"),
        ("eth_newFilter", json!([{"fromBlock": "pending"}]), "pending logs are not supported"),
        ("eth_newFilter", json!([{"topics": five}]), "exceed max topics"),
        (
            "eth_newFilter",
            json!([{"topics": [null, ["0x11"]]}]),
            "invalid argument 0: topics[1][0]: hex has invalid length 1 after decoding; expected 32 for topic",
        ),
        (
            "eth_newFilter",
            json!([{"address": ["0x1"]}]),
            "invalid argument 0: invalid address at index 0: hex string of odd",
        ),
        ("eth_newBlockFilter", json!([1]), "too many arguments, want at most 0"),
        (
            "eth_newPendingTransactionFilter",
            json!(["yes"]),
            "invalid argument 0: whole transactions or their hashes: expected a boolean, not a string",
        ),
        ("eth_newPendingTransactionFilter", json!([true, true]), "too many arguments, want at most 1"),
        (POLL, json!([]), "missing value for required argument 0"),
        (POLL, json!([1]), "invalid argument 0: filter id: expected a string, not a number"),
        ("eth_getFilterLogs", json!(["0x1", "0x2"]), "too many arguments, want at most 1"),
        ("eth_uninstallFilter", json!([]), "missing value for required argument 0"),
        ("eth_newFilter", json!({}), "non-array args"),
    ] {
        let (code, message) = setup.error(method, &params).await;
        assert_eq!(code, -32602, "{method} {params}: {message}");
        assert!(message.starts_with(expected), "{method} {params}: {message}");
    }
    assert_eq!(setup.proxy.metric("steadfast_filters", "").await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn null_is_an_empty_filter_and_an_empty_id_as_in_geth() {
    let setup = Setup::new(Way::Http, "").await;
    let filter = setup.result("eth_newFilter", &json!([null])).await;
    let before = setup.head();
    setup.devnet.chain().mine(2);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(setup.poll(&filter).await, setup.logs_above(before, &json!({})).await);
    for text in [r#"null"#, r#""\ud800""#, r#""""#] {
        for method in [POLL, "eth_getFilterLogs"] {
            let answer = setup.proxy.post(call(1, method, &format!("[{text}]"))).await.json();
            let error = &answer["error"];
            assert_eq!((&error["code"], &error["message"]), (&json!(-32000), &json!("filter not found")), "{text}");
        }
        let answer = setup.proxy.post(call(1, "eth_uninstallFilter", &format!("[{text}]"))).await.json();
        assert_eq!(answer["result"], false, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn ids_are_128_bits_and_end_with_their_filters() {
    let setup = Setup::new(Way::Http, "").await;
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        let id = setup.blocks().await;
        let text = id.as_str().unwrap().to_owned();
        assert!(text.len() == 34 && text.starts_with("0x") && !text.starts_with("0x0"), "{text}");
        ids.insert(text);
    }
    assert_eq!(ids.len(), 20);
    for id in ids {
        let id = json!(id);
        assert_eq!(setup.result("eth_uninstallFilter", &json!([id])).await, true);
        assert!(setup.is_gone(&id).await);
        assert_eq!(setup.result("eth_uninstallFilter", &json!([id])).await, false);
    }
    assert!(setup.is_gone(&json!("0xdeadbeef")).await && setup.is_gone(&json!("")).await);
}

#[tokio::test(start_paused = true)]
async fn no_node_has_a_filter_and_a_block_is_asked_for_once() {
    let setup = Setup::new(Way::Both, "").await;
    for n in 0..30 {
        let topic = format!("0x{n:064x}");
        setup.logs(&json!({"topics": [[topic, null]]})).await;
        setup.blocks().await;
    }
    setup.devnet.chain().mine(10);
    sleep(Duration::from_secs(2)).await;
    let count = |method| setup.devnet.nodes().map(|node| node.count(method)).sum::<u64>();
    assert_eq!(count("eth_getLogs"), 10);
    for method in ["eth_newFilter", "eth_newBlockFilter", POLL, "eth_uninstallFilter"] {
        assert_eq!(count(method), 0, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_block_is_fetched_once_the_last_filter_is_gone() {
    // No node pushes heads here, so every block between two probes has to be fetched for a filter.
    let setup = Setup::new(Way::Http, "").await;
    let asked = || {
        let count = |method| setup.devnet.nodes().map(|node| node.count(method)).sum::<u64>();
        ["eth_getLogs", "eth_getBlockByHash"].map(count)
    };
    for is_left_alone in [false, true] {
        let filters = [setup.blocks().await, setup.logs(&json!({})).await];
        let before = asked();
        setup.devnet.chain().mine(10);
        sleep(Duration::from_secs(10)).await;
        let [logs, blocks] = asked();
        assert!(logs > before[0] && blocks > before[1], "{before:?} {logs} {blocks}");
        for filter in filters {
            if is_left_alone {
                sleep(Duration::from_secs(310)).await;
            } else {
                setup.result("eth_uninstallFilter", &json!([filter])).await;
            }
        }
        let before = asked();
        setup.devnet.chain().mine(10);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(asked(), before, "left alone: {is_left_alone}");
    }
}
