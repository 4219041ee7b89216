//! Floor 6: beacon events.
pub mod beacon;
mod seen;
pub mod sse;
pub mod stitch;
pub mod topics;
