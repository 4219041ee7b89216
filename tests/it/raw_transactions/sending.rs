//! One transaction to several nodes: the first good answer, refusals, and unknown outcomes.

use std::{future::pending, time::Duration};

use super::*;
use crate::common::{
    client::post,
    origin::{Origin, Reply, Seen, response},
    proxy,
};
use steadfast::devnet::Fault;
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn a_transaction_reaches_all_usable_nodes_from_every_door() {
    let scene = Scene::start("").await;
    scene.sent(1).await;
    let mut client = scene.proxy.client().await;
    let batch = client.post(format!("[{},{}]", send(2), send(3))).await.json();
    assert_eq!((&batch[0]["result"], &batch[1]["result"]), (&hash(2).into(), &hash(3).into()), "{batch}");
    assert!(client.is_silent().await, "an answer came that was not asked for");
    let mut ws = scene.proxy.ws().await;
    let answer = ws.ask(send(4)).await;
    assert_eq!(answer, format!(r#"{{"jsonrpc":"2.0","id":4,"result":"{}"}}"#, hash(4)));
    assert!(ws.is_silent().await, "an answer came that was not asked for");
    for index in 0..3 {
        until("all have come", async || scene.mempool(index).len() == 4).await;
        let mut mempool = scene.mempool(index);
        mempool.sort();
        let mut expected = hashes(1..=4);
        expected.sort();
        assert_eq!(mempool, expected, "node {index}");
    }
    assert_eq!(scene.counts(), [4, 4, 4]);
    until("all words are counted", async || scene.words(r#"reason="call",word="took""#).await == 12).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_good_answer_goes_back_while_a_node_hangs() {
    let scene = Scene::start("").await;
    scene.node(0).set_fault(Fault::slow_over(3_600_000, &[SEND]));
    let start = Instant::now();
    let mut client = scene.proxy.client().await;
    for number in 1..=3 {
        let answer = client.post(send(number)).await.json();
        assert_eq!(answer["result"], hash(number), "{answer}");
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(client.is_silent().await);
    // The hanging node answers its probes, so its sends end by the deadline, and are counted.
    sleep(Duration::from_secs(31)).await;
    assert_eq!((scene.words(r#"word="took""#).await, scene.words(r#"reason="call",word="lost""#).await), (6, 3));
    assert_eq!(scene.proxy.in_flight().await, 0);
}

#[tokio::test(start_paused = true)]
async fn slow_sends_go_on_when_the_client_has_its_answer() {
    let scene = Scene::start("").await;
    scene.node(0).set_fault(Fault::slow_over(5000, &[SEND]));
    let start = Instant::now();
    scene.sent(1).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    until("the slow node has it", async || scene.mempool(0) == hashes([1])).await;
    until("its word is counted", async || scene.words(r#"word="took""#).await == 3).await;
    assert_eq!(scene.words(r#"word="lost""#).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_without_room_for_copies_reaches_all_later() {
    // Each call leaves two sends under way, of which there are 4,096 at most.
    const CALLS: u16 = 2047;
    let scene = Scene::start("").await;
    for slow in [1, 2] {
        scene.node(slow).set_fault(Fault::slow_over(3_600_000, &[SEND]));
    }
    let mut client = scene.proxy.client().await;
    for number in 1..=CALLS {
        let answer = client.post(send(number)).await.json();
        assert_eq!(answer["result"], hash(number), "{answer}");
    }
    let last = CALLS + 1;
    [1, 2].iter().for_each(|slow| scene.node(*slow).clear_faults());
    scene.sent(last).await;
    assert_eq!(scene.words(r#"reason="call",word="took""#).await, u64::from(CALLS), "the last call had copies too");
    for slow in [1, 2] {
        until("the others have it too", async || scene.mempool(slow).contains(&hash(last))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn another_node_takes_what_one_refuses_for_quota() {
    let scene = Scene::start("").await;
    scene.node(0).set_fault(Fault::quota(&[SEND]));
    scene.sent(1).await;
    assert_eq!((scene.mempool(0), scene.mempool(1), scene.mempool(2)), (vec![], hashes([1]), hashes([1])));
    until("its word is counted", async || scene.words(r#"reason="call",word="busy""#).await == 1).await;
    // The node rests from such calls: it is not sent each of them.
    for number in 2..20 {
        scene.sent(number).await;
    }
    // Nor when no client sends any more.
    sleep(Duration::from_secs(50)).await;
    assert!(scene.node(0).count(SEND) <= 3, "{}", scene.node(0).count(SEND));
    assert_eq!(scene.proxy.verdicts().await, ["up", "up", "up"]);
}

#[tokio::test(start_paused = true)]
async fn with_first_a_transaction_goes_to_one_node() {
    let scene = Scene::start("calls.send_to = \"first\"\n").await;
    scene.sent(1).await;
    let again = scene.send(1).await.json();
    assert_eq!(error(&again), (-32000, "already known"));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(scene.counts(), [2, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn with_tier_a_transaction_goes_to_the_tier_that_serves() {
    let scene = Scene::start("calls.send_to = \"tier\"\n").await;
    scene.sent(1).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(scene.counts(), [1, 1, 0]);
    scene.node(0).set_fault(Fault::Down);
    scene.node(1).set_fault(Fault::Down);
    scene.until_verdicts(["down", "down", "up"]).await;
    scene.sent(2).await;
    // The backup serves now, and has the earlier one too.
    until("the backup has both", async || scene.mempool(2).len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_all_know_is_a_success_with_its_hash() {
    let scene = Scene::start("").await;
    scene.sent(1).await;
    until("all have it", async || scene.counts() == [1, 1, 1]).await;
    scene.sent(1).await;
    scene.node(1).set_fault(Fault::Down);
    scene.node(2).set_fault(Fault::Down);
    scene.until_verdicts(["up", "down", "down"]).await;
    scene.sent(1).await;
    assert_eq!(scene.mempool(0), hashes([1]));
}

/// A proxy before nodes that answer a transaction so, and the client's answer to one.
async fn answered<const N: usize>(scripts: [fn(&Seen) -> Reply; N]) -> (Value, Duration, [usize; N]) {
    let net = Net::default();
    let mut origins = Vec::new();
    for script in scripts {
        let asked = move |seen: &Seen| match seen.method().as_str() {
            "eth_getTransactionByHash" => Reply::result(seen, "null"),
            _ => script(seen),
        };
        origins.push(Origin::within(&net, asked).await);
    }
    let proxy = Proxy::over(&net, origins.iter().map(Origin::url), "").await;
    let start = Instant::now();
    let answer = proxy.post(send(1)).await.json();
    let counts = std::array::from_fn(|index| origins[index].count(SEND));
    (answer, start.elapsed(), counts)
}

fn too_low(seen: &Seen) -> Reply {
    Reply::error(seen, -32000, "nonce too low: next nonce 8, tx nonce 7")
}

fn poor(seen: &Seen) -> Reply {
    Reply::error(seen, -32010, "insufficient funds for gas * price + value")
}

fn malformed(seen: &Seen) -> Reply {
    Reply::error(seen, -32000, "rlp: expected input list for types.LegacyTx")
}

fn takes(seen: &Seen) -> Reply {
    Reply::result(seen, &format!("\"{}\"", hash(1)))
}

fn lost(_: &Seen) -> Reply {
    Reply::Last(Vec::new())
}

fn hangs(_: &Seen) -> Reply {
    Reply::act(async |_io| pending().await)
}

fn slow(reply: fn(&Seen) -> Reply, seen: &Seen) -> Reply {
    let Reply::Bytes(bytes) = reply(seen) else { panic!("no bytes") };
    Reply::act(async move |mut io| {
        sleep(Duration::from_millis(500)).await;
        tokio::io::AsyncWriteExt::write_all(&mut io, &bytes).await.unwrap();
        Some(io)
    })
}

#[tokio::test(start_paused = true)]
async fn a_refusal_goes_back_only_when_all_nodes_refuse() {
    let (answer, _, counts) = answered([too_low, poor]).await;
    assert_eq!(error(&answer), (-32000, "nonce too low: next nonce 8, tx nonce 7"), "the first node's");
    assert_eq!(counts, [1, 1]);
    for refuses in [too_low, poor, malformed] {
        let (answer, _, _) = answered([refuses, |seen| slow(takes, seen)]).await;
        assert_eq!(answer["result"], hash(1), "{answer}");
        let (answer, _, _) = answered([|seen| slow(takes, seen), refuses]).await;
        assert_eq!(answer["result"], hash(1), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_bytes_is_final_though_a_node_hangs() {
    let (answer, took, _) = answered([hangs, malformed, too_low]).await;
    assert_eq!(error(&answer).1, "rlp: expected input list for types.LegacyTx");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_beside_a_lost_answer_leaves_the_outcome_unknown() {
    for lost in [lost, hangs] {
        for refuses in [too_low, poor, |seen: &Seen| Reply::error(seen, -32099, "a reason of its own")] {
            let (answer, took, _) = answered([lost, refuses]).await;
            assert_eq!(answer["error"]["data"]["reason"], "outcome_unknown", "{answer}");
            assert!(took < Duration::from_secs(11), "{took:?}");
        }
    }
    let known = |seen: &Seen| Reply::error(seen, -32603, "AlreadyKnown");
    let (answer, _, _) = answered([lost, known]).await;
    assert_eq!(answer["result"], hash(1), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_full_or_out_of_quota_are_no_last_word() {
    let full = |seen: &Seen| Reply::error(seen, -32000, "txpool is full");
    let (answer, _, counts) = answered([full, full]).await;
    assert_eq!((error(&answer).1, counts), ("txpool is full", [1, 1]));
    let quota = |seen: &Seen| Reply::error(seen, -32005, "rate limit exceeded");
    let (answer, _, _) = answered([quota, poor]).await;
    assert_eq!(error(&answer).0, -32010, "{answer}");
}

/// What a node that is not well answers to probes.
fn ill() -> Option<Vec<u8>> {
    Some(response("503 Service Unavailable", "", "not yet"))
}

#[tokio::test(start_paused = true)]
async fn transactions_that_waited_reach_every_node_in_their_order() {
    const CALLS: u16 = 8;
    let net = Net::default();
    let well = |seen: &Seen| Reply::result(seen, "\"well\"");
    let away = Origin::within(&net, well).await;
    away.ail(ill());
    let nodes = [Origin::within(&net, well).await, Origin::within(&net, well).await];
    let proxy = Arc::new(Proxy::launch(&net, &proxy::nodes([away.url()])).await);
    let mut calls = tokio::task::JoinSet::new();
    for number in 1..=CALLS {
        let calling = proxy.clone();
        calls.spawn(async move { calling.post(send(number)).await.text() });
        let held = f64::from(number);
        until("it is held", async || proxy.metric("steadfast_held_calls", "").await >= held).await;
    }
    // The first dials are probes'; of the calls', later ones come about sooner.
    let delays = [0; 6].into_iter().chain((1..40).rev());
    net.delay(delays.map(Duration::from_millis));
    proxy.reload(&proxy::nodes(nodes.iter().map(Origin::url))).await;
    for answer in calls.join_all().await {
        assert!(answer.contains("well"), "{answer}");
    }
    let expected: Vec<String> = (1..=CALLS).map(|number| format!("[\"{}\"]", transaction(number).0)).collect();
    for node in &nodes {
        until("all have come", async || node.count(SEND) == usize::from(CALLS)).await;
        let sent: Vec<String> = node.seen().iter().filter(|seen| seen.method() == SEND).map(Seen::params).collect();
        assert_eq!(sent, expected, "{}", node.url());
    }
    let words = proxy.metric(SENDS, r#"reason="call",word="took""#).await as u64;
    assert_eq!(words, 2 * u64::from(CALLS), "not all went to both nodes at once");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_left_before_a_connection_came_sends_nothing() {
    const CALLS: usize = 24;
    let net = Net::default();
    let well = |seen: &Seen| Reply::result(seen, "\"well\"");
    let origins = [Origin::within(&net, well).await, Origin::within(&net, well).await];
    origins.iter().for_each(|node| node.ail(ill()));
    let proxy = Proxy::launch(&net, &proxy::nodes(origins.iter().map(Origin::url))).await;
    let mut clients = Vec::new();
    for number in 1..=CALLS {
        let mut client = proxy.client().await;
        client.send(post("/", send(number as u16).as_bytes())).await;
        clients.push(client);
    }
    until("they are held", async || proxy.metric("steadfast_held_calls", "").await >= CALLS as f64).await;
    sleep(Duration::from_millis(1500)).await;
    net.delay([Duration::from_millis(1900)].repeat(60));
    origins.iter().for_each(|node| node.ail(None));
    until("they have left the queue", async || proxy.metric("steadfast_held_calls", "").await < 0.5).await;
    drop(clients);
    sleep(Duration::from_secs(20)).await;
    // A few may have found the probes' connections before their clients left.
    let counts = origins.map(|node| node.count(SEND));
    assert!(counts.iter().all(|count| *count < CALLS / 2), "{counts:?}");
}
