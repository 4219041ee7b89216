//! The pretend network as a newcomer runs it: what it prints is what there is, and its validators outlive a node.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::common::{binary::Binary, client::Client};

/// Longer than anything takes here, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(90);

/// Does what stands behind `curl` in a line of what was printed.
async fn curl(line: &str) -> Value {
    let method = if line.contains("-X POST") { "POST" } else { "GET" };
    let (_, rest) = line.split_once("http://").expect("a URL");
    let url = rest.split_whitespace().next().unwrap();
    let (host, path) = url.split_once('/').unwrap();
    let mut client = Client::connect(host.parse().unwrap()).await;
    let fields = "Host: localhost\r\nContent-Length: 0\r\nConnection: close\r\n";
    client.send(format!("{method} /{path} HTTP/1.1\r\n{fields}\r\n")).await;
    let answer = client.response().await;
    assert_eq!(answer.status, 200, "{line}: {}", answer.text());
    answer.json()
}

async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < PATIENCE, "still not so after {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_may_be_shorter_than_a_second() {
    let mut dev = Binary::dev(&["--block-time", "0.5", "--validators", "64"]);
    dev.until_it_says("Ctrl-C ends it.", PATIENCE);
    let printed = dev.log();
    let line = |words: &str| printed.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{printed}"));
    let node = line("  cl-1 ").split_whitespace().last().unwrap();
    let spec = curl(&format!("curl {node}/eth/v1/config/spec")).await;
    assert_eq!(spec["data"]["SLOT_DURATION_MS"], "500", "{spec}");
    // Validators reckon by the clock, so these votes tell that blocks come by the clock too.
    until("votes are right", async || {
        let earned = curl(line("what they earn")).await;
        earned["pretend-validator"]["votes"]["right"].as_u64().unwrap() >= 16
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pretend_networks_validators_outlive_a_node() {
    let mut dev = Binary::dev(&["--block-time", "1", "--validators", "64"]);
    dev.until_it_says("Ctrl-C ends it.", PATIENCE);
    let printed = dev.log();
    let line = |words: &str| printed.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{printed}"));
    let votes = async || curl(line("what they earn")).await["pretend-validator"]["votes"]["right"].as_u64().unwrap();
    let serves = async || {
        let status = curl(line("/status ")).await;
        status["networks"][0]["cl"]["active"].as_str().unwrap_or_default().to_owned()
    };
    until("votes are right", async || votes().await >= 16).await;
    assert_eq!(serves().await, "cl-1");
    for (fault, takes_over) in [("kill their node", "cl-2"), ("bring it back", ""), ("nodes/cl-2/hang", "cl-1")] {
        match fault.strip_prefix("nodes/") {
            Some(_) => _ = curl(&line("kill their node").replace("nodes/cl-1/down", fault)).await,
            None => _ = curl(line(fault)).await,
        }
        if !takes_over.is_empty() {
            until(takes_over, async || serves().await == takes_over).await;
        }
        let before = votes().await;
        until("votes are right again", async || votes().await >= before + 16).await;
    }
    let earned = curl(line("what they earn")).await;
    assert_eq!(earned["pretend-validator"]["proposals"]["unpaid"], 0, "{earned}");
    dev.signal("INT");
    let ended = spawn_blocking(move || dev.wait()).await.unwrap();
    assert!(ended.success(), "{ended}");
}
