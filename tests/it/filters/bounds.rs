//! What filters may take, and what becomes of those that take more.

use serde_json::{Value, json};
use steadfast::devnet::Fault;
use tokio::time::{Duration, sleep};

use super::setup::{Setup, Way};
use crate::common::{
    client::{call, post},
    until,
};

impl Setup {
    async fn count(&self, kind: &str) -> f64 {
        self.proxy.metric("steadfast_filters", &format!("kind=\"{kind}\"")).await
    }

    async fn dropped(&self, reason: &str) -> f64 {
        self.proxy.metric("steadfast_filters_dropped_total", &format!("reason=\"{reason}\"")).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_is_not_polled_ends_after_its_time() {
    let setup = Setup::new(Way::Http, "").await;
    let (polled, left) = (setup.blocks().await, setup.blocks().await);
    for _ in 0..10 {
        sleep(Duration::from_secs(60)).await;
        setup.poll(&polled).await;
    }
    assert_eq!((setup.count("blocks").await, setup.dropped("timeout").await), (1.0, 1.0));
    assert!(setup.is_gone(&left).await);
    sleep(Duration::from_secs(299)).await;
    setup.poll(&polled).await;
    sleep(Duration::from_secs(301)).await;
    assert!(setup.is_gone(&polled).await);
    assert_eq!(setup.result("eth_uninstallFilter", &json!([polled])).await, false);
    assert_eq!(setup.count("blocks").await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_the_limits_and_keeps_the_filters() {
    let setup = Setup::new(Way::Http, "filters = { timeout = \"10s\" }\n").await;
    let filter = setup.blocks().await;
    let settings = setup.settings.replace("timeout = \"10s\"", "timeout = \"1h\", max = 1");
    setup.proxy.reload(&settings).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(setup.poll(&filter).await, Vec::<Value>::new());
    assert_eq!(setup.error("eth_newBlockFilter", &json!([])).await.0, -32005);
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_filters_than_may_be() {
    for (settings, name) in [("max = 3", "filters.max"), ("max_per_client = 3", "filters.max_per_client")] {
        let setup = Setup::new(Way::Http, &format!("filters = {{ {settings} }}\n")).await;
        let mut filters = Vec::new();
        for _ in 0..3 {
            filters.push(setup.blocks().await);
        }
        let answer = setup.ask("eth_newFilter", &json!([{}])).await;
        let error = &answer["error"];
        assert_eq!((&error["code"], &error["data"]["reason"]), (&json!(-32005), &json!(name)), "{answer}");
        setup.result("eth_uninstallFilter", &json!([filters[0]])).await;
        setup.logs(&json!({})).await;
        assert_eq!((setup.count("blocks").await, setup.count("logs").await), (2.0, 1.0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_behind_the_backlog_is_dropped_and_no_other() {
    for settings in ["max_backlog_blocks = 16", "max_backlog = \"16KiB\""] {
        let setup = Setup::new(Way::Both, &format!("filters = {{ {settings} }}\n")).await;
        let (behind, polled) = (setup.blocks().await, setup.blocks().await);
        let before = setup.head();
        let mut told = Vec::new();
        for _ in 0..12 {
            setup.devnet.chain().mine(4);
            sleep(Duration::from_secs(1)).await;
            told.extend(setup.poll(&polled).await);
        }
        assert_eq!(told, setup.hashes_above(before), "{settings}");
        assert!(setup.is_gone(&behind).await, "{settings}");
        assert_eq!((setup.dropped("backlog").await, setup.count("blocks").await), (1.0, 1.0), "{settings}");
        setup.devnet.chain().mine(1);
        sleep(Duration::from_secs(1)).await;
        let kept = setup.proxy.metric("steadfast_filter_backlog_bytes", "").await;
        assert!(kept < 4096.0, "what was told is not kept: {kept}");
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_kept_for_filters_count_as_client_memory() {
    let setup = Setup::new(Way::Both, "max_client_memory = \"1MiB\"\n").await;
    let logs = setup.logs(&json!({})).await;
    let held = async || setup.proxy.metric("steadfast_client_memory_bytes", "").await;
    assert_eq!(held().await, 0.0);
    setup.devnet.chain().mine(50);
    sleep(Duration::from_secs(3)).await;
    let before = held().await;
    assert!(before > 32_000.0, "{before}");
    assert!(!setup.poll(&logs).await.is_empty());
    for _ in 0..3 {
        setup.devnet.chain().mine(1);
        sleep(Duration::from_secs(1)).await;
        setup.poll(&logs).await;
    }
    assert!(held().await < before / 2.0);
    // A filter that is left alone does not get more than there is.
    for _ in 0..60 {
        setup.devnet.chain().mine(20);
        sleep(Duration::from_secs(1)).await;
    }
    assert!(held().await <= 1024.0 * 1024.0);
    assert!(setup.is_gone(&logs).await);
    assert_eq!(setup.dropped("backlog").await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn clients_that_fill_the_memory_take_no_filter_its_news() {
    let setup = Setup::new(Way::Both, "max_client_memory = \"1MiB\"\n").await;
    let logs = setup.logs(&json!({})).await;
    let before = setup.devnet.chain().head().number;
    // Many bodies that never end, each smaller than the news will be.
    let body = post("/", call(1, "eth_call", &format!("[\"{}\"]", "a".repeat(20_000))).as_bytes());
    let mut clients = Vec::new();
    for _ in 0..60 {
        let mut client = setup.proxy.client().await;
        client.send(&body[..16_000]).await;
        clients.push(client);
    }
    let held = async || setup.proxy.metric("steadfast_client_memory_bytes", "").await;
    until("the part for bodies is full", async || held().await >= 740_000.0).await;
    for _ in 0..4 {
        setup.devnet.chain().mine(7);
        sleep(Duration::from_secs(1)).await;
    }
    let kept = setup.proxy.metric("steadfast_filter_backlog_bytes", "").await;
    assert!((50_000.0..128.0 * 1024.0).contains(&kept) && held().await <= 1024.0 * 1024.0, "{kept}");
    drop(clients);
    until("the memory is free", async || held().await <= kept + 32_768.0).await;
    let mut told = Vec::new();
    loop {
        let more = setup.poll(&logs).await;
        if more.is_empty() {
            break;
        }
        told.extend(more);
    }
    let since = json!([{ "fromBlock": format!("{:#x}", before + 1), "toBlock": "latest" }]);
    let all = setup.result("eth_getLogs", &since).await;
    assert!(!told.is_empty() && json!(told) == all, "{} logs of {}", told.len(), all.as_array().unwrap().len());
    assert_eq!(setup.dropped("backlog").await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn status_tells_of_the_filters() {
    let setup = Setup::new(Way::Both, "").await;
    setup.blocks().await;
    setup.logs(&json!({})).await;
    setup.result("eth_newPendingTransactionFilter", &json!([])).await;
    setup.devnet.chain().mine(1);
    sleep(Duration::from_secs(2)).await;
    let status = setup.proxy.admin("/status").await.json();
    let filters = &status["networks"][0]["filters"];
    assert_eq!((&filters["blocks"], &filters["logs"], &filters["transactions"]), (&json!(1), &json!(1), &json!(1)));
    assert!(filters["backlog_bytes"].as_u64().unwrap() > 0, "{filters}");
}

#[tokio::test(start_paused = true)]
async fn filter_criteria_have_a_memory_bound_of_their_own() {
    for (settings, reason, most, count) in [
        ("[filters]\nmax_bytes_per_client = \"100KiB\"\n", "filters.max_bytes_per_client", 100 << 10, 2),
        ("max_client_memory = \"1MiB\"\n", "max_client_memory", 128 << 10, 3),
    ] {
        let setup = Setup::new(Way::Http, settings).await;
        let wish = |filter: usize| {
            let topics: Vec<_> = (0..1000).map(|topic| format!("0x{:064x}", 1000 * filter + topic)).collect();
            json!([{ "topics": [topics] }])
        };
        let mut made = Vec::new();
        let refused = loop {
            let mut answer = setup.ask("eth_newFilter", &wish(made.len())).await;
            if answer.get("result").is_none() {
                break answer;
            }
            made.push(answer["result"].take());
        };
        let error = &refused["error"];
        assert_eq!((&error["code"], &error["data"]["reason"]), (&json!(-32005), &json!(reason)), "{refused}");
        assert_eq!(made.len(), count, "{reason}");
        let bytes = setup.proxy.metric("steadfast_filter_bytes", "").await;
        assert!((60_000.0..=most as f64).contains(&bytes), "{bytes}");
        assert_eq!(setup.proxy.metric("steadfast_filters_refused_total", &format!("reason=\"{reason}\"")).await, 1.0);
        let status = setup.proxy.admin("/status").await.json();
        assert_eq!(status["networks"][0]["filters"]["bytes"].as_f64(), Some(bytes));
        // What wants little has its place, and what ends makes room.
        setup.blocks().await;
        setup.result("eth_uninstallFilter", &json!([made[0]])).await;
        setup.result("eth_newFilter", &wish(made.len())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn equal_wishes_are_kept_once() {
    let setup = Setup::new(Way::Http, "").await;
    let topics: Vec<_> = (0..1000).map(|topic| format!("0x{topic:064x}")).collect();
    let wish = json!({ "topics": [topics] });
    let bytes = async || setup.proxy.metric("steadfast_filter_bytes", "").await;
    let first = setup.logs(&wish).await;
    let one = bytes().await;
    assert!(one > 32_000.0, "{one}");
    let second = setup.logs(&wish).await;
    let two = bytes().await;
    assert!(two < one + 1024.0, "{one} {two}");
    setup.result("eth_uninstallFilter", &json!([first])).await;
    assert_eq!(bytes().await, one, "the other has it still");
    setup.result("eth_uninstallFilter", &json!([second])).await;
    assert_eq!(bytes().await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_long_filter_counts_while_it_is_made() {
    let setup = Setup::new(Way::Http, "").await;
    // A client was shown a block that no node tells now, so that the filter waits for it a while.
    setup.devnet.chain().mine(1);
    setup.result("eth_getBlockByNumber", &json!(["latest", false])).await;
    setup.devnet.nodes().for_each(|node| node.set_fault(Fault::Hang));
    let held = async || setup.proxy.metric("steadfast_client_memory_bytes", "").await;
    let topics: Vec<_> = (0..1000).map(|topic| format!("0x{topic:064x}")).collect();
    let call = call(1, "eth_newFilter", &json!([{ "topics": [topics] }]).to_string());
    // A call of this length that makes no filter, and waits for a node.
    let mut other = setup.proxy.client().await;
    other.send(post("/", call.replace("eth_newFilter", "eth_getLogs__").as_bytes())).await;
    sleep(Duration::from_millis(200)).await;
    let body = held().await;
    let mut client = setup.proxy.client().await;
    client.send(post("/", call.as_bytes())).await;
    sleep(Duration::from_millis(200)).await;
    let both = held().await;
    assert_eq!(setup.count("logs").await, 0.0, "the filter is there already");
    assert!(client.response().await.json()["result"].is_string());
    let filter = setup.proxy.metric("steadfast_filter_bytes", "").await;
    // The first 8 KiB of a connection are not counted.
    assert!(filter > 32_000.0 && both >= 2.0 * body + filter - 8192.0, "{body} {filter} {both}");
}

#[tokio::test(start_paused = true)]
async fn the_past_of_a_long_filter_counts_while_it_is_asked_for() {
    let setup = Setup::new(Way::Http, "max_client_memory = \"1MiB\"\n").await;
    let topics: Vec<_> = (0..1000).map(|topic| format!("0x{topic:064x}")).collect();
    let filter = setup.logs(&json!({ "topics": [topics] })).await;
    setup.devnet.nodes().for_each(|node| node.set_fault(Fault::slow(1_000)));
    let held = async || setup.proxy.metric("steadfast_client_memory_bytes", "").await;
    let before = held().await;
    let mut client = setup.proxy.client().await;
    let past = call(1, "eth_getFilterLogs", &json!([filter]).to_string());
    client.send(post("/", past.as_bytes())).await;
    sleep(Duration::from_millis(500)).await;
    assert!(held().await >= before + 65_000.0, "a short call makes a long one");
    assert!(client.response().await.json()["result"].is_array());
    sleep(Duration::from_millis(1)).await;
    assert_eq!(held().await, before);
}

#[tokio::test(start_paused = true)]
async fn past_logs_are_no_poll_and_keep_no_filter() {
    let setup = Setup::new(Way::Http, "filters = { timeout = \"10s\" }\n").await;
    let filter = setup.logs(&json!({})).await;
    sleep(Duration::from_secs(6)).await;
    assert!(setup.result("eth_getFilterLogs", &json!([filter])).await.is_array());
    sleep(Duration::from_secs(5)).await;
    assert!(setup.is_gone(&filter).await);
}

#[tokio::test(start_paused = true)]
async fn a_filter_whose_time_is_over_is_none() {
    let setup = Setup::new(Way::Http, "[filters]\nmax = 1\n").await;
    for end in ["uninstall", "poll", "another"] {
        let filter = setup.blocks().await;
        sleep(Duration::from_millis(300_001)).await;
        // It has not been swept out yet.
        assert_eq!(setup.count("blocks").await, 1.0);
        match end {
            "uninstall" => assert_eq!(setup.result("eth_uninstallFilter", &json!([filter])).await, false),
            "poll" => assert!(setup.is_gone(&filter).await),
            _ => {}
        }
    }
    setup.blocks().await;
    assert_eq!((setup.count("blocks").await, setup.dropped("timeout").await), (1.0, 3.0));
}

#[tokio::test(start_paused = true)]
async fn notification_makes_no_filter() {
    let setup = Setup::new(Way::Http, "").await;
    for method in ["eth_newFilter", "eth_newBlockFilter", "eth_newPendingTransactionFilter"] {
        let notification = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":[]}}"#);
        assert_eq!(setup.proxy.post(notification).await.body, b"");
    }
    assert_eq!(setup.proxy.metric("steadfast_filters", "").await, 0.0);
    let long = json!([{ "anything": "x".repeat(1 << 20) }]);
    let answer = setup.ask("eth_newFilter", &long).await;
    assert_eq!(answer["error"]["data"]["reason"], "filter_params", "{answer}");
}
