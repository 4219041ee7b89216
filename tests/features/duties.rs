//! A validator client: what it tells its node, and what it asks of the node that was told.

use std::time::Duration;

use cucumber::{then, when};
use reqwest::Method;
use serde_json::json;
use steadfast::devnet::Request;
use tokio::time::{Instant, sleep};

use crate::world::{Proxy, eventually, reply, soon};

const DATA: &str = "/eth/v1/validator/attestation_data";
const TOLD: &str = r#"[{"validator_index": "7",  "fee_recipient": "0x00"}]"#;

#[when(expr = "a validator client subscribes to the committee of slot {int}")]
async fn subscribes(proxy: &mut Proxy, slot: u64) {
    let wish = json!([{
        "validator_index": "7", "committee_index": "0", "committees_at_slot": "1",
        "slot": slot.to_string(), "is_aggregator": true,
    }]);
    let request = proxy.beacon(Method::POST, "/eth/v1/validator/beacon_committee_subscriptions");
    proxy.last = Some(reply(request.json(&wish)).await);
}

#[when(expr = "a validator client posts to {word}")]
async fn posts(proxy: &mut Proxy, path: String) {
    let request = proxy.beacon(Method::POST, &path).header("content-type", "application/json").body(TOLD);
    proxy.last = Some(reply(request).await);
}

#[then(expr = "{word} has been told once of {word}, byte for byte")]
async fn told(proxy: &mut Proxy, name: String, path: String) {
    let proxy = &*proxy;
    // The first good answer is the client's; the other nodes are told all the same.
    let told: Vec<Request> = eventually(&format!("{name} is told"), soon(), async || {
        let requests = proxy.node(&name).requests();
        let told: Vec<_> = requests.into_iter().filter(|r| r.method == format!("POST {path}")).collect();
        if told.is_empty() { Err(format!("{:?}", proxy.node(&name).counts())) } else { Ok(told) }
    })
    .await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].body, TOLD);
    assert_eq!(told[0].headers["content-type"], "application/json");
}

#[then(expr = "the validator client gets the aggregate of slot {int}")]
async fn aggregate(proxy: &mut Proxy, slot: u64) {
    let path = format!("/eth/v1/validator/aggregate_attestation?slot={slot}&attestation_data_root=0x{slot:064x}");
    let reply = reply(proxy.beacon(Method::GET, &path)).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["data"]["data"]["slot"], slot.to_string(), "{reply:?}");
}

/// Has one duty done, and tells by whom.
async fn duty(proxy: &Proxy) -> String {
    let names = proxy.names();
    let counts = || names.iter().map(|name| proxy.node(name).count(&format!("GET {DATA}"))).collect::<Vec<_>>();
    let before = counts();
    let reply = reply(proxy.beacon(Method::GET, &format!("{DATA}?slot=1&committee_index=0"))).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let mut asked = counts().into_iter().zip(before).enumerate().filter(|(_, (after, before))| after > before);
    let (place, _) = asked.next().expect("a node was asked");
    assert!(asked.next().is_none(), "more than one node was asked");
    names[place].clone()
}

#[then(expr = "duties are done by {word}")]
async fn done(proxy: &mut Proxy, name: String) {
    assert_eq!(duty(proxy).await, name, "{:#}", proxy.status().await);
}

#[then(expr = "duties stay with {word} for {int} ms")]
async fn stay(proxy: &mut Proxy, name: String, millis: u64) {
    let until = Instant::now() + Duration::from_millis(millis);
    while Instant::now() < until {
        done(proxy, name.clone()).await;
        sleep(Duration::from_millis(10)).await;
    }
}

#[then(expr = "duties and all other requests go home to {word} together")]
async fn go_home(proxy: &mut Proxy, name: String) {
    // An epoch of the scenario, and its beginning.
    let until = Instant::now() + 3 * soon();
    loop {
        let (before, other, after) = (duty(proxy).await, proxy.who().await, duty(proxy).await);
        assert!(before != after || other == before, "duties are done by {before}, and other requests go to {other}");
        if after == name {
            return;
        }
        assert!(Instant::now() < until, "{:#}", proxy.status().await);
        sleep(Duration::from_millis(50)).await;
    }
}
