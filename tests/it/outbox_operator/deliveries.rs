//! Deliveries that were given up, and those that are made once more.

use std::sync::atomic::Ordering::SeqCst;

use super::{receiver::Receiver, *};

/// U58: a delivery in quarantine can be looked at and taken out.
#[tokio::test]
async fn a_delivery_in_quarantine_is_delivered_when_it_is_taken_out() {
    let endpoint = Receiver::start(&["tx.accepted"], 410).await;
    let scene = Scene::new(&endpoint.settings).await;
    scene.send(0).await;
    let quarantine = async || scene.ask("GET /outbox/quarantine", 200).await["deliveries"].clone();
    until("the delivery is given up", async || quarantine().await.as_array().unwrap().len() == 1).await;
    let given_up = quarantine().await[0].take();
    assert_eq!(
        ["tenant", "endpoint", "kind", "reason"].map(|key| given_up[key].as_str().unwrap()),
        ["default", "billing", "tx.accepted", "status 410: it wants no more"]
    );
    assert!(given_up["body"].as_str().unwrap().contains(SIGNED[0][1]), "{given_up}");
    let id = given_up["id"].as_str().unwrap();
    assert_eq!(scene.ask("GET /status", 200).await["outbox"]["quarantined"], 1);
    let error = scene.ask("POST /outbox/quarantine/evt_0@billing/retry", 404).await;
    assert_eq!(error["error"], "delivery evt_0@billing of tenant default: no such delivery is in quarantine");
    scene.ask(&format!("POST /outbox/quarantine/{id}/retry?tenant=other"), 404).await;
    assert_eq!(endpoint.seen().len(), 1);
    endpoint.status.store(200, SeqCst);
    assert_eq!(scene.ask(&format!("POST /outbox/quarantine/{id}/retry"), 200).await["retried"], id);
    until("it is delivered", async || endpoint.seen().len() == 2).await;
    let seen = endpoint.seen();
    assert_eq!(seen[0], seen[1], "the same id");
    until("the quarantine is empty", async || quarantine().await == json!([])).await;
}

#[tokio::test]
async fn pages_of_the_quarantine_go_on_where_the_last_ended() {
    let endpoint = Receiver::start(&["tx.accepted"], 410).await;
    let scene = Scene::new(&endpoint.settings).await;
    scene.send(0).await;
    scene.send(1).await;
    let page = async |query: &str| scene.ask(&format!("GET /outbox/quarantine?{query}"), 200).await;
    until("both are given up", async || page("").await["deliveries"].as_array().unwrap().len() == 2).await;
    let first = page("limit=1").await;
    let second = page(&format!("limit=1&after={}", first["next"].as_str().unwrap())).await;
    let [one, two] = [&first, &second].map(|page| page["deliveries"][0]["id"].as_str().unwrap());
    assert_ne!(one, two);
    let third = page(&format!("after={}", second["next"].as_str().unwrap())).await;
    assert_eq!((&third["deliveries"], &third["next"]), (&json!([]), &Value::Null));
}

/// U59: a replay is counted first, and keeps the ids.
#[tokio::test]
async fn a_replay_counts_first_and_then_tells_with_the_old_ids() {
    let endpoint = Receiver::start(&["tx.accepted", "tx.mined"], 200).await;
    let scene = Scene::new(&endpoint.settings).await;
    scene.send(0).await;
    let block = scene.net.chain().mine(1).number;
    until("both events are delivered", async || endpoint.seen().len() == 2).await;
    let mined = endpoint.seen()[1].clone();
    assert_eq!(mined.1, "tx.mined");
    let replay = async |query: &str| scene.ask(&format!("POST /outbox/replay?{query}"), 200).await;
    let dry = replay(&format!("from={block}")).await;
    assert_eq!((&dry["dry"], &dry["deliveries"], &dry["more"]), (&json!(true), &json!(1), &json!(false)));
    assert_eq!(replay(&format!("from={}", block + 1)).await["deliveries"], 0);
    assert_eq!(replay(&format!("from={block}&tenant=other")).await["deliveries"], 0);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(endpoint.seen().len(), 2, "a dry run tells nothing");
    assert_eq!(replay(&format!("from={block}&endpoint=billing&yes=1")).await["dry"], false);
    until("it is told once more", async || endpoint.seen().len() == 3).await;
    assert_eq!(endpoint.seen()[2], mined);
    for (query, status, why) in [
        ("yes=1", 400, "say from which block by from="),
        ("from=latest", 400, "from=latest is no number of a block"),
        ("from=1&yes=true", 400, "yes=true: only yes=1 is known"),
        ("from=1&do=1", 400, "there is no parameter `do` here; there are from"),
        ("from=1&limit=10001", 400, "limit=10001 is no number from 1 to 10000"),
        ("from=1&network=other", 404, "there is no network `other`"),
        ("from=1&endpoint=other", 404, "there is no endpoint `other`"),
    ] {
        let error = scene.ask(&format!("POST /outbox/replay?{query}"), status).await;
        assert!(error["error"].as_str().unwrap().starts_with(why), "{query}: {error}");
    }
    assert_eq!(endpoint.seen().len(), 3);
    // Two events, of which a replay with a limit makes one, and says that there is another.
    scene.send(1).await;
    scene.net.chain().mine(1);
    until("both events are delivered", async || endpoint.seen().len() == 5).await;
    let cut = replay(&format!("from={block}&limit=1&yes=1")).await;
    assert_eq!((&cut["deliveries"], &cut["more"]), (&json!(1), &json!(true)));
    until("one is told once more", async || endpoint.seen().len() == 6).await;
    let after = cut["next"].as_str().unwrap().replace('/', "%2F");
    let rest = replay(&format!("from={block}&limit=1&after={after}&yes=1")).await;
    assert_eq!((&rest["deliveries"], &rest["more"], &rest["next"]), (&json!(1), &json!(false), &Value::Null));
    until("the other is told once more", async || endpoint.seen().len() == 7).await;
    assert_ne!(endpoint.seen()[5], endpoint.seen()[6], "each of the two, once");
    assert_eq!(replay(&format!("from={block}&limit=2")).await["more"], false);
}
