//! Floor 5, exchanges: the parts that an exchange with a node has, on both APIs.
//!
//! [`crate::call`] runs JSON-RPC calls and [`crate::beacon`] runs requests to the beacon API. Both
//! take the same steps: [`tries`] holds the rounds and the pauses, [`next_node`] picks the node,
//! [`queue`] holds the exchanges that no node can serve, [`attempt_count`] counts the attempts, and
//! [`background`] runs those that go on without a client. The log hears of an exchange by
//! [`failures`] and [`trace`]. Each API has rules of its own for answers.

pub mod attempt_count;
pub mod background;
pub mod failures;
pub mod next_node;
pub mod pick;
pub mod pieces;
pub mod queue;
pub mod trace;
pub mod tries;
