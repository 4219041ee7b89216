//! Floor 3, knowledge.

pub mod head;

pub mod health;
