//! A validator client before a proxy, before one node, and before a plain round robin, in simulated time: nodes are cut, hang, flap and are
//! restarted one after the other, slots are empty, and blocks come late. Each run is known by its seed.
//!
//! `STEADFAST_SEEDS=FROM..TO` chooses others than the usual ones.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

#[path = "validators/client.rs"]
mod client;
mod common;
#[path = "validators/events.rs"]
mod events;
#[path = "validators/lateness.rs"]
mod lateness;
#[path = "validators/script.rs"]
mod script;
#[path = "validators/simulation.rs"]
mod simulation;
#[path = "validators/stage.rs"]
mod stage;
