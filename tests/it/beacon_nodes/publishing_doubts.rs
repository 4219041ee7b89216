//! Refusals of what is signed: words that speak of the node, words that are not known, and words that are final.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::publishing::ATTESTATIONS;
use crate::common::rest::{Exchange, Node, json, over, request, send, until_verdict};

const BLOCKS: &str = "/eth/v2/beacon/blocks";
const STRANGE: &str = "words that no node is known to say";

async fn says(answer: Vec<u8>) -> Node {
    Node::paced(1, move |exchange: Exchange| exchange.reply(answer.clone())).await
}

async fn takes() -> Node {
    says(json("200 OK", r#"{"data":"taken"}"#)).await
}

/// A refusal of a single message, or of the first of a list.
fn refusal(path: &str, message: &str) -> Vec<u8> {
    let error = match path {
        ATTESTATIONS => serde_json::json!({ "code": 400, "message": "some failed",
            "failures": [{ "index": 0, "message": message }] }),
        _ => serde_json::json!({ "code": 400, "message": message }),
    };
    json("400 Bad", &error.to_string())
}

#[tokio::test]
async fn words_that_speak_of_the_node_are_asked_of_each() {
    for word in [
        "FutureSlot { attestation_slot: Slot(5), latest_permissible_slot: Slot(4) }",
        "ATTESTATION_ERROR_FUTURE_SLOT",
        "BLOCK_ERROR_FUTURE_SLOT",
        "ATTESTATION_ERROR_MISSING_STATE_TO_VERIFY_ATTESTATION",
        "ATTESTATION_ERROR_MISSING_ATTESTATION_HEAD_STATE",
    ] {
        for path in [ATTESTATIONS, BLOCKS] {
            let (first, second) = (says(refusal(path, word)).await, says(refusal(path, word)).await);
            let third = takes().await;
            let proxy = over(&[&first, &second, &third], "").await;
            let answer = send(&proxy, request("POST", path, "", "[1]")).await;
            assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"taken"}"#), "{path} {word}");
        }
    }
}

#[tokio::test]
async fn words_that_are_not_known_are_asked_of_each_node() {
    for path in [ATTESTATIONS, BLOCKS, "/eth/v1/beacon/pool/voluntary_exits"] {
        let (first, second) = (says(refusal(path, STRANGE)).await, takes().await);
        let proxy = over(&[&first, &second], "").await;
        let answer = send(&proxy, request("POST", path, "", "[1,2]")).await;
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"taken"}"#), "{path}");
        let given = if path == ATTESTATIONS { "[1]" } else { "[1,2]" };
        assert_eq!(String::from_utf8_lossy(&second.asked()[0].body), given, "{path}");
        let (second, third) = (says(refusal(path, "other strange words")).await, takes().await);
        let proxy = over(&[&first, &second, &third], "").await;
        let answer = send(&proxy, request("POST", path, "", "[1,2]")).await;
        assert_eq!((answer.status, second.count(), third.count()), (200, 1, 1), "{path}");
        // If none takes the message, the client has the first one's words.
        let third = says(refusal(path, "still others")).await;
        let proxy = over(&[&first, &second, &third], "").await;
        let answer = send(&proxy, request("POST", path, "", "[1,2]")).await;
        assert_eq!((answer.status, second.count(), third.count()), (400, 2, 1), "{path}");
        if path != ATTESTATIONS {
            assert_eq!(answer.json()["message"], STRANGE, "{path}");
        }
        let proxy = over(&[&first], "").await;
        assert_eq!(send(&proxy, request("POST", path, "", "[1,2]")).await.status, 400, "{path}");
    }
}

async fn hangs() -> Node {
    Node::paced(1, |mut exchange: Exchange| async {
        exchange.body().await;
        exchange.hang().await
    })
    .await
}

