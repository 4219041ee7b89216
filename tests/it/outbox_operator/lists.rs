//! Lists, single transactions, and orders for them.

use super::*;
use crate::common::{client::Client, log::Log};

const ORDER: &str = "the operator gave an order for a transaction";

/// The hashes of a list.
fn hashes(list: &Value) -> Vec<&str> {
    list["transactions"].as_array().unwrap().iter().map(|of| of["hash"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_list_is_filtered_and_goes_on_page_by_page() {
    let scene = Scene::new("").await;
    scene.send(0).await;
    scene.net.chain().mine(1);
    scene.until_state(0, "mined").await;
    scene.send(1).await;
    scene.until_state(1, "sent").await;
    let mut all = SIGNED.map(|[_, hash]| hash);
    all.sort_unstable();
    let list = scene.ask("GET /outbox", 200).await;
    assert_eq!((hashes(&list), &list["next"]), (all.to_vec(), &Value::Null));
    let first = scene.ask("GET /outbox?limit=1", 200).await;
    assert_eq!(hashes(&first), all[..1]);
    let next = first["next"].as_str().unwrap();
    assert_eq!(next, format!("default/default/{}", all[0]));
    let second = scene.ask(&format!("GET /outbox?limit=1&after={next}"), 200).await;
    assert_eq!(hashes(&second), all[1..]);
    for (query, found) in [
        ("state=mined", vec![SIGNED[0][1]]),
        ("state=sent,mined", all.to_vec()),
        ("state=final", vec![]),
        ("tenant=default&network=default", all.to_vec()),
        ("tenant=nobody", vec![]),
        ("network=other", vec![]),
    ] {
        assert_eq!(hashes(&scene.ask(&format!("GET /outbox?{query}"), 200).await), found, "{query}");
    }
    for (query, why) in [
        ("limit=0", "limit=0 is no number from 1 to 1000"),
        ("limit=1001", "limit=1001 is no number from 1 to 1000"),
        ("state=lost", "there is no state `lost`; there are accepted, sent"),
        ("colour=red", "there is no parameter `colour` here; there are network, tenant"),
        ("limit=1&limit=2", "the parameter `limit` is there twice"),
        ("tenant=UP", "tenant=UP: "),
        ("after=x", "after=x: take the `next` of the page before"),
    ] {
        let error = scene.ask(&format!("GET /outbox?{query}"), 400).await;
        assert!(error["error"].as_str().unwrap().starts_with(why), "{query}: {error}");
    }
}

#[tokio::test]
async fn a_transaction_is_shown_with_its_whole_life() {
    let scene = Scene::new("").await;
    let answer = scene.send_as(0, "x-request-id: abc\r\n").await.json();
    assert_eq!(answer["result"], SIGNED[0][1]);
    scene.net.chain().mine(1);
    scene.until_state(0, "mined").await;
    let block = scene.net.chain().head();
    let found = scene.ask(&format!("GET /outbox/{}", SIGNED[0][1]), 200).await;
    let of = &found["transactions"][0];
    assert_eq!((&of["nonce"], &of["chain_id"], &of["request_id"]), (&json!(0), &json!(1337), &json!("abc")));
    assert_eq!(of["from"], "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
    assert_eq!(of["block"], json!({ "number": block.number, "hash": block.hash.to_string() }));
    let history = of["history"].as_array().unwrap();
    let states: Vec<_> = history.iter().map(|step| step["state"].as_str().unwrap()).collect();
    assert_eq!((states.first(), states.last()), (Some(&"accepted"), Some(&"mined")));
    let sent = history.iter().find(|step| step["state"] == "sent").unwrap();
    assert!(sent["node"].as_str().unwrap().starts_with("el-") && sent["at"].as_str().unwrap().ends_with('Z'));
    let unknown = format!("0x{}", "7".repeat(64));
    let error = scene.ask(&format!("GET /outbox/{unknown}"), 404).await;
    assert_eq!(error["error"], format!("the outbox has no transaction {unknown}"));
    scene.ask("GET /outbox/7", 400).await;
}

#[tokio::test]
async fn a_cancelled_transaction_is_sent_no_more_and_can_be_dropped() {
    let scene = Scene::new("ack = \"disk\"\n").await;
    (0..2).for_each(|node| scene.net.el(node).set_fault(steadfast::devnet::Fault::refuse(&["eth_sendRawTransaction"])));
    scene.send(0).await;
    let of = |order: &str| format!("POST /outbox/{}/{order}", SIGNED[0][1]);
    let error = scene.ask(&of("drop"), 409).await;
    assert_eq!(error["error"], "the transaction is accepted: cancel it first");
    let sends = || scene.net.el(0).count("eth_sendRawTransaction");
    until("it was sent once", async || sends() > 0).await;
    let before = sends();
    assert_eq!(scene.ask(&of("resend"), 200).await["done"], "resend");
    until("it is sent at once", async || sends() > before).await;
    let done = scene.ask(&of("cancel"), 200).await;
    assert!(done["note"].as_str().unwrap().contains("cannot unsend"), "{done}");
    assert_eq!(scene.state(0).await, "cancelled");
    let error = scene.ask(&of("resend"), 409).await;
    assert_eq!(error["error"], "the transaction is cancelled: only one that waits for a block can be sent again");
    let answer = scene.send_as(0, "").await.json();
    assert_eq!(answer["error"]["data"]["reason"], "cancelled", "{answer}");
    assert_eq!(scene.ask(&of("drop"), 200).await["done"], "drop");
    scene.ask(&of("drop"), 404).await;
    // The same bytes begin another life.
    scene.send(0).await;
    assert_eq!(scene.state(0).await, "accepted");
}

#[tokio::test]
async fn an_order_that_two_tenants_could_mean_does_nothing() {
    let scene = Scene::new("tenant_header = \"x-tenant-id\"\n").await;
    for tenant in ["a", "b"] {
        assert_eq!(scene.send_as(0, &format!("x-tenant-id: {tenant}\r\n")).await.json()["result"], SIGNED[0][1]);
    }
    let [_, hash] = SIGNED[0];
    let found = scene.ask(&format!("GET /outbox/{hash}"), 200).await;
    assert_eq!(found["transactions"].as_array().unwrap().len(), 2);
    let error = scene.ask(&format!("POST /outbox/{hash}/cancel"), 409).await;
    let why = error["error"].as_str().unwrap();
    assert!(why.contains(&format!("a/default/{hash}, b/default/{hash}")), "{why}");
    scene.ask(&format!("POST /outbox/{hash}/cancel?tenant=b"), 200).await;
    let state = async |tenant: &str| {
        scene.ask(&format!("GET /outbox/{hash}?tenant={tenant}"), 200).await["transactions"][0]["state"].clone()
    };
    assert_eq!(state("b").await, "cancelled");
    assert_ne!(state("a").await, "cancelled");
    assert_eq!(hashes(&scene.ask("GET /outbox?tenant=a", 200).await).len(), 1);
}

/// An order with a parameter that the admin side does not know has no effect: a misspelt `tenant`
/// must not widen it. Each order that is carried out is in the log.
#[tokio::test]
async fn an_order_with_an_unknown_parameter_does_nothing() {
    let log = Log::start();
    let scene = Scene::new("").await;
    scene.send(0).await;
    let [_, hash] = SIGNED[0];
    for order in ["resend", "cancel", "drop"] {
        let error = scene.ask(&format!("POST /outbox/{hash}/{order}?tenat=a"), 400).await;
        assert!(error["error"].as_str().unwrap().contains("tenat"), "{error}");
    }
    scene.ask("POST /outbox/replay?from=0&yse=1", 400).await;
    assert_ne!(scene.state(0).await, "cancelled");
    assert_eq!(log.saying(ORDER).len(), 0);
    scene.ask(&format!("POST /outbox/{hash}/cancel"), 200).await;
    let told = log.saying(ORDER);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].to_string().contains(hash) && told[0].to_string().contains("cancel"), "{told:?}");
    scene.ask("POST /outbox/replay?from=0", 200).await;
    assert_eq!(log.saying("events were replayed to endpoints").len(), 1);
}

#[tokio::test]
async fn orders_are_guarded_as_all_of_the_admin_side() {
    let scene = Scene::new("").await;
    scene.send(0).await;
    let cancel = format!("/outbox/{}/cancel", SIGNED[0][1]);
    let status = async |method: &str, lines: &str| {
        let mut client = Client::connect(scene.proxy.app.admin_addr()).await;
        client.send(format!("{method} {cancel} HTTP/1.1\r\n{lines}Content-Length: 0\r\n\r\n")).await;
        client.response().await.status
    };
    assert_eq!(status("POST", "Host: localhost\r\nOrigin: http://evil.example\r\n").await, 403);
    assert_eq!(status("POST", "Host: evil.example\r\n").await, 403);
    assert_eq!(status("DELETE", "Host: localhost\r\n").await, 405);
    assert_eq!(status("GET", "Host: localhost\r\n").await, 404);
    assert_ne!(scene.state(0).await, "cancelled");
    for path in ["/outboxes", "/outbox/quarantine/x", "/outbox/replay/now"] {
        assert_eq!(scene.proxy.admin(&format!("POST {path}")).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn without_an_outbox_its_paths_say_so() {
    let net = start_devnet(Options { execution: 1, ..Options::default() }).await;
    let proxy = Proxy::over([&*net.el(0).http_url()], "").await;
    let answer = proxy.admin("GET /outbox").await;
    assert_eq!(answer.status, 404);
    assert!(answer.json()["error"].as_str().unwrap().contains("no [outbox]"), "{}", answer.text());
    assert_eq!(proxy.admin("GET /status").await.json()["outbox"], Value::Null);
    assert!(!proxy.admin("GET /metrics").await.text().contains("steadfast_outbox"));
}
