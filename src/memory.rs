//! Floor 1: the bytes that clients make the proxy hold, as one sum with one limit.
//!
//! Every door opens an [`Account`] for a connection and takes bytes as these come; a length that a
//! client only promises costs nothing. The bounds on single bodies, messages and buffers stand
//! beneath this one, which bounds the sum over ten thousand clients.

mod account;
mod budget;
mod eviction;
mod machine;

use crate::domain::refusal::Refusal;

pub use self::{
    account::{Account, Claim, Cut},
    budget::Budget,
    machine::quarter,
};

/// The setting's name, which refusals tell.
pub const SETTING: &str = "max_client_memory";
/// Bytes of one connection that are not counted, so that small calls one after the other never
/// touch the sum.
pub const FREE: usize = 8 * 1024;
/// Up to this size a single message or answer is not counted; so small a thing is bounded by the
/// number of connections.
pub const SMALL: usize = 4096;
/// Bytes that a call under way takes besides the bytes of its request and its answer.
pub const CALL: usize = 5 * 1024;
/// Bytes that an answer takes that passes piece by piece, on its way from the node's connection to
/// the client's.
pub const STREAM: usize = 256 * 1024;
/// The sum is at its limit, which is this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("clients make the proxy hold as much as {SETTING} allows, {0} bytes")]
pub struct Full(pub usize);

impl From<Full> for Refusal {
    fn from(Full(limit): Full) -> Self {
        Self::Limit { name: SETTING, limit }
    }
}
