//! A validator client before a proxy, before one node, and before a plain round robin, in simulated time: nodes are cut, hang, flap and are
//! restarted one after the other, slots are empty, and blocks come late. Each run is known by its seed.
//!
//! `STEADFAST_SEEDS=FROM..TO` chooses others than the usual ones.

mod client;
mod events;
mod lateness;
mod script;
mod setup;
mod simulation;
