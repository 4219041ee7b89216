//! Clients that vanish in the rudest way, by a reset in mid-call.

use std::time::Duration;

use steadfast::devnet::Options;
use tokio::{net::TcpStream, time::sleep};

use crate::{
    common::{client::call, devnet, until, ws::Ws},
    harness::Process,
};

#[tokio::test]
async fn a_thousand_clients_that_vanish_by_reset_leave_nothing() {
    let devnet =
        devnet(Options { execution: 1, block_time: Some(Duration::from_millis(200)), ..Options::default() }).await;
    let node = devnet.el(0);
    let settings =
        format!("[[el.primary]]\nname = \"el-1\"\nhttp = \"{}\"\nws = \"{}\"\n", node.http_url(), node.ws_url());
    let process = Process::start(&settings, &[]).await;
    let none_left = async |name: &'static str| {
        until("the clients are gone", async || process.metric(name).await == 0.0).await;
    };
    let mut marks = Vec::new();
    for round in 0..4 {
        let mut clients = Vec::new();
        for _ in 0..1000 {
            let io = TcpStream::connect(process.clients()).await.unwrap();
            let mut ws = Ws::open(io, "/").await;
            ws.subscribe(r#"["newHeads"]"#).await;
            // One more call is on its way when the client goes.
            ws.send(call(2, "eth_gasPrice", "[]")).await;
            clients.push(ws);
        }
        assert_eq!(process.metric("steadfast_ws_connections").await, 1000.0, "round {round}");
        for ws in clients {
            ws.socket.get_ref().set_zero_linger().unwrap();
        }
        for name in ["steadfast_ws_connections", "steadfast_subscriptions", "steadfast_requests_in_flight"] {
            none_left(name).await;
        }
        sleep(Duration::from_millis(300)).await;
        marks.push((process.figure("VmRSS"), process.descriptors()));
    }
    // The first round warms up what is kept for good.
    let [.., (before, descriptors_before), (after, descriptors_after)] = marks[..] else { unreachable!() };
    assert!(descriptors_after <= descriptors_before + 10, "{marks:?}");
    assert!(after <= before + (2 << 20), "{marks:?}");
    assert!(node.websockets_open() <= 1, "{}", node.websockets_open());
}
