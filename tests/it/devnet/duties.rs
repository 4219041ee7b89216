//! Consensus nodes as validators find them: pools, what they are told, what they keep of the past, and single routes that fail.

use alloy_primitives::Address;
use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Fault, Message, Node, Options, Store};
use tokio::time::{sleep, timeout};

use super::client::{SILENCE, SOON, http, start};

const ROUTES: &str = "GET /eth/v3/validator/blocks/*";

async fn network() -> Devnet {
    start(Options { consensus: 2, initial_blocks: 30, ..Options::default() }).await
}

async fn get(node: &Node, path: &str) -> (u16, Value) {
    let answer = http().get(format!("{}{path}", node.http_url())).timeout(SOON).send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
}

async fn post(node: &Node, path: &str, body: Value) -> (u16, Value) {
    let request = http().post(format!("{}{path}", node.http_url())).header("eth-consensus-version", "electra");
    let answer = request.json(&body).timeout(SOON).send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
}

fn attestation(validator: &str, slot: u64, root: &Value) -> Value {
    json!({
        "committee_index": "0", "attester_index": validator, "signature": "0x00",
        "data": {"slot": slot.to_string(), "index": "0", "beacon_block_root": root, "source": {}, "target": {}},
    })
}

#[tokio::test]
async fn a_vote_for_a_block_that_a_node_has_not_seen_is_refused() {
    let net = network().await;
    net.cl(1).set_fault(Fault::late(60_000));
    net.chain().mine(1);
    let root = get(net.cl(0), "/eth/v1/beacon/blocks/head/root").await.1["data"]["root"].clone();
    let old = get(net.cl(1), "/eth/v1/beacon/blocks/head/root").await.1["data"]["root"].clone();
    assert_ne!(root, old);
    let votes = json!([attestation("7", 31, &old), attestation("15", 31, &root)]);
    let path = "/eth/v2/beacon/pool/attestations";
    let (status, refusal) = post(net.cl(1), path, votes.clone()).await;
    assert_eq!((status, &refusal["failures"]), (400, &json!([{"index": 1, "message": "UnknownHeadBlock"}])));
    assert_eq!(post(net.cl(0), path, votes).await.0, 200);
    let taken = net.chain().taken(31);
    let taken: Vec<_> = taken.iter().map(|vote| (vote.kind, vote.validator, vote.node.as_str())).collect();
    assert_eq!(taken, [(Message::Attestation, 7, "cl-2"), (Message::Attestation, 15, "cl-1")], "each once");
    let contribution = format!(
        "/eth/v1/validator/sync_committee_contribution?slot=31&subcommittee_index=0&beacon_block_root={}",
        root.as_str().unwrap()
    );
    assert_eq!(get(net.cl(0), &contribution).await.0, 200);
    assert_eq!(get(net.cl(1), &contribution).await.0, 404);
}

#[tokio::test]
async fn restarted_node_has_forgotten_its_messages() {
    let net = network().await;
    let node = net.cl(0);
    let recipient = format!("0x{}", "11".repeat(20));
    let tell = async || {
        for (path, wish) in [
            ("prepare_beacon_proposer", json!([{"validator_index": "31", "fee_recipient": recipient}])),
            ("register_validator", json!([{"message": {"pubkey": "0xabc"}, "signature": "0x00"}])),
            ("beacon_committee_subscriptions", json!([{"validator_index": "7", "slot": "31"}])),
            ("sync_committee_subscriptions", json!([{"validator_index": "7", "until_epoch": "9"}])),
        ] {
            assert_eq!(post(node, &format!("/eth/v1/validator/{path}"), wish).await.0, 200, "{path}");
        }
    };
    let knows = || (node.fee_recipient(31).is_some(), node.is_registered("0xabc"), node.listens_at(31), node.syncs(7));
    let paid = async || {
        let block = get(node, "/eth/v3/validator/blocks/31?randao_reveal=0x00").await.1;
        block["data"]["block"]["body"]["execution_payload"]["fee_recipient"].as_str().unwrap().to_owned()
    };
    let nobody = format!("{:#x}", Address::ZERO);
    assert_eq!((knows(), paid().await), ((false, false, false, false), nobody.clone()));
    tell().await;
    assert_eq!((knows(), paid().await), ((true, true, true, true), recipient.clone()));
    timeout(SOON, node.restart()).await.unwrap();
    assert_eq!((knows(), paid().await), ((false, false, false, false), nobody));
    let peers = get(node, "/eth/v1/node/peer_count").await.1["data"]["connected"].clone();
    assert!(peers.as_str().unwrap().parse::<u64>().unwrap() < 50, "it has just begun to look for peers: {peers}");
    tell().await;
    assert_eq!(paid().await, recipient);
}

