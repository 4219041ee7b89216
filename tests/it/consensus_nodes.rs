//! Consensus nodes in the pool: what is thought of each, over real sockets, as `/status` tells it.

mod beacon;
mod view;

use std::time::Duration;

use crate::common::{devnet, proxy::Proxy, until};
use beacon::Beacon;
use serde_json::Value;
use steadfast::devnet::{Devnet, Fault, Node, Options};

/// Quick to see what happens, and patient enough for a busy machine.
const HEALTH: &str = "[health]\ninterval = \"20ms\"\ntimeout = \"400ms\"\nfall = 2\nrise = 2\n";

/// A network with so many consensus nodes, a hundred slots old by the clock.
async fn consensus(nodes: usize) -> Devnet {
    devnet(Options { execution: 0, consensus: nodes, initial_blocks: 100, ..Options::default() }).await
}

/// A proxy before primaries `cl-1`, `cl-2`, … at these URLs.
async fn over<'a>(urls: impl IntoIterator<Item = &'a str>) -> Proxy {
    let node = |(place, url)| format!("[[cl.primary]]\nname = \"cl-{}\"\nhttp = \"{url}\"\n", place + 1);
    let nodes: String = urls.into_iter().enumerate().map(node).collect();
    Proxy::launch(&[HEALTH, &nodes].concat()).await
}

async fn before(devnet: &Devnet, nodes: usize) -> Proxy {
    let urls: Vec<String> = (0..nodes).map(|place| devnet.cl(place).http_url()).collect();
    over(urls.iter().map(String::as_str)).await
}

async fn side(proxy: &Proxy) -> Value {
    proxy.admin("GET /status").await.json()["networks"][0]["cl"].take()
}

