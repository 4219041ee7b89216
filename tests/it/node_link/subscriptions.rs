//! Subscriptions over a link, as long as it lasts and from one connection to the next.

use std::time::Duration;

use futures_util::FutureExt;
use steadfast::net::link::{Error, Feed, Link, News, SubscribeError};
use tokio::time::{sleep, timeout};

use super::peer::{Dials, Peer, REFUSAL, SOON, TIMEOUTS, linked};

async fn subscribe(link: &Link, peer: &mut Peer, id: &str) -> Feed {
    let (feed, ()) = tokio::join!(link.subscribe("eth_subscribe", "[\"newHeads\"]".into()), peer.grant(id));
    feed.unwrap()
}

fn event(text: &str) -> News {
    News::Event(text.to_owned().into())
}

async fn next(feed: &mut Feed) -> News {
    timeout(SOON, feed.next()).await.expect("news").expect("the actor lives")
}

#[tokio::test(start_paused = true)]
async fn events_of_a_subscription_come_as_the_node_wrote_them() {
    let (linked, _node, mut peer) = linked().await;
    let asking = linked.link.subscribe("eth_subscribe", "[ \"logs\", {\"address\":\"0x1\"} ]".into());
    let (feed, text) = tokio::join!(asking, async {
        let text = peer.text().await.unwrap();
        // The first event may come before the answer.
        peer.event("0x1", "{ \"n\" : 1 }").await;
        peer.event("0xother", "0").await;
        peer.answer(serde_json::from_str::<serde_json::Value>(&text).unwrap()["id"].as_u64().unwrap(), "\"0x1\"").await;
        peer.event("0x1", "2").await;
        text
    });
    assert!(text.ends_with(r#","method":"eth_subscribe","params":[ "logs", {"address":"0x1"} ]}"#), "{text}");
    let mut feed = feed.unwrap();
    assert_eq!(next(&mut feed).await, event("{ \"n\" : 1 }"));
    assert_eq!(next(&mut feed).await, event("2"));
    assert!(feed.next().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_handed_over_and_not_tried_again() {
    let (linked, mut node, mut peer) = linked().await;
    let (refused, ()) = tokio::join!(linked.link.subscribe("eth_subscribe", "[]".into()), async {
        let id = peer.asked("eth_subscribe").await;
        peer.refuse(id).await;
    });
    assert_eq!(refused.unwrap_err(), SubscribeError::Refused(REFUSAL.into()));
    drop(peer);
    let mut peer = node.accept().await;
    assert!(peer.is_quiet().await);
    assert_eq!(linked.link.changes().borrow().epoch, 2);
}

#[tokio::test(start_paused = true)]
async fn subscriptions_are_replayed_and_ids_of_two_connections_differ() {
    let (linked, mut node, mut peer) = linked().await;
    let mut first = subscribe(&linked.link, &mut peer, "0x1").await;
    let mut second = subscribe(&linked.link, &mut peer, "0x2").await;
    drop(peer);
    assert_eq!(next(&mut first).await, News::Lost);
    assert_eq!(next(&mut second).await, News::Lost);
    let mut peer = node.accept().await;
    let (a, b) = (peer.asked("eth_subscribe").await, peer.asked("eth_subscribe").await);
    // Now the other way round, an event before the answers, and a call among it all.
    peer.event("0x2", "\"of the first\"").await;
    peer.answer(b, "\"0x1\"").await;
    peer.event("0x1", "\"of the second\"").await;
    let raw = br#"{"id":1,"method":"eth_chainId"}"#;
    let (answer, ()) = tokio::join!(linked.link.call(raw, Some(6..7)), async {
        let id = peer.asked("eth_chainId").await;
        peer.answer(a, "\"0x2\"").await;
        peer.answer(id, "\"0x5\"").await;
    });
    assert_eq!(answer.unwrap().with_id(b"1"), r#"{"jsonrpc":"2.0","id":1,"result":"0x5"}"#);
    assert_eq!([next(&mut first).await, next(&mut first).await], [News::Back, event("\"of the first\"")]);
    assert_eq!([next(&mut second).await, next(&mut second).await], [News::Back, event("\"of the second\"")]);
    assert_eq!(
        linked.metric("replays_total{layer=\"el\",network=\"default\",node=\"el-1\",outcome=\"accepted\"}"),
        "2"
    );
    assert_eq!(linked.metric("link_reconnects_total{layer=\"el\",network=\"default\",node=\"el-1\"}"), "1");
}

#[tokio::test(start_paused = true)]
async fn a_refused_replay_is_reported_and_tried_on_the_next_link() {
    let (linked, mut node, mut peer) = linked().await;
    let mut feed = subscribe(&linked.link, &mut peer, "0x1").await;
    drop(peer);
    let mut peer = node.accept().await;
    let id = peer.asked("eth_subscribe").await;
    peer.refuse(id).await;
    assert_eq!(next(&mut feed).await, News::Lost);
    assert_eq!(next(&mut feed).await, News::Refused(REFUSAL.into()));
    assert!(peer.is_quiet().await, "a refusal is no reason to ask again here");
    assert_eq!(linked.metric("replays_total{layer=\"el\",network=\"default\",node=\"el-1\",outcome=\"refused\"}"), "1");
    drop(peer);
    let mut peer = node.accept().await;
    peer.grant("0x9").await;
    peer.event("0x9", "7").await;
    assert_eq!([next(&mut feed).await, next(&mut feed).await], [News::Back, event("7")]);
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_lost_is_counted_and_tried_again() {
    let (linked, mut node, mut peer) = linked().await;
    let mut feed = subscribe(&linked.link, &mut peer, "0x1").await;
    drop(peer);
    let mut peer = node.accept().await;
    peer.asked("eth_subscribe").await;
    drop(peer);
    let mut peer = node.accept().await;
    peer.grant("0x1").await;
    assert_eq!([next(&mut feed).await, next(&mut feed).await], [News::Lost, News::Back]);
    assert_eq!(linked.metric("replays_total{layer=\"el\",network=\"default\",node=\"el-1\",outcome=\"lost\"}"), "1");
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_subscription_ends_the_connection() {
    let (linked, mut node, mut peer) = linked().await;
    let mut feed = subscribe(&linked.link, &mut peer, "0x1").await;
    drop(peer);
    for _ in 0..2 {
        let mut peer = node.accept().await;
        peer.asked("eth_subscribe").await;
        let asked = tokio::time::Instant::now();
        // The node answers pings all the while.
        assert_eq!(peer.text().await, None);
        assert_eq!(asked.elapsed().as_secs(), TIMEOUTS.answer.as_secs());
        assert!(linked.why().contains("no answer to a subscription"), "{}", linked.why());
    }
    let mut peer = node.accept().await;
    peer.grant("0x1").await;
    assert_eq!([next(&mut feed).await, next(&mut feed).await], [News::Lost, News::Back]);
    let lost = tokio::join!(linked.link.subscribe("eth_subscribe", "[]".into()), peer.text()).0;
    assert_eq!(lost.unwrap_err(), SubscribeError::Link(Error::Lost));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_feed_is_unsubscribed_and_the_answer_is_nobodys() {
    for answer in ["\"result\":true", "\"error\":{\"code\":-32000,\"message\":\"subscription not found\"}"] {
        let (linked, mut node, mut peer) = linked().await;
        let feed = subscribe(&linked.link, &mut peer, "0x1").await;
        drop(feed);
        let request = peer.request().await;
        assert_eq!((&request["method"], &request["params"][0]), (&"eth_unsubscribe".into(), &"0x1".into()));
        peer.event("0x1", "1").await;
        let raw = br#"{"id":1,"method":"eth_chainId"}"#;
        let (called, ()) = tokio::join!(linked.link.call(raw, Some(6..7)), async {
            let id = peer.asked("eth_chainId").await;
            peer.send(format!("{{\"id\":{},{answer}}}", request["id"])).await;
            peer.answer(id, "\"0x5\"").await;
        });
        assert_eq!(called.unwrap().with_id(b"1"), r#"{"jsonrpc":"2.0","id":1,"result":"0x5"}"#);
        drop(peer);
        assert!(node.accept().await.is_quiet().await, "it is asked for again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_feed_dropped_while_the_link_is_down_is_not_asked_for_again() {
    let (linked, mut node, mut peer) = linked().await;
    let feed = subscribe(&linked.link, &mut peer, "0x1").await;
    node.set(Dials::Refused);
    drop(peer);
    linked.until(false).await;
    drop(feed);
    node.set(Dials::Accepted);
    assert!(node.accept().await.is_quiet().await);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_gives_up_early_leaves_no_subscription() {
    let (linked, _node, mut peer) = linked().await;
    let mut asking = Box::pin(linked.link.subscribe("eth_subscribe", "[]".into()));
    assert!(asking.as_mut().now_or_never().is_none());
    let id = peer.asked("eth_subscribe").await;
    drop(asking);
    sleep(Duration::from_millis(10)).await;
    peer.answer(id, "\"0x77\"").await;
    let request = peer.request().await;
    assert_eq!((&request["method"], &request["params"][0]), (&"eth_unsubscribe".into(), &"0x77".into()));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_told_what_it_missed_and_delays_nobody() {
    let (linked, _node, mut peer) = linked().await;
    let mut slow = subscribe(&linked.link, &mut peer, "0x1").await;
    let mut quick = subscribe(&linked.link, &mut peer, "0x2").await;
    let mut sent = 0;
    // Until the link ends the subscription.
    let ended = loop {
        peer.event("0x1", &sent.to_string()).await;
        peer.event("0x2", &sent.to_string()).await;
        assert_eq!(next(&mut quick).await, event(&sent.to_string()));
        sent += 1;
        assert!(sent < 100_000, "what waits for a reader has no bound");
        if let Some(Some(Ok(request))) = futures_util::StreamExt::next(&mut peer.socket).now_or_never() {
            break request.into_text().unwrap().to_string();
        }
    };
    assert!(ended.contains("eth_unsubscribe") && ended.contains("[\"0x1\"]"), "{ended}");
    assert!(peer.is_quiet().await, "it is asked for again before there is room");
    let mut told = 0;
    loop {
        match next(&mut slow).await {
            News::Event(bytes) => assert_eq!(bytes, told.to_string()),
            News::Lost => break,
            other => panic!("{other:?}"),
        }
        told += 1;
    }
    assert!(told < sent);
    peer.grant("0x3").await;
    peer.event("0x3", "\"again\"").await;
    assert_eq!([next(&mut slow).await, next(&mut slow).await], [News::Back, event("\"again\"")]);
    assert!(quick.next().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_feed_ends_with_the_actor_and_the_actor_with_the_handle() {
    let (linked, _node, mut peer) = linked().await;
    let mut feed = subscribe(&linked.link, &mut peer, "0x1").await;
    let mut asking = Box::pin(linked.link.call(br#"{"id":1}"#, Some(6..7)));
    assert!(asking.as_mut().now_or_never().is_none());
    peer.text().await.unwrap();
    linked.running.abort();
    assert_eq!(asking.await, Err(Error::Lost));
    assert_eq!(feed.next().await, None);
    assert!(!linked.link.is_up());
    assert_eq!(linked.link.call(b"{}", None).await, Err(Error::NotSent));
    assert_eq!(linked.metric("link_up"), "0");

    let (mut node, dial) = super::peer::Node::new();
    let metrics = std::sync::Arc::new(steadfast::metrics::Metrics::new());
    let target = super::peer::target("ws://node");
    let (link, actor) = Link::new(target, dial, TIMEOUTS, 1, metrics.link(super::peer::LABELS));
    let running = tokio::spawn(actor.run());
    let mut peer = node.accept().await;
    link.changes().wait_for(|status| status.up).await.unwrap();
    let mut feed = subscribe(&link, &mut peer, "0x1").await;
    drop(link);
    assert_eq!(peer.text().await, None);
    timeout(SOON, running).await.expect("the actor ends").unwrap();
    assert_eq!(feed.next().await, None);
}
