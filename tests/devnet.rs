//! The pretend network as its clients see it: real HTTP and real WebSockets on loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(unreachable_pub, reason = "the modules of one test have no outside")]

#[path = "devnet/client.rs"]
mod client;
#[path = "devnet/consensus.rs"]
mod consensus;
#[path = "devnet/control.rs"]
mod control;
#[path = "devnet/duties.rs"]
mod duties;
#[path = "devnet/execution.rs"]
mod execution;
#[path = "devnet/faults.rs"]
mod faults;
#[path = "devnet/subscriptions.rs"]
mod subscriptions;
