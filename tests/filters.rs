//! Filters that clients poll: they belong to the network, and no node's end is an event for them.
#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

#[path = "filters/bounds.rs"]
mod bounds;
mod common;
#[path = "filters/doors.rs"]
mod doors;
#[path = "filters/meaning.rs"]
mod meaning;
#[path = "filters/stage.rs"]
mod stage;
#[path = "filters/switches.rs"]
mod switches;
#[path = "filters/transactions.rs"]
mod transactions;
