//! Tenants, and the names of request and trace.

use super::*;
use crate::common::{
    origin::{Origin, Reply, Seen},
    proxy::nodes,
};

const TENANTS: &str = "[outbox]\ntenant_header = \"x-tenant-id\"\n";

impl Scene {
    async fn as_tenant(&self, headers: &str, body: String) -> Value {
        let mut client = self.proxy().client().await;
        client.send(with_headers("/", headers, body.as_bytes())).await;
        client.response().await.json()
    }
}

/// U19: no tenant sees another's transaction.
#[tokio::test(start_paused = true)]
async fn a_tenant_sees_its_own_transactions_only() {
    let scene = Scene::start(TENANTS).await;
    let (raw, hash) = transaction(0);
    let answer = scene.as_tenant("X-Tenant-Id: acme\r\n", send(&raw)).await;
    assert_eq!(answer["result"], json!(hash), "{answer}");
    let status = |headers: &'static str| scene.as_tenant(headers, call(2, STATUS, &format!("[\"{hash}\"]")));
    assert_eq!(status("x-tenant-id: acme\r\n").await["result"]["hash"], json!(hash));
    assert_eq!(status("x-tenant-id: other\r\n").await["result"], Value::Null);
    // The client of a gateway adds a header, and stays where the gateway put it.
    assert_eq!(status("x-tenant-id: acme\r\nConnection: x-tenant-id\r\n").await["result"]["hash"], json!(hash));
    assert_eq!(status("").await["result"], Value::Null);
    // Both have one of their own of the same bytes.
    let answer = scene.as_tenant("x-tenant-id: other\r\n", send(&raw)).await;
    assert_eq!(answer["result"], json!(hash), "{answer}");
    assert_eq!(status("x-tenant-id: other\r\n").await["result"]["hash"], json!(hash));
    let requests = [0, 1, 2].map(|index| scene.node(index).requests());
    let heads = requests.iter().flatten().map(|request| format!("{request:?}").to_lowercase());
    assert!(!heads.into_iter().any(|head| head.contains("x-tenant-id")), "nodes were told of tenants");
}

/// U7: names are checked where they come in, and a name that comes twice is none.
#[tokio::test(start_paused = true)]
async fn a_name_that_is_no_tenants_is_refused() {
    let scene = Scene::start(TENANTS).await;
    let (raw, _) = transaction(0);
    for headers in ["x-tenant-id: A B\r\n", "x-tenant-id: a\r\nx-tenant-id: a\r\n", "x-tenant-id: \r\n"] {
        let answer = scene.as_tenant(headers, send(&raw)).await;
        let (code, reason, message) = error(&answer);
        assert_eq!((code, reason), (-32602, "invalid_tenant"), "{answer}");
        assert!(message.contains("x-tenant-id"), "{message}");
    }
    let read = scene.as_tenant("x-tenant-id: A B\r\n", call(1, "eth_blockNumber", "[]")).await;
    assert!(read["result"].is_string(), "reads need no tenant: {read}");
}

/// U27: a tenant has bounds of its own, and one that reaches them keeps no other out.
#[tokio::test(start_paused = true)]
async fn a_tenant_that_reaches_its_bound_keeps_no_other_out() {
    let bounds = "max_pending = 10\nmax_pending_per_tenant = 2\n";
    let scene = Scene::start(&format!("{TENANTS}{bounds}")).await;
    for nonce in 0..3 {
        let answer = scene.as_tenant("x-tenant-id: acme\r\n", send(&transaction(nonce).0)).await;
        if nonce < 2 {
            assert_eq!(answer["result"], json!(hash(nonce)), "{answer}");
        } else {
            let (code, reason, message) = error(&answer);
            assert_eq!((code, reason), (-32005, "outbox_full"), "{answer}");
            assert!(message.contains("outbox.max_pending_per_tenant"), "{message}");
        }
    }
    let answer = scene.as_tenant("x-tenant-id: other\r\n", send(&transaction(2).0)).await;
    assert_eq!(answer["result"], json!(hash(2)), "{answer}");
}

