//! `calls.policy`: how calls are divided among nodes that are equally good. On a network of memory
//! under a simulated clock.

use std::time::Duration;

use serde_json::json;
use steadfast::devnet::Fault;
use tokio::time::sleep;

use crate::{
    budgets::{BALANCE, Scene},
    common::{client::call, until},
};

const METHOD: &str = "eth_getBalance";

impl Scene {
    /// The calls that each node had meanwhile.
    async fn shares(&self, asking: impl AsyncFnOnce()) -> Vec<u64> {
        let counts = || (0..self.nodes).map(|place| self.node(place).count(METHOD)).collect::<Vec<_>>();
        let before = counts();
        asking().await;
        counts().iter().zip(before).map(|(now, before)| now - before).collect()
    }

    /// One call after the other.
    async fn ask_in_turn(&self, calls: usize) {
        for id in 0..calls {
            let answer = self.proxy.post(call(id, METHOD, BALANCE)).await;
            assert!(answer.json()["result"].is_string(), "{answer:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn weights_divide_calls_and_the_rest_take_over() {
    let scene = Scene::start("calls = { policy = \"weighted\" }\n", &["weight = 3", "", "weight = 4"]).await;
    let shares = scene.shares(async || scene.ask_in_turn(800).await).await;
    assert!(shares.iter().zip([300, 100, 400]).all(|(share, wanted)| share.abs_diff(wanted) <= 2), "{shares:?}");
    scene.node(2).set_fault(Fault::Down);
    assert_eq!(scene.shares(async || scene.ask_in_turn(40).await).await.iter().sum::<u64>(), 40);
    until("the third node is out", async || scene.proxy.verdicts().await[2] != "up").await;
    let shares = scene.shares(async || scene.ask_in_turn(400).await).await;
    assert!(shares[0].abs_diff(300) < 10 && shares[2] == 0, "{shares:?}");
    // A reload gives the nodes other parts, without a moment in which they are unknown.
    scene.node(2).clear_faults();
    until("all are up", async || scene.proxy.verdicts().await.iter().all(|verdict| verdict == "up")).await;
    scene.proxy.reload(&scene.settings.replace("weight = 4", "weight = 12")).await;
    assert_eq!(scene.proxy.verdicts().await, ["up", "up", "up"]);
    let shares = scene.shares(async || scene.ask_in_turn(400).await).await;
    assert!(shares[0].abs_diff(75) < 10 && shares[2].abs_diff(300) < 10, "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn the_fastest_node_has_most_calls_and_is_not_flooded() {
    let scene = Scene::start("calls = { policy = \"fastest\" }\n", &["", ""]).await;
    scene.node(0).set_fault(Fault::slow(80));
    scene.node(1).set_fault(Fault::slow(10));
    let shares = scene.shares(async || scene.ask_in_turn(100).await).await;
    assert!(shares[0] <= 2, "one call after the other: {shares:?}");
    // Of many at once the slow node has a part.
    let shares = scene.shares(async || _ = scene.ask(90, METHOD, BALANCE).await).await;
    assert!(shares[0].abs_diff(10) < 6, "ninety calls at once: {shares:?}");
    // The other is slow now, and the first well again.
    scene.node(0).clear_faults();
    scene.node(0).set_fault(Fault::slow(5));
    scene.node(1).set_fault(Fault::slow(200));
    let shares = scene.shares(async || scene.ask_in_turn(100).await).await;
    assert!(shares[0] >= 80, "{shares:?}");
    // What was slow is asked again in time.
    scene.node(1).clear_faults();
    sleep(Duration::from_secs(120)).await;
    let shares = scene.shares(async || scene.ask_in_turn(100).await).await;
    assert!(shares[1] >= 50, "the slow node was forgotten: {shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_method_says_nothing_of_another() {
    let scene = Scene::start("calls = { policy = \"fastest\" }\n", &["", ""]).await;
    scene.node(0).set_fault(Fault::slow_over(500, &["eth_getLogs"]));
    scene.node(1).set_fault(Fault::slow(20));
    for id in 0..20 {
        let params = json!([{ "fromBlock": "0x0", "toBlock": "0x0" }]).to_string();
        scene.proxy.post(call(id, "eth_getLogs", &params)).await;
    }
    let shares = scene.shares(async || scene.ask_in_turn(50).await).await;
    assert!(shares[0] >= 48, "{shares:?}");
    assert!(scene.node(0).count("eth_getLogs") <= 2);
}
