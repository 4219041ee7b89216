//! The blocks of calls of each method, in the forms that clients write.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{
        method::Method,
        rpc::{Body, peek},
    },
    *,
};

const HASH: &str = "0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn asked(method: &str, params: &str) -> Option<AskedBlocks> {
    let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let Ok(Body::Single(Ok(request))) = peek(text.as_bytes(), 1) else { panic!("{text}") };
    AskedBlocks::of(Method::of(method).asks, &request)
}

fn range(oldest: impl Into<Option<u64>>, newest: impl Into<Option<u64>>) -> Named {
    Named::Range { oldest: oldest.into(), newest: newest.into() }
}

#[test]
fn each_method_names_its_block_at_its_place() {
    use Data::{Blocks, Receipts, State, Traces};
    for (method, before, data) in [
        ("debug_getRawBlock", "", Blocks),
        ("debug_getRawHeader", "", Blocks),
        ("debug_getRawReceipts", "", Receipts),
        ("debug_traceBlockByNumber", "", Traces),
        ("debug_traceCall", "{},", Traces),
        ("eth_call", r#"{"to":"0x","data":"0x00ff"},"#, State),
        ("eth_callMany", "[{}],", State),
        ("eth_createAccessList", "{},", State),
        ("eth_estimateGas", "{},", State),
        ("eth_getBalance", r#""0xdead","#, State),
        ("eth_getBlockByNumber", "", Blocks),
        ("eth_getBlockReceipts", "", Receipts),
        ("eth_getBlockTransactionCountByNumber", "", Blocks),
        ("eth_getCode", r#""0xdead","#, State),
        ("eth_getHeaderByNumber", "", Blocks),
        ("eth_getProof", r#""0xdead",[],"#, State),
        ("eth_getStorageAt", r#""0xdead","0x0","#, State),
        ("eth_getStorageValues", "{},", State),
        ("eth_getTransactionByBlockNumberAndIndex", "", Blocks),
        ("eth_getTransactionCount", r#""0xdead","#, State),
        ("eth_getUncleByBlockNumberAndIndex", "", Blocks),
        ("eth_getUncleCountByBlockNumber", "", Blocks),
        ("eth_simulateV1", "{},", State),
        ("trace_block", "", Traces),
        ("trace_call", r#"{},["trace"],"#, Traces),
        ("trace_callMany", "[],", Traces),
        ("trace_replayBlockTransactions", "", Traces),
    ] {
        for (block, named) in [
            (r#""0x1b4""#.to_owned(), Some(Named::Number(0x1b4))),
            (r#"{"blockNumber":"0x1b4"}"#.to_owned(), Some(Named::Number(0x1b4))),
            (r#""earliest""#.to_owned(), Some(Named::Earliest)),
            (format!("\"{HASH}\""), Some(Named::BlockHash)),
            (format!(r#"{{"requireCanonical":true,"blockHash":"{HASH}"}}"#), Some(Named::BlockHash)),
            (r#""latest""#.to_owned(), None),
            (r#""finalized""#.to_owned(), None),
        ] {
            let expected = named.map(|named| AskedBlocks { data, named });
            assert_eq!(asked(method, &format!("[{before} {block} , true]")), expected, "{method} {block}");
        }
        assert_eq!(asked(method, &format!("[{}]", before.trim_end_matches(','))), None, "{method}");
    }
}

#[test]
fn hashes_name_blocks_and_transactions() {
    for (method, named) in [
        ("eth_getBlockByHash", Named::BlockHash),
        ("debug_traceBlockByHash", Named::BlockHash),
        ("debug_storageRangeAt", Named::BlockHash),
        ("eth_getTransactionByBlockHashAndIndex", Named::BlockHash),
        ("eth_getTransactionByHash", Named::TransactionHash),
        ("eth_getTransactionReceipt", Named::TransactionHash),
        ("debug_getRawTransaction", Named::TransactionHash),
        ("debug_traceTransaction", Named::TransactionHash),
        ("trace_transaction", Named::TransactionHash),
        ("trace_get", Named::TransactionHash),
    ] {
        assert_eq!(asked(method, &format!(r#"["{HASH}",{{}}]"#)).map(|asked| asked.named), Some(named), "{method}");
    }
    assert_eq!(asked("eth_getTransactionReceipt", r#"["0x1"]"#), None);
    assert_eq!(asked("eth_chainId", r#"["0x1"]"#), None);
}

#[test]
fn filters_name_ranges() {
    for (filter, named) in [
        (json!({"fromBlock": "0x1", "toBlock": "0x5"}), Some(range(1, 5))),
        (json!({"toBlock": "0x5", "address": [HASH], "fromBlock": "0x5"}), Some(range(5, 5))),
        (json!({"fromBlock": "0x1"}), Some(range(1, None))),
        (json!({"fromBlock": "0x1", "toBlock": null}), Some(range(1, None))),
        (json!({"fromBlock": "0x1", "toBlock": "latest"}), Some(range(1, None))),
        (json!({"fromBlock": "earliest", "toBlock": "0x5"}), Some(range(0, 5))),
        (json!({"toBlock": "0x5"}), Some(range(None, 5))),
        (json!({"blockHash": HASH}), Some(Named::BlockHash)),
        (json!({"fromBlock": "0x5", "toBlock": "0x1"}), None),
        (json!({"fromBlock": "latest", "toBlock": "latest"}), None),
        (json!({"blockHash": HASH, "fromBlock": "0x1"}), None),
        (json!({"fromBlock": 1}), None),
        (json!({}), None),
    ] {
        for method in ["eth_getLogs", "trace_filter"] {
            assert_eq!(asked(method, &json!([filter]).to_string()).map(|asked| asked.named), named, "{filter}");
        }
    }
    assert_eq!(asked("eth_getLogs", r#"[{"fromBlock":"0x1","fromBlock":"0x2"}]"#), None);
    assert_eq!(asked("eth_getLogs", r#"[{"from\u0042lock":"0x1"}]"#), None);
}

#[test]
fn fees_are_asked_of_the_blocks_below() {
    for (params, named) in [
        (r#"["0x4","0xa",[]]"#, Some(range(7, 10))),
        (r#"[4,"0xa"]"#, Some(range(7, 10))),
        (r#"["0x400","0xa"]"#, Some(range(0, 10))),
        (r#"["0x0","0xa"]"#, Some(range(10, 10))),
        (r#"["x","0xa"]"#, Some(range(None, 10))),
        (r#"["0x4","latest"]"#, None),
        (r#"["0x4"]"#, None),
    ] {
        assert_eq!(asked("eth_feeHistory", params).map(|asked| asked.named), named, "{params}");
    }
}

#[test]
fn odd_forms_name_no_block() {
    for params in [
        r#"["0xdead",5]"#,
        r#"["0xdead","5"]"#,
        r#"["0xdead","0x"]"#,
        r#"["0xdead","0x1\u0031"]"#,
        r#"["0xdead","0xffffffffffffffff"]"#,
        r#"["0xdead","0x10000000000000000"]"#,
        r#"["0xdead",{}]"#,
        r#"["0xdead",{"blockNumber":5}]"#,
        r#"["0xdead",{"blockNumber":"0x5","blockNumber":"0x6"}]"#,
        r#"["0xdead",["0x5"]]"#,
        r#"["0xdead",null]"#,
        r#"{"address":"0xdead","block":"0x5"}"#,
        "[]",
        "null",
    ] {
        assert_eq!(asked("eth_getBalance", params), None, "{params}");
    }
    let both = format!(r#"["0xdead",{{"blockNumber":"0x5","blockHash":"{HASH}"}}]"#);
    assert_eq!(asked("eth_getBalance", &both), None);
}

#[test]
fn a_good_answer_shows_a_single_block() {
    let single = |method, params: &str| asked(method, params).and_then(|asked| asked.single());
    assert_eq!(single("eth_getBalance", r#"["0xdead","0x5"]"#), Some(5));
    assert_eq!(single("eth_getBalance", r#"["0xdead","earliest"]"#), None);
    assert_eq!(single("eth_getLogs", r#"[{"fromBlock":"0x5","toBlock":"0x5"}]"#), Some(5));
    assert_eq!(single("eth_getLogs", r#"[{"fromBlock":"0x5","toBlock":"0x6"}]"#), None);
    assert_eq!(single("eth_getLogs", r#"[{"fromBlock":"0x5"}]"#), None);
}

fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just("latest".to_owned()),
        Just("earliest".to_owned()),
        Just(HASH.to_owned()),
        any::<u64>().prop_map(|number| format!("0x{number:x}")),
        ".{0,6}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    let key = prop_oneof![Just("fromBlock"), Just("toBlock"), Just("blockHash"), Just("blockNumber"), Just("a")];
    leaf.prop_recursive(3, 12, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((key.clone(), inner), 0..4)
                .prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

/// Reads a param by a tree, as a node does.
fn by_tree(param: &Value) -> Option<Named> {
    let text = |value: &Value| match value.as_str()? {
        "earliest" => Some(Named::Earliest),
        HASH => Some(Named::BlockHash),
        text => hex::quantity(text).filter(|number| *number < u64::MAX).map(Named::Number),
    };
    match param {
        Value::Object(map) => match (map.get("blockNumber"), map.get("blockHash")) {
            (Some(number), None) => text(number).filter(|named| *named != Named::BlockHash),
            (None, Some(hash)) => text(hash).filter(|named| *named == Named::BlockHash),
            _ => None,
        },
        param => text(param),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_block_is_read_as_a_tree_would_read_it(before in any_json(), param in any_json(), after in any_json()) {
        let params = json!([before, param, after]).to_string();
        let named = asked("eth_getBalance", &params).map(|asked| asked.named);
        prop_assert_eq!(named, by_tree(&param), "{}", params);
    }

    #[test]
    fn no_params_are_an_error(params in proptest::collection::vec(any_json(), 0..4)) {
        let params = Value::from(params).to_string();
        for method in ["eth_getLogs", "trace_filter", "eth_feeHistory", "eth_getProof", "eth_getTransactionReceipt"] {
            if let Some(AskedBlocks { named: Named::Range { oldest: Some(oldest), newest: Some(newest) }, .. }) =
                asked(method, &params)
            {
                prop_assert!(oldest <= newest);
            }
        }
    }
}
