//! What a consensus node's answers say of one another: forms, blobs, a whole state, settings.

use reqwest::Response;
use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Options};

use super::client::{SOON, http, number, result, start};

const BLOCK: &str = "/eth/v2/beacon/blocks/head";
const STATE: &str = "/eth/v2/debug/beacon/states/head";

async fn network() -> Devnet {
    start(Options { execution: 1, consensus: 1, initial_blocks: 30, state_bytes: 500_000, ..Options::default() }).await
}

async fn get(net: &Devnet, path: &str, accept: Option<&str>) -> Response {
    let request = http().get(format!("{}{path}", net.cl(0).http_url())).timeout(SOON);
    let request = if let Some(accept) = accept { request.header("accept", accept) } else { request };
    request.send().await.unwrap()
}

async fn data(net: &Devnet, path: &str) -> Value {
    let answer = get(net, path, None).await;
    assert_eq!(answer.status(), 200, "{path}");
    answer.json::<Value>().await.unwrap()["data"].take()
}

#[tokio::test]
async fn blocks_and_states_come_as_json_or_not_at_all() {
    let net = network().await;
    for path in [BLOCK, STATE] {
        for (accept, status) in [
            (None, 200),
            (Some("application/json"), 200),
            (Some("*/*"), 200),
            (Some("application/octet-stream;q=1.0,application/json;q=0.9"), 200),
            (Some("application/octet-stream, application/*;q=0.1"), 200),
            (Some("application/octet-stream"), 406),
            (Some("application/octet-stream,application/json;q=0"), 406),
            (Some("text/html"), 406),
        ] {
            let answer = get(&net, path, accept).await;
            assert_eq!(answer.status(), status, "{path} {accept:?}");
            assert_eq!(answer.headers()["content-type"], "application/json", "{path} {accept:?}");
            let body: Value = answer.json().await.unwrap();
            let told = if status == 200 { &body["version"] } else { &body["code"] };
            assert_eq!(*told, if status == 200 { json!("electra") } else { json!(406) }, "{path} {accept:?}");
        }
    }
}

#[tokio::test]
async fn a_state_is_whole_and_as_long_as_ordered() {
    let net = network().await;
    let answer = get(&net, STATE, None).await;
    assert_eq!(answer.headers()["eth-consensus-version"], "electra");
    let text = answer.text().await.unwrap();
    assert_eq!(text.len(), 500_000);
    let mut state: Value = serde_json::from_str(&text).unwrap();
    let state = state["data"].take();
    let head = data(&net, "/eth/v1/beacon/headers/head").await;
    assert_eq!(state["slot"], "30");
    assert_eq!(state["latest_block_header"], head["header"]["message"]);
    // Slot 29 is at its place in the vector.
    assert_eq!(state["block_roots"][29], head["header"]["message"]["parent_root"]);
    let checkpoints = data(&net, "/eth/v1/beacon/states/head/finality_checkpoints").await;
    assert_eq!(state["finalized_checkpoint"], checkpoints["finalized"]);
    let validators = data(&net, "/eth/v1/beacon/states/head/validators").await;
    let lists = ["validators", "balances", "inactivity_scores", "current_epoch_participation"];
    for list in lists {
        assert_eq!(state[list].as_array().unwrap().len(), validators.as_array().unwrap().len(), "{list}");
    }
    assert_eq!(state["validators"][7], validators[7]["validator"]);
    let payload = &data(&net, BLOCK).await["message"]["body"]["execution_payload"];
    assert_eq!(state["latest_execution_payload_header"]["block_hash"], payload["block_hash"]);
    // The members of Electra's states.
    assert_eq!(state.as_object().unwrap().len(), 37);
}

