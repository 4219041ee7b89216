//! The beacon API through the proxy: what passes, what is repeated and what is not, and what of it streams.

mod clocks;
mod differing;
mod duties;
mod foreign;
mod forms;
mod guard;
mod judged;
mod makers;
mod own;
mod passing;
mod publishing;
mod publishing_beside;
mod publishing_doubts;
mod publishing_lists;
mod publishing_losses;
mod publishing_unkept;
mod quotas;
mod races;
mod reading;
mod reloading;
mod shares;
mod stalls;
mod streaming;
mod waiting;

/// Settings with which every HTTP method is passed on that may be.
const ALL_METHODS: &str =
    "[beacon]\nmethods = [\"GET\", \"HEAD\", \"POST\", \"OPTIONS\", \"PUT\", \"PATCH\", \"DELETE\"]\n";
