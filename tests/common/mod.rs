//! Shared by the tests of the promises: a proxy over given nodes, a client that speaks raw HTTP, a
//! node that does as it is told.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses its part, and a helper that cannot go on fails"
)]

pub mod binary;
pub mod client;
pub mod disturb;
pub mod heights;
pub mod log;
pub mod origin;
pub mod ports;
pub mod proxy;
pub mod rest;
pub mod seeds;
pub mod signed;
pub mod sim;
pub mod simulation;
pub mod witness;
pub mod ws;

use std::time::Duration;

use steadfast::{
    devnet::{Devnet, Options},
    net::system::System,
};
use tokio::time::{Instant, sleep};

/// Long enough for anything that is to come, on a busy machine too.
pub const SOON: Duration = Duration::from_secs(10);

/// A pretend network on loopback.
pub async fn devnet(options: Options) -> Devnet {
    Devnet::start(options, std::sync::Arc::new(System)).await.unwrap()
}

/// Waits until `check` holds.
pub async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < SOON, "still not so after {SOON:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
