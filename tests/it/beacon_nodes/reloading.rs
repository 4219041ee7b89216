//! What requests, and the node that duties stay on, keep when the settings are read anew.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use steadfast::app::{App, World};
use tokio::time::timeout;

use crate::common::{
    client::Client,
    proxy::{Proxy, config},
    rest::{Exchange, Node, ask, json, nodes, request, status, until_verdict},
    until,
};

const DATA: &str = "/eth/v1/validator/attestation_data?slot=1&committee_index=0";
const HEAD: &str = "/eth/v1/beacon/headers/head";
const STATE: &str = "/eth/v2/debug/beacon/states/head";
const QUICK: &str = "[health]\nrise = 1\ninterval = \"200ms\"\n";

/// A proxy whose settings can be changed while it runs.
struct Reloadable {
    proxy: Proxy,
    settings: Arc<Mutex<String>>,
}

impl Reloadable {
    async fn start(settings: String) -> Self {
        let settings = Arc::new(Mutex::new(settings));
        let first = config(&settings.lock().unwrap());
        let read = settings.clone();
        let source = Arc::new(move || Ok(config(&read.lock().unwrap())));
        // One worker: what comes first is then sent first.
        let app = App::start(first, World::real(1), Some(source)).await.unwrap();
        Self { proxy: Proxy { app }, settings }
    }

    async fn reload(&self, settings: String) -> String {
        *self.settings.lock().unwrap() = settings;
        self.proxy.app.reload().await.unwrap()
    }

    /// Has a client wait in the queue behind `before` others.
    async fn wait(&self, path: &str, before: usize) -> Client {
        let mut client = self.proxy.client().await;
        client.send(request("GET", path, "", "")).await;
        let line = format!("steadfast_held_calls{{layer=\"cl\",network=\"default\"}} {}", before + 1);
        until("it waits", async || self.proxy.admin("GET /metrics").await.text().lines().any(|l| l == line)).await;
        client
    }
}

async fn says(text: &'static str) -> Node {
    Node::always(json("200 OK", text)).await
}

/// The settings of these nodes and no others, by their places from 1 on.
fn only(list: &[(usize, &Node)]) -> String {
    let node = |(place, node): &(usize, &Node)| nodes(&[node.url()]).replace("cl-1", &format!("cl-{place}"));
    list.iter().map(node).collect::<String>() + QUICK
}

