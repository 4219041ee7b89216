//! Faults of the nodes of a [`Simulation`]. The last of them is spared the most of it, so
//! that there is always a node that can serve.

use fastrand::Rng;
use steadfast::devnet::Fault;

use super::simulation::{Reach, Simulation};

/// An accident of one node, of all of them, or of the chain.
pub async fn disturb(simulation: &Simulation, reaches: &[Reach], rng: &mut Rng) {
    let nodes = reaches.len();
    match rng.u8(..12) {
        // The last node is spared, but for these.
        0 => {
            for node in 0..nodes {
                simulation.node(node).clear_faults();
                simulation.node(node).set_fault(Fault::Down);
            }
            let now = u64::try_from(simulation.start.elapsed().as_millis()).unwrap();
            simulation.at(now + rng.u64(100..3_000)).await;
            simulation.node(nodes - 1).clear_faults();
            // Until it serves, no other may eat calls: three answers lost are the end of a call
            // that may be what kills nodes.
            simulation.at(now + 6_000).await;
        }
        1 => {
            simulation.node(nodes - 1).clear_faults();
            simulation.node(nodes - 1).set_fault(Fault::lag(rng.u64(1..5)));
        }
        2 => {
            simulation.node(nodes - 1).clear_faults();
            // Logs can be had all the same, in another form.
            odd_about_logs(simulation, nodes - 1, rng);
        }
        3 | 4 => _ = simulation.devnet.chain().reorg(rng.u64(1..5)).unwrap(),
        _ => {
            let index = rng.usize(..nodes - 1);
            let node = simulation.node(index);
            node.clear_faults();
            // Over a link, an answer has nothing but its id to be told apart by: another call's
            // cannot be seen to be wrong.
            let is_called_by_http = reaches[index] != Reach::Ws;
            match rng.u8(..27) {
                0 | 1 => node.set_fault(Fault::Down),
                2 | 3 => node.set_fault(Fault::Hang),
                4 => node.set_fault(Fault::Mute),
                5 => node.set_fault(Fault::slow(rng.u64(10..1_000))),
                6 => node.set_fault(Fault::lag(rng.u64(1..20))),
                7 => node.set_fault(Fault::Freeze),
                8 => node.set_fault(Fault::Syncing),
                9 => node.set_fault(Fault::CutMidBody),
                10 => node.set_fault(Fault::Failing),
                11 => node.set_fault(Fault::Garbage),
                12 => node.set_fault(Fault::rate_limited(rng.u64(1..6))),
                13 => node.set_fault(Fault::quota(&[])),
                14 => node.set_fault(Fault::not_offered(&["eth_syncing"])),
                15 => node.set_fault(Fault::late(rng.u64(50..4_000))),
                22 if is_called_by_http => node.set_fault(Fault::alien_id(&[])),
                23 if is_called_by_http => node.set_fault(Fault::no_id(&[])),
                24 => node.set_fault(Fault::nulls(rng.u64(1..5))),
                25 => node.set_fault(Fault::max_connections(rng.u64(3..8))),
                16..=19 => odd_about_logs(simulation, rng.usize(..nodes - 1), rng),
                21 => node.set_fault(Fault::Gzip),
                _ => {}
            }
        }
    }
}

fn odd_about_logs(simulation: &Simulation, node: usize, rng: &mut Rng) {
    match rng.u8(..5) {
        0 => simulation.node(node).set_fault(Fault::OddLogs),
        1 => simulation.node(node).set_fault(Fault::NoLogsByHash),
        2 => simulation.node(node).set_fault(Fault::logs_limit(rng.u64(..3))),
        3 => simulation.node(node).set_fault(Fault::refuse(&["eth_getLogs"])),
        _ => {}
    }
}
