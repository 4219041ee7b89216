//! The proxy goes down in order, with transactions on their way.

use super::*;
use crate::common::{
    log::Log,
    origin::{Origin, Reply, Seen, ok},
};
use tokio::io::AsyncWriteExt as _;

/// How long a slow node takes over a transaction.
const SLOW: Duration = Duration::from_secs(3);

/// U47, U51: what is under way ends, what waits stays on the disk for the next start.
#[tokio::test(start_paused = true)]
async fn no_sending_begins_while_the_proxy_goes_down() {
    use steadfast::devnet::Fault;
    let mut scene = Scene::start("[outbox]\nack = \"disk\"\n").await;
    for index in 0..3 {
        scene.node(index).set_fault(Fault::slow_over(3000, &[SEND]));
    }
    for nonce in 0..3 {
        scene.sent(nonce).await;
    }
    let log = Log::start();
    scene.stop().await;
    let told = log.saying("the outbox is closed, and the rest is on the disk");
    assert_eq!((&told[0]["transactions"], &told[0]["deliveries"]), (&json!(3), &json!(0)));
    let sends = [0, 1, 2].map(|index| scene.node(index).count(SEND));
    assert_eq!(sends, [1, 1, 1], "a later nonce was sent while the proxy went down");
    for index in 0..3 {
        scene.node(index).clear_faults();
    }
    scene.proxy = Some(Proxy::launch(&scene.net, &scene.settings).await);
    scene.until_mempool(0, &[hash(0), hash(1), hash(2)]).await;
}

/// A client that waits for nodes that are silent gets the hash before the proxy is gone.
#[tokio::test(start_paused = true)]
async fn a_client_that_waits_at_the_end_gets_the_hash() {
    use steadfast::devnet::Fault;
    let scene = Scene::prepare("shutdown_grace = \"3s\"\n[outbox]\n").await;
    scene.until_verdicts(["up", "up", "up"]).await;
    for index in 0..3 {
        scene.node(index).set_fault(Fault::slow_over(60_000, &[SEND]));
    }
    let mut client = scene.proxy().client().await;
    client.send(crate::common::client::post("/", send(&transaction(0).0).as_bytes())).await;
    sleep(Duration::from_secs(1)).await;
    let Scene { proxy, .. } = scene;
    let end = tokio::spawn(proxy.unwrap().app.shutdown());
    let answer = client.response().await.json();
    assert_eq!(answer["result"], json!(hash(0)), "{answer}");
    end.await.unwrap();
}

/// A network whose node is slow does not leave another network sending.
#[tokio::test(start_paused = true)]
async fn all_networks_are_drained_at_once() {
    let net = Net::default();
    let answer = |seen: &Seen, to_a_transaction: &dyn Fn(&Seen) -> Reply| match seen.method().as_str() {
        SEND => to_a_transaction(seen),
        _ => Reply::result(seen, "null"),
    };
    let slow = |seen: &Seen| {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{},"result":"{}"}}"#, seen.id(), hash(0));
        Reply::act(|mut io| async move {
            sleep(SLOW).await;
            io.write_all(&ok(body)).await.ok()?;
            Some(io)
        })
    };
    let first = Origin::within(&net, move |seen| answer(seen, &slow)).await;
    let busy = |seen: &Seen| Reply::error(seen, -32000, "txpool is full");
    let second = Origin::within(&net, move |seen| answer(seen, &busy)).await;
    let settings = format!(
        "[outbox]\nack = \"disk\"\n[[networks.a.el.primary]]\nhttp = \"{}\"\n[[networks.b.el.primary]]\nhttp = \"{}\"\n",
        first.url(),
        second.url()
    );
    let proxy = Proxy::launch(&net, &settings).await;
    sleep(Duration::from_secs(2)).await;
    for path in ["/a", "/b"] {
        let mut client = proxy.client().await;
        client.send(with_headers(path, "", send(&transaction(0).0).as_bytes())).await;
        let told = client.response().await.json();
        assert_eq!(told["result"], json!(hash(0)), "{path}: {told}");
    }
    until("both were sent it", async || first.count(SEND) == 1 && second.count(SEND) == 1).await;
    let start = Instant::now();
    proxy.app.shutdown().await;
    assert!(start.elapsed() >= Duration::from_secs(2), "nothing was under way: {:?}", start.elapsed());
    assert_eq!(second.count(SEND), 1, "the pause of two seconds had passed, and it was sent again");
}
