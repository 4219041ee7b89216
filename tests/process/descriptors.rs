//! Few descriptors: `ulimit -n`.
