//! The desk against a disk and a relay of memory: single scenes, and a random world.

mod acceptance;
mod again;
mod bench;
mod chain;
mod commands;
mod draining;
mod looking;
mod memory;
mod refusals;
mod sending;
mod stuck;
mod take_up;
mod tenants;
mod untaken;
mod world;
