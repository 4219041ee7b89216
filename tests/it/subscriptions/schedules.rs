//! Random schedules of faults, reorganisations, comings and goings: what is told adds up to the canonical logs, and heads are connected.

use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use steadfast::devnet::Fault;
use tokio::time::sleep;

use super::{
    logs::{PATIENT, standing, to_logs},
    setup::{Client, Setup},
};

struct Subscriber {
    client: Client,
    filter: Value,
    /// The highest block that it may have heard of already.
    since: u64,
    told: Vec<Value>,
}

/// The hashes of what stands of the headers that were told, after checking that each follows from an earlier one.
fn chain_of(headers: &[Value]) -> Vec<String> {
    let mut chain: Vec<&Value> = Vec::new();
    let mut base = None;
    for header in headers {
        while let Some(tip) = chain.last().filter(|tip| tip["hash"] != header["parentHash"]) {
            assert_ne!(tip["hash"], header["hash"], "twice in a row");
            chain.pop();
        }
        // A reorganisation may reach below the first header that was told.
        let is_first = base.is_none_or(|base: u64| height(header) <= base);
        assert!(!chain.is_empty() || is_first, "it follows from nothing: {header}");
        if chain.is_empty() {
            base = Some(height(header));
        }
        chain.push(header);
    }
    chain.iter().map(|header| header["hash"].as_str().unwrap().to_owned()).collect()
}

fn height(header: &Value) -> u64 {
    u64::from_str_radix(header["number"].as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

async fn run(seed: u64) {
    let mut random = Rng::with_seed(seed);
    // Logs that no node gives for four block times would be given up: that has tests of its own.
    let setup = Setup::new(PATIENT).await;
    let chain = setup.devnet.chain();
    let contracts: Vec<String> = chain.contracts().iter().map(|one| format!("{one:#x}")).collect();
    let mut subscribers: Vec<Subscriber> = Vec::new();
    let (mut heads, mut headers) = (setup.client(), Vec::new());
    heads.subscribe(r#"["newHeads"]"#).await;
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
                    Fault::NoLogsByHash,
                    Fault::logs_limit(1),
                    Fault::refuse(&["eth_getLogs"]),
                    Fault::slow(300),
                ];
                let node = random.usize(0..2);
                setup.devnet.el(node).set_fault(faults[random.usize(..faults.len())].clone());
            }
            14..=16 => setup.devnet.el(random.usize(0..2)).clear_faults(),
            17..=18 => {
                let filter = match random.u8(0..3) {
                    0 => json!({}),
                    1 => json!({"address": contracts[random.usize(..3)]}),
                    _ => json!({"topics": ["0x8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925"]}),
                };
                let mut client = setup.client();
                to_logs(&mut client, &filter).await;
                let since = chain.head().number;
                subscribers.push(Subscriber { client, filter, since, told: Vec::new() });
            }
            _ => _ = (!subscribers.is_empty()).then(|| subscribers.swap_remove(random.usize(..subscribers.len()))),
        }
        sleep(Duration::from_millis(random.u64(0..800))).await;
        headers.extend(heads.results());
        for one in &mut subscribers {
            one.told.extend(one.client.results());
        }
    }
    setup.heal();
    sleep(Duration::from_secs(40)).await;
    chain.mine(1);
    sleep(Duration::from_secs(20)).await;
    headers.extend(heads.results());
    let stand = chain_of(&headers);
    let canonical = (1..=chain.head().number).map(|number| chain.block(number).unwrap().hash.to_string());
    assert!(canonical.collect::<Vec<_>>().ends_with(&stand) && stand.len() > 1, "seed {seed}: not the canonical chain");
    for mut one in subscribers {
        one.told.extend(one.client.results());
        let stand = standing(&one.told);
        // From when on it hears depends on what nodes had told when it came; from there on, it is everything.
        let canonical = setup.logs_since(0, &one.filter).await;
        assert!(canonical.ends_with(&stand), "seed {seed}: not the canonical logs");
        let due = setup.logs_since(one.since + 1, &one.filter).await;
        assert!(stand.len() >= due.len(), "seed {seed}: {} of {} logs", stand.len(), due.len());
    }
}

#[tokio::test(start_paused = true)]
async fn logs_add_up_under_random_schedules() {
    let first = std::env::var("STEADFAST_SEED").ok().map_or(1, |seed| seed.parse().unwrap());
    let count = std::env::var("STEADFAST_SEEDS").ok().map_or(30, |count| count.parse().unwrap());
    for seed in first..first + count {
        println!("seed {seed}");
        run(seed).await;
    }
}
