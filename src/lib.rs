//! Steadfast: a resilient front door for Ethereum nodes.
//!
//! `docs/ARCHITECTURE.md` is the map of the floors: a module imports only from the floors below it.

pub mod app;
pub mod call;
pub mod chain;
pub mod cli;
pub mod config;
pub mod devnet;
pub mod domain;
pub mod door;
pub mod events;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod pool;
pub mod route;
pub mod view;
