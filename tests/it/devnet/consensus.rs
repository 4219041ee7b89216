//! A consensus node: REST and events.

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Fault, Node, Options};
use tokio::time::timeout;

use super::client::{SILENCE, SOON, http, number, result, start};

async fn network() -> Devnet {
    start(Options { execution: 1, consensus: 2, initial_blocks: 30, state_bytes: 3_000_000, ..Options::default() })
        .await
}

async fn get(node: &Node, path: &str) -> Response {
    http().get(format!("{}{path}", node.http_url())).timeout(SOON).send().await.unwrap()
}

async fn data(node: &Node, path: &str) -> Value {
    let answer = get(node, path).await;
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.json::<Value>().await.unwrap()["data"].clone()
}

/// An event stream, read event by event.
struct Events {
    answer: Response,
    text: String,
}

impl Events {
    async fn open(node: &Node, topics: &str) -> Self {
        let url = format!("{}/eth/v1/events?topics={topics}", node.http_url());
        let answer = timeout(SOON, http().get(url).send()).await.expect("the head comes before any event").unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, text: String::new() }
    }

    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (topic, about) = event.split_once('\n').unwrap();
                let topic = topic.strip_prefix("event: ").unwrap().to_owned();
                let about = serde_json::from_str(about.strip_prefix("data: ").unwrap()).unwrap();
                self.text = rest.to_owned();
                return (topic, about);
            }
            let piece = timeout(SOON, self.answer.chunk()).await.expect("an event in time").unwrap().unwrap();
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    async fn is_silent(&mut self) -> bool {
        self.text.is_empty() && timeout(SILENCE, self.answer.chunk()).await.is_err()
    }
}

#[tokio::test]
async fn headers_and_blocks_follow_the_execution_chain() {
    let net = network().await;
    let node = net.cl(0);
    let head = data(node, "/eth/v1/beacon/headers/head").await;
    assert_eq!(head["header"]["message"]["slot"], "30");
    let parent = data(node, "/eth/v1/beacon/headers/29").await;
    assert_eq!(head["header"]["message"]["parent_root"], parent["root"]);
    let by_root = data(net.cl(1), &format!("/eth/v1/beacon/headers/{}", head["root"].as_str().unwrap())).await;
    assert_eq!(by_root, head);
    assert_eq!(data(node, "/eth/v1/beacon/headers").await, json!([head]));
    assert_eq!(data(node, "/eth/v1/beacon/headers?slot=29").await, json!([parent]));
    let children = format!("/eth/v1/beacon/headers?parent_root={}", parent["root"].as_str().unwrap());
    assert_eq!(data(node, &children).await, json!([head]));
    let block = get(node, "/eth/v2/beacon/blocks/head").await;
    assert_eq!(block.headers()["eth-consensus-version"], "electra");
    let block: Value = block.json().await.unwrap();
    let payload = &block["data"]["message"]["body"]["execution_payload"];
    assert_eq!(payload["block_hash"], net.chain().head().hash.to_string());
    assert_eq!(block["data"]["message"]["state_root"], head["header"]["message"]["state_root"]);
    let checkpoints = data(node, "/eth/v1/beacon/states/head/finality_checkpoints").await;
    let finalized = data(node, "/eth/v1/beacon/headers/finalized").await;
    assert_eq!(checkpoints["finalized"], json!({"epoch": "1", "root": finalized["root"]}));
    assert_eq!(finalized["header"]["message"]["slot"], "8");
}

#[tokio::test]
async fn the_node_tells_how_it_is() {
    let net = network().await;
    let node = net.cl(0);
    let status = async || data(node, "/eth/v1/node/syncing").await;
    let health = async || get(node, "/eth/v1/node/health").await.status().as_u16();
    let well = json!({"head_slot": "30", "sync_distance": "0", "is_syncing": false, "is_optimistic": false, "el_offline": false});
    assert_eq!((status().await, health().await), (well, 200));
    node.set_fault(Fault::Syncing);
    assert_eq!((status().await["is_syncing"].clone(), health().await), (json!(true), 206));
    node.clear_faults();
    node.set_fault(Fault::Optimistic);
    assert_eq!((status().await["is_optimistic"].clone(), health().await), (json!(true), 206));
    node.clear_faults();
    node.set_fault(Fault::ElOffline);
    assert_eq!((status().await["el_offline"].clone(), health().await), (json!(true), 200));
    node.clear_faults();
    node.set_fault(Fault::lag(4));
    assert_eq!(status().await["sync_distance"], "4");
    node.set_fault(Fault::lie(100));
    node.clear_fault("lag");
    assert_eq!(status().await["head_slot"], "130");
    assert_eq!(data(node, "/eth/v1/beacon/headers/head").await["header"]["message"]["slot"], "130");
    assert!(data(node, "/eth/v1/node/version").await["version"].as_str().unwrap().contains("cl-1"));
    assert!(data(node, "/eth/v1/node/identity").await["peer_id"].is_string());
}

