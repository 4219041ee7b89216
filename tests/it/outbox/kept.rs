//! Records and deliveries that are kept for a while, and then go.

use http::{HeaderMap, StatusCode};
use steadfast::{
    app::{App, Source, World},
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

/// An endpoint that is gone for good.
struct Gone;

impl Post for Gone {
    fn post(&self, _: HeaderMap, _: bytes::Bytes) -> BoxFuture<'_, Result<Answer, PostError>> {
        Box::pin(async { Ok(Answer { status: StatusCode::GONE, retry_after: None }) })
    }
}

/// A scene whose endpoint takes nothing, with `more` in the outbox.
async fn without_endpoint(more: &str) -> Scene {
    let mut scene = Scene::prepare("").await;
    scene.stop().await;
    let settings = format!(
        "[outbox]\n{more}[[outbox.webhook]]\nname = \"billing\"\nurl = \"https://hooks.example/tx\"\n\
         events = [\"tx.accepted\"]\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n"
    );
    scene.settings = two_primaries_and_a_backup(&scene.devnet, &settings);
    let (net, text) = (&scene.net, scene.settings.clone());
    let (dial, listen) = (Arc::new(net.clone()), Arc::new(net.clone()));
    let (names, open_store) = (Arc::new(Names::new(net.clone())), net.open_store());
    let world = World {
        dial,
        listen,
        names,
        open_store,
        connect: Arc::new(|_| Ok(Arc::new(Gone))),
        threads: None,
        ..World::real(1)
    };
    let source: Source = Arc::new(move || Ok(crate::common::proxy::config(&text)));
    let app = App::start(source().unwrap(), world, Some(source)).await.unwrap();
    scene.proxy = Some(Proxy::of(&scene.net, app));
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
