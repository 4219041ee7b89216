//! Reading faults, and the methods that a fault affects.

use super::*;

#[test]
fn faults_are_read_from_json_and_from_words() {
    let cases = [
        (r#"{"fault":"down"}"#, "down", None, Fault::Down),
        (r#"{"fault":"lag","blocks":10}"#, "lag", Some("10"), Fault::lag(10)),
        (r#"{"fault":"wrong_chain","chain_id":5}"#, "wrong-chain", Some("5"), Fault::wrong_chain(5)),
        (r#"{"fault":"late","ms":400}"#, "late", Some("400"), Fault::late(400)),
        (r#"{"fault":"branch","blocks":3}"#, "branch", Some("3"), Fault::branch(3)),
        (r#"{"fault":"max_connections","connections":80}"#, "max-connections", Some("80"), Fault::max_connections(80)),
        (r#"{"fault":"cut_answer"}"#, "cut_answer", None, Fault::cut_answer(&[])),
        (r#"{"fault":"cut_answer","methods":["a","b"]}"#, "cut-answer", Some("a,b"), Fault::cut_answer(&["a", "b"])),
        (r#"{"fault":"http_status","status":202}"#, "http-status", Some("202"), Fault::http_status(202, &[])),
        (r#"{"fault":"logs_limit","most":3}"#, "logs-limit", Some("3"), Fault::logs_limit(3)),
        (r#"{"fault":"missing_block","number":3}"#, "missing-block", Some("3"), Fault::missing_block(3)),
        (r#"{"fault":"missing_logs","number":3}"#, "missing-logs", Some("3"), Fault::missing_logs(3)),
        (r#"{"fault":"refuse","methods":["a","b"]}"#, "refuse", Some("a,b"), Fault::refuse(&["a", "b"])),
        (r#"{"fault":"tells","method":"a","result":[1]}"#, "tells", Some("a=[1]"), Fault::tells("a", [1].into())),
        (r#"{"fault":"odd_logs"}"#, "odd-logs", None, Fault::OddLogs),
        (r#"{"fault":"null_topics"}"#, "null-topics", None, Fault::NullTopics),
        (r#"{"fault":"no_logs_by_hash"}"#, "no-logs-by-hash", None, Fault::NoLogsByHash),
        (r#"{"fault":"blind_blooms"}"#, "blind-blooms", None, Fault::BlindBlooms),
        (
            r#"{"fault":"http_status","status":503,"methods":["a"]}"#,
            "http_status",
            Some("503,a"),
            Fault::http_status(503, &["a"]),
        ),
        (r#"{"fault":"credits","per_second":5,"burst":9}"#, "credits", Some("5,9"), Fault::credits(5, 9, None)),
        (
            r#"{"fault":"credits","per_second":5,"burst":9,"retry_after":2}"#,
            "credits",
            Some("5,9,2"),
            Fault::credits(5, 9, Some(2)),
        ),
        (r#"{"fault":"rate_limited"}"#, "rate-limited", None, Fault::rate_limited(1)),
        (r#"{"fault":"rate_limited","retry_after":9}"#, "rate_limited", Some("9"), Fault::rate_limited(9)),
        (r#"{"fault":"quota"}"#, "quota", None, Fault::quota(&[])),
        (r#"{"fault":"quota","methods":["a","b"]}"#, "quota", Some("a,b"), Fault::quota(&["a", "b"])),
        (r#"{"fault":"not_offered","methods":["a"]}"#, "not-offered", Some("a"), Fault::not_offered(&["a"])),
        (r#"{"fault":"cut_mid_body"}"#, "cut-mid-body", None, Fault::CutMidBody),
        (r#"{"fault":"alien_id"}"#, "alien-id", None, Fault::alien_id(&[])),
        (r#"{"fault":"no_id","methods":["a"]}"#, "no-id", Some("a"), Fault::no_id(&["a"])),
        (r#"{"fault":"nulls","blocks":2}"#, "nulls", Some("2"), Fault::nulls(2)),
        (r#"{"fault":"eager","after":2}"#, "eager", Some("2"), Fault::eager(0, 2)),
        (r#"{"fault":"hang_over","methods":["a"]}"#, "hang-over", Some("a"), Fault::hang_over(&["a"])),
        (r#"{"fault":"slow_over","ms":7,"methods":["a"]}"#, "slow-over", Some("7,a"), Fault::slow_over(7, &["a"])),
        (r#"{"fault":"gateway","status":502}"#, "gateway", Some("502"), Fault::gateway(502, &[])),
        (r#"{"fault":"pruned","slots":9}"#, "pruned", Some("9"), Fault::pruned(9, &[])),
        (
            r#"{"fault":"pruned","slots":9,"what":["states","blobs"]}"#,
            "pruned",
            Some("9,states,blobs"),
            Fault::pruned(9, &[Store::States, Store::Blobs]),
        ),
        (
            r#"{"fault":"depth","blocks":128}"#,
            "depth",
            Some("128"),
            Fault::Depth { blocks: 128, program: Program::Geth, what: Vec::new() },
        ),
        (
            r#"{"fault":"depth","blocks":9,"program":"reth","what":["state","blocks"]}"#,
            "depth",
            Some("9,reth,state,blocks"),
            Fault::Depth { blocks: 9, program: Program::Reth, what: vec![History::State, History::Blocks] },
        ),
        (r#"{"fault":"few_blobs"}"#, "few-blobs", None, Fault::few_blobs(0)),
        (r#"{"fault":"gzip"}"#, "gzip", None, Fault::Gzip),
        (r#"{"fault":"forgetful"}"#, "forgetful", None, Fault::Forgetful),
        (r#"{"fault":"el_offline"}"#, "el-offline", None, Fault::ElOffline),
    ];
    for (json, name, argument, fault) in cases {
        assert_eq!(Fault::from_json(json.as_bytes()).as_ref(), Ok(&fault), "{json}");
        assert_eq!(Fault::from_words(name, argument).as_ref(), Ok(&fault), "{name}");
        assert_eq!(fault.name(), name.replace('-', "_"));
    }
}

#[test]
fn nonsense_is_refused() {
    for json in ["", "{}", r#"{"fault":"sad"}"#, r#"{"fault":"lag"}"#, r#"{"fault":"lag","blocks":1,"x":1}"#] {
        assert!(Fault::from_json(json.as_bytes()).is_err(), "{json}");
    }
    for (name, argument) in [
        ("sad", None),
        ("lag", None),
        ("lag", Some("x")),
        ("http_status", Some("99")),
        ("down", Some("1")),
        ("refuse", None),
        ("pruned", None),
        ("slow_over", Some("a")),
        ("pruned", Some("9,hopes")),
        ("depth", None),
        ("depth", Some("9,hopes")),
        ("depth", Some("9,geth,hopes")),
    ] {
        assert!(Fault::from_words(name, argument).is_err(), "{name}");
    }
}

#[test]
fn answers_are_cut_for_the_named_methods_or_for_all_but_probes() {
    let cut = |fault: Fault| Faults { list: vec![fault], frozen: None };
    let all = cut(Fault::cut_answer(&[]));
    assert!(all.cuts("eth_call", "[]"));
    assert!(all.cuts("eth_getBlockByNumber", r#"["0x1",false]"#));
    assert!(!all.cuts("eth_getBlockByNumber", r#"["latest",false]"#));
    assert!(!all.cuts("GET /eth/v1/node/syncing", ""));
    assert!(all.cuts("POST /eth/v2/beacon/blocks", ""));
    let one = cut(Fault::cut_answer(&["eth_chainId"]));
    assert!(one.cuts("eth_chainId", "[]"));
    assert!(!one.cuts("eth_call", "[]"));
    let some = cut(Fault::cut_answer(&["GET /eth/v3/validator/blocks/*"]));
    assert!(some.cuts("GET /eth/v3/validator/blocks/9", ""));
    assert!(!some.cuts("POST /eth/v3/validator/blocks/9", ""));
}