/// U27: rules of one tenant take the place of the outbox's own, and a reload changes them.
#[tokio::test(start_paused = true)]
async fn a_tenant_has_rules_of_its_own() {
    let rules = "[[outbox.tenant]]\nname = \"acme\"\n";
    let settings = format!("{TENANTS}confirmations = 9\n");
    let scene = Scene::start(&format!("{settings}{rules}confirmations = 2\nmax_pending = 1\n")).await;
    let acme = "x-tenant-id: acme\r\n";
    let answer = scene.as_tenant(acme, send(&transaction(0).0)).await;
    assert_eq!(answer["result"], json!(hash(0)), "{answer}");
    let answer = scene.as_tenant(acme, send(&transaction(1).0)).await;
    let (code, reason, message) = error(&answer);
    assert_eq!((code, reason), (-32005, "outbox_full"), "{answer}");
    assert!(message.contains("outbox.tenant.max_pending"), "{message}");
    for nonce in 0..2 {
        let (raw, hash) = signed(2, nonce, 1);
        let answer = scene.as_tenant("x-tenant-id: other\r\n", send(&raw)).await;
        assert_eq!(answer["result"], json!(hash), "{answer}");
    }
    let state = async |headers: &str, hash: B256| {
        let answer = scene.as_tenant(headers, call(2, STATUS, &format!("[\"{hash}\"]"))).await;
        answer["result"]["state"].as_str().unwrap_or("none").to_owned()
    };
    scene.mine(3).await;
    let other = signed(2, 0, 1).1;
    until("two blocks confirm it", async || state(acme, hash(0)).await == "confirmed").await;
    assert_eq!(state("x-tenant-id: other\r\n", other).await, "mined", "for others nine do");
    let more = format!("{rules}deadline = \"4s\"\nmax_pending = 9\n");
    let after = scene.settings.replace(&format!("{rules}confirmations = 2\nmax_pending = 1\n"), &more);
    assert_ne!(after, scene.settings);
    scene.proxy().reload(&after).await;
    // Nonce 1 is missing, so no block takes it.
    let answer = scene.as_tenant(acme, send(&transaction(2).0)).await;
    assert_eq!(answer["result"], json!(hash(2)), "{answer}");
    until("the tenant's deadline ends it", async || state(acme, hash(2)).await == "expired").await;
}

/// Without the setting no header is looked at.
#[tokio::test(start_paused = true)]
async fn without_the_setting_no_header_names_a_tenant() {
    let scene = Scene::start(ON).await;
    let (raw, hash) = transaction(0);
    let answer = scene.as_tenant("x-tenant-id: acme\r\n", send(&raw)).await;
    assert_eq!(answer["result"], json!(hash), "{answer}");
    assert_eq!(scene.status(hash).await["hash"], json!(hash));
}

/// U4, U57: the names of request and trace go with each send, also with those of a later proxy.
#[tokio::test(start_paused = true)]
async fn request_and_trace_go_with_every_send() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let net = Net::default();
    let origin = Origin::within(&net, |seen: &Seen| match seen.method().as_str() {
        SEND => Reply::error(seen, -32000, "txpool is full, come again"),
        _ => Reply::result(seen, "null"),
    })
    .await;
    let settings = ["[outbox]\nack = \"disk\"\n", &nodes([origin.url()])].concat();
    let proxy = Proxy::launch(&net, &settings).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let (raw, _) = transaction(0);
    let headers = format!("x-request-id: order-7\r\ntraceparent: {TRACE}\r\n");
    let mut client = proxy.client().await;
    client.send(with_headers("/", &headers, send(&raw).as_bytes())).await;
    assert!(client.response().await.json()["result"].is_string());
    let sends = || origin.seen().into_iter().filter(|seen| seen.method() == SEND).collect::<Vec<_>>();
    until("it was sent", async || !sends().is_empty()).await;
    proxy.app.shutdown().await;
    let before = sends().len();
    let proxy = Proxy::launch(&net, &settings).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    until("it was sent again", async || sends().len() > before).await;
    for seen in sends() {
        assert_eq!(seen.header("x-request-id"), ["order-7"], "{}", seen.head);
        assert_eq!(seen.header("traceparent"), [TRACE], "{}", seen.head);
    }
}
