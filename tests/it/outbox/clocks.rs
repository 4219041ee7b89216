//! The wall clock of the machine is set to another time.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::*;
use steadfast::app::{App, Source, World};

/// Unix time at the start.
const DAWN: u64 = 1_800_000_000;

/// Starts a proxy whose wall clock is so many seconds ahead of the time that passes.
async fn launch(scene: &mut Scene, ahead: &Arc<AtomicU64>, start: Instant) {
    let ahead = ahead.clone();
    let wall = Arc::new(move || DAWN + start.elapsed().as_secs() + ahead.load(SeqCst));
    let settings = scene.settings.clone();
    let source: Source = Arc::new(move || Ok(crate::common::proxy::config(&settings)));
    let world = World { wall, ..scene.net.world(DAWN, start) };
    let app = App::start(source().unwrap(), world, Some(source)).await.unwrap();
    scene.proxy = Some(Proxy::of(&scene.net, app));
    scene.until_verdicts(["up", "up", "up"]).await;
}

/// Deadlines and retries go by the time that passes. A restart takes the clock as it is.
#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_ahead_expires_nothing() {
    let mut scene = Scene::prepare("").await;
    scene.stop().await;
    scene.settings = two_primaries_and_a_backup(&scene.devnet, "[outbox]\ndeadline = \"1h\"\n");
    let (ahead, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
    launch(&mut scene, &ahead, start).await;
    let hash = scene.sent(0).await;
    scene.until_state(hash, "sent").await;
    ahead.store(25 * 3600, SeqCst);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(scene.state(hash).await, "sent", "the deadline is 50 minutes away");
    sleep(Duration::from_secs(3000)).await;
    scene.until_state(hash, "expired").await;
    let (raw, other) = signed(2, 0, 1);
    assert_eq!(scene.send(&raw).await["result"], json!(other));
    scene.until_state(other, "sent").await;
    ahead.store(50 * 3600, SeqCst);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(scene.state(other).await, "sent");
    scene.stop().await;
    launch(&mut scene, &ahead, start).await;
    // The new process has the clock's own time.
    scene.until_state(other, "expired").await;
}
