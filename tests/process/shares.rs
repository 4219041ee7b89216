//! Clients of one address with many busy connections: they have what nobody else wants, and keep nobody else out.

use std::{future::pending, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::sleep,
};

use crate::{
    common::{
        client::{Client, call, post},
        origin::{Origin, Reply},
        proxy::nodes,
        until,
    },
    harness::Process,
};

/// Connects from another address of this machine than the one that others come from.
async fn connect(to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_with_many_slow_calls_keeps_no_other_out() {
    let node = Origin::start(|seen| match seen.method().as_str() {
        "eth_getLogs" => Reply::act(async |_io| pending().await),
        _ => Reply::result(seen, "\"0x1\""),
    })
    .await;
    // The node must not go out for what is never answered.
    let more = "[health]\ntimeout = \"60s\"\nfall = 1000\n[calls]\nmax_node_connections = 50\n";
    let settings = ["workers = 2\n", &nodes([node.url()]), more].concat();
    // Some ninety HTTP connections.
    let mut process = Process::start(&settings, &["ulimit -n 512"]).await;
    let mut greedy = Vec::new();
    let send = async || {
        let mut client = Client::over(connect(process.clients()).await);
        client.send(post("/", call(1, "eth_getLogs", "[]").as_bytes())).await;
        client
    };
    for _ in 0..70 {
        greedy.push(send().await);
    }
    // Alone, the address has nearly all that the node takes.
    until("the node is busy", async || node.count("eth_getLogs") >= 45).await;
    let watch = process.watch();
    sleep(Duration::from_secs(2)).await;
    // Now they fill the door, and more knock.
    for _ in 0..100 {
        greedy.push(send().await);
    }
    sleep(Duration::from_secs(2)).await;
    let seen = watch.end().await;
    assert!(process.is_alive() && seen.calls > 10 && seen.unseen.is_empty(), "{seen:?}");
    assert!(seen.failed.is_empty(), "{seen:?}");
    let log = process.log();
    assert!(log.lines().count() < 30, "{log}");
}
