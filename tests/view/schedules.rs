//! Random schedules of faults, reorganisations, comings and goings: what is told adds up to the canonical logs, and heads are connected.

use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use steadfast::devnet::Fault;
use tokio::time::sleep;

use super::{
    logs::{standing, to_logs},
    stage::{Client, Stage},
};

struct Subscriber {
    client: Client,
    filter: Value,
    /// The highest block that it may have heard of already.
    since: u64,
    told: Vec<Value>,
}

async fn run(seed: u64) {
    let mut random = Rng::with_seed(seed);
    let stage = Stage::new("").await;
    let chain = stage.devnet.chain();
    let contracts: Vec<String> = chain.contracts().iter().map(ToString::to_string).collect();
    let mut subscribers: Vec<Subscriber> = Vec::new();
    for _ in 0..40 {
        match random.u8(0..20) {
            0..=6 => _ = chain.mine(random.u64(1..4)),
            7..=9 => _ = chain.reorg(random.u64(1..5)).unwrap(),
            10..=13 => {
                let faults = [
                    Fault::Down,
                    Fault::Hang,
                    Fault::Mute,
                    Fault::lag(2),
                    Fault::Failing,
                    Fault::cut_answer(&["eth_getLogs"]),
                    Fault::slow(300),
                ];
                let node = random.usize(0..2);
                stage.devnet.el(node).set_fault(faults[random.usize(..faults.len())].clone());
            }
            14..=16 => stage.devnet.el(random.usize(0..2)).clear_faults(),
            17..=18 => {
                let filter = match random.u8(0..3) {
                    0 => json!({}),
                    1 => json!({"address": contracts[random.usize(..3)]}),
                    _ => json!({"topics": ["0x8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925"]}),
                };
                let mut client = stage.client();
                to_logs(&mut client, &filter).await;
                let since = chain.head().number;
                subscribers.push(Subscriber { client, filter, since, told: Vec::new() });
            }
            _ => _ = (!subscribers.is_empty()).then(|| subscribers.swap_remove(random.usize(..subscribers.len()))),
        }
        sleep(Duration::from_millis(random.u64(0..800))).await;
        for one in &mut subscribers {
            one.told.extend(one.client.results());
        }
    }
    stage.heal();
    sleep(Duration::from_secs(40)).await;
    chain.mine(1);
    sleep(Duration::from_secs(20)).await;
    for mut one in subscribers {
        one.told.extend(one.client.results());
        let stand = standing(&one.told);
        // From when on it hears depends on what nodes had told when it came; from there on, it is everything.
        let canonical = stage.logs_since(0, &one.filter).await;
        assert!(canonical.ends_with(&stand), "seed {seed}: not the canonical logs");
        let due = stage.logs_since(one.since + 1, &one.filter).await;
        assert!(stand.len() >= due.len(), "seed {seed}: {} of {} logs", stand.len(), due.len());
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_logs_add_up() {
    let first = std::env::var("STEADFAST_SEED").ok().map_or(1, |seed| seed.parse().unwrap());
    let count = std::env::var("STEADFAST_SEEDS").ok().map_or(30, |count| count.parse().unwrap());
    for seed in first..first + count {
        println!("seed {seed}");
        run(seed).await;
    }
}
