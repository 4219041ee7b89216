//! The binary as a process of its own, under limits that the system sets it and under attacks that clients make: the process lives,
//! honest calls are answered, and the admin side is there throughout.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses its part of the harness, and a helper that cannot go on fails its test"
)]

mod common;

#[path = "process/descriptors.rs"]
mod descriptors;
#[path = "process/dev.rs"]
mod dev;
#[path = "process/filters.rs"]
mod filters;
#[path = "process/harness.rs"]
mod harness;
#[path = "process/memory.rs"]
mod memory;
#[path = "process/shares.rs"]
mod shares;
#[path = "process/work.rs"]
mod work;
