//! Twenty WebSocket clients, each with `newHeads`, `logs` and twenty calls a second, while nodes die, hang, fall silent and return:
//! no call is lost or late, no block or log is missed or told twice, nobody is closed.
//!
//! Time is simulated, so the bounds are exact, and hold whatever else the machine does.

use std::time::Duration;

use crate::common::{
    simulation::{Reach, Simulation, run_simulated},
    witness::Report,
};
use steadfast::devnet::Fault;

const SEED: u64 = 7;
const CLIENTS: usize = 20;
/// All in milliseconds from the start.
const FAULT: u64 = 10_000;
const RETURN: u64 = 20_000;
const CALLS_UNTIL: u64 = 32_000;
const BLOCKS_UNTIL: u64 = 36_000;
const END: u64 = 44_000;

const ABRUPT: Duration = Duration::from_millis(250);
const HANG: Duration = Duration::from_millis(2500);

/// Each way in which nodes may be reached.
const REACHES: [[Reach; 2]; 6] = [
    [Reach::Both, Reach::Both],
    [Reach::Http, Reach::Http],
    [Reach::Ws, Reach::Ws],
    [Reach::Both, Reach::Http],
    [Reach::Ipc, Reach::Ipc],
    [Reach::HttpAndIpc, Reach::Http],
];

struct Course {
    reaches: [Reach; 2],
    /// Whether what is announced can be fetched at that moment; a stand-by that lags cannot know yet what the primary announced.
    fetches: bool,
    worst: Duration,
    /// The longest time between two heads; blocks come every second.
    quiet: Duration,
}

fn run(course: &Course, events: impl AsyncFn(&Simulation)) -> Vec<Report> {
    run_simulated(SEED, async {
        let mut simulation = Simulation::start(SEED, &course.reaches, "").await;
        for number in 0..CLIENTS {
            let mut plan = simulation.plan(number, CALLS_UNTIL, END);
            plan.fetches = course.fetches;
            simulation.admit(plan).await;
        }
        let _miner = simulation.mine(Duration::from_secs(1), BLOCKS_UNTIL);
        events(&simulation).await;
        simulation.at(BLOCKS_UNTIL).await;
        assert!(simulation.node(1).count("eth_gasPrice") > 10, "the stand-by was never called");
        // Home again, without a restart or a reconnect.
        simulation.node(0).clear_records();
        simulation.node(1).clear_records();
        let reports = simulation.settle().await;
        for (number, report) in reports.iter().enumerate() {
            assert!(report.calls > 400, "client {number}: {} calls", report.calls);
            assert!(report.notified.0 > 30, "client {number}: {} heads", report.notified.0);
            assert!(report.worst <= course.worst, "client {number}: the worst call took {:?}", report.worst);
            assert!(report.quiet <= course.quiet, "client {number}: no head for {:?}", report.quiet);
        }
        assert!(reports.iter().any(|report| report.notified.1 > 30), "no logs");
        simulation.app.shutdown().await;
        reports
    })
}

#[test]
fn the_primary_is_cut_and_returns() {
    for reaches in REACHES {
        println!("{reaches:?}");
        let course = Course { reaches, fetches: true, worst: ABRUPT, quiet: Duration::from_millis(2500) };
        run(&course, async |simulation| {
            simulation.at(FAULT).await;
            simulation.node(0).set_fault(Fault::Down);
            simulation.at(RETURN).await;
            simulation.node(0).clear_faults();
            simulation.at(RETURN + 6_000).await;
            simulation.node(0).clear_records();
            simulation.at(RETURN + 8_000).await;
            assert!(simulation.node(0).count("eth_gasPrice") > 100, "calls did not go home");
        });
    }
}

#[test]
fn the_primary_hangs() {
    for reaches in REACHES {
        println!("{reaches:?}");
        let course = Course { reaches, fetches: true, worst: HANG, quiet: Duration::from_secs(4) };
        run(&course, async |simulation| {
            simulation.at(FAULT).await;
            simulation.node(0).set_fault(Fault::Hang);
            simulation.at(RETURN).await;
            simulation.node(0).clear_faults();
        });
    }
}

#[test]
fn the_primary_goes_silent_with_its_socket_open() {
    for reaches in REACHES {
        println!("{reaches:?}");
        // Its calls are answered all the while, so they stay; only heads come by asking.
        let course = Course { reaches, fetches: true, worst: ABRUPT, quiet: Duration::from_millis(2500) };
        run(&course, async |simulation| {
            simulation.at(FAULT).await;
            simulation.node(0).set_fault(Fault::Mute);
            simulation.at(RETURN).await;
            simulation.node(0).clear_faults();
            simulation.node(0).set_fault(Fault::Down);
            simulation.at(RETURN + 2_000).await;
            simulation.node(0).clear_faults();
        });
    }
}

#[test]
fn the_primary_flaps_four_times() {
    for reaches in REACHES {
        println!("{reaches:?}");
        let course = Course { reaches, fetches: true, worst: ABRUPT, quiet: Duration::from_millis(2500) };
        run(&course, async |simulation| {
            for flap in 0..4 {
                simulation.at(FAULT + flap * 3_000).await;
                simulation.node(0).set_fault(Fault::Down);
                simulation.at(FAULT + flap * 3_000 + 1_000).await;
                simulation.node(0).clear_faults();
            }
        });
    }
}

#[test]
fn both_nodes_are_down_for_three_seconds() {
    for reaches in REACHES {
        println!("{reaches:?}");
        let course =
            Course { reaches, fetches: true, worst: Duration::from_millis(4_500), quiet: Duration::from_millis(6_000) };
        run(&course, async |simulation| {
            simulation.at(FAULT).await;
            simulation.node(0).set_fault(Fault::Down);
            simulation.node(1).set_fault(Fault::Down);
            simulation.at(FAULT + 3_000).await;
            simulation.node(1).clear_faults();
            simulation.at(RETURN).await;
            simulation.node(0).clear_faults();
        });
    }
}

#[test]
fn the_stand_by_is_three_blocks_behind() {
    for reaches in REACHES {
        println!("{reaches:?}");
        let course = Course { reaches, fetches: false, worst: ABRUPT, quiet: Duration::from_millis(6_000) };
        run(&course, async |simulation| {
            simulation.node(1).set_fault(Fault::lag(3));
            simulation.at(FAULT).await;
            simulation.node(0).set_fault(Fault::Down);
            simulation.at(RETURN).await;
            simulation.node(0).clear_faults();
            simulation.at(RETURN + 8_000).await;
            simulation.node(1).clear_faults();
        });
    }
}

#[test]
fn a_reorganisation_falls_into_the_switch() {
    for reaches in REACHES {
        println!("{reaches:?}");
        let course = Course { reaches, fetches: true, worst: ABRUPT, quiet: Duration::from_millis(2500) };
        let reports = run(&course, async |simulation| {
            simulation.at(FAULT).await;
            simulation.node(0).set_fault(Fault::Down);
            simulation.devnet.chain().reorg(2).unwrap();
            simulation.at(RETURN).await;
            simulation.node(0).clear_faults();
            simulation.devnet.chain().reorg(3).unwrap();
        });
        let removed = reports[0].lines.iter().filter(|(_, line)| line.contains(r#""removed":true"#)).count();
        assert!(removed > 2, "{removed} logs were taken back");
    }
}
