//! A disk whose syncs hang, as those of a volume that has stalled.

use std::time::Duration;

use tokio::time::timeout;

use steadfast::devnet::Fault;

use super::{receiver::Receiver, *};
use crate::common::signed;

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

/// U25: the bytes of a call that is over count until the disk has them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_count_until_the_disk_has_them() {
    const LENGTH: usize = 100_000;
    let scene = Scene::new("[calls]\ntimeout = \"1s\"\nhold = \"500ms\"\n").await;
    let held = async || {
        let text = scene.proxy.admin("GET /metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix("steadfast_client_memory_bytes "));
        line.unwrap().parse::<f64>().unwrap() as usize
    };
    scene.disk.hold_syncs();
    let (raw, _) = signed::long(1337, 1, 0, LENGTH);
    let answer = scene.proxy.post(call(1, "eth_sendRawTransaction", &json!([raw]).to_string())).await.json();
    assert_eq!(answer["error"]["code"], -32002, "{answer}");
    drop(raw);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let bytes = held().await;
    assert!(bytes > LENGTH / 2, "{bytes}");
    scene.disk.release_syncs();
    until("the bytes count no more", async || held().await < LENGTH / 2).await;
}

/// A reload forgets nothing that is on its way to the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_behind_a_disk_that_hangs_loses_no_event() {
    let endpoint = Receiver::start(&["node.down", "switch"], 200).await;
    let scene = Scene::new(&endpoint.settings).await;
    until("the start is told", async || endpoint.seen().iter().any(|(_, kind)| kind == "switch")).await;
    let before = endpoint.seen().len();
    scene.disk.hold_syncs();
    let active = scene.proxy.side().await["active"].clone();
    let index = usize::from(scene.net.el(0).name() != active.as_str().unwrap());
    scene.net.el(index).set_fault(Fault::Down);
    until("a sync hangs", async || scene.disk.waiting_syncs() > 0).await;
    scene.reload(&format!("max_pending = 5000\n{}", endpoint.settings)).await;
    scene.disk.release_syncs();
    let told = || {
        let mut kinds: Vec<String> = endpoint.seen()[before..].iter().map(|(_, kind)| kind.clone()).collect();
        kinds.sort();
        kinds
    };
    until("both events are told", async || told() == ["node.down", "switch"]).await;
}
