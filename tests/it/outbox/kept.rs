//! Records and deliveries that are kept for a while, and then go.

use std::sync::Mutex;

use http::{HeaderMap, StatusCode};
use steadfast::{
    app::{App, Source, World},
    devnet::Fault,
    net::{
        BoxFuture,
        names::Names,
        post::{Answer, Post, PostError},
    },
};

use super::*;

/// The deadlines of these tests pass without a block.
const SHORT: &str = "[outbox]\ndeadline = \"2s\"\n";

/// Sends the sender's transaction of this nonce, and waits for its end.
async fn expired(scene: &Scene, nonce: u64) {
    scene.sent(nonce).await;
    scene.until_state(hash(nonce), "expired").await;
}

#[tokio::test(start_paused = true)]
async fn a_record_goes_when_it_was_kept_long_enough() {
    let scene = Scene::start(&format!("{SHORT}keep = \"1h\"\n")).await;
    expired(&scene, 0).await;
    // A reload changes `keep` for lives that end later.
    scene.proxy().reload(&scene.settings.replace(SHORT, "[outbox]\ndeadline = \"2s\"\n").replace("1h", "2h")).await;
    expired(&scene, 1).await;
    sleep(Duration::from_secs(3500)).await;
    assert_eq!([scene.state(hash(0)).await, scene.state(hash(1)).await], ["expired", "expired"]);
    sleep(Duration::from_secs(200)).await;
    assert_eq!([scene.state(hash(0)).await, scene.state(hash(1)).await], ["none", "expired"]);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(scene.state(hash(1)).await, "none");
}

/// Ten records of ended lives are kept for each that may be pending: beyond, the oldest go.
#[tokio::test(start_paused = true)]
async fn the_oldest_records_go_where_too_many_are_kept() {
    let scene = Scene::start(&format!("{SHORT}max_pending = 1\n")).await;
    for nonce in 0..11 {
        expired(&scene, nonce).await;
    }
    assert_eq!(scene.state(hash(0)).await, "expired", "eleven are kept until another one comes");
    expired(&scene, 11).await;
    assert_eq!(scene.state(hash(0)).await, "none");
    for nonce in 1..12 {
        assert_eq!(scene.state(hash(nonce)).await, "expired", "{nonce}");
    }
}

/// While one is kept that was given up, each block is read with its transactions, from two nodes;
/// afterwards from none.
#[tokio::test(start_paused = true)]
async fn whole_blocks_are_read_while_one_that_was_given_up_is_kept() {
    let scene = Scene::start(&format!("{SHORT}keep = \"1h\"\n")).await;
    expired(&scene, 0).await;
    for index in 0..3 {
        scene.node(index).set_fault(Fault::Forgetful);
        scene.node(index).clear_faults();
    }
    let whole = |index: usize| {
        let requests = scene.node(index).requests();
        requests.iter().filter(|one| one.method == "eth_getBlockByHash" && one.params.contains("true")).count()
    };
    let all = || (0..3).map(whole).sum::<usize>();
    let before = all();
    scene.mine(3).await;
    assert_eq!(all() - before, 6);
    sleep(Duration::from_secs(3700)).await;
    assert_eq!(scene.state(hash(0)).await, "none");
    // The block behind which the outbox finds that none is left.
    scene.mine(1).await;
    let before = all();
    scene.mine(3).await;
    assert_eq!(all(), before);
}

/// An endpoint with one answer to all.
struct Answers(StatusCode);

impl Post for Answers {
    fn post(&self, _: HeaderMap, _: bytes::Bytes) -> BoxFuture<'_, Result<Answer, PostError>> {
        let status = self.0;
        Box::pin(async move { Ok(Answer { status, retry_after: None }) })
    }
}

/// A scene whose endpoint takes nothing, with `more` in the outbox.
async fn without_endpoint(more: &str) -> Scene {
    with_endpoint(StatusCode::GONE, more).await
}

