//! The way to the collector: what a bad collector costs, and what the end of the proxy does.

use tokio::time::{Duration, Instant, sleep};

use crate::{
    collector::{Collector, Mode},
    common::{
        client::call,
        log::Log,
        origin::{Origin, Reply},
        sim::{Net, Proxy},
        until,
    },
};

/// The spans that may wait: those of the queue, and those that are being sent.
const MOST_WAITING: usize = 2048 + 256;

async fn proxy(net: &Net, collector: &Collector, more: &str) -> (Origin, Proxy) {
    let origin = Origin::within(net, |seen| Reply::result(seen, "\"well\"")).await;
    let settings = collector.settings(&format!("sample = 1\n{more}"));
    let proxy = Proxy::over(net, [origin.url()], &settings).await;
    (origin, proxy)
}

async fn calls(proxy: &Proxy, count: usize) {
    let mut client = proxy.client().await;
    for _ in 0..count {
        assert_eq!(client.post(call(1, "eth_call", "[]")).await.status, 200);
    }
}

async fn lost(proxy: &Proxy, why: &str) -> f64 {
    proxy.metric("steadfast_spans_lost_total", why).await
}

async fn exported(proxy: &Proxy) -> f64 {
    proxy.metric("steadfast_spans_exported_total", "").await
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_hangs_delays_no_call() {
    let net = Net::default();
    let log = Log::start();
    let collector = Collector::start(&net, Mode::Hangs).await;
    let (_origin, proxy) = proxy(&net, &collector, "").await;
    calls(&proxy, 1).await;
    until("the collector has a message", async || !collector.heads().is_empty()).await;
    let began = Instant::now();
    calls(&proxy, MOST_WAITING + 10).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // One span was on its way when the others came.
    let beyond = (MOST_WAITING + 10 - 2048) as f64;
    assert_eq!((lost(&proxy, "queue_full").await, exported(&proxy).await), (beyond, 0.0));
    // An hour of this is told in a line now and then, with the number of the lost.
    sleep(Duration::from_secs(3600)).await;
    let told = log.saying("spans are lost");
    assert!((1..=360).contains(&told.len()), "{}", told.len());
    assert!(told[0]["why"].as_str().unwrap().contains("no answer within 10s"), "{told:?}");
    let sum: u64 = told.iter().map(|line| line["lost"].as_u64().unwrap()).sum();
    assert_eq!(sum as f64, lost(&proxy, "").await);
    assert!(lost(&proxy, "not_taken").await > 0.0);
    // The collector is well again.
    collector.turn(Mode::Takes);
    calls(&proxy, 1).await;
    sleep(Duration::from_secs(60)).await;
    assert!(exported(&proxy).await >= 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_down_for_a_while_loses_no_span() {
    let net = Net::default();
    for (mode, least) in [
        (Mode::Says("503 Service Unavailable", ""), 0),
        (Mode::Says("429 Too Many Requests", "retry-after: 20\r\n"), 20),
        (Mode::Hangs, 10),
    ] {
        let collector = Collector::start(&net, mode).await;
        let (_origin, proxy) = proxy(&net, &collector, "").await;
        calls(&proxy, 3).await;
        until("the collector has a message", async || !collector.heads().is_empty()).await;
        collector.turn(Mode::Takes);
        let began = Instant::now();
        sleep(Duration::from_secs(least)).await;
        collector.requests(3).await;
        assert!(began.elapsed() >= Duration::from_secs(least));
        assert_eq!((exported(&proxy).await, lost(&proxy, "").await), (3.0, 0.0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_span_that_is_refused_is_counted_and_not_sent_again() {
    let net = Net::default();
    let log = Log::start();
    for mode in [Mode::Says("400 Bad Request", ""), Mode::Refuses(2)] {
        let collector = Collector::start(&net, mode).await;
        let (_origin, proxy) = proxy(&net, &collector, "").await;
        calls(&proxy, 2).await;
        until("the spans are refused", async || lost(&proxy, "rejected").await == 2.0).await;
        sleep(Duration::from_secs(120)).await;
        assert_eq!((collector.heads().len(), exported(&proxy).await), (1, 0.0));
    }
    let why: Vec<_> = log.saying("spans are lost").iter().map(|line| line["why"].clone()).collect();
    assert_eq!(why, ["HTTP status 400", "no room"]);
}

#[tokio::test(start_paused = true)]
async fn the_collector_gets_the_headers_of_the_settings() {
    let net = Net::default();
    let collector = Collector::start(&net, Mode::Takes).await;
    let (_origin, proxy) = proxy(&net, &collector, "headers = { X-Api-Key = \"k3y\" }").await;
    calls(&proxy, 1).await;
    collector.requests(1).await;
    let head = &collector.heads()[0];
    for line in ["POST /v1/traces HTTP/1.1", "x-api-key: k3y", "content-type: application/x-protobuf"] {
        assert!(head.split("\r\n").any(|own| own == line), "{line}: {head}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_proxy_exports_the_spans_that_wait() {
    let net = Net::default();
    let collector = Collector::start(&net, Mode::Takes).await;
    let (_origin, proxy) = proxy(&net, &collector, "").await;
    calls(&proxy, 300).await;
    let began = Instant::now();
    proxy.app.shutdown().await;
    assert_eq!(collector.requests(300).await.len(), 300);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_proxy_waits_for_no_bad_collector() {
    let net = Net::default();
    for (mode, words) in
        [(Mode::Hangs, "before the end"), (Mode::Says("503 Service Unavailable", ""), "spans are lost")]
    {
        let log = Log::start();
        let collector = Collector::start(&net, mode).await;
        let (_origin, proxy) = proxy(&net, &collector, "").await;
        calls(&proxy, 3).await;
        let began = Instant::now();
        proxy.app.shutdown().await;
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        let lines = log.lines();
        let told = lines.iter().find(|line| line["fields"]["message"].as_str().unwrap().contains(words));
        assert_eq!(told.unwrap_or_else(|| panic!("{words}: {lines:?}"))["fields"]["lost"], 3);
    }
}

#[tokio::test(start_paused = true)]
async fn another_collector_needs_a_restart() {
    let net = Net::default();
    let collector = Collector::start(&net, Mode::Takes).await;
    let (origin, proxy) = proxy(&net, &collector, "").await;
    let other = Collector::start(&net, Mode::Takes).await;
    let settings = [crate::common::proxy::nodes([origin.url()]), other.settings("sample = 1")].concat();
    *proxy.settings.lock().unwrap() = settings;
    let why = proxy.app.reload().await.unwrap_err();
    assert!(why.contains("tracing.endpoint"), "{why}");
}
