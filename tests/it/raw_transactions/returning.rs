//! Transactions that nodes took earlier, at nodes that take over or come back.

use std::time::Duration;

use super::*;
use steadfast::devnet::Fault;
use tokio::time::{Instant, sleep};

const FIRST: &str = "calls.send_to = \"first\"\n";

#[tokio::test(start_paused = true)]
async fn a_bots_nonces_have_no_gap_at_the_node_that_takes_over() {
    for more in ["", FIRST] {
        let scene = Scene::start(more).await;
        let mut bot = scene.proxy.client().await;
        // Only the first node hears of these where transactions go to one node; the others are
        // busy with what they have where transactions go to all.
        if more.is_empty() {
            scene.node(1).set_fault(Fault::refuse(&[SEND]));
        }
        for number in 1..=40 {
            if number == 20 {
                scene.node(0).set_fault(Fault::Down);
                scene.node(0).settled().await;
                scene.node(1).clear_faults();
            }
            let answer = bot.post(send(number)).await.json();
            assert_eq!(answer["result"], hash(number), "{answer}");
        }
        scene.until_mempool(1, 1..=40).await;
        let taken: Vec<String> = scene.node(1).raw_transactions().iter().map(ToString::to_string).collect();
        let earlier: Vec<&String> = taken.iter().filter(|taken| hashes(1..20).contains(taken)).collect();
        assert_eq!(earlier.len(), 19, "{more}");
        assert!(earlier.into_iter().eq(&hashes(1..20)), "not in the order of the acknowledgements: {more}");
        assert_eq!(scene.mempool(2).len(), if more.is_empty() { 40 } else { 0 }, "{more}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_gets_each_transaction_once() {
    let scene = Scene::start("").await;
    for number in 1..=5 {
        scene.sent(number).await;
    }
    until("all have them", async || scene.counts() == [5, 5, 5]).await;
    for (round, number) in [(1, 6), (2, 7)] {
        scene.node(1).clear_records();
        scene.node(1).set_fault(Fault::Down);
        scene.until_verdicts(["up", "down", "up"]).await;
        scene.sent(number).await;
        scene.node(1).restart().await;
        assert_eq!(scene.mempool(1), hashes([]), "the mempool is empty");
        scene.until_mempool(1, 1..=number).await;
        scene.until_verdicts(["up", "up", "up"]).await;
        sleep(Duration::from_secs(20)).await;
        assert_eq!(scene.node(1).count(SEND), u64::from(number), "round {round}");
    }
    assert_eq!((scene.counts()[0], scene.counts()[2]), (7, 7), "the others were not sent anything twice");
    assert_eq!(scene.words(r#"reason="again",word="took""#).await, 6 + 7);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_is_not_hammered() {
    const MANY: u16 = 300;
    let scene = Scene::start("").await;
    scene.node(1).set_fault(Fault::Down);
    scene.until_verdicts(["up", "down", "up"]).await;
    let mut bot = scene.proxy.client().await;
    for number in 1..=MANY {
        assert_eq!(bot.post(send(number)).await.json()["result"], hash(number));
    }
    scene.node(1).clear_faults();
    scene.until_verdicts(["up", "up", "up"]).await;
    let start = Instant::now();
    scene.until_mempool(1, 1..=MANY).await;
    let took = start.elapsed();
    assert!(took > Duration::from_millis(500) && took < Duration::from_secs(5), "{MANY} within {took:?}");
    assert!(scene.node(1).connections_open() < 5);
}

#[tokio::test(start_paused = true)]
async fn errors_of_a_node_that_comes_back_reach_no_client() {
    for fault in [
        Fault::quota(&[SEND]),
        Fault::refuse(&[SEND]),
        Fault::cut_answer(&[SEND]),
        Fault::slow_over(3_600_000, &[SEND]),
    ] {
        let scene = Scene::start("").await;
        scene.node(1).set_fault(Fault::Down);
        scene.until_verdicts(["up", "down", "up"]).await;
        for number in 1..=20 {
            scene.sent(number).await;
        }
        scene.node(1).set_fault(fault.clone());
        scene.node(1).clear_fault("down");
        scene.until_verdicts(["up", "up", "up"]).await;
        let (start, before) = (Instant::now(), scene.node(1).count(SEND));
        while start.elapsed() < Duration::from_secs(20) {
            assert_eq!(scene.proxy.verdicts().await, ["up", "up", "up"], "{fault:?}");
            sleep(Duration::from_secs(1)).await;
        }
        let asked = scene.node(1).count(SEND) - before;
        assert!((1..=60).contains(&asked), "{fault:?}: {asked} sends in 20 s");
        let status = scene.proxy.node("el-2").await;
        assert_eq!(status["resting"], Value::Null, "{fault:?}: {status}");
        let failed =
            scene.words(r#"reason="again",word="busy""#).await + scene.words(r#"reason="again",word="lost""#).await;
        assert!(failed > 0, "{fault:?}");
        scene.sent(21).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_node_gets_them_when_its_quota_is_back() {
    let scene = Scene::start("").await;
    scene.node(1).set_fault(Fault::Down);
    scene.until_verdicts(["up", "down", "up"]).await;
    for number in 1..=5 {
        scene.sent(number).await;
    }
    scene.node(1).set_fault(Fault::quota(&[SEND]));
    scene.node(1).clear_fault("down");
    scene.until_verdicts(["up", "up", "up"]).await;
    sleep(Duration::from_secs(10)).await;
    scene.node(1).clear_faults();
    sleep(Duration::from_secs(31)).await;
    scene.until_mempool(1, 1..=5).await;
}

#[tokio::test(start_paused = true)]
async fn transactions_are_remembered_over_a_reload() {
    let scene = Scene::start(FIRST).await;
    for number in 1..=5 {
        scene.sent(number).await;
    }
    let more = format!("{FIRST}calls.hold = \"9s\"\n");
    scene.proxy.reload(&two_primaries_and_a_backup(&scene.devnet, &more)).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(scene.counts(), [5, 0, 0], "the reload is no reason to send");
    scene.node(0).set_fault(Fault::Down);
    scene.until_verdicts(["down", "up", "up"]).await;
    scene.until_mempool(1, 1..=5).await;
    assert_eq!(scene.proxy.metric("steadfast_remembered_transactions", "").await as u64, 5);
}

#[tokio::test(start_paused = true)]
async fn transactions_are_not_remembered_for_ever() {
    let scene = Scene::start(FIRST).await;
    scene.sent(1).await;
    sleep(Duration::from_secs(4 * 60)).await;
    scene.sent(2).await;
    sleep(Duration::from_secs(2 * 60)).await;
    scene.node(0).set_fault(Fault::Down);
    scene.until_verdicts(["down", "up", "up"]).await;
    scene.until_mempool(1, [2]).await;
    sleep(Duration::from_secs(5 * 60)).await;
    assert_eq!((scene.mempool(1), scene.counts()[1]), (hashes([2]), 1));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_a_node_refused_is_not_remembered() {
    let scene = Scene::start(FIRST).await;
    let refused = scene.proxy.post(call(1, SEND, "[\"0x02\"]")).await.json();
    assert_eq!(error(&refused).0, -32000, "{refused}");
    scene.node(0).set_fault(Fault::Down);
    scene.until_verdicts(["down", "up", "up"]).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(scene.counts()[1], 0);
}

#[tokio::test(start_paused = true)]
async fn a_forgetful_node_costs_no_transaction() {
    let scene = Scene::start("").await;
    scene.node(0).set_fault(Fault::Forgetful);
    scene.sent(1).await;
    until("the others have it", async || [1, 2].iter().all(|node| scene.mempool(*node) == hashes([1]))).await;
    assert_eq!((scene.mempool(0), scene.counts()[0]), (hashes([]), 1));
    scene.devnet.chain().mine(1);
    let receipt = scene.proxy.post(call(1, "eth_getTransactionReceipt", &format!("[\"{}\"]", hash(1)))).await.json();
    assert_eq!(receipt["result"]["transactionHash"], hash(1), "{receipt}");
}
