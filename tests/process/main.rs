//! The binary as a process of its own, under limits that the system sets it and under attacks that clients make: the process lives,
//! honest calls are answered, and the admin side is there throughout.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses its part of the harness, and a helper that cannot go on fails its test"
)]

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "real-nats")]
mod cluster;
mod descriptors;
mod dev;
mod filters;
mod harness;
mod large_state;
mod log;
mod memory;
mod outbox;
mod shares;
mod sockets;
mod vanishing;
mod work;
