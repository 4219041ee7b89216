//! Floor 5, exchanges: the parts that an exchange with a node has, on both APIs.
//!
//! [`crate::call`] runs JSON-RPC calls and [`crate::beacon`] runs requests to the beacon API. Both
//! take the same steps: [`tries`] holds the rounds and the pauses, [`choice`] picks the node,
//! [`queue`] holds the exchanges that no node can serve, and [`count`] counts the attempts. Each
//! API has rules of its own for answers.

pub mod choice;
pub mod count;
pub mod pieces;
pub mod queue;
pub mod tries;
