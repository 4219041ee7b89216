//! The binary: exit codes only.

fn main() {}
