//! Spans of clients' requests, as a collector gets them: in builds with the feature `otlp`. All
//! runs on a network of memory and in simulated time.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses its part, and a helper that cannot go on fails"
)]

#[path = "../common/mod.rs"]
mod common;

mod collector;
mod export;
mod spans;
