//! What nodes with a WebSocket tell and do, on a network of memory under a simulated clock: heads as they come, links that are lost or
//! mute, and nodes that have nothing but their WebSocket.
#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod common;

#[path = "links/heads.rs"]
mod heads;
#[path = "links/only.rs"]
mod only;
#[path = "links/refusing.rs"]
mod refusing;
