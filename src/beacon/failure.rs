//! How a request to the beacon API ends without a node's answer.

use std::io;

use crate::domain::refusal::Refusal;

/// Why a request gets no node's answer.
#[derive(Debug)]
pub enum Failure {
    /// An error of the proxy's own.
    Refused(Refusal),
    /// The body is longer than this, and all nodes would have to be told the body.
    TooLong(usize),
    /// The client did not send the whole body.
    Unsent(io::Error),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}
