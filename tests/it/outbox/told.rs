//! Webhooks of the whole proxy: each transition of a transaction comes to the endpoint.

use std::sync::Mutex;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::*;
use steadfast::{
    app::{App, Source, World},
    net::{
        BoxFuture,
        names::Names,
        post::{Answer, Post, PostError},
    },
};

type Got = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

/// An endpoint that takes all, or fails so many times first.
struct Endpoint {
    got: Got,
    failing: Mutex<usize>,
}

impl Post for Endpoint {
    fn post(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<Answer, PostError>> {
        let mut failing = self.failing.lock().unwrap();
        let is_taken = *failing == 0;
        *failing = failing.saturating_sub(1);
        if is_taken {
            self.got.lock().unwrap().push((headers, serde_json::from_slice(&body).unwrap()));
        }
        let status = if is_taken { StatusCode::NO_CONTENT } else { StatusCode::INTERNAL_SERVER_ERROR };
        Box::pin(async move { Ok(Answer { status, retry_after: None }) })
    }
}

async fn launch(net: &Net, settings: &str, got: &Got, failing: usize) -> App {
    let (dial, listen) = (Arc::new(net.clone()), Arc::new(net.clone()));
    let (names, open_store) = (Arc::new(Names::new(net.clone())), net.open_store());
    let endpoint = Arc::new(Endpoint { got: got.clone(), failing: Mutex::new(failing) });
    let connect: steadfast::outbox::webhook::Connect = Arc::new(move |_| Ok(endpoint.clone()));
    let world = World { dial, listen, names, open_store, connect, threads: None, ..World::real(1) };
    let settings = settings.to_owned();
    let source: Source = Arc::new(move || Ok(crate::common::proxy::config(&settings)));
    App::start(source().unwrap(), world, Some(source)).await.unwrap()
}

/// U34, U38, U39: at least once with one id, after the disk has the transition.
#[tokio::test(start_paused = true)]
async fn an_endpoint_is_told_of_each_transition_with_one_id() {
    let hook = "[outbox]\nconfirmations = 2\n[[outbox.webhook]]\nname = \"billing\"\nurl = \"https://hooks.example/tx\"\n\
        events = [\"tx.accepted\", \"tx.mined\", \"tx.confirmed\", \"tx.final\", \"node.down\"]\n\
        secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n";
    let mut scene = Scene::prepare("").await;
    scene.stop().await;
    scene.settings = two_primaries_and_a_backup(&scene.devnet, hook);
    let got = Got::default();
    let app = launch(&scene.net, &scene.settings, &got, 2).await;
    scene.proxy = Some(Proxy::of(&scene.net, app));
    scene.until_verdicts(["up", "up", "up"]).await;
    let (raw, hash) = transaction(0);
    let mut client = scene.proxy().client().await;
    client.send(with_headers("/", "x-request-id: order-7\r\n", send(&raw).as_bytes())).await;
    assert_eq!(client.response().await.json()["result"], json!(hash));
    scene.mine(3).await;
    scene.devnet.chain().mine(200);
    scene.mine(2).await;
    let kinds = || got.lock().unwrap().iter().map(|(_, body)| body["type"].clone()).collect::<Vec<_>>();
    let all = ["tx.accepted", "tx.mined", "tx.confirmed", "tx.final"];
    let start = Instant::now();
    while !all.iter().all(|kind| kinds().contains(&json!(kind))) {
        assert!(start.elapsed() < Duration::from_secs(120), "{:?}", kinds());
        sleep(Duration::from_millis(100)).await;
    }
    let ids: std::collections::BTreeSet<_> =
        got.lock().unwrap().iter().map(|(headers, _)| headers["webhook-id"].to_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 4, "an event was told under two ids, or twice");
    for (headers, body) in got.lock().unwrap().iter() {
        assert_eq!(body["data"]["hash"], json!(hash), "{body}");
        assert_eq!(headers["x-request-id"], "order-7");
    }
    scene.node(1).set_fault(steadfast::devnet::Fault::Down);
    scene.until_verdicts(["up", "down", "up"]).await;
    until("the endpoint is told of the node", async || kinds().contains(&json!("node.down"))).await;
}

/// A step whose sync fails may be on the disk all the same: subscribers and endpoints are told of
/// each transition, once and in order.
#[tokio::test(start_paused = true)]
async fn transitions_written_by_a_failed_sync_are_told_in_order() {
    let hook = "[outbox]\nconfirmations = 3\n[[outbox.webhook]]\nname = \"billing\"\nurl = \"https://hooks.example/tx\"\n\
        events = [\"tx.accepted\", \"tx.mined\", \"tx.confirmed\"]\n\
        secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n";
    for seed in 0..6 {
        let mut scene = Scene::prepare("").await;
        scene.stop().await;
        scene.settings = two_primaries_and_a_backup(&scene.devnet, hook);
        let got = Got::default();
        let app = launch(&scene.net, &scene.settings, &got, 0).await;
        scene.proxy = Some(Proxy::of(&scene.net, app));
        scene.until_verdicts(["up", "up", "up"]).await;
        let hash = scene.sent(0).await;
        scene.until_state(hash, "sent").await;
        sleep(Duration::from_secs(5)).await;
        let mut ws = scene.proxy().ws().await;
        ws.subscribe(&format!("[\"steadfast_transaction\",\"{hash}\"]")).await;
        scene.net.1.fail_syncs(std::io::ErrorKind::Other, seed);
        scene.mine(1).await;
        sleep(Duration::from_secs(3)).await;
        scene.net.1.mend();
        sleep(Duration::from_secs(5)).await;
        scene.mine(4).await;
        scene.until_state(hash, "confirmed").await;
        let history = scene.history(hash).await;
        let mut told = Vec::new();
        while told.last().map(String::as_str) != Some("confirmed") {
            let (_, step) = ws.notification().await;
            told.push(step["state"].as_str().unwrap().to_owned());
            assert_eq!(step["seq"], told.len(), "seed {seed}: {told:?}");
        }
        assert_eq!(told, history[..told.len()], "seed {seed}");
        sleep(Duration::from_secs(5)).await;
        let kinds: Vec<_> = got.lock().unwrap().iter().map(|(_, body)| body["type"].clone()).collect();
        assert_eq!(kinds, ["tx.accepted", "tx.mined", "tx.confirmed"], "seed {seed}");
    }
}

/// Deliveries that wait have a bound: beyond, new transactions are refused.
#[tokio::test(start_paused = true)]
async fn deliveries_that_wait_refuse_new_transactions() {
    let hook = "[outbox]\nmax_bytes = \"64KiB\"\nmax_transaction = \"32KiB\"\nmax_blob_transaction = \"32KiB\"\n\
        [[outbox.webhook]]\nname = \"billing\"\nurl = \"https://hooks.example/tx\"\n\
        events = [\"tx.accepted\"]\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n";
    let mut scene = Scene::prepare("").await;
    scene.stop().await;
    scene.settings = two_primaries_and_a_backup(&scene.devnet, hook);
    let app = launch(&scene.net, &scene.settings, &Got::default(), usize::MAX).await;
    scene.proxy = Some(Proxy::of(&scene.net, app));
    scene.until_verdicts(["up", "up", "up"]).await;
    let mut taken = 0;
    let answer = loop {
        let answer = scene.send(&transaction(taken).0).await;
        if answer["error"].is_object() {
            break answer;
        }
        taken += 1;
    };
    assert!((14..=24).contains(&taken), "{taken} were taken");
    assert_eq!(error(&answer).1, "outbox_full", "{answer}");
    let again = scene.send(&transaction(0).0).await;
    assert_eq!(again["result"], json!(hash(0)), "{again}");
}
