//! Events through a whole proxy: their order, and heads that are missed while nodes know little of the past.

use std::time::Duration;

use serde_json::Value;
use steadfast::devnet::{Fault, Store};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::setup::{Before, Setup};
use crate::common::{client::Client, sim::Net, simulation::run_simulated};

/// Topic and data of the events that come until `millis` have passed.
pub async fn listen(net: Net, port: u16, topics: &str, millis: u64) -> Vec<(String, Value)> {
    let mut io = net.connect(port).await.unwrap();
    let request = format!("GET /eth/v1/events?topics={topics} HTTP/1.1\r\nHost: proxy\r\n\r\n");
    io.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let reading = async { while io.read_buf(&mut bytes).await.unwrap() > 0 {} };
    _ = timeout(Duration::from_millis(millis), reading).await;
    let text = String::from_utf8(bytes).unwrap();
    let mut topic = String::new();
    let mut events = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("event:") {
            name.trim().clone_into(&mut topic);
        }
        if let Some(data) = line.strip_prefix("data:") {
            events.push((topic.clone(), serde_json::from_str(data.trim()).unwrap()));
        }
    }
    events
}

async fn metric(setup: &Setup, name: &str, labels: &str) -> f64 {
    let admin = setup.app.as_ref().unwrap().admin_addr().port();
    let mut client = Client::over(setup.net.connect(admin).await.unwrap());
    client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    let text = client.response().await.text();
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(labels));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

const SPEAKS: [&str; 4] = ["head_v2", "payload_attributes", "attestation", "light_client_optimistic_update"];

#[test]
fn no_client_hears_of_a_block_before_its_head() {
    run_simulated(5, async {
        let setup = Setup::start(Before::Proxy, [300, 0]).await;
        let port = setup.app.as_ref().unwrap().addr().port();
        let topics = ["head", &SPEAKS.join(",")].join(",");
        let mut listening = JoinSet::new();
        let net = setup.net.clone();
        listening.spawn(async move { listen(net, port, &topics, 90_000).await });
        // Headers take their time, and the stream goes from one node to the other and back.
        for node in [0, 1] {
            setup.devnet.cl(node).set_fault(Fault::slow(400));
        }
        setup.at(2, Duration::from_millis(100)).await;
        setup.devnet.cl(0).set_fault(Fault::ElOffline);
        setup.at(4, Duration::from_millis(100)).await;
        setup.devnet.cl(0).clear_fault("el_offline");
        let events = listening.join_next().await.unwrap().unwrap();
        let place = |topic: &str, slot: u64| {
            events.iter().position(|(name, data)| {
                let about = if data["data"].is_object() { &data["data"] } else { data };
                let said = match topic {
                    "payload_attributes" => about["parent_block_number"].as_str(),
                    "light_client_optimistic_update" => about["attested_header"]["beacon"]["slot"].as_str(),
                    _ => about["slot"].as_str(),
                };
                name == topic && said == Some(&slot.to_string())
            })
        };
        for slot in 26..31 {
            let head = place("head", slot).unwrap_or_else(|| panic!("no head {slot}"));
            for topic in SPEAKS {
                let about = place(topic, slot).unwrap_or_else(|| panic!("no {topic} {slot}"));
                assert!(head < about, "{topic} of {slot} is told before the head");
            }
        }
        setup.end().await;
    });
}

#[test]
fn a_head_is_missed_by_no_stream_of_a_node_without_a_past() {
    // Without duties' answers, too, if the node does not even give those.
    for also in [&[][..], &["POST /eth/v1/validator/duties/*", "GET /eth/v1/validator/duties/*"]] {
        run_simulated(5, async {
            let setup = Setup::start(Before::Proxy, [0, 0]).await;
            let port = setup.app.as_ref().unwrap().addr().port();
            let mut listening = JoinSet::new();
            let net = setup.net.clone();
            listening.spawn(async move { listen(net, port, "head", 140_000).await });
            for node in [0, 1] {
                setup.devnet.cl(node).set_fault(Fault::pruned(2, &[Store::Blocks]));
                if !also.is_empty() {
                    setup.devnet.cl(node).set_fault(Fault::not_offered(also));
                }
            }
            // The first of them is the first that could have told what duties depend on.
            for slot in [0, 2, 4, 6, 8] {
                // The stream is lost just before a head, and the next one runs only when that was told.
                setup.shortly_before(slot).await;
                setup.devnet.cl(0).set_fault(Fault::Down);
                setup.devnet.cl(1).set_fault(Fault::Mute);
                sleep(Duration::from_millis(600)).await;
                setup.devnet.cl(0).clear_fault("down");
                setup.devnet.cl(1).clear_fault("mute");
            }
            setup.at(10, Duration::from_secs(3)).await;
            let skipped = metric(&setup, "steadfast_gaps_skipped_total", "").await;
            let events = listening.join_next().await.unwrap().unwrap();
            let slots: Vec<&str> = events.iter().map(|(_, head)| head["slot"].as_str().unwrap()).collect();
            let all: Vec<String> = (25..25 + slots.len()).map(|slot| slot.to_string()).collect();
            assert_eq!(slots, all, "{also:?}");
            assert!(slots.len() >= 10 && skipped == 0.0, "{slots:?}, {skipped} gaps skipped");
            setup.end().await;
        });
    }
}

#[test]
fn a_node_that_is_lost_with_its_stream_is_no_failback() {
    run_simulated(2, async {
        let setup = Setup::start(Before::Proxy, [0, 0]).await;
        let validator = setup.validator(Before::Proxy, &[1, 2, 3]);
        setup.at(1, Duration::from_secs(3)).await;
        // Its stream is seen to be lost before its port is seen to be closed.
        setup.devnet.cl(0).set_fault(Fault::Down);
        setup.at(2, Duration::from_secs(1)).await;
        const SWITCHES: &str = "steadfast_switches_total";
        let of = async |reason: &str| metric(&setup, SWITCHES, &format!("reason=\"{reason}\"")).await;
        assert!(of("failback").await == 0.0 && of("events").await + of("down").await == 1.0);
        // It is as well as ever, and home.
        setup.devnet.cl(0).clear_fault("down");
        setup.at(18, Duration::from_secs(1)).await;
        assert!(of("failback").await == 1.0);
        drop(validator);
        setup.end().await;
    });
}