#[tokio::test]
async fn another_network_has_another_genesis_and_deposit_chain() {
    let net = network().await;
    net.cl(0).set_fault(Fault::wrong_chain(5));
    for (path, key) in
        [("/eth/v1/beacon/genesis", "genesis_validators_root"), ("/eth/v1/config/spec", "DEPOSIT_CHAIN_ID")]
    {
        let (theirs, ours) = (data(net.cl(0), path).await, data(net.cl(1), path).await);
        assert_ne!(theirs[key], ours[key], "{path}");
    }
    assert_eq!(data(net.cl(1), "/eth/v1/config/spec").await["DEPOSIT_CHAIN_ID"], "1337");
}

#[tokio::test]
async fn errors_have_a_code_and_a_message() {
    let net = network().await;
    for (path, status) in [
        ("/eth/v1/beacon/headers/999", 404),
        ("/eth/v1/beacon/headers/tail", 400),
        ("/eth/v2/debug/beacon/states/0x12", 400),
        ("/eth/v1/events", 400),
        ("/eth/v1/events?topics=head,sadness", 400),
        ("/eth/v9/nothing", 404),
    ] {
        let answer = get(net.cl(0), path).await;
        assert_eq!(answer.status().as_u16(), status, "{path}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["code"], status, "{path}");
        assert!(body["message"].is_string(), "{path}");
    }
}

#[tokio::test]
async fn a_state_is_streamed_whole_and_a_block_is_published() {
    let net = network().await;
    let node = net.cl(0);
    let state = get(node, "/eth/v2/debug/beacon/states/head").await;
    assert_eq!(
        (&state.headers()["content-type"], state.content_length()),
        (&"application/json".parse().unwrap(), None)
    );
    assert_eq!(state.bytes().await.unwrap().len(), 3_000_000);
    let publish = async |kind: &str, version: bool| {
        let request = http().post(format!("{}/eth/v2/beacon/blocks", node.http_url())).header("content-type", kind);
        let request = if version { request.header("eth-consensus-version", "electra") } else { request };
        request.body("{}").send().await.unwrap().status().as_u16()
    };
    assert_eq!(publish("application/octet-stream", true).await, 200);
    assert_eq!(publish("application/json", false).await, 400);
    assert_eq!(publish("text/plain", true).await, 415);
    node.set_fault(Fault::Syncing);
    assert_eq!(publish("application/json", true).await, 503);
    assert_eq!(node.count("POST /eth/v2/beacon/blocks"), 4);
}

#[tokio::test]
async fn an_ordered_status_is_for_named_requests_or_all_but_probes() {
    let net = network().await;
    let node = net.cl(0);
    let statuses = async || {
        let mut statuses = Vec::new();
        for path in ["/eth/v1/node/health", "/eth/v1/beacon/headers/head", "/eth/v2/beacon/blocks/head"] {
            statuses.push(get(node, path).await.status().as_u16());
        }
        statuses
    };
    node.set_fault(Fault::http_status(206, &["GET /eth/v1/node/health"]));
    assert_eq!(statuses().await, [206, 200, 200]);
    assert_eq!(data(node, "/eth/v1/node/syncing").await["is_syncing"], false);
    node.set_fault(Fault::http_status(202, &[]));
    assert_eq!(statuses().await, [200, 200, 202]);
    node.clear_faults();
    assert_eq!(statuses().await, [200, 200, 200]);
}

#[tokio::test]
async fn events_tell_of_heads_blocks_finality_and_reorgs() {
    let net = network().await;
    let mut events = Events::open(net.cl(0), "head%2Cblock,finalized_checkpoint&topics=chain_reorg").await;
    let mut heads = Events::open(net.cl(1), "head").await;
    net.chain().mine(1);
    let (topic, block) = events.next().await;
    assert_eq!((topic.as_str(), &block["slot"]), ("block", &json!("31")));
    let (topic, head) = events.next().await;
    assert_eq!((topic.as_str(), &head["block"]), ("head", &block["block"]));
    assert_eq!(heads.next().await.1, head);
    net.chain().mine(1);
    let topics = [events.next().await.0, events.next().await.0, events.next().await.0];
    assert_eq!(topics, ["block", "head", "finalized_checkpoint"]);
    let old = net.chain().head();
    net.chain().reorg(2).unwrap();
    let (topic, reorg) = events.next().await;
    assert_eq!((topic.as_str(), &reorg["depth"]), ("chain_reorg", &json!("2")));
    let new = data(net.cl(0), "/eth/v1/beacon/headers/head").await;
    assert_eq!(reorg["new_head_block"], new["root"]);
    assert_ne!(reorg["old_head_block"], new["root"]);
    assert_eq!(reorg["slot"], (old.number + 1).to_string());
    for _ in 0..6 {
        events.next().await;
    }
    assert!(events.is_silent().await);
}

#[tokio::test]
async fn a_mute_stream_stays_open_and_a_hanging_one_goes_silent() {
    let net = network().await;
    let node = net.cl(0);
    let mut events = Events::open(node, "head").await;
    node.set_fault(Fault::Mute);
    net.chain().mine(1);
    assert!(events.is_silent().await);
    node.clear_faults();
    net.chain().mine(1);
    assert_eq!(events.next().await.1["slot"], "32");
    node.set_fault(Fault::Hang);
    net.chain().mine(1);
    assert!(events.is_silent().await);
    assert!(timeout(SILENCE, get(node, "/eth/v1/node/version")).await.is_err());
    node.clear_faults();
    assert_eq!(events.next().await.1["slot"], "33");
    assert_eq!(node.subscriptions(), 1);
    node.set_fault(Fault::Down);
    assert!(timeout(SOON, events.answer.chunk()).await.unwrap().is_err(), "the stream breaks off");
}

#[tokio::test]
async fn every_topic_of_the_api_is_told_alike_by_all_nodes() {
    let net = network().await;
    let description = [
        "head",
        "head_v2",
        "block",
        "block_gossip",
        "attestation",
        "single_attestation",
        "contribution_and_proof",
        "light_client_finality_update",
        "light_client_optimistic_update",
        "payload_attributes",
        "data_column_sidecar",
        "execution_payload",
        "execution_payload_gossip",
        "execution_payload_available",
        "execution_payload_bid",
        "payload_attestation_message",
        "fast_confirmation",
        "proposer_preferences",
        "blob_sidecar",
    ];
    let topics = description.join(",");
    let (mut one, mut other) = (Events::open(net.cl(0), &topics).await, Events::open(net.cl(1), &topics).await);
    net.chain().mine(1);
    let mut told = Vec::new();
    for _ in description {
        let event = one.next().await;
        assert_eq!(other.next().await, event);
        told.push(event.0);
    }
    told.sort_unstable();
    let mut expected = description.map(str::to_owned);
    expected.sort_unstable();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn heads_tell_what_duties_depend_on() {
    let net = network().await;
    let mut heads = Events::open(net.cl(0), "head").await;
    net.chain().mine(3);
    for (slot, previous, current) in [("31", 15, 23), ("32", 23, 31), ("33", 23, 31)] {
        let head = heads.next().await.1;
        assert_eq!(head["slot"], slot);
        for (key, depends_on) in [("previous_duty_dependent_root", previous), ("current_duty_dependent_root", current)]
        {
            let root = data(net.cl(0), &format!("/eth/v1/beacon/blocks/{depends_on}/root")).await;
            assert_eq!(head[key], root["root"], "{slot}: {key}");
        }
    }
}

/// The members that the beacon API's description requires of these objects.
const REQUIRED: [(&str, &str); 5] = [
    ("/message", "slot proposer_index parent_root state_root body"),
    (
        "/message/body",
        "randao_reveal eth1_data graffiti proposer_slashings attester_slashings attestations deposits voluntary_exits \
         sync_aggregate bls_to_execution_changes blob_kzg_commitments execution_payload execution_requests",
    ),
    (
        "/message/body/execution_payload",
        "parent_hash fee_recipient state_root receipts_root logs_bloom prev_randao block_number gas_limit gas_used \
         timestamp extra_data base_fee_per_gas blob_gas_used excess_blob_gas block_hash transactions withdrawals",
    ),
    ("/message/body/eth1_data", "deposit_root deposit_count block_hash"),
    ("/message/body/execution_requests", "deposits withdrawals consolidations"),
];

#[tokio::test]
async fn blocks_have_all_members_of_their_fork() {
    let net = network().await;
    let node = net.cl(0);
    let block = data(node, "/eth/v2/beacon/blocks/head").await;
    let produced = get(node, "/eth/v3/validator/blocks/31?randao_reveal=0x00").await.json::<Value>().await.unwrap();
    for block in [block.clone(), json!({"message": produced["data"]["block"]})] {
        for (place, required) in REQUIRED {
            let mut members: Vec<&str> =
                block.pointer(place).unwrap().as_object().unwrap().keys().map(String::as_str).collect();
            let mut required: Vec<&str> = required.split_whitespace().collect();
            members.sort_unstable();
            required.sort_unstable();
            assert_eq!(members, required, "{place}");
        }
    }
    let payload = &block["message"]["body"]["execution_payload"];
    let execution = result(net.el(0), "eth_getBlockByNumber", json!(["latest", false])).await;
    for (member, twin) in [("gas_limit", "gasLimit"), ("gas_used", "gasUsed"), ("base_fee_per_gas", "baseFeePerGas")] {
        assert_eq!(payload[member], number(&execution[twin]).to_string(), "{member}");
    }
    assert_ne!(payload["gas_used"], "0");
}

#[tokio::test]
async fn a_state_tells_its_fork() {
    let net = network().await;
    let fork = async |state: &str| get(net.cl(0), &format!("/eth/v1/beacon/states/{state}/fork")).await;
    let spec = data(net.cl(0), "/eth/v1/config/spec").await;
    for (state, is_finalized) in [("head", false), ("genesis", true), ("9", false), ("5", true)] {
        let answer: Value = fork(state).await.json().await.unwrap();
        assert_eq!(
            (&answer["execution_optimistic"], &answer["finalized"]),
            (&json!(false), &json!(is_finalized)),
            "{state}"
        );
        assert_eq!(answer["data"]["current_version"], spec["ELECTRA_FORK_VERSION"]);
        assert_eq!(answer["data"]["epoch"], spec["ELECTRA_FORK_EPOCH"]);
        assert_eq!(answer["data"]["previous_version"].as_str().unwrap().len(), 10);
    }
    assert_eq!(fork("999").await.status(), 404);
    assert_eq!(fork("0x12").await.status(), 400);
}

#[tokio::test]
async fn sidecars_name_their_fork_and_blobs_alone_do_not() {
    let net = network().await;
    for (path, version) in [
        ("/eth/v1/beacon/blob_sidecars/head", json!("electra")),
        ("/eth/v1/debug/beacon/data_column_sidecars/head", json!("electra")),
        ("/eth/v1/beacon/blobs/head", Value::Null),
    ] {
        let answer: Value = get(net.cl(0), path).await.json().await.unwrap();
        assert_eq!(answer["version"], version, "{path}");
        assert!(!answer["data"].as_array().unwrap().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn validators_are_those_named_in_the_query_or_the_body() {
    let net = network().await;
    let url = format!("{}/eth/v1/beacon/states/head/validators", net.cl(0).http_url());
    let posted = async |body: &str| http().post(&url).body(body.to_owned()).send().await.unwrap();
    let found = async |answer: Response| -> Vec<String> {
        assert_eq!(answer.status(), StatusCode::OK);
        let answer: Value = answer.json().await.unwrap();
        answer["data"].as_array().unwrap().iter().map(|one| one["index"].as_str().unwrap().to_owned()).collect()
    };
    let key = data(net.cl(0), "/eth/v1/beacon/states/head/validators?id=7").await[0]["validator"]["pubkey"].clone();
    let upper = format!("0x{}", key.as_str().unwrap()[2..].to_uppercase());
    for (ids, statuses, indices) in [
        (json!(["3", "5"]), json!(null), vec!["3", "5"]),
        (json!([key, "3"]), json!([]), vec!["3", "7"]),
        (json!([upper]), json!(["active"]), vec!["7"]),
        (json!(["3", "9999"]), json!(["exited", "active_ongoing"]), vec!["3"]),
        (json!(["3"]), json!(["exited"]), vec![]),
    ] {
        let body = json!({"ids": ids, "statuses": statuses}).to_string();
        assert_eq!(found(posted(&body).await).await, indices, "{body}");
        let list = |key: &str, values: &Value| {
            let values = values.as_array().into_iter().flatten();
            values.map(|value| format!("{key}={}", value.as_str().unwrap())).collect::<Vec<_>>().join("&")
        };
        let query = format!("{url}?{}&{}", list("id", &ids), list("status", &statuses));
        assert_eq!(found(http().get(query).send().await.unwrap()).await, indices, "{body}");
    }
    for body in ["{}", r#"{"ids":[]}"#, r#"{"ids":null,"statuses":null}"#] {
        assert_eq!(found(posted(body).await).await.len(), 64, "{body}");
    }
    for body in ["", "{", r#"{"ids":["first"]}"#, r#"{"ids":[3]}"#, r#"{"ids":"3"}"#, r#"{"ids":["0x12"]}"#] {
        assert_eq!(posted(body).await.status(), 400, "{body}");
    }
    assert_eq!(http().get(format!("{url}?id=first")).send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn an_operation_is_told_by_all_nodes_and_its_body_is_recorded() {
    let net = network().await;
    let mut events = Events::open(net.cl(1), "voluntary_exit,bls_to_execution_change").await;
    let post = async |name: &str, body: &Value| {
        let url = format!("{}/eth/v1/beacon/pool/{name}", net.cl(0).http_url());
        http().post(url).json(body).send().await.unwrap().status().as_u16()
    };
    let exit = json!({"message": {"epoch": "1", "validator_index": "1"}, "signature": "0x00"});
    let change = json!({"message": {"validator_index": "1"}, "signature": "0x00"});
    assert_eq!(post("voluntary_exits", &exit).await, 200);
    assert_eq!(post("bls_to_execution_changes", &json!([change])).await, 200);
    assert_eq!(events.next().await, ("voluntary_exit".to_owned(), exit.clone()));
    assert_eq!(events.next().await, ("bls_to_execution_change".to_owned(), change));
    assert_eq!(post("rumours", &exit).await, 404);
    let request = net.cl(0).requests().remove(0);
    assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), exit);
}

#[tokio::test]
async fn validators_get_duties_and_only_listeners_can_aggregate() {
    let net = network().await;
    let node = net.cl(0);
    let post = async |path: &str, body: Value| {
        let answer = http().post(format!("{}{path}", node.http_url())).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap_or_default())
    };
    let proposers: Value = get(node, "/eth/v1/validator/duties/proposer/3").await.json().await.unwrap();
    assert_eq!(proposers["data"].as_array().unwrap().len(), 8);
    assert_eq!(proposers["dependent_root"], data(node, "/eth/v1/beacon/blocks/23/root").await["root"]);
    let (_, attesters) = post("/eth/v1/validator/duties/attester/3", json!(["5"])).await;
    assert_eq!(attesters["data"][0]["slot"], "29");
    assert_eq!(attesters["dependent_root"], data(node, "/eth/v1/beacon/blocks/15/root").await["root"]);
    assert_eq!(post("/eth/v1/validator/duties/attester/9", json!(["5"])).await.0, 400);
    let to_sign = data(node, "/eth/v1/validator/attestation_data?slot=30&committee_index=0").await;
    assert_eq!(to_sign["beacon_block_root"], data(node, "/eth/v1/beacon/headers/head").await["root"]);
    let aggregate = format!(
        "/eth/v2/validator/aggregate_attestation?slot=30&committee_index=0&attestation_data_root=0x{}",
        "00".repeat(32)
    );
    assert_eq!(get(node, &aggregate).await.status(), 404, "nobody told it to listen");
    let wish = json!([{"validator_index": "5", "committee_index": "0", "committees_at_slot": "1", "slot": "30", "is_aggregator": true}]);
    assert_eq!(post("/eth/v1/validator/beacon_committee_subscriptions", wish).await.0, 200);
    assert_eq!(data(node, &aggregate).await["data"], to_sign);
    assert_eq!(get(net.cl(1), &aggregate).await.status(), 404);
    for path in ["sync_committee_subscriptions", "prepare_beacon_proposer", "register_validator"] {
        assert_eq!(post(&format!("/eth/v1/validator/{path}"), json!([])).await.0, 200);
        assert_eq!(post(&format!("/eth/v1/validator/{path}"), json!({})).await.0, 400);
    }
    let block = get(node, "/eth/v3/validator/blocks/31?randao_reveal=0x00").await;
    assert_eq!(block.headers()["eth-execution-payload-blinded"], "false");
    assert_eq!(block.json::<Value>().await.unwrap()["data"]["block"]["slot"], "31");
    assert_eq!(data(node, "/eth/v1/beacon/states/head/validators?id=3").await[0]["index"], "3");
    node.set_fault(Fault::Syncing);
    assert_eq!(get(node, "/eth/v1/validator/duties/proposer/3").await.status(), 503);
}
