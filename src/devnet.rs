//! The pretend network.
