//! The link to a node's WebSocket, against a node that speaks real frames and does as the test
//! says. The clock is the test's.

mod calls;
mod connecting;
mod losses;
mod peer;
mod subscriptions;