async fn with_endpoint(status: StatusCode, more: &str) -> Scene {
    let mut scene = Scene::prepare("").await;
    scene.stop().await;
    let settings = format!(
        "[outbox]\n{more}[[outbox.webhook]]\nname = \"billing\"\nurl = \"https://hooks.example/tx\"\n\
         events = [\"tx.accepted\"]\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n"
    );
    scene.settings = two_primaries_and_a_backup(&scene.devnet, &settings);
    let (net, text) = (&scene.net, Arc::new(Mutex::new(scene.settings.clone())));
    let read = text.clone();
    let (dial, listen) = (Arc::new(net.clone()), Arc::new(net.clone()));
    let (names, open_store) = (Arc::new(Names::new(net.clone())), net.open_store());
    let world = World {
        dial,
        listen,
        names,
        open_store,
        connect: Arc::new(move |_| Ok(Arc::new(Answers(status)))),
        threads: None,
        ..World::real(1)
    };
    let source: Source = Arc::new(move || Ok(crate::common::proxy::config(&read.lock().unwrap())));
    let app = App::start(source().unwrap(), world, Some(source)).await.unwrap();
    let mut proxy = Proxy::of(&scene.net, app);
    proxy.settings = text;
    scene.proxy = Some(proxy);
    scene.until_verdicts(["up", "up", "up"]).await;
    scene
}

/// The deliveries in quarantine: how many, and whether one is of this transaction.
async fn quarantined(scene: &Scene, of: B256) -> (usize, bool) {
    let listed = scene.proxy().admin("/outbox/quarantine?limit=1000").await.json();
    let all = listed["deliveries"].as_array().unwrap_or_else(|| panic!("{listed}")).clone();
    (all.len(), all.iter().any(|one| one.to_string().contains(&of.to_string())))
}

#[tokio::test(start_paused = true)]
async fn a_delivery_in_quarantine_goes_when_it_was_kept_long_enough() {
    let scene = without_endpoint("keep = \"1h\"\n").await;
    scene.sent(0).await;
    until("it is in quarantine", async || quarantined(&scene, hash(0)).await == (1, true)).await;
    sleep(Duration::from_secs(3500)).await;
    assert_eq!(quarantined(&scene, hash(0)).await, (1, true));
    sleep(Duration::from_secs(200)).await;
    assert_eq!(quarantined(&scene, hash(0)).await, (0, false));
}

/// Quarantine has a bound too: `max_bytes`, at 4 KiB for each delivery.
#[tokio::test(start_paused = true)]
async fn the_oldest_deliveries_leave_a_quarantine_that_outgrows() {
    let scene = without_endpoint(
        "max_bytes = \"64KiB\"\nmax_transaction = \"32KiB\"\nmax_blob_transaction = \"32KiB\"\ndeadline = \"1s\"\n",
    )
    .await;
    for nonce in 0..20 {
        scene.sent(nonce).await;
        let count = nonce as usize + 1;
        until("it is in quarantine", async || quarantined(&scene, hash(nonce)).await.0.min(16) == count.min(16)).await;
        sleep(Duration::from_millis(1100)).await;
    }
    sleep(Duration::from_secs(120)).await;
    assert_eq!(quarantined(&scene, hash(0)).await, (16, false));
    assert_eq!(quarantined(&scene, hash(19)).await, (16, true));
}

/// A reload takes the endpoint away: its deliveries go to quarantine.
#[tokio::test(start_paused = true)]
async fn deliveries_of_an_endpoint_that_leaves_the_settings_are_kept() {
    let scene = with_endpoint(StatusCode::SERVICE_UNAVAILABLE, "").await;
    scene.sent(0).await;
    sleep(Duration::from_secs(30)).await;
    assert_eq!(quarantined(&scene, hash(0)).await, (0, false), "it is tried again");
    scene.proxy().reload(&two_primaries_and_a_backup(&scene.devnet, "[outbox]\n")).await;
    until("it is in quarantine", async || quarantined(&scene, hash(0)).await == (1, true)).await;
    let listed = scene.proxy().admin("/outbox/quarantine").await.json();
    let reason = listed["deliveries"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("not in the settings"), "{reason}");
}
