//! What validators ask stays on one node, and what they tell goes to all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::common::{
    rest::{Exchange, Node, ask, json, over, request, send, until_verdict},
    until,
};

const DATA: &str = "/eth/v1/validator/attestation_data?slot=1&committee_index=0";
const HEAD: &str = "/eth/v1/beacon/headers/head";
const SUBSCRIBE: &str = "/eth/v1/validator/beacon_committee_subscriptions";

#[tokio::test]
async fn while_validators_are_there_all_requests_stay_on_one_node() {
    let (a, b) =
        (Node::always(json("200 OK", r#"{"data":"a"}"#)).await, Node::always(json("200 OK", r#"{"data":"b"}"#)).await);
    // The epoch does not end in the time of a test.
    let proxy = over(&[&a, &b], "[health]\nrise = 1\ninterval = \"200ms\"\n").await;
    let served = async |path: &str| ask(&proxy, "GET", path).await.text();
    assert_eq!((&*served(DATA).await, &*served(HEAD).await), (r#"{"data":"a"}"#, r#"{"data":"a"}"#));
    a.set_syncing(true);
    until_verdict(&proxy, "cl-1", "syncing").await;
    assert_eq!((&*served(DATA).await, &*served(HEAD).await), (r#"{"data":"b"}"#, r#"{"data":"b"}"#));
    a.set_syncing(false);
    until_verdict(&proxy, "cl-1", "up").await;
    for _ in 0..10 {
        assert_eq!((&*served(DATA).await, &*served(HEAD).await), (r#"{"data":"b"}"#, r#"{"data":"b"}"#));
    }
    b.set_syncing(true);
    until_verdict(&proxy, "cl-2", "syncing").await;
    assert_eq!((&*served(DATA).await, &*served(HEAD).await), (r#"{"data":"a"}"#, r#"{"data":"a"}"#));
}

#[tokio::test]
async fn where_no_validator_asked_requests_go_home_at_once() {
    let (a, b) =
        (Node::always(json("200 OK", r#"{"data":"a"}"#)).await, Node::always(json("200 OK", r#"{"data":"b"}"#)).await);
    let proxy = over(&[&a, &b], "[health]\nrise = 1\ninterval = \"200ms\"\n").await;
    a.set_syncing(true);
    until_verdict(&proxy, "cl-1", "syncing").await;
    assert_eq!(ask(&proxy, "GET", HEAD).await.text(), r#"{"data":"b"}"#);
    a.set_syncing(false);
    until_verdict(&proxy, "cl-1", "up").await;
    assert_eq!(ask(&proxy, "GET", HEAD).await.text(), r#"{"data":"a"}"#);
}

#[tokio::test]
async fn spread_divides_what_is_settled_and_splits_no_validator() {
    let slow = |name: &'static str| {
        Node::start(move |exchange: Exchange| async move {
            sleep(Duration::from_secs(1)).await;
            exchange.reply(json("200 OK", name)).await
        })
    };
    let (a, b) = (slow(r#"{"data":"a"}"#).await, slow(r#"{"data":"b"}"#).await);
    let proxy = over(&[&a, &b], "[calls]\npolicy = \"spread\"\n").await;
    let both = async |path: &str| {
        let before = a.count() + b.count();
        let second = async {
            until("one of them is busy", async || a.count() + b.count() > before).await;
            ask(&proxy, "GET", path).await
        };
        let (one, other) = tokio::join!(ask(&proxy, "GET", path), second);
        one.text() != other.text()
    };
    assert!(both("/eth/v1/beacon/states/100/validators").await && both("/eth/v1/config/spec").await);
    for path in [DATA, HEAD, "/eth/v1/beacon/states/finalized/root", "/eth/v1/beacon/blocks/99999999/root"] {
        assert!(!both(path).await, "{path}");
    }
}

#[tokio::test]
async fn where_duties_hang_time_and_again_all_go_elsewhere() {
    let a = Node::start(|exchange: Exchange| async {
        let is_duty = exchange.asked.target.starts_with("/eth/v1/validator/");
        if is_duty { exchange.hang().await } else { exchange.reply(json("200 OK", r#"{"data":"a"}"#)).await }
    })
    .await;
    let b = Node::always(json("200 OK", r#"{"data":"b"}"#)).await;
    [&a, &b].into_iter().for_each(|node| node.set_pace(1));
    let proxy = over(&[&a, &b], "").await;
    assert_eq!(ask(&proxy, "GET", HEAD).await.text(), r#"{"data":"a"}"#);
    for _ in 0..3 {
        assert_eq!(ask(&proxy, "GET", DATA).await.text(), r#"{"data":"b"}"#);
    }
    until("heads come from where duties are done", async || ask(&proxy, "GET", HEAD).await.text() == r#"{"data":"b"}"#)
        .await;
}

#[tokio::test]
async fn a_subscription_is_a_validators_too() {
    let (a, b) =
        (Node::always(json("200 OK", r#"{"data":"a"}"#)).await, Node::always(json("200 OK", r#"{"data":"b"}"#)).await);
    let proxy = over(&[&a, &b], "[health]\nrise = 1\ninterval = \"200ms\"\n").await;
    a.set_syncing(true);
    until_verdict(&proxy, "cl-1", "syncing").await;
    assert_eq!(send(&proxy, request("POST", SUBSCRIBE, "", "[]")).await.text(), r#"{"data":"b"}"#);
    until("the other is told, too", async || a.count() == 1).await;
    a.set_syncing(false);
    until_verdict(&proxy, "cl-1", "up").await;
    assert_eq!(ask(&proxy, "GET", DATA).await.text(), r#"{"data":"b"}"#);
}

#[tokio::test]
async fn a_failed_duty_is_done_elsewhere_and_the_next_at_home() {
    // Twice, for a node that closes a connection at once may only be full.
    let failures = Arc::new(AtomicUsize::new(0));
    let a = Node::start(move |exchange: Exchange| {
        let fails = failures.fetch_add(1, SeqCst) < 2;
        async move { if fails { None } else { exchange.reply(json("200 OK", r#"{"data":"a"}"#)).await } }
    })
    .await;
    let b = Node::always(json("200 OK", r#"{"data":"b"}"#)).await;
    let proxy = over(&[&a, &b], "").await;
    assert_eq!(ask(&proxy, "GET", DATA).await.text(), r#"{"data":"b"}"#);
    assert_eq!(ask(&proxy, "GET", DATA).await.text(), r#"{"data":"a"}"#);
}

#[tokio::test]
async fn messages_for_all_nodes_return_the_first_good_answer() {
    for path in [
        SUBSCRIBE,
        "/eth/v1/validator/sync_committee_subscriptions",
        "/eth/v1/validator/prepare_beacon_proposer",
        "/eth/v1/validator/register_validator",
        "/eth/v1/validator/proposer_preferences",
    ] {
        let bad = Node::always(json("500 Internal Server Error", r#"{"data":"bad"}"#)).await;
        let good = Node::always(json("200 OK", r#"{"data":"good"}"#)).await;
        let slow = Node::start(|mut exchange: Exchange| async move {
            exchange.body().await;
            sleep(Duration::from_millis(700)).await;
            let whole = exchange.send(json("200 OK", r#"{"data":"slow"}"#)).await;
            assert!(whole, "the client's answer cut the others off");
            Some(exchange)
        })
        .await;
        let proxy = over(&[&bad, &slow, &good], "").await;
        let started = Instant::now();
        let fields = "content-type: application/json\r\n";
        let answer = send(&proxy, request("POST", path, fields, "[{\"validator_index\":\"1\"}]")).await;
        assert_eq!((answer.status, &*answer.text()), (200, r#"{"data":"good"}"#), "{path}");
        assert!(started.elapsed() < Duration::from_millis(600), "{:?}", started.elapsed());
        for node in [&bad, &slow, &good] {
            until("every node has the body", async || {
                node.asked().iter().any(|asked| asked.body == b"[{\"validator_index\":\"1\"}]")
            })
            .await;
            assert_eq!(node.count(), 1);
            assert_eq!(node.asked()[0].header("content-type"), ["application/json"]);
        }
        until("the slow one was waited for", async || {
            let line = r#"steadfast_attempts_total{layer="cl",network="default",node="cl-2",outcome="answered"} 1"#;
            proxy.admin("GET /metrics").await.text().contains(line)
        })
        .await;
    }
}

#[tokio::test]
async fn when_none_takes_what_it_is_told_the_client_hears_why() {
    let node = |status, text| Node::always(json(status, text));
    let (a, b) = (
        node("500 Oops", r#"{"code":500,"message":"of the node"}"#).await,
        node("400 Bad Request", r#"{"code":400,"message":"of the request"}"#).await,
    );
    let proxy = over(&[&a, &b], "").await;
    let answer = send(&proxy, request("POST", SUBSCRIBE, "", "[]")).await;
    assert_eq!((answer.status, &*answer.text()), (400, r#"{"code":400,"message":"of the request"}"#));
}

const PREPARE: &str = "/eth/v1/validator/prepare_beacon_proposer";

/// A node of a chain with slots of a second that answers everything.
async fn paced() -> Node {
    Node::paced(1, |exchange: Exchange| exchange.reply(json("200 OK", ""))).await
}

/// The bodies that the node was told by `path`.
fn told(node: &Node, path: &str) -> Vec<String> {
    let asked = node.asked().into_iter().filter(|asked| asked.target == path);
    asked.map(|asked| String::from_utf8(asked.body).unwrap()).collect()
}

#[tokio::test]
async fn a_node_that_answers_is_told_however_it_is_judged() {
    let (a, b) =
        (Node::always(json("200 OK", r#"{"data":"a"}"#)).await, Node::always(json("200 OK", r#"{"data":"b"}"#)).await);
    let proxy = over(&[&a, &b], "").await;
    for both in [false, true] {
        a.set_syncing(true);
        b.set_syncing(both);
        until_verdict(&proxy, "cl-1", "syncing").await;
        until_verdict(&proxy, "cl-2", if both { "syncing" } else { "up" }).await;
        let before = (a.count(), b.count());
        let answer = send(&proxy, request("POST", PREPARE, "", format!("[{both}]"))).await;
        assert_eq!(answer.status, 200);
        // A usable one speaks for all.
        assert!(both || answer.text() == r#"{"data":"b"}"#, "{}", answer.text());
        until("both are told", async || (a.count(), b.count()) == (before.0 + 1, before.1 + 1)).await;
    }
}

#[tokio::test]
async fn a_node_that_restarts_is_told_again_what_is_in_force() {
    let (a, b) = (Node::always(json("200 OK", "")).await, Node::always(json("200 OK", "")).await);
    let proxy = over(&[&a, &b], "").await;
    for body in ["[1]", "[2]", "[1]"] {
        send(&proxy, request("POST", PREPARE, "eth-x: 7\r\n", body)).await;
    }
    send(&proxy, request("POST", SUBSCRIBE, "", "[3]")).await;
    until("both are told", async || (a.count(), b.count()) == (4, 4)).await;
    let port = a.port();
    a.stop().await;
    until_verdict(&proxy, "cl-1", "down").await;
    // What comes meanwhile, it does not hear.
    send(&proxy, request("POST", SUBSCRIBE, "", "[4]")).await;
    let a = Node::on(port, |exchange: Exchange| exchange.reply(json("200 OK", ""))).await;
    until("it is told again", async || a.count() == 4).await;
    until_verdict(&proxy, "cl-1", "up").await;
    // Each once, in the order in which it was told last.
    assert_eq!(
        (told(&a, PREPARE), told(&a, SUBSCRIBE)),
        (vec!["[2]".into(), "[1]".into()], vec!["[3]".into(), "[4]".into()])
    );
    assert_eq!(a.asked()[0].header("eth-x"), ["7"]);
    assert_eq!(b.count(), 5, "a node that was there is told again");
    assert!(proxy.admin("GET /metrics").await.text().contains(r#"steadfast_told_again_total{network="default"} 4"#));
}

#[tokio::test]
async fn a_node_that_lost_its_peers_has_restarted_and_is_told_again() {
    let (a, b) = (paced().await, paced().await);
    let proxy = over(&[&a, &b], "").await;
    send(&proxy, request("POST", PREPARE, "", "[1]")).await;
    until("both are told", async || (a.count(), b.count()) == (1, 1)).await;
    // It is asked once a slot, so that it has told of its peers by the third.
    sleep(Duration::from_secs(3)).await;
    assert_eq!((a.count(), b.count()), (1, 1));
    a.set_peers(3);
    until("it is told again", async || a.count() == 2).await;
    assert_eq!((told(&a, PREPARE), b.count()), (vec!["[1]".to_owned(); 2], 1));
}

#[tokio::test]
async fn message_that_a_node_did_not_take_is_sent_next_slot() {
    let refuses = Arc::new(AtomicUsize::new(0));
    let turn = refuses.clone();
    let a = Node::paced(1, move |exchange: Exchange| {
        let status = if turn.fetch_add(1, SeqCst) == 0 { "503 Syncing" } else { "200 OK" };
        exchange.reply(json(status, ""))
    })
    .await;
    let b = paced().await;
    let proxy = over(&[&a, &b], "").await;
    assert_eq!(send(&proxy, request("POST", PREPARE, "", "[1]")).await.status, 200);
    until("it has it after all", async || refuses.load(SeqCst) == 2).await;
    assert_eq!(told(&a, PREPARE), ["[1]", "[1]"]);
}

const REGISTER: &str = "/eth/v1/validator/register_validator";

#[tokio::test]
async fn registrations_that_fail_hold_up_no_fee_recipients() {
    for hangs in [false, true] {
        let fails = Arc::new(AtomicBool::new(false));
        let now = fails.clone();
        let a = Node::paced(1, move |mut exchange: Exchange| {
            let fails = exchange.asked.target == REGISTER && now.load(SeqCst);
            async move {
                match (fails, hangs) {
                    (true, true) => {
                        exchange.body().await;
                        exchange.hang().await
                    }
                    (true, false) => exchange.reply(json("500 Oops", "")).await,
                    (false, _) => exchange.reply(json("200 OK", "")).await,
                }
            }
        })
        .await;
        let b = paced().await;
        let proxy = over(&[&a, &b], "").await;
        for (path, body) in [(REGISTER, "[1]"), (REGISTER, "[2]"), (PREPARE, "[3]"), (SUBSCRIBE, "[4]")] {
            assert_eq!(send(&proxy, request("POST", path, "", body)).await.status, 200);
        }
        until("both are told", async || (a.count(), b.count()) == (4, 4)).await;
        fails.store(true, SeqCst);
        // It has named its peers by the third slot, and has fewer after a restart.
        sleep(Duration::from_secs(3)).await;
        a.set_peers(3);
        until("it has the others", async || [PREPARE, SUBSCRIBE].iter().all(|path| told(&a, path).len() == 2)).await;
        until("each registration is tried", async || {
            ["[1]", "[2]"].iter().all(|body| told(&a, REGISTER).iter().filter(|told| told == body).count() >= 2)
        })
        .await;
        fails.store(false, SeqCst);
        if !hangs {
            let line = r#"steadfast_told_again_total{network="default"} 4"#;
            until("it has all", async || proxy.admin("GET /metrics").await.text().contains(line)).await;
        }
    }
}

#[tokio::test]
async fn a_node_is_told_again_once_for_each_beginning() {
    let (a, b) = (paced().await, paced().await);
    let proxy = over(&[&a, &b], "[health]\nrise = 1\ninterval = \"200ms\"\n").await;
    send(&proxy, request("POST", PREPARE, "", "[1]")).await;
    until("both are told", async || (a.count(), b.count()) == (1, 1)).await;
    // A node that rests for quota has forgotten nothing.
    a.set_resting(true);
    until_verdict(&proxy, "cl-1", "resting").await;
    send(&proxy, request("POST", PREPARE, "", "[2]")).await;
    a.set_resting(false);
    until_verdict(&proxy, "cl-1", "up").await;
    until("it is told what came meanwhile", async || a.count() == 2).await;
    // A node that starts says at first that it is syncing.
    a.set_dead(true);
    until_verdict(&proxy, "cl-1", "down").await;
    a.set_syncing(true);
    a.set_dead(false);
    until_verdict(&proxy, "cl-1", "syncing").await;
    until("it is told again", async || a.count() == 4).await;
    a.set_syncing(false);
    until_verdict(&proxy, "cl-1", "up").await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!((told(&a, PREPARE), b.count()), (["[1]", "[2]", "[1]", "[2]"].map(str::to_owned).to_vec(), 2));
}

#[tokio::test]
async fn a_body_that_is_refused_drives_out_no_good_one() {
    const BAD: &str = r#"[{"validator_index":"1","fee_recipient":"0x12"}]"#;
    const GOOD: &str = r#"[{"validator_index":"1","fee_recipient":"0x11"}]"#;
    let judging = async || {
        Node::paced(1, |mut exchange: Exchange| async move {
            exchange.body().await;
            let is_bad = exchange.asked.body == BAD.as_bytes();
            let refusal = r#"{"code":400,"message":"bad address"}"#;
            exchange.reply(if is_bad { json("400 Bad Request", refusal) } else { json("200 OK", "") }).await
        })
        .await
    };
    let (a, b) = (judging().await, judging().await);
    let proxy = over(&[&a, &b], "").await;
    for (body, status) in [(GOOD, 200), (BAD, 400)] {
        assert_eq!(send(&proxy, request("POST", PREPARE, "", body)).await.status, status);
    }
    until("both are told", async || (a.count(), b.count()) == (2, 2)).await;
    // It has named its peers by then.
    sleep(Duration::from_secs(3)).await;
    a.set_peers(3);
    until("it is told again", async || a.count() == 3).await;
    assert_eq!(told(&a, PREPARE), [GOOD, BAD, GOOD]);
}

/// The epoch at this time of the clock, and how much of it is over; epochs take 2 s.
#[allow(clippy::disallowed_methods, reason = "the slots of this chain are of the real time")]
fn epoch() -> (u64, u64) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    // The beginning of the chain is a multiple of this.
    (now / 2000, now % 2000)
}

#[tokio::test]
async fn requests_go_home_to_a_node_that_knows_the_fee_recipients() {
    for (is_told, epochs) in [(true, 1), (false, 2)] {
        let takes = Arc::new(AtomicBool::new(true));
        let may_take = takes.clone();
        let a = Node::paced(1, move |exchange: Exchange| {
            let is_taken = exchange.asked.target != PREPARE || may_take.load(SeqCst);
            exchange.reply(json(if is_taken { "200 OK" } else { "500 Oops" }, r#"{"data":"a"}"#))
        })
        .await;
        let b = Node::paced(1, |exchange: Exchange| exchange.reply(json("200 OK", r#"{"data":"b"}"#))).await;
        [&a, &b].iter().for_each(|node| node.set_epoch(2));
        let proxy = over(&[&a, &b], "[health]\nrise = 1\ninterval = \"200ms\"\n").await;
        let served = async || ask(&proxy, "GET", DATA).await.text();
        assert_eq!(served().await, r#"{"data":"a"}"#);
        send(&proxy, request("POST", PREPARE, "", "[1]")).await;
        a.set_syncing(true);
        until_verdict(&proxy, "cl-1", "syncing").await;
        assert_eq!(served().await, r#"{"data":"b"}"#);
        takes.store(is_told, SeqCst);
        until("an epoch has just begun", async || (200..800).contains(&epoch().1)).await;
        let (since, _) = epoch();
        a.set_syncing(false);
        until_verdict(&proxy, "cl-1", "up").await;
        until("requests are home", async || served().await == r#"{"data":"a"}"#).await;
        let (home, over) = epoch();
        // An epoch counts as over a sixth of a slot early.
        let home = home + u64::from(over > 1800);
        assert!(home >= since + epochs, "{since} {home}");
    }
}

#[tokio::test]
async fn a_polled_head_does_not_go_back_with_another_node() {
    // The slot by the clock, as probes have it, is the head before the one that the first tells.
    let slot = || {
        #[allow(clippy::disallowed_methods, reason = "the slots of this chain are of the real time")]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        (now - (now / 1_000_000 - 1) * 1_000_000) / 6
    };
    let header = |slot: u64| json("200 OK", &format!(r#"{{"data":{{"header":{{"message":{{"slot":"{slot}"}}}}}}}}"#));
    let is_lost = Arc::new(AtomicBool::new(false));
    let lost = is_lost.clone();
    let first = Node::paced(6, move |exchange: Exchange| {
        let (is_lost, answer) = (lost.load(SeqCst), header(slot() + 1));
        async move { if is_lost { None } else { exchange.reply(answer).await } }
    })
    .await;
    // The second has that head a little later.
    let since: Arc<std::sync::Mutex<Option<Instant>>> = Arc::default();
    let lost_at = since.clone();
    let second = Node::paced(6, move |exchange: Exchange| {
        let is_there = lost_at.lock().unwrap().is_some_and(|at| at.elapsed() > Duration::from_millis(700));
        exchange.reply(header(if is_there { slot() + 1 } else { slot() }))
    })
    .await;
    let proxy = over(&[&first, &second], "[health]\ninterval = \"200ms\"\n").await;
    let told = async || {
        let answer = ask(&proxy, "GET", HEAD).await.json();
        answer["data"]["header"]["message"]["slot"].as_str().unwrap().parse::<u64>().unwrap()
    };
    let before = told().await;
    *since.lock().unwrap() = Some(Instant::now());
    is_lost.store(true, SeqCst);
    let after = told().await;
    assert!(after >= before, "{before} and then {after}");
}
