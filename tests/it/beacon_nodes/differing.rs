//! What one node does not have another may: all are asked before the client hears that it is not there.

use crate::common::rest::{Asked, Exchange, Node, ask, json, over, status};

/// Answers by path and query; 200 for what is not said.
async fn saying(answer: impl Fn(&Asked) -> Option<Vec<u8>> + Send + Sync + 'static) -> Node {
    Node::start(move |exchange: Exchange| {
        let answer = answer(&exchange.asked).unwrap_or_else(|| json("200 OK", r#"{"data":"here"}"#));
        exchange.reply(answer)
    })
    .await
}

#[tokio::test]
async fn pruned_data_and_missing_routes_are_asked_of_another_node() {
    for (status, path) in [
        ("404 Not Found", "/eth/v1/beacon/blob_sidecars/100"),
        ("404 Not Found", "/eth/v1/beacon/blobs/0xab"),
        ("404 Not Found", "/eth/v1/debug/beacon/data_column_sidecars/100"),
        ("404 Not Found", "/eth/v1/beacon/states/100/validator_balances"),
        ("404 Not Found", "/eth/v1/beacon/rewards/blocks/100"),
        ("404 Not Found", "/eth/v1/beacon/blocks/100/root"),
        ("404 Not Found", "/eth/v1/beacon/headers/0xab"),
        ("404 Not Found", "/eth/v1/beacon/light_client/bootstrap/0xab"),
        ("404 Not Found", "/eth/v2/debug/beacon/heads"),
        ("404 Not Found", "/eth/v2/validator/aggregate_attestation?slot=1"),
        ("404 Not Found", "/eth/v1/validator/sync_committee_contribution?slot=1"),
        ("404 Not Found", "/eth/v1/validator/payload_attestation_data/7"),
        ("404 Not Found", "/eth/v4/validator/blocks/7?randao_reveal=0x00"),
        ("404 Not Found", "/eth/v1/validator/duties/proposer/1"),
        ("404 Not Found", "/eth/v1/config/deposit_contract"),
        ("410 Gone", "/eth/v2/debug/beacon/states/100"),
        ("405 Method Not Allowed", "/eth/v1/beacon/states/head/pending_deposits"),
    ] {
        let without = saying(move |_| Some(json(status, r#"{"code":4,"message":"mine"}"#))).await;
        let with = saying(|_| None).await;
        let proxy = over(&[&without, &with], "").await;
        let answer = ask(&proxy, "GET", path).await;
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"here"}"#), "{path}");
        assert_eq!((without.count(), with.count()), (1, 1), "{path}");
    }
}

#[tokio::test]
async fn data_that_no_node_has_gets_the_first_nodes_answer() {
    let without = |text: &'static str| saying(move |_| Some(json("404 Not Found", text)));
    let (a, b, c, d) = (
        without(r#"{"code":404,"message":"a"}"#).await,
        without(r#"{"code":404,"message":"b"}"#).await,
        without(r#"{"code":404,"message":"c"}"#).await,
        without(r#"{"code":404,"message":"d"}"#).await,
    );
    // More nodes than attempts: each is asked once, which is no attempt too many.
    let proxy = over(&[&a, &b, &c, &d], "[calls]\nattempts = 2\n").await;
    let answer = ask(&proxy, "GET", "/eth/v1/beacon/blob_sidecars/100").await;
    assert_eq!((answer.status, &*answer.text()), (404, r#"{"code":404,"message":"a"}"#));
    assert_eq!([&a, &b, &c, &d].map(Node::count), [1; 4]);
}

#[tokio::test]
async fn that_a_block_of_late_is_not_there_is_the_clients() {
    let (a, b) =
        (saying(|_| Some(json("404 Not Found", r#"{"code":404,"message":"a"}"#))).await, saying(|_| None).await);
    let proxy = over(&[&a, &b], "").await;
    for path in ["/eth/v1/beacon/headers/99999999", "/eth/v1/beacon/headers/head", "/eth/v1/beacon/genesis"] {
        assert_eq!(ask(&proxy, "GET", path).await.status, 404, "{path}");
    }
    assert_eq!(b.count(), 0);
}

#[tokio::test]
async fn pruning_is_learnt_and_nodes_with_the_data_come_first() {
    let prunes = |asked: &Asked| {
        let slot: u64 = asked.target.split('/').nth(5)?.split('?').next()?.parse().ok()?;
        (slot < 200).then(|| json("404 Not Found", r#"{"code":404,"message":"pruned"}"#))
    };
    let (full, archive) = (saying(prunes).await, saying(|_| None).await);
    let proxy = over(&[&full, &archive], "").await;
    let ask = async |kind: &str, slot: u64| {
        let before = full.count();
        assert_eq!(ask(&proxy, "GET", &format!("/eth/v1/beacon/{kind}/{slot}")).await.text(), r#"{"data":"here"}"#);
        full.count() > before
    };
    assert!(ask("blob_sidecars", 150).await);
    assert!(!ask("blob_sidecars", 150).await, "it is asked for the same again");
    assert!(!ask("blob_sidecars", 20).await, "it is asked for what is older");
    // Of what is younger, and of another kind, nothing is known.
    assert!(ask("blob_sidecars", 300).await);
    assert!(ask("states", 150).await);
}

#[tokio::test]
async fn missing_recent_data_teaches_no_pruning_bound() {
    let late = saying(|asked| {
        asked.target.contains("/blob_sidecars/").then(|| json("404 Not Found", r#"{"code":404,"message":"not yet"}"#))
    })
    .await;
    let other = saying(|_| None).await;
    let proxy = over(&[&late, &other], "").await;
    let head = status(&proxy, "cl-1").await["head"].as_u64().unwrap();
    for (back, is_learnt) in [(10, false), (50, false), (70, true)] {
        for round in 0..2 {
            let before = late.count();
            let path = format!("/eth/v1/beacon/blob_sidecars/{}", head - back);
            assert_eq!(ask(&proxy, "GET", &path).await.text(), r#"{"data":"here"}"#);
            assert_eq!(late.count() == before, is_learnt && round == 1, "{back} slots back");
        }
    }
}

#[tokio::test]
async fn fewer_blobs_than_the_block_commits_to_are_not_all_there_are() {
    let block = r#"{"data":{"message":{"body":{"blob_kzg_commitments":["0x","0x","0x"]}}}}"#;
    let with = move |list: &'static str| {
        saying(move |asked: &Asked| {
            let is_block = asked.target.starts_with("/eth/v2/beacon/blocks/");
            Some(json("200 OK", if is_block { block } else { list }))
        })
    };
    const ALL: &str = r#"{"data":[{},{},{}]}"#;
    for (list, query, complete) in [
        (r#"{"data":[]}"#, "", false),
        (r#"{"data":[{}]}"#, "", false),
        (ALL, "", true),
        (r#"{"data":[{}]}"#, "?indices=1", true),
        (r#"{"data":[{}]}"#, "?indices=1,2", false),
    ] {
        let (some, all) = (with(list).await, with(ALL).await);
        let proxy = over(&[&some, &all], "").await;
        let answer = ask(&proxy, "GET", &format!("/eth/v1/beacon/blob_sidecars/7{query}")).await.text();
        assert_eq!(answer, if complete { list } else { ALL }, "{list}{query}");
    }
    // Where none has them all, the most is the best.
    for lists in [[r#"{"data":[{}]}"#, r#"{"data":[]}"#], [r#"{"data":[]}"#, r#"{"data":[{}]}"#]] {
        let (one, other) = (with(lists[0]).await, with(lists[1]).await);
        let proxy = over(&[&one, &other], "").await;
        assert_eq!(ask(&proxy, "GET", "/eth/v1/beacon/blob_sidecars/7").await.text(), r#"{"data":[{}]}"#);
    }
}
