//! The outbox in `/status` and `/metrics`.

use super::{receiver::Receiver, *};

/// The value of a series, whose labels are in the order of their names.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.parse().ok()
}

/// U29, U45: depth, age, latency and lag are metrics.
#[tokio::test]
async fn the_outbox_is_measured() {
    let endpoint = Receiver::start(&["tx.accepted", "tx.mined"], 200).await;
    let scene = Scene::new(&endpoint.settings).await;
    scene.send(0).await;
    let text = async || scene.proxy.admin("GET /metrics").await.text();
    let pending = "steadfast_outbox_pending{network=\"default\",tenant=\"default\"}";
    until("one is pending", async || value(&text().await, pending) == Some(1.0)).await;
    scene.net.chain().mine(1);
    scene.until_state(0, "mined").await;
    until("both events are delivered", async || endpoint.seen().len() == 2).await;
    let transitions = |state: &str| {
        format!("steadfast_outbox_transitions_total{{network=\"default\",state=\"{state}\",tenant=\"default\"}}")
    };
    until("the transition is counted", async || value(&text().await, &transitions("mined")) == Some(1.0)).await;
    let delivered = "steadfast_webhook_deliveries_total{endpoint=\"billing\",outcome=\"delivered\"}";
    until("deliveries are counted", async || value(&text().await, delivered) == Some(2.0)).await;
    let text = text().await;
    for (series, expected) in [
        (&*transitions("accepted"), 1.0),
        (&*transitions("sent"), 1.0),
        (&*transitions("reorged"), 0.0),
        (pending, 1.0),
        ("steadfast_outbox_pending_bytes{network=\"default\",tenant=\"default\"}", 107.0),
        ("steadfast_outbox_kept{network=\"default\",tenant=\"default\"}", 0.0),
        ("steadfast_outbox_in_flight{network=\"default\"}", 0.0),
        ("steadfast_outbox_writable", 1.0),
        ("steadfast_outbox_quarantined", 0.0),
        ("steadfast_outbox_late_seconds{work=\"delivery\"}", 0.0),
        ("steadfast_outbox_late_seconds{work=\"deadline\"}", 0.0),
        ("steadfast_outbox_dispatch_seconds_count{network=\"default\"}", 1.0),
        ("steadfast_webhook_waiting{endpoint=\"billing\"}", 0.0),
        ("steadfast_webhook_failing{endpoint=\"billing\"}", 0.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}\n{text}");
    }
    let outbox = scene.ask("GET /status", 200).await["outbox"].take();
    assert_eq!((&outbox["store"], &outbox["why"]), (&json!("writable"), &Value::Null));
    let network = &outbox["networks"][0];
    assert_eq!((&network["name"], &network["pending"], &network["bytes"]), (&json!("default"), &json!(1), &json!(107)));
    assert!(network["oldest_seconds"].is_u64(), "{outbox}");
    let webhook = &outbox["webhooks"][0];
    assert_eq!((&webhook["name"], &webhook["delivered"]), (&json!("billing"), &json!(2)));
}

/// U46: version, settings in use, networks and endpoints.
#[tokio::test]
async fn the_status_tells_version_settings_and_endpoints() {
    let endpoint = Receiver::start(&["tx.accepted"], 200).await;
    let scene = Scene::new(&endpoint.settings).await;
    let status = scene.ask("GET /status", 200).await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    let outbox = &status["outbox"];
    let settings = ["ack", "send_to", "tenant_header"].map(|key| &outbox[key]);
    assert_eq!(settings, [&json!("node"), &json!("all"), &Value::Null], "{outbox}");
    assert!(outbox["dir"].as_str().is_some_and(|dir| !dir.is_empty()), "{outbox}");
    assert_eq!(
        (&outbox["networks"][0]["name"], &outbox["webhooks"][0]["name"]),
        (&json!("default"), &json!("billing"))
    );
}

#[tokio::test]
async fn the_dashboard_has_the_outbox() {
    let scene = Scene::new("").await;
    scene.send(0).await;
    let page = scene.proxy.admin("GET /dashboard/main.js").await.text();
    // Each field that the page reads of the outbox is told.
    let outbox = scene.ask("GET /status", 200).await["outbox"].take();
    for name in ["pending", "in_flight", "kept"] {
        assert!(page.contains(&format!("sum('{name}')")) && outbox["networks"][0][name].is_u64(), "{name} of {outbox}");
    }
    assert!(page.contains("all.quarantined") && outbox["quarantined"].is_u64(), "{outbox}");
}
