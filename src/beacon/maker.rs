//! The node that made the latest block.
//!
//! Rule: for two slots after a node has made a block for a client, signed blocks and envelopes of
//! payloads go to that node first. Reason: of a blinded block, and of an envelope, only that node
//! has the payload, and it need not be the node of the view. Example: node A of the view takes long
//! over a block, so node B is asked beside A, and B's block is the client's. The client signs the
//! block: B gets it, and a word of A on it would not count as long as another node can be asked.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::Method;
use tokio::time::Instant;

use super::Request;
use crate::domain::beacon_route::Class;

/// A block that is not signed in that many slots is too late.
const SLOTS: u32 = 2;

/// The node that made the latest block, and when.
#[derive(Default)]
pub(super) struct Maker(Mutex<Option<(usize, Instant)>>);

impl Maker {
    /// The node has made a block.
    pub(super) fn made(&self, node: usize) {
        self.set(Some((node, Instant::now())));
    }

    /// The node, while its block may still be published; slots take `slot`.
    pub(super) fn node(&self, slot: Duration) -> Option<usize> {
        self.get().filter(|(_, at)| at.elapsed() < slot * SLOTS).map(|(node, _)| node)
    }

    /// Takes over the node of an earlier pool, which has this place here.
    pub(super) fn inherit(&self, earlier: &Self, place: impl Fn(usize) -> Option<usize>) {
        self.set(earlier.get().and_then(|(node, at)| Some((place(node)?, at))));
    }

    fn get(&self) -> Option<(usize, Instant)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, made: Option<(usize, Instant)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = made;
    }
}

/// The first two steps behind `/eth/v…/`.
fn steps(request: &Request) -> (&str, &str) {
    let mut steps = request.target.path().trim_matches('/').split('/').skip(2);
    (steps.next().unwrap_or_default(), steps.next().unwrap_or_default())
}

/// Whether the answer is a block to be signed.
pub(super) fn makes_a_block(request: &Request) -> bool {
    request.method == Method::GET && matches!(steps(request), ("validator", "blocks" | "blinded_blocks"))
}

/// Whether a signed block, or the envelope of a payload, is published.
pub(super) fn publishes_a_block(request: &Request) -> bool {
    request.route.class == Class::Publish && request.route.is_duty && request.route.group != "validator"
}

/// Whether the request is of use to the node that made the block in the first place.
pub(super) fn is_for_the_maker(request: &Request) -> bool {
    publishes_a_block(request) || steps(request) == ("validator", "execution_payload_envelopes")
}

/// Whether only the node that made the block can judge the request.
pub(super) fn is_blinded(request: &Request) -> bool {
    publishes_a_block(request) && steps(request).1 == "blinded_blocks"
}
