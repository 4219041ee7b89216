//! The beacon API through the proxy: what passes, what is repeated and what is not, and what of it streams.
#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod common;

#[path = "beacon_rest/clocks.rs"]
mod clocks;
#[path = "beacon_rest/differing.rs"]
mod differing;
#[path = "beacon_rest/duties.rs"]
mod duties;
#[path = "beacon_rest/guard.rs"]
mod guard;
#[path = "beacon_rest/own.rs"]
mod own;
#[path = "beacon_rest/passing.rs"]
mod passing;
#[path = "beacon_rest/publishing.rs"]
mod publishing;
#[path = "beacon_rest/reading.rs"]
mod reading;
#[path = "beacon_rest/reloading.rs"]
mod reloading;
#[path = "beacon_rest/streaming.rs"]
mod streaming;

/// Settings with which every HTTP method is passed on that may be.
const ALL_METHODS: &str =
    "[beacon]\nmethods = [\"GET\", \"HEAD\", \"POST\", \"OPTIONS\", \"PUT\", \"PATCH\", \"DELETE\"]\n";
