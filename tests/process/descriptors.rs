//! Few file descriptors: `ulimit -n`. Honest calls take no longer for what others do, whether those hold connections to the door or
//! to the nodes.

use std::{future::pending, time::Duration};

use tokio::{net::TcpStream, time::sleep};

use crate::{
    common::{
        client::{Client, call},
        origin::{Origin, Reply},
        proxy::nodes,
        ws::Ws,
    },
    harness::{Process, Seen},
};

/// Nobody who calls, or looks, is kept out. The odd one may be, where it is slower to say something than thirty are to come behind it.
fn is_served(seen: &Seen) -> bool {
    seen.calls > 10 && seen.failed.len() <= seen.calls / 10 && seen.unseen.is_empty()
}

/// What an honest client sees before an attack.
async fn quiet(process: &Process) -> Seen {
    let watch = process.watch();
    sleep(Duration::from_millis(500)).await;
    watch.end().await
}

/// A node that never answers `eth_getLogs`.
async fn node() -> Origin {
    Origin::start(|seen| match seen.method().as_str() {
        "eth_getLogs" => Reply::act(async |_io| pending().await),
        _ => Reply::result(seen, "\"0x1\""),
    })
    .await
}

fn settings(node: &Origin) -> String {
    ["workers = 2\n", &nodes([node.url()])].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_keep_no_client_out() {
    let node = Origin::echo().await;
    let mut process = Process::start(&settings(&node), &["ulimit -n 256"]).await;
    let before = quiet(&process).await;
    let watch = process.watch();
    let mut silent = Vec::new();
    for _ in 0..20 {
        for _ in 0..20 {
            silent.push(TcpStream::connect(process.clients()).await.unwrap());
        }
        sleep(Duration::from_millis(50)).await;
    }
    sleep(Duration::from_secs(1)).await;
    let seen = watch.end().await;
    assert!(process.is_alive() && is_served(&seen), "{seen:?}");
    assert!(seen.is_as_fast_as(&before), "{seen:?}, and before {before:?}");
    assert!(process.descriptors() < 200, "{}", process.descriptors());
    // The limit is known already, and a reload that changes nothing of it tells nothing new.
    let mut operator = Client::connect(process.admin()).await;
    operator.send("POST /reload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(operator.response().await.status, 200);
    // The operator's side has descriptors of its own, and a bound.
    for _ in 0..100 {
        silent.push(TcpStream::connect(process.admin()).await.unwrap());
    }
    let watch = process.watch();
    sleep(Duration::from_secs(1)).await;
    let seen = watch.end().await;
    assert!(process.is_alive() && is_served(&seen), "{seen:?}");
    let log = process.log();
    assert_eq!(log.matches("the limit on open files is too low").count(), 1, "{log}");
    assert!(log.lines().count() < 20, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_websocket_with_many_slow_calls_keeps_nobody_out() {
    let node = node().await;
    let mut process = Process::start(&settings(&node), &["ulimit -n 1024"]).await;
    let watch = process.watch();
    let mut ws = Ws::dial(process.clients()).await;
    for _ in 0..1000 {
        ws.send(call(1, "eth_getLogs", "[]")).await;
    }
    sleep(Duration::from_secs(2)).await;
    let seen = watch.end().await;
    assert!(process.is_alive() && seen.failed.is_empty() && is_served(&seen), "{seen:?}");
    assert!(process.descriptors() < 200, "{}", process.descriptors());
    assert!(process.log().lines().count() < 20, "{}", process.log());
}

/// Together they would take every connection to the node that there may be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_clients_with_slow_calls_leave_the_node_to_others() {
    let node = node().await;
    // The node must not go out for what is never answered.
    let more = "[health]\ntimeout = \"60s\"\nfall = 1000\n";
    let mut process = Process::start(&[&settings(&node), more].concat(), &["ulimit -n 1024"]).await;
    let before = quiet(&process).await;
    let watch = process.watch();
    let mut sockets = Vec::new();
    for _ in 0..6 {
        let mut ws = Ws::dial(process.clients()).await;
        for id in 0..100 {
            ws.send(call(id, "eth_getLogs", "[]")).await;
        }
        sockets.push(ws);
    }
    sleep(Duration::from_secs(3)).await;
    let seen = watch.end().await;
    assert!(process.is_alive() && seen.failed.is_empty() && is_served(&seen), "{seen:?}");
    assert!(seen.is_as_fast_as(&before), "{seen:?}, and before {before:?}");
}
