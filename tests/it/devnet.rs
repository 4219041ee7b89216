//! The pretend network as its clients see it: real HTTP and real WebSockets on loopback.

mod beacon_values;
mod client;
mod consensus;
mod control;
mod duties;
mod execution;
mod execution_api;
mod faults;
mod forms;
mod subscriptions;
mod values;
