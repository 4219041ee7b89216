//! What is due in a slot while one node fails at it and the other sees blocks a little later.

use std::time::Duration;

use steadfast::devnet::{Earned, Fault, Proposals};
use tokio::{task::JoinSet, time::Instant};

use super::{
    events::listen,
    setup::{Before, PAST, SLOT, Setup},
};
use crate::common::{client::Client, simulation::run_simulated};

/// What a client before a proxy earned in eight slots, while the first of the nodes with these delays had this fault in the last six.
fn earned(delays: [u64; 2], fault: Fault) -> Earned {
    run_simulated(1, async {
        let setup = Setup::start(Before::Proxy, delays).await;
        let validator = setup.validator(Before::Proxy, &Vec::from_iter(0..64));
        setup.at(1, SLOT * 11 / 12).await;
        setup.devnet.cl(0).set_fault(fault);
        setup.at(9, Duration::from_secs(1)).await;
        let earned = validator.earned();
        setup.end().await;
        earned
    })
}

#[test]
fn duties_are_done_in_time_when_a_node_hangs_over_one() {
    for route in [
        "GET /eth/v3/validator/blocks/*",
        "GET /eth/v1/validator/attestation_data",
        "GET /eth/v1/beacon/blocks/head/root",
        "GET /eth/v2/validator/aggregate_attestation",
        "GET /eth/v1/validator/sync_committee_contribution",
    ] {
        let earned = earned([0, 900], Fault::hang_over(&[route]));
        let failed =
            [earned.votes, earned.aggregates, earned.sync_messages, earned.contributions].map(|all| all.failed());
        let paid = Proposals { paid: earned.slots, ..Proposals::default() };
        assert_eq!((failed, earned.proposals), ([0; 4], paid), "{route}: {earned}");
    }
}

#[test]
fn signed_messages_wait_for_a_node_slightly_behind() {
    let route = "POST /eth/v2/beacon/pool/attestations";
    // One that hangs over votes is asked last after a while, and so has a vote beside the other.
    for fault in [Fault::http_status(502, &[route]), Fault::gateway(502, &[route]), Fault::hang_over(&[route])] {
        let name = format!("{fault:?}");
        let earned = earned([0, 900], fault);
        assert_eq!((earned.votes.failed(), earned.lost), (0, 0), "{name}: {earned}");
    }
}

#[test]
fn a_head_that_was_told_is_the_head_wherever_it_is_asked_for() {
    for path in ["headers/head", "headers", "blocks/head/root", "states/head/finality_checkpoints"] {
        run_simulated(3, async {
            let setup = Setup::start(Before::Proxy, [0, 900]).await;
            let port = setup.app.as_ref().unwrap().addr().port();
            let mut listening = JoinSet::new();
            listening.spawn(listen(setup.net.clone(), port, "head", 60_000));
            setup.at(2, Duration::from_millis(100)).await;
            // The stream has told the block. The node that told it is gone, and the other one will see it in a moment.
            setup.devnet.cl(0).set_fault(Fault::Down);
            setup.devnet.cl(0).settled().await;
            let mut client = Client::over(setup.net.connect(port).await.unwrap());
            client.send(format!("GET /eth/v1/beacon/{path} HTTP/1.1\r\nHost: proxy\r\n\r\n")).await;
            assert_eq!(client.response().await.status, 200, "{path}");
            assert_eq!(setup.devnet.cl(1).head_number(), PAST + 3, "{path}");
            setup.end().await;
        });
    }
}

#[test]
fn a_node_without_the_head_is_asked_in_the_end() {
    // The first node hangs, and the second will not see the slot's block in the slot.
    let (fifth, sixth, third) = (SLOT / 5, SLOT / 6, SLOT / 3);
    for (request, at, longest) in [
        ("GET /eth/v1/validator/attestation_data?slot=SLOT&committee_index=0", SLOT / 3, fifth + sixth),
        ("GET /eth/v3/validator/blocks/SLOT?randao_reveal=0x00", Duration::from_millis(100), fifth + sixth),
        ("GET /eth/v1/validator/duties/proposer/EPOCH", SLOT / 3, third),
        ("POST /eth/v1/validator/duties/attester/EPOCH", SLOT / 3, third),
    ] {
        run_simulated(5, async {
            let setup = Setup::start(Before::Proxy, [0, 11_500]).await;
            let port = setup.app.as_ref().unwrap().addr().port();
            let mut listening = JoinSet::new();
            listening.spawn(listen(setup.net.clone(), port, "head", 60_000));
            setup.at(1, SLOT / 2).await;
            setup.devnet.cl(0).set_fault(Fault::hang_over(&[
                "GET /eth/v1/validator/attestation_data",
                "GET /eth/v3/validator/blocks/*",
                "GET /eth/v1/validator/duties/proposer/*",
                "POST /eth/v1/validator/duties/attester/*",
            ]));
            setup.at(2, at).await;
            let mut client = Client::over(setup.net.connect(port).await.unwrap());
            let asked = request.replace("SLOT", &(PAST + 3).to_string()).replace("EPOCH", "3");
            let body = if asked.starts_with("POST") { "[\"1\"]" } else { "" };
            let length = body.len();
            let head = format!("{asked} HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\n");
            let since = Instant::now();
            client.send(format!("{head}Content-Length: {length}\r\n\r\n{body}")).await;
            let answer = client.response().await;
            assert_eq!(answer.status, 200, "{asked}: {answer:?}");
            let took = since.elapsed();
            assert!(took < longest + Duration::from_millis(250), "{asked}: {took:?}");
            assert!(setup.devnet.cl(1).head_number() < setup.devnet.cl(0).head_number(), "{asked}");
            setup.end().await;
        });
    }
}

#[test]
fn a_node_that_imports_no_more_costs_one_slots_votes() {
    let (votes, active) = run_simulated(7, async {
        let setup = Setup::start(Before::Proxy, [0, 500]).await;
        let app = setup.app.as_ref().unwrap();
        // The blocks are those of others.
        let validator = setup.validator(Before::Proxy, &Vec::from_iter(40..64));
        setup.at(3, SLOT / 2).await;
        setup.devnet.cl(0).set_fault(Fault::Freeze);
        setup.at(9, Duration::from_secs(1)).await;
        let mut admin = Client::over(setup.net.connect(app.admin_addr().port()).await.unwrap());
        admin.send("GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        let active = admin.response().await.json()["networks"][0]["cl"]["active"].take();
        let earned = validator.earned();
        setup.end().await;
        (earned.votes, active)
    });
    assert_eq!(active, "cl-2");
    // Three of the twenty-four vote in each slot.
    assert!(votes.failed() <= 3 && votes.right >= 6 * 3, "{votes:?}");
}
