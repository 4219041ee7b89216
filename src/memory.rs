//! Floor 1: the bytes that clients make the proxy hold, as one sum with one limit.
//!
//! Every door opens an [`Account`] for a connection and takes bytes as these come; a length that a
//! client only promises costs nothing. The bounds on single bodies, messages and buffers stand
//! beneath this one, which bounds the sum over ten thousand clients.

mod account;
mod budget;
mod largest;
mod machine;

use std::time::Duration;

use bytes::BytesMut;

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
/// For how long notifications and events that wait for a client count as shared with all other
/// clients.
pub const SHARED: Duration = Duration::from_secs(1);

/// The room for a buffer of `capacity` that has to take `needed` bytes: twice the capacity, so that
/// growing piece by piece costs little, but no more than the `total` that is to come.
pub fn grown(capacity: usize, needed: usize, total: usize) -> usize {
    if needed <= capacity { capacity } else { needed.max((2 * capacity).min(total)) }
}

/// Gives `buffer` room for the `bytes` that were claimed, and for no more. A buffer that grows by
/// itself doubles.
pub fn make_room(buffer: &mut BytesMut, bytes: usize) {
    if bytes >= 2 * buffer.capacity() {
        buffer.reserve(bytes - buffer.len());
    } else if bytes > buffer.capacity() {
        let mut larger = BytesMut::with_capacity(bytes);
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
}

/// The sum is at its limit, which is this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client memory limit reached: {SETTING} is {0} bytes")]
pub struct Full(pub usize);

impl From<Full> for Refusal {
    fn from(Full(limit): Full) -> Self {
        Self::Limit { name: SETTING, limit }
    }
}
