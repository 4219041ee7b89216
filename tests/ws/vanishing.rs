//! Clients over TCP that vanish in the rudest way.

use std::time::Duration;

use steadfast::devnet::Options;
use tokio::{net::TcpStream, time::sleep};

use crate::common::{client::call, devnet, proxy::Proxy, until, ws::Ws};

/// Memory of this process in kB, and its open files.
fn own() -> (u64, usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
    (line.split_whitespace().nth(1).unwrap().parse().unwrap(), files)
}

#[tokio::test]
async fn a_thousand_clients_that_subscribe_and_vanish_by_reset_leave_nothing_behind() {
    let devnet =
        devnet(Options { execution: 1, block_time: Some(Duration::from_millis(200)), ..Options::default() }).await;
    let node = devnet.el(0);
    let settings =
        format!("[[el.primary]]\nname = \"el-1\"\nhttp = \"{}\"\nws = \"{}\"\n", node.http_url(), node.ws_url());
    let proxy = Proxy::start(&settings).await;
    let metric = async |name: &str| {
        let text = proxy.admin("GET /metrics").await.text();
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    let mut marks = Vec::new();
    for round in 0..4 {
        let mut clients = Vec::new();
        for _ in 0..1000 {
            let io = TcpStream::connect(proxy.addr()).await.unwrap();
            let mut ws = Ws::open(io, "/").await;
            ws.subscribe(r#"["newHeads"]"#).await;
            // One more call is on its way when the client goes.
            ws.send(call(2, "eth_gasPrice", "[]")).await;
            clients.push(ws);
        }
        assert_eq!(metric("steadfast_ws_connections").await, 1000.0, "round {round}");
        for ws in clients {
            ws.socket.get_ref().set_zero_linger().unwrap();
        }
        until("all are gone", async || metric("steadfast_ws_connections").await == 0.0).await;
        until("no subscription is left", async || metric("steadfast_subscriptions").await == 0.0).await;
        until("no call is left", async || proxy.in_flight().await == 0).await;
        devnet.nodes().for_each(|node| node.clear_records());
        sleep(Duration::from_millis(300)).await;
        marks.push(own());
    }
    // The first round warms up what is kept for good.
    let [.., (before, files_before), (after, files_after)] = marks[..] else { unreachable!() };
    assert!(files_after <= files_before + 10, "{marks:?}");
    assert!(after <= before + 2_000, "{marks:?}");
    assert!(node.websockets_open() <= 1, "{}", node.websockets_open());
}
