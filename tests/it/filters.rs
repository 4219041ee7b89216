//! Filters that clients poll: they belong to the network, and no node's end is an event for them.

mod bounds;
mod doors;
mod endings;
mod leaving;
mod meaning;
mod setup;
mod switches;
mod transactions;
