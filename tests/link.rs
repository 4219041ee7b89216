//! The link to a node's WebSocket, against a node that speaks real frames and does as the test says. The clock is the test's.
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

#[path = "link/calls.rs"]
mod calls;
#[path = "link/connecting.rs"]
mod connecting;
#[path = "link/losses.rs"]
mod losses;
#[path = "link/peer.rs"]
mod peer;
#[path = "link/subscriptions.rs"]
mod subscriptions;
