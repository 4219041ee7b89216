//! The promises as an operator reads them: `features/*.feature`, each scenario with a network and a proxy of its own.
//!
//! `STEADFAST_NETWORK` names the network: `devnet`, the pretend one, unless told otherwise; `anvil` or
//! `kurtosis`, where the scenarios tagged `@testnet` run, and no other.
//!
//! What is skipped, undefined, ambiguous or unreadable fails the run, and so does a run of nothing. No scenario is tried twice.
#![expect(clippy::unwrap_used, reason = "a step that cannot go on fails")]
#![expect(unreachable_pub, reason = "the modules of one test have no outside")]

mod archives;
mod beacon;
#[allow(dead_code, reason = "other tests use other parts")]
#[path = "../common/binary.rs"]
mod binary;
mod calls;
mod duties;
mod effects;
mod events;
mod filters;
mod heard;
mod network;
mod nodes;
mod operator;
#[path = "../common/ports.rs"]
mod ports;
mod process;
mod queue;
mod report;
mod secrets;
mod sockets;
mod states;
mod subscriptions;
mod traffic;
mod world;

use std::{
    process::ExitCode,
    sync::{LazyLock, Mutex},
};

use cucumber::{World as _, writer::Stats as _};

use crate::{
    network::{Kind, chosen},
    report::{Failures, Report, is_tagged},
    world::Proxy,
};

static REPORT: LazyLock<Mutex<Report>> = LazyLock::new(Mutex::default);

const FEATURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/features");

// One thread for the pretend nodes and the clients: what reaches a node first is then recorded first.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let runner = Proxy::cucumber().max_concurrent_scenarios(chosen().at_once()).retry_options(|_, _, _, _| None).after(
        |feature, _, scenario, outcome, proxy| {
            REPORT.lock().unwrap().note(feature, scenario, outcome);
            Box::pin(async move {
                if let Some(proxy) = proxy {
                    proxy.end().await;
                }
            })
        },
    );
    let (errors, has_failed) = if chosen() == Kind::Devnet {
        let outcome = runner.fail_on_skipped_with(|_, _, _| true).run(FEATURES).await;
        (outcome.parsing_errors() + outcome.hook_errors(), outcome.execution_has_failed())
    } else {
        let runner = runner.with_writer(Failures::default());
        let outcome = runner.filter_run(FEATURES, |feature, _, scenario| is_tagged(feature, scenario)).await;
        (outcome.errors, false)
    };
    let mut report = REPORT.lock().unwrap();
    if std::env::args().len() == 1 {
        let unused = report.unused();
        report.failed.extend(unused);
    }
    for name in &report.failed {
        println!("failed: {name}");
    }
    let (passed, elsewhere) = (report.passed, report.elsewhere.len());
    // What the writer saw and the count did not is a failure too.
    let failed = (report.failed.len() + errors).max(usize::from(has_failed || passed == 0));
    if chosen() == Kind::Devnet {
        println!("{passed} passed, {failed} failed");
        println!("{} of those that passed are tagged @testnet", report.tagged);
    } else {
        let total = passed + elsewhere + failed;
        let failures = if failed == 0 { String::new() } else { format!(", {failed} failed") };
        println!("{total} scenarios ({passed} passed, {elsewhere} not on this network{failures})");
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
