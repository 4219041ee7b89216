//! Polled filters under random faults, reorganisations and outages, in simulated time: what the
//! polls of a filter say, applied one after the other, is the canonical chain since the filter was
//! made. Each schedule is known by its seed; the same seed gives the same run.
//!
//! `STEADFAST_SEEDS=FROM..TO` chooses others than the usual ones.

mod client;
mod told;

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::common::{
    disturb::disturb,
    heights::metric,
    seeds::{each, seeds},
    simulation::{MOSTLY_BOTH, Simulation, run_simulated, some_nodes},
};
use client::{Plan, Report, poll};
use fastrand::Rng;
use tokio::task::JoinSet;

const CLIENTS: usize = 3;
/// No node is to see one of these.
const FILTER_METHODS: [&str; 5] =
    ["eth_newFilter", "eth_newBlockFilter", "eth_getFilterChanges", "eth_getFilterLogs", "eth_uninstallFilter"];

fn run(seed: u64) -> Vec<Report> {
    run_simulated(seed, async {
        let mut rng = Rng::with_seed(seed);
        let reaches = some_nodes(&mut rng, &MOSTLY_BOTH);
        let nodes = reaches.len();
        let policy = ["first", "spread", "weighted", "fastest"][rng.usize(..4)];
        // Backlogs that are given up have tests of their own, and so have logs that nobody gives.
        let more = format!("[chain]\ntimeout = \"1m\"\n[calls]\npolicy = \"{policy}\"\n");
        let simulation = Simulation::start(seed, &reaches, &more).await;
        // From 100 ms to 12 s, short ones as often as long ones.
        let spacing = (100.0 * 120.0_f64.powf(rng.f64())) as u64;
        // Half a minute, and less where a hundred blocks come sooner: short runs are soon more runs.
        let faults_until = (100 * spacing).clamp(15_000, 30_000).max(8 * spacing);
        let blocks_until = faults_until + 8_000 + 2 * spacing;
        let _miner = simulation.mine(Duration::from_millis(spacing), blocks_until);
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let plan = Plan {
                name: format!("seed {seed} client {number}"),
                rng: Rng::with_seed(seed << 8 | number as u64),
                net: simulation.net.clone(),
                port: simulation.app.addr().port(),
                chain: simulation.devnet.chain().clone(),
                // Blocks that a node may be behind, and those of an outage.
                behind: 30 + 10_000 / spacing,
                until: simulation.start + Duration::from_millis(faults_until + 4_000),
                end: simulation.start + Duration::from_millis(blocks_until + 10_000 + spacing),
                filter: simulation.plan(number, 0, 0).filter,
            };
            clients.spawn(async move { (number, poll(plan).await) });
        }
        while simulation.start.elapsed() < Duration::from_millis(faults_until) {
            let now = u64::try_from(simulation.start.elapsed().as_millis()).unwrap();
            simulation.at(now + rng.u64(50..4_000.max(spacing))).await;
            disturb(&simulation, &reaches, &mut rng).await;
        }
        for node in 0..nodes {
            simulation.node(node).clear_faults();
        }
        let mut reports = Vec::new();
        while let Some(done) = clients.join_next().await {
            reports.push(done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
        }
        reports.sort_by_key(|(number, _)| *number);
        let (heads, gaps) = (simulation.heads(), metric(&simulation, "steadfast_gaps_skipped_total").await);
        for (number, report) in &reports {
            let logs = simulation.logs(simulation.plan(*number, 0, 0).filter).await;
            for told in &report.filters {
                told.settle(&heads, &logs);
            }
            assert!(report.lost == 0 || gaps > 0, "seed {seed} client {number}: {} filters were lost", report.lost);
        }
        for node in 0..nodes {
            let counts = simulation.node(node).counts();
            let ours: Vec<_> = counts.iter().filter(|(method, _)| FILTER_METHODS.contains(&method.as_str())).collect();
            assert!(ours.is_empty(), "seed {seed}: a node was asked for {ours:?}");
        }
        simulation.app.shutdown().await;
        reports.into_iter().map(|(_, report)| report).collect()
    })
}

#[test]
fn the_polls_of_every_filter_add_up_to_the_chain() {
    let seeds = seeds(0..2_000);
    let sums: [AtomicU64; 6] = Default::default();
    let add = |sum: usize, count: usize| _ = sums[sum].fetch_add(count as u64, Relaxed);
    each(seeds.clone(), run, |reports| {
        for report in reports {
            add(0, report.filters.len());
            add(1, report.filters.iter().map(|told| told.polls).sum());
            add(2, report.filters.iter().map(|told| told.added).sum());
            add(3, report.filters.iter().map(|told| told.removed).sum());
            add(4, report.unread);
            add(5, report.lost);
        }
    });
    let [filters, polls, added, removed, unread, lost] = sums.map(AtomicU64::into_inner);
    println!(
        "seeds {seeds:?}: {filters} filters, {polls} polls, {added} entries, {removed} of them removed, {unread} answers lost, {lost} filters lost"
    );
    let count = (seeds.end - seeds.start) * CLIENTS as u64;
    assert!(filters >= count * 2 && polls >= count * 20 && added >= count * 20, "there was too little to tell");
    assert!(unread >= count, "too few answers were lost");
    // A gap that could not be filled takes the filters that it concerns; it is a rare thing.
    assert!(lost * 200 <= filters, "{lost} of {filters} filters were lost");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 8] {
        assert!(run(seed) == run(seed), "seed {seed}");
    }
    assert!(run(3) != run(4), "the seed changes nothing");
}