#[tokio::test]
async fn strange_words_and_a_node_that_hangs_keep_it_from_no_third() {
    for path in [ATTESTATIONS, BLOCKS] {
        let (first, second, third) = (says(refusal(path, STRANGE)).await, hangs().await, hangs().await);
        let last = takes().await;
        let proxy = over(&[&first, &second, &third, &last], "").await;
        let answer = send(&proxy, request("POST", path, "", "[1,2]")).await;
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"taken"}"#), "{path}");
        assert_eq!([&first, &second, &third, &last].map(Node::count), [1; 4], "{path}");
    }
}

#[tokio::test]
async fn words_that_are_not_known_wait_for_no_node_that_hangs() {
    let hangs = hangs().await;
    let first = says(refusal(BLOCKS, STRANGE)).await;
    let proxy = over(&[&first, &hangs], "").await;
    let answer = send(&proxy, request("POST", BLOCKS, "", "{}")).await;
    assert_eq!((answer.status, hangs.count()), (400, 1));
    assert_eq!(answer.json()["message"], STRANGE);
}

#[tokio::test]
async fn a_node_that_was_busy_is_asked_about_words_that_are_not_known() {
    let count = AtomicUsize::new(0);
    let first = Node::paced(8, move |exchange: Exchange| {
        let is_busy = count.fetch_add(1, SeqCst) == 0;
        exchange.reply(if is_busy { json("503 Busy", "{}") } else { json("200 OK", r#"{"data":"taken"}"#) })
    })
    .await;
    let second = says(refusal(BLOCKS, STRANGE)).await;
    second.set_pace(8);
    let proxy = over(&[&first, &second], "").await;
    let answer = send(&proxy, request("POST", BLOCKS, "", "{}")).await;
    assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"taken"}"#));
}

#[tokio::test]
async fn a_node_that_is_not_well_is_not_asked_about_refusals() {
    let (first, second) = (says(refusal(BLOCKS, STRANGE)).await, takes().await);
    let proxy = over(&[&first, &second], "").await;
    second.set_syncing(true);
    until_verdict(&proxy, "cl-2", "syncing").await;
    let answer = send(&proxy, request("POST", BLOCKS, "", "{}")).await;
    assert_eq!((answer.status, second.count()), (400, 0));
}

#[tokio::test]
async fn a_refusal_that_protects_the_validator_is_not_got_round() {
    const EQUIVOCATION: &str = "/eth/v2/beacon/blocks?broadcast_validation=consensus_and_equivocation";
    const BLINDED: &str = "/eth/v2/beacon/blinded_blocks";
    const BLINDED_EQUIVOCATION: &str = "/eth/v2/beacon/blinded_blocks?broadcast_validation=consensus_and_equivocation";
    for (path, status, word) in [
        (BLOCKS, "400 Bad", "Block is equivocating"),
        (BLOCKS, "400 Bad", "Slashable"),
        (BLOCKS, "400 Bad", "ProposalSlashable: block root not found in cache"),
        (BLOCKS, "500 Oops", "block is slashable"),
        (BLINDED, "400 Bad", "equivocation: block is slashable"),
        (BLINDED_EQUIVOCATION, "400 Bad", STRANGE),
        (BLOCKS, "400 Bad", "proposal for this slot and proposer has already been seen"),
        (BLOCKS, "400 Bad", "FAILED_BROADCAST_VALIDATION"),
        (BLOCKS, "400 Bad", "BLOCK_ERROR_REPEAT_PROPOSAL"),
        (EQUIVOCATION, "400 Bad", STRANGE),
        (BLOCKS, "409 Conflict", STRANGE),
        (ATTESTATIONS, "400 Bad", "ATTESTATION_ERROR_ATTESTATION_ALREADY_KNOWN"),
    ] {
        let error = String::from_utf8(refusal(path, word)).unwrap().replace("400 Bad", status);
        let (first, second) = (says(error.into()).await, takes().await);
        let proxy = over(&[&first, &second], "").await;
        let answer = send(&proxy, request("POST", path, "", "[1]")).await;
        assert_eq!((&*answer.status.to_string(), second.count()), (&status[..3], 0), "{path} {word}");
    }
}
