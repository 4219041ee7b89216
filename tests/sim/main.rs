//! Long runs of the production code in simulated time, each known by its seed, judged against a model.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and its modules have no outside"
)]

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod cluster;
mod events;
mod filters;
mod outbox;
mod outbox_replicas;
mod validators;
mod websockets;
