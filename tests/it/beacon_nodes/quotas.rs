//! Refusals for quota: what they keep from nodes, and what goes to nodes all the same.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use crate::common::{
    rest::{Exchange, Node, json, over, request, response, send},
    until,
};

const DATA: &str = "/eth/v1/validator/attestation_data?slot=1&committee_index=0";
const BLOCK: &str = "/eth/v3/validator/blocks/1?randao_reveal=0x00";
const VOTES: &str = "/eth/v2/beacon/pool/attestations";
const EXITS: &str = "/eth/v1/beacon/pool/voluntary_exits";
const REGISTER: &str = "/eth/v1/validator/register_validator";
const PROPOSERS: &str = "/eth/v1/validator/duties/proposer/1";

fn refusal(status: &str, seconds: u32) -> Vec<u8> {
    let fields = format!("content-type: application/json\r\nretry-after: {seconds}\r\n");
    response(status, &fields, r#"{"code":429,"message":"too many requests"}"#)
}

/// A node that refuses these routes for quota as long as the limit has permits.
async fn refusing(routes: &'static [&'static str], status: &'static str, limit: &Arc<tokio::sync::Semaphore>) -> Node {
    let limit = limit.clone();
    Node::paced(1, move |exchange: Exchange| {
        let limit = limit.clone();
        async move {
            let target = exchange.asked.target.clone();
            if routes.contains(&&*target) && limit.available_permits() > 0 {
                return exchange.reply(refusal(status, 3600)).await;
            }
            let body = if exchange.asked.method == "GET" { "{\"data\":{}}" } else { "" };
            exchange.reply(json("200 OK", body)).await
        }
    })
    .await
}

#[tokio::test]
async fn a_limit_on_one_route_stops_no_duty() {
    for refused in [&[REGISTER] as &[_], &[PROPOSERS], &[EXITS], &[PROPOSERS, REGISTER, EXITS]] {
        for count in [1, 2] {
            let limit = Arc::new(tokio::sync::Semaphore::new(1));
            let mut nodes = Vec::new();
            for _ in 0..count {
                nodes.push(refusing(refused, "429 Too Many Requests", &limit).await);
            }
            let proxy = over(&nodes.iter().collect::<Vec<_>>(), "[calls]\nhold = \"200ms\"\n").await;
            for route in refused {
                let method = if *route == PROPOSERS { "GET" } else { "POST" };
                send(&proxy, request(method, route, "", "[]")).await;
            }
            for (method, route) in [("GET", DATA), ("POST", VOTES), ("GET", BLOCK), ("GET", DATA)] {
                let answer = send(&proxy, request(method, route, "", "")).await;
                assert_eq!(answer.status, 200, "{count} nodes refuse {refused:?}: {route}");
            }
        }
    }
}

#[tokio::test]
async fn a_duty_is_tried_though_its_route_rests() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        for (method, route) in [("GET", DATA), ("POST", VOTES), ("GET", "/eth/v1/beacon/headers/head")] {
            let limit = Arc::new(tokio::sync::Semaphore::new(1));
            let node = refusing(&[DATA, VOTES, "/eth/v1/beacon/headers/head"], status, &limit).await;
            let proxy = over(&[&node], "[calls]\nhold = \"100ms\"\n").await;
            let answer = send(&proxy, request(method, route, "", "[]")).await;
            assert_eq!(answer.status.to_string(), status[..3], "{route}");
            limit.close();
            limit.forget_permits(1);
            let asked = Instant::now();
            for _ in 0..3 {
                let answer = send(&proxy, request(method, route, "", "[]")).await;
                assert_eq!(answer.status, 200, "{status}: {route}");
            }
            assert!(asked.elapsed() < Duration::from_secs(3600), "the rest was waited for");
        }
    }
}

#[tokio::test]
async fn repeats_to_all_nodes_wait_for_as_long_as_a_node_asks() {
    let limit = Arc::new(tokio::sync::Semaphore::new(1));
    let node = refusing(&[REGISTER], "429 Too Many Requests", &limit).await;
    let proxy = over(&[&node], "").await;
    let body = r#"[{"message":{"pubkey":"0x1"}}]"#;
    send(&proxy, request("POST", REGISTER, "", body)).await;
    sleep(Duration::from_secs(4)).await;
    let told = node.asked().iter().filter(|asked| asked.target == REGISTER).count();
    assert_eq!(told, 1, "the proxy told the request again within four slots");
    // The client's own word is passed on at any time.
    send(&proxy, request("POST", REGISTER, "", body)).await;
    until("the node has the request", async || {
        node.asked().iter().filter(|asked| asked.target == REGISTER).count() == 2
    })
    .await;
}
