//! The desk against a disk and a relay of memory: single scenes, and a random world.

mod acceptance;
mod bench;
mod chain;
mod commands;
mod sending;
mod world;
