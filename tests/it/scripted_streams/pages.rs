//! Gateways that answer requests for events with pages of their own: they say nothing of topics.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    ALL, advance,
    teller::{Reaction, present},
    two_nodes,
};
use crate::common::until;

const PAGES: [(&str, &str); 5] = [
    ("404 Not Found", "<html>nginx</html>"),
    ("404 Not Found", "default backend - 404"),
    ("404 Not Found", r#"{"message":"no Route matched with those values"}"#),
    ("403 Forbidden", "<html>"),
    ("400 Bad Request", ""),
];

#[tokio::test(start_paused = true)]
async fn a_page_takes_no_topic_from_clients() {
    let slot = present();
    let more = format!("attester_slashing,{ALL},proposer_slashing");
    for (status, body) in PAGES {
        let (a, b, setup) = two_nodes(slot).await;
        let mut client = setup.client("head").await;
        a.reacts_once(&more, Reaction::Refuse(status, body.to_owned()));
        let start = Instant::now();
        let mut other = setup.client("head,attester_slashing,proposer_slashing").await;
        assert!(start.elapsed() < Duration::from_secs(5), "{status} {body}: {:?}", start.elapsed());
        advance(&[&a, &b], slot + 1);
        assert_eq!((client.head().await, other.head().await), (slot + 1, slot + 1));
        [&a, &b].iter().for_each(|node| node.tell("attester_slashing", r#"{"slot":"1"}"#));
        assert_eq!(other.next().await.0, "attester_slashing", "{status} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_keeps_no_newcomer_from_the_stream() {
    let slot = present();
    let topics = format!("attester_slashing,{ALL}");
    for (status, body) in PAGES {
        let (a, b, setup) = two_nodes(slot).await;
        a.reacts_once(&topics, Reaction::Refuse(status, body.to_owned()));
        let start = Instant::now();
        let mut client = setup.client("head,attester_slashing").await;
        assert!(start.elapsed() < Duration::from_secs(2), "{status} {body}: {:?}", start.elapsed());
        advance(&[&a, &b], slot + 1);
        assert_eq!(client.head().await, slot + 1);
        [&a, &b].iter().for_each(|node| node.tell("attester_slashing", r#"{"slot":"1"}"#));
        assert_eq!(client.next().await.0, "attester_slashing", "{status} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_stream_that_meets_a_page_comes_again_whole() {
    let slot = present();
    let topics = format!("attester_slashing,{ALL}");
    for (status, body) in PAGES {
        let (a, b, setup) = two_nodes(slot).await;
        let mut client = setup.client("head,attester_slashing").await;
        advance(&[&a, &b], slot + 1);
        assert_eq!(client.head().await, slot + 1);
        a.reacts_once(&topics, Reaction::Refuse(status, body.to_owned()));
        a.end_streams();
        until("there is a stream again", async || a.streams() + b.streams() > 0).await;
        sleep(Duration::from_secs(2)).await;
        [&a, &b].iter().for_each(|node| node.tell("attester_slashing", r#"{"slot":"1"}"#));
        assert_eq!(client.next().await.0, "attester_slashing", "{status} {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn topics_refused_together_are_asked_for_once_more() {
    let slot = present();
    let refusal = || Reaction::Refuse("404 Not Found", r#"{"code":404,"message":"no"}"#.to_owned());
    let more = format!("attester_slashing,{ALL},proposer_slashing");
    let (a, b, setup) = two_nodes(slot).await;
    let _client = setup.client("head").await;
    a.reacts_once(&more, refusal());
    let start = Instant::now();
    let mut other = setup.client("attester_slashing,proposer_slashing").await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    a.tell("proposer_slashing", r#"{"slot":"1"}"#);
    assert_eq!((other.next().await.0.as_str(), b.asked().len()), ("proposer_slashing", 0));
}
