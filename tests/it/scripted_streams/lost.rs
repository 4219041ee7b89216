//! Streams that are lost, or fail to open: opened again, and left only for good reason.

use std::time::Duration;

use serde_json::Value;
use steadfast::{
    domain::node_id::NodeId,
    events::{NoStream, topics},
};
use tokio::time::{Instant, sleep};

use super::{
    ALL, Setup, advance,
    teller::{Reaction, Teller, present, root},
    two_nodes, two_nodes_and_a_client,
};
use crate::common::{sim::Net, until};

#[tokio::test(start_paused = true)]
async fn a_stream_that_fails_once_takes_no_topic_from_clients() {
    let slot = present();
    let more = format!("attestation,{ALL}");
    for reaction in [Reaction::End, Reaction::Refuse("503 Busy", String::new())] {
        let (a, b, setup) = two_nodes(slot).await;
        let mut client = setup.client("head").await;
        // Each failure is the first since a stream lasted.
        for round in 1..4 {
            a.reacts_once(&more, reaction.clone());
            let mut other = setup.client("head,attestation").await;
            advance(&[&a, &b], slot + round);
            assert_eq!((client.head().await, other.head().await), (slot + round, slot + round));
            until("the topic is told", async || a.streams() == 1 && a.asked().last() == Some(&more)).await;
            sleep(Duration::from_secs(2)).await;
            a.tell("attestation", &format!(r#"{{"slot":"{round}"}}"#));
            assert_eq!(other.next().await.0, "attestation");
            drop(other);
            // The topic is left when no client has wanted it for a while.
            sleep(Duration::from_secs(11)).await;
            assert_eq!(a.asked().last().map(String::as_str), Some(ALL));
        }
        assert_eq!(b.asked().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_a_node_does_not_find_is_refused_at_once() {
    let slot = present();
    for (body, words) in [(r#"{"code":404,"message":"x"}"#, "x"), (r#"{"code":"404","message":"y"}"#, "y")] {
        let net = Net::default();
        let node = Teller::start(&net, slot).await;
        let setup = Setup::over(&net, &[&node]).await;
        let _client = setup.client("head").await;
        node.reacts(&format!("attestation,{ALL}"), Reaction::Refuse("404 Not Found", body.to_owned()));
        let start = Instant::now();
        let refused = setup.events.subscribe(topics::parse("topics=head,attestation").unwrap()).await.err();
        let Some(NoStream::Topic(404, body)) = refused else { panic!("{refused:?}") };
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["message"], words);
        assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_is_opened_again_at_its_node() {
    let slot = present();
    let (a, b, setup, mut client) = two_nodes_and_a_client(slot).await;
    for round in 1..5 {
        a.end_streams();
        // The head that falls into the change is told too.
        [&a, &b].iter().for_each(|node| node.set_head(slot + 2 * round));
        assert_eq!(client.head().await, slot + 2 * round);
        assert_eq!((a.streams(), a.asked().len(), b.asked().len()), (1, 1 + round as usize, 0));
        advance(&[&a, &b], slot + 2 * round + 1);
        assert_eq!(client.head().await, slot + 2 * round + 1);
        assert_eq!(setup.pool.snapshot().active, Some(NodeId(0)));
    }
    // A stream that is lost again before it told a head.
    a.end_streams();
    until("the stream is opened again", async || a.asked().len() == 6 && a.streams() == 1).await;
    sleep(Duration::from_millis(10)).await;
    a.end_streams();
    until("events come from the other", async || (a.streams(), b.streams()) == (0, 1)).await;
    advance(&[&a, &b], slot + 20);
    while client.head().await < slot + 20 {}
}

#[tokio::test(start_paused = true)]
async fn a_node_that_opens_no_stream_again_is_left() {
    let slot = present();
    for reaction in [Reaction::End, Reaction::Hang, Reaction::Refuse("503 Busy", String::new())] {
        let (a, b, _setup, mut client) = two_nodes_and_a_client(slot).await;
        a.reacts(ALL, reaction);
        a.end_streams();
        let start = Instant::now();
        until("events come from the other", async || b.streams() == 1).await;
        assert!(start.elapsed() < Duration::from_millis(1300), "{:?}", start.elapsed());
        advance(&[&a, &b], slot + 2);
        assert_eq!(client.head().await, slot + 2);
    }
}

#[tokio::test(start_paused = true)]
async fn heads_of_a_mute_stream_are_asked_for() {
    let slot = present();
    let net = Net::default();
    let node = Teller::start(&net, slot).await;
    let setup = Setup::over(&net, &[&node]).await;
    let mut client = setup.client("head").await;
    advance(&[&node], slot + 1);
    assert_eq!(client.head().await, slot + 1);
    for next in [slot + 2, slot + 3] {
        let start = Instant::now();
        // Probes see the head, and the stream does not tell it.
        node.set_head(next);
        assert_eq!(client.head().await, next);
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        sleep(Duration::from_secs(5)).await;
    }
    assert_eq!((node.streams(), node.asked().len()), (1, 1), "its stream stays");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_many_old_blocks_is_left_for_some_slots() {
    let slot = present();
    let (a, b, _setup, mut client) = two_nodes_and_a_client(slot).await;
    for old in 1..=20 {
        a.tell("block", &format!(r#"{{"slot":"{old}","block":"{}"}}"#, root(old)));
    }
    until("events come from the other", async || (a.streams(), b.streams()) == (0, 1)).await;
    let start = Instant::now();
    while a.streams() == 0 {
        sleep(Duration::from_millis(100)).await;
        assert!(start.elapsed() < Duration::from_secs(31), "two slots and a quarter of that are over");
    }
    assert!(start.elapsed() > Duration::from_secs(16), "{:?}", start.elapsed());
    advance(&[&a, &b], slot + 2);
    assert_eq!(client.head().await, slot + 2);
}
