//! A disk whose syncs hang, as those of a volume that has stalled.

use std::time::Duration;

use tokio::time::timeout;

use super::*;

/// Longer than any answer from memory takes, also on a machine that is busy.
const LONG: Duration = Duration::from_secs(20);

/// U43: only calls that send wait for the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_holds_up_no_read() {
    let scene = Scene::new("").await;
    scene.send(0).await;
    scene.disk.hold_syncs();
    let body = call(1, "eth_sendRawTransaction", &json!([SIGNED[1][0]]).to_string());
    let mut sender = scene.proxy.client().await;
    sender.send(crate::common::client::post("/", body.as_bytes())).await;
    until("a sync hangs", async || scene.disk.waiting_syncs() > 0).await;
    let from = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266";
    for _ in 0..20 {
        for (method, params) in [
            ("eth_blockNumber", json!([])),
            ("steadfast_getTransactionStatus", json!([SIGNED[0][1]])),
            ("eth_getTransactionByHash", json!([SIGNED[0][1]])),
            ("eth_getTransactionCount", json!([from, "pending"])),
        ] {
            let asked = scene.proxy.post(call(2, method, &params.to_string()));
            let answer = timeout(LONG, asked).await.unwrap_or_else(|_| panic!("{method} hangs")).json();
            assert!(!answer["result"].is_null(), "{method}: {answer}");
        }
    }
    for request in ["GET /status", "GET /outbox", "GET /metrics"] {
        let answer = timeout(LONG, scene.proxy.admin(request)).await.unwrap_or_else(|_| panic!("{request} hangs"));
        assert_eq!(answer.status, 200, "{request}");
    }
    timeout(LONG, scene.reload("max_pending = 5000\n")).await.expect("a reload hangs");
    scene.disk.release_syncs();
    assert_eq!(sender.response().await.json()["result"], SIGNED[1][1]);
}

/// U43: a disk that hangs is told, and holds up no further transaction's client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_is_told() {
    let scene = Scene::new("").await;
    scene.disk.hold_syncs();
    let send = |place: usize| call(1, "eth_sendRawTransaction", &json!([SIGNED[place][0]]).to_string());
    let mut first = scene.proxy.client().await;
    first.send(crate::common::client::post("/", send(0).as_bytes())).await;
    let ready = async || scene.proxy.admin("GET /readyz").await.text();
    until("the disk counts as unwritable", async || ready().await.contains("the disk does not answer")).await;
    let error = scene.proxy.post(send(1)).await.json()["error"].clone();
    assert_eq!((&error["code"], &error["data"]["reason"]), (&json!(-32005), &json!("outbox_unwritable")));
    scene.disk.release_syncs();
    assert_eq!(first.response().await.json()["result"], SIGNED[0][1]);
    until("the disk counts as writable", async || ready().await.contains("\"outbox\": \"writable\"")).await;
    assert_eq!(scene.proxy.post(send(1)).await.json()["result"], SIGNED[1][1]);
}