#[tokio::test]
async fn a_node_hangs_or_is_hidden_over_the_routes_that_are_named() {
    let net = network().await;
    let node = net.cl(0);
    let block = "/eth/v3/validator/blocks/31?randao_reveal=0x00";
    node.set_fault(Fault::hang_over(&[ROUTES]));
    let url = format!("{}{block}", node.http_url());
    let waiting = tokio::spawn(async move { http().get(url).send().await.is_err() });
    sleep(SILENCE).await;
    assert!(!waiting.is_finished());
    assert_eq!(get(node, "/eth/v1/validator/attestation_data?slot=30&committee_index=0").await.0, 200);
    node.clear_faults();
    assert!(timeout(SOON, waiting).await.unwrap().unwrap(), "it is dropped in the end");
    node.set_fault(Fault::gateway(502, &[ROUTES]));
    let answer = http().get(format!("{}{block}", node.http_url())).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].as_bytes()), (502, &b"text/html"[..]));
    assert_eq!(get(node, "/eth/v1/node/version").await.0, 200);
}

#[tokio::test]
async fn a_pruned_node_has_no_more_than_it_keeps() {
    let net = network().await;
    let node = net.cl(0);
    let statuses = async || {
        let mut statuses = Vec::new();
        for slot in [20, 24, 30] {
            let mut of_slot = Vec::new();
            for path in ["beacon/headers", "beacon/blob_sidecars", "beacon/blobs"] {
                of_slot.push(get(node, &format!("/eth/v1/{path}/{slot}")).await.0);
            }
            of_slot.push(get(node, &format!("/eth/v1/beacon/states/{slot}/finality_checkpoints")).await.0);
            statuses.push(of_slot);
        }
        statuses
    };
    assert_eq!(statuses().await, [[200; 4]; 3]);
    node.set_fault(Fault::pruned(6, &[]));
    assert_eq!(statuses().await, [[404; 4], [200; 4], [200; 4]]);
    node.set_fault(Fault::pruned(6, &[Store::States]));
    assert_eq!(statuses().await, [[200, 200, 200, 404], [200; 4], [200; 4]]);
    node.set_fault(Fault::pruned(0, &[Store::Blobs]));
    assert_eq!(statuses().await, [[200, 404, 404, 200], [200, 404, 404, 200], [200; 4]]);
}

#[tokio::test]
async fn a_block_commits_to_blobs_that_a_node_may_lack() {
    let net = network().await;
    let node = net.cl(0);
    let blobs = async |of: &str| get(node, &format!("/eth/v1/beacon/{of}")).await.1["data"].as_array().unwrap().len();
    let block = get(node, "/eth/v2/beacon/blocks/30").await.1;
    assert_eq!(block["data"]["message"]["body"]["blob_kzg_commitments"].as_array().unwrap().len(), 3);
    assert_eq!((blobs("blob_sidecars/30").await, blobs("blob_sidecars/29").await), (3, 0));
    assert_eq!((blobs("blobs/30").await, blobs("blob_sidecars/30?indices=0,2").await), (3, 2));
    node.set_fault(Fault::few_blobs(1));
    assert_eq!((blobs("blob_sidecars/30").await, blobs("blobs/30").await), (1, 1));
    node.set_fault(Fault::few_blobs(0));
    assert_eq!((blobs("blob_sidecars/30").await, blobs("blobs/30").await), (0, 0));
}

#[tokio::test]
async fn a_block_on_one_that_a_node_has_not_seen_is_refused() {
    let net = network().await;
    net.cl(1).set_fault(Fault::late(60_000));
    net.chain().mine(1);
    let block = get(net.cl(0), "/eth/v3/validator/blocks/32?randao_reveal=0x00").await.1["data"]["block"].clone();
    let signed = json!({"signed_block": {"message": block, "signature": "0x00"}});
    let publish = async |node: &Node| post(node, "/eth/v2/beacon/blocks", signed.clone()).await;
    let (status, refusal) = publish(net.cl(1)).await;
    assert!(status == 400 && refusal["message"].as_str().unwrap().starts_with("ParentUnknown"), "{status} {refusal}");
    assert_eq!(publish(net.cl(0)).await.0, 200);
    assert_eq!(net.chain().head().number, 31, "no client was said to have the slot's validator");
}

#[tokio::test]
async fn a_node_is_slow_over_the_routes_that_are_named() {
    let net = network().await;
    let node = net.cl(0);
    node.set_fault(Fault::slow_over(60_000, &[ROUTES]));
    let url = format!("{}/eth/v3/validator/blocks/31?randao_reveal=0x00", node.http_url());
    assert!(http().get(&url).timeout(SILENCE).send().await.is_err());
    assert_eq!(get(node, "/eth/v1/validator/attestation_data?slot=30&committee_index=0").await.0, 200);
    node.set_fault(Fault::slow_over(1, &[ROUTES]));
    assert_eq!(http().get(&url).timeout(SOON).send().await.unwrap().status(), 200);
}
