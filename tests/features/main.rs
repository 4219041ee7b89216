//! The promises as an operator reads them: `features/*.feature`, each scenario with a pretend network and a proxy of its own.
//!
//! What is skipped, undefined, ambiguous or unreadable fails the run, and so does a run of nothing. No scenario is tried twice.
#![expect(clippy::unwrap_used, reason = "a step that cannot go on fails")]
#![expect(unreachable_pub, reason = "the modules of one test have no outside")]

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
mod nodes;
mod operator;
mod process;
mod queue;
mod secrets;
mod sockets;
mod states;
mod subscriptions;
mod traffic;
mod world;

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use cucumber::{World as _, event::ScenarioFinished, writer::Stats as _};

use crate::world::Proxy;

static PASSED: AtomicUsize = AtomicUsize::new(0);
/// The names of the scenarios that failed.
static FAILED: Mutex<Vec<String>> = Mutex::new(Vec::new());

// One thread for the pretend nodes and the clients: what reaches a node first is then recorded first.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = Proxy::cucumber()
        .max_concurrent_scenarios(4)
        .retry_options(|_, _, _, _| None)
        .after(|feature, _, scenario, outcome, proxy| {
            let good = matches!(outcome, ScenarioFinished::StepPassed) && !scenario.steps.is_empty();
            if good {
                PASSED.fetch_add(1, Relaxed);
            } else {
                FAILED.lock().unwrap().push(format!("{}: {}", feature.name, scenario.name));
            }
            Box::pin(async move {
                if let Some(proxy) = proxy {
                    proxy.end().await;
                }
            })
        })
        .fail_on_skipped_with(|_, _, _| true)
        .run(concat!(env!("CARGO_MANIFEST_DIR"), "/features"))
        .await;
    let passed = PASSED.load(Relaxed);
    let failures = FAILED.lock().unwrap();
    for name in failures.iter() {
        println!("failed: {name}");
    }
    let failed = failures.len() + outcome.parsing_errors() + outcome.hook_errors();
    // What the writer saw and the count did not is a failure too.
    let failed = failed.max(usize::from(outcome.execution_has_failed() || passed == 0));
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
