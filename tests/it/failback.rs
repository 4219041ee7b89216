//! When calls go back to a primary that is steadily later than the backup: in bounded time, and no
//! client sees the chain go backwards. In simulated time, so the bounds are exact.

use std::time::Duration;

use crate::common::{
    client::{Client, call},
    heights::{active, millis, pollers, side, switches, until_active, well, worst},
    simulation::{Reach, Simulation, run_simulated},
};
use steadfast::devnet::Fault;
use tokio::time::{Instant, sleep, sleep_until};

const SEED: u64 = 3;

struct Case {
    block: u64,
    late: u64,
    reaches: [Reach; 2],
    /// How long it may take from the moment at which the primary answers again; `None` where it
    /// cannot be.
    home: Option<u64>,
}

/// The primary is out for three seconds, and comes back later than the backup by so much.
fn run(case: &Case) {
    let Case { block, late, reaches, home } = case;
    let time_limit = millis((2 * block).min(2000));
    println!("a block each {block} ms, the primary {late} ms late, {reaches:?}");
    run_simulated(SEED, async {
        let mut simulation = Simulation::start(SEED, reaches, "").await;
        let learnt = (8 * block).max(10_000);
        let end = learnt + 3_000 + home.unwrap_or(60_000) + 20 * block.max(&500);
        let _miner = simulation.mine(millis(*block), end);
        for number in 0..3 {
            let mut plan = simulation.plan(number, end - 1_000, end + 20_000);
            plan.fetches = true;
            simulation.admit(plan).await;
        }
        simulation.at(learnt).await;
        let (mut tasks, seen) = pollers(&simulation, 2).await;
        let out = Instant::now();
        simulation.node(0).set_fault(Fault::Down);
        sleep(millis(3_000)).await;
        assert_eq!(active(&simulation).await.as_deref(), Some("el-2"));
        let back = Instant::now();
        simulation.node(0).clear_faults();
        simulation.node(0).set_fault(Fault::late(*late));
        let limit = home.unwrap_or(60_000);
        let came = until_active(&simulation, "el-1", back + millis(limit)).await;
        if home.is_some() {
            let came = came.unwrap_or_else(|| panic!("still not home"));
            // The node got there, and stays there.
            sleep(millis(2_500)).await;
            let before = switches(&simulation).await;
            sleep_until(simulation.start + millis(end)).await;
            assert_eq!(active(&simulation).await.as_deref(), Some("el-1"));
            assert_eq!(switches(&simulation).await, before, "moves after it came home");
            println!("  home {:?} after it was back", came - back);
        } else {
            sleep_until(simulation.start + millis(end)).await;
        }
        well(&mut tasks);
        let longest = worst(&seen, back);
        assert!(longest <= time_limit + millis(100), "a call took {longest:?}");
        assert!(worst(&seen, out) < millis(2_500));
        if home.is_none() {
            // Half a minute lies between the first two waits, and twice as long between the next.
            let waits = |took: &Duration| *took > time_limit / 2;
            let waited = seen.lock().unwrap().iter().filter(|(at, took, _)| *at >= back && waits(took)).count();
            let spans = (back.elapsed().as_secs() / 30 + 1) as usize;
            assert!(waited <= 2 * 2 * spans, "{waited} calls waited in {:?}", back.elapsed());
        }
        drop(tasks);
        simulation.node(0).clear_faults();
        simulation.settle().await;
        simulation.app.shutdown().await;
    });
}

#[test]
fn a_primary_a_little_behind_the_backup_gets_its_traffic_back() {
    for reaches in [[Reach::Http, Reach::Http], [Reach::Both, Reach::Both], [Reach::Both, Reach::Http]] {
        for (block, late) in [(1_000, 300), (250, 75), (100, 30), (2_000, 600), (12_000, 3_600)] {
            run(&Case { block, late, reaches, home: Some(4_000 + late + block) });
        }
    }
}

#[test]
fn a_primary_a_block_behind_the_backup_gets_its_traffic_back() {
    for reaches in [[Reach::Http, Reach::Http], [Reach::Both, Reach::Both], [Reach::Both, Reach::Http]] {
        for (block, late) in [(12_000, 12_000), (1_000, 1_000), (250, 250), (250, 400), (100, 150), (2_000, 2_000)] {
            run(&Case { block, late, reaches, home: Some(6_000 + 2 * late + block) });
        }
    }
}

#[test]
fn for_a_primary_three_blocks_behind_calls_wait_rarely() {
    for (block, late) in [(1_000, 3_500), (12_000, 36_500), (100, 350)] {
        run(&Case { block, late, reaches: [Reach::Http, Reach::Http], home: None });
    }
}

