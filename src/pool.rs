//! Floor 3, knowledge.

pub mod head;
