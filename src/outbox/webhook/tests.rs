//! The whole of it under a paused clock: a store in memory, scripted endpoints.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::testing::{DAWN, MemoryStore, SECRET, Scene, Scripted, answer, webhook};
use crate::{
    net::post::PostError,
    outbox::{
        record::Millis,
        webhook::{RetryError, Table, Webhooks},
    },
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn endpoint(name: &str, lines: &str) -> crate::config::Webhook {
    webhook(name, &format!("https://{name}.example"), lines)
}

#[tokio::test(start_paused = true)]
async fn an_event_is_delivered_once_and_its_row_goes() {
    let (store, script) = (Arc::default(), Scripted::statuses(&[204]));
    let scene = Scene::start(&store, &[(endpoint("a", ""), script.clone())]);
    scene.event("default", "1");
    sleep(HOUR).await;
    let [got] = <[_; 1]>::try_from(script.got()).unwrap();
    assert_eq!((got.header("webhook-id"), &*got.body), ("evt_1", "{\"id\":\"1\"}"));
    assert_eq!(got.header("webhook-timestamp"), "1700000000");
    assert!(got.header("webhook-signature").starts_with("v1,"));
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(got.header("x-request-id"), "request-1");
    assert!(got.header("traceparent").starts_with("00-0af7"));
    assert!(store.waiting().is_empty() && store.given_up().is_empty());
    let [status] = <[_; 1]>::try_from(scene.webhooks.status()).unwrap();
    assert_eq!((status.delivered, status.failed, status.waiting, status.under_way), (1, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_tried_again_with_one_id_after_pauses_that_grow() {
    let (store, script) = (Arc::default(), Scripted::statuses(&[500, 302, 404, 200]));
    let scene = Scene::start(&store, &[(endpoint("a", ""), script.clone())]);
    scene.event("default", "1");
    sleep(HOUR).await;
    let got = script.got();
    assert_eq!(got.len(), 4, "{got:?}");
    assert!(got.iter().all(|one| one.header("webhook-id") == "evt_1" && one.body == got[0].body));
    for (n, pair) in got.windows(2).enumerate() {
        let (pause, most) = (pair[1].at - pair[0].at, 5 * SECOND * (1 << n));
        assert!(pause >= most / 2 && pause <= most + SECOND, "pause {n}: {pause:?}");
    }
    assert_ne!(got[0].header("webhook-timestamp"), got[1].header("webhook-timestamp"), "the time is the attempt's");
    assert!(store.waiting().is_empty() && store.given_up().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_silent_endpoint_is_a_failure_after_its_timeout() {
    let script = Scripted::new(|number, _| async move {
        if number == 0 {
            std::future::pending::<()>().await;
        }
        answer(200, None)
    });
    let scene = Scene::start(&Arc::default(), &[(endpoint("a", "timeout = \"3s\""), script.clone())]);
    scene.event("default", "1");
    sleep(HOUR).await;
    let got = script.got();
    assert_eq!(got.len(), 2);
    assert!(got[1].at - got[0].at >= 3 * SECOND + 5 * SECOND / 2);
    assert_eq!(scene.webhooks.status()[0].last_error.as_deref(), Some("no answer in time"));
}

/// U23, U58: a delivery that is given up stays, with the reason.
#[tokio::test(start_paused = true)]
async fn after_the_last_attempt_a_delivery_is_in_quarantine() {
    let (store, script) = (Arc::default(), Scripted::statuses(&[500, 500, 503, 500, 200]));
    let scene = Scene::start(&store, &[(endpoint("a", "max_attempts = 3"), script.clone())]);
    scene.event("team", "1");
    sleep(24 * HOUR).await;
    assert_eq!(script.got().len(), 3);
    assert!(store.waiting().is_empty(), "silence");
    let [given_up] = <[_; 1]>::try_from(store.given_up()).unwrap();
    assert_eq!(given_up.reason, "3 attempts, the last: status 503");
    assert_eq!((given_up.delivery.endpoint.as_str(), given_up.delivery.attempt), ("a", 3));
    let (tenant, work) = (given_up.delivery.tenant, given_up.delivery.id);
    assert_eq!(scene.webhooks.retry(&"other".parse().unwrap(), &work).await, Err(RetryError::NotThere));
    scene.webhooks.retry(&tenant, &work).await.unwrap();
    sleep(HOUR).await;
    assert_eq!(script.got().len(), 5, "it has all its attempts again");
    assert_eq!(script.got()[3].header("webhook-id"), "evt_1", "the same id");
    assert!(store.given_up().is_empty() && store.waiting().is_empty());
    assert_eq!(scene.webhooks.retry(&tenant, &work).await, Err(RetryError::NotThere));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_gone_for_good_is_not_asked_again() {
    let (store, script) = (Arc::default(), Scripted::statuses(&[410]));
    let scene = Scene::start(&store, &[(endpoint("a", ""), script.clone())]);
    scene.event("default", "1");
    sleep(HOUR).await;
    assert_eq!((script.got().len(), store.given_up().len()), (1, 1));
    assert!(store.given_up()[0].reason.contains("410"));
    drop(scene);
}

#[tokio::test(start_paused = true)]
async fn attempts_count_over_a_restart() {
    let (store, script) = (Arc::default(), Scripted::statuses(&[500]));
    let webhook = endpoint("a", "max_attempts = 4");
    let scene = Scene::start(&store, &[(webhook.clone(), script.clone())]);
    scene.event("default", "1");
    sleep(8 * SECOND).await;
    let before = script.got().len();
    assert_eq!(before, 2);
    assert_eq!(scene.webhooks.shutdown(SECOND).await, 1, "it is left, on the disk");
    let _scene = Scene::start(&store, &[(webhook, script.clone())]);
    sleep(24 * HOUR).await;
    assert_eq!((script.got().len(), store.given_up().len()), (4, 1));
}

#[tokio::test(start_paused = true)]
async fn retry_after_holds_all_deliveries_of_the_endpoint() {
    let script = Scripted::new(|number, _| async move { answer(if number == 0 { 429 } else { 200 }, Some("600")) });
    let scene = Scene::start(&Arc::default(), &[(endpoint("a", ""), script.clone())]);
    scene.event("default", "1");
    sleep(SECOND).await;
    scene.event("default", "2");
    sleep(590 * SECOND).await;
    assert_eq!(script.got().len(), 1);
    sleep(60 * SECOND).await;
    assert_eq!(script.got().len(), 3);
}

/// U37: an endpoint that fails is spared.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_is_asked_with_one_delivery_at_a_time() {
    let script = Scripted::new(|number, _| async move {
        sleep(SECOND).await;
        answer(if number < 20 { 500 } else { 200 }, None)
    });
    let store = Arc::default();
    let scene = Scene::start(&store, &[(endpoint("a", ""), script.clone())]);
    (0..40).for_each(|n| scene.event("default", &n.to_string()));
    sleep(2 * SECOND).await;
    // Eight at once, and four in the places of the first four that failed.
    assert_eq!((script.got().len(), script.most.load(SeqCst)), (12, 8));
    sleep(SECOND).await;
    script.most.store(0, SeqCst);
    sleep(60 * SECOND).await;
    assert!(scene.webhooks.status()[0].is_failing);
    let while_failing = script.got().len();
    assert!(while_failing > 12 && while_failing < 20, "{while_failing}");
    assert_eq!(script.most.load(SeqCst), 1, "more than one at a time");
    let untouched = store.waiting().iter().filter(|delivery| delivery.attempt == 0).count();
    assert!(untouched >= 40 - while_failing, "attempts were used up on an endpoint that fails");
    sleep(2 * HOUR).await;
    assert!(store.waiting().is_empty() && store.given_up().is_empty());
    assert!(!scene.webhooks.status()[0].is_failing);
}

#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_delays_no_other() {
    let slow = Scripted::new(|_, _| async { std::future::pending().await });
    let fast = Scripted::statuses(&[200]);
    let scene = Scene::start(
        &Arc::default(),
        &[(endpoint("slow", "timeout = \"60s\""), slow.clone()), (endpoint("fast", ""), fast.clone())],
    );
    (0..100).for_each(|n| scene.event("default", &n.to_string()));
    sleep(SECOND).await;
    assert_eq!((slow.got().len(), fast.got().len()), (8, 100), "eight at once, and the others at once");
}

#[tokio::test(start_paused = true)]
async fn a_busy_tenant_delays_no_other() {
    let script = Scripted::new(|_, _| async {
        sleep(SECOND).await;
        answer(200, None)
    });
    let scene = Scene::start(&Arc::default(), &[(endpoint("a", ""), script.clone())]);
    (0..1000).for_each(|n| scene.event("busy", &format!("b{n}")));
    sleep(SECOND / 2).await;
    scene.event("quiet", "q");
    sleep(SECOND).await;
    assert!(script.got().iter().any(|one| one.body.contains("\"q\"")), "it waits behind the other's thousand");
}

#[tokio::test(start_paused = true)]
async fn deliveries_of_a_removed_endpoint_are_quarantined() {
    let (store, stays, goes) = (Arc::default(), Scripted::statuses(&[200]), Scripted::statuses(&[500]));
    let (a, b) = (endpoint("a", ""), endpoint("b", ""));
    let scene = Scene::start(&store, &[(a.clone(), stays.clone()), (b.clone(), goes.clone())]);
    (0..250).for_each(|n| scene.event("default", &n.to_string()));
    sleep(SECOND).await;
    scene.apply(std::slice::from_ref(&a)).await;
    sleep(SECOND).await;
    let given_up = store.given_up();
    assert_eq!((given_up.len(), store.waiting().len(), stays.got().len()), (250, 0, 250));
    assert!(given_up.iter().all(|one| one.reason.contains("not in the settings") && one.delivery.endpoint == "b"));
    let (tenant, work) = (given_up[0].delivery.tenant.clone(), given_up[0].delivery.id.clone());
    assert_eq!(scene.webhooks.retry(&tenant, &work).await, Err(RetryError::NoEndpoint("b".to_owned())));
    // One that was made by the old settings a moment ago is not lost either.
    let late = store.put(&Table::new(&[a.clone(), b.clone()]), "default", "late", DAWN);
    scene.webhooks.added(&late);
    sleep(2 * 60 * SECOND).await;
    assert_eq!((store.given_up().len(), store.waiting().len()), (251, 0));
    // It comes back with other settings: what is retried goes there.
    scene.apply(&[a, endpoint("b", "timeout = \"1s\"")]).await;
    scene.webhooks.retry(&tenant, &work).await.unwrap();
    let before = goes.got().len();
    sleep(SECOND).await;
    assert_eq!(goes.got().len(), before + 1);
}

/// Its endpoint failed for so long that the next attempt is half an hour away, and then left.
#[tokio::test(start_paused = true)]
async fn an_operators_retry_waits_for_no_earlier_pause() {
    let (store, script) = (Arc::default(), Scripted::statuses(&[422]));
    let a = endpoint("a", "max_attempts = 100");
    let scene = Scene::start(&store, &[(a.clone(), script.clone())]);
    scene.event("default", "1");
    sleep(12 * HOUR).await;
    let before = script.got().len();
    while script.got().len() == before {
        sleep(SECOND).await;
    }
    scene.apply(&[]).await;
    sleep(SECOND).await;
    let [given_up] = <[_; 1]>::try_from(store.given_up()).unwrap();
    scene.apply(&[a]).await;
    scene.webhooks.retry(&given_up.delivery.tenant, &given_up.delivery.id).await.unwrap();
    sleep(2 * SECOND).await;
    assert_eq!(script.got().len(), before + 2);
}

#[tokio::test(start_paused = true)]
async fn deliveries_go_where_a_reload_says() {
    let (store, script) = (Arc::default(), Scripted::statuses(&[500, 200]));
    let scene = Scene::start(&store, &[(endpoint("a", ""), script.clone())]);
    scene.event("default", "1");
    sleep(SECOND).await;
    let mut other = endpoint("a", "events = [\"switch\"]");
    other.secrets.push(crate::config::Secret::new([7; 32].into()));
    scene.apply(std::slice::from_ref(&other)).await;
    sleep(HOUR).await;
    let got = script.got();
    assert_eq!(got.len(), 2);
    assert_eq!(got[1].header("webhook-signature").split(' ').count(), 2, "the new settings sign");
    assert!(store.waiting().is_empty() && store.given_up().is_empty());
}

#[tokio::test(start_paused = true)]
async fn deliveries_of_an_unknown_endpoint_are_quarantined() {
    let store: Arc<MemoryStore> = Arc::default();
    store.put(&Table::new(&[endpoint("gone", "")]), "default", "1", DAWN);
    let _scene = Scene::start(&store, &[(endpoint("a", ""), Scripted::statuses(&[200]))]);
    sleep(SECOND).await;
    assert_eq!((store.given_up().len(), store.waiting().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_delivery_waits_until_its_outcome_is_written_down() {
    let (store, script) = (Arc::<MemoryStore>::default(), Scripted::statuses(&[200]));
    let scene = Scene::start(&store, &[(endpoint("a", ""), script.clone())]);
    store.failing.store(usize::MAX, SeqCst);
    scene.event("default", "1");
    sleep(10 * SECOND).await;
    assert_eq!((script.got().len(), store.waiting().len()), (1, 1), "the row stays until it is recorded");
    (2..30).for_each(|n| scene.event("default", &n.to_string()));
    sleep(SECOND).await;
    assert_eq!(script.got().len(), 8, "an endpoint is sent without end what cannot be recorded");
    sleep(HOUR).await;
    assert_eq!(script.got().len(), 8);
    store.failing.store(0, SeqCst);
    sleep(HOUR).await;
    assert_eq!((script.got().len(), store.waiting().len()), (29, 0));
    drop(scene);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_was_not_heard_of_is_found_in_the_store() {
    let (store, script) = (Arc::<MemoryStore>::default(), Scripted::statuses(&[200]));
    let scene = Scene::start(&store, &[(endpoint("a", ""), script.clone())]);
    sleep(SECOND).await;
    store.put(&scene.webhooks.table(), "default", "1", DAWN);
    sleep(HOUR).await;
    assert_eq!(script.got().len(), 1);
}

/// U47: the end of the process delivers what is due.
#[tokio::test(start_paused = true)]
async fn shutdown_flushes_what_is_due_and_ends_in_time() {
    let (store, fast) = (Arc::<MemoryStore>::default(), Scripted::statuses(&[200]));
    let slow = Scripted::new(|_, _| async { std::future::pending().await });
    let scene = Scene::start(
        &store,
        &[(endpoint("fast", ""), fast.clone()), (endpoint("slow", "timeout = \"60s\""), slow.clone())],
    );
    (0..30).for_each(|n| scene.event("default", &n.to_string()));
    let begun = Instant::now();
    let left = scene.webhooks.shutdown(2 * SECOND).await;
    assert_eq!((fast.got().len(), left, store.waiting().len()), (30, 30, 30), "what is left is on the disk");
    assert!(begun.elapsed() >= 2 * SECOND && begun.elapsed() < 3 * SECOND, "{:?}", begun.elapsed());
    let begun = slow.got().len();
    scene.event("default", "late");
    sleep(HOUR).await;
    assert_eq!((slow.got().len(), fast.got().len()), (begun, 30), "it goes on after the end");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_does_not_stop_the_endpoint() {
    let script = Scripted::new(|number, _| async move {
        assert!(number > 0, "the first one panics");
        answer(200, None)
    });
    let store = Arc::default();
    let scene = Scene::start(&store, &[(endpoint("a", ""), script.clone())]);
    scene.event("default", "1");
    sleep(SECOND).await;
    scene.event("default", "2");
    sleep(HOUR).await;
    assert_eq!(script.got().len(), 3);
    assert!(store.waiting().is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_secret_is_in_a_reason_or_an_error() {
    let secret = "k3y-of-the-path";
    let script =
        Scripted::new(
            move |_, _| async move { Err(PostError::Failed(format!("bad path /{secret} for whsec_{SECRET}"))) },
        );
    let store = Arc::default();
    let hidden = webhook("a", &format!("https://a.example/{secret}"), "max_attempts = 1");
    let scene = Scene::start(&store, &[(hidden.clone(), script)]);
    scene.event("default", "1");
    sleep(SECOND).await;
    let told = format!("{:?} {:?}", store.given_up(), scene.webhooks.status());
    assert!(told.contains("bad path /***") && !told.contains(secret) && !told.contains(SECRET), "{told}");
    let unknown = webhook("unknown", &format!("https://a.example/{secret}"), "");
    let error = Webhooks::prepare(&scene.connect, &[unknown]).map(|_| ()).unwrap_err();
    assert!(error.contains("`unknown`") && !error.contains(secret), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_event_of_the_pool_is_delivered_as_any_other() {
    let (store, script) = (Arc::default(), Scripted::statuses(&[200]));
    let scene = Scene::start(&store, &[(endpoint("a", "events = [\"node.down\"]"), script.clone())]);
    let event = super::Event {
        id: "evt_pool".into(),
        kind: crate::outbox::record::EventKind::NodeDown,
        tenant: Default::default(),
        at: Millis(1),
        request_id: None,
        traceparent: None,
        of: None,
    };
    scene.webhooks.tell(&event, "{}".to_owned()).await;
    sleep(scene.start.elapsed() + SECOND).await;
    let [got] = <[_; 1]>::try_from(script.got()).unwrap();
    assert_eq!(got.header("webhook-id"), "evt_pool");
    assert!(!got.headers.contains_key("x-request-id") && store.waiting().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_schedule_is_read_page_by_page_at_the_disks_return() {
    let (store, script) = (Arc::<MemoryStore>::default(), Scripted::statuses(&[204]));
    let scene = Scene::start(&store, &[(endpoint("a", ""), script.clone())]);
    sleep(SECOND).await;
    for number in 0..1200 {
        // The rows are in the store, and no queue has them.
        store.put(&scene.webhooks.table(), "default", &format!("{number:04}"), DAWN);
    }
    scene.webhooks.look_again().await;
    sleep(5 * SECOND).await;
    assert_eq!((script.got().len(), store.waiting().len()), (1200, 0));
    assert!(store.longest_page.load(SeqCst) <= 500);
}

#[tokio::test(start_paused = true)]
async fn an_operator_does_not_wait_for_a_day_of_retry_after() {
    let store: Arc<MemoryStore> = Arc::default();
    let script = Scripted::new(|number, _| async move {
        match number {
            0 => answer(400, Some("86400")),
            _ => answer(204, None),
        }
    });
    let scene = Scene::start(&store, &[(endpoint("a", "max_attempts = 1"), script.clone())]);
    scene.event("default", "1");
    sleep(60 * SECOND).await;
    let [status] = <[_; 1]>::try_from(scene.webhooks.status()).unwrap();
    assert!(status.held_until.is_some_and(|until| until > Millis(DAWN.0 + 80_000_000)), "{status:?}");
    let [given_up] = <[_; 1]>::try_from(store.given_up()).unwrap();
    scene.webhooks.retry(&given_up.delivery.tenant, &given_up.delivery.id).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(script.got().len(), 2);
    let [status] = <[_; 1]>::try_from(scene.webhooks.status()).unwrap();
    assert_eq!((status.delivered, status.held_until), (1, None));
}
