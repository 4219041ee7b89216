//! The log while everything fails: few lines, and they say what is wrong.

use std::{sync::Arc, time::Duration};

use steadfast::devnet::{Devnet, Fault, Options};
use tokio::time::{Instant, sleep, timeout};

use crate::common::{
    client::call,
    log::Log,
    sim::{Net, Proxy},
    until,
    ws::Ws,
};

const OUTAGE: Duration = Duration::from_secs(600);

/// Ten minutes in which `fault` is on all nodes, execution and consensus, while clients go on
/// asking. Returns the lines of that time.
async fn outage(fault: Fault, flaps: bool) -> Vec<String> {
    let net = Net::default();
    let log = Log::start();
    let devnet = Devnet::start(Options { execution: 3, consensus: 3, ..Options::default() }, Arc::new(net.clone()));
    let devnet = devnet.await.unwrap();
    let mut settings = String::new();
    for place in 0..3 {
        let tier = if place == 0 { "primary" } else { "backup" };
        let (el, ws, cl) = (devnet.el(place).http_url(), devnet.el(place).ws_url(), devnet.cl(place).http_url());
        settings += &format!(
            "[[el.{tier}]]\nname = \"el-{place}\"\nhttp = \"{el}\"\nws = \"{ws}\"\n\
             [[cl.{tier}]]\nname = \"cl-{place}\"\nhttp = \"{cl}\"\n"
        );
    }
    let proxy = Proxy::launch(&net, &(settings + "[calls]\nhold = \"2s\"\n")).await;
    until("all are up", async || proxy.verdicts().await == ["up", "up", "up"]).await;
    let mut ws = Ws::open(proxy.client().await.io, "/").await;
    ws.subscribe("[\"newHeads\"]").await;
    let all = || (0..3).flat_map(|place| [devnet.el(place), devnet.cl(place)]);
    let before = log.lines().len();
    let (begun, mut round) = (Instant::now(), 0_u64);
    all().for_each(|node| node.set_fault(fault.clone()));
    while begun.elapsed() < OUTAGE {
        if flaps {
            let is_bad = (round / 7).is_multiple_of(2);
            all().for_each(|node| if is_bad { node.set_fault(fault.clone()) } else { node.clear_faults() });
        }
        round += 1;
        let ask = async {
            for n in 0..5 {
                let method = if n == 0 { "eth_sendTransaction" } else { "eth_call" };
                let mut client = proxy.client().await;
                client.send(crate::common::client::post("/", call(n, method, "[]").as_bytes())).await;
                let _ = timeout(Duration::from_millis(200), client.response()).await;
                let mut client = proxy.client().await;
                client.send("GET /eth/v1/beacon/genesis HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
                let _ = timeout(Duration::from_millis(200), client.response()).await;
            }
        };
        ask.await;
        sleep(Duration::from_millis(500)).await;
    }
    log.lines()[before..].iter().map(ToString::to_string).collect()
}

async fn stays_short(fault: Fault, flaps: bool, says: &[&str]) {
    let lines = outage(fault, flaps).await;
    let most = OUTAGE.as_secs() as usize;
    let tail = || lines[lines.len().saturating_sub(60)..].join("\n");
    assert!(lines.len() < most, "{} lines in {most} s\n{}", lines.len(), tail());
    for words in says {
        let in_last_minutes = lines[lines.len() / 2..].iter().any(|line| line.contains(words));
        assert!(in_last_minutes, "{words}: {}", tail());
    }
}

#[tokio::test(start_paused = true)]
async fn all_nodes_that_are_gone_leave_the_log_short() {
    stays_short(Fault::Down, false, &["no node can serve", "el-0: down", "cl-2: down", "no node answered a request"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn all_nodes_that_hang_leave_the_log_short() {
    stays_short(Fault::Hang, false, &["no node can serve", "no node answered a request"]).await;
}

#[tokio::test(start_paused = true)]
async fn all_nodes_that_err_leave_the_log_short() {
    // Probes are answered, so no node is out.
    stays_short(Fault::http_status(500, &[]), false, &["no node answered a request", "HTTP status 500"]).await;
}

#[tokio::test(start_paused = true)]
async fn nodes_that_come_and_go_leave_the_log_short() {
    stays_short(Fault::Down, true, &["nodes change too often for a line each", "no node can serve"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lags_block_after_block_is_one_line() {
    let net = Net::default();
    let log = Log::start();
    let block_time = Some(Duration::from_secs(1));
    let options = Options { execution: 3, consensus: 0, initial_blocks: 100, block_time, ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let tables = (0..3).map(|place| format!("[[el.primary]]\nhttp = \"{}\"\n", devnet.el(place).http_url()));
    let proxy = Proxy::launch(&net, &tables.collect::<String>()).await;
    until("all are up", async || proxy.verdicts().await == ["up"; 3]).await;
    for blocks in 20..30 {
        devnet.el(2).clear_faults();
        devnet.el(2).set_fault(Fault::lag(blocks));
        sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(proxy.verdicts().await, ["up", "up", "lagging"]);
    let lagging = log.saying("node is not usable");
    assert_eq!(lagging.len(), 1, "{lagging:?}");
}
