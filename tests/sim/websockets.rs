//! Whole WebSocket sessions under random faults, reorganisations and outages, thousands of schedules in simulated time. Each is known by
//! its seed; the same seed gives the same run.
//!
//! `STEADFAST_SEEDS=FROM..TO` chooses others than the usual ones.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::common::{
    disturb::disturb,
    seeds::{each, seeds},
    simulation::{EACH, MOSTLY_BOTH, Simulation, run_simulated, some_nodes},
    witness::Report,
};
use fastrand::Rng;
use steadfast::devnet::Fault;

/// In milliseconds from the start.
const FAULTS_UNTIL: u64 = 30_000;
const CALLS_UNTIL: u64 = 33_000;
const BLOCKS_UNTIL: u64 = 42_000;
const END: u64 = 52_000;
const CLIENTS: usize = 3;
/// All nodes are away for three seconds at most; then a node has to prove itself, and another may hang.
const TIMEOUT: Duration = Duration::from_secs(9);

fn run(seed: u64) -> Vec<Report> {
    run_simulated(seed, async {
        let mut rng = Rng::with_seed(seed);
        let reaches = some_nodes(&mut rng, &MOSTLY_BOTH);
        let nodes = reaches.len();
        // What is given up in the end has a simulation of its own, below.
        let mut simulation = Simulation::start(seed, &reaches, "[chain]\ntimeout = \"1m\"\n").await;
        let _miner = simulation.mine(Duration::from_millis(rng.u64(300..3000)), BLOCKS_UNTIL);
        for number in 0..CLIENTS {
            let mut plan = simulation.plan(number, CALLS_UNTIL, END);
            plan.pace = 20..400;
            plan.time_limit = TIMEOUT;
            simulation.admit(plan).await;
            if rng.bool() {
                simulation.at(2_000 + rng.u64(..4_000)).await;
            }
        }
        while simulation.start.elapsed().as_millis() < u128::from(FAULTS_UNTIL) {
            let now = u64::try_from(simulation.start.elapsed().as_millis()).unwrap();
            simulation.at(now + rng.u64(50..4_000)).await;
            disturb(&simulation, &reaches, &mut rng).await;
        }
        for node in 0..nodes {
            simulation.node(node).clear_faults();
        }
        let reports = simulation.settle().await;
        simulation.app.shutdown().await;
        reports
    })
}

/// For a while nobody gives the logs of one block; besides that, all but the last node come and go. Whom the block may concern is told, and
/// nobody else notices.
fn run_without_logs_of_a_block(seed: u64) -> usize {
    run_simulated(seed, async {
        let mut rng = Rng::with_seed(seed);
        let reaches = some_nodes(&mut rng, &EACH);
        let nodes = reaches.len();
        let mut simulation = Simulation::start(seed, &reaches, "").await;
        let _miner = simulation.mine(Duration::from_millis(rng.u64(500..3000)), BLOCKS_UNTIL);
        for number in 0..CLIENTS {
            let mut plan = simulation.plan(number, CALLS_UNTIL, END);
            plan.time_limit = TIMEOUT;
            plan.may_be_closed = true;
            simulation.admit(plan).await;
        }
        simulation.at(4_000 + rng.u64(..4_000)).await;
        let missing = simulation.devnet.chain().head().number + rng.u64(1..3);
        let lacks = |clears: bool, node: usize| {
            if clears {
                simulation.node(node).clear_faults();
            }
            simulation.node(node).set_fault(Fault::missing_logs(missing));
        };
        (0..nodes).for_each(|node| lacks(false, node));
        while simulation.start.elapsed() < Duration::from_millis(28_000) {
            let now = u64::try_from(simulation.start.elapsed().as_millis()).unwrap();
            simulation.at(now + rng.u64(500..5_000)).await;
            let node = rng.usize(..nodes - 1);
            lacks(true, node);
            match rng.u8(..4) {
                0 => simulation.node(node).set_fault(Fault::Down),
                1 => simulation.node(node).set_fault(Fault::Hang),
                2 => simulation.node(node).set_fault(Fault::slow(rng.u64(10..500))),
                _ => {}
            }
        }
        for node in 0..nodes {
            simulation.node(node).clear_faults();
            simulation.node(node).settled().await;
        }
        let bloom = simulation.devnet.chain().block(missing).unwrap().bloom;
        let concerned: Vec<bool> = (0..CLIENTS).map(|number| simulation.plan(number, 0, 0).may_want(&bloom)).collect();
        let reports = simulation.settle().await;
        for (number, (report, concerned)) in reports.iter().zip(&concerned).enumerate() {
            assert_eq!(report.closed.is_some(), *concerned, "seed {seed} client {number}: {:?}", report.closed);
        }
        simulation.app.shutdown().await;
        concerned.iter().filter(|concerned| **concerned).count()
    })
}

#[test]
fn a_block_without_logs_closes_only_clients_it_may_concern() {
    let seeds = seeds(0..300);
    let closed = AtomicU64::new(0);
    each(seeds.clone(), run_without_logs_of_a_block, |count| _ = closed.fetch_add(count as u64, Relaxed));
    let (count, closed) = ((seeds.end - seeds.start) * CLIENTS as u64, closed.into_inner());
    println!("seeds {seeds:?}: {closed} of {count} clients closed");
    assert!(closed * 10 > count && closed * 10 < count * 9);
}

#[test]
fn clients_hear_all_blocks_once_on_any_node_faults() {
    let seeds = seeds(0..2_000);
    let (heads, logs, calls) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    each(seeds.clone(), run, |reports| {
        for report in reports {
            heads.fetch_add(report.notified.0 as u64, Relaxed);
            logs.fetch_add(report.notified.1 as u64, Relaxed);
            calls.fetch_add(report.calls as u64, Relaxed);
        }
    });
    println!("seeds {seeds:?}: {heads:?} heads, {logs:?} logs, {calls:?} calls");
    let count = (seeds.end - seeds.start) * CLIENTS as u64;
    assert!(heads.into_inner() >= count * 10 && logs.into_inner() >= count * 10 && calls.into_inner() >= count * 50);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [5, 21] {
        let (first, second) = (run(seed), run(seed));
        for (a, b) in first.iter().zip(&second) {
            let differs = a.lines.iter().zip(&b.lines).position(|(a, b)| a != b);
            let short = |(at, line): &(Duration, String)| (*at, line.chars().take(120).collect::<String>());
            assert!(
                differs.is_none(),
                "seed {seed}: {:#?}",
                differs.map(|at| (short(&a.lines[at]), short(&b.lines[at])))
            );
        }
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(run(5)[0].lines, run(6)[0].lines, "the seed changes nothing");
}