#[tokio::test]
async fn requests_stay_on_their_node_through_reloads() {
    let (a, b, c) = (says(r#"{"data":"a"}"#).await, says(r#"{"data":"b"}"#).await, says(r#"{"data":"c"}"#).await);
    let all = Reloadable::start(only(&[(1, &a), (2, &b)])).await;
    let served = async |path: &str| ask(&all.proxy, "GET", path).await.text();
    for name in ["cl-1", "cl-2"] {
        until_verdict(&all.proxy, name, "up").await;
    }
    a.set_syncing(true);
    until_verdict(&all.proxy, "cl-1", "syncing").await;
    assert_eq!(served(DATA).await, r#"{"data":"b"}"#);
    a.set_syncing(false);
    until_verdict(&all.proxy, "cl-1", "up").await;
    assert_eq!((&*served(DATA).await, &*served(HEAD).await), (r#"{"data":"b"}"#, r#"{"data":"b"}"#));
    // Other rules, another order, another node beside it: the pool is built anew each time.
    for settings in [
        only(&[(1, &a), (2, &b)]) + "[calls]\nmax_batch = 5\n",
        only(&[(3, &c), (1, &a), (2, &b)]),
        only(&[(1, &a), (2, &b), (3, &c)]),
    ] {
        assert_ne!(all.reload(settings).await, "nothing");
        until_verdict(&all.proxy, "cl-2", "up").await;
        assert_eq!((&*served(DATA).await, &*served(HEAD).await), (r#"{"data":"b"}"#, r#"{"data":"b"}"#));
    }
    all.reload(only(&[(1, &a), (3, &c)])).await;
    assert_eq!(served(DATA).await, r#"{"data":"a"}"#);
}

/// A node that is away, and requests that wait for it in this order; of different routes: all wait in one queue.
async fn waiting() -> (Reloadable, u16, Vec<(String, Client)>) {
    let away = says(r#"{"data":"away"}"#).await;
    let port = away.port();
    let all = Reloadable::start(only(&[(1, &away)])).await;
    until_verdict(&all.proxy, "cl-1", "up").await;
    away.stop().await;
    until_verdict(&all.proxy, "cl-1", "down").await;
    let mut waiting = Vec::new();
    for place in 0..12 {
        let path = match place % 3 {
            0 => format!("{HEAD}?place={place}"),
            1 => format!("{DATA}&place={place}"),
            _ => format!("{STATE}?place={place}"),
        };
        let client = all.wait(&path, place).await;
        waiting.push((path, client));
    }
    (all, port, waiting)
}

async fn are_answered_by(node: &Node, waiting: Vec<(String, Client)>) -> (Vec<String>, Vec<String>) {
    let mut paths = Vec::new();
    for (path, mut client) in waiting {
        let answer = client.response().await;
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"here"}"#));
        paths.push(path);
    }
    (node.asked().into_iter().map(|asked| asked.target).collect(), paths)
}

#[tokio::test]
async fn requests_that_wait_leave_in_the_order_in_which_they_came() {
    let (_all, port, waiting) = waiting().await;
    let node = Node::on(port, |exchange: Exchange| exchange.reply(json("200 OK", r#"{"data":"here"}"#))).await;
    let (asked, came) = are_answered_by(&node, waiting).await;
    assert_eq!(asked, came);
}

#[tokio::test]
async fn waiting_requests_go_once_and_in_order_to_a_reloads_nodes() {
    let (all, _, waiting) = waiting().await;
    let node = says(r#"{"data":"here"}"#).await;
    all.reload(only(&[(2, &node)])).await;
    let (asked, came) = are_answered_by(&node, waiting).await;
    assert_eq!(asked, came);
}

#[tokio::test]
async fn removed_nodes_are_watched_until_their_requests_end() {
    let (a, b, c) = (Node::start(Exchange::hang).await, says(r#"{"data":"b"}"#).await, says(r#"{"data":"c"}"#).await);
    let all = Reloadable::start(only(&[(1, &a), (2, &b)])).await;
    for name in ["cl-1", "cl-2"] {
        until_verdict(&all.proxy, name, "up").await;
    }
    let mut client = all.proxy.client().await;
    client.send(request("GET", STATE, "", "")).await;
    until("the node has the request", async || a.count() == 1).await;
    all.reload(only(&[(3, &c)])).await;
    assert_eq!(ask(&all.proxy, "GET", HEAD).await.text(), r#"{"data":"c"}"#);
    // Only who watches it finds out.
    a.set_dead(true);
    assert_eq!(client.response().await.text(), r#"{"data":"b"}"#);
    until("nobody watches them any more", async || a.open() + b.open() == 0).await;
}

#[tokio::test]
async fn messages_for_all_nodes_outlive_a_reload() {
    const PREPARE: &str = "/eth/v1/validator/prepare_beacon_proposer";
    let (a, b) = (says(r#"{"data":"a"}"#).await, says(r#"{"data":"b"}"#).await);
    let all = Reloadable::start(only(&[(1, &a), (2, &b)])).await;
    for name in ["cl-1", "cl-2"] {
        until_verdict(&all.proxy, name, "up").await;
    }
    crate::common::rest::send(&all.proxy, request("POST", PREPARE, "", "[1]")).await;
    until("both are told", async || (a.count(), b.count()) == (1, 1)).await;
    // A node whose answer is still on its way at the reload would be told again.
    for name in ["cl-1", "cl-2"] {
        until(&format!("{name} has answered"), async || status(&all.proxy, name).await["in_flight"] == 0).await;
    }
    // The nodes change their places.
    all.reload(only(&[(2, &b), (1, &a)]) + "[calls]\nattempts = 4\n").await;
    let port = a.port();
    a.stop().await;
    until_verdict(&all.proxy, "cl-1", "down").await;
    let a = Node::on(port, |exchange: Exchange| exchange.reply(json("200 OK", ""))).await;
    until("it is told again", async || a.count() == 1).await;
    assert_eq!((&*a.asked()[0].target, &*a.asked()[0].body, b.count()), (PREPARE, &b"[1]"[..], 1));
}

#[tokio::test]
async fn message_under_way_at_a_reload_is_sent_anew() {
    const PREPARE: &str = "/eth/v1/validator/prepare_beacon_proposer";
    let a = says(r#"{"data":"a"}"#).await;
    // The first time it hangs.
    let has_hung = Arc::new(AtomicBool::new(false));
    let b = Node::start(move |mut exchange: Exchange| {
        let hangs = exchange.asked.target == PREPARE && !has_hung.swap(true, SeqCst);
        async move {
            exchange.body().await;
            if hangs { exchange.hang().await } else { exchange.reply(json("200 OK", r#"{"data":"b"}"#)).await }
        }
    })
    .await;
    let all = Reloadable::start(only(&[(1, &a), (2, &b)])).await;
    for name in ["cl-1", "cl-2"] {
        until_verdict(&all.proxy, name, "up").await;
    }
    assert_eq!(ask(&all.proxy, "POST", PREPARE).await.text(), r#"{"data":"a"}"#);
    until("it is being told", async || b.count() == 1).await;
    all.reload(only(&[(2, &b), (1, &a)]) + "[calls]\nattempts = 4\n").await;
    until("it is told anew", async || b.count() == 2).await;
    assert_eq!((&*b.asked()[1].target, a.count()), (PREPARE, 1));
}

const EXITS: &str = "/eth/v1/beacon/pool/voluntary_exits";

/// A node of a chain with slots of a second that reads what it is sent and does not answer.
async fn silent() -> Node {
    Node::paced(1, |mut exchange: Exchange| async {
        exchange.body().await;
        exchange.hang().await
    })
    .await
}

async fn answers(millis: u64, answer: Vec<u8>) -> Node {
    Node::paced(1, move |exchange: Exchange| {
        let answer = answer.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            exchange.reply(answer).await
        }
    })
    .await
}

#[tokio::test]
async fn a_signed_message_goes_on_to_the_nodes_of_a_reload() {
    for stays in [false, true] {
        let (first, second) = (silent().await, answers(0, json("200 OK", r#"{"data":"here"}"#)).await);
        let all = Reloadable::start(only(&[(1, &first)])).await;
        until_verdict(&all.proxy, "cl-1", "up").await;
        let mut client = all.proxy.client().await;
        client.send(request("POST", EXITS, "", "the exit")).await;
        until("the first node has it", async || first.count() == 1).await;
        let after: &[_] = if stays { &[(1, &first), (2, &second)] } else { &[(2, &second)] };
        all.reload(only(after)).await;
        // Long before a node that hangs is given up.
        let answer = timeout(Duration::from_secs(30), client.response()).await.unwrap();
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"here"}"#), "{stays}");
        assert_eq!((first.count(), &*second.asked()[0].body), (1, &b"the exit"[..]), "{stays}");
    }
}

#[tokio::test]
async fn a_node_that_a_reload_takes_away_may_still_take_a_message() {
    let first = answers(3_000, json("200 OK", r#"{"data":"first"}"#)).await;
    let busy = answers(0, json("503 Busy", r#"{"data":"busy"}"#)).await;
    let repeats = answers(0, json("400 Bad", r#"{"code":400,"message":"BLOCK_ERROR_REPEAT_PROPOSAL"}"#)).await;
    for (second, text) in [(busy, r#"{"data":"first"}"#), (repeats, "")] {
        let all = Reloadable::start(only(&[(1, &first)])).await;
        until_verdict(&all.proxy, "cl-1", "up").await;
        let (mut client, before) = (all.proxy.client().await, first.count());
        client.send(request("POST", EXITS, "", "the exit")).await;
        until("the first node has it", async || first.count() > before).await;
        all.reload(only(&[(2, &second)])).await;
        let answer = client.response().await;
        assert_eq!((answer.status, &*answer.text()), (200, text));
        assert!(second.count() > 0);
    }
}

#[tokio::test]
async fn message_sent_during_a_reload_goes_to_the_new_nodes() {
    const PREPARE: &str = "/eth/v1/validator/prepare_beacon_proposer";
    const DUTIES: &str = "/eth/v1/validator/duties/attester/7";
    for (path, keeps_first) in [(PREPARE, true), (EXITS, false), (DUTIES, false)] {
        let (first, second) = (says(r#"{"data":"first"}"#).await, says(r#"{"data":"second"}"#).await);
        let all = Reloadable::start(only(&[(1, &first)])).await;
        until_verdict(&all.proxy, "cl-1", "up").await;
        let mut client = all.proxy.client().await;
        let asked = request("POST", path, "", "[\"the body\"]");
        client.send(&asked[..asked.len() - 6]).await;
        // So that the proxy waits for the rest of it.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let both = [(1, &first), (2, &second)];
        all.reload(only(if keeps_first { &both } else { &both[1..] })).await;
        until_verdict(&all.proxy, "cl-2", "up").await;
        client.send(&asked[asked.len() - 6..]).await;
        assert_eq!(client.response().await.status, 200, "{path}");
        until("the second node has it", async || second.count() == 1).await;
        assert_eq!(first.count(), usize::from(keeps_first), "{path}");
    }
}

#[tokio::test]
async fn a_node_at_another_address_is_another_node_whatever_its_name() {
    let (first, second) = (silent().await, answers(0, json("200 OK", r#"{"data":"here"}"#)).await);
    let all = Reloadable::start(only(&[(1, &first)])).await;
    until_verdict(&all.proxy, "cl-1", "up").await;
    let mut client = all.proxy.client().await;
    client.send(request("POST", EXITS, "", "the exit")).await;
    until("the first node has it", async || first.count() == 1).await;
    all.reload(only(&[(1, &second)])).await;
    let answer = timeout(Duration::from_secs(30), client.response()).await.unwrap();
    assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"here"}"#));
    assert_eq!((first.count(), second.count()), (1, 1));
}

#[tokio::test]
async fn message_for_all_is_sent_to_a_node_at_another_address() {
    const PREPARE: &str = "/eth/v1/validator/prepare_beacon_proposer";
    let (a, b, c) = (says(r#"{"data":"a"}"#).await, says(r#"{"data":"b"}"#).await, says(r#"{"data":"c"}"#).await);
    let all = Reloadable::start(only(&[(1, &a), (2, &b)])).await;
    for name in ["cl-1", "cl-2"] {
        until_verdict(&all.proxy, name, "up").await;
    }
    crate::common::rest::send(&all.proxy, request("POST", PREPARE, "", "[1]")).await;
    until("both are told", async || (a.count(), b.count()) == (1, 1)).await;
    all.reload(only(&[(1, &a), (2, &c)])).await;
    until("the other is told, too", async || c.count() == 1).await;
    assert_eq!((&*c.asked()[0].target, &*c.asked()[0].body), (PREPARE, &b"[1]"[..]));
    assert_eq!((a.count(), b.count()), (1, 1));
}

#[tokio::test]
async fn a_message_that_a_removed_node_refuses_is_held() {
    for refusal in [json("503 Busy", ""), json("400 Bad", r#"{"code":400,"message":"no"}"#), Vec::new()] {
        let (first, away) = (answers(4_000, refusal).await, answers(0, Vec::new()).await);
        let (port, after) = (away.port(), only(&[(2, &away)]));
        away.stop().await;
        let all = Reloadable::start(only(&[(1, &first)])).await;
        until_verdict(&all.proxy, "cl-1", "up").await;
        let mut client = all.proxy.client().await;
        client.send(request("POST", EXITS, "", "the exit")).await;
        until("the first node has it", async || first.count() == 1).await;
        all.reload(after).await;
        // It waits now, and the first has said its word.
        tokio::time::sleep(Duration::from_millis(5_000)).await;
        let second = Node::on(port, |exchange: Exchange| exchange.reply(json("200 OK", r#"{"data":"back"}"#))).await;
        let answer = timeout(Duration::from_secs(30), client.response()).await.unwrap();
        assert_eq!((answer.status, &*answer.text(), second.count()), (200, r#"{"data":"back"}"#, 1));
    }
}

#[tokio::test]
async fn all_nodes_of_a_reload_get_a_message_if_so_set() {
    let first = silent().await;
    let (a, b) = (answers(0, json("200 OK", "")).await, answers(0, json("200 OK", "")).await);
    let more = "[beacon]\npublish_to = \"all\"\n";
    let all = Reloadable::start(only(&[(1, &first)]) + more).await;
    until_verdict(&all.proxy, "cl-1", "up").await;
    let mut client = all.proxy.client().await;
    client.send(request("POST", EXITS, "", "the exit")).await;
    until("the first node has it", async || first.count() == 1).await;
    all.reload(only(&[(1, &first), (2, &a), (3, &b)]) + more).await;
    assert_eq!(timeout(Duration::from_secs(30), client.response()).await.unwrap().status, 200);
    // Though the first good answer is the client's.
    until("both have it", async || (a.count(), b.count()) == (1, 1)).await;
    assert_eq!(first.count(), 1);
}

#[tokio::test]
async fn a_node_that_a_reload_takes_away_has_its_block_first() {
    let refuses = json("400 Bad", r#"{"code":400,"message":"no payload for this header"}"#);
    for reloads in [1, 2] {
        let (a, c) = (says(r#"{"data":{}}"#).await, says(r#"{"data":{}}"#).await);
        let refuses = refuses.clone();
        let b = Node::start(move |exchange: Exchange| {
            let is_block = exchange.asked.method == "POST";
            exchange.reply(if is_block { refuses.clone() } else { json("200 OK", r#"{"data":{}}"#) })
        })
        .await;
        let all = Reloadable::start(only(&[(1, &a), (2, &b), (3, &c)])).await;
        for name in ["cl-1", "cl-2", "cl-3"] {
            until_verdict(&all.proxy, name, "up").await;
        }
        assert_eq!(ask(&all.proxy, "GET", "/eth/v3/validator/blocks/9?randao_reveal=0x00").await.status, 200);
        all.reload(only(&[(2, &b), (3, &c)])).await;
        if reloads == 2 {
            all.reload(only(&[(2, &b)])).await;
        } else {
            c.stop().await;
        }
        let mut client = all.proxy.client().await;
        client.send(request("POST", "/eth/v2/beacon/blinded_blocks", "", "{}")).await;
        assert_eq!(client.response().await.status, 200);
        assert_eq!(a.asked().iter().filter(|asked| asked.method == "POST").count(), 1);
    }
}