#[tokio::test]
async fn blobs_are_as_long_as_blobs_and_use_gas() {
    let net = network().await;
    for (slot, blobs) in [(30, 3), (29, 0)] {
        let block = data(&net, &format!("/eth/v2/beacon/blocks/{slot}")).await;
        let body = &block["message"]["body"];
        assert_eq!(body["blob_kzg_commitments"].as_array().unwrap().len(), blobs);
        let gas = blobs << 17;
        assert_eq!(body["execution_payload"]["blob_gas_used"], gas.to_string());
        let execution = result(net.el(0), "eth_getBlockByNumber", json!([format!("{slot:#x}"), false])).await;
        assert_eq!(number(&execution["blobGasUsed"]), gas as u64);
        let paid = &body["execution_payload"]["withdrawals"][0];
        assert_eq!(paid["index"], number(&execution["withdrawals"][0]["index"]).to_string());
        assert_eq!(paid["amount"], number(&execution["withdrawals"][0]["amount"]).to_string());
        let sidecars = data(&net, &format!("/eth/v1/beacon/blob_sidecars/{slot}")).await;
        let alone = data(&net, &format!("/eth/v1/beacon/blobs/{slot}")).await;
        assert_eq!((sidecars.as_array().unwrap().len(), alone.as_array().unwrap().len()), (blobs, blobs));
        for (index, sidecar) in sidecars.as_array().unwrap().iter().enumerate() {
            let blob = sidecar["blob"].as_str().unwrap();
            assert_eq!((blob.len(), &alone[index]), (2 + 2 * 131_072, &sidecar["blob"]));
            // Each field element is less than the modulus.
            assert!(blob.as_bytes()[2..].chunks(64).all(|element| element.starts_with(b"00")));
            assert_eq!(sidecar["kzg_commitment"], body["blob_kzg_commitments"][index]);
            assert_eq!(sidecar["kzg_proof"].as_str().unwrap().len(), 2 + 2 * 48);
            assert_eq!(sidecar["kzg_commitment_inclusion_proof"].as_array().unwrap().len(), 17);
        }
        let columns = data(&net, &format!("/eth/v1/debug/beacon/data_column_sidecars/{slot}")).await;
        for column in columns.as_array().unwrap() {
            let cells = column["column"].as_array().unwrap();
            assert_eq!((cells.len(), column["kzg_proofs"].as_array().unwrap().len()), (blobs, blobs));
            assert!(cells.iter().all(|cell| cell.as_str().unwrap().len() == 2 + 2 * 2048));
        }
    }
    let produced = data(&net, "/eth/v3/validator/blocks/31?randao_reveal=0x00").await;
    let body = &produced["block"]["body"];
    assert_eq!((&body["blob_kzg_commitments"], &produced["blobs"]), (&json!([]), &json!([])));
    assert_eq!(body["execution_payload"]["blob_gas_used"], "0");
}

#[tokio::test]
async fn the_settings_are_all_that_clients_read() {
    let net = network().await;
    let spec = data(&net, "/eth/v1/config/spec").await;
    let spec = spec.as_object().unwrap();
    assert!(spec.values().all(|value| value.as_str().is_some_and(|text| !text.is_empty())), "{spec:?}");
    for (key, value) in [
        ("PRESET_BASE", "minimal"),
        ("SLOTS_PER_EPOCH", "8"),
        ("SECONDS_PER_SLOT", "1"),
        ("SLOT_DURATION_MS", "1000"),
        ("SYNC_COMMITTEE_SIZE", "32"),
        ("EPOCHS_PER_SYNC_COMMITTEE_PERIOD", "8"),
        ("MAX_COMMITTEES_PER_SLOT", "4"),
        ("TARGET_AGGREGATORS_PER_COMMITTEE", "16"),
        ("SYNC_COMMITTEE_SUBNET_COUNT", "4"),
        ("FIELD_ELEMENTS_PER_BLOB", "4096"),
        ("MAX_BLOBS_PER_BLOCK_ELECTRA", "9"),
        ("DOMAIN_BEACON_ATTESTER", "0x01000000"),
        ("DOMAIN_SYNC_COMMITTEE", "0x07000000"),
        ("MIN_VALIDATOR_WITHDRAWABILITY_DELAY", "256"),
        ("FULU_FORK_EPOCH", "18446744073709551615"),
    ] {
        assert_eq!(spec[key], value, "{key}");
    }
    for fork in ["ALTAIR", "BELLATRIX", "CAPELLA", "DENEB", "ELECTRA"] {
        assert_eq!(spec[&format!("{fork}_FORK_EPOCH")], "0");
        assert_eq!(spec[&format!("{fork}_FORK_VERSION")].as_str().unwrap().len(), 10);
    }
    let genesis = data(&net, "/eth/v1/beacon/genesis").await;
    assert_eq!(spec["GENESIS_FORK_VERSION"], genesis["genesis_fork_version"]);
    assert_eq!(spec["MIN_GENESIS_TIME"], genesis["genesis_time"]);
    let fork = data(&net, "/eth/v1/beacon/states/head/fork").await;
    assert_eq!(spec["ELECTRA_FORK_VERSION"], fork["current_version"]);
    assert_eq!(spec["DENEB_FORK_VERSION"], fork["previous_version"]);
    let validators = data(&net, "/eth/v1/beacon/states/head/validators").await;
    assert_eq!(spec["MIN_GENESIS_ACTIVE_VALIDATOR_COUNT"], validators.as_array().unwrap().len().to_string());
}