#[test]
fn a_backup_that_lies_within_the_limit_keeps_no_calls() {
    for (block, lead) in [(1_000, 1), (1_000, 3), (1_000, 5), (250, 5), (100, 5), (100, 15), (12_000, 2), (12_000, 5)] {
        println!("a block each {block} ms, the backup claims {lead} more");
        run_simulated(SEED, async {
            let simulation = Simulation::start(SEED, &[Reach::Http, Reach::Http], "").await;
            let learnt = (8 * block).max(10_000);
            let end = learnt + 10_000 + (2 * lead + 20) * block + 60_000;
            let _miner = simulation.mine(millis(block), end);
            simulation.at(learnt).await;
            simulation.node(0).set_fault(Fault::Down);
            simulation.node(1).set_fault(Fault::lie(lead));
            // Clients ask for the block number all the while, so that the lie is shown to them.
            let asking = ask_on(&simulation).await;
            sleep(millis(3_000)).await;
            assert_eq!(active(&simulation).await.as_deref(), Some("el-2"));
            let back = Instant::now();
            simulation.node(0).clear_faults();
            let limit = millis(10_000 + (lead + 5) * block);
            let came = until_active(&simulation, "el-1", back + limit).await;
            let came = came.unwrap_or_else(|| panic!("the liar keeps the calls"));
            println!("  home {:?} after it was back", came - back);
            sleep(millis(3_000)).await;
            let before = switches(&simulation).await;
            while simulation.start.elapsed() < millis(end) {
                let side = side(&simulation).await;
                assert_eq!((&side["active"], &side["nodes"][0]["usable"]), (&"el-1".into(), &true.into()), "{side}");
                sleep(millis(200)).await;
            }
            assert_eq!(switches(&simulation).await, before);
            asking.abort();
            simulation.app.shutdown().await;
        });
    }
}

/// Clients that ask for the block number all the while, and take what they are told.
async fn ask_on(simulation: &Simulation) -> tokio::task::AbortHandle {
    let mut client = Client::over(simulation.net.connect(simulation.app.addr().port()).await.unwrap());
    tokio::spawn(async move {
        loop {
            client.post(call(1, "eth_blockNumber", "[]")).await;
            sleep(millis(50)).await;
        }
    })
    .abort_handle()
}

#[test]
fn heights_do_not_fall_for_a_primary_on_another_branch() {
    for (block, behind, nodes, home) in [
        (1_000, 1, 2, true),
        (12_000, 1, 2, true),
        (1_000, 3, 2, false),
        (1_000, 5, 2, false),
        (250, 4, 2, false),
        (12_000, 3, 2, false),
        // Another backup confirms the head of the one that serves.
        (1_000, 1, 3, true),
        (1_000, 4, 3, false),
    ] {
        println!("a block each {block} ms, the primary {behind} below, {nodes} nodes");
        run_simulated(SEED, async {
            let simulation = Simulation::start(SEED, &[Reach::Http; 3][..nodes], "").await;
            let learnt = (8 * block).max(10_000);
            let end = learnt + 30_000 + 40 * block;
            let _miner = simulation.mine(millis(block), end + 20_000);
            simulation.at(learnt).await;
            let (mut tasks, seen) = pollers(&simulation, 2).await;
            simulation.node(0).set_fault(Fault::Down);
            sleep(millis(3_000)).await;
            assert_eq!(active(&simulation).await.as_deref(), Some("el-2"));
            let back = Instant::now();
            simulation.node(0).clear_faults();
            simulation.node(0).set_fault(Fault::branch(8));
            simulation.node(0).set_fault(Fault::lag(behind));
            if home {
                let came = until_active(&simulation, "el-1", back + millis(10_000 + 4 * block)).await;
                assert!(came.is_some(), "still not home");
            }
            while simulation.start.elapsed() < millis(end) {
                sleep(millis(100)).await;
                well(&mut tasks);
                let is_proven = back.elapsed() > millis(10_000);
                assert!(!is_proven || side(&simulation).await["nodes"][0]["usable"] == true);
            }
            let longest = worst(&seen, back);
            assert!(longest <= millis((2 * block).min(2_000) + 100), "a call took {longest:?}");
            drop(tasks);
            // The node serves all the same when there is no other.
            (1..nodes).for_each(|node| simulation.node(node).set_fault(Fault::Down));
            let came = until_active(&simulation, "el-1", Instant::now() + millis(5_000)).await;
            assert!(came.is_some(), "nobody serves");
            let mut client = simulation.net.connect(simulation.app.addr().port()).await.map(Client::over).unwrap();
            let answer = client.post(call(1, "eth_blockNumber", "[]")).await.json();
            assert!(answer["result"].is_string(), "{answer}");
            simulation.app.shutdown().await;
        });
    }
}

#[test]
fn a_backup_that_others_contradict_does_not_keep_calls() {
    for (block, lead) in [(1_000, 3), (1_000, 5), (250, 5), (12_000, 4)] {
        println!("a block each {block} ms, the backup is {lead} ahead on a branch of its own");
        run_simulated(SEED, async {
            let simulation = Simulation::start(SEED, &[Reach::Http; 3], "").await;
            let learnt = (8 * block).max(10_000);
            let _miner = simulation.mine(millis(block), learnt + 20_000 + 40 * block);
            simulation.at(learnt).await;
            simulation.node(1).set_fault(Fault::branch(1));
            simulation.node(2).set_fault(Fault::lag(lead));
            simulation.node(0).set_fault(Fault::Down);
            let asking = ask_on(&simulation).await;
            sleep(millis(3_000)).await;
            assert_eq!(active(&simulation).await.as_deref(), Some("el-2"));
            let back = Instant::now();
            simulation.node(0).clear_faults();
            simulation.node(0).set_fault(Fault::lag(lead));
            let came = until_active(&simulation, "el-1", back + millis(10_000 + (lead + 5) * block)).await;
            println!("  home {:?} after it was back", came.expect("the backup keeps the calls") - back);
            let until = Instant::now() + millis(5_000 + 10 * block);
            while Instant::now() < until {
                assert_eq!(active(&simulation).await.as_deref(), Some("el-1"));
                sleep(millis(200)).await;
            }
            asking.abort();
            simulation.app.shutdown().await;
        });
    }
}