async fn node(proxy: &Proxy, name: &str) -> Value {
    let side = side(proxy).await;
    let nodes = side["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["name"] == name).unwrap_or_else(|| panic!("no {name} in {side}")).clone()
}

async fn until_node(proxy: &Proxy, name: &str, verdict: &str) {
    until(&format!("{name} is {verdict}"), async || node(proxy, name).await["verdict"] == verdict).await;
}

async fn until_active(proxy: &Proxy, name: &str) {
    until(&format!("{name} is active"), async || side(proxy).await["active"] == name).await;
}

/// All of these are up, and the first is active.
async fn until_well(proxy: &Proxy, names: &[&str]) {
    for name in names {
        until_node(proxy, name, "up").await;
    }
    until_active(proxy, names[0]).await;
}

/// The primary of two gets `fault`, is found to be `verdict`, is left for the other, and is gone
/// home to when it is well.
async fn leaves_and_returns(fault: Fault, verdict: &str, reason: &str) {
    let devnet = consensus(2).await;
    let proxy = before(&devnet, 2).await;
    until_well(&proxy, &["cl-1", "cl-2"]).await;
    let primary = devnet.cl(0);
    primary.set_fault(fault.clone());
    until_node(&proxy, "cl-1", verdict).await;
    until_active(&proxy, "cl-2").await;
    let (bad, good) = (node(&proxy, "cl-1").await, node(&proxy, "cl-2").await);
    assert_eq!((&bad["reason"], &bad["usable"]), (&Value::from(reason), &Value::from(false)), "{bad}");
    assert_eq!((&good["verdict"], &good["usable"]), (&Value::from("up"), &Value::from(true)), "{good}");
    primary.clear_faults();
    until_well(&proxy, &["cl-1", "cl-2"]).await;
}

#[tokio::test]
async fn healthy_nodes_are_up_and_told_with_chain_slot_and_sync() {
    let devnet = consensus(2).await;
    let proxy = before(&devnet, 2).await;
    until_well(&proxy, &["cl-1", "cl-2"]).await;
    let root = devnet.cl(0).http_url() + "/eth/v1/beacon/headers/head";
    let client = steadfast::net::post::plain().build().unwrap();
    let header: Value = client.get(root).send().await.unwrap().json().await.unwrap();
    let side = side(&proxy).await;
    assert_eq!((&side["chain_id"], &side["head"], &side["served_head"]), (&1337.into(), &100.into(), &100.into()));
    let node = &side["nodes"][0];
    assert_eq!((&node["head"], &node["lag"], &node["chain_id"]), (&100.into(), &0.into(), &1337.into()));
    assert_eq!(node["head_hash"], header["data"]["root"]);
    assert_eq!(node["genesis_validators_root"], side["genesis_validators_root"]);
    assert_eq!(node["genesis_validators_root"].as_str().unwrap().len(), 66);
    assert_eq!(node["sync"]["sync_distance"], 0);
    assert_eq!(node["pair"], Value::Null);
    devnet.chain().mine(2);
    until("the head follows", async || self::side(&proxy).await["served_head"] == 102).await;

    let metrics = proxy.admin("GET /metrics").await.text();
    for line in [
        r#"steadfast_node_head{layer="cl",network="default",node="cl-1"} 102"#,
        r#"steadfast_pool_head{layer="cl",network="default"} 102"#,
        r#"steadfast_active_node{layer="cl",network="default",node="cl-1"} 1"#,
        r#"steadfast_node_verdict{layer="cl",network="default",node="cl-2",verdict="optimistic"} 0"#,
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn a_node_that_answers_503_is_left() {
    leaves_and_returns(Fault::rpc_error(503, "not well"), "down", "down: answers with errors").await;
}

#[tokio::test]
async fn a_failing_node_is_left() {
    leaves_and_returns(Fault::Failing, "down", "down: answers with errors").await;
}

#[tokio::test]
async fn a_syncing_node_is_left() {
    leaves_and_returns(Fault::Syncing, "syncing", "syncing").await;
}

#[tokio::test]
async fn an_optimistic_node_is_left() {
    leaves_and_returns(Fault::Optimistic, "optimistic", "optimistic").await;
}

#[tokio::test]
async fn a_node_without_its_execution_node_is_left() {
    leaves_and_returns(Fault::ElOffline, "el_offline", "its execution node is offline").await;
}

#[tokio::test]
async fn an_unreachable_node_is_left() {
    leaves_and_returns(Fault::Down, "down", "down: unreachable").await;
}

#[tokio::test]
async fn a_hanging_node_is_left() {
    leaves_and_returns(Fault::Hang, "down", "down: does not answer in time").await;
}

#[tokio::test]
async fn a_node_that_falls_behind_is_left() {
    leaves_and_returns(Fault::lag(10), "lagging", "lagging by 10").await;
}

#[tokio::test]
async fn a_node_within_the_limit_stays() {
    let devnet = consensus(2).await;
    devnet.cl(0).set_fault(Fault::lag(3));
    let proxy = before(&devnet, 2).await;
    until_well(&proxy, &["cl-1", "cl-2"]).await;
    until("its lag is told", async || node(&proxy, "cl-1").await["lag"] == 3).await;
    assert_eq!(node(&proxy, "cl-1").await["verdict"], "up");
}

#[tokio::test]
async fn the_clock_tells_who_is_behind_where_the_majority_does_not() {
    let devnet = consensus(3).await;
    let proxy = before(&devnet, 3).await;
    until_well(&proxy, &["cl-1", "cl-2", "cl-3"]).await;
    devnet.cl(0).set_fault(Fault::lag(10));
    devnet.cl(1).set_fault(Fault::lag(9));
    until_node(&proxy, "cl-1", "lagging").await;
    until_node(&proxy, "cl-2", "lagging").await;
    until_active(&proxy, "cl-3").await;
}

#[tokio::test]
async fn no_node_lags_by_the_clock_when_all_are_behind_it() {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    // The chain began a day ago, and stopped when it was a hundred slots old.
    let options = Options { execution: 0, consensus: 2, initial_blocks: 100, ..Options::default() };
    let devnet = devnet(Options { genesis_timestamp: Some(now - 86_400), ..options }).await;
    devnet.cl(0).set_fault(Fault::lag(2));
    let proxy = before(&devnet, 2).await;
    until_well(&proxy, &["cl-1", "cl-2"]).await;
    devnet.cl(0).clear_faults();
    until("its lag is told", async || node(&proxy, "cl-1").await["lag"] == 0).await;
    assert_eq!(side(&proxy).await["active"], "cl-1");
    assert_eq!(node(&proxy, "cl-2").await["verdict"], "up");
}

#[tokio::test]
async fn a_lying_node_cannot_evict_an_honest_one() {
    let lie = async |slots| {
        let options = Options { execution: 0, consensus: 2, initial_blocks: 100, ..Options::default() };
        let devnet = devnet(Options { block_time: Some(Duration::from_secs(1)), ..options }).await;
        let proxy = before(&devnet, 2).await;
        until_well(&proxy, &["cl-1", "cl-2"]).await;
        // So that the pool knows the two.
        tokio::time::sleep(Duration::from_millis(5500)).await;
        devnet.cl(1).set_fault(Fault::lie(slots));
        until_node(&proxy, "cl-2", "suspect").await;
        for _ in 0..100 {
            let honest = node(&proxy, "cl-1").await;
            assert_eq!(honest["verdict"], "up", "{honest}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(node(&proxy, "cl-2").await["verdict"], "suspect");
        devnet.cl(1).clear_faults();
        until_well(&proxy, &["cl-1", "cl-2"]).await;
    };
    tokio::join!(lie(20), lie(1_000_000));
}

#[tokio::test]
async fn a_node_that_comes_back_on_another_chain_is_not_used() {
    let devnet = consensus(2).await;
    let proxy = before(&devnet, 2).await;
    until_well(&proxy, &["cl-1", "cl-2"]).await;
    let bounce = async |node: &Node| {
        node.set_fault(Fault::Down);
        until_node(&proxy, "cl-1", "down").await;
        node.clear_fault("down");
    };
    devnet.cl(0).set_fault(Fault::wrong_chain(5));
    bounce(devnet.cl(0)).await;
    until_node(&proxy, "cl-1", "wrong_chain").await;
    until_active(&proxy, "cl-2").await;
    let (wrong, right) = (node(&proxy, "cl-1").await, node(&proxy, "cl-2").await);
    assert_eq!((&wrong["chain_id"], &right["chain_id"]), (&5.into(), &1337.into()));
    assert_ne!(wrong["genesis_validators_root"], right["genesis_validators_root"]);
    devnet.cl(0).clear_faults();
    bounce(devnet.cl(0)).await;
    until_well(&proxy, &["cl-1", "cl-2"]).await;
}

#[tokio::test]
async fn a_node_of_another_genesis_with_the_same_id_is_not_used() {
    let (ours, theirs) = (Beacon::start().await, Beacon::start().await);
    theirs.set("/eth/v1/beacon/genesis", 200, &beacon::genesis(&"cd".repeat(32)));
    let third = Beacon::start().await;
    let proxy = over([theirs.url(), ours.url(), third.url()].iter().map(String::as_str)).await;
    until_node(&proxy, "cl-1", "wrong_chain").await;
    until_active(&proxy, "cl-2").await;
}

#[tokio::test]
async fn the_operators_chain_id_holds_for_consensus_nodes_too() {
    let devnet = consensus(2).await;
    devnet.cl(1).set_fault(Fault::wrong_chain(5));
    let urls = [devnet.cl(0).http_url(), devnet.cl(1).http_url()];
    let nodes: String = urls.iter().map(|url| format!("[[cl.primary]]\nhttp = \"{url}\"\n")).collect();
    let proxy = Proxy::launch(&["chain_id = 5\n", HEALTH, &nodes].concat()).await;
    until_node(&proxy, "cl-1", "wrong_chain").await;
    until_active(&proxy, "cl-2").await;
}

#[tokio::test]
async fn a_node_with_a_short_spec_is_as_good_as_any() {
    const SPEC: &str = "/eth/v1/config/spec";
    for (status, spec, has_slots) in [
        (200, r#"{"data":{"SECONDS_PER_SLOT":"12","SLOTS_PER_EPOCH":"32"}}"#, true),
        (200, r#"{"data":{"SECONDS_PER_SLOT":12,"DEPOSIT_CONTRACT_ADDRESS":"0x00"}}"#, true),
        (200, r#"{"data":{}}"#, false),
        (404, "no such route", false),
        (405, "", false),
        (403, "not in your plan", false),
    ] {
        for named in ["", "chain_id = 1\n"] {
            let (bare, whole) = (Beacon::start().await, Beacon::start().await);
            bare.set(SPEC, status, spec);
            let nodes = |urls: &[String]| -> String {
                urls.iter().map(|url| format!("[[cl.primary]]\nhttp = \"{url}\"\n")).collect()
            };
            // Alone, and in whatever order with one that says it all.
            let proxy = Proxy::launch(&[named, HEALTH, &nodes(&[bare.url()])].concat()).await;
            until_node(&proxy, "cl-1", "up").await;
            let shown = side(&proxy).await;
            assert_eq!((&shown["chain_id"], &shown["clock_rule"]), (&Value::Null, &has_slots.into()), "{spec}");
            for urls in [[bare.url(), whole.url()], [whole.url(), bare.url()]] {
                let proxy = Proxy::launch(&[named, HEALTH, &nodes(&urls)].concat()).await;
                until_well(&proxy, &["cl-1", "cl-2"]).await;
                let shown = side(&proxy).await;
                assert_eq!((&shown["chain_id"], &shown["clock_rule"]), (&1.into(), &true.into()), "{spec}");
            }
        }
    }
    // An answer that breaks off or goes wrong is a failure of the node all the same.
    let node = Beacon::start().await;
    node.set(SPEC, 503, "");
    let proxy = over([node.url().as_str()]).await;
    until("an error is noted", async || self::node(&proxy, "cl-1").await["last_error"].is_object()).await;
    node.set(SPEC, 404, "");
    until_node(&proxy, "cl-1", "up").await;
}

#[tokio::test]
async fn a_status_of_206_is_not_healthy_whatever_else_is_said() {
    let node = Beacon::start().await;
    let (other, spare) = (Beacon::start().await, Beacon::start().await);
    let proxy = over([node.url(), other.url(), spare.url()].iter().map(String::as_str)).await;
    until_well(&proxy, &["cl-1", "cl-2", "cl-3"]).await;
    node.set("/eth/v1/node/health", 206, "");
    until_node(&proxy, "cl-1", "syncing").await;
    until_active(&proxy, "cl-2").await;
    node.set("/eth/v1/node/health", 503, "");
    until_node(&proxy, "cl-1", "down").await;
    // Providers do not all offer the route, and say so in their own ways.
    for status in [404, 501, 403, 500, 502, 429] {
        node.set("/eth/v1/node/health", status, "");
        until_node(&proxy, "cl-1", "up").await;
        node.set("/eth/v1/node/health", 503, "");
        until_node(&proxy, "cl-1", "down").await;
    }
    node.set("/eth/v1/node/health", 200, "");
    until_node(&proxy, "cl-1", "up").await;
    // A head may be called optimistic where the node is not.
    node.set("/eth/v1/beacon/headers/head", 200, &beacon::header(100, true));
    until_node(&proxy, "cl-1", "optimistic").await;
    node.set("/eth/v1/beacon/headers/head", 200, &beacon::header(100, false));
    until_node(&proxy, "cl-1", "up").await;
}

#[tokio::test]
async fn before_genesis_nodes_answer_what_they_can() {
    let nodes = [Beacon::start().await, Beacon::start().await];
    let genesis = beacon::genesis(&"ab".repeat(32));
    let unknown = r#"{"code":404,"message":"Chain genesis info is not yet known"}"#;
    for node in &nodes {
        node.set("/eth/v1/beacon/genesis", 404, unknown);
        node.set("/eth/v1/beacon/headers/head", 404, r#"{"code":404,"message":"no head before genesis"}"#);
        node.set("/eth/v1/node/version", 200, r#"{"data":{"version":"Beacon/1"}}"#);
    }
    let proxy = over([&*nodes[0].url(), &nodes[1].url()]).await;
    until_node(&proxy, "cl-1", "syncing").await;
    let get = async |path| crate::common::rest::ask(&proxy, "GET", path).await;
    let answer = get("/eth/v1/beacon/genesis").await;
    assert_eq!((answer.status, &*answer.text()), (404, unknown));
    assert_eq!(get("/eth/v1/node/version").await.status, 200);
    assert_eq!(get("/eth/v1/config/spec").await.status, 200);
    // The first knows it before the other.
    for node in nodes.iter().rev() {
        node.set("/eth/v1/beacon/genesis", 200, &genesis);
        node.set("/eth/v1/beacon/headers/head", 200, &beacon::header(100, false));
        let name = if node.url() == nodes[0].url() { "cl-1" } else { "cl-2" };
        until_node(&proxy, name, "up").await;
        until("it is served", async || get("/eth/v1/beacon/genesis").await.status == 200).await;
    }
    // A server without the beacon API has no genesis to come.
    let other = Beacon::start().await;
    other.set("/eth/v1/beacon/genesis", 404, "not found");
    let proxy = over([&*other.url()]).await;
    until_node(&proxy, "cl-1", "down").await;
}

#[tokio::test]
async fn fields_may_be_null_numbers_or_left_out() {
    let node = Beacon::start().await;
    let root = format!("0x{:064x}", 100);
    let header = format!(
        r#"{{"execution_optimistic":null,"data":{{"root":"{root}","header":{{"message":{{"slot":100,"parent_root":"{root}"}}}}}}}}"#
    );
    node.set("/eth/v1/beacon/headers/head", 200, &header);
    node.set(
        "/eth/v1/node/syncing",
        200,
        r#"{"data":{"head_slot":100,"sync_distance":0,"is_syncing":false,"is_optimistic":null,"el_offline":null}}"#,
    );
    node.set(
        "/eth/v1/config/spec",
        200,
        r#"{"data":{"SECONDS_PER_SLOT":12,"SLOTS_PER_EPOCH":32,"DEPOSIT_CHAIN_ID":null}}"#,
    );
    let proxy = over([&*node.url()]).await;
    until_node(&proxy, "cl-1", "up").await;
    assert_eq!(side(&proxy).await["head"], 100);
}

#[tokio::test]
async fn a_node_that_says_how_far_it_is_behind_is_believed() {
    let (node, other) = (Beacon::start().await, Beacon::start().await);
    node.set("/eth/v1/beacon/headers/head", 200, &beacon::header(96, false));
    other.set("/eth/v1/beacon/headers/head", 200, &beacon::header(100, false));
    let third = Beacon::start().await;
    third.set("/eth/v1/beacon/headers/head", 200, &beacon::header(96, false));
    let proxy = over([node.url(), other.url(), third.url()].iter().map(String::as_str)).await;
    until_node(&proxy, "cl-1", "up").await;
    until_node(&proxy, "cl-2", "up").await;
    node.set("/eth/v1/node/syncing", 200, &beacon::syncing(6));
    until_node(&proxy, "cl-1", "lagging").await;
    assert_eq!(self::node(&proxy, "cl-3").await["verdict"], "up");
}

#[tokio::test]
async fn nodes_are_asked_with_credentials_that_are_not_shown() {
    let node = Beacon::start().await;
    node.set("/eth/v1/node/syncing", 500, "");
    let url = node.url().replace("http://", "http://user:s3cretpassword@") + "/s3cretkey/";
    let proxy = over([url.as_str()]).await;
    until_node(&proxy, "cl-1", "down").await;
    until("an error is noted", async || self::node(&proxy, "cl-1").await["last_error"].is_object()).await;
    assert!(!proxy.admin("GET /status").await.text().contains("s3cret"));
    node.set("/eth/v1/node/syncing", 200, &beacon::syncing(0));
    until_node(&proxy, "cl-1", "up").await;
    let asked = node.requests();
    assert!(
        asked.iter().all(|(path, auth)| {
            // At the path itself, a node that fails is asked whether it is an execution node.
            let is_below = path.starts_with("/s3cretkey/eth/v1/") || path == "/s3cretkey/";
            is_below && auth.as_deref() == Some("Basic dXNlcjpzM2NyZXRwYXNzd29yZA==")
        }),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_chain_is_asked_for_again_only_after_a_failure() {
    let node = Beacon::start().await;
    let proxy = over([node.url().as_str()]).await;
    until_node(&proxy, "cl-1", "up").await;
    let count = |route: &str| node.requests().iter().filter(|(path, _)| path.ends_with(route)).count();
    until("it is asked often", async || count("/headers/head") > 10).await;
    assert_eq!((count("/config/spec"), count("/beacon/genesis")), (1, 1));
    node.set("/eth/v1/beacon/headers/head", 500, "");
    until_node(&proxy, "cl-1", "down").await;
    node.set("/eth/v1/beacon/headers/head", 200, &beacon::header(100, false));
    until_node(&proxy, "cl-1", "up").await;
    assert!(count("/config/spec") > 1);
}

#[tokio::test]
async fn when_all_are_unwell_the_least_bad_one_serves() {
    let devnet = consensus(3).await;
    let proxy = before(&devnet, 3).await;
    until_well(&proxy, &["cl-1", "cl-2", "cl-3"]).await;
    devnet.cl(0).set_fault(Fault::Syncing);
    devnet.cl(1).set_fault(Fault::Optimistic);
    devnet.cl(2).set_fault(Fault::ElOffline);
    until("the optimistic one serves", async || {
        let side = side(&proxy).await;
        side["active"] == "cl-2" && side["degraded"] == true
    })
    .await;
    devnet.cl(2).clear_faults();
    until("no longer", async || {
        let side = side(&proxy).await;
        side["active"] == "cl-3" && side["degraded"] == false
    })
    .await;
}

#[tokio::test]
async fn a_backup_serves_while_no_primary_is_well() {
    let devnet = consensus(2).await;
    let [primary, backup] = [0, 1].map(|place| devnet.cl(place).http_url());
    let nodes = format!(
        "[[cl.backup]]\nname = \"b\"\nhttp = \"{backup}\"\n[[cl.primary]]\nname = \"a\"\nhttp = \"{primary}\"\n"
    );
    let proxy = Proxy::launch(&[HEALTH, &nodes].concat()).await;
    until_well(&proxy, &["a", "b"]).await;
    devnet.cl(0).set_fault(Fault::Optimistic);
    until_active(&proxy, "b").await;
    assert_eq!(side(&proxy).await["failover"], true);
    devnet.cl(0).clear_faults();
    until_active(&proxy, "a").await;
    assert_eq!(side(&proxy).await["failover"], false);
}

#[tokio::test]
async fn a_node_is_taken_out_though_the_other_side_shares_its_name() {
    let devnet = devnet(Options { execution: 1, consensus: 2, initial_blocks: 100, ..Options::default() }).await;
    let [el, one, two] = [devnet.el(0), devnet.cl(0), devnet.cl(1)].map(|node| node.http_url());
    let nodes = format!(
        "[[el.primary]]\nname = \"a\"\nhttp = \"{el}\"\n[[cl.primary]]\nname = \"a\"\nhttp = \"{one}\"\n[[cl.primary]]\nname = \"b\"\nhttp = \"{two}\"\n"
    );
    let proxy = Proxy::launch(&[HEALTH, &nodes].concat()).await;
    until_well(&proxy, &["a", "b"]).await;
    let answer = proxy.admin("POST /nodes/a/cordon").await;
    assert_eq!(answer.status, 409);
    assert!(answer.text().contains("default/el/a, default/cl/a"), "{}", answer.text());
    assert_eq!(proxy.admin("POST /nodes/cl/a/cordon").await.status, 200);
    until_active(&proxy, "b").await;
    assert_eq!(proxy.node("a").await["cordoned"], false);
    assert_eq!(proxy.admin("POST /nodes/default/cl/a/uncordon").await.status, 200);
    until_active(&proxy, "a").await;
    assert_eq!(proxy.admin("POST /nodes/default/b/cordon").await.status, 200);
    assert_eq!(proxy.admin("POST /nodes/c/cordon").await.status, 404);
    let metrics = proxy.admin("GET /metrics").await.text();
    for (layer, name) in [("el", "a"), ("cl", "a"), ("cl", "b")] {
        let labels = format!("layer=\"{layer}\",network=\"default\",node=\"{name}\"");
        let line = format!("steadfast_probe_duration_seconds_count{{{labels}}}");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn where_all_sides_are_wanted_one_that_is_down_means_not_ready() {
    let devnet = devnet(Options { execution: 1, consensus: 1, ..Options::default() }).await;
    let nodes = format!(
        "[[el.primary]]\nhttp = \"{}\"\n[[cl.primary]]\nhttp = \"{}\"\n",
        devnet.el(0).http_url(),
        devnet.cl(0).http_url()
    );
    let proxy = Proxy::launch(&[HEALTH, "ready = \"all\"\n", &nodes].concat()).await;
    until("it is ready", async || proxy.admin("GET /readyz").await.status == 200).await;
    devnet.cl(0).set_fault(Fault::Down);
    until("it is not", async || proxy.admin("GET /readyz").await.status == 503).await;
    devnet.cl(0).clear_faults();
    until("it is again", async || proxy.admin("GET /readyz").await.status == 200).await;
}

#[tokio::test]
async fn a_pair_that_has_lost_itself_is_marked_on_both_sides() {
    let devnet = devnet(Options { execution: 1, consensus: 1, initial_blocks: 100, ..Options::default() }).await;
    let nodes = format!(
        "[[el.primary]]\npair = \"a\"\nhttp = \"{}\"\n[[cl.primary]]\npair = \"a\"\nhttp = \"{}\"\n",
        devnet.el(0).http_url(),
        devnet.cl(0).http_url()
    );
    let proxy = Proxy::launch(&[HEALTH, &nodes].concat()).await;
    let told = async |fault: Value| {
        until(&format!("both tell {fault}"), async || {
            let network = proxy.admin("GET /status").await.json()["networks"][0].take();
            let of = |side: &str| network[side]["nodes"][0]["pair"].clone();
            let pair = serde_json::json!({ "name": "a", "fault": fault });
            network["cl"]["active"].is_string() && of("el") == pair && of("cl") == pair
        })
        .await;
    };
    told(Value::Null).await;
    devnet.cl(0).set_fault(Fault::ElOffline);
    told("el_offline".into()).await;
    // The execution node is judged by its own probes.
    assert_eq!(proxy.node("el-1").await["verdict"], "up");
    devnet.cl(0).clear_faults();
    told(Value::Null).await;
    devnet.el(0).set_fault(Fault::lag(10));
    told("heads_disagree".into()).await;
    devnet.el(0).clear_faults();
    devnet.cl(0).set_fault(Fault::lag(10));
    told("heads_disagree".into()).await;
    devnet.cl(0).clear_faults();
    told(Value::Null).await;
}

/// The binary's output, and whether it says that all is well.
async fn run(arguments: &[&str]) -> (String, bool) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

/// The line on `node`.
fn line<'a>(text: &'a str, node: &str) -> &'a str {
    text.lines().find(|line| line.contains(node)).unwrap_or_else(|| panic!("no {node} in {text}"))
}

#[tokio::test]
async fn check_and_status_tell_how_consensus_nodes_are() {
    let devnet = consensus(2).await;
    let urls = [0, 1].map(|place| devnet.cl(place).http_url());
    let check = ["check", "--cl", &urls[0], "--cl-backup", &urls[1]];
    let (text, well) = run(&check).await;
    assert!(well, "{text}");
    for cell in [" cl cl-1 ", " 1337 ", " 100 ", " well"] {
        assert!(line(&text, "cl-1").contains(cell), "{cell} in {text}");
    }
    for (fault, said) in [
        (Fault::Optimistic, "optimistic"),
        (Fault::ElOffline, "its execution node is offline"),
        (Fault::lag(4), "4 slots behind the best"),
        (Fault::wrong_chain(5), "on chain 5, genesis 0x"),
        (Fault::Failing, "HTTP status 500"),
    ] {
        devnet.cl(1).set_fault(fault);
        let (text, well) = run(&check).await;
        assert!(!well && line(&text, "cl-backup-1").contains(said), "{said} in {text}");
        assert!(line(&text, "cl cl-1").contains(" well"), "{text}");
        devnet.cl(1).clear_faults();
    }

    let proxy = before(&devnet, 2).await;
    until_well(&proxy, &["cl-1", "cl-2"]).await;
    devnet.cl(1).set_fault(Fault::ElOffline);
    until_node(&proxy, "cl-2", "el_offline").await;
    let admin = format!("http://{}", proxy.app.admin_addr());
    let (text, ready) = run(&["status", "--admin", &admin]).await;
    assert!(ready, "{text}");
    assert!(line(&text, "cl-1").starts_with('>') && line(&text, "cl-1").contains(" up"), "{text}");
    assert!(line(&text, "cl cl-2").contains("its execution node is offline"), "{text}");
}
